"""Where photos come from: folders, buckets, Parquet files and tars, in units that a worker takes at once."""

import tarfile
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath
from tarfile import EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import Any, NamedTuple, NoReturn, Protocol

from PIL import Image

from cloth_segmentation.batch.stores import Store, open_store, words_of
from cloth_segmentation.command.photo_folder import first_names, is_other, list_photos
from cloth_segmentation.command.pipeline import ahead, in_batches
from cloth_segmentation.command.script import one_line
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.photos import Source, is_address

Entry = tuple[str, Callable[[], Source]]
"""A photo's key, and what gives its file, or raises what is wrong with it: DataError, OSError, MemoryError."""


class Unit(Protocol):
    """Photos that a worker takes at once. It can be sent to other processes."""

    def photos(self) -> Iterator[Entry]:
        """The photos, in an order that is always the same."""

    def known_keys(self) -> Iterable[str]:
        """Keys of the photos, as far as they are known without a look at them."""


class Done(frozenset[str]):
    """Keys of photos to leave out."""

    @cached_property
    def ordered(self) -> list[str]:
        """The keys in order, in which those of an archive lie side by side."""
        return sorted(self)


class Plan(NamedTuple):
    """What there is to do."""

    units: Iterable[Unit]
    photos: int | None  # how many are left, as far as that is known at once; None: only the tars know
    remarks: list[str]  # lines for people


TARS = (".tar", ".tar.gz", ".tgz")
"""Endings of archives of photos."""

IN_FLIGHT = 8
"""Files of a unit that are fetched from a bucket at once."""

LARGEST = 2**30
"""Bytes of a photo in a tar."""


@dataclass(frozen=True)
class Files:
    """Some files of a folder."""

    folder: Store
    names: tuple[str, ...]  # relative to the folder

    def photos(self) -> Iterator[Entry]:
        if (local := self.folder.local) is not None:
            for name in self.names:
                yield key_of(name), partial(Path, local / name)
        else:
            yield from _fetched([(key_of(name), (self.folder / name).read) for name in self.names])

    def known_keys(self) -> Iterable[str]:
        return map(key_of, self.names)


@dataclass(frozen=True)
class Addresses:
    """Files wherever they are."""

    table: Store  # the file that names them
    entries: tuple[tuple[str, str], ...]  # key, address

    def photos(self) -> Iterator[Entry]:
        yield from _fetched([(key, partial(_fetch_address, self.table, address)) for key, address in self.entries])

    def known_keys(self) -> Iterable[str]:
        return (key for key, _ in self.entries)


@dataclass(frozen=True)
class Refused:
    """Files that are known to be no photos, and why."""

    entries: tuple[tuple[str, str], ...]

    def photos(self) -> Iterator[Entry]:
        for key, reason in self.entries:
            yield key, partial(_refuse, reason)

    def known_keys(self) -> Iterable[str]:
        return (key for key, _ in self.entries)


class _Member(tarfile.TarInfo):
    """A member of a tar, whose damage is an error: tarfile takes it for the end of the tar."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:  # the end, as it should be
            raise
        except HeaderError as error:
            raise ReadError(f"{error or 'it ends early'}") from error


@dataclass(frozen=True)
class Tar:
    """An archive of photos. What is no picture by its name is passed over."""

    store: Store
    name: str
    done: frozenset[str] = field(default_factory=frozenset)  # keys to leave out

    def photos(self) -> Iterator[Entry]:
        endings, names = _picture_endings(), set[str]()
        try:
            with self.store.opened() as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar:
                for member in tar:
                    path = PurePosixPath(member.name)
                    hidden = any(part.startswith(".") and part not in (".", "..") for part in path.parts)
                    if hidden or member.isdir() or path.suffix.lower() not in endings:
                        continue
                    key = key_of(f"{self.name}/{path}")
                    if again := key in names:
                        key = f"{key} {len(names)}"
                    names.add(key)
                    if key in self.done:
                        continue
                    if again:
                        yield key, partial(_refuse, "expected a name of its own, found that of an earlier photo")
                    elif not member.isfile():
                        yield key, partial(_refuse, "expected a photo, found a link or device in a tar")
                    elif member.size > LARGEST:
                        yield key, partial(_refuse, f"expected at most {LARGEST:,} bytes, found {member.size:,}")
                    elif (content := tar.extractfile(member)) is not None:
                        yield key, partial(bytes, content.read())
        except Exception as error:  # decompressors and tarfile raise whatever damage provokes
            words = words_of(error) if isinstance(error, OSError) else str(error)
            reason = f"expected a whole tar, found one that cannot be read after {len(names)} photos ({words})"
            yield from self._refused(reason)
        else:
            if not names:
                yield from self._refused("expected a tar of photos, found no file in it that has the ending of one")

    def _refused(self, reason: str) -> Iterator[Entry]:
        if (key := key_of(self.name)) not in self.done:
            yield key, partial(_refuse, reason)

    def known_keys(self) -> Iterable[str]:
        return ()


@dataclass(frozen=True)
class Rows:
    """Photos in a row group of a Parquet file, as bytes."""

    store: Store
    group: int
    column: str
    keys: tuple[str | None, ...]  # of each row; None: to leave out

    def photos(self) -> Iterator[Entry]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            with self.store.opened(seek=True) as file:
                batches = pq.ParquetFile(file).iter_batches(READ_ROWS, row_groups=[self.group], columns=[self.column])
                for batch in batches:
                    column = batch.column(0)
                    if pa.types.is_struct(column.type):
                        column = column.field("bytes")
                    for value in column:
                        if (key := self.keys[number]) is not None:
                            yield key, partial(_not_null, value.as_py())
                        number += 1
        except (OSError, pa.ArrowException) as error:
            for key in self.keys[number:]:
                if key is not None:
                    yield key, partial(_refuse, f"expected a row of {self.store.address}, found damage ({error})")

    def known_keys(self) -> Iterable[str]:
        return (key for key in self.keys if key is not None)


READ_ROWS = 16
"""Rows of photos that are read from a Parquet file at once."""


def _not_null(content: bytes | None) -> bytes:
    if content is None:
        raise DataError("expected the bytes of a photo, found null")
    return content


def _refuse(reason: str) -> NoReturn:
    raise DataError(reason)


def _fetch_address(table: Store, address: str) -> Source:
    """A file of a table of addresses; one in the table's bucket is reached as the table is."""
    if "\0" in address:
        raise DataError("expected the address of a photo, found one with a null character, which no file can have")
    folder, bucket = table.folder, f"{table.root.address}/"
    if not is_address(address) and not address.startswith("/"):
        store = folder / address
    elif is_address(table.address) and address.startswith(bucket):
        store = table.root / address.removeprefix(bucket)
    else:
        try:
            store = open_store(address)
        except RunError as error:
            raise DataError(str(error)) from error
    return store.local or store.read()


def _fetched(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The same, some fetched ahead."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for (key, _), content in ahead(pool, lambda entry: entry[1](), entries, IN_FLIGHT):
            yield key, content.result


def _picture_endings() -> Collection[str]:
    Image.init()
    return {*Image.registered_extensions(), ".heic", ".heif", ".avif"}


def key_of(name: str) -> str:
    """The name of a photo as text; bytes that are none are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def check_place(place: Store) -> None:
    """Raise RunError if nothing is there, or what cannot hold photos."""
    try:
        kind = place.kind()
        if not kind:
            no_bucket = is_address(place.address) and not place.root.kind()
            found = f"no bucket {place.root.name}" if no_bucket else "nothing of that name"
            raise RunError(f"--input {place.address}: expected photos, found {found}")
    except OSError as error:
        raise _no_place(place, error) from error
    if kind == "other":
        raise RunError(f"--input {place.address}: expected photos, found what is neither a file nor a folder")


def _no_place(place: Store, error: OSError) -> RunError:
    return RunError(
        f"--input {place.address}: expected a place that can be read, found one that cannot be ({words_of(error)})"
    )


def find_photos(place: Store, column: str, key_column: str, size: int, done: Done, output: Store | None = None) -> Plan:
    """See what photos there are.

    Args:
        place: a folder, a photo, a tar, or a Parquet file, which has passed ``check_place``.
        column: that of the photos or their addresses in a Parquet file; "": the only one that fits.
        key_column: that of their keys; "": the address, or the file's name and the number of the row.
        size: photos in a unit.
        done: keys of photos to leave out.
        output: a folder whose files are left out.

    Raises:
        RunError: there are none, or they cannot be listed.
    """
    try:
        if place.kind() == "file":
            return _joined(place, [_of_file(place, column, key_column, size, done)], [], done)
        files, refused, others = _listed(place, output)
    except OSError as error:
        raise _no_place(place, error) from error

    if not files and not refused:
        for endings in (TARS, (".parquet",)):
            if chosen := [name for name in others if name.lower().endswith(endings)]:
                seen = set[str]()
                plans = [_of_file(place / name, column, key_column, size, done, name, seen) for name in chosen]
                return _joined(place, plans, [name for name in others if name not in chosen], done)
        found = f"none among {first_names(others)}" if others else "an empty folder"
        raise RunError(f"--input {place.address}: expected photos, tars or Parquet files, found {found}")
    _check_no_columns(place, column, key_column)
    left = [name for name in files if key_of(name) not in done]
    units: list[Unit] = [Files(place, tuple(names)) for names in in_batches(left, size)]
    left_refused = [entry for entry in refused if entry[0] not in done]
    units += [Refused(tuple(entries)) for entries in in_batches(left_refused, size)]
    return Plan(units, len(left) + len(left_refused), _left_out(others))


def _check_no_columns(place: Store, column: str, key_column: str) -> None:
    """Raise RunError if a column is wanted of what has none."""
    if column or key_column:
        flag = "--column" if column else "--key_column"
        raise RunError(f"{flag} {column or key_column}: expected Parquet files in {place.address}, found other files")


def _listed(place: Store, output: Store | None) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """Names of files that may be photos; keys of what is no file, and why; names of other files. Raises OSError."""
    if (local := place.local) is not None:
        listing = list_photos(local, output.local if output else None)
        refused = [(key_of(str(problem.photo.relative_to(local))), problem.reason) for problem in listing.problems]
        files, others = ([path.relative_to(local).as_posix() for path in paths] for paths in (listing[0], listing[2]))
        return files, refused, others
    names = place.files()
    if output and output.is_below(place):
        below = output.path[len(place.path) + 1 :] + "/"
        names = [name for name in names if not name.startswith(below)]
    files, refused, others = list[str](), list[tuple[str, str]](), list[str]()
    for name in names:
        if is_other(PurePosixPath(name)):
            others.append(name)
        elif {"", ".", ".."} & set(name.split("/")):
            refused.append(
                (key_of(name), "expected a name that is a path, found one with empty parts or dots for parts")
            )
        else:
            files.append(name)
    return files, refused, others


def _of_file(
    place: Store,
    column: str,
    key_column: str,
    size: int,
    done: Done,
    name: str | None = None,
    keys_seen: set[str] | None = None,
) -> Plan:
    """Plan for one file, by the ending of its name. Raises RunError and OSError."""
    name = place.name if name is None else name
    if name.lower().endswith(".parquet"):
        return _of_parquet(place, name, column, key_column, size, done, set() if keys_seen is None else keys_seen)
    _check_no_columns(place, column, key_column)
    if name.lower().endswith(TARS):
        begin = key_of(name)  # which is a key itself, where the tar could not be read to its end
        mine = islice(done.ordered, bisect_left(done.ordered, begin), None)
        return Plan([Tar(place, name, frozenset(takewhile(lambda key: key.startswith(begin), mine)))], None, [])
    return Plan([] if key_of(place.name) in done else [Files(place.folder, (place.name,))], 1, [])


def _of_parquet(
    place: Store, name: str, column: str, key_column: str, size: int, done: Done, keys_seen: set[str]
) -> Plan:
    """Plan for a Parquet file; ``keys_seen`` are those of earlier rows, and grow as the units are taken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with place.opened(seek=True) as file:
            parquet = pq.ParquetFile(file)
            schema, groups, rows = parquet.schema_arrow, parquet.num_row_groups, parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(place, error) from error
    column = column or _only_column(place, schema, key_column)
    for wanted in filter(None, (column, key_column)):
        if wanted not in schema.names:
            raise RunError(
                f"{place.address}: expected a column {wanted!r}, found {', '.join(schema.names) or 'none'}; --column "
                "and --key_column name those of the photos and of their names"
            )
    holds = _holds(schema.field(column).type)
    if holds is None:
        raise RunError(
            f"{place.address}: expected photos (binary) or addresses (string) in column {column!r}, found "
            f"{schema.field(column).type}"
        )
    if key_column and not (_holds(kind := schema.field(key_column).type) == "addresses" or pa.types.is_integer(kind)):
        raise RunError(f"{place.address}: expected names (string or integer) in column {key_column!r}, found {kind}")

    def units() -> Iterator[Unit]:
        read = list(dict.fromkeys(filter(None, (key_column, column if holds == "addresses" else ""))))
        first = 0
        for group in range(groups):
            try:
                with place.opened(seek=True) as file:
                    parquet = pq.ParquetFile(file)
                    count = parquet.metadata.row_group(group).num_rows
                    table = parquet.read_row_group(group, columns=read).to_pydict() if read else {}
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(place, error) from error
            numbered = [f"{name}/{first + row}" for row in range(count)]
            first += count
            addresses = table[column] if holds == "addresses" else [None] * count
            named = table[key_column] if key_column else addresses
            keys, refused = list[str | None](), list[tuple[str, str]]()
            for number, given, address in zip(numbered, named, addresses, strict=True):
                key = key_of(number if given is None else str(given))
                reason = "" if address or holds == "photos" else "expected the address of a photo, found none"
                if key in keys_seen:
                    key, reason = number, f"expected a name of its own, found {key!r}, which an earlier row has"
                keys_seen.add(key)
                if reason and key not in done:
                    refused.append((key, reason))
                keys.append(None if reason or key in done else key)
            if holds == "photos" and any(key is not None for key in keys):
                yield Rows(place, group, column, tuple(keys))
            elif holds == "addresses":
                left = ((key, address) for key, address in zip(keys, addresses, strict=True) if key is not None)
                yield from (Addresses(place, tuple(some)) for some in in_batches(left, size))
            yield from (Refused(tuple(some)) for some in in_batches(refused, size))

    return Plan(units(), rows, [])


def _unreadable(place: Store, error: Exception) -> RunError:
    words = words_of(error) if isinstance(error, OSError) else one_line(str(error))
    return RunError(f"{place.address}: expected a Parquet file, found none that can be read ({words})")


def _holds(kind: Any) -> str | None:
    """What a column of this type can hold: "photos", "addresses", or None."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):  # as pandas has categories
        kind = kind.value_type
    if pa.types.is_struct(kind):  # as the data sets of Hugging Face have pictures
        return "photos" if kind.get_field_index("bytes") >= 0 and _holds(kind.field("bytes").type) else None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "photos"
    return "addresses" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _only_column(place: Store, schema: Any, key_column: str) -> str:
    """The column of photos, or that of addresses if there are none. Raises RunError if there is not one alone."""
    fields = [field for field in schema if field.name != key_column]
    for wanted in ("photos", "addresses"):
        fitting = [field.name for field in fields if _holds(field.type) == wanted]
        if len(fitting) == 1:
            return str(fitting[0])
        if fitting:
            raise RunError(
                f"{place.address}: expected one column of {wanted}, found {', '.join(fitting)}; --column names the "
                "right one"
            )
    raise RunError(
        f"{place.address}: expected a column of photos (binary) or of addresses (string), found "
        f"{', '.join(f'{field.name} ({field.type})' for field in schema) or 'none'}"
    )


def _joined(place: Store, plans: Sequence[Plan], others: Sequence[str], done: Done) -> Plan:
    counts = [plan.photos for plan in plans]
    total = None if None in counts else sum(count or 0 for count in counts)
    if total == 0:
        raise RunError(f"--input {place.address}: expected photos, found a table without rows")
    left = None if total is None else max(total - len(done), 0)  # most that is done is of the same files
    return Plan((unit for plan in plans for unit in plan.units), left, _left_out(others))


def _left_out(others: Sequence[str]) -> list[str]:
    return [f"Left out, since their names are not those of photos: {first_names(others)}"] if others else []
