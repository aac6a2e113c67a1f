"""Files of a folder of labels, and a look at each of them in threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from data.faults import Fault

READERS = 8
"""Threads that open files: on a network disk, most of the time goes into waiting."""

LARGEST = 2**28
"""Bytes of a file of labels; the largest ones, JSON files that hold their photo, have some ten million."""

Item = TypeVar("Item")
Seen = TypeVar("Seen")


def in_threads(action: Callable[[Item], Seen], items: Sequence[Item], title: str, unit: str) -> Iterator[Seen]:
    """What an action gives for each item, in order, under a progress bar."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from tqdm(pool.map(action, items), title, total=len(items), unit=unit, leave=False, dynamic_ncols=True)


def label_files(folder: Path, ending: str) -> tuple[list[str], list[Fault]]:
    """Files below a folder whose names end so, in any case, in order of their names; hidden ones are left out.

    Links to folders are followed, but into no folder twice.

    Returns:
        Paths below the folder, with slashes, and folders that cannot be listed.
    """
    files: list[str] = []
    faults: list[Fault] = []

    def tell(error: OSError) -> None:
        text = f"{error.filename}: expected a folder that can be listed, found none ({error.strerror})"
        faults.append(Fault("folders of labels that cannot be read", "", text))

    seen = set()
    for place, folders, names in os.walk(folder, onerror=tell, followlinks=True):
        status = Path(place).stat()
        before = Path(place).relative_to(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        wanted = [name for name in names if name.lower().endswith(ending) and not name.startswith(".")]
        files += [(before / name).as_posix() for name in wanted]
    return sorted(files), faults


def read_label_file(path: Path) -> bytes:
    """The content of a file of labels.

    Raises:
        ValueError: it is none, or too large.
        OSError: it cannot be read.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ValueError("expected a file, found something else, or a link that leads nowhere")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"expected a file of at most {LARGEST:,} bytes, found {size:,}")
    return path.read_bytes()
