import json
import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.metrics import confusion_matrix, iou, mean, summarise

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
