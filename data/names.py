"""Names of photos, as people and programs spell them."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

ENDINGS = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
"""Endings of pictures that Pillow reads, in small letters."""

SAME_ENDING = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}


class Spelling(NamedTuple):
    """What all spellings of a name have in common."""

    stem: str  # composed (Unicode NFC), case folded, without the ending of a picture
    ending: str  # .jpg for all of a kind; "" for none of a picture


def spelling(name: str) -> Spelling:
    """The spelling of a name, with or without folders."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    stem, dot, ending = composed.rpartition(".")
    if dot + ending not in ENDINGS:
        return Spelling(composed, "")
    return Spelling(stem, SAME_ENDING.get(dot + ending, dot + ending))


def files_meant(names: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Files that may be meant by names which are not there as they are written.

    They differ in the case of letters, in the composition of accents, or in .jpeg for .jpg; or the name has no ending,
    or folders before it that are not there. Each folder is listed once.

    Args:
        names: paths below ``folder``.
        folder: of the photos.

    Returns:
        {name: paths below ``folder``}, for those names that have any, in order.
    """
    places: dict[tuple[str, ...], Path] = {}
    by_place: dict[Path, dict[str, list[tuple[str, str]]]] = {}  # {folder: {stem: (ending, name)}}
    for name in names:
        *folders, last = PurePosixPath(name.replace("\\", "/")).parts or (name,)
        before = tuple(folders)
        if before not in places:
            places[before] = next(place for place in _places(before) if (folder / place).is_dir())
        stem, ending = spelling(last)
        by_place.setdefault(places[before], {}).setdefault(stem, []).append((ending, name))
    found: dict[str, list[str]] = {}
    for place, by_stem in by_place.items():
        with suppress(OSError), os.scandir(folder / place) as entries:  # one that cannot be listed holds none
            for entry in entries:
                stem, kind = spelling(entry.name)
                for ending, name in by_stem.get(stem, ()):
                    if ending in ("", kind) and (folder / place / entry.name).is_file():
                        found.setdefault(name, []).append((place / entry.name).as_posix())
    return {name: sorted(found[name]) for name in names if name in found}


def _places(folders: tuple[str, ...]) -> Iterator[Path]:
    """A path of folders, and what is left of it without the first ones; at last that of none."""
    return (Path(*folders[start:]) for start in range(len(folders) + 1))
