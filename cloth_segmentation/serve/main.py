"""The command for the service: what it is told, and whether it can be done here."""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from cloth_segmentation.command.flags import describe, parse
from cloth_segmentation.command.signals import heeded_stops
from cloth_segmentation.errors import RunError
from cloth_segmentation.segmenter import Segmenter
from cloth_segmentation.serve.options import ServeOptions

if TYPE_CHECKING:
    from fastapi import FastAPI

Mount = Callable[["FastAPI", Segmenter, ServeOptions], None]
"""Adds the page to the application."""

KEYS = "CLOTH_SEGMENTATION_KEYS"
"""Environment variable of keys, separated by commas."""

GRACE = 5
"""Seconds more than a request may take for which the process waits for the last ones, once it was told to end."""


def read_keys(opt: ServeOptions) -> list[str]:
    """The keys of which requests must bring one. Raises RunError."""
    if opt.keys:
        source, path = f"--keys {opt.keys}", Path(opt.keys)
        try:
            found = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeError) as error:
            raise RunError(f"{source}: expected a text file with a key in each line, found none ({error})") from error
    elif KEYS in os.environ:
        source, found = KEYS, os.environ[KEYS].split(",")
    else:
        return []
    keys = [key.strip() for key in found if key.strip() and not key.lstrip().startswith("#")]
    if not keys:
        raise RunError(f"{source}: expected a key, found none; unset it, and all may ask")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise RunError(f"{source}: expected keys of printable ASCII, as headers can hold, found another")
    if opt.page:
        raise RunError(f"--page: expected no keys, which the page cannot ask for, found {source}")
    return keys


def main(argv: Sequence[str] | None = None, segmenter: type[Segmenter] = Segmenter, mount: Mount | None = None) -> int:
    """Serve until a signal ends it.

    Args:
        argv: words of the command line; None: those of this process.
        segmenter: what segments.
        mount: adds the page; None: there is none.

    Returns:
        The exit code: 0.

    Raises:
        Error: the service cannot start.
    """
    opt = parse(ServeOptions, argv)
    if opt.page and mount is None:
        raise RunError("--page: expected a clone of the project, found the library alone; python serve.py has the page")
    try:
        import uvicorn

        from cloth_segmentation.serve.application import create
    except ImportError as error:
        raise RunError(
            f"expected FastAPI and uvicorn, found none that can be loaded ({error}); in a clone of the project, "
            "pip install -r requirements-serve.txt, or, for the command without PyTorch, pip install '.[serve]'"
        ) from error
    keys = read_keys(opt)
    with _listening(opt) as listener:
        segment = segmenter.load(**opt.loading)
        print(describe(opt))
        print(segment.describe(), flush=True)
        app = create(segment, opt, keys)
        if mount is not None and opt.page:
            mount(app, segment, opt)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_level="critical",  # faults are told by the application
            access_log=False,  # so are requests
            server_header=False,
            proxy_headers=bool(opt.proxies),
            forwarded_allow_ips=list(opt.listed("proxies")),
            timeout_graceful_shutdown=round(opt.max_seconds) + GRACE,
        )
        print(f"Photos that go through the network at once: {app.state.service.batcher.batch_size}")
        print(
            f"Keys: {len(keys)}, of which requests must bring one" if keys else "Keys: none; all who reach it may ask"
        )
        print(f"The service is at http://{opt.host}:{opt.port} (Ctrl-C ends it)", flush=True)
        _hang_up_as_stop()
        # uvicorn raises the signal again once it has ended, which is no second one.
        signal.set_wakeup_fd(-1)
        try:
            uvicorn.Server(config).run([listener])
        except KeyboardInterrupt:
            print("Ended by a signal", flush=True)
    if app.state.service.readers.are_busy() or app.state.service.drawers.are_busy():  # with what nobody waits for
        end = Timer(GRACE, os._exit, [0])  # Python itself would wait for them
        end.daemon = True
        end.start()
    return 0


def _listening(opt: ServeOptions) -> socket.socket:
    """A socket at the address of the service. Raises RunError."""
    try:
        listener = socket.create_server((opt.host, opt.port), backlog=512)
        # Connections have it from their listener. Without it, the end of an answer waits 40 ms for word of its begin.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise RunError(
            f"--host {opt.host} --port {opt.port}: expected an address of this machine that is free, found one that is "
            f"not ({error.strerror}); name another one"
        ) from error


def _hang_up_as_stop() -> None:
    """Have the end of the terminal end the service as the other stop signals do, of which uvicorn knows."""
    if hasattr(signal, "SIGHUP") and signal.SIGHUP in heeded_stops():
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
