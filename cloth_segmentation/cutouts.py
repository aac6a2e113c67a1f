"""Cut-outs: one class of a photo, all else transparent, with soft edges."""

from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops
from scipy import ndimage

from cloth_segmentation.logits import Interpolation


def reach(shape: tuple[int, ...]) -> float:
    """Half the width of a soft edge in a photo (H, W), pixels: more in large photos, whose edges are wider too."""
    return max(1.0, min(shape) / 500)


def coverage(mask: NDArray[np.bool_], logits: NDArray[np.float32], number: int) -> NDArray[np.uint8]:
    """Alpha of a cut-out, 0 to 255: how much of each pixel the class covers, with soft edges.

    The lead of a class is its logit less the highest logit of the other classes. Near an edge, the lead divided by its
    slope is the distance to the edge in fractions of a pixel, so that no staircase is seen. Fonts are drawn from
    distances in the same way (Green, "Improved Alpha-Tested Magnification for Vector Textures and Special Effects",
    SIGGRAPH 2007, courses).

    Args:
        mask: (H, W), the pixels of the class. It need not agree with the logits; where it does not, its edge is hard.
        logits: (C, h, w), from which it was made.
        number: of the class.

    Returns:
        (H, W) uint8; 128 or more where the mask is, less elsewhere.
    """
    alpha: NDArray[np.uint8] = mask.astype(np.uint8) * np.uint8(255)
    soft = reach(mask.shape)
    margin = ceil(soft)
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return alpha
    # What lies further off is wholly outside.
    rows, columns = (slice(max(side.start - margin, 0), side.stop + margin) for side in boxes[0])
    side = 2 * margin + 1
    part = mask[rows, columns]
    # Both filters repeat what is at the border, so that a garment that the photo cuts off has no edge there.
    y, x = np.nonzero(ndimage.maximum_filter(part, side) & ~ndimage.minimum_filter(part, side))
    inside = part[y, x]
    y, x = y + rows.start, x + columns.start

    between = Interpolation(logits, mask.shape[::-1])

    def lead(y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.float32]:
        at = between.at(y, x)
        own = at[:, number].copy()
        at[:, number] = -np.inf
        result: NDArray[np.float32] = own - at.max(1)
        return result

    def slope(y: NDArray[np.intp], x: NDArray[np.intp], down: int, right: int) -> NDArray[np.float64]:
        before = np.maximum(y - down, 0), np.maximum(x - right, 0)
        after = np.minimum(y + down, mask.shape[0] - 1), np.minimum(x + right, mask.shape[1] - 1)
        steps = np.maximum((after[0] - before[0]) + (after[1] - before[1]), 1)
        result: NDArray[np.float64] = (lead(*after) - lead(*before)) / steps
        return result

    steepest = np.hypot(slope(y, x, 1, 0), slope(y, x, 0, 1))
    distance = lead(y, x) / np.maximum(steepest, 1e-12)  # flat, where the class leads by nothing
    covered = (0.5 + distance / (2 * soft)).clip(0, 1)
    covered = np.where((distance > 0) == inside, covered, inside)
    alpha[y, x] = np.where(inside, np.ceil(covered * 255), np.floor(covered * 255))
    return alpha


def cut_out(photo: Image.Image, covered: NDArray[np.uint8], alpha: Image.Image | None = None) -> Image.Image:
    """A photo with the pixels of a class, and nothing else.

    A pixel of an edge shows the garment and what is behind it, which would be a fringe on another background. So it
    takes the colour of the garment beside it. Transparent pixels are black, so that nothing of them is passed on.

    Args:
        photo: RGB.
        covered: (H, W) uint8, how much of each pixel the class covers: 0 to 255.
        alpha: L, of the photo, 0 (transparent) to 255; None: all of it is opaque.

    Returns:
        RGBA.
    """
    pixels = np.array(photo)
    solid = covered == 255
    y, x = np.nonzero((covered > 0) & ~solid)
    if len(y):
        rows, columns = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
        # From the outer end of an edge to its inner one, and as far again.
        side = 2 * ceil(2 * reach(covered.shape)) + 1
        weight = ndimage.uniform_filter(solid[rows, columns].astype(np.float32), side)
        near = weight[y - rows.start, x - columns.start] > 0.5 / side**2  # others are too thin to have an inside
        y, x = y[near], x[near]
        for channel in range(3):
            own = np.where(solid[rows, columns], pixels[rows, columns, channel], 0).astype(np.float32)
            mean = ndimage.uniform_filter(own, side)[y - rows.start, x - columns.start]
            pixels[y, x, channel] = (mean / weight[y - rows.start, x - columns.start]).round()
    both = Image.fromarray(covered) if alpha is None else ImageChops.multiply(Image.fromarray(covered), alpha)
    pixels[np.asarray(both) == 0] = 0
    return Image.fromarray(np.dstack((pixels, np.asarray(both))))
