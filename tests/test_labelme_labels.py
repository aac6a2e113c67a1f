"""A folder of labelme files gives the areas of its shapes."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PhotoFolder
from PIL import Image
from pycocotools import mask as coco

from data.annotations import Annotations
from data.checks import Checked, read_checked
from data.dataset import LabelledPhotos
from data.label_map import merge
from data.labels import read_annotations, scan

SIZE = (60, 80)


def shape(label: str, points: list[list[float]], kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def mask_shape(label: str, mask: np.ndarray, at: tuple[int, int], beyond: int = 0) -> dict[str, Any]:
    """As labelme writes it: the second point is the last pixel's, or ``beyond`` it."""
    file = BytesIO()
    Image.fromarray(mask).save(file, format="PNG")
    last = [at[0] + mask.shape[1] - 1 + beyond, at[1] + mask.shape[0] - 1 + beyond]
    text = base64.b64encode(file.getvalue()).decode()
    return shape(label, [list(map(float, at)), last], "mask", mask=text)


def document(*shapes: dict[str, Any], photo: str = "a.png", size: tuple[int, int] = SIZE, **more: Any) -> str:
    content = {
        "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": photo, "imageData": None,
        "imageHeight": size[1], "imageWidth": size[0],
    }  # fmt: skip
    return json.dumps(content | more, indent=2)


def checked(labels: Path, images: Path) -> Checked:
    return read_checked(("--df_path", str(labels)), ("--image_folder", str(images)))


def areas(index: Annotations, number: int = 0) -> np.ndarray:
    photo = index[number]
    return merge(photo.masks, (photo.height, photo.width), drop_small=False)


def filled(*polygon: float) -> np.ndarray:
    return coco.decode(coco.frPyObjects([list(polygon)], SIZE[1], SIZE[0]))[..., 0].astype(bool)


def test_all_shapes_give_their_area(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    hole = draw.random((20, 15)) > 0.4
    shapes = [
        (shape("upper body", [[10, 10], [40.5, 12], [20, 60]]), filled(10, 10, 40.5, 12, 20, 60)),
        (shape("Dress", [[10, 10], [40, 12], [20, 60]], None), filled(10, 10, 40, 12, 20, 60)),
        (shape("shorts", [[30, 50], [5, 20]], "rectangle"), filled(5, 20, 30, 20, 30, 50, 5, 50)),
        (shape("upper body", [[5, 5], [30, 9], [25, 40], [2, 30]], "rectangle"), filled(5, 5, 30, 9, 25, 40, 2, 30)),
        (shape("vest", [[-20, 10], [90, 20], [30, 150]]), filled(-20, 10, 90, 20, 30, 150)),
    ]
    for number, (content, area) in enumerate(shapes):
        (tmp_path / "a.json").write_text(document(content))
        label = {"u": 1, "v": 1, "s": 2, "D": 3}[content["label"][0]]
        np.testing.assert_array_equal(areas(read_annotations(tmp_path)), area * label, err_msg=str(number))

    for beyond in (0, 1):
        (tmp_path / "a.json").write_text(document(mask_shape("coat", hole, (40, 7), beyond)))
        wanted = np.zeros(SIZE[::-1], np.uint8)
        wanted[7:27, 40:55] = 3 * hole
        np.testing.assert_array_equal(areas(read_annotations(tmp_path)), wanted)

    for radius in (0.5, 4, 17.3):
        (tmp_path / "a.json").write_text(document(shape("cape", [[30, 40], [30 + radius, 40]], "circle")))
        y, x = np.mgrid[:80, :60] + 0.5
        distance = np.hypot(x - 30, y - 40)
        found = areas(read_annotations(tmp_path)) == 3
        assert found[distance < radius - 1].all()
        assert not found[distance > radius + 1].any()
        assert abs(int(found.sum()) - np.pi * radius**2) < 2 + 3 * radius


def test_what_has_no_area_is_left_out_and_said(tmp_path: Path) -> None:
    kinds = {"point": 1, "points": 2, "line": 2, "linestrip": 3}
    lines = [shape("skirt", [[1, 2]] * count, kind) for kind, count in kinds.items()]
    others = [shape("face", [[1, 2]], "point"), shape("hat", [[1, 1], [40, 1], [40, 40]])]  # of no class
    (tmp_path / "a.json").write_text(document(*lines, *others, shape("skirt", [[1, 1], [50, 1], [50, 70]])))
    (tmp_path / "config.json").write_text('{"labels": ["skirt"]}')
    found = scan(tmp_path)
    assert found.categories == {"skirt": 5, "face": 1, "hat": 1}
    assert len(found.photos.labels) == 1
    assert found.photos.instances(0)[0].place == "a.json, shape 7"
    assert [(fault.kind, fault.text) for fault in found.faults] == [
        *(
            (
                "shapes without area, which are left out",
                f"a.json, shape {number}: expected one with an area (polygon, rectangle, circle, mask), found a {kind}",
            )
            for number, kind in enumerate(kinds, start=1)
        ),
        ("JSON files that are not of labelme", "config.json: expected shapes, found none; labelme did not write it"),
    ]
    assert all(fault.harmless for fault in found.faults)


PLACES = [
    # (file below the labels, imagePath, photo below the photos, name)
    ("a.json", "a.png", "a.png", "a.png"),
    ("s/a.json", "a.png", "s/a.png", "s/a.png"),
    ("a.json", "..\\photos\\a.png", "a.png", "a.png"),
    ("a.json", "C:\\Users\\me\\a.png", "a.png", "a.png"),
    ("a.json", "/home/me/a.png", "a.png", "a.png"),
    ("a.json", "", "a.png", "a.png"),
    ("a.json", None, "a.png", "a.png"),
    ("b.json", "A.PNG", "a.png", "a.png"),
    ("caf\u00e9.json", "caf\u00e9.png", "caf\u00e9.png", "caf\u00e9.png"),
]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("file", "path", "photo", "name"), PLACES)
def test_the_photo_is_found(file: str, path: str | None, photo: str, name: str, together: bool, tmp_path: Path) -> None:
    labels = tmp_path / ("photos" if together else "labels")
    for place in (labels / file, tmp_path / "photos" / photo):
        place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE).save(tmp_path / "photos" / photo)
    content = document(shape("upper body", [[1, 1], [50, 1], [50, 70]]), photo="?").replace('"?"', json.dumps(path))
    (labels / file).write_bytes((b"\xef\xbb\xbf" if together else b"") + content.encode())
    found = checked(labels, tmp_path / "photos")
    assert found.faults == []
    assert found.photos.names.tolist() == [name]
    assert areas(found.photos).any()


def test_photos_need_not_have_the_folders_of_their_files(tmp_path: Path) -> None:
    (tmp_path / "labels" / "deep").mkdir(parents=True)
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    (tmp_path / "labels" / "deep" / "a.json").write_text(document(shape("upper body", [[1, 1], [9, 1], [9, 9]])))
    assert checked(tmp_path / "labels", tmp_path).photos.names.tolist() == ["a.png"]


def test_a_photo_in_a_sub_folder_of_its_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "in" / "photos").mkdir(parents=True)
    Image.new("RGB", SIZE).save(tmp_path / "in" / "photos" / "a.png")
    (tmp_path / "in" / "a.json").write_text(
        document(shape("upper body", [[1, 1], [9, 1], [9, 9]]), photo="photos/a.png")
    )
    assert checked(tmp_path, tmp_path).photos.names.tolist() == ["in/photos/a.png"]


def rectangles(folder: PhotoFolder, labels: Path) -> Path:
    """The labels of ``write_photos`` as labelme has them."""
    names = {"1": "top, t-shirt, sweatshirt", "6": "Pants", "10": "dress"}
    labels.mkdir()
    for photo, instances in folder.masks.items():
        shapes = []
        for class_id, mask in instances:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            corners = [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]
            points = [[float(x), float(y)] for x, y in corners]
            shapes.append(shape(names[class_id.split("_")[0]], points, "rectangle"))
        text = document(*shapes, photo=photo, imageData=base64.b64encode(bytes(9999)).decode())
        (labels / photo).with_suffix(".json").write_text(text)
    return labels


def test_the_same_labels_give_the_same_squares(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    labels = rectangles(photo_folder, tmp_path / "labels")
    found = checked(labels, photo_folder.images)
    assert found.faults == []
    one, other = (
        LabelledPhotos(index, photo_folder.images) for index in (found.photos, read_annotations(photo_folder.csv))
    )
    for number in range(8):
        np.testing.assert_array_equal(one[number][1], other[number][1])
        np.testing.assert_array_equal(one.squashed(number, (64, 48))[1], other.squashed(number, (64, 48))[1])


def test_other_shapes_have_another_digest(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    labels = rectangles(photo_folder, tmp_path / "labels")
    before = read_annotations(labels)
    content = json.loads((labels / "001.json").read_text())
    for change in ({"label": "skirt"}, {"points": [[1.0, 1.0], [20.0, 60.0]]}):
        content["shapes"][0] |= change
        (labels / "001.json").write_text(json.dumps(content, indent=2))
        after = read_annotations(labels)
        assert (before.digests != after.digests).tolist() == [number == 1 for number in range(8)]
        before = after
