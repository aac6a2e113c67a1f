"""From a network's logits to labels at the photo's own size."""

import numpy as np
from numpy.typing import NDArray

MIXED = 255
"""Marks where neighbouring logits disagree about the class; no class has this number."""

STRIP = 2**21
"""Pixels that are worked on at once, so that memory does not grow with the photo."""


def label_map(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The class whose logit is the highest at each pixel, after bilinear interpolation (corners not aligned).

    Where the four logits around a pixel agree about the class, so does whatever lies between them. So only pixels
    at the borders of classes are interpolated, and the time hardly grows with the photo.

    Args:
        logits: (C, h, w).
        size: (width, height) of the photo, pixels.

    Returns:
        Labels (height, width), 0 to C - 1.
    """
    channels, height, width = logits.shape
    best = np.pad(logits.argmax(0).astype(np.uint8), ((0, 1), (0, 1)), mode="edge")
    first = best[:-1, :-1]
    agree = (first == best[1:, :-1]) & (first == best[:-1, 1:]) & (first == best[1:, 1:])
    cells = np.where(agree, first, np.uint8(MIXED))
    points = np.ascontiguousarray(logits.transpose(1, 2, 0)).reshape(-1, channels)

    left, right, across = _neighbours(width, size[0])
    upper, lower, down = _neighbours(height, size[1])
    labels = np.empty((size[1], size[0]), dtype=np.uint8)
    rows = max(1, STRIP // size[0])
    for top in range(0, size[1], rows):
        span = slice(top, top + rows)
        strip = labels[span]
        np.take(cells[upper[span]], left, axis=1, out=strip, mode="clip")  # of the modes, the one without a copy
        y, x = np.nonzero(strip == MIXED)
        above, below, weight = upper[span][y] * width, lower[span][y] * width, down[span][y, None]
        sides = []
        for column in (left[x], right[x]):
            high, low = points[above + column], points[below + column]
            sides.append(high + (low - high) * weight)
        strip[y, x] = (sides[0] + (sides[1] - sides[0]) * across[x, None]).argmax(1)
    return labels


def _neighbours(points: int, pixels: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """(point before, point after, share of the latter) for each pixel of a side that has ``points`` known values."""
    position = np.maximum((np.arange(pixels) + 0.5) * (points / pixels) - 0.5, 0)
    before = np.minimum(position.astype(np.intp), points - 1)
    return before, np.minimum(before + 1, points - 1), (position - before).astype(np.float32)
