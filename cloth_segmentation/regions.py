"""Connected regions of a label map."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOUCHING = np.ones((3, 3), dtype=bool)
"""Pixels that meet at a corner are of one region."""


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
        box = (  # with a border of one pixel, where the photo has one
            slice(max(rows.start - 1, 0), rows.stop + 1),
            slice(max(columns.start - 1, 0), columns.stop + 1),
        )
        region = regions[box] == number
        around = ndimage.binary_dilation(region, TOUCHING) & ~region
        labels[box][region] = np.bincount(labels[box][around]).argmax()
        changed = True
    return changed
