"""How a script ends: 0 done, 1 something failed, 2 wrong usage (options see to that one)."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


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
    sys.exit(1)
