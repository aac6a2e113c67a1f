"""The output: a table of Parquet files, a row a photo, which one run at a time adds to."""

import json
import os
import re
import socket
import tarfile
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from threading import Event, Thread
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

import cloth_segmentation
from cloth_segmentation.batch.sources import Done
from cloth_segmentation.batch.stores import Store, words_of
from cloth_segmentation.command.problems import writing
from cloth_segmentation.errors import DataError, RunError

CLASS = pa.struct(
    {
        "id": pa.int32(),
        "name": pa.string(),
        "pixels": pa.int64(),
        "share": pa.float64(),
        "box": pa.list_(pa.int32()),
        "segmentation": pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()}),
    }
)
WEIGHTS = pa.struct(
    {
        "file": pa.string(),
        "sha256": pa.string(),
        "arch": pa.string(),
        "seen_at": pa.list_(pa.int32()),
        "validation_iou": pa.float64(),
    }
)
ROW = pa.schema(
    {
        "key": pa.string(),
        "problem": pa.string(),
        "notes": pa.list_(pa.string()),
        "version": pa.int32(),
        "width": pa.int32(),
        "height": pa.int32(),
        "weights": WEIGHTS,
        "classes": pa.list_(CLASS),
        "software": pa.string(),
    }
)
"""Columns of the table. What they hold is that of ``Segmentation.to_dict``; of a photo that failed, it is null."""

TABLE, PICTURES, STATE = "table", "pictures", "run.json"
"""Names in the output: folders of Parquet files and of pictures, and the file that says which run adds to it."""

OURS = re.compile(r"part-[0-9a-f]{12}-\d+\.(parquet|tar)")
"""Names of files of a table. No others are ever deleted."""

BEAT = 15.0
"""Seconds after which a run says anew that it lives."""

DEAD = 90.0
"""Seconds of silence after which a run of another machine is taken for dead."""


class Table:
    """The table of an output, to add to. ``close`` it, whatever happens.

    Only this process writes to the table, and each file whole. So whatever workers do, and do again, no row is there
    twice.
    """

    def __init__(self, store: Store, settings: Mapping[str, Any], *, resume: bool, rows: int) -> None:
        """Claim an output.

        Args:
            store: the folder.
            settings: all that rows depend on but the photos; a table has one set of them.
            resume: add to a table that is there.
            rows: of a file.

        Raises:
            RunError: another table is there, another run adds to it, or nothing can be read or written.
        """
        self.store, self.settings, self.rows = store, settings, rows
        self.run = uuid.uuid4().hex[:12]
        self.remarks: list[str] = []
        self._keys: set[str] = set()
        self._waiting = _Waiting(0, [])
        try:
            if store.kind() not in ("folder", ""):
                raise RunError(f"--output {store.address}: expected a folder, found a file; take another name")
            before, parts = self._state(), self._parts()
            if before is not None:
                self._check_alone(before)
            begun = parts or (before is not None and (store / PICTURES).kind())
            if begun and not resume:
                raise RunError(
                    f"--output {store.address}: expected an empty place, found a table of an earlier run; --resume "
                    "adds to it"
                )
            if parts and before is None:
                raise RunError(
                    f"--output {store.address}: expected {STATE} beside {TABLE}, which says how it was made, found "
                    "none; take another --output"
                )
            if begun and before is not None:
                self._check_settings(before["settings"])
            self._write_state(alive=True)
            if parts:
                self._read(parts)
        except OSError as error:
            raise self._unusable(error) from error
        self.done = Done(self._keys)
        self._stop = Event()
        self._pulse = Thread(target=self._live, daemon=True)
        self._pulse.start()

    def _state(self) -> dict[str, Any] | None:
        """What the file of the last run says. Raises OSError and RunError."""
        try:
            found = json.loads((self.store / STATE).read())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            found = None
        kinds = {"settings": dict, "alive": float | int | None, "run": str, "host": str, "pid": int}
        if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in kinds.items()):
            raise RunError(
                f"{(self.store / STATE).address}: expected the file that infer_batch.py writes, found another; take "
                "another --output"
            )
        return found

    def _parts(self) -> list[str]:
        return [name for name in (self.store / TABLE).files() if name.endswith(".parquet")]

    def _unusable(self, error: OSError) -> RunError:
        return RunError(
            f"--output {self.store.address}: expected a place that can be read and written, found one that cannot be "
            f"({words_of(error)})"
        )

    def _check_alone(self, before: Mapping[str, Any]) -> None:
        """Raise RunError if another run lives."""
        alive = before["alive"] is not None and time.time() - before["alive"] < DEAD
        if alive and (before["host"] != socket.gethostname() or _lives(before["pid"])):
            raise RunError(
                f"--output {self.store.address}: expected no other run that adds to it, found one on "
                f"{before['host']} (process {before['pid']}); wait for its end ({DEAD:.0f} seconds after its last sign "
                "of life), or take another output"
            )

    def _check_settings(self, before: Mapping[str, Any]) -> None:
        """Raise RunError if the table was made with others."""
        for name, value in self.settings.items():
            if (found := before.get(name)) != json.loads(json.dumps(value)):
                raise RunError(
                    f"--output {self.store.address}: expected a table with {name} {value!r} as in this run, found "
                    f"{found!r}; take the same settings, or another output"
                )

    def _check_mine(self) -> None:
        """Raise RunError if another run has taken the place of this one, which was taken for dead."""
        if (found := self._state()) is not None and found["run"] != self.run:
            raise RunError(
                f"--output {self.store.address}: expected no other run that adds to it, found one on {found['host']} "
                f"(process {found['pid']}), which has taken the place of this one"
            )

    def _write_state(self, *, alive: bool) -> None:
        state = {
            "run": self.run,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "alive": time.time() if alive else None,
            "settings": self.settings,
            "software": cloth_segmentation.__version__,
        }
        (self.store / STATE).write(json.dumps(state, indent=2).encode() + b"\n")

    def _live(self) -> None:
        """Say from time to time that this run lives, as long as it is the one that adds to the table."""
        while not self._stop.wait(BEAT):
            with suppress(OSError, RunError):  # the next file meets them, and says so
                self._check_mine()
                self._write_state(alive=True)

    def _read(self, parts: list[str]) -> None:
        """Read the keys of the rows that are there; delete what is torn. Raises OSError and RunError."""
        with ThreadPoolExecutor(8) as pool:
            found = dict(zip(parts, pool.map(self._keys_of, parts), strict=True))
        torn = [name for name, some in found.items() if some is None]
        for name in torn:
            (self.store / TABLE / name).delete()
            self.remarks.append(f"{(self.store / TABLE / name).address}: torn; its photos are done anew")
        self._keys = {key for some in found.values() for key in some or ()}
        if self.settings.get("pack") == "tree":  # whose pictures may be millions
            return
        whole = {name.removesuffix(".parquet") for name in set(parts) - set(torn)}
        for name in (self.store / PICTURES).files():
            if OURS.fullmatch(name) and name.removesuffix(".tar") not in whole:  # its rows were never written
                (self.store / PICTURES / name).delete()

    @property
    def keys(self) -> Collection[str]:
        """Keys of all rows, those that are not written yet too."""
        return self._keys

    def _keys_of(self, name: str) -> list[str] | None:
        """The keys of a file of the table; None: it is torn. Raises OSError if it cannot be read, and RunError."""
        part = self.store / TABLE / name
        with suppress(OSError, pa.ArrowException), part.opened(seek=True) as file:
            return self._keys_in(part, file)
        content = part.read()  # whole, so that a failing network is not taken for damage
        try:
            return self._keys_in(part, BytesIO(content))
        except (OSError, pa.ArrowException) as error:
            if not OURS.fullmatch(name):
                raise RunError(f"{part.address}: expected a table of infer_batch.py, found another; move it") from error
            return None

    @staticmethod
    def _keys_in(part: Store, file: Any) -> list[str]:
        parquet = pq.ParquetFile(file)
        if "key" not in parquet.schema_arrow.names:
            raise RunError(f"{part.address}: expected a table of infer_batch.py, found another; move it")
        keys: list[str] = parquet.read(columns=["key"]).column("key").to_pylist()
        return keys

    def add(self, rows: pa.Table) -> pa.Table:
        """Add rows; a file is written once it is full. Rows whose key the table has already are left out.

        Args:
            rows: columns as in ``ROW``, and ``pictures``: a list of {"name", "content"}, which go into a tar.

        Returns:
            The rows that were added.

        Raises:
            RunError: a file cannot be written, or another run has taken the place of this one.
        """
        fresh = []
        for key in rows.column("key").to_pylist():
            fresh.append(key not in self._keys)
            self._keys.add(key)
        if not all(fresh):
            rows = rows.filter(pa.array(fresh))
        self._waiting.tables.append(rows)
        while self._waiting.num_rows >= self.rows:
            self._write(self.rows)
        return rows

    def _write(self, count: int) -> None:
        """Write the first rows of those that wait. If that was interrupted, the next call writes the same file anew."""
        try:
            self._check_mine()
        except OSError as error:
            raise self._unusable(error) from error
        together = pa.concat_tables(self._waiting.tables)
        rows, name = together.slice(0, count), f"part-{self.run}-{self._waiting.file:05d}"
        pictures = [picture for some in rows.column("pictures").to_pylist() for picture in some or ()]
        if pictures:  # before their rows, which say that they are there
            self._write_file(self.store / PICTURES / f"{name}.tar", _tar(pictures))
        file = BytesIO()
        pq.write_table(rows.select(ROW.names), file, compression="zstd")
        self._write_file(self.store / TABLE / f"{name}.parquet", file.getvalue())
        self._waiting = _Waiting(self._waiting.file + 1, [together.slice(count)])

    def _write_file(self, store: Store, content: bytes) -> None:
        try:
            with writing(store.address, "--resume"):
                store.write(content)
        except DataError as error:  # a row that cannot be kept is lost: the run cannot go on
            raise RunError(f"{error}; once it can, the same command with --resume goes on from here") from error

    def flush(self) -> None:
        """Write the rows that wait. Raises RunError."""
        if count := self._waiting.num_rows:
            self._write(count)

    def close(self) -> None:
        """Write the rows that wait, and let others add to the table. Raises RunError."""
        self._stop.set()
        self._pulse.join()
        try:
            self.flush()
        finally:
            with suppress(OSError, RunError):
                self._check_mine()
                self._write_state(alive=False)


class _Waiting(NamedTuple):
    """Rows that are not written yet.

    One value, since a stop signal may come at any point: the file is written, and its rows still wait, or neither.
    """

    file: int  # number of the file that they go into
    tables: list[pa.Table]

    @property
    def num_rows(self) -> int:
        """How many rows wait."""
        return sum(table.num_rows for table in self.tables)


def _tar(pictures: Sequence[Mapping[str, Any]]) -> bytes:
    """Pictures as a tar whose bytes depend on nothing else."""
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for picture in pictures:
            member = tarfile.TarInfo(picture["name"])
            member.size = len(picture["content"])
            tar.addfile(member, BytesIO(picture["content"]))
    return file.getvalue()


def _lives(process: int) -> bool:
    """Whether a process of this machine lives, as far as can be told."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # the latter for a number that no process has
        return False
    except OSError:  # it is another user's
        return True
    return True
