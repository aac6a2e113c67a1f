"""A sheet of photos beside their labels, on which people see whether labels are right."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cloth_segmentation.classes import ClassSet
from cloth_segmentation.pictures import NO_CLASS, brightened, overlay, with_grey
from utils.sheets import MARGIN, framed, legend, stacked, text_line

CELL = 480
"""Width of a photo and its labels, pixels."""

HIGH, WIDE = ((CELL - MARGIN) // 2, 320), (CELL, 240)
"""Width and height of a photo on the sheet, pixels, at most: beside its labels, or above them."""


def is_wide(size: tuple[int, int]) -> bool:
    """Whether a photo of this (width, height) is larger above its labels than beside them."""
    return size[0] > 1.2 * size[1]


def small_size(size: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) on the sheet of a photo of some size."""
    scale = min(most / own for most, own in zip(WIDE if is_wide(size) else HIGH, size, strict=True))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


class LabelSheet:
    """Photos beside their labels, in colours over the photo in grey, plain grey where pixels are ignored; a legend."""

    def __init__(self, classes: ClassSet) -> None:
        self.classes = len(classes)
        self.names = [*classes.names, *["ignored"] * (256 - len(classes))]
        self.palette = with_grey(brightened(classes.palette))
        self.cells: list[Image.Image] = []
        self.areas = np.zeros(256, dtype=np.int64)

    def add(self, name: str, photo: Image.Image, labels: NDArray[np.uint8]) -> None:
        """Add a photo, RGB, with its label map (H, W), both of its ``small_size``."""
        areas = np.bincount(labels.ravel(), minlength=256)
        drawn = np.array(overlay(photo.convert("L").convert("RGB"), labels, self.palette))
        drawn[labels >= self.classes] = NO_CLASS
        self.areas += areas
        self.cells.append(
            stacked(
                [
                    text_line(name, CELL),
                    legend(self._keys(np.argsort(-areas, kind="stable"), areas), CELL),
                    stacked([photo, Image.fromarray(drawn)], across=not is_wide(photo.size), gap=MARGIN),
                ]
            )
        )

    def draw(self, title: str) -> Image.Image:
        """The sheet, about as wide as high. There must be a photo."""
        heights = sum(cell.height + 3 * MARGIN for cell in self.cells)
        columns = max(1, round(math.sqrt(heights / (CELL + 3 * MARGIN))))
        starts = range(0, len(self.cells), columns)
        rows = [stacked(self.cells[start : start + columns], across=True, gap=3 * MARGIN) for start in starts]
        width = max(row.width for row in rows)
        keys = legend(self._keys(np.arange(256), self.areas), width)
        return framed(stacked([text_line(title, width), keys, *rows], gap=3 * MARGIN), 2 * MARGIN)

    def _keys(self, order: NDArray[np.int64], areas: NDArray[np.int64]) -> Sequence[tuple[str, tuple[int, int, int]]]:
        there = [value for value in order.tolist() if value and areas[value]]
        return [(self.names[value], self.palette[value]) for value in there] or [("no label", (0, 0, 0))]
