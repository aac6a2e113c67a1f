"""The command: flags, folders of photos, names of outputs, exit codes."""

from typing import NoReturn


def run() -> NoReturn:
    """Run the command ``cloth-segmentation``, and leave with its exit code."""
    from cloth_segmentation.command.main import main  # the parts of this folder import one another
    from cloth_segmentation.command.script import run_script
    from cloth_segmentation.errors import Error

    run_script(main, Error)
