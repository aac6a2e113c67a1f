"""The command: flags, folders of photos, names of outputs, exit codes."""

import sys
from typing import NoReturn

BATCH = "batch"
"""First word of the command line that asks for very many photos; a folder of that name is ./batch."""


def run() -> NoReturn:
    """Run the command ``cloth-segmentation``, or ``cloth-segmentation batch``, and leave with its exit code."""
    # The parts of this folder import one another.
    from cloth_segmentation.command.script import run_script
    from cloth_segmentation.errors import Error

    if sys.argv[1:2] == [BATCH]:
        from cloth_segmentation.batch.main import main as segment_batch  # only here: others need no Ray

        sys.argv[:2] = [f"{sys.argv[0]} {BATCH}"]  # by which messages name the program
        run_script(segment_batch, Error)
    from cloth_segmentation.command.main import main

    run_script(main, Error)
