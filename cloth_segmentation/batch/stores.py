"""Folders on disks and in buckets: one way to list, read and write them."""

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cloth_segmentation.command.script import one_line
from cloth_segmentation.errors import RunError
from cloth_segmentation.files import atomic_path
from cloth_segmentation.photos import is_address

WEB = ("http", "https", "ftp")
"""Kinds of addresses that name no file system; they are never fetched."""


@dataclass(frozen=True)
class Store:
    """A folder or file of a file system. It can be sent to other processes.

    Errors of all methods are ``OSError``, whatever the file system.
    """

    system: Any  # pyarrow.fs.FileSystem
    path: str  # in the file system, without a slash at its end
    address: str  # as people write it

    def __truediv__(self, name: str) -> "Store":
        return Store(self.system, posixpath.join(self.path, name), f"{self.address.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def local(self) -> Path | None:
        """The path on this machine; None: it is elsewhere."""
        return Path(self.path) if self.system.type_name == "local" else None

    def kind(self) -> str:
        """What is there: "file", "folder" or ""."""
        from pyarrow.fs import FileType

        with _as_os_error():
            found = self.system.get_file_info(self.path).type
        return {FileType.File: "file", FileType.Directory: "folder"}.get(found, "")

    def files(self) -> list[str]:
        """Paths of the files below, relative to this one, in order; hidden ones, and those in hidden folders, not."""
        from pyarrow.fs import FileSelector, FileType

        with _as_os_error():
            below = self.system.get_file_info(FileSelector(self.path, allow_not_found=True, recursive=True))
        names = (posixpath.relpath(info.path, self.path) for info in below if info.type == FileType.File)
        return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))

    def read(self) -> bytes:
        """The content of a file."""
        with _as_os_error():
            if self.local:
                return self.local.read_bytes()
            with self.system.open_input_stream(self.path) as file:
                content: bytes = file.read()
                return content

    @contextmanager
    def opened(self, *, seek: bool = False) -> Iterator[Any]:
        """A file to read from, as a binary file of Python; with ``seek`` at any place."""
        with _as_os_error():
            opened = self.system.open_input_file(self.path) if seek else self.system.open_input_stream(self.path)
            with opened as file:
                yield file

    def write(self, content: bytes) -> None:
        """Write a file whole, or not at all."""
        with _as_os_error():
            if self.local:
                with atomic_path(self.local) as part:
                    part.write_bytes(content)
                return
            with self.system.open_output_stream(self.path) as file:  # a bucket shows it once it is closed
                file.write(content)

    def delete(self) -> None:
        """Delete a file."""
        with _as_os_error():
            self.system.delete_file(self.path)


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise OSError for whatever a file system raises."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # fsspec's file systems raise what their makers' libraries do
        raise OSError(f"{type(error).__name__}: {error}") from error


def words_of(error: OSError) -> str:
    """What an error of a file system says, in one line."""
    return error.strerror or one_line(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))


def open_store(address: str) -> Store:
    """The folder or file of a path or an address. Raises RunError if there is no file system for it."""
    if not is_address(address):
        from pyarrow.fs import LocalFileSystem

        return Store(LocalFileSystem(), str(Path(address).absolute()), address)
    scheme, _, rest = address.partition("://")
    root, slash, path = rest.partition("?")[0].partition("/")
    query = "?" + rest.partition("?")[2] if "?" in rest else ""
    system, base = _system(scheme.lower(), root + query)
    whole = posixpath.join(base, path).rstrip("/") if path else base
    return Store(system, whole, f"{scheme}://{root}{slash}{path}".rstrip("/"))


@lru_cache(maxsize=256)
def _system(scheme: str, root: str) -> tuple[Any, str]:
    """A file system, and the path of its root (a bucket). Raises RunError."""
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    address = f"{scheme}://{root}"
    if scheme in WEB:
        raise RunError(
            f"{address}: expected a path or the address of a bucket, found a web address, which is not fetched"
        )
    try:
        try:
            return FileSystem.from_uri(address)  # type: ignore[no-any-return]
        except ValueError:  # ArrowInvalid: no file system of its own
            import fsspec

            system, path = fsspec.core.url_to_fs(address)
            return PyFileSystem(FSSpecHandler(system)), path
    except ImportError as error:
        raise RunError(f"{address}: expected a file system for {scheme}://, found none ({error})") from error
    except ValueError as error:
        raise RunError(
            f"{address}: expected a path or an address such as s3://, gs:// or az://, found one that is not known "
            f"({error})"
        ) from error
    except OSError as error:
        raise RunError(f"{address}: expected a bucket that can be reached, found none ({words_of(error)})") from error


def safe_path(key: str) -> str | None:
    """The path below a folder that a photo's key stands for; None: it stands for none.

    Keys come from archives and tables, whose content is not to be trusted. Of an address, the bucket is the first
    folder.
    """
    path = key.partition("://")[2] if is_address(key) else key
    parts = path.strip("/").split("/")
    fits = all(
        part not in ("", ".", "..") and len(part.encode()) <= MOST_BYTES and part.isprintable() for part in parts
    )
    return "/".join(parts) if fits else None


MOST_BYTES = 200
"""Of a part of a key: names of pictures are longer, and file systems take 255."""
