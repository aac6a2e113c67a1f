"""Folders of photos: what is in them, and where the mask of each photo goes."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from cloth_segmentation.errors import DataError


class Problem(NamedTuple):
    """A photo, or what might have been one, that nothing can be done for."""

    photo: Path
    reason: str  # what was expected, what was found


class Listing(NamedTuple):
    """What a folder holds, in order of the names."""

    files: list[Path]  # which may be photos
    problems: list[Problem]  # all else


def list_photos(source: Path, output: Path | None = None) -> Listing:
    """The files of a folder and its sub-folders, or one file; hidden ones are left out.

    Args:
        source: the folder or file.
        output: a folder that is left out too.
    """
    listing = Listing([], [])
    left_out = output.stat() if output and output.is_dir() else None
    waiting = [source]  # the next one last; functions that call themselves give up before file systems do
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat() if path is source and path.is_dir() else path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                if reason := _no_file(path, status.st_mode):
                    listing.problems.append(Problem(path, reason))
                else:
                    listing.files.append(path)
            elif left_out is None or not os.path.samestat(status, left_out):
                inside = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
                waiting += sorted(inside, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            reason = f"expected a file or folder that can be opened, found one that cannot be ({error.strerror})"
            listing.problems.append(Problem(path, reason))
    return listing


_OTHERS = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
"""What is no file, and would be waited for if it were opened."""


def _no_file(path: Path, mode: int) -> str:
    """Why a path, whose own mode is given, leads to no file; empty if it does."""
    link = ""
    if stat.S_ISLNK(mode):
        link = "link to a "
        try:
            mode = path.stat().st_mode
        except OSError as error:
            ends = {errno.ENOENT: "leads nowhere", errno.ELOOP: "leads in a circle"}
            return f"expected a photo, found a link that {ends.get(error.errno or 0, f'fails ({error.strerror})')}"
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISDIR(mode):
        return "expected a photo, found a link to a folder, which is not followed"
    return f"expected a photo, found a {link}{_OTHERS.get(stat.S_IFMT(mode), 'thing that is no file')}"


def mask_paths(files: Sequence[Path], folder: Path, output: Path, endings: tuple[str, ...] = ()) -> list[Path]:
    """Where the mask of each file of a folder goes: the same sub-folder and name, ending in .png.

    Files that differ in their ending only, a.jpg and a.webp, keep it: a.jpg.png and a.webp.png. So does a file whose
    mask would be called like a sub-folder. And so do a.jpg and a_cutout_upper.jpg, if "_cutout_upper.png" is one of the
    ``endings`` of other files that are made of a.jpg; of these, none is called like a sub-folder either.

    Raises:
        DataError: files without an ending would still meet.
    """

    def whole(number: int) -> Path:
        path = files[number]
        return output / path.relative_to(folder).with_name(path.name + ".png")

    masks = [output / path.relative_to(folder).with_suffix(".png") for path in files]
    folders = {mask.parent for mask in masks}
    folders = folders.union(*(folder.parents for folder in folders))
    while True:
        # Some file systems take A.png and a.png for one.
        count = Counter(str(path).lower() for path in chain(masks, folders))
        several = {name for name, times in count.items() if times > 1}
        for name, made_of in _made(count, endings):
            several |= {name, made_of}
        del count
        meet = (
            [number for number, mask in enumerate(masks) if str(mask).lower() in several and mask != whole(number)]
            if several
            else []
        )
        if not meet:
            break
        for number in meet:
            masks[number] = whole(number)
    for one, other in _made(dict.fromkeys(map(str, masks)), endings) if several else ():
        raise DataError(
            f"expected photos whose files have names of their own, found {Path(one).stem} and {Path(other).stem} in "
            f"{folder}; rename one"
        )
    return masks


def _made(names: Collection[str], endings: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Names that are also those of a file made of another one, and the mask of that one."""
    for name in names:
        if name.endswith(endings):
            made_of = next(name.removesuffix(ending) + ".png" for ending in endings if name.endswith(ending))
            if made_of in names:
                yield name, made_of
