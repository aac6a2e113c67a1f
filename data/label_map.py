"""From the instances of a photo to its label map: the one place for the overlap and size rules."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cloth_segmentation.photos import Size
from data import rle

MIN_BOX_SHARE = 20 / 768
"""An instance whose box is narrower or lower than this share of the photo is dropped: 20 px at 768 px."""

IGNORED = 255
"""Label of pixels that count in no loss and no metric. A set of 256 classes has none to spare."""

NO_LABEL = -100
"""A label that no pixel has."""


def ignored_label(classes: int) -> int:
    """Label of the pixels that do not count, in label maps of so many classes; one that none has if all are classes."""
    return IGNORED if classes <= IGNORED else NO_LABEL


def merge(
    masks: Iterable[tuple[int, rle.Runs]], shape: tuple[int, int], size: Size | None = None, *, drop_small: bool = True
) -> NDArray[np.uint8]:
    """Paint the instances of a photo, the largest first, so that smaller garments lie on top.

    Of two instances of one size, the later one lies on top. The box rule is meant at training size; as a share of
    the side it is the same at any size, so it is applied at the photo's own.

    Args:
        masks: (label, runs) of each instance.
        shape: (height, width) of the photo, in pixels.
        size: (width, height) of the label map: the same pixels as if the photo's were resized to it by
            ``transforms.squash_labels``, but no others are painted; None: the photo's own.
        drop_small: whether the box rule holds.

    Returns:
        Label map (H, W), uint8; 0 where no instance is.
    """
    kept = []
    for value, runs in masks:
        if not (drop_small and is_small(runs, shape)):
            kept.append((rle.area(runs), value, runs))
    kept.sort(key=lambda instance: -instance[0])
    ordered = [(value, runs) for _, value, runs in kept]
    if size is None:
        return _paint(ordered, shape)
    # Where the map is larger than the photo, several of its rows and columns show the same one of the photo.
    rows, row_of = np.unique(_nearest(shape[0], size[1]), return_inverse=True)
    columns, column_of = np.unique(_nearest(shape[1], size[0]), return_inverse=True)
    sampled = [(value, rle.sample(runs, shape[0], rows, columns)) for value, runs in ordered]
    labels = _paint(sampled, (len(rows), len(columns)))
    return labels if labels.shape == size[::-1] else labels[np.ix_(row_of, column_of)]


def is_small(runs: rle.Runs, shape: tuple[int, int]) -> bool:
    """Whether the box rule drops an instance of a photo (height, width)."""
    height, width = rle.box_size(runs, shape[0])
    return height < MIN_BOX_SHARE * shape[0] or width < MIN_BOX_SHARE * shape[1]


def _paint(instances: Iterable[tuple[int, rle.Runs]], shape: tuple[int, int]) -> NDArray[np.uint8]:
    labels = np.zeros(shape, dtype=np.uint8, order="F")
    for value, runs in instances:
        rle.paint(labels, runs, value)
    return np.ascontiguousarray(labels)


def _nearest(source: int, target: int) -> NDArray[np.int64]:
    """Which of ``source`` pixels in a row each of ``target`` pixels shows: floor((i + 0.5) * source / target).

    Pillow answers, because its sums are rounded, which decides where the value is whole.
    """
    row = Image.fromarray(np.arange(source, dtype=np.int32)[None]).resize((target, 1), Image.Resampling.NEAREST)
    shown: NDArray[np.int64] = np.asarray(row, dtype=np.int64)[0]
    return shown
