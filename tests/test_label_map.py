import numpy as np

from data import rle
from data.label_map import merge


def box(shape: tuple[int, int], top: int, left: int, bottom: int, right: int) -> str:
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return rle.encode(mask)


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


def test_the_size_rule_goes_by_each_side_s_own_scale() -> None:
    # 11 px of a side of 400 are 21 px in training; 11 px of a side of 800 are 10.6: swapped, the wrong one would go.
    wide = (400, 800)
    assert merge([(1, box(wide, 0, 0, 11, 200))], wide).any()
    assert not merge([(1, box(wide, 0, 0, 200, 11))], wide).any()


def test_without_instances_all_is_background() -> None:
    for instances in ([], [(1, "")], [(1, box((100, 100), 5, 5, 6, 6))]):
        labels = merge(instances, (100, 100))
        assert labels.shape == (100, 100)
        assert not labels.any()
