"""A run over very many photos, from end to end."""

import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from cloth_segmentation.batch import engine
from cloth_segmentation.batch.options import InferBatchOptions
from cloth_segmentation.batch.sources import Unit, check_place, find_photos
from cloth_segmentation.batch.stages import STAGES
from cloth_segmentation.batch.stores import open_store
from cloth_segmentation.batch.table import PICTURES, TABLE, Table
from cloth_segmentation.batch.watch import last_words
from cloth_segmentation.command.flags import describe
from cloth_segmentation.command.main import check_only, photos
from cloth_segmentation.command.photo_folder import NAMED, listed
from cloth_segmentation.command.pipeline import in_batches
from cloth_segmentation.command.problems import failure
from cloth_segmentation.command.script import program
from cloth_segmentation.errors import RunError
from cloth_segmentation.segmenter import Segmenter

UNITS_AT_ONCE = 20_000
"""Units that Ray is given at once. It holds a little of each, so there is a limit."""

SETTINGS = ("flip", "consistent", "min_area", "amp", "save", "pack", "crop", "background", "grow", "shrink")
"""Options on which rows and pictures depend, as do weights, size and classes."""

GOES_ON = "the same command with --resume goes on from here"


class Tally:
    """Counts of a run, and its bar."""

    def __init__(self, progress: "tqdm[NoReturn]") -> None:
        self.progress = progress
        self.began = time.monotonic()
        self.photos = self.failed = 0
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def count(self, rows: pa.Table) -> None:
        """Count rows that were added, and tell of problems."""
        failed = rows.filter(pc.is_valid(rows.column("problem"))).select(["key", "problem"]).to_pylist()
        for row in failed:
            self.progress.write(failure(row["key"], row["problem"]), file=sys.stderr)
        self.photos += rows.num_rows
        self.failed += len(failed)
        for stage in STAGES:
            self.seconds[stage] += pc.sum(rows.column(stage)).as_py() or 0.0
        self.progress.set_postfix(failed=self.failed, refresh=False)
        self.progress.update(rows.num_rows)

    def times(self) -> str:
        """How long each stage worked, as a table for people."""
        whole = max(time.monotonic() - self.began, 1e-9)
        lines = [f"{'stage':<8} {'seconds of work':>15} {'ms a photo':>11} {'workers busy':>13}"]
        for stage, seconds in self.seconds.items():
            lines.append(
                f"{stage:<8} {seconds:>15.1f} {1000 * seconds / max(self.photos, 1):>11.1f} {seconds / whole:>13.2f}"
            )
        return "\n".join(lines)


def segment_all(opt: InferBatchOptions, segmenter: type[Segmenter]) -> int:
    """Segment all photos of the input. Returns the exit code; raises Error if the run cannot start or go on."""
    place, output = open_store(opt.input), open_store(opt.output)
    if place.is_below(output) and output.is_below(place):
        raise RunError(f"--output {output.address}: expected another place than that of the photos, found the same")
    if any(place.is_below(output / name) for name in (TABLE, PICTURES)):
        raise RunError(f"--input {place.address}: expected photos, found what goes to --output {output.address}")
    check_place(place)
    opt = replace(opt, input=place.address, output=output.address)  # without what may be secret
    segment, content = load(opt, segmenter)
    check_only(opt.kept, segment.classes)
    workers = engine.Workers(
        opt.readers, opt.networks, opt.writers, opt.threads, opt.gpus, memory=round(opt.memory * 1e9)
    )
    table = Table(output, settings(opt, segment), resume=opt.resume, rows=opt.rows)
    with closing(table):
        plan = find_photos(place, opt.column, opt.key_column, opt.unit, table.done, output)
        print(describe(opt))
        if output.is_below(place):
            print(f"{output.address}: left out of the photos, since the table goes there")
        for remark in (*table.remarks, *plan.remarks):
            print(remark)
        batches = in_batches(plan.units, UNITS_AT_ONCE)
        if (first := next(batches, None)) is None:
            print(f"Nothing to do: all photos have a row in {(output / TABLE).address} already")
            return 0
        print(segment.describe(), flush=True)
        tree = output if opt.pack == "tree" else None
        outcome = engine.Outcome()
        cut_off = f"{program()}: ended from outside, maybe by Ray, whose cluster is lost; {GOES_ON}"
        with (
            last_words(cut_off),
            engine.connected(opt.address),
            tqdm(total=plan.photos, unit="photo", dynamic_ncols=True) as progress,
        ):
            workers.check_room()
            tally = Tally(progress)
            stages = engine.Stages(
                read=(segment, bool({"overlay", "cutout"} & set(opt.outputs))),
                network=(segment, opt.batch_size, opt.threads),
                weights=content,
                draw=(segment, opt.drawing, opt.outputs, tree),
            )
            for units in chain([first], batches):
                try:
                    with closing(engine.run(units, opt.address, stages, workers, table.keys, outcome)) as coming:
                        for rows in coming:
                            tally.count(table.add(rows))
                except BaseException:
                    progress.close()
                    table.flush()  # Ray may take its time to end
                    tell_missing(plan.photos, table, units)
                    raise
    if outcome.lost:
        tell_missing(plan.photos, table, outcome.lost)
    twice = 0 if outcome.lost else max(outcome.read - tally.photos, 0)
    print(tally.times())
    print(
        f"{photos(tally.photos)} in {(output / TABLE).address}"
        + (f", {len(table.done)} done before" if table.done else "")
        + (f", {tally.failed} failed" if tally.failed else "")
        + (", some missing" if outcome.lost else "")
        + (f", {twice} left out, whose keys others have" if twice else "")
    )
    return 1 if tally.failed or outcome.lost or twice else 0


def tell_missing(total: int | None, table: Table, units: Iterable[Unit]) -> None:
    """Say how many of the photos that were left have no row, where that is known, and the first ones of some units."""
    missing = None if total is None else total - (len(table.keys) - len(table.done))
    keys = (key for unit in units for key in unit.known_keys() if key not in table.keys)
    first = list(islice(keys, NAMED + 1))
    print(
        f"Missing: {'some photos' if missing is None or missing < 0 else photos(missing)}"
        + (f" ({listed(first)})" if first else "")
        + f"; {GOES_ON}",
        file=sys.stderr,
    )


def load(opt: InferBatchOptions, segmenter: type[Segmenter]) -> tuple[Segmenter, bytes]:
    """The Segmenter, as workers will have it, and the content of its weights file. Raises RunError."""
    loading = opt.loading | {"device": "cpu", "amp": "off"}  # this machine may have no GPU
    if opt.gpus and segmenter.has_pytorch and opt.engine == "auto":
        loading["engine"] = "torch"
    segment = segmenter.load(**loading)
    return replace(segment, device="cuda" if opt.gpus else "cpu", amp=opt.amp), segment.path.read_bytes()


def settings(opt: InferBatchOptions, segment: Segmenter) -> dict[str, Any]:
    """All that rows and pictures depend on but the photos."""
    weights = segment.weights()
    return {
        "weights": weights["sha256"],
        "size": weights["seen_at"],
        "classes": list(opt.kept or segment.classes.names[1:]),
        **{name: getattr(opt, name) for name in SETTINGS},
    }
