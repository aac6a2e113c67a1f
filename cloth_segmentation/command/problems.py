"""What went wrong with a photo, in words."""

import errno
from pathlib import Path
from typing import NamedTuple

from cloth_segmentation.command.script import one_line
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


def failure(problem: Problem) -> str:
    """The line that reports a problem."""
    return f"Failed: {one_line(str(problem.photo))}: {problem.reason}"
