"""A TensorBoard file whose loss does not end a run: where it cannot be written, that is said once."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from torch import Tensor

FLUSH_SECONDS = 10
"""After this time at most, TensorBoard sees an event."""


class EventFile:
    """Curves, pictures and texts of one run from one step on.

    Events are written by the thread that makes them. tensorboardX's own SummaryWriter leaves them to another one,
    which dies if the disk is full; its queue then fills, and the run waits for room in it for ever.

    Args:
        folder: of the run's TensorBoard files; made if need be.
        start: steps that earlier files hold. Later entries of theirs are hidden.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self.folder = folder
        self._writer: Any = None
        self._flushed = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"), f".from_{start}")
        except OSError as error:
            self._give_up(error)
        self._write(start + 1, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, step: int, name: str, value: float) -> None:
        """A point of a curve."""
        self._write(step, summary=summary.scalar(name, value))

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        """A picture, (3, H, W) uint8."""
        self._write(step, summary=summary.image(name, picture.numpy()))

    def text(self, name: str, text: str) -> None:
        """A text in Markdown."""
        self._write(0, summary=summary.text(name, text))

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)

    def _write(self, step: int, **content: Any) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
            if time.monotonic() - self._flushed >= FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        print(
            f"{self.folder}: expected room and leave to write TensorBoard's file, found none ({error.strerror}); the "
            "run goes on without it",
            file=sys.stderr,
        )
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()  # or Python complains of what is still buffered when it ends
        self._writer = None
