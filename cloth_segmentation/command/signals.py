"""The signals that ask a process to stop: the first one is a request, the second one an order."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

from cloth_segmentation.launcher import rank_as_set

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What a person, a scheduler, and a terminal that closes send; Windows has no SIGHUP."""

ONE_REQUEST = {False: 0.3, True: 3.0}
"""Seconds after a stop signal in which others belong to it, without a launcher and (True) under one.

timeout(1) and terminals send two at once, and a launcher passes on what the process has had from its terminal already.
"""


def heeded_stops() -> list[signal.Signals]:
    """The stop signals that this process has not been told to ignore, as nohup does with SIGHUP."""
    return [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]


def ignore_stops() -> None:
    """Ignore stop signals from here on, so that the last work of this process is finished."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def finish_before_stop() -> None:
    """Let the last work of this process be finished though a stop signal comes; a second one still ends it."""
    for number in heeded_stops():
        signal.signal(number, _pass)


def _pass(number: int, frame: FrameType | None) -> None: ...


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """Let the system end this process at the first stop signal: for waits outside Python with nothing to lose."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in heeded_stops()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_second_stop(script: str) -> None:
    """From here on, a second stop signal ends this process and its children at once, with exit code 1.

    Handlers in Python run once the main thread is back in Python. It may never be, as it may wait for a disk or a
    process that does not answer. So the system writes the numbers of signals into a pipe, which a thread reads.

    Args:
        script: what the last line calls this program.
    """
    receiver, sender = os.pipe()
    if hasattr(os, "set_blocking"):  # Python 3.12 on Windows, where a sender that blocks will do
        os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # signals of children are their own
    Thread(target=_end_at_second_stop, args=(receiver, script), daemon=True).start()


def _end_at_second_stop(receiver: int, script: str) -> None:
    first: float | None = None
    while True:
        (number,) = os.read(receiver, 1)
        if number not in STOPS:
            continue
        now = time.monotonic()
        if first is None:
            first = now
        elif now - first > ONE_REQUEST[bool(rank_as_set())]:
            break
    os.write(2, f"\n{script}: ended at once by a second signal, {signal.Signals(number).name}\n".encode())
    _kill_children()
    os._exit(1)


def _kill_children() -> None:
    """End the processes that this one has started by multiprocessing: they may not notice that it is gone."""
    from multiprocessing import active_children

    for child in active_children():
        child.kill()
