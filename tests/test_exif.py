"""Labelled photos that EXIF turns: masks may have been drawn on what is seen, or on the photo as it is stored."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TrainFlags, fork
from PIL import Image

import train
from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.files import atomic_path
from cloth_segmentation.photos import read_sizes
from data import rle
from data.checks import Checked, read_checked
from data.dataset import LabelledPhotos
from data.prepared import PreparedPhotos
from options import TrainOptions, parse
from utils.distributed import Processes

STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera stores what is seen, by EXIF orientation."""

TALL, SQUARE = (60, 80), (64, 64)

Row = tuple[int, tuple[int, int], bool]
"""(EXIF orientation, size as it is seen, whether the mask is drawn on that)."""


def dataset(folder: Path, rows: list[Row], ending: str = "png") -> Checked:
    """Photos with a red garment in a corner, and its mask."""
    lines = ["ImageId,EncodedPixels,Height,Width,ClassId"]
    for number, (orientation, (width, height), upright) in enumerate(rows):
        seen = np.zeros((height, width, 3), np.uint8)
        seen[: height // 2, : width // 3] = (255, 0, 0)
        picture = Image.fromarray(seen)
        stored = picture if STORED[orientation] is None else picture.transpose(STORED[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"{number}.{ending}"
        stored.save(folder / name, exif=exif, **({"quality": 95, "subsampling": 0} if ending == "jpg" else {}))
        mask = np.asarray(picture if upright else stored)[..., 0] > 127
        lines.append(f"{name},{rle.encode(mask)},{mask.shape[0]},{mask.shape[1]},1")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return read_checked(("--df_path", str(folder / "train.csv")), ("--image_folder", str(folder)))


def fit(photos: LabelledPhotos) -> list[bool]:
    """Whether the mask of each photo lies on its garment."""
    pairs = [photos[number] for number in range(len(photos))]
    return [bool(np.array_equal(np.asarray(photo)[..., 0] > 127, labels > 0)) for photo, labels in pairs]


KEEP_THE_SIZE: list[tuple[int, tuple[int, int]]] = [
    (2, TALL),
    (3, TALL),
    (4, TALL),
    *((n, SQUARE) for n in range(2, 9)),
]


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("telling", [5, 6, 7, 8])
def test_photos_that_tell_decide_for_those_that_do_not(
    telling: int, upright: bool, ending: str, tmp_path: Path
) -> None:
    rows = [(1, TALL, True), *((orientation, size, upright) for orientation, size in KEEP_THE_SIZE)]
    found = dataset(tmp_path, [*rows, (telling, TALL, upright)], ending)
    assert found.faults == []
    assert fit(LabelledPhotos(found.photos, tmp_path)) == [True] * 12
    if upright:
        assert found.notes == ""
    else:
        assert re.search("10 photos taken as they are stored, .*: 1.*; 2.*; 3.*; ...\n", found.notes)
        assert "Masks of 0 other photos fit upright only, of 1 as stored only." in found.notes


def test_without_photos_that_tell_upright_is_assumed_and_said(tmp_path: Path) -> None:
    found = dataset(tmp_path, [(1, TALL, True), (3, TALL, True), (8, SQUARE, True)])
    assert fit(LabelledPhotos(found.photos, tmp_path)) == [True] * 3
    assert f"--df_path {tmp_path / 'train.csv'}: 2 photos taken upright, though EXIF turns or mirrors" in found.notes
    assert ": 1.png; 2.png\n  No other photo tells which is meant." in found.notes
    assert "exiftool -Orientation= PHOTO" in found.notes
    assert dataset(tmp_path, [(1, TALL, True), (6, TALL, False)]).notes == ""  # each photo tells for itself


@pytest.mark.parametrize(
    ("telling", "upright"), [([True, False, False], False), ([True, True, False], True), ([True, False], True)]
)
def test_photos_that_contradict_one_another_are_said_and_most_of_them_decide(
    telling: list[bool], upright: bool, tmp_path: Path
) -> None:
    found = dataset(tmp_path, [(3, TALL, upright), *((6, TALL, each) for each in telling)])
    assert fit(LabelledPhotos(found.photos, tmp_path)) == [True] * (1 + len(telling))
    told = f"Masks of {sum(telling)} other photos fit upright only, of {len(telling) - sum(telling)} as stored only."
    assert told in found.notes


def test_prepared_squares_are_not_mixed(tmp_path: Path) -> None:
    stored = dataset(tmp_path, [(3, TALL, False), (6, TALL, False)]).photos
    for upright in (True, False):
        photos = PreparedPhotos(
            replace(stored, upright=upright), tmp_path, folder=tmp_path / "kept", writer=atomic_path
        )
        square, labels = photos.squashed(0, TALL)
        assert np.array_equal(square[..., 0] > 127, labels > 0) != upright


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_scripts_say_it(script: str, train_flags: TrainFlags, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "turned"
    folder.mkdir()
    dataset(folder, [(3, TALL, False), (2, TALL, False), (6, TALL, False)])
    given = [f"--image_folder={folder}", f"--df_path={folder / 'train.csv'}"]
    flags = [f"--checkpoint={weights}", "--device=cpu"] if script == "evaluate.py" else train_flags("--iter=1")
    done = fork(script, *flags, *given, folder=tmp_path / "printed")
    assert done.returncode == 0, done.stderr
    assert "2 photos taken as they are stored, though EXIF turns or mirrors them" in done.stderr
    if script == "train.py":
        opt = parse(TrainOptions, [*flags, *given])
        photos = train.read_photos(opt, CLOTHES, Processes.start("cpu")).train
        assert fit(LabelledPhotos(photos, folder)) == [True] * 3


def test_a_tiff_is_upright_whatever_pillow_makes_of_its_size(tmp_path: Path) -> None:
    found = dataset(tmp_path, [(6, TALL, True), (6, TALL, False), (3, TALL, True)], "tif")
    assert [fault.text for fault in found.faults] == [
        "1.tif: expected 80 x 60 (Width x Height), found 60 x 80, Height and Width swapped"
    ]
    assert fit(LabelledPhotos(found.photos.select(np.array([0, 2])), tmp_path)) == [True, True]


def test_only_headers_are_read(tmp_path: Path) -> None:
    """Pillow decodes a PNG without EXIF to look for it behind the pixels."""
    Image.effect_noise((500, 400), 50).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    assert read_sizes(tmp_path / "a.png", (500, 400)) == ((500, 400), (500, 400), False)
