import numpy as np
import pytest
from conftest import CCP, needs_ccp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data import rle
from data.label_map import merge
from data.labels import read_annotations
from data.transforms import squash_labels


def runs_of(mask: np.ndarray) -> rle.Runs:
    return rle.parse(rle.encode(mask), mask.shape)


def box(shape: tuple[int, int], top: int, left: int, bottom: int, right: int) -> rle.Runs:
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return runs_of(mask)


def test_smaller_instances_lie_on_top_in_whatever_order_they_come() -> None:
    shape = (100, 60)
    dress, top, skirt = box(shape, 10, 10, 90, 50), box(shape, 10, 10, 40, 50), box(shape, 35, 10, 60, 50)
    instances = [(3, dress), (1, top), (2, skirt)]
    expected = np.zeros(shape, dtype=np.uint8)
    expected[10:90, 10:50] = 3
    expected[10:40, 10:50] = 1
    expected[35:60, 10:50] = 2  # upper + lower is not "full body", as it was in the original
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        labels = merge([instances[index] for index in order], shape)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, expected)


def test_of_equal_instances_the_later_one_lies_on_top() -> None:
    shape = (50, 50)
    labels = merge([(1, box(shape, 0, 0, 20, 20)), (2, box(shape, 0, 0, 20, 20))], shape)
    assert set(np.unique(labels)) == {0, 2}


def test_small_instances_are_dropped_by_their_size_in_training() -> None:
    shape = (768, 384)  # squashed to 768 x 768, the width doubles
    kept, narrow, low = box(shape, 0, 0, 20, 10), box(shape, 100, 0, 300, 9), box(shape, 400, 0, 419, 200)
    labels = merge([(1, kept), (2, narrow), (3, low)], shape)
    assert set(np.unique(labels)) == {0, 1}


def test_where_labels_are_drawn_to_the_pixel_none_is_dropped() -> None:
    shape = (768, 384)
    low = box(shape, 400, 0, 401, 3)
    assert not merge([(3, low)], shape).any()
    assert merge([(3, low)], shape, drop_small=False).sum() == 9


def test_the_size_rule_goes_by_each_side_s_own_scale() -> None:
    # 11 px of a side of 400 are 21 px in training; 11 px of a side of 800 are 10.6: swapped, the wrong one would go.
    wide = (400, 800)
    assert merge([(1, box(wide, 0, 0, 11, 200))], wide).any()
    assert not merge([(1, box(wide, 0, 0, 200, 11))], wide).any()


def test_without_instances_all_is_background() -> None:
    for instances in ([], [(1, rle.parse("", (100, 100)))], [(1, box((100, 100), 5, 5, 6, 6))]):
        labels = merge(instances, (100, 100))
        assert labels.shape == (100, 100)
        assert not labels.any()


@given(st.data())
def test_painting_at_another_size_shows_the_pixels_that_resizing_would(data: st.DataObject) -> None:
    sides = st.integers(1, 40)
    shape = data.draw(st.tuples(sides, sides))
    size = data.draw(st.tuples(sides, sides))
    masks = data.draw(st.lists(hnp.arrays(bool, shape), max_size=4))
    instances = [(1 + number % 3, runs_of(mask)) for number, mask in enumerate(masks)]
    labels = merge(instances, shape, size)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, squash_labels(merge(instances, shape), size))


@pytest.mark.parametrize("side", range(1, 60))
def test_every_change_of_a_side_samples_as_resizing_does(side: int) -> None:
    draw = np.random.default_rng(side)
    for shape in ((side, 7), (7, side)):
        instances = [(value, runs_of(draw.random(shape) < 0.5)) for value in (1, 2, 3)]
        whole = merge(instances, shape)
        for target in range(1, 60):
            for size in ((target, 7), (5, target)):
                np.testing.assert_array_equal(merge(instances, shape, size), squash_labels(whole, size))


@needs_ccp
@pytest.mark.parametrize("size", [(768, 768), (256, 256), (100, 333), (1100, 900)])
def test_real_masks_painted_at_another_size(size: tuple[int, int]) -> None:
    index = read_annotations(CCP / "train.csv")
    for number in range(0, len(index), 45):
        photo = index[number]
        instances, shape = photo.masks, photo[1:3]
        np.testing.assert_array_equal(merge(instances, shape, size), squash_labels(merge(instances, shape), size))
