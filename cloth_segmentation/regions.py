"""Regions of a label map: small ones, garments that are torn between two classes, and how far they reach."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOUCHING = np.ones((3, 3), dtype=bool)
"""Pixels that meet at a corner are of one region."""


MINORITY = 0.3
"""A part of a torn garment that is under this share of it takes the class of the rest."""


def join_torn(logits: NDArray[np.float32], pair: tuple[int, int]) -> NDArray[np.float32]:
    """Give one class to garments that are torn between two classes which no garment has both.

    A garment is a connected region of pixels of the two classes. Where one class has under ``MINORITY`` of it, its
    pixels take the other one. The logits are changed, not the labels, so that edges and probabilities follow.

    Args:
        logits: (C, h, w).
        pair: the two classes.

    Returns:
        Other logits, changed where a garment was torn.
    """
    best = logits.argmax(0)
    result: NDArray[np.float32] = logits.copy()
    garments, _ = ndimage.label(np.isin(best, pair), TOUCHING)
    for number, (rows, columns) in enumerate(ndimage.find_objects(garments), start=1):
        box = _with_border(rows, columns)  # interpolation looks so far
        garment = garments[box] == number
        sizes = {each: int((garment & (best[box] == each)).sum()) for each in pair}
        fewer, more = sorted(pair, key=lambda each: sizes[each])
        if 0 < sizes[fewer] < MINORITY * sum(sizes.values()):
            around = ndimage.binary_dilation(garment, TOUCHING)
            part = result[:, box[0], box[1]]  # a view
            part[more][garment] = np.maximum(part[more], part[fewer])[garment]
            part[fewer][around] = part.min(0)[around]
    return result


def _with_border(rows: slice, columns: slice) -> tuple[slice, slice]:
    """A box and the pixels that touch it, where the photo has some."""
    return slice(max(rows.start - 1, 0), rows.stop + 1), slice(max(columns.start - 1, 0), columns.stop + 1)


def absorb_small(labels: NDArray[np.uint8], least: float) -> NDArray[np.uint8]:
    """Give small regions of clothes the class of what lies around them, until none is left.

    So a stray blob on a wall becomes background, and a patch of another class on a coat becomes coat.

    Args:
        labels: label map (H, W); 0 is background, whose regions stay.
        least: area that a region needs to stay, as a share of the photo, 0 to below 1.
    """
    result: NDArray[np.uint8] = labels.copy()
    while any(_absorb(result, value, least * labels.size) for value in np.unique(labels[labels > 0])):
        pass  # what took in a region may be small itself; each change leaves fewer regions, so this ends
    return result


def _absorb(labels: NDArray[np.uint8], value: int, least: float) -> bool:
    """Change the regions of one class in place; returns whether there were any to change."""
    regions, _ = ndimage.label(labels == value, TOUCHING)
    areas = np.bincount(regions.ravel())
    changed = False
    for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
        if areas[number] >= least:
            continue
        box = _with_border(rows, columns)
        region = regions[box] == number
        around = ndimage.binary_dilation(region, TOUCHING) & ~region
        labels[box][region] = np.bincount(labels[box][around]).argmax()
        changed = True
    return changed


def grow(labels: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Let clothes reach further into the background.

    A pixel of background takes the class of the nearest pixel of clothes, if that is near enough. Where classes meet,
    neither grows.

    Args:
        labels: label map (H, W); 0 is background.
        pixels: how far, as the crow flies.
    """
    result: NDArray[np.uint8] = labels.copy()
    boxes = ndimage.find_objects((labels > 0).view(np.uint8))
    if boxes:
        box = tuple(slice(max(side.start - pixels, 0), side.stop + pixels) for side in boxes[0])
        distance, nearest = ndimage.distance_transform_edt(labels[box] == 0, return_indices=True)
        result[box] = np.where(distance <= pixels, labels[box][tuple(nearest)], 0)
    return result


def shrink(labels: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Make background of the pixels of each class that are near to others.

    What the photo cuts off has no edge there, and stays.

    Args:
        labels: label map (H, W); 0 is background.
        pixels: how near, as the crow flies.
    """
    result: NDArray[np.uint8] = labels.copy()
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            around = _with_border(*box)
            mask = labels[around] == number
            if not mask.all():
                result[around][mask & (ndimage.distance_transform_edt(mask) <= pixels)] = 0
    return result
