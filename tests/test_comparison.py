from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cloth_segmentation.classes import CLOTHES
from utils.comparison import colour, comparison

PALETTE, CLASSES = CLOTHES.palette, CLOTHES.names


def picture_of(width: int, height: int, classes: tuple[str, ...] = CLASSES) -> Tensor:
    """Two grey photos that are upper body and called full body, at (H, W, 3) uint8."""
    photos = torch.full((2, 3, height, width), 0.5)
    truth, prediction = torch.ones(2, height, width, dtype=torch.int64), torch.full((2, height, width), 3)
    picture = comparison(photos, truth, prediction, replace(CLOTHES, names=classes), mean=0.5, std=0.5)
    assert picture.dtype == torch.uint8
    return picture.permute(1, 2, 0)


def test_each_class_has_its_colour() -> None:
    # TensorBoard showed all three classes of the original in one.
    picture = colour(torch.arange(4).reshape(1, 2, 2), PALETTE)
    assert picture.shape == (1, 3, 2, 2)
    assert picture.flatten(2)[0].T.tolist() == [list(rgb) for rgb in PALETTE]


def test_a_row_is_photo_truth_and_prediction() -> None:
    picture = picture_of(64, 80)
    title = 15  # one and a half times the height of its letters
    assert picture.shape[1] == 3 * 68 + 4
    for top in (title + 4, title + 88):
        cells = [picture[top : top + 80, left : left + 64].unique().tolist() for left in (4, 72, 140)]
        assert cells == [[191], [0, 128], [0, 128]]
        assert [picture[top, left].tolist() for left in (4, 72, 140)] == [[191] * 3, [128, 0, 0], [128, 128, 0]]


@pytest.mark.parametrize("width", [64, 90, 288, 1024])
def test_titles_and_legend_are_whole_and_apart(width: int) -> None:
    picture = picture_of(width, 64)
    title = round(1.5 * max(10, width / 10))
    above, below = picture[:title], picture[title + 2 * 68 + 4 :]
    for strip in (above, below):
        ink = (strip != 255).any(-1)
        assert not ink[[0, -1]].any()  # nothing is cut off
        assert not ink[:, [0, -1]].any()
    inked = (above != 255).any(-1).any(0)
    for border in range(1, 3):  # each title keeps to its column
        assert not inked[border * (width + 4) + 2]
    assert all(inked[number * (width + 4) + 2 :][: width + 4].any() for number in range(3))

    for rgb in PALETTE:
        swatch = (below == torch.tensor(rgb)).all(-1).sum()
        assert swatch >= (title / 1.5) ** 2
    for number, name in enumerate(CLASSES):  # every name is there, and nowhere but below
        if number == 0:
            continue  # background has one name in all sets
        other = picture_of(width, 64, (*CLASSES[:number], name[:-1], *CLASSES[number + 1 :]))
        changed = (other != picture).any(-1).any(1)
        assert changed.any()
        assert not changed[: -len(below)].any()
