"""Which photos are held out for validation: by their own names, and the same as long as a run goes on."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloth_segmentation.errors import DataError
from cloth_segmentation.files import atomic_path
from data.annotations import Annotations
from data.faults import counted
from data.names import spelling

COLUMNS = ["ImageId", "side", "labels"]
SIDES = ["training", "validation"]


class Sides(NamedTuple):
    """The side of each photo, and what is known of photos that are no longer there."""

    held_out: NDArray[np.bool_]  # (P,) in the order of the photos
    gone: dict[str, bool]  # name -> held out
    said: str = ""  # what has changed since the record, for people


class Recorded(NamedTuple):
    """What a record says of a photo."""

    held_out: bool
    labels: str  # digest; "" for a photo that was gone


def held_out_by_name(names: Sequence[str], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which photos are held out: about ``fraction`` of them, each by chance that its name and the seed alone decide.

    Neither the ending of a name nor its case counts. With a larger fraction, more photos join those held out.
    """
    words = (f"{seed} {spelling(name).stem}".encode(errors="surrogateescape") for name in names)
    numbers = [int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "big") for word in words]
    return np.array(numbers, dtype=np.float64) < fraction * 2.0**64


def choose_sides(photos: Annotations, fraction: float, seed: int, record: Path | None = None) -> Sides:
    """The side of each photo: that of the record, else the one that its name gives.

    Args:
        photos: of the run.
        fraction: share of them to hold out.
        seed: of the choice.
        record: of the run that goes on, as ``write_sides`` left it; None for a run that begins.

    Raises:
        DataError: the record cannot be read.
    """
    names: list[str] = photos.names.tolist()
    held_out = held_out_by_name(names, fraction, seed)
    if record is None:
        return Sides(held_out, {})
    if not record.exists():
        return Sides(held_out, {}, _unrecorded(record) if held_out.any() else "")
    before = _read(record)
    by_name = held_out.copy()
    added, relabelled = [], []
    for number, (name, labels) in enumerate(zip(names, _digests(photos), strict=True)):
        known = before.get(name)
        if known is not None:
            held_out[number] = known.held_out
        if known is None or not known.labels:
            added.append(name)
        elif known.labels != labels:
            relabelled.append(name)
    there = set(names)
    gone = {name: known.held_out for name, known in before.items() if name not in there}
    changes = {
        "photos added": added,
        "photos gone": [name for name in gone if before[name].labels],
        "photos relabelled": relabelled,
    }
    trained_on = photos.names[~held_out].tolist()
    same_draws = trained_on == [name for name, known in before.items() if known.labels and not known.held_out]
    return Sides(held_out, gone, _in_words(changes, same_draws, int((held_out != by_name).sum())))


def write_sides(path: Path, photos: Annotations, sides: Sides) -> None:
    """Write the record that ``choose_sides`` reads: name, side and digest of the labels of each photo.

    Raises:
        OSError: it cannot be written.
    """
    rows = zip(photos.names.tolist(), sides.held_out.tolist(), _digests(photos), strict=True)
    with atomic_path(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((name, SIDES[held_out], labels) for name, held_out, labels in rows)
        writer.writerows((name, SIDES[held_out], "") for name, held_out in sides.gone.items())


def _digests(photos: Annotations) -> list[str]:
    return [f"{number:016x}" for number in photos.digests.tolist()]


def _read(path: Path) -> dict[str, Recorded]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            recorded = {name: Recorded(bool(SIDES.index(side)), labels) for name, side, labels in rows}
    except (ValueError, csv.Error):
        header = []
    if header != COLUMNS:
        raise DataError(
            f"{path}: expected the photos of this run and their sides, found a file that is damaged; without it "
            "(delete it) photos are held out by their names"
        )
    return recorded


def _unrecorded(path: Path) -> str:
    return (
        f"{path}: expected the sides that the photos had in this run, found none, as an earlier version began it. "
        "Photos are held out by their names from here on. Some of them were trained on: the IoU is flattered."
    )


def _in_words(changes: dict[str, list[str]], same_draws: bool, kept: int) -> str:
    lines = []
    if any(changes.values()):
        lines.append(f"Photos have changed since this run was last started:\n{counted(changes)}")
        lines.append("Those that stay are trained on, or held out, as before.")
    if not same_draws:
        lines.append("Training photos, or their order, have changed: from here on others are drawn than without that.")
    if kept:
        lines.append(
            f"{kept:,} photos are trained on, or held out, as since they joined this run; --val_fraction and --seed "
            "as they are now decide for new photos only."
        )
    return "\n".join(lines)
