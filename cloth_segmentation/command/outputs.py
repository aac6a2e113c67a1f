"""What the command can write for a photo, and the names of it all."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cloth_segmentation.classes import CLASSES, short_name

OUTPUTS = ("mask", "overlay", "cutout", "classes", "json")
"""What can be written for a photo."""

NAMES = {"mask": "masks", "overlay": "overlays", "cutout": "cut-outs", "classes": "class masks", "json": "JSON files"}
"""How people call ``OUTPUTS``."""

ONE = {"mask": ".png", "overlay": "_overlay.jpg", "json": ".json"}
"""Outputs of one file, and what their names have after the photo's."""

EACH_CLASS = {"cutout": "_cutout_", "classes": "_mask_"}
"""Outputs with a file for each class, and what stands in their names between the photo's and the class's."""

ENDINGS = (
    *(ending for name, ending in ONE.items() if name != "mask"),
    *(f"{kind}{short_name(name)}.png" for kind in EACH_CLASS.values() for name in CLASSES[1:]),
)
"""What the names of a photo's other files have in the place of .png."""

CUTOUT = "cut-out by cloth segmentation"
"""Note in each of them, without which none is deleted."""


class Job(NamedTuple):
    """A photo, and where its mask goes. All else lies beside the mask."""

    photo: Path
    mask: Path

    def path(self, output: str, name: str = "") -> Path:
        """Where one of ``OUTPUTS`` goes; if it has a file for each class, that of the class of this name."""
        ending = f"{EACH_CLASS[output]}{short_name(name)}.png" if output in EACH_CLASS else ONE[output]
        return self.mask.with_name(self.mask.stem + ending)

    def paths(self, output: str, classes: Sequence[str]) -> list[Path]:
        """All files of an output."""
        return [self.path(output, name) for name in (classes if output in EACH_CLASS else ("",))]
