"""The index over ``train.csv``: which photos there are, and where in the file their masks lie.

iMaterialist's file has 330 thousand masks in over a gigabyte of text. The index keeps the position of each mask
in the file instead of its text: it is read in one pass, holds a few megabytes of arrays, and costs a data loading
worker next to nothing; a mask is read when its photo is.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data import DataError
from data.classes import CATEGORIES, class_of

COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId")


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
    first: NDArray[np.int64]  # (P + 1,)
    offsets: NDArray[np.int64]  # (I,) bytes from the start of the file to the mask
    lengths: NDArray[np.int64]  # (I,) bytes of the mask
    categories: NDArray[np.uint8]  # (I,) ids of clothes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Photo:
        """Photo ``index`` with its masks, read from the file."""
        span = slice(self.first[index], self.first[index + 1])
        instances = []
        with self.path.open("rb") as file:
            for offset, length, category in zip(
                self.offsets[span], self.lengths[span], self.categories[span], strict=True
            ):
                file.seek(offset)
                instances.append((int(category), file.read(length).decode("ascii", errors="replace")))
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
            first=first,
            offsets=self.offsets[instances],
            lengths=self.lengths[instances],
            categories=self.categories[instances],
        )

    def head(self, photos: int) -> "Annotations":
        """The same index with at most the first ``photos`` photos."""
        return self.select(np.arange(min(photos, len(self))))

    def split(self, fraction: float, seed: int) -> tuple["Annotations", "Annotations"]:
        """(training, held-out) photos: ``fraction`` of them held out, by chance but the same for one seed."""
        held_out = round(len(self) * fraction)
        order = np.random.default_rng(seed).permutation(len(self))
        return self.select(np.sort(order[held_out:])), self.select(np.sort(order[:held_out]))


def read_annotations(path: Path) -> Annotations:
    """Index a CSV in the format of iMaterialist (Fashion) 2019.

    Columns: ImageId, EncodedPixels, Height, Width, ClassId, in any order and among others; one row an instance.
    ClassId may carry attributes after an underscore, which are not used.

    Raises:
        DataError: the file is not in this format; the message names the line.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: expected annotations in the format of iMaterialist (Fashion) 2019, found no such file"
        )
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path}: expected one row for each instance, found only a header")
    table = pd.DataFrame(rows, columns=["line", "name", "height", "width", "category", "offset", "length"])
    for column in ("height", "width", "category"):
        lowest, highest = (0, len(CATEGORIES) - 1) if column == "category" else (1, 2**31 - 1)
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = ~(numbers.between(lowest, highest) & (numbers % 1 == 0))
        if bad.any():
            line, found = table.loc[bad.idxmax(), ["line", column]]
            raise DataError(
                f"{path}, line {line}: {column}: expected a whole number from {lowest} to {highest}, found {found!r}"
            )
        table[column] = numbers.astype(np.int64)

    photo, names = pd.factorize(table["name"])
    table["photo"] = photo
    photos = table.drop_duplicates("photo")
    for column in ("height", "width"):
        odd = table[column].to_numpy() != photos[column].to_numpy()[photo]
        if odd.any():
            row = table[odd].iloc[0]
            raise DataError(
                f"{path}, line {row['line']}: expected one {column} for all instances of {row['name']}, "
                f"found {row[column]} here and another before"
            )

    is_clothes = np.array([class_of(category) > 0 for category in range(len(CATEGORIES))])
    clothes = table[is_clothes[table["category"]]].sort_values("photo", kind="stable")
    return Annotations(
        path=path,
        names=np.array(names, dtype=np.str_),
        heights=photos["height"].to_numpy(np.int32),
        widths=photos["width"].to_numpy(np.int32),
        first=np.searchsorted(clothes["photo"].to_numpy(), np.arange(len(names) + 1)),
        offsets=clothes["offset"].to_numpy(np.int64),
        lengths=clothes["length"].to_numpy(np.int64),
        categories=clothes["category"].to_numpy(np.uint8),
    )


def _rows(path: Path) -> Iterator[tuple[int, str, str, str, str, int, int]]:
    """Yield (line number, name, height, width, category, byte offset of the mask, its length) of each row."""
    with path.open("rb") as file:
        header = [
            name.strip().decode(errors="replace") for name in _fields(file.readline().removeprefix(b"\xef\xbb\xbf"))
        ]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise DataError(
                f"{path}: expected the columns {', '.join(COLUMNS)}, found {', '.join(header)[:80]!r} "
                f"in the first line; {', '.join(missing)} missing"
            )
        name, mask, height, width, category = (header.index(column) for column in COLUMNS)
        offset = file.tell()
        for number, line in enumerate(file, start=2):
            if line.strip():
                fields = _fields(line)
                if len(fields) != len(header):
                    raise DataError(f"{path}, line {number}: expected {len(header)} fields, found {len(fields)}")
                before = sum(map(len, fields[:mask])) + mask  # fields and commas; quotes may add to it
                yield (
                    number,
                    fields[name].decode(errors="replace"),
                    fields[height].decode(errors="replace"),
                    fields[width].decode(errors="replace"),
                    fields[category].split(b"_", 1)[0].decode(errors="replace"),
                    offset + line.index(fields[mask], before),
                    len(fields[mask]),
                )
            offset += len(line)


def _fields(line: bytes) -> list[bytes]:
    """Fields of one line. Quotes are rare in this format, and splitting is ten times as fast as the csv module."""
    line = line.rstrip(b"\r\n")
    if b'"' in line:
        return [field.encode() for field in next(csv.reader([line.decode(errors="replace")]))]
    return line.split(b",")
