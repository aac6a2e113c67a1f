"""The command for batches: what it is told, and whether it can be done here."""

import os
from collections.abc import Sequence

from cloth_segmentation.batch.options import InferBatchOptions
from cloth_segmentation.command.flags import parse
from cloth_segmentation.errors import RunError
from cloth_segmentation.segmenter import Segmenter


def main(argv: Sequence[str] | None = None, segmenter: type[Segmenter] = Segmenter) -> int:
    """Do what the command line asks for.

    Args:
        argv: words of the command line; None: those of this process.
        segmenter: what segments.

    Returns:
        The exit code: 0 done, 1 some photos failed.

    Raises:
        Error: the run cannot start or go on.
    """
    opt = parse(InferBatchOptions, argv)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray tells its makers who uses it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else threads of a run that has ended start Ray anew
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise RunError(
            f"expected Ray Data, found none that can be loaded ({error}); in a clone of the project, pip install -r "
            "requirements-ray.txt, or, for the command without PyTorch, pip install '.[ray]'"
        ) from error
    from cloth_segmentation.batch.run import segment_all

    return segment_all(opt, segmenter)
