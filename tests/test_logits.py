import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cloth_segmentation.logits import STRIP, label_map, probabilities


def plain(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """All logits brought to the photo's size, then the highest."""
    up = F.interpolate(torch.from_numpy(logits)[None], size[::-1], mode="bilinear", align_corners=False)
    return up[0].argmax(0).numpy()


@given(
    st.integers(0, 1000),
    st.integers(2, 4),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_labels_are_those_of_interpolated_logits(
    seed: int, channels: int, height: int, width: int, photo_height: int, photo_width: int
) -> None:
    logits = np.random.default_rng(seed).standard_normal((channels, height, width)).astype(np.float32)
    labels = label_map(logits, (photo_width, photo_height))
    assert labels.dtype == np.uint8
    different = labels != plain(logits, (photo_width, photo_height))
    assert different.sum() <= 0.001 * labels.size  # where two logits are equal but for rounding


@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 60))
def test_probabilities_are_the_softmax_of_interpolated_logits(seed: int, photo_height: int, photo_width: int) -> None:
    logits = np.random.default_rng(seed).standard_normal((3, 7, 9)).astype(np.float32) * 20
    up = F.interpolate(torch.from_numpy(logits)[None], (photo_height, photo_width), mode="bilinear")
    np.testing.assert_allclose(
        probabilities(logits, (photo_width, photo_height)), up.softmax(1)[0].numpy(), rtol=1e-3, atol=1e-5
    )


def test_large_photos_are_worked_on_in_strips() -> None:
    draw = np.random.default_rng(0)
    coarse = torch.from_numpy(draw.standard_normal((1, 4, 6, 5)).astype(np.float32))
    logits = F.interpolate(coarse, (48, 40), mode="bilinear")[0].numpy()  # smooth, as a network's are
    size = (1500, 3 * STRIP // 1500)
    assert (label_map(logits, size) == plain(logits, size)).mean() > 0.99999


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_narrow_photos(size: tuple[int, int]) -> None:
    logits = np.zeros((3, 8, 8), dtype=np.float32)
    logits[2] = 1
    np.testing.assert_array_equal(label_map(logits, size), np.full(size[::-1], 2))
