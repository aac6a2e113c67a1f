"""How a script ends: 0 done, 1 something failed, 2 wrong usage (options see to that one)."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from utils import RunError


@contextmanager
def blame(flag: str, *expected: type[Exception]) -> Iterator[None]:
    """Name the flag whose value is behind an error: library code does not know of flags."""
    try:
        yield
    except expected as error:
        raise RunError(f"{flag}: {error}") from error


def run_script(main: Callable[[], int], *expected: type[Exception]) -> NoReturn:
    """Run main and leave with its code. Expected errors become one message, not a stack trace."""
    rank = f" [rank {os.environ['RANK']}]" if "RANK" in os.environ else ""
    script = Path(sys.argv[0]).name + rank
    failures: tuple[type[Exception], ...] = (*expected, OSError)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
    except failures as error:
        print(f"{script}: {error}", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        print(
            f"{script}: expected enough memory, found too little; take smaller batches or a smaller size",
            file=sys.stderr,
        )
    sys.exit(1)


def _out_of_memory(error: Exception) -> bool:
    # PyTorch's exception for GPUs, and what its CPU and ONNX Runtime say; neither is imported for this.
    words = ("out of memory", "can't allocate memory", "Failed to allocate memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in words)
