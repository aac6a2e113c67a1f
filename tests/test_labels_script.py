"""labels.py: what it says of labels of each format, what it draws, and the CSV that it writes."""

import base64
import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import PhotoFolder, python, write_photos
from hypothesis import given
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.coco import encode_coco
from cloth_segmentation.errors import RunError
from cloth_segmentation.pictures import mask_picture
from data import rle
from data.annotations import Annotations
from data.categories import CATEGORIES, category_id
from data.class_sets import read_class_set
from data.csv_labels import class_id
from data.label_map import merge
from data.labels import scan
from labels import main as look_at_labels
from options import LabelsOptions, OptionError
from utils.label_sheet import LabelSheet
from utils.sheets import legend, text_line

HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"
OWN = """
[[class]]
name = "tops"
categories = ["top, t-shirt, sweatshirt", "blouse \\"A, B\\""]

[[class]]
name = "trousers"
color = "#00ff80"
categories = ["pants"]

[[class]]
name = "one-piece"
categories = ["dress", "jumpsuit"]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return path


def run(folder: PhotoFolder, *flags: object, labels: Path | None = None) -> tuple[int, str, str]:
    """Exit code, what is said, and what is said of faults. No progress bar is among it."""
    done = python("labels.py", f"--df_path={labels or folder.csv}", f"--image_folder={folder.images}", *flags)
    assert "Traceback" not in done.stderr
    told = "\n".join(line for line in done.stderr.replace("\r", "\n").splitlines() if "|" not in line and line.strip())
    return done.returncode, done.stdout, told


def row_of(name: str, said: str) -> list[str]:
    """The cells of a class in the table."""
    line = next(line for line in said.splitlines() if re.match(rf" *\d* +{re.escape(name)}  ", line))
    return re.split(r"  +", line.strip())


def maps(index: Annotations) -> dict[str, NDArray[np.uint8]]:
    drops = index.format.drops_small
    shapes = [index.size(number)[::-1] for number in range(len(index))]
    return {
        Path(str(index.names[number])).stem: merge(index[number].masks, shape, drop_small=drops)
        for number, shape in enumerate(shapes)
    }


def test_classes_are_counted(photo_folder: PhotoFolder) -> None:
    code, said, told = run(photo_folder)
    assert (code, told) == (0, "")
    assert "8 photos, 0 with faults." in said
    labels = np.stack(list(maps(scan(photo_folder.csv).photos).values()))
    shares = [f"{(labels == value).mean():.1%}" for value in range(4)]
    for value, (name, count, own) in enumerate(
        [("upper body", "5", "top, t-shirt, sweatshirt (5)"), ("lower body", "5", "pants (5)"),
         ("full body", "3", "dress (3)")],
        start=1,
    ):  # fmt: skip
        number, shown, instances, photos, share, categories = row_of(name, said)
        assert (number, shown, instances, photos, categories) == (str(value), name, count, count, own)
        assert float(share.rstrip("%")) == pytest.approx(float(shares[value].rstrip("%")), abs=0.5)
    assert row_of("background", said)[:2] == ["0", "background"]
    assert "counted at 256 x 256" in said


def test_what_is_missing_small_or_of_no_class_is_said(photo_folder: PhotoFolder) -> None:
    photo_folder.csv.write_text(
        HEADER
        + "000.png,1 2,80,60,1\n001.png,1 800,80,60,1\n002.png,1 9,80,60,23\n003.png,1 9,80,60,zebra \x1b[31m <x>\n"
    )
    code, said, told = run(photo_folder)
    assert code == 0
    assert "Classes that no photo has: lower body, full body." in said
    assert "Photos that have none of the classes: 2." in said
    assert "narrower or lower than 20 pixels of 768: 1." in said
    zebra = r"zebra \x1b[31m <x> (1)"  # which cannot colour the terminal
    assert zebra in row_of("background", said)[-1]
    assert f"categories of no class in --classes clothes, which become background: {zebra}" in told


def test_all_46_categories_may_be_classes(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "all", 46)
    rows = [HEADER]
    for number in range(46):
        mask = np.zeros((80, 60), dtype=bool)
        mask[20:60, 10:50] = True
        rows.append(f"{number:03d}.png,{rle.encode(mask)},80,60,{number}\n")
    folder.csv.write_text("".join(rows))
    output = tmp_path / "new" / "all.jpg"
    code, said, told = run(folder, "--classes=fashion", "--look=9", f"--output={output}")
    assert (code, told) == (0, "")
    for number, name in enumerate(CATEGORIES, start=1):
        assert row_of(name, said)[:4] == [str(number), name, "1", "1"]
    assert f"{output}: 9 of 46 labelled photos, --classes fashion, --seed 0" in said
    with Image.open(output) as picture:
        assert picture.size == (3 * 480 + 2 * 24 + 32, picture.height)


def test_classes_may_come_from_a_file(photo_folder: PhotoFolder, own: Path, tmp_path: Path) -> None:
    output = tmp_path / "sheet.png"
    code, said, told = run(photo_folder, f"--classes={own}", "--look=5", f"--output={output}")
    assert (code, told) == (0, "")
    assert row_of("trousers", said)[:4] == ["2", "trousers", "5", "5"]
    assert "5 of 8 labelled photos, --classes own, --seed 0" in said
    with Image.open(output) as picture:
        assert (0, 255, 128) in {color for _, color in picture.convert("RGB").getcolors(2**24) or []}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN.replace("#00ff80", "green"), r"--classes: .*own.toml: line 8, color: expected a colour .* found 'green'"),
        (None, r"--classes: expected clothes, .*own.toml', which is neither"),
    ],
)
def test_a_file_of_classes_with_an_error_is_named(
    text: str | None, words: str, photo_folder: PhotoFolder, own: Path, tmp_path: Path
) -> None:
    own.write_text(text) if text else own.unlink()
    csv = tmp_path / "out.csv"
    code, said, told = run(photo_folder, f"--classes={own}", f"--csv={csv}")
    assert (code, said) == (1, "")
    assert re.search(words, told), told
    assert not csv.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"output": "a.gif", "look": 2}, "--output: expected a name that ends in .jpg or .png, found 'a.gif'"),
        ({"output": "a.png"}, "--output a.png: expected --look N with it, found none"),
        ({"csv": "a.txt"}, "--csv: expected a name that ends in .csv, found 'a.txt'"),
    ],
)
def test_wrong_usage_is_said(given: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        LabelsOptions(**given)


def test_nothing_else_is_replaced(
    photo_folder: PhotoFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("name,age\n")
    link = tmp_path / "link.csv"
    link.symlink_to(photo_folder.csv)
    (tmp_path / "folder.jpg").mkdir()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = [path.read_bytes() for path in files]
    photo = photo_folder.images / "001.png"
    for flags, words in (
        ([f"--csv={photo_folder.csv}"], "expected another file than --df_path"),
        ([f"--csv={link}"], "expected another file than --df_path"),
        ([f"--csv={other}"], "expected a file that can be written"),
        ([f"--csv={other}/a.csv"], "expected a file that can be written"),
        (["--look=1", f"--output={photo}"], "expected another file than one of the photos"),
        (["--look=1", f"--output={tmp_path / 'folder.jpg'}"], "expected a file that can be written"),
    ):
        with pytest.raises(RunError, match=words):
            look_at_labels([f"--df_path={photo_folder.csv}", f"--image_folder={photo_folder.images}", *flags])
    assert capsys.readouterr().out == ""  # before any work
    assert [path.read_bytes() for path in files] == before


def test_faults_are_told_and_the_good_photos_go_on(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    (photo_folder.images / "002.png").unlink()
    with photo_folder.csv.open("a") as file:
        file.write("001.png,9 x,80,60,1\n003.png,9 x,80,60,23\n")  # the second one is background
    csv = tmp_path / "out.csv"
    code, said, told = run(photo_folder, f"--csv={csv}")
    assert code == 0
    assert "8 photos, 2 with faults." in said
    assert "1 photos that are not there: '002.png'" in told
    assert "Going on with 6 of 8 photos." in told
    assert "Going on with 5 of 8 photos." in told  # of shoes too, no mask may be wrong
    assert re.search(r"out.csv: \d+ rows for 5 photos\n  3 photos with faults, which are left out", said)
    assert scan(csv).photos.names.tolist() == ["000.png", "004.png", "005.png", "006.png", "007.png"]

    for path in photo_folder.images.iterdir():
        path.unlink()
    csv.unlink()
    code, said, told = run(photo_folder, f"--csv={csv}")
    assert (code, said) == (1, "")
    assert "No photo is left." in told
    assert not csv.exists()


def test_a_sheet_depends_on_its_seed_alone(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    sheets = []
    for number, seed in enumerate((0, 0, 5)):
        output = tmp_path / f"{number}.png"
        assert run(photo_folder, "--look=3", f"--seed={seed}", f"--output={output}")[0] == 0
        sheets.append(output.read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_a_photo_that_breaks_is_left_out_of_the_sheet(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    for path in (photo_folder.images / "001.png", photo_folder.images / "004.png"):
        path.write_bytes(path.read_bytes()[:300])
    output = tmp_path / "sheet.jpg"
    code, said, told = run(photo_folder, "--look=8", f"--output={output}")
    assert code == 0
    assert f"{output}: 6 of 8 labelled photos" in said
    assert len(re.findall(r"Left out: .*00[14].png: expected a picture", told)) == 2
    with Image.open(output) as picture:
        assert picture.format == "JPEG"


def test_no_photo_with_labels_is_said(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    photo_folder.csv.write_text(HEADER + "000.png,1 800,80,60,23\n")
    output = tmp_path / "sheet.jpg"
    code, _, told = run(photo_folder, "--look=2", f"--output={output}")
    assert code == 1
    assert "--look 2: expected photos with labels of --classes clothes, found none" in told
    assert not output.exists()


SQUARE = np.zeros((80, 60), dtype=bool)
SQUARE[10:40, 5:35] = True
TINY = np.zeros((80, 60), dtype=bool)
TINY[60, 30:50] = True
LOW = np.zeros((80, 60), dtype=bool)
LOW[30:75, 20:55] = True

INSTANCES = {
    "000.png": [("pants", SQUARE), ("dress", LOW)],
    "001.png": [("zebra, \"plain\" ' _5", LOW), ("top, t-shirt, sweatshirt", SQUARE), ("Shoe", TINY)],
    "002.png": [],
    "003.png": [("blouse \"A, B\"", SQUARE), ("sleeve", TINY), ("pants", TINY)],
}  # fmt: skip
"""{photo: [(category, mask)]}: they overlap, and some are small; some categories are of no class, or have commas."""


def as_csv(folder: Path) -> Path:
    path = folder / "labels.csv"
    with path.open("w") as file:
        file.write(HEADER)
        for name, instances in INSTANCES.items():
            for category, mask in instances:
                number = category_id(category)
                text = '"' + category.replace('"', '""') + '"' if number is None else f"{number}_7_8"
                file.write(f"{name},{rle.encode(mask)},80,60,{text}\n")
    return path


def as_pngs(folder: Path, classes: ClassSet) -> Path:
    (folder / "pngs").mkdir()
    for name, instances in INSTANCES.items():
        masks = [(classes.number_of(category), rle.parse(rle.encode(mask), mask.shape)) for category, mask in instances]
        mask_picture(merge(masks, (80, 60), drop_small=False), classes.palette).save(folder / "pngs" / name)
    return folder / "pngs"


def as_labelme(folder: Path) -> Path:
    (folder / "labelme").mkdir()
    for name, instances in INSTANCES.items():
        shapes = []
        for category, mask in instances:
            (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0))
            file = BytesIO()
            Image.fromarray(mask[top : bottom + 1, left : right + 1]).save(file, format="PNG")
            shape = {"label": category, "shape_type": "mask", "points": [[left, top], [right, bottom]]}
            shapes.append(shape | {"mask": base64.b64encode(file.getvalue()).decode()})
        content = {"version": "5.4.1", "imagePath": name, "imageHeight": 80, "imageWidth": 60, "shapes": shapes}
        (folder / "labelme" / name.replace(".png", ".json")).write_text(json.dumps(content))
    return folder / "labelme"


def as_coco(folder: Path) -> Path:
    names = sorted({category for instances in INSTANCES.values() for category, _ in instances})
    annotations = [
        {"id": 10 * photo + number, "image_id": photo, "category_id": names.index(category) + 7, "iscrowd": 0,
         "segmentation": encode_coco(mask), "area": int(mask.sum()), "bbox": [0, 0, 60, 80]}
        for photo, instances in enumerate(INSTANCES.values(), start=1)
        for number, (category, mask) in enumerate(instances)
    ]  # fmt: skip
    images = [{"id": n, "file_name": name, "height": 80, "width": 60} for n, name in enumerate(INSTANCES, start=1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=7)]
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.mark.parametrize("kind", ["csv", "pngs", "labelme", "coco"])
@pytest.mark.parametrize("is_own", [False, True])
def test_labels_of_any_format_become_a_csv_with_the_same_label_maps(
    kind: str, is_own: bool, own: Path, tmp_path: Path
) -> None:
    folder = write_photos(tmp_path / "photos", 4)
    classes = read_class_set(own) if is_own else CLOTHES
    makers = {"csv": as_csv, "labelme": as_labelme, "coco": as_coco}
    labels = as_pngs(tmp_path, classes) if kind == "pngs" else makers[kind](tmp_path)
    csv = tmp_path / "sub" / "out.csv"
    flags = [f"--classes={own}"] if is_own else []
    code, said, told = run(folder, *flags, f"--csv={csv}", labels=labels)
    assert code == 0, told
    assert told.count("categories of no class") == (kind != "pngs")  # once

    before, after = scan(labels, classes), scan(csv, classes)
    assert not after.faults
    wanted, found = maps(before.photos), maps(after.photos)
    assert found.keys() == wanted.keys() - {"002"} == {"000", "001", "003"}
    for name, labels_found in found.items():
        if kind == "pngs":  # which know no box rule
            wanted[name][TINY] = 0 if not labels_found[TINY].any() else wanted[name][TINY]
        np.testing.assert_array_equal(labels_found, wanted[name], err_msg=name)
    # The photo without instances has no row, and its loss is told.
    assert ("photos without instances" in said) == (kind != "csv")
    assert ("which are left out where the CSV is read" in said) == (kind == "pngs")
    if kind != "pngs":
        spelled = {category for instances in INSTANCES.values() for category, _ in instances}
        assert {name.casefold() for name in after.categories} == {name.casefold() for name in spelled}
        again = tmp_path / "again.csv"
        assert run(folder, *flags, f"--csv={again}", labels=csv)[0] == 0
        assert again.read_bytes() == csv.read_bytes()


def test_pixels_that_are_ignored_are_told(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", 3)
    labels = tmp_path / "labels"
    labels.mkdir()
    for number in range(3):
        values = np.zeros((80, 60), dtype=np.uint8)
        values[:40] = 1
        values[70:, : 30 * number] = 255
        Image.fromarray(values).save(labels / f"{number:03d}.png")
    Image.new("L", (60, 80), 255).save(labels / "000.png")
    csv, sheet = tmp_path / "out.csv", tmp_path / "sheet.png"
    code, said, told = run(folder, "--ignore_index=255", f"--csv={csv}", "--look=3", f"--output={sheet}", labels=labels)
    assert (code, told) == (0, "")
    assert row_of("ignored", said)[:2] == ["ignored", "3"]
    assert "Photos that have none of the classes: 1." in said
    assert f"{sheet}: 2 of 2 labelled photos" in said
    assert "1 photos without instances" in said
    assert "3 photos with pixels that are ignored, which are background where the CSV is read" in said
    assert {int(value) for value in np.unique(maps(scan(csv).photos)["002"])} == {0, 1}
    with Image.open(sheet) as picture:
        assert (128, 128, 128) in {color for _, color in picture.convert("RGB").getcolors(2**24) or []}


@pytest.mark.parametrize("category", ["7", "a\nb"])
def test_a_category_that_no_csv_can_hold_is_named(category: str, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", 1)
    (tmp_path / "labelme").mkdir()
    shapes = [
        {"label": name, "shape_type": "rectangle", "points": [[5, 5], [40, 40 + number]]}
        for number, name in enumerate(("dress", category))
    ]
    content = {"imagePath": "000.png", "imageHeight": 80, "imageWidth": 60, "shapes": shapes}
    (tmp_path / "labelme" / "000.json").write_text(json.dumps(content))
    csv = tmp_path / "out.csv"
    code, _, told = run(folder, f"--csv={csv}", labels=tmp_path / "labelme")
    assert code == 1
    assert f"expected categories with names that a ClassId can be, found {category!r}; rename it" in told
    assert not csv.exists()


def test_what_no_csv_can_be_made_of_is_said(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    csv = tmp_path / "out.csv"
    many = "".join(f"000.png,{number + 1} 2,80,60,kind {number}\n" for number in range(254))
    photo_folder.csv.write_text(HEADER + many + "000.png,1 2,80,60,dress\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    content = {"version": "5", "imagePath": "000.png", "imageHeight": 80, "imageWidth": 60, "shapes": []}
    (empty / "000.json").write_text(json.dumps(content))
    black = tmp_path / "black"
    black.mkdir()
    Image.new("L", (60, 80)).save(black / "000.png")
    for labels, words in (
        (photo_folder.csv, "expected at most 254 categories in the labels, found 255"),
        (empty, "expected labels with instances, found none"),
        (black, "expected labels with instances, found none"),
    ):
        code, _, told = run(photo_folder, f"--csv={csv}", labels=labels)
        assert code == 1
        assert f"--csv {csv}: {words}" in told
        assert list(tmp_path.glob(".*.part")) == []
        assert not csv.exists()
    photo_folder.csv.write_text(HEADER + many.replace("kind 0\n", "dress\n"))
    assert run(photo_folder, f"--csv={csv}")[0] == 0
    assert len(scan(csv).categories) == 254


def test_names_of_photos_may_have_commas_and_quotes(tmp_path: Path) -> None:
    folder = write_photos(tmp_path, 2)
    name = 'a, "b" \u00e9.png'
    (folder.images / "001.png").rename(folder.images / name)
    folder.csv.write_text(folder.csv.read_text().replace("001.png", '"a, ""b"" \u00e9.png"'))
    csv = tmp_path / "out.csv"
    assert run(folder, f"--csv={csv}")[0] == 0
    assert scan(csv).photos.names.tolist() == ["000.png", name]
    for wanted, found in zip(maps(scan(folder.csv).photos).values(), maps(scan(csv).photos).values(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_csv_may_name_categories_of_no_class(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "a.png,1 2,9,9,zebra\na.png,1 2,9,9,Dress\na.png,1 2,9,9,3d print\n")
    found = scan(path)
    assert (found.faults, found.categories) == ([], {"zebra": 1, "Dress": 1, "3d print": 1})
    assert found.photos.labels.tolist() == [3]
    path.write_text(HEADER + "a.png,1 2,9,9,00000000010\n")
    assert scan(path).categories == {"dress": 1}
    for wrong in ("46", "00000000046", "9" * 5000, "-1", "", "nan", "inf", "1e3", "9.5", "?", "x" * 999, "46_2"):
        path.write_text(HEADER + f"a.png,1 2,9,9,dress\nb.png,1 2,9,9,{wrong}\n")
        [fault] = scan(path).faults
        assert fault.kind == "rows with a wrong ClassId", wrong


def test_what_a_class_id_says_is_what_was_meant() -> None:
    mine = ClassSet.of_names(["background", "6", "Dress"])
    assert class_id("pants", CLOTHES) == "6"
    assert class_id("pants", mine) == "pants"  # since 6 is a class of its own
    assert class_id("6", mine) == "6"
    assert class_id(" zebra ", CLOTHES) == "zebra"
    for wrong in ("6", "12_3", "-1", "nan", "1e5", "\ud800", "a\nb"):
        with pytest.raises(ValueError, match="expected categories with names that a ClassId can be"):
            class_id(wrong, CLOTHES)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_writing_runs_inverts_parsing(mask: np.ndarray) -> None:
    text = rle.encode(mask)
    runs = rle.parse(text, mask.shape)
    assert rle.write(runs) == text
    np.testing.assert_array_equal(rle.parse(rle.write(runs), mask.shape), runs)
    assert rle.write(np.zeros((0, 2), np.int64)) == ""


@pytest.mark.parametrize(
    "name", ["x" * 100_000 + ".png", "a\nb\t.png", "\udce9.png", "\ud800", "", "\U0001f457 \u670d.png"]
)
def test_any_name_is_drawn(name: str) -> None:
    assert text_line(name, 300).size == (300, 22)
    assert legend([(name, (1, 2, 3)), ("b", (4, 5, 6))], 120).width == 120


def test_a_sheet_is_readable_whatever_is_on_it() -> None:
    classes = ClassSet.of_names(["background", *(f"class {number} with a long name" for number in range(46))])
    sheet = LabelSheet(classes)
    for number in range(12):
        size = [(236, 320), (236, 100), (1, 320)][number % 3]
        values = np.arange(size[0] * size[1], dtype=np.int64).reshape(size[::-1]) // 7 % 47
        sheet.add(f"{number}.png", Image.new("RGB", size, (90, 90, 90)), values.astype(np.uint8))
    picture = sheet.draw("title")
    assert 0.4 < picture.width / picture.height < 2.5
    assert picture.width < 4000
