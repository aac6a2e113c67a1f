"""Folders of photos: what is in them, and where the mask of each photo goes."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple


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
    mask would be called like a sub-folder, and so do a.jpg and a_cutout_upper.jpg, if "_cutout_upper" is one of the
    ``endings`` that other files have which are made of a.jpg.
    """
    others = tuple(f"{ending}.png" for ending in endings)

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
        for name in (name for name in count if name.endswith(others)):
            shorter = next(name.removesuffix(other) + ".png" for other in others if name.endswith(other))
            if shorter in count:
                several |= {name, shorter}
        del count
        meet = (
            [number for number, mask in enumerate(masks) if str(mask).lower() in several and mask != whole(number)]
            if several
            else []
        )
        if not meet:
            return masks
        for number in meet:
            masks[number] = whole(number)
