"""Labels as pictures: a folder of PNGs, one for each photo, or one for each class of a photo.

A PNG's values are classes (grey, palette), or its colours are those of the classes. What infer.py writes is read too:
masks, class masks and cut-outs.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import Enum, auto
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cloth_segmentation import png
from cloth_segmentation.classes import ClassSet, plain
from cloth_segmentation.colors import Color
from cloth_segmentation.command.outputs import EACH_CLASS
from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import Size
from cloth_segmentation.picture_kinds import unread_kind
from data.annotations import Entry, PhotoEntry, Scanned, category_number, digest_of, make_index
from data.faults import SHOWN, Fault, counted, summary
from data.label_files import in_threads, label_files, read_label_file
from data.label_map import IGNORED, ignored_label
from data.rle import Runs

STRIP = 2**22
"""Pixels that are worked on at once, so that little memory is needed beside the picture."""

LARGE = 2**24
"""Pixels of a picture from which on only one is decoded at a time."""

MOST_RUNS = 2**23
"""Runs of pixels of one value in a picture; a few bytes of PNG may stand for a billion."""

MOST_COLORS = 2**16
"""Colours in a picture; what has more is a photo, and no masks are drawn in so many."""

OPAQUE_FROM = 128
"""Alpha of the pixels of a class in a cut-out, as ``cutouts.coverage`` gives it."""

NO_PHOTOS = "draw without smoothing, save as PNG, and keep photos in another folder"
"""What to do about colours of no class."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

_one_large = threading.Lock()


class Kind(Enum):
    """What the values in a label PNG are."""

    GREY = auto()
    PALETTE = auto()  # indices
    COLORS = auto()  # red, green and blue in one number, the lowest byte first


class Seen(NamedTuple):
    """What a look at a label PNG has found."""

    size: Size
    kind: Kind
    counts: dict[int, int]  # {value: number of its pixels}, ascending
    colors: dict[int, Color]  # {value: how it is shown}; lacks values that are not in the palette
    has_alpha: bool
    see_through: int  # number of pixels that are not wholly opaque


class LabelPicture(NamedTuple):
    """A decoded label PNG."""

    seen: Seen
    runs: Runs  # (N, 2), all pixels
    values: NDArray[np.uint32]  # (N,) of the pixels of each run
    opaque: Runs  # of the pixels whose alpha is at least ``OPAQUE_FROM``; all of them where there is no alpha

    def where(self, labels: Mapping[int, int]) -> list[tuple[int, Runs]]:
        """(label, runs) of each label but 0, by {value: label}."""
        known = np.array(sorted(labels), dtype=np.uint32)
        table = np.array([labels[value] for value in known.tolist()], dtype=np.int64)
        found = table[np.searchsorted(known, self.values)]
        return [(label, self.runs[found == label]) for label in np.unique(found).tolist() if label]


@dataclass(frozen=True)
class PngFormat:
    """Label PNGs of a class set. See ``annotations.Format``.

    An instance of label 0 is a mask of all classes; one of another label shows where this class is.
    """

    palette: tuple[Color, ...]
    """Colours of the classes."""

    by_color: bool = False
    """Colours of palette PNGs tell the class, not indices: editors reorder palettes."""

    ignored: int | None = None
    """Value of pixels that become ``IGNORED``."""

    unit: str = ""
    drops_small: bool = False
    has_categories: bool = False

    def masks(self, content: bytes, label: int, shape: tuple[int, int]) -> list[tuple[int, Runs]]:
        picture = decode(content)
        if picture.seen.size != shape[::-1]:
            width, height = picture.seen.size
            raise ValueError(f"expected {shape[1]} x {shape[0]} pixels, as at the start, found {width} x {height}")
        if not label:
            return picture.where(self.labels(picture.seen))
        runs = class_runs(picture)
        return [(label, runs)] if len(runs) else []

    def labels(self, seen: Seen) -> dict[int, int]:
        """{value: label} in a mask of all classes. Raises ValueError if a value is of no class."""
        if seen.see_through:
            raise ValueError(
                f"expected opaque pixels, found {seen.see_through:,} that are not; paint what is transparent, and save "
                "it without alpha"
            )
        found = {value: self._label(value, seen) for value in seen.counts}
        if None in found.values():
            raise ValueError(self._no_class(seen, [value for value, label in found.items() if label is None]))
        return {value: label for value, label in found.items() if label is not None}

    def _label(self, value: int, seen: Seen) -> int | None:
        if seen.kind is not Kind.COLORS and value == self.ignored:
            return IGNORED
        if seen.kind is Kind.COLORS or (seen.kind is Kind.PALETTE and self.by_color):
            color = seen.colors.get(value)
            return self.palette.index(color) if color in self.palette else None
        return value if value < len(self.palette) else None

    def _no_class(self, seen: Seen, bad: Sequence[int]) -> str:
        """What is wrong with values of no class."""
        names = {value: str(seen.colors[value] if seen.kind is Kind.COLORS else value) for value in bad}
        bad = sorted(bad, key=lambda value: (-seen.counts[value], len(names[value]), names[value]))
        found = [f"{names[value]} in {seen.counts[value]:,} pixels" for value in bad[:SHOWN]]
        if others := bad[SHOWN:]:
            found.append(f"{len(others):,} others in {sum(seen.counts[value] for value in others):,} pixels")
        if seen.kind is Kind.COLORS:
            colors = f"{', '.join(map(str, self.palette[: SHOWN + 1]))}{', ...' * (len(self.palette) > SHOWN + 1)}"
            return f"expected colours of classes ({colors}), found {', '.join(found)}; {NO_PHOTOS}"
        text = f"expected values of 0 to {len(self.palette) - 1}, one for each class, found {', '.join(found)}"
        value = IGNORED if IGNORED in bad else bad[0]
        if self.ignored is not None or len(self.palette) > IGNORED or (value != IGNORED and len(bad) > 1):
            return f"{text}; a file for --classes may list more classes"
        text += f"; if {value} stands for no class, --ignore_index {value} leaves these pixels out"
        if set(seen.counts) <= {0, 255}:
            text += f"; a mask of one class is called NAME{EACH_CLASS['classes']}CLASS.png"
        return text


def class_runs(picture: LabelPicture) -> Runs:
    """Runs of the class that a class mask (black and white) or a cut-out (where it is opaque) shows.

    Raises:
        ValueError: the picture is neither.
    """
    seen = picture.seen
    white = {value: int(seen.colors.get(value) == WHITE) for value in seen.counts}
    odd = [seen.colors.get(value, value) for value in seen.counts if seen.colors.get(value) not in (BLACK, WHITE)]
    if seen.see_through or (odd and seen.has_alpha):
        return picture.opaque
    if odd:
        raise ValueError(f"expected black and white, found {odd[0]}; save the mask without smoothing")
    found = picture.where(white)
    return found[0][1] if found else np.zeros((0, 2), np.int64)


def decode(content: bytes) -> LabelPicture:
    """Decode a PNG.

    Raises:
        ValueError: it is none, is damaged, or is of a kind that no labels are.
    """
    if not content.startswith(png.SIGNATURE):
        raise ValueError(f"expected a PNG, found {_other_kind(content)}")
    try:
        # Texts do not matter, and may be too long for Pillow.
        with Image.open(BytesIO(png.without_texts(content)), formats=("PNG",)) as image:
            bits, kind = content[24:26] if content[12:16] == b"IHDR" else (16, 0)
            if bits == 16:
                raise ValueError("expected at most 8 bits for a value, found 16; save it with 8 bits")
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError("expected one picture, found an animation; save one frame of it")
            with _one_large if image.width * image.height > LARGE else nullcontext():
                image.load()
                return _decoded(image, 255 // (2**bits - 1) if kind == 0 else 1)
    except Image.DecompressionBombError as error:
        pixels, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
        raise ValueError(f"expected at most {limit:,} pixels, found {pixels:,}") from error
    except UnidentifiedImageError as error:
        raise ValueError("expected a PNG, found one whose header cannot be read") from error
    except ValueError:
        raise
    except Exception as error:  # Pillow raises whatever a broken file provokes
        raise ValueError(f"expected a PNG, found one that cannot be decoded ({error})") from error


def _other_kind(content: bytes) -> str:
    try:
        with Image.open(BytesIO(content)) as image:
            return f"a {image.format} picture; save it as PNG, if its values are still exact"
    except Exception:  # Pillow raises whatever it meets
        return unread_kind(content[:512], None, heif=False)


def _decoded(image: Image.Image, scale: int) -> LabelPicture:
    """Read a picture that is loaded, column by column.

    Args:
        image: to read.
        scale: by what Pillow has multiplied the values, to spread grey of fewer bits over 0 to 255.
    """
    kind = {"1": Kind.GREY, "L": Kind.GREY, "LA": Kind.GREY, "P": Kind.PALETTE}.get(image.mode, Kind.COLORS)
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        key = image.info["transparency"] = key * scale  # which Pillow has not multiplied
    has_alpha = image.mode in ("LA", "RGBA") or key is not None
    runs, values, opaque = [], [], []
    counts: Counter[int] = Counter()
    total = see_through = 0
    step = max(1, STRIP // image.height)
    for left in range(0, image.width, step):
        strip = image.crop((left, 0, min(left + step, image.width), image.height))
        own = _column_by_column(strip, kind, scale)
        found = _equal(own)
        total += len(found)
        if total > MOST_RUNS:
            raise ValueError(f"expected areas of equal values, found noise: more than {MOST_RUNS:,} runs of pixels")
        runs.append(found + left * image.height)
        values.append(own[found[:, 0]])
        names, position = np.unique(values[-1], return_inverse=True)
        if max(len(names), len(counts)) > MOST_COLORS:
            raise ValueError(f"expected colours of classes, found more than {MOST_COLORS:,} colours; {NO_PHOTOS}")
        sums = np.bincount(position.ravel(), found[:, 1] - found[:, 0], len(names))
        counts.update(dict(zip(names.tolist(), sums.astype(np.int64).tolist(), strict=True)))
        if has_alpha:
            alpha = np.asarray(strip.convert("RGBA").getchannel("A")).ravel(order="F")
            see_through += int(np.count_nonzero(alpha < 255))
            found = _equal(alpha >= OPAQUE_FROM)
            opaque.append(found[alpha[found[:, 0]] >= OPAQUE_FROM] + left * image.height)
    everything = np.array([[0, image.width * image.height]])
    return LabelPicture(
        Seen(
            image.size, kind, dict(sorted(counts.items())), _colors(image, counts, kind, scale), has_alpha, see_through
        ),
        np.concatenate(runs),
        np.concatenate(values).astype(np.uint32),
        np.concatenate(opaque) if has_alpha else everything,
    )


def _column_by_column(picture: Image.Image, kind: Kind, scale: int) -> NDArray[Any]:
    """The values of a picture, down the columns first."""
    if kind is Kind.COLORS:
        values = (
            np.asarray((picture if picture.mode == "RGB" else picture.convert("RGB")).convert("RGBX"))
            .view("<u4")[..., 0]
            .flatten(order="F")
        )
        values &= 2**24 - 1
        return values
    values = np.asarray(picture.convert("L") if picture.mode in ("1", "LA") else picture)
    return (values if scale == 1 else values // np.uint8(scale)).ravel(order="F")


def _colors(image: Image.Image, values: Iterable[int], kind: Kind, scale: int) -> dict[int, Color]:
    """{value: how it is shown}."""
    if kind is Kind.COLORS:
        return {value: (value & 255, value >> 8 & 255, value >> 16) for value in values}
    if kind is Kind.GREY:
        return {value: (value * scale, value * scale, value * scale) for value in values}
    flat = image.getpalette("RGB") or []
    return {at: (flat[3 * at], flat[3 * at + 1], flat[3 * at + 2]) for at in values if 3 * at + 2 < len(flat)}


def _equal(values: NDArray[Any]) -> Runs:
    """[start, end) of each run of equal values."""
    at = np.flatnonzero(values[1:] != values[:-1]) + 1
    ends = np.concatenate(([0], at, [len(values)]))
    return np.stack((ends[:-1], ends[1:]), axis=1)


class _File(NamedTuple):
    """A file of labels, by its name."""

    path: str  # below the folder
    photo: str  # name of the photo, without ending
    output: str  # of ``EACH_CLASS``; "" for a mask of all classes
    label: int  # class of a class mask or cut-out; 0 for a mask of all classes


class _Look(NamedTuple):
    """What a look at a file has found."""

    length: int = 0  # bytes
    digest: int = 0
    seen: Seen | None = None  # None: it cannot be decoded
    is_empty: bool = False
    error: str = ""


def scan_pngs(path: Path, classes: ClassSet, ignored: int | None = None) -> Scanned:
    """Index a folder of label PNGs, all of which are decoded, and tell what is wrong with some.

    A file's name is the photo's, with .png for its ending, or it has the name of a class too, as infer.py calls class
    masks and cut-outs.

    Args:
        path: the folder.
        classes: what values and colours mean.
        ignored: value of pixels that count nowhere; None: there is none.

    Raises:
        DataError: no file can be used.
    """
    found, faults = label_files(path, ".png")
    files, notes = _chosen([_named(file, classes) for file in found], faults)
    plain = PngFormat(classes.palette, ignored=ignored)
    looks = list(in_threads(lambda file: _look(path, file, plain), files, "labels", "file"))
    form, told = _format(files, looks, classes, plain)
    categories: Counter[str] = Counter()
    photos: dict[str, PhotoEntry] = {}
    for file, look in zip(files, looks, strict=True):
        labels, error = _labels(file, look, form)
        if error:
            faults.append(Fault("label PNGs that cannot be used", file.photo, f"{file.path}: {error}"))
        if look.seen is None:
            continue
        size = look.seen.size
        photo = photos.setdefault(file.photo, PhotoEntry(file.photo, *size, []))
        if size != (photo.width, photo.height):
            text = f"{file.path}: expected {photo.width} x {photo.height} pixels, found {size[0]} x {size[1]}"
            faults.append(Fault("class masks of another size than the photo's first", file.photo, text))
            continue
        categories.update(classes.names[label] for label in labels)
        number = category_number(classes.names[file.label]) if file.label else 0
        photo.instances.append(Entry(file.path, 0, look.length, 1, file.label, look.digest, number))
    if not photos:
        raise DataError(f"{path}: expected label PNGs that can be used, found none:\n{summary(faults)}")
    index = replace(make_index(path, form, list(photos.values())), masks_read=True, without_endings=True)
    return Scanned(index, faults, dict(categories), (*notes, *told))


def _named(path: str, classes: ClassSet) -> _File:
    name = path[: -len(".png")]
    words = [plain(word) for word in classes.short_names]
    for output, between in EACH_CLASS.items():
        photo, _, word = name.rpartition(between)
        label = words.index(plain(word)) if plain(word) in words else 0
        if label and PurePosixPath(photo).name and not photo.endswith("/"):
            return _File(path, photo, output, label)
    return _File(path, name, "", 0)


def _chosen(files: Sequence[_File], faults: list[Fault]) -> tuple[list[_File], list[str]]:
    """The files to read of each photo, and notes on others."""
    photos: dict[str, dict[str, list[_File]]] = {}
    for file in files:
        photos.setdefault(file.photo, {}).setdefault(file.output, []).append(file)
    kept: list[_File] = []
    left_out: list[str] = []
    for photo, outputs in photos.items():
        first = next(output for output in ("", "classes", "cutout") if output in outputs)
        kept += outputs[first] if first else outputs[first][:1]
        for other in outputs[first][1:] if not first else ():
            text = f"{outputs[first][0].path}, {other.path}"
            faults.append(Fault("photos with several label PNGs", photo, text))
        left_out += [file.path for output, several in outputs.items() if output != first for file in several]
    told = "class masks or cut-outs that are left out, since there is a mask of all classes, or a class mask"
    return kept, [counted({told: left_out}).strip()] if left_out else []


def _look(folder: Path, file: _File, plain: PngFormat) -> _Look:
    try:
        content = read_label_file(folder / file.path)
    except (ValueError, OSError) as error:
        return _Look(error=str(error))
    look = _Look(len(content), digest_of(content))
    try:
        picture = decode(content)
        look = look._replace(seen=picture.seen._replace(counts={}, colors={}))  # there may be many, as in a photo
        if file.output == "cutout" and not picture.seen.has_alpha:
            raise ValueError("expected a cut-out with alpha, found one without; save it as RGBA")
        if file.output == "classes" and picture.seen.has_alpha and picture.seen.see_through:
            raise ValueError("expected a class mask in black and white, found one with alpha; save it without")
        if file.output:
            look = look._replace(is_empty=not len(class_runs(picture)))
        elif picture.seen.kind is Kind.COLORS:
            plain.labels(picture.seen)
        look = look._replace(seen=picture.seen)
    except ValueError as error:
        return look._replace(error=str(error))
    return look


def _format(
    files: Sequence[_File], looks: Sequence[_Look], classes: ClassSet, plain: PngFormat
) -> tuple[PngFormat, list[str]]:
    """How palette PNGs are to be read, and a note where that is not plain.

    Colours tell the class if all that are used, in all files, are those of classes, and differ where values do.
    """
    foreign, of_others, differing = [], [], []
    is_any = False
    for file, look in zip(files, looks, strict=True):
        if look.seen is None or file.output or look.seen.kind is not Kind.PALETTE or look.seen.see_through:
            continue
        is_any = True
        used = {value: look.seen.colors.get(value) for value in look.seen.counts if value != plain.ignored}
        # Some programs write palettes of one colour only, which tells nothing.
        if any(color not in classes.palette for color in used.values()) or len({*used.values()}) < len(used):
            foreign.append(file.path)
            if len({*used.values()}) == len(used) and any(len({*color}) > 1 for color in used.values() if color):
                of_others.append(file.path)
        elif any(value >= len(classes) or classes.palette[value] != color for value, color in used.items()):
            differing.append(file.path)
    by_color = is_any and not foreign
    told = "palette PNGs whose colours are those of other classes than their values; "
    told += (
        "colours are taken, as all are those of classes"
        if by_color
        else f"values are taken, as not all colours are those of classes ({', '.join(foreign[:SHOWN])})"
    )
    told_of_others = (
        "palette PNGs whose colours are not those of the classes, so that values are taken (is it --classes?)"
    )
    notes = counted({told: differing} if differing else {told_of_others: of_others}).strip()
    return replace(plain, by_color=by_color), [notes] if notes else []


def _labels(file: _File, look: _Look, form: PngFormat) -> tuple[list[int], str]:
    """The classes in a file, and what is wrong with it."""
    if look.seen is None or look.error:
        return [], look.error
    if file.output:
        return [] if look.is_empty else [file.label], ""
    try:
        labels = form.labels(look.seen)
    except ValueError as error:
        return [], str(error)
    return sorted(set(labels.values()) - {0, ignored_label(len(form.palette))}), ""
