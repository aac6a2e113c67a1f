"""Labels of labelme: a JSON file for each photo, with polygons, rectangles, circles and masks."""

import base64
import binascii
import json
import math
import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloth_segmentation.classes import ClassSet
from cloth_segmentation.errors import DataError
from data.annotations import LONGEST_NAME, Entry, PhotoEntry, Scanned, category_number, digest_of, make_index
from data.coco_labels import LONGEST_SIDE, runs_of, side_length
from data.faults import Fault, summary
from data.json_spans import json_spans, short_json
from data.label_files import in_threads, label_files, read_label_file
from data.png_labels import decode
from data.rle import Runs

AREAS = ("polygon", "rectangle", "circle", "mask")
"""Types of shapes that have an area."""

NO_AREAS = ("point", "points", "line", "linestrip")

MOST_CORNERS = 1024
"""Of what is filled as a circle."""


@dataclass(frozen=True)
class LabelmeFormat:
    """Shapes of labelme. See ``annotations.Format``."""

    unit: str = "shape"
    drops_small: bool = True
    has_categories: bool = True

    def masks(self, content: bytes, label: int, shape: tuple[int, int]) -> list[tuple[int, Runs]]:
        try:
            found = json.loads(content.decode(errors="surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise ValueError("expected a shape in JSON, found none") from error
        if not isinstance(found, dict):
            raise ValueError("expected a shape in JSON, found something else")
        return [(label, _runs(found, shape))]


def _runs(found: dict[str, Any], shape: tuple[int, int]) -> Runs:
    """Runs of a shape. Raises ValueError if it cannot be used."""
    kind, points = found.get("shape_type") or "polygon", _points(found.get("points"))
    if kind == "polygon" or (kind == "rectangle" and len(points) == 4):
        return _filled(points, shape)
    if len(points) != 2:
        raise ValueError(f"expected the 2 points of a {kind}, found {len(points)}")
    if kind == "circle":
        radius = math.dist(*points.tolist())
        corners = min(MOST_CORNERS, 8 + math.ceil(radius))
        angles = np.arange(corners) * (2 * math.pi / corners)
        return _filled(points[0] + radius * np.stack((np.cos(angles), np.sin(angles)), axis=1), shape)
    (left, top), (right, bottom) = points.tolist()
    if kind == "rectangle":
        return _filled(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), shape)
    if kind != "mask":
        raise ValueError(f"expected {', '.join(AREAS)}, found {short_json(kind)}")
    mask = _mask(found.get("mask"))
    height, width = mask.shape
    # The second point is that of the last pixel, or the one after it.
    if not (int(right) - int(left) in (width - 1, width) and int(bottom) - int(top) in (height - 1, height)):
        raise ValueError(
            f"expected a mask of the size of its box, from {left:g}, {top:g} to {right:g}, {bottom:g}, found {width} x "
            f"{height} pixels"
        )
    if left < 0 or top < 0 or int(left) + width > shape[1] or int(top) + height > shape[0]:
        raise ValueError(
            f"expected a mask within the photo of {shape[1]} x {shape[0]} pixels, found one of {width} x {height} at "
            f"{left:g}, {top:g}"
        )
    return _placed(mask, int(left), int(top), shape[0])


def _filled(corners: NDArray[np.float64], shape: tuple[int, int]) -> Runs:
    """Runs of a polygon with these corners (N, 2). Raises ValueError."""
    return runs_of([corners.ravel().tolist()], shape)


def _points(found: object) -> NDArray[np.float64]:
    """Points (N, 2), x and y. Raises ValueError if there are none."""
    if not isinstance(found, list) or not found:
        raise ValueError("expected points [[x, y], ...], found none")
    for point in found:
        if not isinstance(point, list) or len(point) != 2 or not all(_is_number(value) for value in point):
            found_there = ", ".join(map(short_json, point[:3])) if isinstance(point, list) else short_json(point)
            raise ValueError(f"expected points of two numbers, [x, y], found {found_there or 'none'}")
    return np.array(found, dtype=np.float64)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # neither infinity nor NaN, nor a whole number of a thousand digits


def _mask(found: object) -> NDArray[np.bool_]:
    """The mask (H, W) in a PNG in base64. Raises ValueError if it is none."""
    if not isinstance(found, str):
        raise ValueError("expected a mask as a PNG in base64, found none")
    try:
        content = base64.b64decode(found.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"expected a mask as a PNG in base64, found text that is none ({error})") from error
    picture = decode(content)
    width, height = picture.seen.size
    mask = np.zeros(width * height, dtype=bool)
    for start, end in picture.runs[picture.values > 0].tolist():
        mask[start:end] = True
    return mask.reshape((height, width), order="F")


def _placed(mask: NDArray[np.bool_], left: int, top: int, height: int) -> Runs:
    """Runs of a mask whose upper left pixel is at ``left``, ``top`` in a photo that is ``height`` pixels high."""
    # Between columns lies a row of nothing, so that no run goes on in the next one.
    flat = np.pad(mask, ((1, 1), (0, 0))).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    column, row = np.divmod(edges, mask.shape[0] + 2)
    placed: Runs = ((column + left) * height + row - 1 + top).reshape(-1, 2)
    return placed


class _Look(NamedTuple):
    """What a look at a file has found."""

    photo: PhotoEntry | None  # None: the file cannot be used
    faults: list[Fault]
    categories: list[str]  # of each shape


def is_labelme(path: Path) -> bool:
    """Whether a JSON file seems to be one of labelme."""
    try:
        return b'"shapes"' in read_label_file(path)
    except (ValueError, OSError):
        return False


def scan_labelme(path: Path, classes: ClassSet) -> Scanned:
    """Index a folder of labelme files, and tell what is wrong with some. Shapes are not filled.

    The photo of a file is where ``imagePath`` says, if it is there and lies below the folder; else one of that name is
    in the same sub-folder as the file.

    Args:
        path: the folder.
        classes: what the labels of shapes become.

    Raises:
        DataError: no file can be used.
    """
    files, faults = label_files(path, ".json")
    photos: dict[str, PhotoEntry] = {}
    by: dict[str, str] = {}  # {photo: file}
    categories: Counter[str] = Counter()
    for file, look in zip(
        files, in_threads(lambda file: _look(path, file, classes), files, "labels", "file"), strict=True
    ):
        faults += look.faults
        if look.photo is None:
            continue
        name = look.photo.name
        if name in photos:
            text = f"{file}: expected another photo than {name}, which {by[name]} labels, found the same in imagePath"
            faults.append(Fault("photos with several labelme files", name, text))
            continue
        photos[name], by[name] = look.photo, file
        categories.update(look.categories)
    if not photos:
        raise DataError(f"{path}: expected labelme files that can be used, found none:\n{summary(faults)}")
    return Scanned(make_index(path, LabelmeFormat(), list(photos.values())), faults, dict(categories))


def _look(folder: Path, file: str, classes: ClassSet) -> _Look:
    own = str(PurePosixPath(file).with_suffix(""))
    stated: dict[str, Any] = {}
    shapes: list[tuple[int, int, bytes, Any]] = []  # (number, offset, content, value)
    try:
        for span in json_spans(BytesIO(read_label_file(folder / file))):
            if span.number is None:
                if span.key == "shapes" and span.key in stated:
                    raise ValueError("expected one list of shapes, found several")
                stated[span.key] = span.value
            elif span.key == "shapes":
                shapes.append((span.number + 1, span.offset, span.content, span.value))
    except (ValueError, OSError, RecursionError) as error:
        return _lost("JSON files that cannot be read", own, f"{file}: {error}")
    if "shapes" not in stated:
        text = f"{file}: expected shapes, found none; labelme did not write it"
        return _Look(None, [Fault("JSON files that are not of labelme", "", text, harmless=True)], [])
    try:
        name = _photo_name(folder, file, stated.get("imagePath"))
    except ValueError as error:
        return _lost("files with a wrong imagePath", own, f"{file}: {error}")
    if not isinstance(stated["shapes"], list):
        return _lost("files with wrong shapes", name, f"{file}: expected a list, found {short_json(stated['shapes'])}")
    width, height = (side_length(stated.get(key)) for key in ("imageWidth", "imageHeight"))
    if width is None or height is None:
        key = "imageWidth" if width is None else "imageHeight"
        found = short_json(stated.get(key))
        text = f"{file}: expected whole pixels, 1 to {LONGEST_SIDE}, found {found}; save it anew in labelme"
        return _lost(f"files with a wrong {key}", name, text)
    return _with_shapes(file, PhotoEntry(name, width, height, []), shapes, classes)


def _with_shapes(file: str, photo: PhotoEntry, shapes: list[tuple[int, int, bytes, Any]], classes: ClassSet) -> _Look:
    """A photo with those of its shapes that can be used."""
    faults: list[Fault] = []
    categories: list[str] = []
    for number, offset, content, value in shapes:
        place = f"{file}, shape {number}"
        if not isinstance(value, dict) or not isinstance(value.get("label"), str) or not value["label"].strip():
            found = short_json(value.get("label") if isinstance(value, dict) else value)
            faults.append(Fault("shapes without a label", photo.name, f"{place}: expected a text, found {found}"))
            continue
        category, kind = value["label"].strip(), value.get("shape_type") or "polygon"
        categories.append(category)
        label = classes.number_of(category)
        if not label:
            continue
        if kind in NO_AREAS:
            text = f"{place}: expected one with an area ({', '.join(AREAS)}), found a {kind}"
            faults.append(Fault("shapes without area, which are left out", photo.name, text, harmless=True))
        elif kind not in AREAS:
            text = f"{place}: expected {', '.join(AREAS)}, found {short_json(kind)}"
            faults.append(Fault("shapes of an unknown shape_type", photo.name, text))
        else:
            digest, name = digest_of(content), category_number(category)
            photo.instances.append(Entry(file, offset, len(content), number, label, digest, name))
    return _Look(photo, faults, categories)


def _lost(kind: str, photo: str, text: str) -> _Look:
    return _Look(None, [Fault(kind, photo, text)], [])


def _photo_name(folder: Path, file: str, stated: object) -> str:
    """Name of the photo that a file labels. Raises ValueError if ``imagePath`` is no name."""
    if stated is None or stated == "":
        return str(PurePosixPath(file).with_suffix(""))
    if not isinstance(stated, str):
        raise ValueError(f"expected the name of a photo, found {short_json(stated)}")
    path = stated.replace("\\", "/")
    last = path.rpartition("/")[2]
    try:
        fits = last not in ("", ".", "..") and len(os.fsencode(last)) <= LONGEST_NAME
    except UnicodeEncodeError:
        fits = False
    if not fits or "\0" in path:
        raise ValueError(f"expected the name of a photo, found {short_json(stated)}")
    before = PurePosixPath(file).parent
    there = PurePosixPath(os.path.normpath(before / path))
    if not there.is_absolute() and ".." not in there.parts:
        with suppress(OSError):  # it is too long, or may not be looked for
            if (folder / there).is_file():
                return str(there)
    return str(before / last)
