"""Labels in the CSV of iMaterialist (Fashion), editions 2019 and 2020: one row an instance, run-length encoded."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import trange

from cloth_segmentation.classes import ClassSet, plain
from cloth_segmentation.errors import DataError
from data import rle
from data.annotations import LONGEST_NAME, Annotations, Scanned, category_number, digest_of, index_of
from data.categories import CATEGORIES, category_id
from data.faults import Fault, summary
from data.label_map import IGNORED, is_small
from data.other_formats import other_format

csv.field_size_limit(2**31 - 1)  # a mask may have more characters than the module's default allows

COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId")


@dataclass(frozen=True)
class CsvFormat:
    """Masks as ``rle.parse`` reads them. See ``annotations.Format``."""

    unit: str = "line"
    drops_small: bool = True
    has_categories: bool = True

    def masks(self, content: bytes, label: int, shape: tuple[int, int]) -> Iterable[tuple[int, rle.Runs]]:
        return [(label, rle.parse(content.decode("ascii", errors="replace"), shape))]


def scan_csv(path: Path, classes: ClassSet) -> Scanned:
    """Index the rows of a CSV that can be used, and tell what is wrong with the others.

    Columns: ImageId, EncodedPixels, Height, Width, ClassId, in any order and among others. ClassId is the id of a
    category, maybe with attributes after an underscore, which are not used; or the name of one. Masks are not read.

    Raises:
        DataError: nothing in the file can be used.
        OSError: it cannot be read.
    """
    if other := other_format(path, COLUMNS):
        raise DataError(f"{path}: expected labels as CSV or JSON, in plain text, found {other}")
    faults: list[Fault] = []
    with pd.option_context("mode.string_storage", "python"):  # pyarrow's strings hold no names of other bytes
        table = pd.DataFrame(_rows(path, faults), columns=_Row._fields)
    if table.empty and not faults:
        raise DataError(f"{path}: expected one row for each instance, found only a header")
    for column, wanted in (("height", "Height"), ("width", "Width")):
        numbers = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
        good = numbers.between(1, 2**31 - 1) & (numbers % 1 == 0)
        for line, name, found in table.loc[~good, ["line", "name", column]].itertuples(index=False):
            text = f"line {line}: expected a whole number from 1 to {2**31 - 1}, found {found[:40]!r}"
            faults.append(Fault(f"rows with a wrong {wanted}", name, text))
        table, numbers = table[good], numbers[good]
        table = table.assign(**{column: numbers.astype(np.int64)})
    table = _with_categories(table, classes, faults)

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

    kept = table[table["label"] > 0].sort_values("photo", kind="stable")
    first_instance = np.searchsorted(kept["photo"].to_numpy(), np.arange(len(names) + 1))
    index = index_of(
        path,
        CsvFormat(),
        list(names),
        photos[["width", "height"]].to_numpy(),
        first_instance,
        offsets=kept["offset"],
        lengths=kept["length"],
        numbers=kept["line"],
        labels=kept["label"],
        digests=kept["digest"],
        categories=kept["number"],
    )
    return Scanned(index, faults, {str(name): int(count) for name, count in table["category"].value_counts().items()})


def _with_categories(table: pd.DataFrame, classes: ClassSet, faults: list[Fault]) -> pd.DataFrame:
    """The rows whose ClassId is one, with their categories' names, labels, and numbers for ``Annotations.digests``."""
    position, texts = pd.factorize(table["class_id"])
    found = [_category(str(text), classes) for text in texts]
    good = np.array([name is not None for name in found], dtype=bool)[position]
    for line, name, text in table.loc[~good, ["line", "name", "class_id"]].itertuples(index=False):
        expected = f"a whole number from 0 to {len(CATEGORIES) - 1}, or the name of a category"
        faults.append(
            Fault("rows with a wrong ClassId", name, f"line {line}: expected {expected}, found {text[:40]!r}")
        )
    numbers = [0 if name is None else category_number(name) for name in found]
    labels = [0 if name is None else classes.number_of(name) for name in found]
    known: pd.DataFrame = table.assign(
        category=np.array([name or "" for name in found], dtype=object)[position],
        number=np.array(numbers, dtype=np.uint64)[position],
        label=np.array(labels, dtype=np.uint8)[position],
    )[good]
    return known


def _category(text: str, classes: ClassSet) -> str | None:
    """The category that a ClassId names; None for none.

    A name is whatever is no number and has a letter. What it means is the class set's matter.
    """
    if plain(text) in classes.numbers_of_categories or category_id(text) is not None:
        return text.strip()
    number = text.split("_", 1)[0].strip()
    if number.isascii() and number.isdigit():
        number = number.lstrip("0") or "0"  # Python refuses to read a number of thousands of digits
        return CATEGORIES[int(number)] if len(number) < 9 and int(number) < len(CATEGORIES) else None
    try:
        float(text)  # "-1", "1e9", "nan"
    except ValueError:
        return text.strip() if len(text) <= LONGEST_NAME and any(map(str.isalpha, text)) else None
    return None


def class_id(category: str, classes: ClassSet) -> str:
    """What stands for a category in a CSV that is read with ``classes``: the id of iMaterialist's, or its name.

    Raises:
        ValueError: nothing does.
    """
    number = category_id(category)
    for text in ([] if number is None else [str(number)]) + [category.strip()]:
        found = _category(text, classes)
        if found is not None and plain(found) == plain(category) and _line([text]):
            return text
    raise ValueError(
        f"expected categories with names that a ClassId can be, found {category[:80]!r}; rename it in the labels (a "
        "number would be read as an id)"
    )


class Written(NamedTuple):
    """What became of labels that were written as CSV."""

    rows: int
    photos: int  # that have rows
    without: int  # photos without instances, which have no row
    small: int  # instances that the box rule drops on reading, and did not before
    ignored: int  # photos with pixels that belong to no class, and count as background on reading
    faults: list[Fault]  # of photos that are left out


def write_csv(path: Path, photos: Annotations, class_ids: Mapping[int, str]) -> Written:
    """Write labels as CSV.

    Args:
        path: the file.
        photos: those to write.
        class_ids: {label: ClassId}; instances of others are left out.

    Raises:
        DataError: the labels are no longer there.
        OSError: the file cannot be written.
    """
    rows = with_rows = without = small = ignored = 0
    faults = []
    with path.open("wb") as file:
        file.write(_line(COLUMNS))
        for number in trange(len(photos), desc="write", unit="photo", leave=False, dynamic_ncols=True):
            name, (width, height) = str(photos.names[number]), photos.size(number)
            try:
                masks = [(label, runs) for label, runs in photos[number].masks if len(runs)]
            except DataError:
                raise
            except ValueError as error:
                faults.append(Fault("masks that cannot be read", name, f"{name}: {error}"))
                continue
            if not _is_name(name) or not _line([name]):
                faults.append(Fault("photos whose names a CSV cannot hold", name, repr(name)))
                continue
            kept = [(class_ids[label], runs) for label, runs in masks if label in class_ids]
            # Rows that repeat another are a fault, though a harmless one.
            lines = dict.fromkeys(_line([name, rle.write(runs), height, width, own]) for own, runs in kept)
            file.writelines(lines)
            rows += len(lines)
            with_rows += bool(lines)
            without += not lines
            ignored += any(label == IGNORED and label not in class_ids for label, _ in masks)
            if not photos.format.drops_small:
                small += sum(is_small(runs, (height, width)) for _, runs in kept)
    return Written(rows, with_rows, without, small, ignored, faults)


def _line(fields: Sequence[object]) -> bytes:
    """One line of a CSV; nothing if ``_fields`` would read others."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    try:
        line = _bytes(text.getvalue())
        return line if b"\n" not in line[:-1] and _fields(line) == [_bytes(str(field)) for field in fields] else b""
    except UnicodeEncodeError:  # half of a character, as JSON can write it
        return b""


class _Row(NamedTuple):
    line: int
    name: str
    height: str
    width: str
    class_id: str
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
                elif not _is_name(photo):
                    faults.append(Fault("rows without ImageId", "", f"line {number}: found {photo[:40]!r}"))
                elif start < 0:
                    faults.append(Fault("rows with quotes inside a mask", photo, f"line {number}"))
                else:
                    yield _Row(
                        number,
                        photo,
                        _text(fields[height]),
                        _text(fields[width]),
                        _text(fields[category]),
                        offset + start,
                        len(fields[mask]),
                        digest_of(fields[mask]),
                    )
            offset += len(line)


def _is_name(photo: str) -> bool:
    return photo not in ("", "nan") and "\0" not in photo and len(_bytes(photo)) <= LONGEST_NAME


def _text(field: bytes) -> str:
    # Bytes that are no UTF-8 come through, as they do in the names of files.
    return field.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _fields(line: bytes) -> list[bytes]:
    """Fields of one line. Quotes are rare in this format, and splitting is ten times as fast as the csv module."""
    line = line.rstrip(b"\r\n")
    if b'"' in line:
        try:
            return [_bytes(field) for field in next(csv.reader([_text(line)]))]
        except csv.Error:
            return []
    return line.split(b",")
