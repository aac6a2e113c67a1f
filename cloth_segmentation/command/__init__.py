"""The command: flags, folders of photos, names of outputs, exit codes."""

import sys
from importlib import import_module
from typing import NoReturn

COMMANDS = {"batch": "cloth_segmentation.batch.main", "serve": "cloth_segmentation.serve.main"}
"""First words of the command line that ask for another command, and where it is; a folder of that name is ./batch."""


def run() -> NoReturn:
    """Run the command ``cloth-segmentation``, or one of ``COMMANDS``, and leave with its exit code."""
    # The parts of this folder import one another.
    from cloth_segmentation.command.script import run_script
    from cloth_segmentation.errors import Error

    where = "cloth_segmentation.command.main"
    if (word := "".join(sys.argv[1:2])) in COMMANDS:
        where = COMMANDS[word]
        sys.argv[:2] = [f"{sys.argv[0]} {word}"]  # by which messages name the program
    run_script(import_module(where).main, Error)  # only here, since each needs what others do not
