import random

import numpy as np
import pytest
from conftest import CCP, needs_ccp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from cloth_segmentation.coco import encode_coco
from data import rle
from data.labels import read_annotations

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(masks)
def test_decode_inverts_encode(mask: np.ndarray) -> None:
    decoded = rle.decode(rle.encode(mask), mask.shape)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


@given(masks)
def test_pycocotools_agrees(mask: np.ndarray) -> None:
    counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(rle.decode(rle.encode(mask), mask.shape), coco.decode(counts).astype(bool))
    assert rle.area(rle.parse(rle.encode(mask), mask.shape)) == coco.area(counts)


@given(masks)
def test_the_encoding_for_coco_is_the_one_of_pycocotools(mask: np.ndarray) -> None:
    ours, theirs = encode_coco(mask), coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert ours == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}


def test_long_runs_are_encoded_for_coco() -> None:
    mask = np.zeros((300, 4000), bool)
    mask[:, 1000:1001] = mask[:, 1003:3500] = mask[:150, 3700:] = True
    assert encode_coco(mask)["counts"] == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


@given(masks)
def test_box_size_is_that_of_the_mask(mask: np.ndarray) -> None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    expected = (np.ptp(rows) + 1, np.ptp(columns) + 1) if len(rows) else (0, 0)
    assert rle.box_size(rle.parse(rle.encode(mask), mask.shape), mask.shape[0]) == expected


@given(masks, st.randoms())
def test_runs_may_stand_in_any_order(mask: np.ndarray, chance: random.Random) -> None:
    numbers = rle.encode(mask).split()
    pairs = [" ".join(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
    chance.shuffle(pairs)
    np.testing.assert_array_equal(rle.decode(" ".join(pairs), mask.shape), mask)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=6))
def test_what_is_read_is_what_is_written_and_all_else_is_refused(pairs: list[tuple[int, int]]) -> None:
    pixels = [first - 1 + step for first, length in pairs for step in range(length)]
    fits = all(length for _, length in pairs) and all(0 <= pixel < 24 for pixel in pixels)
    text = " ".join(f"{first} {length}" for first, length in pairs)
    if fits and len(set(pixels)) == len(pixels):
        assert np.flatnonzero(rle.decode(text, (4, 6)).ravel(order="F")).tolist() == sorted(pixels)
    else:
        with pytest.raises(ValueError, match="expected runs"):
            rle.decode(text, (4, 6))


def test_positions_run_down_the_columns_from_one() -> None:
    expected = np.array([[True, False, False], [True, True, False]])
    np.testing.assert_array_equal(rle.decode("1 2 4 1", (2, 3)), expected)
    assert rle.encode(expected) == "1 2 4 1"


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1 2 3",
        "a b",
        "0 2",
        "1 7",
        "6 2",
        "1 0",
        "1 2 2 1",
        "3 1 1 3",
        "-1 2",
        "1 -2",
        "1.5 2",
        "\uff11 2",
        "99999999999999999999 1",
    ],
)
def test_what_is_no_mask_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*, found"):
        rle.decode(text, (2, 3))


@pytest.mark.parametrize("text", ["", " ", "\n", " 1 2\t4  1\n"])
def test_any_white_space_parts_numbers(text: str) -> None:
    assert rle.parse(text, (2, 3)).tolist() == ([[0, 2], [3, 4]] if text.strip() else [])


@given(masks, st.data())
def test_sampled_runs_are_those_of_the_rows_and_columns_kept(mask: np.ndarray, data: st.DataObject) -> None:
    rows, columns = (
        np.array(sorted(data.draw(st.sets(st.integers(0, side - 1), min_size=1))), dtype=np.int64)
        for side in mask.shape
    )
    runs = rle.sample(rle.parse(rle.encode(mask), mask.shape), mask.shape[0], rows, columns)
    canvas = np.zeros((len(rows), len(columns)), dtype=bool, order="F")
    rle.paint(canvas, runs, True)
    np.testing.assert_array_equal(canvas, mask[np.ix_(rows, columns)])


def test_painting_refuses_a_canvas_it_would_only_copy() -> None:
    with pytest.raises(ValueError, match="column-major"):
        rle.paint(np.zeros((2, 3), dtype=bool), rle.parse("1 2", (2, 3)), 1)


@needs_ccp
def test_pycocotools_agrees_on_real_masks() -> None:
    index = read_annotations(CCP / "train.csv")
    checked = 0
    for number in range(0, len(index), 9):
        shape = index.size(number)[::-1]
        for text in (instance.content.decode() for instance in index.instances(number)):
            numbers = np.array(text.split(), dtype=np.int64)
            starts, lengths = numbers[::2] - 1, numbers[1::2]
            edges = np.stack((starts, starts + lengths), axis=1).ravel()
            counts = np.diff(np.concatenate(([0], edges, [shape[0] * shape[1]]))).tolist()
            theirs = coco.decode(coco.frPyObjects({"size": list(shape), "counts": counts}, *shape))
            ours = rle.decode(text, shape)
            np.testing.assert_array_equal(ours, theirs.astype(bool))
            assert rle.encode(ours) == text
            checked += 1
    assert checked > 100
