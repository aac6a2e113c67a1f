"""Folders of label PNGs and of labelme files that are not what they should be: the whole sentence for each fault."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TrainFlags
from PIL import Image
from test_labelme_labels import document, mask_shape, shape
from test_png_labels import png

import train
from cloth_segmentation.errors import RunError
from data.checks import read_checked

SIZE = (8, 6)
GOOD = np.array([[0, 1, 2, 3] * 2] * 6, np.uint8)

Make = Callable[[Path], object]
"""Writes labels of the photo bad.jpg into a folder, beside good ones."""


def save(pixels: object, name: str = "bad.png", mode: str | None = None, **settings: Any) -> Make:
    def make(folder: Path) -> None:
        picture = Image.fromarray(np.array(pixels, dtype=np.uint8)) if isinstance(pixels, list | np.ndarray) else pixels
        assert isinstance(picture, Image.Image)
        (picture.convert(mode) if mode else picture).save(folder / name, **{"format": "PNG"} | settings)

    return make


def content(data: bytes, name: str = "bad.png") -> Make:
    return lambda folder: (folder / name).write_bytes(data)


def several(*makes: Make) -> Make:
    return lambda folder: [make(folder) for make in makes]


def with_values(*values: int) -> np.ndarray:
    pixels = GOOD.copy()
    pixels.ravel(order="F")[: len(values)] = values
    pixels[:, 0] = (list(values) + [0] * 6)[:6]
    return pixels


def coloured(*colors: tuple[int, ...]) -> np.ndarray:
    pixels = np.zeros((6, 8, len(colors[0])), np.uint8)
    if len(colors[0]) == 4:
        pixels[..., 3] = 255
    for row, color in enumerate(colors):
        pixels[row, :2] = color
    return pixels


def transparent_index() -> Image.Image:
    picture = Image.fromarray(GOOD)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    return picture


def animation(folder: Path) -> None:
    frames = [Image.fromarray(GOOD), Image.fromarray(GOOD[::-1])]
    frames[0].save(folder / "bad.png", save_all=True, append_images=frames[1:])


def cut_off(folder: Path) -> None:
    save(np.random.default_rng(0).integers(0, 4, (60, 80)))(folder)
    (folder / "bad.png").write_bytes((folder / "bad.png").read_bytes()[:500])


NOISE = np.arange(300 * 300)
BLACK_AND_WHITE = np.array([[0, 255] * 4] * 6, np.uint8)


def labelme(*shapes: Any, **more: Any) -> str:
    return document(*shapes, **{"photo": "bad.jpg", "size": SIZE} | more)


def upper(*points: Any, kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return shape("upper body", list(points), kind, **more)


PNGS: dict[str, tuple[Make, str, str]] = {
    "value": (
        save(with_values(7)),
        "label PNGs that cannot be used",
        "bad.png: expected values of 0 to 3, one for each class, found 7 in 1 pixels; if 7 stands for"
        " no class, --ignore_index 7 leaves these pixels out",
    ),
    "255": (
        save(with_values(255, 255, 7)),
        "label PNGs that cannot be used",
        "bad.png: expected values of 0 to 3, one for each class, found 255 in 2 pixels, 7 in 1 "
        "pixels; if 255 stands for no class, --ignore_index 255 leaves these pixels out",
    ),
    "only 255": (
        save(BLACK_AND_WHITE),
        "label PNGs that cannot be used",
        "bad.png: expected values of 0 to 3, one for each class, found 255 in 24 pixels; if 255 "
        "stands for no class, --ignore_index 255 leaves these pixels out; a mask of one class is "
        "called NAME_mask_CLASS.png",
    ),
    "many values": (
        save(with_values(4, 4, 5, 6, 7, 8)),
        "label PNGs that cannot be used",
        "bad.png: expected values of 0 to 3, one for each class, found 4 in 2 pixels, 5 in 1 pixels, "
        "6 in 1 pixels, 2 others in 2 pixels; a file for --classes may list more classes",
    ),
    "index": (
        several(
            save(with_values(9), mode="L"),
            lambda f: Image.open(f / "bad.png").convert("P", palette=Image.Palette.ADAPTIVE).save(f / "bad.png"),
        ),
        "label PNGs that cannot be used",
        "bad.png: expected values of 0 to 3, one for each class, found 4 in 11 pixels; if 4 stands "
        "for no class, --ignore_index 4 leaves these pixels out",
    ),
    "16 bits": (
        content(png(2, 1, 16, 0, [bytes(4)])),
        "label PNGs that cannot be used",
        "bad.png: expected at most 8 bits for a value, found 16; save it with 8 bits",
    ),
    "16-bit colours": (
        content(png(1, 1, 16, 2, [bytes(6)])),
        "label PNGs that cannot be used",
        "bad.png: expected at most 8 bits for a value, found 16; save it with 8 bits",
    ),
    "alpha": (
        save(coloured((128, 0, 0, 254), (0, 0, 0, 0))),
        "label PNGs that cannot be used",
        "bad.png: expected opaque pixels, found 4 that are not; paint what is transparent, and save it without alpha",
    ),
    "transparent index": (
        save(transparent_index(), transparency=2),
        "label PNGs that cannot be used",
        "bad.png: expected opaque pixels, found 12 that are not; paint what is transparent, and save it without alpha",
    ),
    "transparent grey": (
        save(GOOD, transparency=1),
        "label PNGs that cannot be used",
        "bad.png: expected opaque pixels, found 12 that are not; paint what is transparent, and save it without alpha",
    ),
    "colour": (
        save(coloured((128, 0, 1), (0, 128, 0))),
        "label PNGs that cannot be used",
        "bad.png: expected colours of classes ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)), "
        "found (128, 0, 1) in 2 pixels; draw without smoothing, save as PNG, and keep photos in "
        "another folder",
    ),
    "smooth": (
        save(coloured((128, 0, 1), (0, 127, 0), (1, 2, 3), (4, 5, 6), (7, 8, 9))),
        "label PNGs that cannot be used",
        "bad.png: expected colours of classes ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)), "
        "found (1, 2, 3) in 2 pixels, (4, 5, 6) in 2 pixels, (7, 8, 9) in 2 pixels, 2 others in 4 "
        "pixels; draw without smoothing, save as PNG, and keep photos in another folder",
    ),
    "photo": (
        save(np.stack((NOISE % 256, NOISE // 256, NOISE % 7), axis=1).reshape(300, 300, 3)),
        "label PNGs that cannot be used",
        "bad.png: expected colours of classes, found more than 65,536 colours; draw without "
        "smoothing, save as PNG, and keep photos in another folder",
    ),
    "jpeg": (
        save(GOOD, format="JPEG"),
        "label PNGs that cannot be used",
        "bad.png: expected a PNG, found a JPEG picture; save it as PNG, if its values are still exact",
    ),
    "empty": (
        content(b""),
        "label PNGs that cannot be used",
        "bad.png: expected a PNG, found an empty file",
    ),
    "text": (
        content(b"hello"),
        "label PNGs that cannot be used",
        "bad.png: expected a PNG, found a file in no format that Pillow knows",
    ),
    "cut off": (
        cut_off,
        "label PNGs that cannot be used",
        "bad.png: expected a PNG, found one that cannot be decoded (image file is truncated)",
    ),
    "bomb": (
        content(png(60_000, 60_000, 8, 0, [])),
        "label PNGs that cannot be used",
        "bad.png: expected at most 178,956,970 pixels, found 3,600,000,000",
    ),
    "no pixels": (
        content(png(0, 5, 8, 0, [])),
        "label PNGs that cannot be used",
        "bad.png: expected a PNG, found one whose header cannot be read",
    ),
    "animation": (
        animation,
        "label PNGs that cannot be used",
        "bad.png: expected one picture, found an animation; save one frame of it",
    ),
    "link": (
        lambda folder: (folder / "bad.png").symlink_to("nowhere"),
        "label PNGs that cannot be used",
        "bad.png: expected a file, found something else, or a link that leads nowhere",
    ),
    "pipe": (
        lambda folder: os.mkfifo(folder / "bad.png"),
        "label PNGs that cannot be used",
        "bad.png: expected a file, found something else, or a link that leads nowhere",
    ),
    "grey class mask": (
        save(np.array([[0, 255, 254] * 2 + [0, 0]] * 6), "bad_mask_upper.png"),
        "label PNGs that cannot be used",
        "bad_mask_upper.png: expected black and white, found (254, 254, 254); save the mask without smoothing",
    ),
    "class mask with alpha": (
        save(coloured((255, 255, 255, 7)), "bad_mask_upper.png"),
        "label PNGs that cannot be used",
        "bad_mask_upper.png: expected a class mask in black and white, found one with alpha; save it without",
    ),
    "cut-out without alpha": (
        save(coloured((255, 255, 255)), "bad_cutout_upper.png"),
        "label PNGs that cannot be used",
        "bad_cutout_upper.png: expected a cut-out with alpha, found one without; save it as RGBA",
    ),
    "two sizes": (
        several(save(BLACK_AND_WHITE, "bad_mask_lower.png"), save(BLACK_AND_WHITE[1:], "bad_mask_upper.png")),
        "class masks of another size than the photo's first",
        "bad_mask_upper.png: expected 8 x 6 pixels, found 8 x 5",
    ),
    "two labels": (
        several(save(GOOD), save(GOOD, "bad.PNG")),
        "photos with several label PNGs",
        "bad.PNG, bad.png",
    ),
    "another size": (
        save(GOOD[1:]),
        "photos of another size than the labels say",
        "bad.jpg: expected 8 x 5 (Width x Height), found 8 x 6",
    ),
    "no photo": (
        save(GOOD, "absent.png"),
        "photos that are not there",
        "'absent'",
    ),
}
FAR = [[0, 0], [5e6, 0], [0, 5]]
LABELME: dict[str, tuple[str | bytes, str, str]] = {
    "empty": (
        b"",
        "JSON files that cannot be read",
        "bad.json: expected JSON with { at byte 0, found the end of the file: it is cut off",
    ),
    "cut off": (
        labelme(upper([1, 1], [5, 1], [5, 5]))[:-30],
        "JSON files that cannot be read",
        "bad.json: expected JSON with a value at byte 385, found '\"imageH'",
    ),
    "not json": (
        b'{"shapes": nonsense}',
        "JSON files that cannot be read",
        "bad.json: expected JSON with a value at byte 11, found 'nonsense}'",
    ),
    "deep": (
        b'{"shapes": ' + b"[" * 100_000,
        "JSON files that cannot be read",
        "bad.json: expected JSON, found values within values, too many to be read, at byte 12",
    ),
    "shapes twice": (
        b'{"shapes": [], "shapes": []}',
        "JSON files that cannot be read",
        "bad.json: expected one list of shapes, found several",
    ),
    "shapes object": (
        labelme().replace('"shapes": []', '"shapes": {}'),
        "files with wrong shapes",
        "bad.json: expected a list, found {}",
    ),
    "path number": (
        labelme(photo=7),
        "files with a wrong imagePath",
        "bad.json: expected the name of a photo, found 7",
    ),
    "path dots": (
        labelme(photo="x/.."),
        "files with a wrong imagePath",
        'bad.json: expected the name of a photo, found "x/.."',
    ),
    "path nul": (
        labelme(photo="a\0.jpg"),
        "files with a wrong imagePath",
        'bad.json: expected the name of a photo, found "a\\u0000.jpg"',
    ),
    "path surrogate": (
        labelme(photo="\ud800.jpg"),
        "files with a wrong imagePath",
        'bad.json: expected the name of a photo, found "\\ud800.jpg"',
    ),
    "no height": (
        labelme(imageHeight=None),
        "files with a wrong imageHeight",
        "bad.json: expected whole pixels, 1 to 32768, found null; save it anew in labelme",
    ),
    "negative": (
        labelme(imageWidth=-8),
        "files with a wrong imageWidth",
        "bad.json: expected whole pixels, 1 to 32768, found -8; save it anew in labelme",
    ),
    "text": (
        labelme(imageWidth="8"),
        "files with a wrong imageWidth",
        'bad.json: expected whole pixels, 1 to 32768, found "8"; save it anew in labelme',
    ),
    "half": (
        labelme(imageHeight=6.5),
        "files with a wrong imageHeight",
        "bad.json: expected whole pixels, 1 to 32768, found 6.5; save it anew in labelme",
    ),
    "endless": (
        labelme(imageHeight=10**400),
        "files with a wrong imageHeight",
        "bad.json: expected whole pixels, 1 to 32768, found "
        "1000000000000000000000000000000000000000...; save it anew in labelme",
    ),
    "infinite": (
        labelme(imageHeight=0).replace('"imageHeight": 0', '"imageHeight": 1e999'),
        "files with a wrong imageHeight",
        "bad.json: expected whole pixels, 1 to 32768, found Infinity; save it anew in labelme",
    ),
    "another size": (
        labelme(upper([1, 1], [5, 1], [5, 5]), size=(9, 6)),
        "photos of another size than the labels say",
        "bad.jpg: expected 9 x 6 (Width x Height), found 8 x 6, the same shape; --rescale scales the labels",
    ),
    "no label": (
        labelme({"points": []}),
        "shapes without a label",
        "bad.json, shape 1: expected a text, found null",
    ),
    "label number": (
        labelme(shape(7, [])),
        "shapes without a label",
        "bad.json, shape 1: expected a text, found 7",
    ),
    "shape text": (
        labelme("upper"),
        "shapes without a label",
        'bad.json, shape 1: expected a text, found "upper"',
    ),
    "type": (
        labelme(upper([1, 1], kind="ellipse")),
        "shapes of an unknown shape_type",
        'bad.json, shape 1: expected polygon, rectangle, circle, mask, found "ellipse"',
    ),
    "no points": (
        labelme(upper()),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected points [[x, y], ...], found none",
    ),
    "points text": (
        labelme(shape("upper body", "1 2")),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected points [[x, y], ...], found none",
    ),
    "two points": (
        labelme(upper([1, 1], [5, 1])),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected polygons of at least 3 points, found [[1.0, 1.0, 5.0, 1.0]]",
    ),
    "three numbers": (
        labelme(upper([1, 1, 1], [5, 1], [5, 5])),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected points of two numbers, [x, y], found 1, 1, 1",
    ),
    "nan": (
        labelme(upper([1, float("nan")], [5, 1], [5, 5])),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected points of two numbers, [x, y], found 1, NaN",
    ),
    "text point": (
        labelme(upper(["1", "2"], [5, 1], [5, 5])),
        "masks that cannot be read",
        'bad.json, shape 1 (bad.jpg): expected points of two numbers, [x, y], found "1", "2"',
    ),
    "1e300": (
        labelme(upper([1e300, 1], [5, 1], [5, 5])),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected points in or near the photo of 8 x 6, found x 1e+300, y 1",
    ),
    "far": (
        labelme(upper(*FAR)),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected points in or near the photo of 8 x 6, found x 5e+06, y 0",
    ),
    "long": (
        labelme(upper(*[[0, 0], [15, 0]] * 40_000)),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected an outline of at most 1,048,576 pixels, found 1,200,000",
    ),
    "outside": (
        labelme(upper([10, 7], [12, 7], [12, 9])),
        "masks that are empty",
        "bad.json, shape 1 (bad.jpg)",
    ),
    "rectangle": (
        labelme(upper([1, 1], [2, 2], [3, 3], kind="rectangle")),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected the 2 points of a rectangle, found 3",
    ),
    "circle": (
        labelme(upper([1, 1], kind="circle")),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected the 2 points of a circle, found 1",
    ),
    "circle of nothing": (
        labelme(upper([1, 1], [1, 1], kind="circle")),
        "masks that are empty",
        "bad.json, shape 1 (bad.jpg)",
    ),
    "no mask": (
        labelme(upper([1, 1], [2, 2], kind="mask")),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected a mask as a PNG in base64, found none",
    ),
    "mask not base64": (
        labelme(upper([1, 1], [2, 2], kind="mask", mask="?")),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected a mask as a PNG in base64, found text that is none "
        "(Only base64 data is allowed)",
    ),
    "mask no png": (
        labelme(upper([1, 1], [2, 2], kind="mask", mask=base64.b64encode(b"GIF89a").decode())),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected a PNG, found a file in no format that Pillow knows",
    ),
    "mask size": (
        labelme(mask_shape("upper body", GOOD[:2, :2] > 0, (1, 1), beyond=2)),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected a mask of the size of its box, from 1, 1 to 4, 4, found 2 x 2 pixels",
    ),
    "mask outside": (
        labelme(mask_shape("upper body", GOOD > 0, (1, 1))),
        "masks that cannot be read",
        "bad.json, shape 1 (bad.jpg): expected a mask within the photo of 8 x 6 pixels, found one of 8 x 6 at 1, 1",
    ),
    "mask empty": (
        labelme(mask_shape("upper body", GOOD[:2, :2] > 9, (1, 1))),
        "masks that are empty",
        "bad.json, shape 1 (bad.jpg)",
    ),
}


def data_set(folder: Path) -> Path:
    """Two photos, and a folder for their labels."""
    for place in ("labels", "images"):
        (folder / place).mkdir()
    for name in ("bad.jpg", "good.jpg"):
        Image.new("RGB", SIZE).save(folder / "images" / name)
    return folder / "labels"


def faults(folder: Path, **settings: Any) -> list[tuple[str, str]]:
    """(kind, sentence) of each."""
    found = read_checked(("--df_path", str(folder / "labels")), ("--image_folder", str(folder / "images")), **settings)
    assert "good.jpg" in found.photos.names.tolist()
    assert not {"good", "good.jpg"} & found.bad
    return [(fault.kind, fault.text) for fault in found.faults]


@pytest.mark.parametrize("kind", PNGS)
def test_each_fault_of_a_label_png_is_named(kind: str, tmp_path: Path) -> None:
    make, *wanted = PNGS[kind]
    labels = data_set(tmp_path)
    save(GOOD, "good.png")(labels)
    make(labels)
    assert faults(tmp_path) == [tuple(wanted)]


@pytest.mark.parametrize("kind", LABELME)
def test_each_fault_of_a_labelme_file_is_named(kind: str, tmp_path: Path) -> None:
    text, *wanted = LABELME[kind]
    labels = data_set(tmp_path)
    (labels / "good.json").write_text(labelme(upper([1, 1], [5, 1], [5, 5]), photo="good.jpg"))
    (labels / "bad.json").write_bytes(text.encode() if isinstance(text, str) else text)
    assert faults(tmp_path) == [tuple(wanted)]


def test_two_files_for_one_photo_spoil_it(tmp_path: Path) -> None:
    labels = data_set(tmp_path)
    for name, photo in (("good", "good.jpg"), ("bad", "bad.jpg"), ("copy", "bad.jpg")):
        (labels / f"{name}.json").write_text(labelme(upper([1, 1], [5, 1], [5, 5]), photo=photo))
    text = "copy.json: expected another photo than bad.jpg, which bad.json labels, found the same in imagePath"
    assert faults(tmp_path) == [("photos with several labelme files", text)]


def test_other_values_than_those_that_are_left_out_are_named(tmp_path: Path) -> None:
    labels = data_set(tmp_path)
    save(GOOD, "good.png")(labels)
    save(with_values(255, 7))(labels)
    text = (
        "bad.png: expected values of 0 to 3, one for each class, found 7 in 1 pixels; a file for --classes may list "
        "more classes"
    )
    assert faults(tmp_path, ignored=255) == [("label PNGs that cannot be used", text)]


FOLDERS: dict[str, tuple[dict[str, bytes], str]] = {
    "no labels": (
        {"a.txt": b"", "b.jpg": b""},
        "expected a CSV of iMaterialist, a JSON file of COCO, or a folder of label PNGs or labelme JSON files, found a "
        "folder of other files",
    ),
    "COCO": (
        {"train.json": b'{"images": [], "annotations": []}', "b.jpg": b""},
        "expected a CSV of iMaterialist, a JSON file of COCO, or a folder of label PNGs or labelme JSON files, found a "
        "folder of 1 JSON files without shapes; of COCO, name the file itself",
    ),
    "no PNG that will do": (
        {"a.png": b"GIF89a", "b.png": b""},
        "expected label PNGs that can be used, found none:\n  2 label PNGs that cannot be used: a.png: expected a PNG, "
        "found a file in no format that Pillow knows; b.png: expected a PNG, found an empty file",
    ),
    "no labelme file that will do": (
        {"a.json": b'{"shapes": []}', "b.json": b"["},
        "expected labelme files that can be used, found none:\n  1 files with a wrong imageWidth: a.json: expected "
        "whole pixels, 1 to 32768, found null; save it anew in labelme\n  1 JSON files that cannot be read: b.json: "
        "expected JSON with a value at byte 1, found the end of the file: it is cut off",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_which_nothing_can_be_used_are_named(kind: str, tmp_path: Path) -> None:
    files, wanted = FOLDERS[kind]
    labels = data_set(tmp_path)
    for name, data in files.items():
        (labels / name).write_bytes(data)
    with pytest.raises(RunError) as error:
        faults(tmp_path)
    assert str(error.value) == f"--df_path: {labels}: {wanted}"


def test_training_says_it_and_goes_on_with_the_others(
    train_flags: TrainFlags, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = data_set(tmp_path)
    save(GOOD, "good.png")(labels)
    save(with_values(255))(labels)
    flags = train_flags("--iter=1", f"--df_path={labels}", f"--image_folder={tmp_path / 'images'}")
    assert train.main(flags) == 0
    said = capsys.readouterr()
    sentence = PNGS["255"][2].replace("2 pixels, 7 in 1", "1")
    assert f"  1 label PNGs that cannot be used: {sentence}\n" in said.err
    assert "1 photos for training" in said.out
