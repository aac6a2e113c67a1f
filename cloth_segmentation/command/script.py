"""Exit codes and messages of scripts: 0 done, 1 something failed; flags.py sees to 2, wrong usage."""

import io
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cloth_segmentation.command.base_options import OptionError
from cloth_segmentation.command.signals import end_at_second_stop, finish_before_stop, heeded_stops
from cloth_segmentation.errors import RunError
from cloth_segmentation.launcher import rank_as_set, speaks_for_all
from cloth_segmentation.resources import out_of_memory


@contextmanager
def blame(flag: str, *expected: type[Exception]) -> Iterator[None]:
    """Name the flag whose value is behind an error: library code does not know of flags."""
    try:
        yield
    except expected as error:
        raise RunError(f"{flag}: {error}") from error


def one_line(text: str) -> str:
    """The text with its control characters, which names of files may hold, escaped as Python does it."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], text)


def program() -> str:
    """What people call the program that runs."""
    name = Path(sys.argv[0]).name  # with its first word, where that names a command of its own
    return re.sub(r"^__main__\.py\b", "python -m cloth_segmentation", name)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run_script(main: Callable[[], int], *expected: type[Exception]) -> NoReturn:
    """Run main and leave with its code. Expected errors become one message, not a stack trace.

    SIGTERM and the end of the terminal end it as Ctrl-C does; a second one ends it at once. Names that the terminal
    cannot show are escaped.
    """
    for number in heeded_stops():
        if number != signal.SIGINT:
            signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # there is none where the system has closed them
            stream.reconfigure(errors="backslashreplace")
    rank = f" [rank {rank_as_set()}]" if rank_as_set() else ""
    script = program() + rank
    end_at_second_stop(script)
    failures: tuple[type[Exception], ...] = (*expected, OSError)
    try:
        try:
            code = main()
        finally:
            finish_before_stop()  # a launcher sends one while a process ends, whose trace would follow its last words
        sys.exit(code)
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
    except OptionError as error:  # what only the weights could tell; flags.py sees to the others
        if speaks_for_all():
            print(f"{program()}: {error}", file=sys.stderr)
        sys.exit(2)
    except failures as error:
        named = isinstance(error, OSError) and error.filename is not None
        text = f"{error.filename}: {error.strerror}" if named else str(error)  # type: ignore[attr-defined]
        print(f"{script}: {text}", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(
            f"{script}: expected enough memory, found too little; take smaller batches or a smaller size",
            file=sys.stderr,
        )
    sys.exit(1)
