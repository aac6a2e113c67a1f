import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.metrics import boundary_overlap, clothes_error, confusion_matrix, iou, mean, precision, recall, summarise

CLASSES = ("background", "upper body", "lower body", "full body")


def test_figures_of_a_small_example() -> None:
    truth = torch.tensor([[0, 0, 1], [1, 2, 2]], dtype=torch.uint8)
    prediction = torch.tensor([[0, 1, 1], [1, 2, 0]], dtype=torch.uint8)
    confusion = confusion_matrix(truth, prediction, 4)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    figures = summarise(confusion, CLASSES)
    # Nobody wears a dress here: full body is left out of the means.
    assert figures["iou"] == {"background": 1 / 3, "upper body": 2 / 3, "lower body": 0.5, "full body": None}
    assert math.isclose(figures["mean_iou_clothes"], (2 / 3 + 1 / 2) / 2)
    assert math.isclose(figures["mean_iou"], 0.5)
    assert math.isclose(figures["pixel_accuracy"], 4 / 6)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


@given(st.integers(0, 2**32 - 1))
def test_iou_is_intersection_over_union(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth, prediction = draw.integers(0, 4, (2, 6, 5))
    found = iou(confusion_matrix(torch.from_numpy(truth), torch.from_numpy(prediction), 4))
    for value, result in enumerate(found):
        union = ((truth == value) | (prediction == value)).sum()
        if union:
            assert math.isclose(result, ((truth == value) & (prediction == value)).sum() / union)
        else:
            assert math.isnan(result)


def test_no_pixel_at_all() -> None:
    figures = summarise(torch.zeros(4, 4, dtype=torch.int64), CLASSES)
    assert figures["mean_iou"] is None
    assert figures["pixel_accuracy"] is None
    assert math.isnan(mean([]))


def test_precision_and_recall() -> None:
    confusion = torch.tensor([[6, 2], [1, 3]])  # rows are the truth
    assert precision(confusion) == [6 / 7, 3 / 5]
    assert recall(confusion) == [6 / 8, 3 / 4]
    figures = summarise(torch.tensor([[4, 0], [0, 0]]), ("background", "upper body"))
    assert figures["precision"] == {"background": 1, "upper body": None}
    assert figures["recall"] == {"background": 1, "upper body": None}


def band(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask with one outside it, or outside the picture, within a square around them; pixel by pixel."""
    found = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        top, left = row - distance, column - distance
        square = mask[max(top, 0) : row + distance + 1, max(left, 0) : column + distance + 1]
        found[row, column] = square.sum() < (2 * distance + 1) ** 2
    return found


@pytest.mark.parametrize(("height", "width"), [(30, 40), (120, 90), (7, 5)])  # distances 1, 3, 1
def test_boundary_iou_compares_bands_along_the_contours(height: int, width: int) -> None:
    draw = np.random.default_rng(height)
    coarse = draw.integers(0, 3, (2, height // 5 + 1, width // 5 + 1))
    truth, prediction = coarse.repeat(5, 1).repeat(5, 2)[:, :height, :width]
    counts = boundary_overlap(torch.from_numpy(truth), torch.from_numpy(prediction), 4)
    distance = max(1, round(0.02 * math.hypot(height, width)))
    for value in range(4):
        bands = band(truth == value, distance), band(prediction == value, distance)
        assert counts[value].tolist() == [(bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()]


def test_boundary_iou_is_stricter_than_iou_and_adds_up_over_photos() -> None:
    truth, shifted = torch.zeros(2, 100, 100, dtype=torch.uint8)
    truth[20:80, 20:80] = 1
    shifted[22:82, 20:80] = 1
    counts = boundary_overlap(truth, shifted, 2)
    figures = summarise(confusion_matrix(truth, shifted, 2), CLASSES[:2], counts)
    assert figures["boundary_iou"]["upper body"] < figures["iou"]["upper body"] - 0.2
    assert summarise(confusion_matrix(truth, shifted, 2), CLASSES[:2], 3 * counts) == figures
    perfect = summarise(confusion_matrix(truth, truth, 2), CLASSES[:2], boundary_overlap(truth, truth, 2))
    assert perfect["mean_boundary_iou_clothes"] == 1


def test_a_speck_of_another_class_spoils_no_photo() -> None:
    truth = torch.zeros(100, 100, dtype=torch.int64)
    truth[20:80, 30:70] = 3

    def error(prediction: torch.Tensor) -> float:
        return clothes_error(confusion_matrix(truth, prediction, 4))

    speck, torn, missed, grown = (truth.clone() for _ in range(4))
    speck[20:22, 30:40] = 1
    torn[20:50, 30:70] = 1
    missed[:] = 0
    grown[80:90, 30:70] = 3
    assert error(truth) == 0
    assert error(speck) == 20 / 2400
    assert error(torn) == 0.5
    assert error(missed) == 1
    assert error(grown) == 400 / 2800
    assert error(speck) < error(grown) < error(torn) < error(missed)
    assert math.isnan(clothes_error(confusion_matrix(truth * 0, truth * 0, 4)))
