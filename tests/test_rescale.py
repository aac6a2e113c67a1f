"""Labels of photos that have another scale: --rescale."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TrainFlags, write_photos
from PIL import Image
from test_exif import STORED
from test_labelme_labels import rectangles
from test_png_labels import merged, write_labels

import evaluate
import train
from cloth_segmentation.errors import RunError
from cloth_segmentation.files import atomic_path
from data.checks import Checked, read_checked
from data.dataset import Draw, LabelledPhotos, same_shape
from data.labels import read_annotations
from data.prepared import PreparedPhotos
from options import TrainOptions, parse
from utils.distributed import Processes

LABELS = (60, 80)
"""(width, height) that the labels have."""

SCALES = [(120, 160), (45, 60), (75, 100), (47, 63)]
"""Sizes of photos that show the same."""


def label_folders(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Photos, and their labels in all formats that have a size."""
    photos = write_photos(folder, 4, LABELS)
    index = read_annotations(photos.csv)
    pngs = write_labels(index, folder / "pngs")
    labels = {"csv": photos.csv, "png": pngs, "labelme": rectangles(photos, folder / "labelme")}
    return photos.images, labels


def resize(image: Path, size: tuple[int, int], orientation: int = 1) -> None:
    """Bring a photo to another size; it is seen as before, whatever EXIF has to do for that."""
    with Image.open(image) as photo:
        seen = photo.convert("RGB").resize(size, Image.Resampling.NEAREST)
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (seen if turn is None else seen.transpose(turn)).save(image, exif=exif)


def scaled(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def checked(labels: Path, images: Path) -> Checked:
    found = read_checked(("--df_path", str(labels)), ("--image_folder", str(images)), rescale=True)
    assert found.faults == [], found.report
    return found


@pytest.mark.parametrize("kind", ["csv", "png", "labelme"])
def test_labels_are_scaled_to_the_photo(kind: str, tmp_path: Path) -> None:
    images, labels = label_folders(tmp_path)
    index = read_annotations(labels["csv"])
    before = [LabelledPhotos(index, images)[number] for number in range(4)]
    for number, size in enumerate(SCALES):
        resize(images / f"{number:03d}.png", size, orientation=(1, 3, 6, 8)[number])
    photos = LabelledPhotos(checked(labels[kind], images).photos, images, rescale=True)
    for number, size in enumerate(SCALES):
        photo, own = photos[number]
        assert photo.size == size
        np.testing.assert_array_equal(own, scaled(before[number][1], size))
        # The garments of these photos have colours of their own.
        agree = (np.asarray(photo) == np.asarray(before[number][0].resize(size, Image.Resampling.NEAREST))).all(2)
        assert agree.all()
        np.testing.assert_array_equal(photos.squashed(number, (32, 40))[1], scaled(before[number][1], (32, 40)))


def test_labels_drawn_on_photos_as_they_are_stored_are_scaled_too(tmp_path: Path) -> None:
    images, labels = label_folders(tmp_path)
    before = LabelledPhotos(read_annotations(labels["csv"]), images)[1][1]
    for number, orientation in enumerate((6, 8, 5, 7)):
        with Image.open(images / f"{number:03d}.png") as photo:
            stored = photo.resize((120, 160), Image.Resampling.NEAREST)
        exif = Image.Exif()
        exif[0x0112] = orientation  # as if it had been drawn by a tool that does not turn photos
        stored.save(images / f"{number:03d}.png", exif=exif)
    found = checked(labels["png"], images)
    assert not found.photos.upright
    photo, own = LabelledPhotos(found.photos, images, rescale=True)[1]
    assert photo.size == (120, 160)
    np.testing.assert_array_equal(own, scaled(before, (120, 160)))


def test_a_shape_that_fits_either_way_does_not_tell(tmp_path: Path) -> None:
    """Labels of 50 x 50 pixels fit a photo of 101 x 100 as it is stored as well as turned."""
    Image.fromarray(np.eye(50, dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (101, 100)).save(tmp_path / "photos" / "a.jpg", exif=exif)
    found = checked(tmp_path, tmp_path / "photos")
    assert "1 photos taken upright, though EXIF turns or mirrors them at the same size" in found.notes
    assert LabelledPhotos(found.photos, tmp_path / "photos", rescale=True)[0][0].size == (100, 101)


@pytest.mark.parametrize(
    ("size", "other", "same"),
    [
        ((550, 825), (1100, 1650), True),
        ((550, 825), (183, 275), True),
        ((550, 825), (184, 275), True),
        ((550, 825), (187, 275), False),
        ((550, 825), (825, 550), False),
        ((1000, 1000), (1000, 1001), True),
        ((1000, 1000), (1000, 1004), False),
    ],
)
def test_shapes_are_the_same_up_to_rounding(size: tuple[int, int], other: tuple[int, int], same: bool) -> None:
    assert same_shape(size, other) == same_shape(other, size) == same


def test_measuring_scales_or_names_the_flag(tmp_path: Path, weights: Path) -> None:
    images, labels = label_folders(tmp_path)
    for number, size in enumerate(SCALES):
        resize(images / f"{number:03d}.png", size, orientation=(1, 3, 6, 8)[number])
    flags = [f"--checkpoint={weights}", f"--image_folder={images}", f"--df_path={labels['png']}", "--device=cpu"]
    refused = (
        r"4 photos of another size than the labels say: 000.png: expected 60 x 80 \(Width x Height\), found 120 x 160, "
        "the same shape; --rescale scales the labels; 001.png: "
    )
    with pytest.raises(RunError, match=refused):
        evaluate.main(flags)
    assert evaluate.main([*flags, "--rescale", f"--json={tmp_path / 'out.json'}"]) == 0
    confusion = np.array(json.loads((tmp_path / "out.json").read_text())["confusion"])
    index = read_annotations(labels["csv"])
    truth = [scaled(merged(index, number), size) for number, size in enumerate(SCALES)]
    counts = sum(np.bincount(own.ravel(), minlength=4) for own in truth)
    assert confusion.sum(1).tolist() == counts.tolist()


@pytest.mark.parametrize("kind", ["csv", "png"])
def test_another_shape_is_refused_all_the_same(kind: str, tmp_path: Path) -> None:
    images, labels = label_folders(tmp_path)
    resize(images / "001.png", (120, 150))
    found = read_checked(("--df_path", str(labels[kind])), ("--image_folder", str(images)), rescale=True)
    assert [fault.text for fault in found.faults] == ["001.png: expected 60 x 80 (Width x Height), found 120 x 150"]


def test_training_sees_scaled_labels(tmp_path: Path, train_flags: TrainFlags) -> None:
    images, labels = label_folders(tmp_path / "set")
    for number in range(4):
        resize(images / f"{number:03d}.png", (120, 160))
    index = read_annotations(labels["csv"])
    full = tmp_path / "full"
    full.mkdir()
    for number in range(4):
        Image.fromarray(scaled(merged(index, number), (120, 160))).save(full / f"{number:03d}.png")
    runs = {"rescaled": ["--rescale", f"--df_path={labels['png']}"], "full": [f"--df_path={full}"]}
    squares = []
    for name, more in runs.items():
        flags = train_flags(f"--name={name}", f"--image_folder={images}", *more)
        opt = parse(TrainOptions, [*flags, "--fine_width=120", "--fine_height=160"])
        dataset = train.Training(opt, Processes(torch.device("cpu"))).loader.dataset
        squares.append([dataset[Draw(number, 0)][0] for number in range(4)])
    for rescaled, other in zip(*squares, strict=True):
        assert torch.equal(rescaled[0], other[0])
        assert torch.equal(rescaled[1], other[1])


def test_a_photo_of_another_scale_makes_new_squares(tmp_path: Path) -> None:
    images, labels = label_folders(tmp_path)
    size, kept = (40, 40), tmp_path / "kept"

    def squares() -> PreparedPhotos:
        found = checked(labels["png"], images).photos
        return PreparedPhotos(found, images, folder=kept, writer=atomic_path, rescale=True)

    def files() -> int:
        return len(list(kept.rglob("*.npy")))

    before = squares().squashed(1, size)
    squares().squashed(1, size)
    assert files() == 1
    for count, scale in enumerate([(120, 160), (30, 40)], start=2):
        with Image.new("RGB", scale, (10 * count, 0, 0)) as photo:
            photo.save(images / "001.png")
        pixels, own = squares().squashed(1, size)
        assert files() == count
        assert (pixels == (10 * count, 0, 0)).all()
        np.testing.assert_array_equal(own, before[1])
