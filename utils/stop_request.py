"""A stop signal as a note that the training loop reads."""

import os
import signal
from types import FrameType, TracebackType

from cloth_segmentation.command.signals import heeded_stops


class StopRequest:
    """While it is entered, Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) are noted; ``name`` tells which came.

    They do not end the process then: the loop looks here after each step. A second Ctrl-C does, but not under a
    launcher, which passes on the Ctrl-C that the process has had already.
    """

    def __init__(self) -> None:
        self.name = ""

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in heeded_stops()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name and number == signal.SIGINT and "RANK" not in os.environ:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
