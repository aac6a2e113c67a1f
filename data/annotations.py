"""The index over ``train.csv``: which photos there are, and where in the file their masks lie.

iMaterialist's file has 330 thousand masks in over a gigabyte of text. The index keeps the position of each mask
in the file instead of its text: it is read in one pass, holds a few megabytes of arrays, and costs a data loading
worker next to nothing; a mask is read when its photo is.
"""

import csv
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloth_segmentation.errors import DataError
from data.categories import CATEGORIES, class_of
from data.faults import Fault, summary
from data.other_formats import other_format, packed_beside

csv.field_size_limit(2**31 - 1)  # a mask may have more characters than the module's default allows

COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId")


LONGEST_NAME = 255
"""Bytes that the name of a file may have on most systems. The index keeps all names at the length of the longest."""


class Photo(NamedTuple):
    """What the index knows of a photo."""

    name: str
    height: int  # pixels
    width: int  # pixels
    instances: list[tuple[int, str]]  # (category id, run-length encoded mask), in the order of the file


@dataclass(frozen=True)
class Annotations:
    """Photos in the order in which the file names them first. Instances are those of clothes classes only.

    Instances of photo i are ``first[i]`` to ``first[i + 1]`` of ``offsets``, ``lengths`` and ``categories``.
    """

    path: Path
    names: NDArray[np.str_]  # (P,)
    heights: NDArray[np.int32]  # (P,) pixels
    widths: NDArray[np.int32]  # (P,) pixels
    digests: NDArray[np.uint64]  # (P,) of size, masks and categories: other labels have another one
    first: NDArray[np.int64]  # (P + 1,)
    offsets: NDArray[np.int64]  # (I,) bytes from the start of the file to the mask
    lengths: NDArray[np.int64]  # (I,) bytes of the mask
    lines: NDArray[np.int32]  # (I,) of the file, from 1
    categories: NDArray[np.uint8]  # (I,) ids of clothes
    upright: bool = True
    """Masks fit photos as EXIF turns them; False: as they are stored. For photos whose size fits either way."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Photo:
        """Photo ``index`` with its masks, read from the file.

        Raises:
            DataError: the file is no longer there.
        """
        span = slice(self.first[index], self.first[index + 1])
        instances = []
        try:
            with self.path.open("rb") as file:
                for offset, length, category in zip(
                    self.offsets[span], self.lengths[span], self.categories[span], strict=True
                ):
                    file.seek(offset)
                    instances.append((int(category), file.read(length).decode("ascii", errors="replace")))
        except OSError as error:
            raise DataError(
                f"{self.path}: expected the annotations that were there at the start, found none that can be read "
                f"({error.strerror})"
            ) from error
        return Photo(str(self.names[index]), int(self.heights[index]), int(self.widths[index]), instances)

    def select(self, photos: NDArray[np.int64]) -> "Annotations":
        """The same index with these photos only, in this order."""
        counts = np.diff(self.first)[photos]
        first = np.concatenate(([0], np.cumsum(counts)))
        instances = np.repeat(self.first[photos] - first[:-1], counts) + np.arange(first[-1])
        return replace(
            self,
            names=self.names[photos],
            heights=self.heights[photos],
            widths=self.widths[photos],
            digests=self.digests[photos],
            first=first,
            offsets=self.offsets[instances],
            lengths=self.lengths[instances],
            lines=self.lines[instances],
            categories=self.categories[instances],
        )

    def renamed(self, names: Mapping[str, str]) -> "Annotations":
        """The same index, with new names in the place of some."""
        if not names:
            return self
        return replace(self, names=np.array([names.get(name, name) for name in self.names.tolist()], dtype=np.str_))

    def without(self, names: Collection[str]) -> NDArray[np.int64]:
        """Numbers of the photos but those of these names."""
        return np.flatnonzero([name not in names for name in self.names.tolist()])

    def faults_of(self, faults: Sequence[Fault]) -> list[Fault]:
        """Those that spoil these photos."""
        names = set(self.names.tolist())
        return [fault for fault in faults if fault.photo in names]

    def head(self, photos: int) -> "Annotations":
        """The same index with at most the first ``photos`` photos."""
        return self.select(np.arange(min(photos, len(self))))


def read_annotations(path: Path) -> Annotations:
    """Index a CSV in the format of iMaterialist (Fashion) 2019.

    Columns: ImageId, EncodedPixels, Height, Width, ClassId, in any order and among others; one row an instance.
    ClassId may carry attributes after an underscore, which are not used.

    Raises:
        DataError: the file is not in this format; the message names the first lines and counts the others.
        OSError: the file cannot be read.
    """
    annotations, faults = scan(path)
    if faults:
        raise DataError(f"{path}: expected rows without fault, found\n{summary(faults)}")
    return annotations


def scan(path: Path, most: int | None = None) -> tuple[Annotations, list[Fault]]:
    """Index the rows of a CSV that can be used, and tell what is wrong with the others.

    Masks are not looked at. The format is that of ``read_annotations``.

    Args:
        path: the CSV.
        most: look at no more than this number of photos, the first ones.

    Raises:
        DataError: there is no such file, or nothing in it that can be used.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        beside = packed_beside(path)
        raise DataError(
            f"{path}: expected annotations in the format of iMaterialist (Fashion) 2019, found no such file"
            + (f", but {beside}" if beside else "")
        )
    if other := other_format(path, COLUMNS):
        raise DataError(f"{path}: expected annotations as CSV, in plain text, found {other}")
    faults: list[Fault] = []
    table = pd.DataFrame(_rows(path, faults), columns=_Row._fields)
    if table.empty and not faults:
        raise DataError(f"{path}: expected one row for each instance, found only a header")
    for column, wanted in (("height", "Height"), ("width", "Width"), ("category", "ClassId")):
        lowest, highest = (0, len(CATEGORIES) - 1) if column == "category" else (1, 2**31 - 1)
        numbers = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
        good = numbers.between(lowest, highest) & (numbers % 1 == 0)
        for line, name, found in table.loc[~good, ["line", "name", column]].itertuples(index=False):
            text = f"line {line}: expected a whole number from {lowest} to {highest}, found {found[:40]!r}"
            faults.append(Fault(f"rows with a wrong {wanted}", name, text))
        table, numbers = table[good], numbers[good]
        table = table.assign(**{column: numbers.astype(np.int64)})

    repeats = table.duplicated([name for name in _Row._fields if name not in ("line", "offset")])
    for line, name in table.loc[repeats, ["line", "name"]].itertuples(index=False):
        faults.append(Fault("rows that repeat another", "", f"line {line} ({name})", harmless=True))
    table = table[~repeats]
    if table.empty:
        raise DataError(f"{path}: expected rows that can be used, found none:\n{summary(faults)}")

    photo, names = pd.factorize(table["name"])
    table = table.assign(photo=photo)
    photos = table.drop_duplicates("photo")
    for column, wanted in (("height", "Height"), ("width", "Width")):
        first = photos[column].to_numpy()[photo]
        odd = table[column].to_numpy() != first
        for line, name, found, before in zip(
            *(table.loc[odd, key] for key in ("line", "name", column)), first[odd], strict=True
        ):
            text = f"line {line} ({name}): found {found}, and {before} before"
            faults.append(Fault(f"rows with another {wanted} than the photo's first row", name, text))

    is_clothes = np.array([class_of(category) > 0 for category in range(len(CATEGORIES))])
    clothes = table[is_clothes[table["category"]]].sort_values("photo", kind="stable")
    first_instance = np.searchsorted(clothes["photo"].to_numpy(), np.arange(len(names) + 1))
    index = Annotations(
        path=path,
        names=np.array(names, dtype=np.str_),
        heights=photos["height"].to_numpy(np.int32),
        widths=photos["width"].to_numpy(np.int32),
        digests=_digests(photos, clothes, first_instance),
        first=first_instance,
        offsets=clothes["offset"].to_numpy(np.int64),
        lengths=clothes["length"].to_numpy(np.int64),
        lines=clothes["line"].to_numpy(np.int32),
        categories=clothes["category"].to_numpy(np.uint8),
    )
    if most is None:
        return index, faults
    first = index.head(most)
    return first, first.faults_of(faults)


def _digests(photos: pd.DataFrame, clothes: pd.DataFrame, first: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Digests of the photos' labels (P,); the order of a photo's instances does not count."""
    sizes = photos["height"].to_numpy(np.uint64) << np.uint64(32) | photos["width"].to_numpy(np.uint64)
    # Odd factors tell the categories apart, also where two instances swap theirs. Sums go round at 2**64.
    factors = 2 * clothes["category"].to_numpy(np.uint64) + np.uint64(1)
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(clothes["digest"].to_numpy(np.uint64) * factors)))
    digests: NDArray[np.uint64] = sums[first[1:]] - sums[first[:-1]] + sizes
    return digests


class _Row(NamedTuple):
    line: int
    name: str
    height: str
    width: str
    category: str
    offset: int  # of the mask, bytes from the start of the file
    length: int  # of the mask, bytes
    digest: int  # of the mask; equal masks have equal ones


def _rows(path: Path, faults: list[Fault]) -> Iterator[_Row]:
    """Yield each row that has its fields; the others become faults."""
    with path.open("rb") as file:
        header = [_text(name).strip() for name in _fields(file.readline().removeprefix(b"\xef\xbb\xbf"))]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise DataError(
                f"{path}: expected the columns {', '.join(COLUMNS)}, separated by commas, in UTF-8, found "
                f"{', '.join(header)[:80]!r} in the first line; {', '.join(missing)} missing"
            )
        name, mask, height, width, category = (header.index(column) for column in COLUMNS)
        offset = file.tell()
        for number, line in enumerate(file, start=2):
            if line.strip():
                fields = _fields(line)
                before = sum(map(len, fields[:mask])) + mask  # fields and commas; quotes may add to it
                photo = _text(fields[name]) if len(fields) > name else ""
                start = line.find(fields[mask], before) if len(fields) == len(header) else 0
                if len(fields) != len(header):
                    text = f"line {number}: expected {len(header)} fields, found {len(fields)}"
                    faults.append(Fault("rows with another number of fields than the header", photo, text))
                elif photo in ("", "nan") or "\0" in photo or len(fields[name]) > LONGEST_NAME:
                    faults.append(Fault("rows without ImageId", "", f"line {number}: found {photo[:40]!r}"))
                elif start < 0:
                    faults.append(Fault("rows with quotes inside a mask", photo, f"line {number}"))
                else:
                    yield _Row(
                        number,
                        photo,
                        _text(fields[height]),
                        _text(fields[width]),
                        _text(fields[category].split(b"_", 1)[0]),
                        offset + start,
                        len(fields[mask]),
                        int.from_bytes(hashlib.blake2b(fields[mask], digest_size=8).digest(), "little"),
                    )
            offset += len(line)


def _text(field: bytes) -> str:
    # Bytes that are no UTF-8 come through, as they do in the names of files.
    return field.decode(errors="surrogateescape")


def _fields(line: bytes) -> list[bytes]:
    """Fields of one line. Quotes are rare in this format, and splitting is ten times as fast as the csv module."""
    line = line.rstrip(b"\r\n")
    if b'"' in line:
        try:
            return [field.encode(errors="surrogateescape") for field in next(csv.reader([_text(line)]))]
        except csv.Error:
            return []
    return line.split(b",")
