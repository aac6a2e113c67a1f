"""Whether Ray goes on: what is lost with machines, the wait for what never comes, and an end without a word."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Event, Thread, main_thread
from types import FrameType

import pyarrow as pa

from cloth_segmentation.errors import RunError

STALL = 60.0
"""Seconds without a row after which a run from which machines were lost is taken for stuck.

Ray starts the workers of a lost machine again, once there is room; those that live may take all of it, and wait for
what the others have begun.
"""


class Stalled(Exception):  # noqa: N818
    """Machines were lost, and no more rows come."""


def watched(tables: Iterator[pa.Table]) -> Generator[pa.Table, None, None]:
    """The same tables, as long as more can come. Call it in the main thread. Raises Stalled and LostError.

    A thread watches, and a signal brings what it finds into the wait for the next table, as Ctrl-C comes there. To wait
    in a thread would be simpler, but Ray crashes if it ends while a thread waits for it.
    """
    waits_since: float | None = None
    found: Exception | None = None
    done = Event()

    if not hasattr(signal, "SIGUSR1"):  # Windows
        yield from tables
        return

    def watch() -> None:
        nonlocal found
        machines = _machines()
        while found is None and not done.wait(1.0):
            since = waits_since
            if since is None:
                continue
            try:
                _check_head()
                machines |= (now := _machines())
                if machines - now and time.monotonic() - since > STALL:
                    raise Stalled
            except Exception as error:
                found = error
        while not done.wait(1.0):  # again, if it came between two waits
            signal.pthread_kill(main_thread().ident or 0, signal.SIGUSR1)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if found is not None and waits_since is not None:
            raise found

    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        while True:
            waits_since = time.monotonic()
            table = next(tables, None)
            waits_since = None
            if table is None:
                return
            yield table
    finally:
        waits_since = None
        done.set()
        watcher.join()  # before Ray ends
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def last_words(text: str) -> Iterator[None]:
    """Have another process write a text to the terminal if this one ends meanwhile without Python's knowledge.

    Ray ends a process at once that has lost its cluster, whenever it sees that before ``watched`` does.
    """
    code = "import sys; sys.stdin.read() or sys.stderr.write(sys.argv[1])"
    teller = subprocess.Popen(
        [sys.executable, "-IS", "-c", code, f"\n{text}\n"], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        teller.communicate(b"done")


class LostError(RunError):
    """Ray is gone."""


def _check_head() -> None:
    """Raise LostError if Ray's head answers no more: Ray would end this process soon, without a word."""
    import ray

    address = ray.get_runtime_context().gcs_address
    try:
        call(address)
    except OSError as error:
        raise LostError(
            f"Ray: expected that its head at {address} goes on, found that it no longer answers "
            f"({error.strerror or error})"
        ) from error


def _machines() -> set[str]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"] for node in nodes if node["Alive"]}


def call(address: str) -> None:
    """Connect to HOST:PORT, and leave again. Raises OSError, or OverflowError for a port that cannot be."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
