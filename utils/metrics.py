"""Segmentation metrics, all from one confusion matrix."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def confusion_matrix(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Count pixels: entry [t, p] is the number of pixels of class t that were called p.

    Args:
        truth: label map of any shape, integers 0 to classes - 1.
        prediction: label map of the same shape.
        classes: number of classes, C.

    Returns:
        (C, C) int64.
    """
    pairs = truth.reshape(-1).long() * classes + prediction.reshape(-1).long()
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def iou(confusion: Tensor) -> list[float]:
    """Intersection over union of each class, 0 to 1; nan for a class absent from truth and prediction."""
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return (hits / union).tolist()


def mean(values: Sequence[float]) -> float:
    """Mean of the values that are not nan; nan if there are none."""
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan


def summarise(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """All figures, ready for JSON; what cannot be computed is None.

    Args:
        confusion: (C, C).
        classes: C names, background first.
    """
    each = iou(confusion)
    pixels = int(confusion.sum())
    accuracy = int(confusion.diagonal().sum()) / pixels if pixels else math.nan
    return {
        "iou": {name: _or_none(value) for name, value in zip(classes, each, strict=True)},
        "mean_iou_clothes": _or_none(mean(each[1:])),
        "mean_iou": _or_none(mean(each)),
        "pixel_accuracy": _or_none(accuracy),
        "confusion": confusion.tolist(),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
