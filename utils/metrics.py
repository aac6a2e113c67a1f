"""Segmentation metrics, from counts of pixels that add up over photos."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BOUNDARY_SHARE = 0.02
"""Width of the band along a contour that Boundary IoU compares, as a share of the photo's diagonal: the paper's."""


def confusion_matrix(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Count pixels: entry [t, p] is the number of pixels of class t that were called p.

    Args:
        truth: label map of any shape, integers 0 to classes - 1; pixels of other labels do not count.
        prediction: label map of the same shape, integers 0 to classes - 1.
        classes: number of classes, C.

    Returns:
        (C, C) int64.
    """
    pairs = truth.reshape(-1).long() * classes + prediction.reshape(-1).long()
    # Pairs of other labels come last, and are cut off.
    return torch.bincount(pairs, minlength=classes**2)[: classes**2].reshape(classes, classes)


def iou(confusion: Tensor) -> list[float]:
    """Intersection over union of each class, 0 to 1; nan for a class absent from truth and prediction."""
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return (hits / union).tolist()


def precision(confusion: Tensor) -> list[float]:
    """Of the pixels called a class, the share that is of it; nan for a class that was never called."""
    return (confusion.diagonal().double() / confusion.sum(0)).tolist()


def recall(confusion: Tensor) -> list[float]:
    """Of the pixels of a class, the share that was called so; nan for a class absent from the truth."""
    return (confusion.diagonal().double() / confusion.sum(1)).tolist()


def boundary_overlap(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Count what Boundary IoU is made of: entry [c] is (intersection, union) of class c's two bands.

    The band of a class holds its pixels within ``BOUNDARY_SHARE`` of the photo's diagonal from its contour; where it
    leaves the photo, the photo's edge is contour; where it meets pixels that do not count, there is none. Distance is
    counted along rows, columns and diagonals alike (Chebyshev). Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary
    IoU", CVPR 2021 (arXiv 2103.16562), section 4.

    Args:
        truth: label map (H, W), integers 0 to classes - 1; pixels of other labels do not count.
        prediction: label map (H, W).
        classes: number of classes, C.

    Returns:
        (C, 2) int64. Counts of several photos may be added up.
    """
    distance = max(1, round(BOUNDARY_SHARE * math.hypot(*truth.shape)))
    counts = torch.zeros(classes, 2, dtype=torch.int64)
    counted = truth < classes
    for value in range(classes):
        # What does not count may be of the class as well as not.
        own = [labels == value for labels in (truth, prediction)]
        if not any(mask.any() for mask in own):
            continue  # with many classes, most
        masks = (mask | ~counted for mask in own)
        true_band, called_band = (_band(mask, distance) & counted for mask in masks)
        counts[value, 0] = (true_band & called_band).sum()
        counts[value, 1] = (true_band | called_band).sum()
    return counts


def _band(mask: Tensor, distance: int) -> Tensor:
    """Pixels of a mask (H, W) within ``distance`` of what is not of it."""
    # A pixel is deep inside where the square around it is full; sums over squares take the same time at any distance.
    side = 2 * distance + 1
    padding = (distance + 1, distance, distance + 1, distance)
    sums = F.pad(mask.to(torch.int32), padding).cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    square = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return mask & (square < side**2)


def clothes_error(confusion: Tensor) -> float:
    """Share of the pixels of clothes that are wrong, 0 to 1; nan without clothes.

    Pixels of clothes are those that truth or prediction gives a clothes class. A speck counts as what it is: the mean
    IoU of one photo is halved by a few pixels of a class that is not there.
    """
    total = confusion.sum().double()
    return float((total - confusion.diagonal().sum()) / (total - confusion[0, 0]))


def mean_iou_clothes(confusion: Tensor) -> float:
    """Mean IoU over all classes but background that truth or prediction has; nan if there are none."""
    return mean(iou(confusion)[1:])


def mean(values: Sequence[float]) -> float:
    """Mean of the values that are not nan; nan if there are none."""
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan


def summarise(confusion: Tensor, classes: Sequence[str], boundary: Tensor | None = None) -> dict[str, Any]:
    """All figures, ready for JSON; what cannot be computed is None.

    Args:
        confusion: (C, C).
        classes: C names, background first.
        boundary: (C, 2), sums of ``boundary_overlap``; None leaves Boundary IoU out.
    """

    def by_class(values: Sequence[float]) -> dict[str, float | None]:
        return {name: _or_none(value) for name, value in zip(classes, values, strict=True)}

    each = iou(confusion)
    pixels = int(confusion.sum())
    accuracy = int(confusion.diagonal().sum()) / pixels if pixels else math.nan
    figures = {
        "iou": by_class(each),
        "mean_iou_clothes": _or_none(mean_iou_clothes(confusion)),
        "mean_iou": _or_none(mean(each)),
        "pixel_accuracy": _or_none(accuracy),
        "precision": by_class(precision(confusion)),
        "recall": by_class(recall(confusion)),
        "confusion": confusion.tolist(),
    }
    if boundary is not None:
        shares = (boundary[:, 0].double() / boundary[:, 1]).tolist()
        figures["boundary_iou"] = by_class(shares)
        figures["mean_boundary_iou_clothes"] = _or_none(mean(shares[1:]))
    return figures


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
