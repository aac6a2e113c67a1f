"""From the instances of a photo to its label map: the one place for the overlap and size rules."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from data import rle

MIN_BOX_SHARE = 20 / 768
"""An instance whose box is narrower or lower than this share of the photo is dropped: 20 px at 768 px."""


def merge(instances: Iterable[tuple[int, str]], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Paint the instances of a photo, the largest first, so that smaller garments lie on top.

    Of two instances of one size, the later one lies on top. The box rule is meant at training size; as a share of
    the side it is the same at any size, so it is applied at the photo's own.

    Args:
        instances: (label, run-length encoded mask) of each.
        shape: (height, width) of the photo, in pixels.

    Returns:
        Label map (H, W), uint8; 0 where no instance is.

    Raises:
        ValueError: a mask cannot be read (``rle.parse``).
    """
    kept = []
    for value, text in instances:
        runs = rle.parse(text, shape)
        box_height, box_width = rle.box_size(runs, shape[0])
        if box_height >= MIN_BOX_SHARE * shape[0] and box_width >= MIN_BOX_SHARE * shape[1]:
            kept.append((rle.area(runs), value, runs))
    kept.sort(key=lambda instance: -instance[0])
    labels = np.zeros(shape, dtype=np.uint8, order="F")
    for _, value, runs in kept:
        rle.paint(labels, runs, value)
    return np.ascontiguousarray(labels)
