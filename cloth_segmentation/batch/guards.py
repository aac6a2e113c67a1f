"""Stages as Ray's workers run them: what they raise is told, and photos that end a process are named."""

import os
import pickle
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cloth_segmentation.batch.sources import Entry, Unit
from cloth_segmentation.batch.stages import DRAWN, LOGITS, SEEN, UNITS, Draw, Network, Read
from cloth_segmentation.photos import Source
from cloth_segmentation.segmenter import PHOTO_ERRORS

NOTE = "note"
"""A column that is null for photos. Rows that are none pass through all stages, and hold it."""


class Fault(NamedTuple):
    """A stage has raised an exception."""

    error: Exception
    trace: str


class Told(NamedTuple):
    """A unit was read to its end."""

    unit: int
    keys: list[str]  # of its photos


def notes_of(table: pa.Table) -> list[Any]:
    """The notes among the rows of a table: Told or Fault."""
    return [pickle.loads(note) for note in table.column(NOTE).to_pylist() if note is not None]


def rows_of(table: pa.Table) -> pa.Table:
    """The rows of a table that are photos."""
    return table.filter(pc.is_null(table.column(NOTE))).drop_columns([NOTE])


def _note(content: Any, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{NOTE: pickle.dumps(content)}], schema.append(pa.field(NOTE, pa.binary())))


class _Guarded:
    """A stage whose exceptions come as notes.

    Ray starts a worker again that has died, with the same photos. One of them may have ended it, and would do so for
    ever. So a worker that was started again is careful: it has another process for the photos, which may die of them.
    """

    kind: ClassVar[Any]
    schema: ClassVar[pa.Schema]

    def __init__(self, *arguments: Any) -> None:
        import ray

        self.apart = Apart() if ray.get_runtime_context().was_current_actor_reconstructed else None
        self.stage: Any = None
        self.broken: Exception | None = None
        try:
            self.stage = self.kind(*arguments)
        except Exception as error:
            self.broken = error

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        try:
            if self.broken is not None:
                raise self.broken
            for part in self.photos(table):
                yield part.append_column(NOTE, pa.nulls(part.num_rows, pa.binary()))
            yield from self.notes(table)  # last, so that most units are told of when all their rows have come
        except Exception as error:
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:  # some cannot be made anew
                error = RuntimeError(repr(error))
            yield _note(Fault(error, traceback.format_exc()), self.schema)

    def notes(self, table: pa.Table) -> Iterator[pa.Table]:
        """The notes to pass on: those of the stages before."""
        for note in table.column(NOTE).to_pylist():
            if note is not None:
                yield pa.Table.from_pylist([{NOTE: note}], self.schema.append(pa.field(NOTE, pa.binary())))

    def photos(self, table: pa.Table) -> Iterator[pa.Table]:
        """What the stage makes of the photos."""
        rows = rows_of(table)
        if rows.num_rows:
            yield from self.stage(rows)


class GuardedNetwork(_Guarded):
    """The network, guarded."""

    kind, schema = Network, LOGITS


class GuardedDraw(_Guarded):
    """Drawing, guarded."""

    kind, schema = Draw, DRAWN

    def photos(self, table: pa.Table) -> Iterator[pa.Table]:
        if self.apart is None:
            yield from super().photos(table)
            return
        for row in rows_of(table).to_pylist():
            part = self.apart(self.stage, pa.Table.from_pylist([row], LOGITS))
            if part is None:
                problem = "expected a photo that can be drawn, found one that ends the process that draws it"
                failed = {**row, "problem": problem, "seen": None, "logits": None}
                part = pa.concat_tables(self.stage(pa.Table.from_pylist([failed], LOGITS)))
            yield part


class GuardedRead(_Guarded):
    """Reading, guarded, which tells of the units that it has read."""

    kind, schema = Read, SEEN

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        self.ended: list[Told] = []
        yield from super().__call__(table)

    def notes(self, table: pa.Table) -> Iterator[pa.Table]:
        for told in self.ended:
            yield _note(told, self.schema)

    def photos(self, table: pa.Table) -> Iterator[pa.Table]:
        for row in table.to_pylist():
            keys: list[str] = []
            for part in self.read(row["unit"]):
                keys += part.column("key").to_pylist()
                yield part
            self.ended.append(Told(row["number"], keys))

    def read(self, unit: bytes) -> Iterator[pa.Table]:
        if self.apart is None:
            yield from self.stage(_units(unit))
            return
        found: Unit = pickle.loads(unit)
        for key, get in found.photos():
            try:
                photo = OnePhoto(key, get())
            except PHOTO_ERRORS as error:
                photo = OnePhoto(key, error)
            part = self.apart(self.stage, _units(pickle.dumps(photo)))
            if part is None:
                problem = "expected a photo that can be read, found one that ends the process that reads it"
                part = pa.Table.from_pylist([{"key": key, "problem": problem, "read": 0.0}], SEEN)
            yield part


def _units(unit: bytes) -> pa.Table:
    return pa.table({"unit": [unit]}, schema=UNITS)


@dataclass(frozen=True)
class OnePhoto:
    """A photo on its own, as a unit: its file, or why there is none."""

    key: str
    source: Source | Exception

    def photos(self) -> Iterator[Entry]:
        yield self.key, self._get

    def _get(self) -> Source:
        if isinstance(self.source, Exception):
            raise self.source
        return self.source


class Apart:
    """Calls a stage in another process, which may die of it."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, stage: Any, table: pa.Table) -> pa.Table | None:
        """What the stage makes of a photo; None: the process has died, and a second one too."""
        for _ in range(2):
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent)
            try:
                return self._pool.submit(_call, stage, table).result()
            except BrokenProcessPool:
                self._pool = None
        return None


def _call(stage: Any, table: pa.Table) -> pa.Table:
    return pa.concat_tables(stage(table))


def _end_with_parent() -> None:
    """End this process when that which started it has died, which it would not notice."""

    def wait() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
