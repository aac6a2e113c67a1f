"""Which photos are held out, in a run that begins and in one that goes on."""

import random
from pathlib import Path

import numpy as np
import pytest
from conftest import PhotoFolder

from cloth_segmentation.errors import DataError
from data.annotations import Annotations
from data.labels import read_annotations
from data.sides import Sides, choose_sides, held_out_by_name, write_sides

HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"
NAMES = [f"{number:05d}.jpg" for number in range(1000)]


def index_of(tmp_path: Path, rows: str | bytes) -> Annotations:
    path = tmp_path / "train.csv"
    path.write_bytes(HEADER.encode() + (rows.encode() if isinstance(rows, str) else rows))
    return read_annotations(path)


def held_out(names: list[str], fraction: float = 0.3, seed: int = 0) -> set[str]:
    return set(np.array(names)[held_out_by_name(names, fraction, seed)].tolist())


def test_a_side_depends_on_name_and_seed_alone() -> None:
    chosen = held_out(NAMES)
    assert 250 < len(chosen) < 350
    others = [f"new/{number}.png" for number in range(50)]
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    for names in (others + NAMES, NAMES[500:], shuffled):
        assert held_out(names) & set(NAMES) == chosen & set(names)
    assert 60 < len(chosen & held_out(NAMES, seed=1)) < 120  # 0.3 of those held out, as by chance
    assert held_out(NAMES, 0.1) < chosen < held_out(NAMES, 0.5)
    assert not held_out(NAMES, 0)


def test_sides_are_the_same_for_ever() -> None:
    """In other processes, on other machines, in later versions."""
    assert sorted(held_out(NAMES[:24])) == [f"{number:05d}.jpg" for number in (0, 4, 10, 12)]


@pytest.mark.parametrize("spelled", ["00000", "00000.JPG", "00000.jpeg", "00000.png"])
def test_the_spelling_of_a_name_does_not_count(spelled: str) -> None:
    for seed in range(20):
        assert held_out_by_name([spelled], 0.5, seed) == held_out_by_name(["00000.jpg"], 0.5, seed)
    assert held_out_by_name(["cafe\u0301.jpg"], 0.5, 3) == held_out_by_name(["caf\u00e9.jpg"], 0.5, 3)


ROWS = "".join(
    f"{number}.jpg,1 2,9,5,{category}\n{number}.jpg,7 3,9,5,1\n" for number, category in enumerate([0, 6, 9] * 7)
)


def begun(tmp_path: Path, rows: str | bytes = ROWS, fraction: float = 0.3) -> tuple[Path, Sides]:
    """The record of a run that has begun, and its sides."""
    photos, path = index_of(tmp_path, rows), tmp_path / "photos.csv"
    sides = choose_sides(photos, fraction, seed=0)
    write_sides(path, photos, sides)
    return path, sides


def test_nothing_is_said_where_nothing_has_changed(tmp_path: Path) -> None:
    for rows in (ROWS, b'a "b".jpg,1 2,9,5,0\n' + b"caf\xe9 \xf0\x9f\x91\x97.jpg,1 2,9,5,0\n"):
        path, sides = begun(tmp_path, rows)
        again = choose_sides(index_of(tmp_path, rows), 0.3, 0, path)
        assert again.held_out.tolist() == sides.held_out.tolist()
        assert again.said == ""


@pytest.mark.parametrize(
    ("edit", "kind", "names"),
    [
        (lambda rows: "new.jpg,1 2,9,5,0\n" + rows, "added", "new.jpg"),
        (lambda rows: rows.replace("4.jpg,1 2,9,5,6\n4.jpg,7 3,9,5,1\n", "", 1), "gone", "4.jpg"),
        (lambda rows: rows.replace("5.jpg,1 2,", "5.jpg,1 3,", 1), "relabelled", "5.jpg"),  # a mask
        (lambda rows: rows.replace("5.jpg,1 2,9,5,9\n", "5.jpg,1 2,9,5,10\n", 1), "relabelled", "5.jpg"),
        (
            lambda rows: rows.replace("1.jpg,1 2,9,5,6\n1.jpg,7 3,9,5,1\n", "1.jpg,1 2,9,5,1\n1.jpg,7 3,9,5,6\n", 1),
            "relabelled",
            "1.jpg",
        ),
        (lambda rows: rows.replace("\n2.jpg,1 2,9,5,9", "", 1), "relabelled", "2.jpg"),
        (
            lambda rows: rows.replace("\n3.jpg,1 2,9,5,", "\n3.jpg,1 2,5,9,").replace(
                "\n3.jpg,7 3,9,5,", "\n3.jpg,7 3,5,9,"
            ),
            "relabelled",
            "3.jpg",
        ),
    ],
    ids=["new", "gone", "mask", "category", "categories swapped", "garment gone", "size"],
)
def test_what_has_changed_is_said(edit, kind: str, names: str, tmp_path: Path) -> None:
    path, sides = begun(tmp_path)
    before = dict(zip(index_of(tmp_path, ROWS).names.tolist(), sides.held_out.tolist(), strict=True))
    photos = index_of(tmp_path, edit(ROWS))
    again = choose_sides(photos, 0.3, 0, path)
    assert f"\n  1 photos {kind}: {names}\n" in again.said
    assert again.said.count("photos ") == 1
    for name, is_held_out in zip(photos.names.tolist(), again.held_out.tolist(), strict=True):
        assert is_held_out == before.get(name, is_held_out)
    write_sides(path, photos, again)
    assert choose_sides(photos, 0.3, 0, path).said == ""


def test_rows_in_another_order_are_said_to_change_the_draws(tmp_path: Path) -> None:
    path, _ = begun(tmp_path)
    lines = ROWS.splitlines(keepends=True)
    sides = choose_sides(index_of(tmp_path, "".join(lines[2:] + lines[:2])), 0.3, 0, path)
    assert "from here on others are drawn" in sides.said
    assert "have changed since" not in sides.said


@pytest.mark.parametrize(("fraction", "seed"), [(0.0, 0), (0.9, 0), (0.3, 7)])
def test_sides_stay_whatever_is_asked_for_later(fraction: float, seed: int, tmp_path: Path) -> None:
    path, sides = begun(tmp_path)
    photos = index_of(tmp_path, ROWS + "".join(f"new{number}.jpg,1 2,9,5,0\n" for number in range(100)))
    later = choose_sides(photos, fraction, seed, path)
    assert later.held_out[:21].tolist() == sides.held_out.tolist()
    assert fraction * 60 <= later.held_out[21:].sum() <= fraction * 140
    assert "photos are trained on, or held out, as since they joined this run" in later.said

    # Also of those that are away for a while.
    write_sides(path, photos.head(5), choose_sides(photos.head(5), fraction, seed, path))
    back = choose_sides(index_of(tmp_path, ROWS), fraction, seed, path)
    assert back.held_out.tolist() == sides.held_out.tolist()
    assert "16 photos added: 5.jpg; 6.jpg; 7.jpg; ..." in back.said


@pytest.mark.parametrize(
    "content", ["", "ImageId\n", "ImageId,side,labels\na.jpg,neither,00\n", "ImageId,side,labels\na"]
)
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    path, _ = begun(tmp_path)
    path.write_text(content)
    with pytest.raises(
        DataError, match=r"photos.csv: expected the photos of this run and their sides, found .* damaged"
    ):
        choose_sides(index_of(tmp_path, ROWS), 0.3, 0, path)


def test_a_run_of_an_earlier_version_is_told_that_sides_are_new(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    photos = read_annotations(photo_folder.csv)
    said = choose_sides(photos, 0.4, 0, tmp_path / "photos.csv").said
    assert "photos.csv: expected the sides that the photos had in this run, found none" in said
    assert choose_sides(photos, 0, 0, tmp_path / "photos.csv").said == ""
