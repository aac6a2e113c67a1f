"""A look at every photo and mask before they are needed: it takes minutes where a failure would come after days."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from data import DataError, rle
from data.annotations import Annotations
from data.faults import Fault
from data.photos import Size, stored_sizes

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
        sizes = pool.map(lambda name: _size_or_problem(image_folder / name), annotations.names.tolist())
        numbers = tqdm(range(len(annotations)), "check", unit="photo", leave=False, dynamic_ncols=True)
        for number, found in zip(numbers, sizes, strict=True):
            faults += _photo_faults(annotations, number, found)
            faults += _mask_faults(annotations, number)
    return faults


def _size_or_problem(path: Path) -> tuple[Size, Size] | str:
    if not path.is_file():
        return ""
    try:
        return stored_sizes(path)
    except (DataError, OSError) as error:
        return str(error)


def _photo_faults(annotations: Annotations, number: int, found: tuple[Size, Size] | str) -> Iterator[Fault]:
    name = str(annotations.names[number])
    if found == "":
        yield Fault("photos that are not there", name, name)
    elif isinstance(found, str):
        yield Fault("photos that cannot be opened", name, found)
    else:
        wanted = int(annotations.widths[number]), int(annotations.heights[number])
        if wanted in found:
            return
        swapped = ", Width and Height swapped" if wanted[::-1] in found else ""
        yield Fault(
            "photos of another size than the rows say",
            name,
            f"{name}: expected {wanted[0]} x {wanted[1]} (Width x Height), found {found[1][0]} x {found[1][1]}"
            + swapped,
        )


def _mask_faults(annotations: Annotations, number: int) -> Iterator[Fault]:
    photo = annotations[number]
    lines = annotations.lines[annotations.first[number] : annotations.first[number + 1]]
    for line, (_, mask) in zip(lines, photo.instances, strict=True):
        try:
            rle.parse(mask, (photo.height, photo.width))
        except ValueError as error:
            yield Fault("masks that cannot be read", photo.name, f"line {line} ({photo.name}): {error}")
