"""COCO's JSON that is not what it should be: each kind of fault, and the whole sentence that is said of it."""

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import PhotoFolder, TrainFlags, fork
from fuzz import read_coco
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cloth_segmentation.errors import RunError
from data.checks import read_checked

Document = dict[str, Any]


def document() -> Document:
    """Photos a.png and b.png, 8 x 6, with a dress each."""
    return {
        "images": [
            {"id": number, "file_name": name, "width": 8, "height": 6} for number, name in ((1, "a.png"), (2, "b.png"))
        ],
        "annotations": [
            {"id": number + 10, "image_id": number, "category_id": 7, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
            for number in (1, 2)
        ],
        "categories": [{"id": 7, "name": "dress"}],
    }


def told(path: Path, content: object) -> str:
    """What is said of a file, or of what is in it, beside the two photos."""
    images = path.parent / "images"
    if not images.exists():
        images.mkdir()
        for name in ("a.png", "b.png"):
            Image.new("RGB", (8, 6)).save(images / name)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content))
    try:
        report = read_checked(("--df_path", str(path)), ("--image_folder", str(images))).report
    except RunError as error:
        return str(error).replace(str(path), "FILE")
    first, _, rest = report.partition("\n")
    assert first == f"--df_path {path}: expected labels and photos without fault, found in {images}"
    return rest


def with_(key: str, **changes: Any) -> Document:
    """The document with changes in the first image, annotation or category; ``...`` takes a key away."""
    found = document()
    first = found[key][0] | changes
    found[key][0] = {name: value for name, value in first.items() if value is not ...}
    return found


def more(key: str, entry: object) -> Document:
    """The document with one more image, annotation or category."""
    found = document()
    found[key].append(entry)
    return found


def mask(segmentation: object) -> Document:
    return with_("annotations", segmentation=segmentation)


def rle(counts: object, size: object = (6, 8)) -> Document:
    return mask({"size": size, "counts": counts})


COCO = "--df_path: FILE: expected COCO's JSON, an object with the lists images, annotations and categories, found "
UNREAD = "  1 masks that cannot be read: annotation id 11 (a.png): "
JSON = "--df_path: FILE: expected JSON"
LABELS = "--df_path: FILE: expected labels as CSV or JSON, in plain text, found "
NONE = "--df_path: FILE: expected annotations that can be used, found none"
NAME = "  1 images without a file_name: image number 3: expected the name of a file, at most 255 bytes, found "
SIZE = (
    "  1 images of a wrong size: image number 1 (a.png): expected width and height as "
    "whole numbers from 1 to 32768, found "
)
BARE = (
    "  1 annotations without a segmentation: annotation id 11 (a.png): expected polygons "
    "or run-length encoding, found none"
)
POLYGONS = UNREAD + "expected polygons as lists of numbers, [[x, y, x, y, ...], ...], found "
NEAR = UNREAD + "expected points in or near the photo of 8 x 6, found "
COUNTS = UNREAD + "expected counts "
HW = UNREAD + "expected the photo's size [height, width], [6, 8], found "

FILES: dict[str, tuple[object, str]] = {
    "labelme": (
        {"version": "5.1", "flags": {}, "shapes": [{"label": "dress", "points": []}], "imagePath": "a.jpg"},
        COCO + "a labelme file of one photo; give the folder of such files",
    ),
    "via project": (
        {"_via_settings": {}, "_via_img_metadata": {}},
        COCO + "annotations of VIA (VGG Image Annotator); export them as COCO",
    ),
    "via annotations": (
        {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": []}},
        COCO + "annotations of VIA (VGG Image Annotator); export them as COCO",
    ),
    "datumaro": (
        {"info": {}, "categories": {"label": {}}, "items": [{"id": "a"}]},
        COCO + "Datumaro's JSON; export it as COCO",
    ),
    "captions": (
        {"images": document()["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "x"}]},
        COCO + "COCO's captions, which have no masks; give the file of the instances",
    ),
    "panoptic": (
        document() | {"annotations": [{"image_id": 1, "segments_info": [], "file_name": "a.png"}]},
        COCO + "COCO's panoptic labels, whose masks are in PNG files; give the file of the instances",
    ),
    "label studio": (
        [{"id": 1, "data": {"image": "a"}, "annotations": []}],
        COCO + "Label Studio's own JSON; export it as COCO",
    ),
    "label studio, small": (
        [{"id": 1, "image": "a", "annotation_id": 2}],
        COCO + "Label Studio's own JSON; export it as COCO",
    ),
    "results": (
        [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": []}],
        COCO + ("a list of results, without photos and names of categories; give the file of the instances"),
    ),
    "list": ([1, 2], COCO + "a list; export the labels as COCO"),
    "empty list": ([], COCO + "a list; export the labels as COCO"),
    "object": ({}, COCO + "one without images, annotations, categories; it has no keys"),
    "another object": (
        {"a": 1, "caf\u00e9": [1]},
        COCO + "one without images, annotations, categories; its keys are 'a', 'café'",
    ),
    "no annotations": (
        {"images": [], "categories": []},
        COCO + "one without annotations; its keys are 'images', 'categories'",
    ),
    "lists that are objects": (document() | {"images": {"1": {}}}, COCO + "one whose images are no list"),
    "two lists": (json.dumps(document()).encode()[:-1] + b', "images": []}', COCO + "2 lists of images; join them"),
    "empty lists": ({"images": [], "annotations": [], "categories": []}, NONE),
    "nothing usable": (
        document() | {"images": []},
        NONE
        + (
            ":\n  2 annotations of images that are not listed: annotation id 11: found image_id 1; "
            "annotation id 12: found image_id 2"
        ),
    ),
    "cut off": (
        json.dumps(document()).encode()[:-30],
        JSON + " with a value at byte 337, found the end of the file: it is cut off",
    ),
    "no quote": (b'{"images": [1, a]}', JSON + " with a value at byte 15, found 'a]}'"),
    "more behind": (
        json.dumps(document()).encode() + b"\n{}",
        JSON + " with the end of the file at byte 368, found '{}'",
    ),
    "deep": (b'{"images": ' + b"[" * 100_000, JSON + ", found values within values, too many to be read, at byte 12"),
    "long number": (b'{"images": [' + b"1" * 9999 + b"]}", JSON + ", found a number of too many digits at byte 12"),
    "key is a number": (b"{1: 2}", JSON + " with texts as keys, found the key 1"),
    "UTF-16": (
        json.dumps(document()).encode("utf-16"),
        COCO + "text in UTF-16; turn it into UTF-8 (iconv -f UTF-16LE -t UTF-8 FILE > utf8.json)",
    ),
    "UTF-16 without a mark": (
        json.dumps(document()).encode("utf-16-le"),
        COCO + "text in UTF-16; turn it into UTF-8 (iconv -f UTF-16LE -t UTF-8 FILE > utf8.json)",
    ),
    "UTF-16, big end first": (
        json.dumps(document()).encode("utf-16-be"),
        COCO + "text in UTF-16; turn it into UTF-8 (iconv -f UTF-16BE -t UTF-8 FILE > utf8.json)",
    ),
    "gzip": (
        b"\x1f\x8b" + bytes(50),
        LABELS + "a gzip file; unpack it (gunzip -k FILE) and give the file that comes out",
    ),
    "zip": (
        b"PK\x03\x04" + bytes(50),
        LABELS + "a zip archive; unpack it (unzip FILE) and give the file that comes out",
    ),
    "no category of ours": (
        with_("categories", name="sofa"),
        (
            "--df_path: expected some of the categories of --classes clothes (shirt, blouse, top, "
            "t-shirt, sweatshirt, sweater, cardigan, jacket, vest, pants, shorts, ...), found "
            "sofa; a file of classes says which categories make a class (docs/classes.md)"
        ),
    ),
}

FAULTS: dict[str, tuple[object, str]] = {
    "image is a number": (more("images", 3), "  1 images that are no objects: image number 3: found 3"),
    "no file name": (more("images", {"id": 3, "width": 8, "height": 6}), NAME + "null"),
    "file name is a number": (more("images", {"id": 3, "file_name": 5}), NAME + "5"),
    "file name is endless": (
        more("images", {"id": 3, "file_name": "x" * 9999}),
        NAME + '"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...',
    ),
    "file name is no text": (more("images", {"id": 3, "file_name": "\ud800.png"}), NAME + '"\\ud800.png"'),
    "file name leads out": (more("images", {"id": 3, "file_name": "x/../../a.png"}), NAME + '"x/../../a.png"'),
    "file name leads out in Windows": (
        more("images", {"id": 3, "file_name": "C:\\x\\..\\..\\a.png"}),
        NAME + '"C:\\\\x\\\\..\\\\..\\\\a.png"',
    ),
    "file name is a folder above": (more("images", {"id": 3, "file_name": "../.."}), NAME + '"../.."'),
    "file name with NUL": (more("images", {"id": 3, "file_name": "a\0.png"}), NAME + '"a\\u0000.png"'),
    "image without id": (
        with_("images", id=...),
        (
            "  1 images without an id: image number 1 (a.png): expected a whole number or a text, "
            "found null\n  1 annotations of images that are not listed: annotation id 11: found "
            "image_id 1"
        ),
    ),
    "image with a list as id": (
        more("images", {"id": [1], "file_name": "c.png", "width": 8, "height": 6}),
        ("  1 images without an id: image number 3 (c.png): expected a whole number or a text, found [1]"),
    ),
    "image without height": (with_("images", height=...), SIZE + "8 and null"),
    "width is a word": (with_("images", width="8"), SIZE + '"8" and 6'),
    "width is negative": (with_("images", width=-8), SIZE + "-8 and 6"),
    "width is half": (with_("images", width=8.5), SIZE + "8.5 and 6"),
    "width is NaN": (with_("images", width=float("nan")), SIZE + "NaN and 6"),
    "width is infinite": (with_("images", width=float("inf")), SIZE + "Infinity and 6"),
    "width is huge": (with_("images", width=10**300), SIZE + "1000000000000000000000000000000000000000... and 6"),
    "width is true": (with_("images", width=True), SIZE + "true and 6"),
    "image id twice": (
        more("images", {"id": 1, "file_name": "c.png", "width": 8, "height": 6}),
        (
            "  2 images with the id of another: image number 3 (c.png): found id 1, that of a.png; "
            "a.png: found id 1, that of c.png"
        ),
    ),
    "image twice": (more("images", document()["images"][0]), "  1 images that repeat another: image number 3 (a.png)"),
    "file name twice": (
        more("images", document()["images"][0] | {"id": 3}),
        "  1 images with the file_name of another, taken as one: image number 3 (a.png), id 3",
    ),
    "file name twice, other size": (
        more("images", document()["images"][0] | {"id": 3, "width": 9}),
        (
            "  1 images with the file_name of another, of another size: image number 3 (a.png): "
            "found 9 x 6, and 8 x 6 before"
        ),
    ),
    "photo of another size": (
        with_("images", width=9),
        (
            "  1 photos of another size than the labels say: a.png: expected 9 x 6 (Width x Height), "
            "found 8 x 6, the same shape; --rescale scales the labels"
        ),
    ),
    "photo that is not there": (with_("images", file_name="c.png"), "  1 photos that are not there: 'c.png'"),
    "category is a text": (
        more("categories", "dress"),
        '  1 categories that are no objects: category number 2: found "dress"',
    ),
    "category without name": (
        with_("categories", name=...),
        NONE
        + (
            ":\n  1 categories without a name: category number 1: expected a text of at most 255 "
            "letters, found null\n  2 annotations of categories that are listed wrongly: annotation "
            "id 11 (a.png): found category_id 7; annotation id 12 (b.png): found category_id 7"
        ),
    ),
    "category without name, unused": (
        more("categories", {"id": 8}),
        ("  1 categories without a name: category number 2: expected a text of at most 255 letters, found null"),
    ),
    "category without name, beside a good one": (
        with_("annotations", category_id=8) | {"categories": [{"id": 7, "name": "dress"}, {"id": 8}]},
        (
            "  1 categories without a name: category number 2: expected a text of at most 255 letters, found null\n"
            "  1 annotations of categories that are listed wrongly: annotation id 11 (a.png): found category_id 8"
        ),
    ),
    "category with a number as name": (
        more("categories", {"id": 8, "name": 9}),
        ("  1 categories without a name: category number 2: expected a text of at most 255 letters, found 9"),
    ),
    "category without id": (
        more("categories", {"name": "shoe"}),
        ("  1 categories without an id: category number 2: expected a whole number or a text, found null"),
    ),
    "category id twice": (
        more("categories", {"id": 7, "name": "shoe"}),
        NONE
        + (
            ":\n  1 categories with the id of another: category number 2 (shoe): found id 7, that "
            "of dress\n  2 annotations of categories that are listed wrongly: annotation id 11 "
            "(a.png): found category_id 7; annotation id 12 (b.png): found category_id 7"
        ),
    ),
    "two categories of one name": (
        with_("annotations", category_id=8) | {"categories": [{"id": 7, "name": "dress"}, {"id": 8, "name": "Dress "}]},
        "  1 names that several categories have, taken as one: 'dress', 2",
    ),
    "annotation is null": (
        more("annotations", None),
        "  1 annotations that are no objects: annotation number 3: found null",
    ),
    "annotation of another image": (
        with_("annotations", image_id=3),
        "  1 annotations of images that are not listed: annotation id 11: found image_id 3",
    ),
    "annotation of no image": (
        with_("annotations", image_id=...),
        "  1 annotations of images that are not listed: annotation id 11: found image_id none",
    ),
    "annotation of a nested image": (
        with_("annotations", image_id={"a": 1}),
        "  1 annotations of images that are not listed: annotation id 11: found image_id none",
    ),
    "annotation of another category": (
        with_("annotations", category_id=99),
        ("  1 annotations of categories that are not listed: annotation id 11 (a.png): found category_id 99"),
    ),
    "annotation of no category": (
        with_("annotations", category_id=None),
        ("  1 annotations of categories that are not listed: annotation id 11 (a.png): found category_id none"),
    ),
    "annotation without its own id": (
        with_("annotations", id=..., segmentation=[]),
        (
            "  1 annotations without a segmentation: annotation number 1 (a.png): expected "
            "polygons or run-length encoding, found none"
        ),
    ),
    "no segmentation": (with_("annotations", segmentation=...), BARE),
    "segmentation is empty": (mask([]), BARE),
    "segmentation is null": (mask(None), BARE),
    "segmentation is a text": (
        mask("1 2 3"),
        UNREAD + 'expected a list of polygons or an object with size and counts, found "1 2 3"',
    ),
    "segmentation is a number": (
        mask(5),
        UNREAD + "expected a list of polygons or an object with size and counts, found 5",
    ),
    "polygon is empty": (mask([[]]), UNREAD + "expected polygons of at least 3 points, found [[]]"),
    "polygon without brackets": (mask([1, 1, 5, 1, 5, 5]), POLYGONS + "1"),
    "polygon of pairs": (mask([[[1, 1], [5, 1], [5, 5]]]), POLYGONS + "[[1, 1], [5, 1], [5, 5]]"),
    "polygon of points": (mask([{"x": 1, "y": 1}]), POLYGONS + '{"x": 1, "y": 1}'),
    "polygon of texts": (mask([["1", "1", "5", "1", "5", "5"]]), POLYGONS + '["1", "1", "5", "1", "5", "5"]'),
    "polygon of truths": (mask([[True, 1, 5, 1, 5, 5]]), POLYGONS + "[true, 1, 5, 1, 5, 5]"),
    "polygon is odd": (
        mask([[1, 1, 5, 1, 5, 5, 1]]),
        UNREAD + "expected pairs of x and y in a polygon, found 7 numbers",
    ),
    "polygon of two points": (
        mask([[1, 1, 5, 5]]),
        UNREAD + "expected polygons of at least 3 points, found [[1, 1, 5, 5]]",
    ),
    "polygon with NaN": (mask([[1, 1, 5, 1, 5, float("nan")]]), NEAR + "x 5, y nan"),
    "polygon with infinity": (mask([[1, 1, float("-inf"), 1, 5, 5]]), NEAR + "x -inf, y 1"),
    "polygon far away": (mask([[1, 1, 5, 1, 5, 1e300]]), NEAR + "x 5, y 1e+300"),
    "polygon with huge whole numbers": (mask([[1, 1, 10**400, 1, 5, 5]]), NEAR + "x inf, y inf"),
    "polygon outside": (mask([[9, 7, 12, 7, 12, 10, 9, 10]]), "  1 masks that are empty: annotation id 11 (a.png)"),
    "polygon without area": (mask([[1, 1, 1, 1, 1, 1]]), "  1 masks that are empty: annotation id 11 (a.png)"),
    "polygon without end": (
        mask([[-8, -6, 16, 12] * 50_000]),
        UNREAD + "expected an outline of at most 1,048,576 pixels, found 2,400,000",
    ),
    "size is another": (rle([48], [6, 9]), HW + "[6, 9]"),
    "size is swapped": (rle([48], [8, 6]), HW + "[8, 6]"),
    "no size": (mask({"counts": [48]}), HW + "null"),
    "size is nested": (rle([48], [[6], {}]), HW + "[[6], {}]"),
    "no counts": (mask({"size": [6, 8]}), COUNTS + "as a text or a list of whole numbers, found null"),
    "counts are empty": (rle([]), COUNTS + "that add up to 6 x 8 = 48, found 0"),
    "counts of half": (rle([40, 8.5]), COUNTS + "as a text or a list of whole numbers, found [40, 8.5]"),
    "counts of texts": (rle(["40", "8"]), COUNTS + 'as a text or a list of whole numbers, found ["40", "8"]'),
    "counts too few": (rle([40, 7]), COUNTS + "that add up to 6 x 8 = 48, found 47"),
    "counts too many": (rle([40, 8, 1]), COUNTS + "that add up to 6 x 8 = 48, found 49"),
    "counts negative": (rle([50, -2]), COUNTS + "from 0 to 48, all pixels, found 50"),
    "counts huge": (rle([40, 10**30]), COUNTS + "below 2**63, found 1000000000000000000000000000000"),
    "counts that overflow": (
        rle([2**62, 2**62, 2**62, 2**62, 40, 8]),
        COUNTS + "from 0 to 48, all pixels, found 4611686018427387904",
    ),
    "no pixel": (rle([48]), "  1 masks that are empty: annotation id 11 (a.png)"),
    "compressed counts are empty": (rle(""), COUNTS + "that add up to 6 x 8 = 48, found 0"),
    "compressed counts are short": (rle("X1"), COUNTS + "that add up to 6 x 8 = 48, found 40"),
    "compressed counts are cut off": (
        rle("X1X"),
        UNREAD + "expected compressed counts, found some that are cut off: they end in 'X1X'",
    ),
    "compressed counts with letters outside": (
        rle("X1 8"),
        UNREAD + "expected compressed counts, characters from '0' to 'o', found 'X1 8'",
    ),
    "compressed counts of other alphabets": (
        rle("\u0661\u0662"),
        UNREAD + "expected compressed counts, characters from '0' to 'o', found '١٢'",
    ),
    "compressed counts are long": (rle("X" * 12 + "1"), COUNTS + "of at most 7 digits, found one of 13"),
    "compressed counts are negative": (rle("O"), COUNTS + "from 0 to 48, all pixels, found -1"),
    "polygon is deep": (
        json.dumps(mask([0])).encode().replace(b"[0]", b"[" * 400 + b"]" * 400),
        POLYGONS + "[" * 40 + "...",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_no_use_is_named(kind: str, tmp_path: Path) -> None:
    content, sentence = FILES[kind]
    assert told(tmp_path / "x.json", content) == sentence


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind.startswith("UTF-16")])
@pytest.mark.skipif(shutil.which("iconv") is None, reason="there is no iconv here")
def test_what_is_said_to_do_gives_json(kind: str, tmp_path: Path) -> None:
    words = told(tmp_path / "x.json", FILES[kind][0])
    command = re.search(r" \((iconv .*)\)", words).group(1).replace("FILE", "x.json")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert told(tmp_path / "y.json", (tmp_path / "utf8.json").read_bytes()) == ""


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_named(kind: str, tmp_path: Path) -> None:
    content, sentence = FAULTS[kind]
    assert told(tmp_path / "x.json", content) == sentence


def test_all_faults_are_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    found = document()
    for number in range(3, 8):
        found["images"].append({"id": number, "file_name": "a.png", "width": -number, "height": 6})
        found["annotations"].append(found["annotations"][0] | {"id": 10 + number, "segmentation": [[number]]})
        found["annotations"].append(found["annotations"][0] | {"id": 20 + number, "image_id": "x"})
    words = told(tmp_path / "x.json", found)
    assert re.search(r"  5 images of a wrong size: .*; .*; .*; \.\.\.\n", words)
    assert re.search(r"  5 annotations of images that are not listed: .*; .*; .*; \.\.\.\n", words)
    assert re.search(r"  5 masks that cannot be read: .*; .*; .*; \.\.\.$", words)
    checked = read_checked(("", str(tmp_path / "x.json")), ("", str(tmp_path / "images")))
    assert checked.photos.names[checked.photos.without(checked.bad)].tolist() == ["b.png"]


@pytest.mark.parametrize("kind", ["labelme", "polygon is odd"])
def test_training_ends_with_a_sentence(
    kind: str, photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    told(tmp_path / "x.json", (FILES | FAULTS)[kind][0])
    flags = train_flags(f"--df_path={tmp_path / 'x.json'}", f"--image_folder={tmp_path / 'images'}")
    done = fork("train.py", *flags, "--on_bad_sample=stop", "--iter=1", folder=tmp_path / "printed")
    assert done.returncode == 1
    assert (FILES | FAULTS)[kind][1].removeprefix("--df_path: FILE: ") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


ODD = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 60), st.floats(), st.text(max_size=3),
        st.sampled_from((10**30, -1e300, 2**31, 2**32, 2**63, "a.png", "../b.png", "\ud800", "\0", "7", "7420m0", 1.0)),
        st.just([1, 1, 5, 1, 5, 5]), st.just([6, 8]), st.just({"size": [6, 8], "counts": [7, 4, 37]}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(("id", "size", "counts", "name", "segmentation", "width")), inner, max_size=3),
    ),
    max_leaves=6,
)  # fmt: skip


@st.composite
def odd_documents(draw: st.DrawFn) -> object:
    """Documents in which some values are others, are missing or stand twice."""
    found: Any = document()
    found["annotations"].append(
        {"id": 13, "image_id": 2, "category_id": 7, "segmentation": {"size": [6, 8], "counts": [7, 4, 37]}}
    )
    for _ in range(draw(st.integers(1, 4))):
        inner = found
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(inner[key], dict | list) and draw(st.integers(0, 5)):
                inner = inner[key]
                continue
            change = draw(st.sampled_from(("other", "other", "gone", "twice")))
            if change == "other":
                inner[key] = copy.deepcopy(draw(ODD))
            elif change == "gone":
                del inner[key]
            elif isinstance(inner, list):
                inner.insert(draw(st.integers(0, len(inner))), copy.deepcopy(inner[key]))
            break
    return found


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(odd_documents())
def test_whatever_is_said_is_read_or_refused(tmp_path: Path, found: object) -> None:
    read_coco(json.dumps(found).encode(), tmp_path)
