from pathlib import Path

import numpy as np
from PIL import Image

from cloth_segmentation.pictures import mask_picture, overlay, save_picture
from data.categories import SHIPPED
from utils.evaluation_pictures import confusion_picture, gallery, panel

PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))


def test_masks_are_palette_pngs_with_the_class_as_index(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (30, 20)).astype(np.uint8)
    save_picture(mask_picture(labels, PALETTE), tmp_path / "a" / "m.png")
    with Image.open(tmp_path / "a" / "m.png") as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "P", (20, 30))
        np.testing.assert_array_equal(np.asarray(mask), labels)
        assert mask.getpalette()[:12] == [value for rgb in PALETTE for value in rgb]
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), np.array(PALETTE)[labels])


def test_an_overlay_tints_clothes_and_leaves_the_rest(tmp_path: Path) -> None:
    labels = np.zeros((60, 40), dtype=np.uint8)
    labels[20:50, 10:30] = 1
    photo = Image.new("RGB", (40, 60), (100, 100, 100))
    pixels = np.asarray(overlay(photo, labels, PALETTE))
    assert (pixels[labels == 0] == 100).all()
    assert pixels[35, 20].tolist() == [177, 50, 50]  # half the photo, half the class's colour at twice its brightness
    assert pixels[20, 20].tolist() == [255, 0, 0]  # the outline
    save_picture(overlay(photo, labels, PALETTE), tmp_path / "a" / "o.jpg")
    with Image.open(tmp_path / "a" / "o.jpg") as saved:
        assert (saved.format, saved.size) == ("JPEG", (40, 60))


def test_a_gallery_shows_photo_truth_and_prediction() -> None:
    photo = Image.new("RGB", (40, 52), (10, 20, 30))
    single = panel("one", photo, np.full((52, 40), 1, np.uint8), np.full((52, 40), 3, np.uint8), PALETTE)
    picture = gallery([[single, single], [single]])
    assert picture.size == (2 * single.width, 2 * single.height)
    assert picture.getpixel((single.width + 5, single.height + 50)) == (255, 255, 255)  # no fourth one
    colours = {rgb for _, rgb in single.getcolors(single.width * single.height)}
    assert {(10, 20, 30), PALETTE[1], PALETTE[3]} <= colours


def test_a_confusion_matrix_is_darker_where_there_is_more() -> None:
    picture = confusion_picture([[9, 1], [0, 0]], ("background", "upper body"))  # no pixel of upper body
    right, top = picture.width - 8, picture.height - 2 * 110 - 8
    cells = [picture.getpixel((right - 220 + 5 + 110 * column, top + 5))[0] for column in (0, 1)]
    assert cells[0] < cells[1] < 255
    assert picture.getpixel((right - 220 + 5, top + 115)) == (255, 255, 255)


def test_a_confusion_matrix_of_many_classes_names_them_all_and_stays_small() -> None:
    names = SHIPPED["fashion"].names
    picture = confusion_picture(np.eye(47, dtype=int).tolist(), names)
    assert max(picture.size) < 2200
    ink = np.asarray(picture.convert("L")) < 128
    left = 47 * 34 + 16  # of the cells, from the right
    rows = ink[-47 * 34 - 16 : -16, :-left].reshape(47, 34, -1).any((1, 2))
    columns = ink[: -47 * 34 - 16, -left:-16].reshape(-1, 47, 34).any((0, 2))
    assert rows.all()
    assert columns.all()
