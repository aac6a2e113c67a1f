"""From a network's logits to labels and probabilities at the photo's own size."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STRIP = 2**21
"""Pixels that are worked on at once, so that memory does not grow with the photo."""


class Interpolation:
    """Logits at the pixels of a photo, bilinear, corners not aligned.

    Args:
        logits: (C, h, w).
        size: (width, height) of the photo, pixels.
    """

    def __init__(self, logits: NDArray[np.float32], size: tuple[int, int]) -> None:
        channels, height, self._width = logits.shape
        self._points = np.ascontiguousarray(logits.transpose(1, 2, 0)).reshape(-1, channels)
        self._logits = logits
        self.left, self.right, self._across = _neighbours(self._width, size[0])
        self.upper, self.lower, self._down = _neighbours(height, size[1])

    def at(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
        """Logits (N, C) at N pixels, by their rows and columns."""
        above, below = self.upper[rows] * self._width, self.lower[rows] * self._width
        sides = []
        for column in (self.left[columns], self.right[columns]):
            high, low = self._points[above + column], self._points[below + column]
            sides.append(high + (low - high) * self._down[rows, None])
        result: NDArray[np.float32] = sides[0] + (sides[1] - sides[0]) * self._across[columns, None]
        return result

    def strip(self, rows: slice) -> NDArray[np.float32]:
        """Logits (C, n, W) of whole rows of pixels, equal to those of ``at``."""
        high, low = self._logits[:, self.upper[rows]], self._logits[:, self.lower[rows]]
        lines = high + (low - high) * self._down[rows, None]
        first = lines[:, :, self.left]
        result: NDArray[np.float32] = first + (lines[:, :, self.right] - first) * self._across
        return result


def label_map(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The class whose logit is the highest at each pixel, after interpolation.

    Where the four logits around a pixel agree about the class, so does whatever lies between them. So only pixels
    at the borders of classes are interpolated, and the time hardly grows with the photo.

    Args:
        logits: (C, h, w).
        size: (width, height) of the photo, pixels.

    Returns:
        Labels (height, width), 0 to C - 1.
    """
    best = np.pad(logits.argmax(0).astype(np.uint8), ((0, 1), (0, 1)), mode="edge")
    first = best[:-1, :-1]
    agree = (first == best[1:, :-1]) & (first == best[:-1, 1:]) & (first == best[1:, 1:])
    between = Interpolation(logits, size)
    labels = np.empty((size[1], size[0]), dtype=np.uint8)
    rows = max(1, STRIP // size[0])
    for top in range(0, size[1], rows):
        strip = labels[top : top + rows]
        # Of the modes, the one without a copy.
        np.take(first[between.upper[top : top + rows]], between.left, axis=1, out=strip, mode="clip")
        y, x = np.nonzero(~np.take(agree[between.upper[top : top + rows]], between.left, axis=1, mode="clip"))
        strip[y, x] = between.at(top + y, x).argmax(1)
    return labels


def probabilities(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Probability of each class at each pixel, from the softmax of the interpolated logits.

    Args:
        logits: (C, h, w).
        size: (width, height) of the photo, pixels.

    Returns:
        (C, height, width), 0 to 1; they add up to 1 at each pixel.
    """
    between = Interpolation(logits, size)
    result = np.empty((len(logits), size[1], size[0]), dtype=np.float32)
    rows = max(1, STRIP // size[0])
    for top in range(0, size[1], rows):
        span = slice(top, top + rows)
        strip = between.strip(span)
        np.exp(strip - strip.max(0), out=strip)
        result[:, span] = strip / strip.sum(0)
    return result


def summed(logits: NDArray[np.float32], within: Sequence[int], classes: int) -> NDArray[np.float32]:
    """Logits of coarser classes: those whose softmax sums up the probabilities of the classes that lie within each.

    Args:
        logits: (N, C, h, w).
        within: the coarser class of each class, C numbers, 0 to D - 1.
        classes: number of coarser classes, D.

    Returns:
        (N, D, h, w); a coarser class in which none lies has probability 0.
    """
    highest = logits.max(1, keepdims=True)
    parts = np.exp(logits - highest)
    sums = np.zeros((len(logits), classes, *logits.shape[2:]), dtype=np.float32)
    for number, coarser in enumerate(within):
        sums[:, coarser] += parts[:, number]
    result: NDArray[np.float32] = np.log(np.maximum(sums, np.finfo(np.float32).tiny)) + highest
    return result


def _neighbours(points: int, pixels: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """(point before, point after, share of the latter) for each pixel of a side that has ``points`` known values."""
    position = np.maximum((np.arange(pixels) + 0.5) * (points / pixels) - 0.5, 0)
    before = np.minimum(position.astype(np.intp), points - 1)
    return before, np.minimum(before + 1, points - 1), (position - before).astype(np.float32)
