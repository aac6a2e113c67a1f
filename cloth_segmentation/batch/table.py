"""The output: a table of Parquet files, a row a photo, which one run at a time adds to."""

import json
import os
import socket
import tarfile
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from threading import Event, Thread
from typing import Any

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
        self._waiting: list[pa.Table] = []
        self._files = 0
        self._lost: str | None = None
        try:
            before, parts = self._state(), self._parts()
            if before and not resume:
                parts = parts or [STATE]
            if parts and not resume:
                raise RunError(
                    f"--output {store.address}: expected an empty place, found a table of an earlier run; --resume "
                    "adds to it"
                )
            if parts and before is None:
                raise RunError(
                    f"--output {store.address}: expected {STATE} beside {TABLE}, which says how it was made, found none"
                )
            if before is not None:
                self._check(before)
            self._write_state(alive=True)
            if parts:
                self._read(parts)
        except OSError as error:
            raise RunError(
                f"--output {store.address}: expected a place that can be read and written, found one that cannot be "
                f"({words_of(error)})"
            ) from error
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
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
            raise RunError(
                f"{(self.store / STATE).address}: expected the file that infer_batch.py writes, found another; take "
                "another --output"
            )
        return found

    def _parts(self) -> list[str]:
        return [name for name in (self.store / TABLE).files() if name.endswith(".parquet")]

    def _check(self, before: Mapping[str, Any]) -> None:
        """Raise RunError if another run lives, or has other settings."""
        age = time.time() - float(before.get("alive") or 0)
        same_host = before.get("host") == socket.gethostname()
        lives = _lives(before.get("pid")) if same_host else age < DEAD
        if before.get("alive") and lives:
            raise RunError(
                f"--output {self.store.address}: expected no other run that adds to it, found one on "
                f"{before.get('host')} (process {before.get('pid')}); wait for its end, or take another output"
            )
        for name, value in self.settings.items():
            found = before["settings"].get(name)
            if found != json.loads(json.dumps(value)):
                raise RunError(
                    f"--output {self.store.address}: expected a table with {name} {value!r} as in this run, found "
                    f"{found!r}; take the same settings, or another output"
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
        """Say from time to time that this run lives, and see whether another one has taken its place."""
        while not self._stop.wait(BEAT):
            try:
                found = self._state()
                if found is not None and found.get("run") != self.run:
                    self._lost = f"one on {found.get('host')} (process {found.get('pid')})"
                    return
                self._write_state(alive=True)
            except (OSError, RunError):
                continue  # the table itself meets it soon, and says so

    def _read(self, parts: list[str]) -> None:
        """Read the keys of the rows that are there; delete what is torn."""

        def keys(name: str) -> list[str] | None:
            part = self.store / TABLE / name
            try:
                with part.opened(seek=True) as file:
                    parquet = pq.ParquetFile(file)
                    if "key" not in parquet.schema_arrow.names:
                        raise RunError(f"{part.address}: expected a table of infer_batch.py, found another; move it")
                    found: list[str] = parquet.read(columns=["key"]).column("key").to_pylist()
                    return found
            except (pa.ArrowInvalid, OSError) as error:
                if isinstance(error, FileNotFoundError | PermissionError):
                    raise
                return None

        with ThreadPoolExecutor(8) as pool:
            found = dict(zip(parts, pool.map(keys, parts), strict=True))
        torn = [name for name, some in found.items() if some is None]
        for name in torn:
            (self.store / TABLE / name).delete()
            self.remarks.append(f"{(self.store / TABLE / name).address}: torn; its photos are done anew")
        self._keys = {key for some in found.values() for key in some or ()}
        whole = {name.removesuffix(".parquet") for name in set(parts) - set(torn)}
        for name in (self.store / PICTURES).files():
            if name.endswith(".tar") and name.removesuffix(".tar") not in whole:  # its rows were never written
                (self.store / PICTURES / name).delete()

    def add(self, rows: pa.Table) -> int:
        """Add rows; a file is written once it is full. Rows whose key the table has already are left out.

        Args:
            rows: columns as in ``ROW``, and ``pictures``: a list of {"name", "content"}, which go into a tar.

        Returns:
            How many were left out.

        Raises:
            RunError: a file cannot be written, or another run has taken the place of this one.
        """
        fresh = []
        for key in rows.column("key").to_pylist():
            fresh.append(key not in self._keys)
            self._keys.add(key)
        if not all(fresh):
            rows = rows.filter(pa.array(fresh))
        self._waiting.append(rows)
        while sum(table.num_rows for table in self._waiting) >= self.rows:
            together = pa.concat_tables(self._waiting)
            self._write(together.slice(0, self.rows))
            self._waiting = [together.slice(self.rows)]
        return len(fresh) - sum(fresh)

    def _write(self, rows: pa.Table) -> None:
        if self._lost:
            raise RunError(
                f"--output {self.store.address}: expected no other run that adds to it, found {self._lost}, which has "
                "taken the place of this one"
            )
        name = f"part-{self.run}-{self._files:05d}"
        self._files += 1
        pictures = [picture for some in rows.column("pictures").to_pylist() for picture in some or ()]
        if pictures:  # before their rows, which say that they are there
            self._write_file(self.store / PICTURES / f"{name}.tar", _tar(pictures))
        file = BytesIO()
        pq.write_table(rows.select(ROW.names), file, compression="zstd")
        self._write_file(self.store / TABLE / f"{name}.parquet", file.getvalue())

    def _write_file(self, store: Store, content: bytes) -> None:
        try:
            with writing(store.address, "--resume"):
                store.write(content)
        except DataError as error:  # a row that cannot be kept is lost: the run cannot go on
            raise RunError(f"{error}; once it can, the same command with --resume goes on from here") from error

    def flush(self) -> None:
        """Write the rows that wait. Raises RunError."""
        rows, self._waiting = self._waiting, []
        if sum(table.num_rows for table in rows):
            self._write(pa.concat_tables(rows))

    def close(self) -> None:
        """Write the rows that wait, and let others add to the table. Raises RunError."""
        self._stop.set()
        self._pulse.join()
        try:
            self.flush()
        finally:
            if not self._lost:
                with suppress(OSError):
                    self._write_state(alive=False)


def _tar(pictures: Sequence[Mapping[str, Any]]) -> bytes:
    """Pictures as a tar whose bytes depend on nothing else."""
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for picture in pictures:
            member = tarfile.TarInfo(picture["name"])
            member.size = len(picture["content"])
            tar.addfile(member, BytesIO(picture["content"]))
    return file.getvalue()


def _lives(process: Any) -> bool:
    """Whether a process of this machine lives, as far as can be told."""
    if not isinstance(process, int) or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
