"""A look at every photo and mask before they are needed: it takes minutes where a failure would come after days."""

from collections import Counter
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
from data.faults import SHOWN, Fault, counted, summary
from data.names import files_meant

READERS = 8
"""Threads that open photos: on a network disk, most of the time goes into waiting."""


class Looked(NamedTuple):
    """What a look at the photos has found."""

    faults: list[Fault]
    renamed: dict[str, str]  # {name in the rows: name of the file that is meant}, where they differ
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
    photos = replace(photos.renamed(looked.renamed), upright=looked.upright)
    faults = _renamed(faults, looked.renamed) + looked.faults
    expected = f"{' '.join(csv)}: expected rows and photos without fault, found in {folder[1]}"
    notes = "\n".join(f"{' '.join(csv)}: {note}" for note in looked.notes)
    return Checked(photos, faults, f"{expected}\n{summary(faults)}", notes)


def check_photos(annotations: Annotations, image_folder: Path) -> Looked:
    """Look at the photos of an index, and at the masks of clothes.

    Of a photo only the header is read, so one that is cut off passes. Masks of other categories are not read.

    Raises:
        DataError: there is no such folder, or the index's file is gone.
    """
    if not image_folder.is_dir():
        raise DataError(f"{image_folder}: expected the folder of the photos, found none")
    found: list[Fit | Fault | None] = []
    faults: list[Fault] = []
    for number, look in enumerate(_looks(annotations, range(len(annotations)), image_folder)):
        found.append(look)
        faults += _mask_faults(annotations, number)
    missing = [number for number, look in enumerate(found) if look is None]
    renamed: dict[str, str] = {}
    if missing:
        renamed, hints = _find(annotations.names.tolist(), missing, image_folder)
        for number, look in zip(missing, _looks(annotations.renamed(renamed), missing, image_folder), strict=True):
            name = str(annotations.names[number])
            found[number] = look or Fault("photos that are not there", name, repr(name) + hints.get(name, ""))
    faults = _renamed([look for look in found if isinstance(look, Fault)] + faults, renamed)

    fits: dict[Fit, list[str]] = {fit: [] for fit in Fit}
    for name, look in zip(annotations.renamed(renamed).names.tolist(), found, strict=True):
        if isinstance(look, Fit):
            fits[look].append(name)
    upright, note = _drawn_upright(fits)
    spelled = {
        "photos whose files are called otherwise than in the rows": [" -> ".join(pair) for pair in renamed.items()]
    }
    return Looked(faults, renamed, upright, [text.strip() for text in (counted(spelled), note) if text])


def _renamed(faults: Sequence[Fault], names: Mapping[str, str]) -> list[Fault]:
    return [fault._replace(photo=names.get(fault.photo, fault.photo)) for fault in faults]


def _find(names: Sequence[str], missing: Sequence[int], image_folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The files that are meant by photos which are missing, and hints at files where it is not plain which is meant."""
    candidates = files_meant([names[number] for number in missing], image_folder)
    meant = Counter(names) + Counter(file for files in candidates.values() for file in files)
    renamed = {name: files[0] for name, files in candidates.items() if len(files) == 1 and meant[files[0]] == 1}
    hints = {name: f" (is it {' or '.join(files[:SHOWN])}?)" for name, files in candidates.items()}
    return renamed, hints


class Fit(Enum):
    """What the size of a photo tells of how its masks were drawn."""

    ALIKE = auto()  # EXIF does not turn it
    UPRIGHT = auto()  # on the photo as EXIF turns it
    STORED = auto()  # on the photo as it is stored
    EITHER = auto()  # EXIF turns it, and keeps its size: by 180 degrees, as in a mirror, or since it is square


def _looks(annotations: Annotations, numbers: Sequence[int], image_folder: Path) -> Iterator[Fit | Fault | None]:
    """What a look at each photo tells; None for one that is not there."""
    with ThreadPoolExecutor(READERS) as pool:
        looks = pool.map(lambda number: _look(annotations, number, image_folder), numbers)
        yield from tqdm(looks, "check", total=len(numbers), unit="photo", leave=False, dynamic_ncols=True)


def _look(annotations: Annotations, number: int, image_folder: Path) -> Fit | Fault | None:
    name = str(annotations.names[number])
    wanted = int(annotations.widths[number]), int(annotations.heights[number])
    path = image_folder / name
    try:
        if not path.is_file():
            return None
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
