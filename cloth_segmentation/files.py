"""Writing files so that a crash never leaves half of one."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes the name ``path`` only once it is whole.

    The folder is made if need be. On an error the temporary file is removed and ``path`` stays as it was.

    Args:
        path: the file.
        previous: another name in the same folder, which the file that ``path`` was before takes. At any moment one
            of the two is whole and on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A short name, since that of the file may be as long as a file system allows.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)  # mkstemp makes files that only their owner can read
        if previous is not None and path.exists():
            path.replace(previous)
        part.replace(path)
        _flush_folder(path.parent)
    except BaseException:
        with suppress(OSError):  # what went wrong is said, not that its folder is gone
            part.unlink(missing_ok=True)
        raise


def check_folder(folder: Path) -> None:
    """Make a folder if need be. Raises OSError if it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def check_output(path: Path, begins: bytes) -> None:
    """See before long work that a file can be written, and will replace nothing but an earlier one of its kind.

    Args:
        path: the file.
        begins: what such files begin with.

    Raises:
        OSError: it cannot be written, or something else has its name.
    """
    check_folder(path.parent)
    if not path.exists():
        return
    if not path.is_file():
        raise FileExistsError(errno.EEXIST, "something that is no file has that name", str(path))
    with path.open("rb") as file:
        found = file.read(len(begins))
    if found not in (b"", begins):
        raise FileExistsError(errno.EEXIST, "another file has that name, which is not replaced", str(path))


def _flush_folder(folder: Path) -> None:
    """Make sure that a new name outlives a power failure, where the system lets folders be opened and flushed."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def known_kind(begin: bytes) -> str:
    """Recognise a file that is often mistaken for a photo or weights, by its first bytes; "" if it is none of these."""
    if not begin:
        return "an empty file"
    if begin.startswith(b"version https://git-lfs."):
        return "a Git LFS pointer, which stands for the file; git lfs pull fetches it"
    if begin.lstrip()[:1] == b"<" and b"<svg" not in begin:
        return "a web page, as a download gives that needs a browser; fetch the file itself"
    return ""


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()
