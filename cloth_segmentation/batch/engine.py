"""The stages on Ray Data: which workers run them, and how much may wait between them."""

import logging
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from cloth_segmentation.batch.sources import Unit
from cloth_segmentation.batch.stages import UNITS, Draw, Network, Read
from cloth_segmentation.command.script import one_line
from cloth_segmentation.errors import Error, RunError

BLOCK = 16 * 2**20
"""Bytes of photos or logits that pass between stages at once."""


BESIDE = 0.01
"""CPUs that a reader or writer counts for.

Workers with the network have the CPUs; the others work beside them, as threads do in ``infer.py``. So, however many
machines are lost, those that are left have room for all stages, and a run goes on.
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


@contextmanager
def connected(address: str, workers: Workers) -> Iterator[None]:
    """Start Ray on this machine, or join a cluster, for the time of a run. Raises RunError."""
    import ray

    local = not address and not os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        if local:
            with _silent():
                ray.init("local", include_dashboard=False, **quiet)
        else:
            ray.init(address or None, **quiet)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        what = f"--address {address}" if address else "RAY_ADDRESS"
        expected = "Ray: expected that it starts here" if local else f"{what}: expected a Ray cluster"
        raise RunError(f"{expected}, found none that answers ({one_line(str(error))})") from error
    try:
        yield
    finally:
        ray.shutdown()


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


def run(
    units: Sequence[Unit], read: Sequence[Any], network: Sequence[Any], draw: Sequence[Any], workers: Workers
) -> Iterator[pa.Table]:
    """Pass units through the stages; yield tables of rows as they come, in any order.

    Args:
        units: photos to read.
        read: arguments of ``Read``, the first stage.
        network: those of ``Network``, the second one.
        draw: those of ``Draw``, the last one.
        workers: of the stages.

    Raises:
        Error: a stage has raised it.
        RunError: Ray cannot go on.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = BLOCK
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=workers.memory
    )
    workers = workers.fitted(ray.cluster_resources())  # type: ignore[no-untyped-call]
    tables = [pa.table({"unit": [pickle.dumps(unit)]}, schema=UNITS) for unit in units]
    photos: ray.data.Dataset = ray.data.from_arrow(tables)
    for stage, arguments, cpus, gpus, most in (
        (Read, read, BESIDE, None, workers.readers),
        (Network, network, (1 if workers.gpus else workers.threads) - BESIDE, workers.gpus or None, workers.networks),
        (Draw, draw, BESIDE, None, workers.writers),
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
    try:
        yield from photos.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        while cause is not None and not isinstance(cause, Error):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        raise


def weights_of(content: bytes) -> Any:
    """What gives workers the content of a weights file, which is sent to each machine once."""
    import ray

    return partial(ray.get, ray.put(content))
