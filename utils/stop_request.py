"""A stop signal as a note that the training loop reads."""

import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import TypeVar

from cloth_segmentation.command.signals import heeded_stops

Value = TypeVar("Value")


class _StoppedError(BaseException):
    """A stop signal came during a wait; no Exception, which code that waits may take for a broken photo."""


class StopRequest:
    """While it is entered, Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) are noted; ``name`` tells which came.

    They end a wait (``interruptible``), but not the process: the loop looks here after each step. A second one ends
    the process (``signals.end_at_second_stop``).
    """

    def __init__(self) -> None:
        self.name = ""
        self._waiting = False

    def __call__(self) -> bool:
        """Whether one came."""
        return bool(self.name)

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in heeded_stops()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def interruptible(self, wait: Callable[[], Value]) -> Value | None:
        """What ``wait`` gives; None if a stop signal came before, or comes meanwhile and breaks it off anywhere."""
        try:
            try:
                self._waiting = True
                return None if self.name else wait()
            finally:
                self._waiting = False
        except _StoppedError:
            return None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name
        self._break_off(number, frame)

    def _break_off(self, number: int, frame: FrameType | None) -> None:
        """End the wait, but not while a process starts: an error is lost in a fork, or the process forgotten."""
        if not self._waiting:
            return
        if not _starts_process(frame):
            self._waiting = False
            raise _StoppedError
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._break_off)
            signal.setitimer(signal.ITIMER_REAL, SOON)


SOON = 0.05
"""Seconds after which a wait that could not be ended is tried again."""


def _starts_process(frame: FrameType | None) -> bool:
    """Whether this is a call in the start of a process."""
    while frame is not None:
        if frame.f_code is BaseProcess.start.__code__:
            return True
        frame = frame.f_back
    return False
