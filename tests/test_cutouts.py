"""Soft edges and the colours in them."""

import numpy as np
import pytest
from PIL import Image

from cloth_segmentation.cutouts import coverage, cut_out
from cloth_segmentation.logits import label_map


def disc_logits(radius: float, side: int = 40) -> np.ndarray:
    """Logits of two classes (2, side, side) with an edge on a circle."""
    y, x = np.mgrid[:side, :side] + 0.5
    lead = radius - np.hypot(y - side / 2, x - side / 2)
    return np.stack((-lead, lead)).astype(np.float32)


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("sureness", [0.2, 5.0])
def test_an_edge_covers_each_pixel_as_a_circle_does(scale: int, sureness: float) -> None:
    logits = disc_logits(12.3) * np.float32(sureness)
    size = (40 * scale, 40 * scale)
    labels = label_map(logits, size)
    alpha = coverage(labels == 1, logits, 1) / 255
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    distance = 12.3 * scale - np.hypot(y - size[1] / 2, x - size[0] / 2)
    assert np.abs(alpha - (0.5 + distance / 2).clip(0, 1)).max() < 0.15  # however sure the network is
    assert ((alpha >= 0.5) == (labels == 1)).all()


def test_what_was_cleaned_away_leaves_no_ring() -> None:
    logits = disc_logits(12.3)
    cleaned = np.zeros((40, 40), dtype=bool)
    assert not coverage(cleaned, logits, 1).any()
    cleaned[3:6, 3:6] = True  # far from where the logits have it
    alpha = coverage(cleaned, logits, 1)
    assert (alpha[cleaned] == 255).all()
    assert (alpha[~cleaned] == 0).all()
    assert (coverage(~cleaned, -logits, 1)[4, 4], coverage(np.ones((40, 40), bool), logits, 1).min()) == (0, 255)


def test_a_garment_that_the_photo_cuts_off_has_no_edge_there() -> None:
    logits = np.zeros((2, 40, 40), np.float32)
    logits[1] = 20.2 - np.arange(40)  # all columns up to the middle
    alpha = coverage(label_map(logits, (40, 40)) == 1, logits, 1)
    assert (alpha[:, :19] == 255).all()
    assert (alpha[:, 23:] == 0).all()
    assert (alpha == alpha[:1]).all()


def test_an_edge_takes_the_colour_of_the_garment() -> None:
    logits = disc_logits(12.3)
    inside = label_map(logits, (160, 160)) == 1
    alpha = coverage(inside, logits, 1)
    photo = np.where((alpha / 255)[..., None] > 0.9, (200, 30, 40), (0, 255, 0)).astype(np.uint8)  # a green wall behind
    cut = np.asarray(cut_out(Image.fromarray(photo), alpha))
    np.testing.assert_array_equal(cut[..., 3], alpha)
    assert (np.abs(cut[alpha > 0][:, :3].astype(int) - (200, 30, 40)).max(1) < 90).all()
    assert np.abs(cut[alpha == 255][:, :3].astype(int) - (200, 30, 40)).max() == 0


def test_what_is_all_edge_keeps_its_colour() -> None:
    alpha = np.zeros((20, 20), np.uint8)
    alpha[5, 2:18] = 140
    photo = Image.new("RGB", (20, 20), (10, 200, 30))
    assert np.asarray(cut_out(photo, alpha))[5, 10].tolist() == [10, 200, 30, 140]
    assert not np.asarray(cut_out(photo, np.zeros((20, 20), np.uint8))).any()
