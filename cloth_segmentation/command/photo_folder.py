"""Folders of photos and what they hold."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from cloth_segmentation.command.problems import Problem
from cloth_segmentation.command.script import one_line

OTHER_NAMES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
"""Files that desktops leave in folders, in small letters. Those of macOS and Linux are hidden."""

OTHER_ENDINGS = frozenset(
    (
        *(".txt", ".md", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".xmp"),
        *(".aae", ".url", ".lnk", ".htm", ".html", ".css", ".js", ".py", ".ipynb", ".sh", ".bat", ".exe", ".pdf"),
        *(".doc", ".docx", ".odt", ".rtf", ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".zip", ".tar", ".gz", ".tgz"),
        *(".bz2", ".xz", ".7z", ".rar", ".npy", ".npz", ".pkl", ".pickle", ".parquet", ".db", ".sqlite", ".h5", ".mat"),
        *(".pth", ".pt", ".ckpt", ".onnx", ".safetensors", ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv"),
        *(".mpg", ".mpeg", ".3gp", ".mts", ".flv", ".mp3", ".m4a", ".wav", ".ogg", ".flac", ".aac"),
    )
)
"""Endings of names of files that are plainly no photos, in small letters."""


class Listing(NamedTuple):
    """What a folder holds, in order of the names."""

    files: list[Path]  # which may be photos
    problems: list[Problem]  # what is no file, or cannot be opened
    others: list[Path]  # files that are no photos by their names, and are left out


def list_photos(source: Path, output: Path | None = None) -> Listing:
    """The files of a folder and its sub-folders, or one file, whatever its name; hidden ones are left out.

    Args:
        source: the folder or file.
        output: a folder that is left out too.
    """
    listing = Listing([], [], [])
    left_out = output.stat() if output and output.is_dir() else None
    waiting = [source]  # the next one last; functions that call themselves give up before file systems do
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat() if path is source and path.is_dir() else path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                if path is not source and is_other(path):
                    listing.others.append(path)
                elif reason := _no_file(path, status.st_mode):
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


def is_other(path: PurePath) -> bool:
    """Whether a file is no photo by its name."""
    return path.name.lower() in OTHER_NAMES or path.suffix.lower() in OTHER_ENDINGS


NAMED = 3
"""Files that a message names of many."""


def first_names(files: Sequence[PurePath | str]) -> str:
    """Files in a message: 5 files (a.txt, b.txt, c.txt, ...)."""
    names = listed([PurePath(path).name for path in files[: NAMED + 1]])
    return f"{len(files)} file{'s' * (len(files) != 1)} ({names})"


def listed(names: Sequence[str]) -> str:
    """The first of some names in a message: a.txt, b.txt, c.txt, ..."""
    return ", ".join([*map(one_line, names[:NAMED]), *["..."] * (len(names) > NAMED)])


_NO_FILES = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
"""What is no file, and would be waited for if it were opened."""


def _no_file(path: Path, mode: int) -> str:
    """Why a path with this mode (``lstat``) leads to no file; "" if it leads to one."""
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
    return f"expected a photo, found a {link}{_NO_FILES.get(stat.S_IFMT(mode), 'thing that is no file')}"
