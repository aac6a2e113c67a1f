import torch

from utils.comparison import colour, comparison

PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))


def test_each_class_has_its_colour() -> None:
    # TensorBoard showed all three classes of the original in one.
    picture = colour(torch.arange(4).reshape(1, 2, 2), PALETTE)
    assert picture.shape == (1, 3, 2, 2)
    assert picture.flatten(2)[0].T.tolist() == [list(rgb) for rgb in PALETTE]


def test_a_row_is_photo_truth_and_prediction() -> None:
    photos = torch.full((2, 3, 8, 6), 0.5)
    truth, prediction = torch.ones(2, 8, 6, dtype=torch.int64), torch.full((2, 8, 6), 3)
    picture = comparison(photos, truth, prediction, PALETTE, mean=0.5, std=0.5)
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 2 * 12 + 4, 3 * 10 + 4)
    for top in (4, 16):
        cells = [picture[:, top + 3, left + 3].tolist() for left in (4, 14, 24)]
        assert cells == [[191, 191, 191], [128, 0, 0], [128, 128, 0]]
