from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CCP, PhotoFolder, needs_ccp
from PIL import Image

from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import squash_photo
from data import rle
from data.categories import SHIPPED
from data.dataset import Draw, LabelledPhotos, PhotoPairs, TrainingSquares
from data.labels import read_annotations
from data.transforms import Augmentation, squash_labels

Load = Callable[[LabelledPhotos, int], object]


def photos_of(folder: PhotoFolder) -> LabelledPhotos:
    return LabelledPhotos(read_annotations(folder.csv), folder.images)


def test_labels_fit_the_photo(photo_folder: PhotoFolder) -> None:
    photo, labels = photos_of(photo_folder)[1]
    assert photo.size == (60, 80)
    assert labels.shape == (80, 60)
    pixels = np.asarray(photo)
    assert (pixels[labels == 1] == (200, 0, 0)).all()
    assert (pixels[labels == 2] == (0, 200, 0)).all()


def test_squares_need_not_be_square(photo_folder: PhotoFolder) -> None:
    squares = TrainingSquares(photos_of(photo_folder), (64, 96))
    photo, labels = squares[Draw(1, 0)]
    assert photo.shape == (3, 96, 64)
    assert labels.shape == (96, 64)
    assert photo.dtype == labels.dtype == torch.uint8
    assert labels[40, 32] == 1
    assert labels[60, 32] == 2
    assert photo[:, 60, 32].tolist() == [0, 200, 0]


def test_squares_show_the_photo_by_pillows_bicubic_and_the_labels_by_nearest_neighbour(
    photo_folder: PhotoFolder,
) -> None:
    photos = photos_of(photo_folder)
    for size in ((24, 20), (60, 80), (100, 64)):
        squares = TrainingSquares(photos, size)
        for index in range(len(photos)):
            photo, labels = photos[index]
            pixels, small = squares[Draw(index, 0)]
            expected = np.asarray(photo.resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
            np.testing.assert_array_equal(pixels.numpy(), expected)
            np.testing.assert_array_equal(small.numpy(), squash_labels(labels, size))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("upright", [True, False])
def test_large_jpegs_are_decoded_no_larger_than_a_square_takes(tmp_path: Path, orientation: int, upright: bool) -> None:
    stored, size = (800, 400), (100, 90)
    turned = stored[::-1] if upright and orientation == 6 else stored  # masks are drawn on what is seen, or stored
    ramp = np.linspace(0, 255, stored[0])[None, :, None] * np.linspace(0, 1, stored[1])[:, None, None]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(ramp, 3, axis=2).astype(np.uint8)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    mask = np.zeros(turned[::-1], dtype=bool)
    mask[50:200, 100:300] = True
    csv = tmp_path / "train.csv"
    csv.write_text(f"ImageId,EncodedPixels,Height,Width,ClassId\na.jpg,{rle.encode(mask)},{turned[1]},{turned[0]},1\n")
    photos = LabelledPhotos(read_annotations(csv), tmp_path)
    photo, labels = photos[0]
    whole = np.asarray(squash_photo(photo, size)).astype(int)

    square, small = photos.squashed(0, size)
    np.testing.assert_array_equal(small, squash_labels(labels, size))
    assert 0 < np.abs(square.astype(int) - whole).max() <= 4

    # A close-up has the detail of the photo: it is decoded at its own size.
    closer = Augmentation(crop=0.9)
    left, upper, right, lower = closer.crop_box(labels, 5)
    pixels, _ = TrainingSquares(photos, size, closer)[Draw(0, 5)]
    part = squash_photo(photo.crop((left, upper, right, lower)), size)
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(part).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["crop", "portrait", "pair"])
def test_a_crop_takes_the_same_part_of_photo_and_labels(photo_folder: PhotoFolder, kind: str) -> None:
    augmentation = Augmentation(**{kind: 0.6})
    squares = TrainingSquares(photos_of(photo_folder), (64, 64), augmentation)
    for seed in range(8):
        photo, labels = squares[Draw(1, seed)]
        assert torch.equal(photo, squares[Draw(1, seed)][0])
        assert (photo[0][labels == 1] > 165).float().mean() > 0.9
        wrong = photo[0][labels == 2] > 153  # of the trousers, which a portrait may not show
        assert wrong.sum() <= 0.1 * wrong.numel()


def test_photos_that_may_not_be_used_change_no_other_draw(photo_folder: PhotoFolder) -> None:
    photos = photos_of(photo_folder)
    for augmentation in (Augmentation(), Augmentation(pair=1, crop=0.5)):
        whole = TrainingSquares(photos, (64, 64), augmentation)
        partly = TrainingSquares(photos, (64, 64), augmentation, usable=np.array([0, 1, 4, 6]))
        seen = []
        for number in range(8):
            for seed in range(4):
                draw = Draw(number, seed)
                partner = augmentation.partner(8, seed)
                same = torch.equal(whole[draw][0], partly[draw][0])
                assert same == ({number, partner} - {None} <= {0, 1, 4, 6})
                seen.append(partly._usable(number, seed))
        assert set(seen) == {0, 1, 4, 6}


LOAD = pytest.mark.parametrize(
    "load", [LabelledPhotos.__getitem__, lambda photos, index: photos.squashed(index, (8, 8))]
)
"""Both ways to take a photo."""


@LOAD
def test_a_photo_of_another_size_is_refused(photo_folder: PhotoFolder, load: Load) -> None:
    Image.new("RGB", (61, 80)).save(photo_folder.images / "002.png")
    with pytest.raises(DataError, match=r"002.png: expected 60 x 80 pixels .* found 61 x 80"):
        load(photos_of(photo_folder), 2)


def test_masks_drawn_on_the_stored_photo_fit_despite_exif(photo_folder: PhotoFolder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 80), "red").save(photo_folder.images / "002.png", exif=exif)
    Image.new("RGB", (80, 60), "red").save(photo_folder.images / "003.png", exif=exif)
    for index in (2, 3):
        assert photos_of(photo_folder)[index][0].size == (60, 80)


@LOAD
def test_a_broken_mask_names_photo_and_file(photo_folder: PhotoFolder, load: Load) -> None:
    text = photo_folder.csv.read_text().splitlines()
    text[1] = "000.png,1 999999,80,60,0"
    photo_folder.csv.write_text("\n".join(text))
    with pytest.raises(
        DataError, match=r"train.csv: a mask of 000.png cannot be read: line 2: expected runs of .* within 1 to 4800"
    ):
        load(photos_of(photo_folder), 0)


@needs_ccp
def test_real_photos() -> None:
    photos = LabelledPhotos(read_annotations(CCP / "train.csv").head(5), Path(CCP / "train"))
    for index in range(5):
        photo, labels = photos[index]
        assert photo.size == labels.shape[::-1]
        assert 0.02 < (labels > 0).mean() < 0.6


def test_pairs_for_training_hold_two_photos(photo_folder: PhotoFolder) -> None:
    squares = TrainingSquares(photos_of(photo_folder), (64, 64), Augmentation(pair=1))
    shapes = set()
    for seed in range(8):
        photo, labels = squares[Draw(1, seed)]  # a top over trousers, at the left
        assert photo.shape == (3, 64, 64)
        assert (labels[:, :32] == 1).any()
        assert labels[:, 40:].any()
        assert (photo[0][labels == 1] > 165).float().mean() > 0.9
        shapes.add(tuple(labels.any(0).tolist()))
    assert len(shapes) > 1


def test_pairs_to_measure_on_are_neighbours(photo_folder: PhotoFolder) -> None:
    photos = photos_of(photo_folder)
    pairs = PhotoPairs(photos)
    assert len(pairs) == 8
    assert pairs.names[0] == "000.png + 001.png"
    assert pairs.names[7] == "007.png + 000.png"
    picture, labels = pairs[7]
    assert picture.size == (120, 80)
    np.testing.assert_array_equal(labels[:, :60], photos[7][1])
    np.testing.assert_array_equal(labels[:, 60:], photos[0][1])


def test_garments_are_the_classes_told_apart_further(photo_folder: PhotoFolder) -> None:
    garments = SHIPPED["garments"]
    finer = LabelledPhotos(read_annotations(photo_folder.csv, garments), photo_folder.images)
    assert [np.unique(finer[index][1]).tolist() for index in (0, 1)] == [[0, 11], [0, 2, 7]]  # dress; top and trousers
    for index in range(3):
        np.testing.assert_array_equal(np.array(garments.within)[finer[index][1]], photos_of(photo_folder)[index][1])
