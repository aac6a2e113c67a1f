"""Folders on disks and in buckets: one way to list, read and write them."""

import posixpath
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from cloth_segmentation.command.script import one_line
from cloth_segmentation.errors import RunError
from cloth_segmentation.files import atomic_path
from cloth_segmentation.photos import is_address

WEB = ("http", "https", "ftp")
"""Kinds of addresses that name no file system; they are never fetched."""

BUCKETS = ("s3", "gs", "gcs")
"""Kinds of addresses that begin with the name of a bucket, which pyarrow reaches by itself."""

QUERY = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=30", "gcs": "retry_limit_seconds=30"}
"""What is asked of file systems beyond what an address asks: a small file in one request; an end of trying again."""

RETRIES = (1.0, 4.0)
"""Seconds before a file of a bucket is tried again, beyond what the file system tries by itself."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Store:
    """A folder or file of a file system. It can be sent to other processes.

    With it go the region, the endpoint, also one of ``AWS_ENDPOINT_URL``, and what the query of the address says. Of
    the credentials, only those in the address go along (``s3://KEY:SECRET@bucket/path``); those of environment
    variables, files and roles are looked up by each process anew. So on a cluster, each machine needs them.

    Errors of all methods are ``OSError``, whatever the file system.
    """

    system: Any  # pyarrow.fs.FileSystem
    path: str  # in the file system, without a slash at its end
    address: str  # as people write it, without query and credentials

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

    @property
    def folder(self) -> "Store":
        """The folder that this lies in."""
        return Store(self.system, self.path.rpartition("/")[0] or "/", self.address.rpartition("/")[0])

    @property
    def root(self) -> "Store":
        """The bucket, or what else is first in the path."""
        root, above = self.path.partition("/")[0], self.path.count("/")
        return Store(self.system, root, self.address.rsplit("/", above)[0])

    def is_below(self, other: "Store") -> bool:
        """Whether this is the other one, or lies in it, as far as their paths tell."""
        if self.system.type_name != other.system.type_name:
            return False
        paths = [store.local.resolve().as_posix() if store.local else store.path for store in (self, other)]
        return f"{paths[0]}/".startswith(f"{paths[1].rstrip('/')}/")

    def kind(self) -> str:
        """What is there: "file", "folder", "other" (on disks: a pipe, a device), or ""."""
        from pyarrow.fs import FileType

        with _as_os_error():
            found = self.system.get_file_info(self.path).type
        return {FileType.File: "file", FileType.Directory: "folder", FileType.Unknown: "other"}.get(found, "")

    def files(self) -> list[str]:
        """Paths of the files below, relative to this one, in order; hidden ones, and those in hidden folders, not."""
        from pyarrow.fs import FileSelector, FileType

        with _as_os_error():
            below = self.system.get_file_info(FileSelector(self.path, allow_not_found=True, recursive=True))
        begin = len(self.path) + 1  # buckets hold names such as a//b, which would lose a slash as paths
        names = (info.path[begin:] for info in below if info.type == FileType.File)
        return sorted(name for name in names if not HIDDEN.search(name))

    def read(self) -> bytes:
        """The content of a file."""
        return self._again(self._read)

    def _read(self) -> bytes:
        with _as_os_error():
            if self.local:
                return self.local.read_bytes()
            with self.system.open_input_stream(self.path) as file:
                content: bytes = file.read()
                return content

    def _again(self, do: Callable[[], Value]) -> Value:
        """Do something that may fail because a network or a server does, several times."""
        for wait in (*RETRIES, None):
            try:
                return do()
            except OSError as error:
                lasting = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | FileExistsError)
                if wait is None or self.local or lasting or LASTING.search(str(error)):
                    raise
                time.sleep(wait)
        raise AssertionError

    @contextmanager
    def opened(self, *, seek: bool = False) -> Iterator[Any]:
        """A file to read from, as a binary file of Python; with ``seek`` at any place."""
        with _as_os_error():
            opened = self.system.open_input_file(self.path) if seek else self.system.open_input_stream(self.path)
            with opened as file:
                yield file

    def write(self, content: bytes) -> None:
        """Write a file whole, or not at all."""
        self._again(lambda: self._write(content))

    def _write(self, content: bytes) -> None:
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


HIDDEN = re.compile(r"(^|/)\.(?!\.?(/|$))")
"""A hidden part of a path."""

LASTING = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|HTTP status 4(?!08|29)\d\d"
)
"""What errors say that stay, however often it is tried. HTTP's 408 and 429 mean too slow and too much, for now."""


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
    text = re.sub(r" ?\(Request ID: [^)]*\)", "", str(error).strip())
    return error.strerror or one_line(text.splitlines()[0] if text else repr(error))


def open_store(address: str) -> Store:
    """The folder or file of a path or an address. Raises RunError if there is no file system for it."""
    from pyarrow.fs import LocalFileSystem

    if not is_address(address):
        return Store(LocalFileSystem(), str(Path(address).absolute()), address)
    scheme, _, rest = address.partition("://")
    scheme, (place, _, query) = scheme.lower(), rest.partition("?")
    root, slash, path = place.partition("/")
    shown = f"{scheme}://{root.rpartition('@')[2]}"
    if "://" not in address:
        raise RunError(f"{address}: expected an address with two slashes, as in s3://, found one")
    if scheme in WEB:
        raise RunError(
            f"{shown}: expected a path or the address of a bucket, found a web address, which is not fetched; download "
            "the files first"
        )
    if scheme == "file":
        if root:
            raise RunError(f"{address}: expected file:/// and a whole path, found {root!r} in the place of a machine")
        return Store(LocalFileSystem(), str(Path("/", path)), address)
    if scheme in BUCKETS and not root:
        raise RunError(f"{address}: expected the name of a bucket after {scheme}://, found none")
    if scheme == "memory":
        raise RunError(f"{shown}: expected a place that all processes share, found the memory of one")
    more = QUERY.get(scheme, "")
    asked = "&".join(filter(None, (query, "" if more.partition("=")[0] in query else more)))
    system, base = _system(scheme, f"{scheme}://{root}{'?' * bool(asked)}{asked}", shown)
    whole = f"{base}/{path}".rstrip("/") if path else base
    return Store(system, whole, f"{shown}{slash}{path}".rstrip("/"))


@lru_cache(maxsize=256)
def _system(scheme: str, address: str, shown: str) -> tuple[Any, str]:
    """A file system, and the path of its root (a bucket).

    Args:
        scheme: of the address.
        address: of the root, with its query.
        shown: the same for messages, without what is secret.

    Raises:
        RunError: there is none.
    """
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        try:
            return FileSystem.from_uri(address)  # type: ignore[no-any-return]
        except ValueError as error:  # ArrowInvalid
            if "Unrecognized filesystem type" not in str(error):
                raise
            import fsspec

            system, path = fsspec.core.url_to_fs(address)
            return PyFileSystem(FSSpecHandler(system)), path.rstrip("/")
    except ImportError as error:
        raise RunError(
            f"{shown}: expected a file system for {scheme}://, found none ({error}); pip install what it names, on all "
            "machines"
        ) from error
    except OSError as error:
        raise RunError(f"{shown}: expected a bucket that can be reached, found none ({words_of(error)})") from error
    except Exception as error:  # fsspec's file systems raise what their makers' libraries do
        words = one_line(str(error)).replace(address, shown)
        raise RunError(
            f"{shown}: expected a path or an address such as s3://, gs:// or az://, found one that cannot be used "
            f"({words})"
        ) from error


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
