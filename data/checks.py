"""A look at every photo and mask before they are needed: it takes minutes where a failure would come after days."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from cloth_segmentation.command.script import blame
from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import read_sizes
from data import rle
from data.annotations import Annotations, scan
from data.faults import Fault, counted, summary

READERS = 8
"""Threads that open photos: on a network disk, most of the time goes into waiting."""


class Looked(NamedTuple):
    """What a look at the photos has found."""

    faults: list[Fault]
    upright: bool  # as in ``Annotations``
    notes: list[str]  # what people should know though it is no fault


class Checked(NamedTuple):
    """Photos with their rows, and what is wrong with either."""

    photos: Annotations  # all, also those that cannot be used
    faults: list[Fault]
    report: str  # the faults in words, for people
    notes: str  # more for people; "" for nothing

    @property
    def bad(self) -> set[str]:
        """Names of the photos that have a fault."""
        return {fault.photo for fault in self.faults}


def read_checked(
    csv: tuple[str, str],
    folder: tuple[str, str],
    most: int | None = None,
    once: Callable[[Callable[[], Looked]], Looked] = lambda action: action(),
) -> Checked:
    """Read a CSV of annotations, and look at all photos and masks.

    Args:
        csv: its path, after the flag that named it.
        folder: that of the photos, after its flag.
        most: read only the first photos.
        once: runs a look at the photos for all processes of a run.

    Raises:
        RunError: the CSV or the folder cannot be read.
    """
    with blame(csv[0], DataError):
        photos, faults = scan(Path(csv[1]), most)
    with blame(folder[0], DataError):
        looked = once(lambda: check_photos(photos, Path(folder[1])))
    faults += looked.faults
    expected = f"{' '.join(csv)}: expected rows and photos without fault, found in {folder[1]}"
    notes = "\n".join(f"{' '.join(csv)}: {note}" for note in looked.notes)
    return Checked(replace(photos, upright=looked.upright), faults, f"{expected}\n{summary(faults)}", notes)


def check_photos(annotations: Annotations, image_folder: Path) -> Looked:
    """Look at the photos of an index, and at the masks of clothes.

    Of a photo only the header is read, so one that is cut off passes. Masks of other categories are not read.

    Raises:
        DataError: there is no such folder, or the index's file is gone.
    """
    if not image_folder.is_dir():
        raise DataError(f"{image_folder}: expected the folder of the photos, found none")
    faults: list[Fault] = []
    fits: dict[Fit, list[str]] = {fit: [] for fit in Fit}
    with ThreadPoolExecutor(READERS) as pool:
        photos = pool.map(lambda number: _look(annotations, number, image_folder), range(len(annotations)))
        progress = tqdm(photos, "check", total=len(annotations), unit="photo", leave=False, dynamic_ncols=True)
        for number, found in enumerate(progress):
            if isinstance(found, Fault):
                faults.append(found)
            elif found is not Fit.ALIKE:
                fits[found].append(str(annotations.names[number]))
            faults += _mask_faults(annotations, number)
    upright, note = _drawn_upright(fits)
    return Looked(faults, upright, [note] if note else [])


class Fit(Enum):
    """What the size of a photo tells of how its masks were drawn."""

    ALIKE = auto()  # EXIF does not turn it
    UPRIGHT = auto()  # on the photo as EXIF turns it
    STORED = auto()  # on the photo as it is stored
    EITHER = auto()  # EXIF turns it, and keeps its size: by 180 degrees, as in a mirror, or since it is square


def _look(annotations: Annotations, number: int, image_folder: Path) -> Fit | Fault:
    name = str(annotations.names[number])
    wanted = int(annotations.widths[number]), int(annotations.heights[number])
    path = image_folder / name
    try:
        if not path.is_file():
            return Fault("photos that are not there", name, repr(name))
        stored, upright, turned = read_sizes(path, wanted)
    except (DataError, OSError, MemoryError) as error:
        return Fault("photos that cannot be opened", name, str(error))
    if wanted not in (stored, upright):
        swapped = ", Height and Width swapped" if upright == wanted[::-1] else ""
        text = f"{name}: expected {wanted[0]} x {wanted[1]} (Width x Height), found {upright[0]} x {upright[1]}"
        return Fault("photos of another size than the rows say", name, text + swapped)
    if not turned:
        return Fit.ALIKE
    if stored == upright:
        return Fit.EITHER
    return Fit.UPRIGHT if wanted == upright else Fit.STORED


def _drawn_upright(fits: Mapping[Fit, Sequence[str]]) -> tuple[bool, str]:
    """Whether masks were drawn on upright photos, by those photos that tell, and a note on the others; "" for none."""
    upright, stored = len(fits[Fit.UPRIGHT]), len(fits[Fit.STORED])
    decision = upright >= stored
    if not fits[Fit.EITHER] or (upright and not stored):
        return decision, ""
    taken = "upright" if decision else "as they are stored"
    kind = f"photos taken {taken}, though EXIF turns or mirrors them at the same size, so that masks fit either way"
    told = f"Masks of {upright:,} other photos fit upright only, of {stored:,} as stored only."
    reason = told if upright or stored else "No other photo tells which is meant."
    remedy = "remove the EXIF tag (exiftool -Orientation= PHOTO)" if decision else "turn the photo's own pixels"
    return decision, f"{counted({kind: fits[Fit.EITHER]}).strip()}\n  {reason} Where that is wrong, {remedy}."


def _mask_faults(annotations: Annotations, number: int) -> Iterator[Fault]:
    photo = annotations[number]
    lines = annotations.lines[annotations.first[number] : annotations.first[number + 1]]
    for line, (_, mask) in zip(lines, photo.instances, strict=True):
        if not mask.strip():
            yield Fault("masks that are empty", photo.name, f"line {line} ({photo.name})")
            continue
        try:
            rle.parse(mask, (photo.height, photo.width))
        except ValueError as error:
            yield Fault("masks that cannot be read", photo.name, f"line {line} ({photo.name}): {error}")
