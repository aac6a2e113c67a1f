"""python -m cloth_segmentation: the command."""

from cloth_segmentation.command import run

run()
