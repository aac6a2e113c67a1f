"""Labels in COCO's JSON: the masks that are meant, whatever wrote the file."""

import itertools
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CCP, PhotoFolder, needs_ccp, write_photos
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

import evaluate
from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.coco import decode_coco, encode_coco
from data import rle
from data.annotations import Annotations
from data.categories import CATEGORIES
from data.checks import check_photos
from data.class_sets import find_class_set
from data.coco_labels import runs_of
from data.dataset import LabelledPhotos
from data.label_map import merge
from data.labels import read_annotations, scan

Document = dict[str, Any]

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def as_coco(csv: Path, *, compressed: bool = True, photos: int | None = None) -> Document:
    """The rows of a CSV as COCO writes them."""
    rows = pd.read_csv(csv, dtype={"ImageId": str, "ClassId": str})
    names = rows["ImageId"].drop_duplicates().tolist()[:photos]
    images, annotations = {}, []
    for row in rows[rows["ImageId"].isin(names)].itertuples():
        size = {"width": row.Width, "height": row.Height}
        image = images.setdefault(row.ImageId, {"id": len(images) + 1, "file_name": row.ImageId} | size)
        segmentation = encode_coco(rle.decode(row.EncodedPixels, (row.Height, row.Width)))
        if not compressed:
            segmentation["counts"] = decode_coco(segmentation["counts"]).tolist()
        category = int(row.ClassId.split("_")[0])
        own = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "iscrowd": 0}
        annotations.append(own | {"segmentation": segmentation, "bbox": [0, 0, 1, 1], "area": 1.5})
    categories = [{"id": number, "name": name, "supercategory": "x"} for number, name in enumerate(CATEGORIES)]
    return {
        "info": {"year": 2020},
        "images": list(images.values()),
        "annotations": annotations,
        "categories": categories,
    }


def write(path: Path, document: object, **options: Any) -> Path:
    path.write_text(json.dumps(document, **options), encoding="utf-8")
    return path


def one_photo(*segmentations: object, size: tuple[int, int] = (8, 6), **more: object) -> Document:
    """A photo a.png with dresses."""
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "segmentation": each} | more
            for number, each in enumerate(segmentations)
        ],
        "categories": [{"id": 1, "name": "dress"}],
    }


def label_map(index: Annotations, number: int) -> np.ndarray:
    photo = index[number]
    return merge(photo.masks, (photo.height, photo.width), drop_small=index.format.drops_small)


def assert_same_maps(index: Annotations, other: Annotations) -> None:
    assert index.names.tolist() == other.names.tolist()
    for number in range(len(index)):
        np.testing.assert_array_equal(label_map(index, number), label_map(other, number))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("classes", ["clothes", "garments"])
def test_label_maps_are_those_of_the_csv(
    compressed: bool, classes: str, photo_folder: PhotoFolder, tmp_path: Path
) -> None:
    path = write(tmp_path / "any name", as_coco(photo_folder.csv, compressed=compressed))
    index, csv = (read_annotations(each, find_class_set(classes)) for each in (path, photo_folder.csv))
    assert_same_maps(index, csv)
    assert scan(path).categories == {"dress": 3, "top, t-shirt, sweatshirt": 5, "pants": 5}
    assert check_photos(index, photo_folder.images).faults == []


@needs_ccp
@pytest.mark.parametrize("photos", [12, pytest.param(None, marks=pytest.mark.long)])
@pytest.mark.parametrize("compressed", [True, False])
def test_label_maps_of_real_photos_are_those_of_the_csv(compressed: bool, photos: int | None, tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", as_coco(CCP / "train.csv", compressed=compressed, photos=photos))
    for classes in ("clothes", "garments_and_accessories"):
        found = find_class_set(classes)
        assert_same_maps(read_annotations(path, found), scan(CCP / "train.csv", found, photos).photos)


def test_figures_are_those_of_the_csv(photo_folder: PhotoFolder, weights: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "train.json", as_coco(photo_folder.csv))
    flags = [f"--checkpoint={weights}", f"--image_folder={photo_folder.images}", "--device=cpu"]
    figures = []
    for labels in (photo_folder.csv, path):
        assert evaluate.main([*flags, f"--df_path={labels}", f"--json={tmp_path / 'figures'}"]) == 0
        figures.append(json.loads((tmp_path / "figures").read_text()))
    assert figures[0]["confusion"] == figures[1]["confusion"]
    assert figures[0]["photo_error"] == figures[1]["photo_error"]


SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 30))


@st.composite
def polygons(draw: st.DrawFn) -> tuple[tuple[int, int], list[list[float]]]:
    """Some that lie over one another and off the photo, with points in its corners and on its edges."""
    height, width = draw(SHAPES)
    x = st.one_of(st.floats(-width, 2 * width), st.integers(-width, 2 * width), st.sampled_from((0, width - 1, width)))
    y = st.one_of(
        st.floats(-height, 2 * height), st.integers(-height, 2 * height), st.sampled_from((0, height - 1, height))
    )
    parts = draw(st.lists(st.lists(st.tuples(x, y), min_size=3, max_size=9), min_size=1, max_size=4))
    return (height, width), [[number for point in part for number in point] for part in parts]


@given(polygons())
def test_polygons_are_drawn_as_pycocotools_does(drawn: tuple[tuple[int, int], list[list[float]]]) -> None:
    shape, parts = drawn
    mask = np.zeros(shape, dtype=bool, order="F")
    rle.paint(mask, runs_of(parts, shape), True)
    expected = coco.decode(coco.merge(coco.frPyObjects(parts, *shape)))
    np.testing.assert_array_equal(mask, expected.astype(bool))
    specks = [parts[0], [0, 0], [0, 0, 1, 1], [], *parts[1:]]  # pycocotools cannot take these
    np.testing.assert_array_equal(runs_of(specks, shape), runs_of(parts, shape))


def test_a_polygon_has_its_pixels() -> None:
    mask = np.zeros((6, 8), dtype=np.uint8, order="F")
    rle.paint(mask, runs_of(SQUARE, (6, 8)), 1)
    np.testing.assert_array_equal(mask, np.pad(np.ones((4, 4)), ((1, 1), (1, 3))))


@given(st.data())
def test_runs_are_those_that_pycocotools_encodes(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    mask = np.frombuffer(data.draw(st.binary(min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])), np.uint8)
    mask = mask.reshape(shape, order="F") < data.draw(st.integers(0, 256))
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = encoded["counts"].decode()
    lengths = decode_coco(counts)
    for written in (counts, lengths.tolist(), [*lengths.tolist(), 0]):
        runs = runs_of({"size": list(shape), "counts": written}, shape)
        painted = np.zeros(shape, dtype=bool, order="F")
        rle.paint(painted, runs, True)
        np.testing.assert_array_equal(painted, mask)
    assert coco.frPyObjects({"size": list(shape), "counts": lengths.tolist()}, *shape)["counts"].decode() == counts


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=9))
def test_long_counts_are_those_of_pycocotools(lengths: list[int]) -> None:
    encoded = coco.frPyObjects({"size": [1, sum(lengths)], "counts": lengths}, 1, sum(lengths))
    assert decode_coco(encoded["counts"].decode()).tolist() == lengths


def test_fashionpedia_is_read_as_published(tmp_path: Path) -> None:
    """Structure of instances_attributes_train2020.json; its photos are not shared here."""
    mask = np.zeros((6, 8), dtype=bool)
    mask[2:4, 1:3] = True
    compressed = encode_coco(mask)
    uncompressed = compressed | {"counts": decode_coco(compressed["counts"]).tolist()}
    segmentations = [SQUARE, compressed, uncompressed, [[0, 0, 2, 0, 2, 2, 0, 2], [4.5, 4.5, 7, 4.5, 7, 6.5, 4.5, 6]]]
    document = {
        "info": {"year": "2020", "version": "1.0", "description": "fashion"},
        "licenses": [{"id": 1, "name": "x", "url": "http://x"}],
        "categories": [
            {"id": number, "name": name, "supercategory": "upperbody", "level": 2, "taxonomy_id": f"obj{number}"}
            for number, name in enumerate(CATEGORIES)
        ],
        "attributes": [{"id": 0, "name": "classic (t-shirt)", "supercategory": "nickname", "level": 1}],
        "images": [
            {"id": 23, "width": 8, "height": 6, "file_name": "432534fr.jpg", "license": 4, "isstatic": 0,
             "time_captured": "March-August, 2018", "original_url": "http://x/y.jpg", "kaggle_id": "4325"},
        ],
        "annotations": [
            {"id": number, "image_id": 23, "category_id": category, "attribute_ids": [115, 136], "area": 9,
             "segmentation": segmentation, "bbox": [1, 1, 4, 4], "iscrowd": number % 2}
            for number, (category, segmentation) in enumerate(zip((10, 6, 0, 23), segmentations, strict=True))
        ],
    }  # fmt: skip
    fashion = find_class_set("fashion")
    found = scan(write(tmp_path / "x.json", document), fashion)
    assert found.faults == []
    assert found.categories == {"dress": 1, "pants": 1, "shirt, blouse": 1, "shoe": 1}
    photo = found.photos[0]
    assert photo[:3] == ("432534fr.jpg", 6, 8)
    assert [fashion.names[label] for label, _ in photo.masks] == ["dress", "pants", "shirt, blouse", "shoe"]
    for (_, runs), segmentation in zip(photo.masks, segmentations, strict=True):
        objects = coco.frPyObjects(segmentation, 6, 8) if segmentation is not compressed else segmentation
        whole = coco.merge(objects) if isinstance(objects, list) else objects
        assert rle.area(runs) == coco.area(whole)
    assert len(scan(tmp_path / "x.json").photos[0].masks) == 3  # shoes are background of clothes


@pytest.mark.parametrize("order", list(itertools.permutations(("images", "annotations", "categories"))))
def test_lists_come_in_any_order(order: tuple[str, ...], photo_folder: PhotoFolder, tmp_path: Path) -> None:
    document = as_coco(photo_folder.csv)
    path = write(tmp_path / "x.json", {key: document[key] for key in order}, indent=1)
    assert_same_maps(read_annotations(path), read_annotations(photo_folder.csv))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ascii", [True, False])
def test_names_hold_any_letters(encoding: str, ascii: bool, tmp_path: Path) -> None:
    names = ["caf\u00e9 \u4e2d\U0001f457.png", "e\u0301.png", "\u00c3\u00a9.png", "sub/fol der/\u00fc.png"]
    document = one_photo(SQUARE)
    document["images"] += [
        {"id": number + 2, "file_name": name, "width": 8, "height": 6} for number, name in enumerate(names)
    ]
    document["categories"][0]["name"] = "v\u00eatement"
    (tmp_path / "x.json").write_bytes(json.dumps(document, ensure_ascii=ascii).encode(encoding))
    found = scan(tmp_path / "x.json")
    assert found.photos.names.tolist() == ["a.png", *names]
    assert found.categories == {"v\u00eatement": 1}


def test_names_may_hold_any_bytes(tmp_path: Path) -> None:
    content = json.dumps(one_photo(SQUARE)).encode().replace(b"a.png", b"caf\xe9 \xf0\x9f\x91\x97.png")
    (tmp_path / "x.json").write_bytes(content)
    index = read_annotations(tmp_path / "x.json")
    assert os.fsencode(index[0].name) == b"caf\xe9 \xf0\x9f\x91\x97.png"
    assert len(index[0].masks) == 1


@pytest.mark.parametrize(
    ("first", "second"), [("a", "b"), ("1", "2"), (1, "2"), (1.0, 2), ("\u00e9", ""), (-1, 2**70)], ids=str
)
def test_ids_are_numbers_or_texts(first: object, second: object, photo_folder: PhotoFolder, tmp_path: Path) -> None:
    document = one_photo(SQUARE, SQUARE)
    document["images"][0]["id"] = second
    document["images"].append(document["images"][0] | {"id": first, "file_name": "b.png"})
    document["categories"] = [{"id": first, "name": "dress"}, {"id": second, "name": "pants"}]
    for number, annotation in enumerate(document["annotations"]):
        annotation |= {"image_id": second, "category_id": (first, second)[number]}
    document["annotations"].append(document["annotations"][0] | {"image_id": str(int(first)) if first == 1 else first})
    del document["annotations"][0]["id"]
    index = read_annotations(write(tmp_path / "x.json", document))
    assert [[label for label, _ in index[number].masks] for number in range(2)] == [[3, 2], [3]]


def test_exports_of_tools_are_read(tmp_path: Path) -> None:
    """CVAT, Roboflow and Label Studio: what each of them adds."""
    (tmp_path / "images").mkdir()
    files = ["train/000.png", "shirt_jpg.rf.0a1b2c.png", "1/ab12-000.png", "c.png", "d e.png"]
    for name in files:
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / name)
    names = [*files[:2], "../../upload/1/ab12-000.png", "/label-studio/data/upload/3/c.png", "images\\d e.png"]
    document = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": ""},
        "categories": [
            {"id": 0, "name": "dress", "supercategory": "none"},
            {"id": 1, "name": "dress", "supercategory": "dress"},
        ],
        "images": [
            {"id": number, "width": 8, "height": 6, "file_name": name, "license": 0, "flickr_url": "", "coco_url": "",
             "date_captured": 0} for number, name in enumerate(names)
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "segmentation": SQUARE, "area": 16.0, "iscrowd": 0,
             "bbox": [1.0, 1.0, 4.0, 4.0], "attributes": {"occluded": False}} for number in range(5)
        ],
    }  # fmt: skip
    index = read_annotations(write(tmp_path / "x.json", document))
    looked = check_photos(index, tmp_path / "images")
    assert looked.faults == []
    photos = LabelledPhotos(index.renamed(looked.renamed), tmp_path / "images")
    assert photos.names == files
    assert all(photos[number][1].sum() == 3 * 16 for number in range(5))


def test_photos_without_annotations_are_background(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    document = as_coco(photo_folder.csv)
    document["annotations"] = [each for each in document["annotations"] if each["image_id"] != 3]
    path = write(tmp_path / "x.json", document)
    assert check_photos(read_annotations(path), photo_folder.images).faults == []
    photos = LabelledPhotos(read_annotations(path), photo_folder.images)
    assert len(photos) == 8
    assert [photos[number][1].any() for number in range(4)] == [True, True, False, True]


def test_what_is_background_need_have_no_mask(tmp_path: Path) -> None:
    document = one_photo(SQUARE, [], None, [[1, "x"]])
    document["categories"].append({"id": 2, "name": "shoe"})
    for annotation in document["annotations"][1:]:
        annotation["category_id"] = 2
    found = scan(write(tmp_path / "x.json", document))
    assert found.faults == []
    assert found.categories == {"dress": 1, "shoe": 3}
    assert len(found.photos[0].masks) == 1


def test_digests_change_with_the_labels(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    document = as_coco(photo_folder.csv)
    before = read_annotations(write(tmp_path / "x.json", document)).digests
    document["annotations"][0]["category_id"] = 9
    document["annotations"][1]["segmentation"] = SQUARE
    document["images"][2]["width"] += 1
    after = read_annotations(write(tmp_path / "y.json", document)).digests
    assert (before != after).tolist() == [True, True, True] + [False] * 5
    document["images"].reverse()
    document["categories"].insert(0, {"id": 99, "name": "other"})
    again = read_annotations(write(tmp_path / "z.json", document)).digests
    np.testing.assert_array_equal(again, after[::-1])


def test_the_index_is_small(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    document = one_photo(*(draw.uniform(0, 700, (1, 120)).round(2).tolist() for _ in range(3000)), size=(700, 700))
    path = write(tmp_path / "x.json", document)
    index = read_annotations(path)
    assert len(pickle.dumps(index)) < 100_000 < path.stat().st_size / 20
    assert len(pickle.loads(pickle.dumps(index)).instances(0)) == 3000


def test_enormous_polygons_take_no_time_and_no_memory() -> None:
    photo = (30_000, 30_000)
    zigzag = [[0, 0, 30_000, 30_000] * 10_000]
    with pytest.raises(ValueError, match="expected an outline of at most 1,048,576 pixels, found 600,000,000"):
        runs_of(zigzag, photo)
    assert rle.area(runs_of([[0, 0, 60_000, 0, 60_000, 60_000, 0, 60_000]], photo)) == 30_000**2


def test_labels_of_clothes_take_names_of_classes_too(tmp_path: Path) -> None:
    document = one_photo(SQUARE, SQUARE)
    document["categories"] = [{"id": 1, "name": " Upper Body "}]
    index = read_annotations(write(tmp_path / "x.json", document), CLOTHES)
    assert [label for label, _ in index[0].masks] == [1, 1]


def test_the_first_photos_alone(tmp_path: Path, photo_folder: PhotoFolder) -> None:
    document = as_coco(photo_folder.csv)
    document["annotations"][-1]["segmentation"] = []
    path = write(tmp_path / "x.json", document)
    assert scan(path, most=7).faults == []
    assert len(scan(path, most=7).photos) == 7
    assert len(scan(path).faults) == 1


def test_a_photo_listed_twice_has_the_masks_of_both(tmp_path: Path) -> None:
    document = one_photo(SQUARE, SQUARE)
    document["images"].append(document["images"][0] | {"id": 2})
    document["annotations"][1]["image_id"] = 2
    found = scan(write(tmp_path / "x.json", document))
    assert len(found.photos) == 1
    assert len(found.photos[0].masks) == 2
    assert [fault.harmless for fault in found.faults] == [True]


def test_the_name_of_the_file_does_not_count(tmp_path: Path) -> None:
    folder = write_photos(tmp_path, 2)
    path = write(tmp_path / "train.csv", as_coco(folder.csv))
    assert len(read_annotations(path)) == 2
