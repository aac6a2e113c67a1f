"""What workers do: read photos, run the network, draw. Each stage takes a table of photos and gives one."""

import os
import pickle
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

import cloth_segmentation
from cloth_segmentation.batch.sources import Unit, key_of
from cloth_segmentation.batch.stores import Store, safe_path
from cloth_segmentation.batch.table import PICTURES, ROW
from cloth_segmentation.command.outputs import Drawing, Job, encoded, pictures
from cloth_segmentation.command.pipeline import in_batches
from cloth_segmentation.command.problems import reason, writing
from cloth_segmentation.errors import DataError
from cloth_segmentation.files import atomic_path, sha256
from cloth_segmentation.photos import Source
from cloth_segmentation.segmentation import JSON_VERSION, Segmentation
from cloth_segmentation.segmenter import PHOTO_ERRORS, EngineFromElsewhere, Seen, Segmenter

UNITS = pa.schema({"unit": pa.binary()})
"""What the first stage takes: units, pickled."""

STAGES = ("read", "network", "draw")
"""The stages, and the columns in which each says how many seconds it took for a photo."""

_READ = {"key": pa.string(), "problem": pa.string(), "seen": pa.binary(), "read": pa.float64()}
SEEN = pa.schema(_READ)
LOGITS = pa.schema({**_READ, "logits": pa.binary(), "network": pa.float64()})
_PICTURE = pa.struct({"name": pa.string(), "content": pa.binary()})
DRAWN = pa.schema([*ROW, ("pictures", pa.list_(_PICTURE)), *((stage, pa.float64()) for stage in STAGES)])


@dataclass(frozen=True)
class Read:
    """Units -> photos as the network sees them, each a table of one row."""

    segment: Segmenter
    keep: bool  # the files too, since pictures of the photos themselves will be drawn

    def __call__(self, units: pa.Table) -> Iterator[pa.Table]:
        began = time.perf_counter()
        for pickled in units.column("unit").to_pylist():
            unit: Unit = pickle.loads(pickled)
            for key, get in unit.photos():
                row: dict[str, Any] = {"key": key}
                source: Source = Path(key)
                try:
                    source = get()
                    seen = self.segment.see(source)
                    if isinstance(source, bytes) and not self.keep:
                        seen = seen._replace(source=b"")
                    row["seen"] = pickle.dumps(seen, protocol=5)
                except PHOTO_ERRORS as error:
                    row["problem"] = key_of(reason(source, error))
                now = time.perf_counter()
                row["read"], began = now - began, now
                yield pa.Table.from_pylist([row], SEEN)


class Network:
    """Photos as the network sees them -> logits. Loads the weights once."""

    def __init__(self, segment: Segmenter, weights: Callable[[], bytes], batch_size: int, threads: int) -> None:
        """Load the weights.

        Args:
            segment: the Segmenter, whose weights file may lie on another machine.
            weights: gives the content of that file.
            batch_size: photos that go through the network at once.
            threads: of the network on a CPU.
        """
        os.environ["OMP_NUM_THREADS"] = str(threads)  # Ray has set another number
        os.environ["OMP_WAIT_POLICY"] = "passive"  # other workers need the cores
        self.segment, self.batch_size = _at_home(segment, weights), batch_size

    def __call__(self, photos: pa.Table) -> Iterator[pa.Table]:
        rows = photos.to_pylist()
        yield pa.Table.from_pylist([{**row, "network": 0.0} for row in rows if row["seen"] is None], LOGITS)
        for batch in in_batches((row for row in rows if row["seen"] is not None), self.batch_size):
            began = time.perf_counter()
            all_logits = self.segment.logits([pickle.loads(row["seen"]).square for row in batch])
            seconds = (time.perf_counter() - began) / len(batch)
            for row, logits in zip(batch, all_logits, strict=True):
                row |= {"logits": pickle.dumps(logits, protocol=5), "network": seconds}
            yield pa.Table.from_pylist(batch, LOGITS)


def _at_home(segment: Segmenter, weights: Callable[[], bytes]) -> Segmenter:
    """A Segmenter whose weights file lies on this machine."""
    engine = segment.engine
    if not isinstance(engine, EngineFromElsewhere) or (engine.path.is_file() and sha256(engine.path) == engine.sha256):
        return segment
    path = _own_folder() / engine.sha256 / engine.path.name
    if not path.is_file() or sha256(path) != engine.sha256:
        with atomic_path(path) as part:
            part.write_bytes(weights())
    return replace(segment, engine=replace(engine, path=path))


def _own_folder() -> Path:
    """A folder among the temporary ones in which no other user of the machine can put weights."""
    user = os.getuid() if hasattr(os, "getuid") else ""  # Windows has temporary folders of each user
    folder = Path(tempfile.gettempdir()) / f"cloth_segmentation_{user}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if user != "" and not (stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o022):
        return Path(tempfile.mkdtemp(prefix="cloth_segmentation_"))
    return folder


@dataclass(frozen=True)
class Draw:
    """Logits -> rows of the table, and pictures."""

    segment: Segmenter
    drawing: Drawing
    outputs: tuple[str, ...]  # pictures to draw
    tree: Store | None  # where each picture is written as a file; None: they go with the rows, for a tar

    def __call__(self, photos: pa.Table) -> Iterator[pa.Table]:
        for row in photos.to_pylist():
            began = time.perf_counter()
            drawn: dict[str, Any] = {"key": row["key"], "notes": [], "pictures": []}
            problem = row["problem"]
            if problem is None:
                seen: Seen = pickle.loads(row["seen"])
                try:
                    drawn |= self._draw(row["key"], seen, pickle.loads(row["logits"]))
                except PHOTO_ERRORS as error:
                    source = seen.source if isinstance(seen.source, Path | bytes) else Path(row["key"])
                    problem = key_of(reason(source, error))
            if problem is not None:
                drawn |= {"problem": problem, "version": JSON_VERSION, "weights": self.segment.weights()}
            seconds = {"read": row["read"], "network": row["network"], "draw": time.perf_counter() - began}
            yield pa.Table.from_pylist([{**drawn, **seconds, "software": cloth_segmentation.__version__}], DRAWN)

    def _draw(self, key: str, seen: Seen, logits: Any) -> dict[str, Any]:
        one = self.drawing.of(self.segment.segmentation(seen, logits))
        content = {name: value for name, value in one.to_dict().items() if name != "photo"}
        return {**content, "notes": list(seen.notes), "pictures": list(self._pictures(key, one))}

    def _pictures(self, key: str, one: Segmentation) -> Iterator[dict[str, Any]]:
        if not self.outputs:
            return
        if (path := safe_path(key)) is None:
            raise DataError("expected a name that can be a path of pictures, found another")
        for output, name, picture in pictures(one, self.outputs, self.drawing):
            job = Job(Path(path), Path(output, f"{path}.png"))
            place = job.path(output, name)
            content = encoded(picture, output, place.suffix)
            if self.tree is None:
                yield {"name": place.as_posix(), "content": content}
            else:
                store = self.tree / PICTURES / place.as_posix()
                with writing(store.address, "--resume"):
                    store.write(content)
