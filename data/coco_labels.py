"""Labels in COCO's JSON of instances: polygons, or run-length encoding, compressed or not."""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cloth_segmentation.classes import ClassSet, plain
from cloth_segmentation.coco import decode_coco
from cloth_segmentation.errors import DataError
from data.annotations import LONGEST_NAME, Scanned, category_number, digest_of, index_of
from data.faults import Fault, summary
from data.json_spans import Span, json_spans, short_json
from data.other_formats import other_format
from data.rle import Runs

LISTS = {"images": "image", "annotations": "annotation", "categories": "category"}
"""{what is read of a file: one of them}. Other keys are not used, nor are bbox, area, iscrowd, ... of annotations."""

LONGEST_SIDE = 2**15
"""Pixels of a photo. pycocotools counts pixels in 32 bits, for polygons five times as fine."""

LONGEST_OUTLINE = 2**20
"""Pixels around an instance: pycocotools needs time and memory for each."""

EXPECTED = "expected COCO's JSON, an object with the lists images, annotations and categories"


@dataclass(frozen=True)
class CocoFormat:
    """Masks as ``runs_of`` reads them. See ``annotations.Format``."""

    unit: str
    drops_small: bool = True
    has_categories: bool = True

    def masks(self, content: bytes, label: int, shape: tuple[int, int]) -> Iterable[tuple[int, Runs]]:
        try:
            segmentation = json.loads(content.decode("latin-1"))["segmentation"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise ValueError("expected the annotation that was there at the start, found other bytes") from error
        return [(label, runs_of(segmentation, shape))]


def runs_of(segmentation: object, shape: tuple[int, int]) -> Runs:
    """Runs of an annotation's segmentation, as pycocotools draws it.

    The content is not to be trusted. Of polygons, those of one or two points enclose nothing, and are left out where
    there are others.

    Args:
        segmentation: a list of polygons [x, y, x, y, ...], of which the union counts, or {"size", "counts"}.
        shape: (height, width) of the photo, at most ``LONGEST_SIDE`` each.

    Raises:
        ValueError: it is something else, or does not fit the photo.
    """
    if isinstance(segmentation, dict):
        return _runs(_lengths(segmentation, shape), shape)
    if not isinstance(segmentation, list):
        raise ValueError(
            f"expected a list of polygons or an object with size and counts, found {short_json(segmentation)}"
        )
    polygons = [points for part in segmentation if len(points := _points(part, shape)) > 2]
    if not polygons:
        raise ValueError(f"expected polygons of at least 3 points, found {short_json(segmentation)}")
    # pycocotools marks points on the outline, 5 a pixel, by the longer of the ways along x and y.
    steps = (np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() for points in polygons)
    if (outline := sum(steps)) > LONGEST_OUTLINE:
        raise ValueError(f"expected an outline of at most {LONGEST_OUTLINE:,} pixels, found {outline:,.0f}")
    encoded = coco_mask.merge(coco_mask.frPyObjects([points.ravel() for points in polygons], *shape))
    return _runs(decode_coco(encoded["counts"].decode("ascii")), shape)


def _points(part: object, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Points (N, 2) of a polygon: x, y. Raises ValueError if they are none, or far outside the photo."""
    if not isinstance(part, list) or not set(map(type, part)) <= {int, float}:
        raise ValueError(f"expected polygons as lists of numbers, [[x, y, x, y, ...], ...], found {short_json(part)}")
    if len(part) % 2:
        raise ValueError(f"expected pairs of x and y in a polygon, found {len(part)} numbers")
    try:
        points = np.array(part, dtype=np.float64).reshape(-1, 2)
    except OverflowError:  # a whole number of hundreds of digits
        points = np.array([[np.inf, np.inf]])
    size = np.array(shape[::-1])
    # Tools let polygons stick out a little. Whole photos away there is none, and drawing would take for ever.
    near = (points >= -size) & (points <= 2 * size)  # what is no number is not near either
    if not near.all():
        x, y = points[~near.all(axis=1)][0]
        raise ValueError(f"expected points in or near the photo of {size[0]} x {size[1]}, found x {x:g}, y {y:g}")
    return points


def _lengths(encoded: Mapping[str, Any], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Lengths of runs of 0 and 1 in turn. Raises ValueError if they are none; they may not fit the photo."""
    size, counts = encoded.get("size"), encoded.get("counts")
    if size != list(shape):
        raise ValueError(f"expected the photo's size [height, width], {list(shape)}, found {short_json(size)}")
    if isinstance(counts, str):
        return decode_coco(counts)
    if not isinstance(counts, list) or not set(map(type, counts)) <= {int}:
        raise ValueError(f"expected counts as a text or a list of whole numbers, found {short_json(counts)}")
    try:
        return np.array(counts, dtype=np.int64)
    except OverflowError as error:
        raise ValueError(f"expected counts below 2**63, found {short_json(max(counts, key=abs))}") from error


def _runs(lengths: NDArray[np.int64], shape: tuple[int, int]) -> Runs:
    """The runs of 1 among runs of 0 and 1 in turn. Raises ValueError if they do not fill a mask of ``shape``."""
    pixels = shape[0] * shape[1]
    bad = (lengths < 0) | (lengths > pixels)
    if bad.any():
        raise ValueError(f"expected counts from 0 to {pixels}, all pixels, found {lengths[bad][0]}")
    if (total := int(lengths.sum())) != pixels:
        raise ValueError(f"expected counts that add up to {shape[0]} x {shape[1]} = {pixels}, found {total}")
    ends = np.cumsum(lengths)[1::2]
    runs = np.stack((ends - lengths[1::2], ends), axis=1)
    return runs[runs[:, 1] > runs[:, 0]]


def scan_coco(path: Path, classes: ClassSet) -> Scanned:
    """Index the annotations of COCO's JSON that can be used, and tell what is wrong with the others.

    Its lists may come in any order; ids are whole numbers or texts. Photos without annotations are background only.
    Masks are not looked at.

    Raises:
        DataError: nothing in the file can be used.
        OSError: it cannot be read.
    """
    if other := other_format(path, ()):
        raise DataError(f"{path}: {EXPECTED}, found {other}")
    reader = _Reader()
    try:
        with path.open("rb") as file:
            for span in json_spans(file):
                reader.take(span)
                if span.key == "" and span.number == 0:  # a list, whose first element tells what it is
                    break
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if other := reader.other_kind():
        raise DataError(f"{path}: {EXPECTED}, found {other}")
    return reader.scanned(path, classes)


UNKNOWN, UNUSABLE = -1, -2
"""In the place of the number of a photo or category: none is listed; one is, and its fault is told."""


class _Reader:
    """Takes the parts of a file, in any order, and keeps of each annotation some numbers only."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.keys: dict[str, set[str]] = {}  # {first keys of the file: keys of the value, or of its first element}
        self.lists: Counter[str] = Counter()  # {one of LISTS: how many the file has}

        self.names: list[str] = []  # of photos
        self.sizes: list[tuple[int, int]] = []  # of photos, (width, height)
        self.photo_of_name: dict[str, int] = {}
        self.photo_of_id: dict[str | None, int] = {}
        self.categories: list[str] = []
        self.category_of_id: dict[str | None, int] = {}

        # Photos and categories may be listed after the annotations, so their ids are numbered as they come.
        self.image_ids: dict[str | None, int] = {}
        self.category_ids: dict[str | None, int] = {}
        # Of each annotation: numbers of its photo and category among these ids, place and digest.
        self.images, self.kinds, self.offsets, self.lengths = (array("q") for _ in range(4))
        self.positions, self.ids, self.digests, self.has_mask = array("q"), array("q"), array("Q"), array("b")
        self.all_have_ids = True

    def take(self, span: Span) -> None:
        """Take a part of the file."""
        entry = span.value
        if not self.keys.get(span.key) and len(self.keys) < 100:
            self.keys[span.key] = set(entry) if isinstance(entry, dict) else set()
        if span.key not in LISTS:
            return
        if span.number is None:
            self.lists[span.key] += span.content == b"["
            return
        place = f"{LISTS[span.key]} number {span.number + 1}"
        if not isinstance(entry, dict):
            harmless = span.key == "categories"
            self._fault(f"{span.key} that are no objects", "", f"{place}: found {short_json(entry)}", harmless=harmless)
        elif span.key == "images":
            self._take_image(entry, place)
        elif span.key == "categories":
            self._take_category(entry, place)
        else:
            self._take_annotation(span)

    def _fault(self, kind: str, photo: str, text: str, *, harmless: bool = False) -> None:
        self.faults.append(Fault(kind, photo, text, harmless))

    def _take_image(self, entry: Mapping[str, Any], place: str) -> None:
        own, name = _id(entry.get("id")), _photo_name(entry.get("file_name"))
        width, height = side_length(entry.get("width")), side_length(entry.get("height"))
        if name is None:
            expected = f"the name of a file, at most {LONGEST_NAME} bytes"
            found = short_json(entry.get("file_name"))
            self._fault("images without a file_name", "", f"{place}: expected {expected}, found {found}")
        elif own is None:
            expected, found = "a whole number or a text", short_json(entry.get("id"))
            self._fault("images without an id", name, f"{place} ({name}): expected {expected}, found {found}")
        elif width is None or height is None:
            expected = f"width and height as whole numbers from 1 to {LONGEST_SIDE}"
            found = " and ".join(short_json(entry.get(key)) for key in ("width", "height"))
            self._fault("images of a wrong size", name, f"{place} ({name}): expected {expected}, found {found}")
        elif own in self.photo_of_id:
            self._take_again(own, name, (width, height), place)
        elif name not in self.photo_of_name:
            self.photo_of_id[own] = self.photo_of_name[name] = len(self.names)
            self.names.append(name)
            self.sizes.append((width, height))
        elif (size := self.sizes[self.photo_of_name[name]]) == (width, height):
            self.photo_of_id[own] = self.photo_of_name[name]
            text = f"{place} ({name}), id {own[:40]}"
            self._fault("images with the file_name of another, taken as one", "", text, harmless=True)
        else:
            text = f"{place} ({name}): found {width} x {height}, and {size[0]} x {size[1]} before"
            self._fault("images with the file_name of another, of another size", name, text)
        if own is not None:
            self.photo_of_id.setdefault(own, UNUSABLE)

    def _take_again(self, own: str, name: str, size: tuple[int, int], place: str) -> None:
        """Take an image whose id another one had before."""
        before = self.photo_of_id[own]
        if before >= 0 and (self.names[before], self.sizes[before]) == (name, size):
            self._fault("images that repeat another", "", f"{place} ({name})", harmless=True)
            return
        other = self.names[before] if before >= 0 else "one before"
        self._fault("images with the id of another", name, f"{place} ({name}): found id {own[:40]}, that of {other}")
        if before >= 0:  # whose annotations are whose?
            self._fault("images with the id of another", other, f"{other}: found id {own[:40]}, that of {name}")
        self.photo_of_id[own] = UNUSABLE

    def _take_category(self, entry: Mapping[str, Any], place: str) -> None:
        # Nothing is lost by these faults: annotations of such a category have faults of their own.
        own, name = _id(entry.get("id")), _category_name(entry.get("name"))
        if own is None:
            expected, found = "a whole number or a text", short_json(entry.get("id"))
            text = f"{place}: expected {expected}, found {found}"
            self._fault("categories without an id", "", text, harmless=True)
        elif name is None:
            expected, found = f"a text of at most {LONGEST_NAME} letters", short_json(entry.get("name"))
            self._fault("categories without a name", "", f"{place}: expected {expected}, found {found}", harmless=True)
            self.category_of_id.setdefault(own, UNUSABLE)
        elif (before := self.category_of_id.get(own)) is None:
            self.category_of_id[own] = len(self.categories)
            self.categories.append(name)
        elif before < 0 or plain(self.categories[before]) != plain(name):
            other = self.categories[before] if before >= 0 else "one before"
            text = f"{place} ({name}): found id {own[:40]}, that of {other}"
            self._fault("categories with the id of another", "", text, harmless=True)
            self.category_of_id[own] = UNUSABLE

    def _take_annotation(self, span: Span) -> None:
        own = span.value.get("id")
        is_number = type(own) is int and 0 <= own < 2**63
        self.all_have_ids = self.all_have_ids and is_number
        self.ids.append(own if is_number else 0)
        self.positions.append((span.number or 0) + 1)
        for key, ids, numbers in (
            ("image_id", self.image_ids, self.images),
            ("category_id", self.category_ids, self.kinds),
        ):
            numbers.append(ids.setdefault(_id(span.value.get(key)), len(ids)))
        self.offsets.append(span.offset)
        self.lengths.append(len(span.content))
        self.digests.append(digest_of(span.content))
        self.has_mask.append(bool(span.value.get("segmentation")))

    def other_kind(self) -> str:
        """What was taken if it is no COCO of masks, and what to do; "" if it may be."""
        if not (missing := [key for key in LISTS if not self.lists[key]]):
            if "segments_info" in self.keys["annotations"]:
                return "COCO's panoptic labels, whose masks are in PNG files; give the file of the instances"
            twice = [key for key in LISTS if self.lists[key] > 1]
            return f"{self.lists[twice[0]]} lists of {twice[0]}; join them" if twice else ""
        if "" in self.keys:
            if self.keys[""] >= {"annotations", "data"} or self.keys[""] & {"completions", "annotation_id"}:
                return "Label Studio's own JSON; export it as COCO"
            if self.keys[""] >= {"image_id", "category_id"}:
                return "a list of results, without photos and names of categories; give the file of the instances"
            return "a list; export the labels as COCO"
        if "shapes" in self.keys:
            return "a labelme file of one photo; give the folder of such files"
        if any(key.startswith("_via_") or "regions" in inner for key, inner in self.keys.items()):
            return "annotations of VIA (VGG Image Annotator); export them as COCO"
        if "items" in self.keys:
            return "Datumaro's JSON; export it as COCO"
        if "caption" in self.keys.get("annotations", ()):
            return "COCO's captions, which have no masks; give the file of the instances"
        if missing[0] in self.keys:
            return f"one whose {missing[0]} are no list"
        keys = ", ".join(map(repr, list(self.keys)[:8])) + ", ..." * (len(self.keys) > 8)
        return f"one without {', '.join(missing)}; " + (f"its keys are {keys[:200]}" if keys else "it has no keys")

    def scanned(self, path: Path, classes: ClassSet) -> Scanned:
        """What was taken as an index. Raises DataError if nothing can be used."""
        image_ids, category_ids = list(self.image_ids), list(self.category_ids)
        images, kinds = _numbers(self.images), _numbers(self.kinds)
        photo = _numbers([self.photo_of_id.get(own, UNKNOWN) for own in image_ids])[images]
        category = _numbers([self.category_of_id.get(own, UNKNOWN) for own in category_ids])[kinds]
        unit, numbers = ("id", self.ids) if self.all_have_ids else ("number", self.positions)

        for row in np.flatnonzero(photo == UNKNOWN).tolist():
            text = f"annotation {unit} {numbers[row]}: found image_id {_told(image_ids[images[row]])}"
            self._fault("annotations of images that are not listed", "", text)
        for row in np.flatnonzero((photo >= 0) & (category < 0)).tolist():
            name, found = self.names[photo[row]], _told(category_ids[kinds[row]])
            text = f"annotation {unit} {numbers[row]} ({name}): found category_id {found}"
            state = "not listed" if category[row] == UNKNOWN else "listed wrongly"
            self._fault(f"annotations of categories that are {state}", name, text)
        good = (photo >= 0) & (category >= 0)
        if not good.any():
            found = f"none:\n{summary(self.faults)}" if self.faults else "none"
            raise DataError(f"{path}: expected annotations that can be used, found {found}")
        counts = np.bincount(category[good], minlength=len(self.categories))
        # The last two are background, at the places of UNUSABLE and UNKNOWN.
        labels = np.array([*map(classes.number_of, self.categories), 0, 0], dtype=np.uint8)
        wanted = good & (labels[category] > 0)
        has_mask = np.array(self.has_mask, dtype=bool)
        for row in np.flatnonzero(wanted & ~has_mask).tolist():
            name = self.names[photo[row]]
            text = f"annotation {unit} {numbers[row]} ({name}): expected polygons or run-length encoding, found none"
            self._fault("annotations without a segmentation", name, text)
        used = [(plain(name), number) for number, name in enumerate(self.categories) if counts[number]]
        for name, times in Counter(name for name, _ in used).items():
            if times > 1:
                self._fault("names that several categories have, taken as one", "", f"{name!r}, {times}", harmless=True)

        kept = np.flatnonzero(wanted & has_mask)
        kept = kept[np.argsort(photo[kept], kind="stable")]
        first = np.searchsorted(photo[kept], np.arange(len(self.names) + 1))
        own_numbers = np.array([category_number(name) for name in self.categories], dtype=np.uint64)
        index = index_of(
            path,
            CocoFormat(f"annotation {unit}"),
            self.names,
            self.sizes,
            first,
            offsets=_numbers(self.offsets)[kept],
            lengths=_numbers(self.lengths)[kept],
            numbers=_numbers(numbers)[kept],
            labels=labels[category[kept]],
            digests=np.array(self.digests, dtype=np.uint64)[kept],
            categories=own_numbers[category[kept]],
        )
        total: Counter[str] = Counter()
        for name, count in zip(self.categories, counts.tolist(), strict=True):
            total[name] += count
        return Scanned(index, self.faults, dict(+total))


def _numbers(values: "array[int] | list[int]") -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _id(value: object) -> str | None:
    """An id as text; None if it is none. Tools write 7, 7.0 and "7" for the same."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if type(value) is int else None


def _told(own: str | None) -> str:
    return "none" if own is None else own[:40]


def _photo_name(value: object) -> str | None:
    """The path of a photo below the folder of the photos; None if there is none."""
    if not isinstance(value, str):
        return None
    # Tools write paths from where they ran, and none may lead out of the folder.
    name = re.sub(r"^([A-Za-z]:)?(\.{0,2}[/\\])+", "", value)
    if ".." in re.split(r"[/\\]", name):
        return None
    try:
        length = len(name.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        return None
    return name if name.strip() and length <= LONGEST_NAME and "\0" not in name else None


def _category_name(value: object) -> str | None:
    """The name of a category; None if it is none."""
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_NAME:
        return None
    return value.strip().encode(errors="replace").decode()


def side_length(value: object) -> int | None:
    """A width or height in pixels; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= LONGEST_SIDE:
        return None
    return int(value) if value == int(value) else None
