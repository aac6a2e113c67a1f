"""What labels hold: how often each class is there, and how much of the photos it takes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cloth_segmentation.errors import DataError
from data.annotations import Annotations
from data.label_map import is_small, merge

SIDE = 256
"""Width and height, pixels, of the label maps whose pixels are counted."""


class LabelCounts(NamedTuple):
    """By label, 0 to 255; of the photos' own labels, but for the shares."""

    instances: NDArray[np.int64]  # (256,) of each class
    photos: NDArray[np.int64]  # (256,) that have an instance of it
    shares: NDArray[np.float64]  # (256,) mean share of a photo's label map
    labelled: NDArray[np.bool_]  # (P,) photos that have an instance of any class
    small: int  # instances that the box rule drops


def count_labels(photos: Annotations, classes: int) -> LabelCounts:
    """Read the masks of all photos, and count.

    Args:
        photos: to look at.
        classes: number of classes, with background.

    Raises:
        DataError: a mask cannot be read.
    """
    instances, having, pixels = np.zeros((3, 256), dtype=np.int64)
    labelled = np.zeros(len(photos), dtype=bool)
    small = 0
    drop_small = photos.format.drops_small
    for number in tqdm(range(len(photos)), "count", unit="photo", leave=False, dynamic_ncols=True):
        shape = photos.size(number)[::-1]
        try:
            masks = photos[number].masks
        except ValueError as error:
            raise DataError(f"{photos.path}: a mask of {photos.names[number]} cannot be read: {error}") from error
        labelled[number] = any(label < classes for label, _ in masks)
        own = np.bincount([label for label, _ in masks], minlength=256)
        instances += own
        having += own > 0
        small += sum(drop_small and is_small(runs, shape) for _, runs in masks)
        pixels += np.bincount(merge(masks, shape, (SIDE, SIDE), drop_small=drop_small).ravel(), minlength=256)
    return LabelCounts(instances, having, pixels / max(1, pixels.sum()), labelled, small)
