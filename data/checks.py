"""A look at every photo and mask before they are needed: it takes minutes where a failure would come after days."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from cloth_segmentation.command.script import blame
from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import another_size
from data import rle
from data.annotations import Annotations, scan
from data.faults import Fault, summary

READERS = 8
"""Threads that open photos: on a network disk, most of the time goes into waiting."""


class Checked(NamedTuple):
    """Photos with their rows, and what is wrong with either."""

    photos: Annotations  # all, also those that cannot be used
    faults: list[Fault]
    report: str  # the faults in words, for people

    @property
    def bad(self) -> set[str]:
        """Names of the photos that have a fault."""
        return {fault.photo for fault in self.faults}


def read_checked(
    csv: tuple[str, str],
    folder: tuple[str, str],
    most: int | None = None,
    once: Callable[[Callable[[], list[Fault]]], list[Fault]] = lambda action: action(),
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
        faults += once(lambda: check_photos(photos, Path(folder[1])))
    expected = f"{' '.join(csv)}: expected rows and photos without fault, found in {folder[1]}"
    return Checked(photos, faults, f"{expected}\n{summary(faults)}")


def check_photos(annotations: Annotations, image_folder: Path) -> list[Fault]:
    """What is wrong with the photos of an index, and with the masks of clothes.

    Of a photo only the header is read, so one that is cut off passes. Masks of other categories are not read.

    Raises:
        DataError: there is no such folder, or the index's file is gone.
    """
    if not image_folder.is_dir():
        raise DataError(f"{image_folder}: expected the folder of the photos, found none")
    faults: list[Fault] = []
    with ThreadPoolExecutor(READERS) as pool:
        photos = pool.map(lambda number: _photo_faults(annotations, number, image_folder), range(len(annotations)))
        progress = tqdm(photos, "check", total=len(annotations), unit="photo", leave=False, dynamic_ncols=True)
        for number, found in enumerate(progress):
            faults += found
            faults += _mask_faults(annotations, number)
    return faults


def _photo_faults(annotations: Annotations, number: int, image_folder: Path) -> list[Fault]:
    name = str(annotations.names[number])
    wanted = int(annotations.widths[number]), int(annotations.heights[number])
    path = image_folder / name
    try:
        if not path.is_file():
            return [Fault("photos that are not there", name, repr(name))]
        found = another_size(path, wanted)
    except (DataError, OSError, MemoryError) as error:
        return [Fault("photos that cannot be opened", name, str(error))]
    if found is None:
        return []
    swapped = ", Height and Width swapped" if found == wanted[::-1] else ""
    text = f"{name}: expected {wanted[0]} x {wanted[1]} (Width x Height), found {found[0]} x {found[1]}{swapped}"
    return [Fault("photos of another size than the rows say", name, text)]


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
