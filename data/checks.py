"""A look at every photo and mask before they are needed: it takes minutes where a failure would come after days."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import another_size
from data import rle
from data.annotations import Annotations
from data.faults import Fault

READERS = 8
"""Threads that open photos: on a network disk, most of the time goes into waiting."""


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
