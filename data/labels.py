"""Labels of any format, told apart by their content."""

from pathlib import Path

from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.errors import DataError
from data.annotations import Annotations, Scanned
from data.coco_labels import scan_coco
from data.csv_labels import scan_csv
from data.faults import summary
from data.label_files import label_files
from data.label_map import IGNORED
from data.labelme_labels import is_labelme, scan_labelme
from data.other_formats import packed_beside
from data.png_labels import scan_pngs

KINDS = "a CSV of iMaterialist, a JSON file of COCO, or a folder of label PNGs or labelme JSON files"
"""What labels may be, for messages."""


def scan(path: Path, classes: ClassSet = CLOTHES, most: int | None = None, ignored: int | None = None) -> Scanned:
    """Index labels that can be used, and tell what is wrong with the others. Of masks, only label PNGs are looked at.

    Args:
        path: the labels.
        classes: what their categories become.
        most: look at no more than this number of photos, the first ones.
        ignored: value of pixels in label PNGs that belong to no class, and count nowhere; None: there is none.

    Raises:
        DataError: there are no labels, or none that can be used.
        OSError: they cannot be read.
    """
    if ignored is not None and len(classes) > IGNORED:
        raise DataError(
            f"expected at most {IGNORED} classes beside --ignore_index, found the {len(classes)} of --classes "
            f"{classes.name}; leave it out"
        )
    if path.is_dir():
        found = _scan_folder(path, classes, ignored)
    elif not path.is_file():
        beside = packed_beside(path)
        raise DataError(f"{path}: expected {KINDS}, found no such file" + (f", but {beside}" if beside else ""))
    else:
        found = scan_coco(path, classes) if _is_json(path) else scan_csv(path, classes)
    if most is None:
        return found
    first = found.photos.head(most)
    return found._replace(photos=first, faults=first.faults_of(found.faults))


def _scan_folder(path: Path, classes: ClassSet, ignored: int | None) -> Scanned:
    """Index labels in a folder. Photos may lie there too, which are PNGs also, so labelme's files come first."""
    files, unlisted = label_files(path, ".json")
    if any(is_labelme(path / file) for file in files):
        return scan_labelme(path, classes)
    if label_files(path, ".png")[0]:
        return scan_pngs(path, classes, ignored)
    if unlisted:
        raise DataError(f"{path}: expected {KINDS}, found\n{summary(unlisted)}")
    other = f"{len(files):,} JSON files without shapes; of COCO, name the file itself" if files else "other files"
    raise DataError(f"{path}: expected {KINDS}, found a folder of {other}")


def _is_json(path: Path) -> bool:
    """Whether a file begins as JSON does that holds more than one value, in any Unicode. Raises OSError."""
    with path.open("rb") as file:
        begin = file.read(2**12)
    return begin.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] in (b"{", b"[")


def read_annotations(path: Path, classes: ClassSet = CLOTHES) -> Annotations:
    """The index of labels in which nothing is wrong.

    Raises:
        DataError: something is; the message names the first faults and counts the others.
        OSError: the labels cannot be read.
    """
    found = scan(path, classes)
    if found.faults:
        raise DataError(f"{path}: expected labels without fault, found\n{summary(found.faults)}")
    return found.photos
