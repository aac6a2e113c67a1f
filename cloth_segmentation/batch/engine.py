"""The stages on Ray Data: which workers run them, and how much may wait between them."""

import logging
import os
import pickle
import signal
import sys
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from cloth_segmentation.batch.guards import Fault, GuardedDraw, GuardedNetwork, GuardedRead, Told, notes_of, rows_of
from cloth_segmentation.batch.sources import Unit
from cloth_segmentation.batch.watch import LostError, Stalled, call, watched
from cloth_segmentation.command.script import one_line
from cloth_segmentation.command.signals import heeded_stops
from cloth_segmentation.errors import Error, RunError

BLOCK = 16 * 2**20
"""Bytes of photos or logits that pass between stages at once."""


BESIDE = 0.01
"""CPUs that a reader or writer counts for: they work beside the network, as threads do in ``infer.py``."""

ROOM = 2
"""Workers with the network that a machine could hold for each that it has cores for.

There are no more than fit the cores of all machines. But if some of these are lost, the others have room to start their
workers again, which Ray waits for.
"""


@dataclass(frozen=True)
class Workers:
    """How many workers run each stage, and what each has of a machine."""

    readers: int  # most at once; 0: what fits
    networks: int
    writers: int
    threads: int  # CPU threads of the network
    gpus: float  # share of a GPU of the network; 0: it runs on CPUs
    memory: int  # bytes that may wait between the stages

    def fitted(self, resources: Mapping[str, float]) -> "Workers":
        """The same with numbers that fit a cluster, where none were given."""
        cores = resources.get("CPU", 1)
        networks = resources.get("GPU", 0) / self.gpus if self.gpus else cores / self.threads
        beside = max(1, int(cores / (2 if self.gpus else 4)))
        return replace(
            self,
            networks=self.networks or max(1, int(networks)),
            readers=self.readers or beside,
            writers=self.writers or beside,
        )

    def check_room(self) -> None:
        """Raise RunError if no machine of Ray has what a network needs: Ray would wait for one for ever."""
        import ray

        flag, what, least = ("--gpus", "GPU", self.gpus) if self.gpus else ("--threads", "CPU", self.threads)
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        most = max((node["Resources"].get(what, 0) for node in nodes if node["Alive"]), default=0)
        if most < least:
            raise RunError(
                f"{flag} {least:g}: expected a machine with that many {what}s, found at most {most:g}; take fewer, or "
                "start such a machine first"
            )


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Start Ray on this machine, or join a cluster, for the time of a run. Raises RunError."""
    import ray

    try:
        _connect(address)
        yield
    except LostError:
        raise  # there is nothing to leave
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


def _connect(address: str) -> None:
    import ray

    if (outside := address or os.environ.get("RAY_ADDRESS", "")).startswith("ray://"):
        raise RunError(
            f"{outside}: expected the address of a cluster's head, such as head:6379, found one for programs outside "
            "of it, which Ray Data does not serve; run the command on a machine of the cluster"
        )
    _check_answers(address)
    local = not address and not os.environ.get("RAY_ADDRESS")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it tells of each task that is tried again
    try:
        with _silent(), _own_handlers():
            options: dict[str, Any] = {"include_dashboard": False} if local else {}
            options |= {"log_to_driver": False, "logging_level": "CRITICAL"}
            ray.init("local" if local else address or None, **options)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        what = f"--address {address}" if address else "RAY_ADDRESS"
        expected = "Ray: expected that it starts here" if local else f"{what}: expected a Ray cluster"
        token = "" if local else "; where it asks for a token, set RAY_AUTH_MODE=token, and have its token here"
        raise RunError(f"{expected}, found none that answers ({one_line(str(error))}){token}") from error
    ray._private.worker._worker_logs_enabled = False  # errors of workers, which Ray writes whatever it is told


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep this process's handlers of stop signals: Ray puts one in their place that ends it by the signal's number."""
    before = {number: signal.getsignal(number) for number in heeded_stops()}
    try:
        yield
    except SystemExit as stopped:  # by Ray's handler, as it started
        raise KeyboardInterrupt from stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_answers(address: str) -> None:
    """Raise RunError if nobody listens at an address with a port: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            call(address)
        except (OSError, OverflowError) as error:
            raise RunError(f"--address {address}: expected a Ray cluster, found none that answers ({error})") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Leave out what is written to the terminal meanwhile: Ray tells it of its log level, whatever that is."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@dataclass(frozen=True)
class Stages:
    """Arguments of the stages, which workers make."""

    read: Sequence[Any]
    network: Sequence[Any]  # but the weights, which are sent to each machine once
    weights: bytes  # the content of their file
    draw: Sequence[Any]


@dataclass
class Outcome:
    """What came of units."""

    read: int = 0  # photos in the units that were read to their end; several may have one key
    lost: list[Unit] = field(default_factory=list)  # units whose photos have not all come


def run(
    units: Sequence[Unit], address: str, stages: Stages, workers: Workers, have: Collection[str], outcome: Outcome
) -> Generator[pa.Table, None, None]:
    """Pass units through the stages; yield tables of rows as they come, in any order.

    Workers and machines may die. Ray gives their work to others; what does not come nevertheless is done again, so that
    some photos come twice.

    Args:
        units: photos to read.
        address: that of ``connected``.
        stages: what to do with them.
        workers: of the stages.
        have: keys of all rows that have come; the caller adds those that are yielded.
        outcome: is added to.

    Raises:
        Exception: a stage has raised it.
        RunError: Ray cannot go on.
    """
    import ray

    left = dict(enumerate(units))

    def ended(note: Told) -> bool:
        """Whether all rows of a unit have come."""
        if not all(key in have for key in note.keys):
            return False
        if left.pop(note.unit, None) is not None:  # some are told twice
            outcome.read += len(note.keys)
        return True

    while left:
        before, early, broken, stalled = (len(have), len(left)), list[Told](), None, False
        try:
            with closing(_round(dict(left), stages, workers)) as coming, closing(watched(coming)) as tables:
                for table in tables:
                    yield rows_of(table)
                    for note in notes_of(table):
                        if isinstance(note, Fault):
                            raise note.error from (None if isinstance(note.error, Error) else RuntimeError(note.trace))
                        if not ended(note):
                            early.append(note)
        except ray.exceptions.RayError as error:
            broken = error
        except Stalled:
            stalled = True
            ray.shutdown()  # ends all workers of this run, and no others
            _connect(address)
        for note in early:
            ended(note)
        if left and (len(have), len(left)) == before and not stalled:  # nothing has come of it
            if broken:
                words = str(broken).strip().splitlines() or [repr(broken)]
                raise RunError(f"Ray: expected that it goes on, found an error ({one_line(words[-1])})") from broken
            break
    outcome.lost += left.values()


def _round(left: Mapping[int, Unit], stages: Stages, workers: Workers) -> Generator[pa.Table, None, None]:
    """Pass units through the stages once. Raises RayError."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = BLOCK
    context.max_errored_blocks = -1  # what Ray has lost is done again; what stages raise comes as a note
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=workers.memory
    )
    workers = workers.fitted(ray.cluster_resources())  # type: ignore[no-untyped-call]
    weights = partial(ray.get, ray.put(stages.weights))
    tables = [pa.table({"unit": [pickle.dumps(unit)], "number": [number]}) for number, unit in left.items()]
    photos: ray.data.Dataset = ray.data.from_arrow(tables)
    for stage, arguments, cpus, gpus, most in (
        (GuardedRead, stages.read, BESIDE, None, workers.readers),
        (
            GuardedNetwork,
            (stages.network[0], weights, *stages.network[1:]),
            (1 if workers.gpus else workers.threads) / ROOM,
            workers.gpus or None,
            workers.networks,
        ),
        (GuardedDraw, stages.draw, BESIDE, None, workers.writers),
    ):
        # Actors, which import and load once; tasks would spread over more processes, each of which does so anew.
        photos = photos.map_batches(
            stage,
            fn_constructor_args=arguments,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=gpus,
            compute=ActorPoolStrategy(min_size=1, max_size=most),
        )
    yield from photos.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
