import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from cloth_segmentation.logits import label_map
from cloth_segmentation.regions import absorb_small, grow, join_torn, shrink


def logits_of(labels: np.ndarray) -> np.ndarray:
    """Logits (4, H, W) whose highest is that of the label; the next one is lower body, which is in no garment."""
    draw = np.random.default_rng(2)
    logits = draw.uniform(-4, -3, (4, *labels.shape)).astype(np.float32)
    logits[2] += 2
    np.put_along_axis(logits, labels[None].astype(int), draw.uniform(1, 2, (1, *labels.shape)), 0)
    return logits


def test_a_torn_garment_takes_the_class_of_its_larger_part() -> None:
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[5:25, 5:25] = 1
    labels[5:25, 20:25] = 3  # a sleeve of it
    labels[5:25, 40:50] = 3  # another garment
    labels[26:35, 5:25] = 2
    whole = labels.copy()
    whole[5:25, 5:25] = 1
    logits = logits_of(labels)
    before = logits.copy()
    joined = join_torn(logits, (1, 3))
    np.testing.assert_array_equal(joined.argmax(0), whole)
    np.testing.assert_array_equal(logits, before)
    at_ten_times_the_size = label_map(joined, (600, 400))
    assert not (at_ten_times_the_size[40:260, 40:260] == 3).any()  # nor along its edges
    assert (at_ten_times_the_size[60:240, 60:240] == 1).all()


def test_a_coat_over_a_shirt_stays_two_garments() -> None:
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[5:35, 5:35] = 3
    labels[5:35, 10:22] = 1  # 40 %
    logits = logits_of(labels)
    np.testing.assert_array_equal(join_torn(logits, (1, 3)), logits)
    labels[labels == 3] = 0
    assert join_torn(logits_of(labels), (1, 3)).argmax(0).tolist() == labels.tolist()


@given(st.integers(0, 2**32 - 1))
def test_joining_changes_no_other_class(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(4, 9, 7)).astype(np.float32)
    before, after = logits.argmax(0), join_torn(logits, (1, 3)).argmax(0)
    for other in (0, 2):
        np.testing.assert_array_equal(before == other, after == other)


def test_small_regions_take_the_class_around_them() -> None:
    labels = np.zeros((100, 100), dtype=np.uint8)
    labels[20:80, 20:80] = 3  # a coat
    labels[40:44, 40:44] = 1  # a patch on it
    labels[5:8, 5:8] = 2  # a blob on the wall
    expected = np.zeros_like(labels)
    expected[20:80, 20:80] = 3
    before = labels.copy()
    np.testing.assert_array_equal(absorb_small(labels, 0.01), expected)
    np.testing.assert_array_equal(labels, before)


def test_regions_of_the_asked_for_area_stay() -> None:
    labels = np.zeros((10, 10), dtype=np.uint8)
    labels[0, 0:2] = 1
    labels[9, 9] = 2
    kept = absorb_small(labels, 0.02)
    assert kept[0].tolist() == [1, 1] + [0] * 8
    assert kept[9, 9] == 0


def test_corners_join_and_holes_of_background_stay() -> None:
    labels = np.zeros((10, 10), dtype=np.uint8)
    labels[0, 0] = labels[1, 1] = labels[2, 2] = 1
    np.testing.assert_array_equal(absorb_small(labels, 0.03), labels)
    labels[:] = 1
    labels[5, 5] = 0
    np.testing.assert_array_equal(absorb_small(labels, 0.5), labels)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99))
def test_any_label_map_survives(seed: int, least: float) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (9, 7)).astype(np.uint8)
    result = absorb_small(labels, least)
    assert result.shape == labels.shape
    assert result.dtype == np.uint8
    assert set(np.unique(result)) <= set(np.unique(labels))
    np.testing.assert_array_equal(result[labels == 0], 0)
    np.testing.assert_array_equal(absorb_small(labels, 0), labels)
    for value in (1, 2, 3):
        regions, count = ndimage.label(result == value, np.ones((3, 3)))
        assert all((regions == number).sum() >= least * labels.size for number in range(1, count + 1))


def test_a_small_region_in_a_small_region_goes_too() -> None:
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[10:13, 10:13] = 2
    labels[11, 11] = 1
    assert not absorb_small(labels, 0.01).any()


def two_classes() -> np.ndarray:
    """One class above another, which the lower border cuts off."""
    labels = np.zeros((60, 50), dtype=np.uint8)
    labels[20:40, 15:35] = 1
    labels[40:, 15:35] = 2
    return labels


def test_clothes_grow_into_the_background_alone() -> None:
    labels = two_classes()
    grown = grow(labels, 5)
    rows, columns = np.mgrid[:60, :50]
    distance = np.hypot(np.maximum(20 - rows, 0), np.maximum(15 - columns, 0) + np.maximum(columns - 34, 0))
    np.testing.assert_array_equal(grown > 0, distance <= 5)
    np.testing.assert_array_equal(grown[labels > 0], labels[labels > 0])
    assert (grown[:40][distance[:40] <= 5] == 1).all()
    assert (grown[40:][distance[40:] <= 5] == 2).all()
    assert (grow(labels, 500) > 0).all()
    assert not grow(np.zeros_like(labels), 5).any()
    np.testing.assert_array_equal(grow(labels, 0), labels)


def test_classes_shrink_from_all_edges_but_those_of_the_photo() -> None:
    expected = np.zeros((60, 50), dtype=np.uint8)
    expected[23:37, 18:32] = 1
    expected[43:, 18:32] = 2
    np.testing.assert_array_equal(shrink(two_classes(), 3), expected)
    assert not shrink(two_classes(), 11).any()
    np.testing.assert_array_equal(shrink(two_classes(), 0), two_classes())
    whole = np.full((5, 6), 3, dtype=np.uint8)
    np.testing.assert_array_equal(shrink(whole, 9), whole)
