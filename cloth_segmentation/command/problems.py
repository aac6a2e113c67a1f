"""What went wrong with a photo, in words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cloth_segmentation.command.script import one_line
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.photos import Source, source_name


class Problem(NamedTuple):
    """A file that cannot be segmented, and why."""

    photo: Path
    reason: str  # what was expected, what was found


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
"""Errors of a disk that is full, locked, broken or gone: every later photo would meet them too."""


def reason(photo: Source, error: Exception) -> str:
    """What is wrong with a photo, in one line without its name."""
    if isinstance(error, MemoryError):
        return "expected enough memory for this photo, found too little"
    if isinstance(error, OSError):
        return f"expected a photo, found none that can be opened ({error.strerror or one_line(str(error))})"
    return one_line(str(error).removeprefix(f"{source_name(photo)}: "))


def failure(photo: Path | str, reason: str) -> str:
    """The line that reports a problem."""
    return f"Failed: {one_line(str(photo))}: {reason}"


@contextmanager
def writing(place: Path | str, go_on: str = "--skip_existing") -> Iterator[None]:
    """Raise DataError if one output cannot be written, and RunError if nothing can be written to the disk.

    Args:
        place: the file.
        go_on: the flag with which the same command goes on after that.
    """
    try:
        yield
    except OSError as error:
        found = error.strerror or error  # the system's words, or Pillow's
        if error.errno in DISK_ERRORS:
            raise RunError(
                f"{place}: expected a disk that can be written, found one that cannot be ({found}); once it can, the "
                f"same command with {go_on} goes on from here"
            ) from error
        raise DataError(f"expected to write {place}, found that it cannot be written ({found})") from error
