"""Order of the photos, and batches."""

import math
import mmap
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from cloth_segmentation.errors import DataError
from data import BadSampleError
from data.dataset import Draw, TrainingSquares


class EndlessSampler(Sampler[Draw]):
    """An endless stream of photos, epoch after epoch, split over ranks.

    All ranks know one global stream: epoch e is a permutation drawn from (seed, e), and rank r takes the draws
    r, r + world_size, ... of it. So an epoch shows every photo once over all ranks, whatever the batch size, and the
    stream can start anywhere.

    Args:
        photos: number of photos, N.
        seed: of the order and of each draw's own seed.
        rank: of this process, 0 to world_size - 1.
        world_size: number of processes.
        start: draws, over all ranks, that earlier runs have used.
        shuffle: False keeps the order of the index in every epoch.
    """

    def __init__(
        self, photos: int, *, seed: int, rank: int = 0, world_size: int = 1, start: int = 0, shuffle: bool = True
    ) -> None:
        self.photos = photos
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.start = start
        self.shuffle = shuffle

    def __iter__(self) -> Iterator[Draw]:
        position = self.start + self.rank
        epoch, order = -1, np.arange(self.photos)
        while True:
            if position // self.photos != epoch:
                epoch = position // self.photos
                if self.shuffle:
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.photos)
            draw_seed = np.random.SeedSequence((self.seed, position)).generate_state(1)[0]
            yield Draw(int(order[position % self.photos]), int(draw_seed))
            position += self.world_size


class OneEpochSampler(Sampler[Draw]):
    """Every photo of this rank's share once, in order: for validation."""

    def __init__(self, photos: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.share = range(rank, photos, world_size)

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(index, 0) for index in self.share)

    def __len__(self) -> int:
        return len(self.share)


class Sample(NamedTuple):
    """A photo that is loaded, or was to be."""

    square: tuple[Tensor, Tensor] | None  # photo (3, H, W) and label map (H, W), uint8; None: left out
    problems: list[str]  # of photos that could not be used


class Batch(NamedTuple):
    """What a loader gives."""

    photos: Tensor  # (N, 3, H, W) uint8
    labels: Tensor  # (N, H, W) uint8
    problems: list[str]  # of photos that could not be used


ATTEMPTS = 100
"""Photos tried in the place of one: more in a row that cannot be used are no accident."""


LOOK_UP = 5
"""Seconds after which a wait for a batch looks up, whether it has lasted too long."""

PATIENCE = 600
"""Seconds without a batch after which processes that load are given up. Network disks may stall for minutes."""


GRACE = 1
"""Seconds that processes that load have to end."""


class Samples(Dataset[Sample]):
    """Squares, or what comes in the place of those that turn out to be bad.

    Args:
        squares: the photos.
        on_bad_sample: "stop" raises BadSampleError, "replace" takes another photo, "leave_out" takes none.

    Raises:
        BadSampleError: a photo cannot be used, and ``on_bad_sample`` is "stop".
        DataError: ``ATTEMPTS`` photos in a row cannot be used, or something else than a photo is wrong.
    """

    def __init__(self, squares: TrainingSquares, on_bad_sample: str) -> None:
        self.squares = squares
        self.on_bad_sample = on_bad_sample

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, draw: Draw) -> Sample:
        problems: list[str] = []
        while len(problems) < ATTEMPTS:
            try:
                return Sample(self.squares[draw], problems)
            except BadSampleError as error:
                if self.on_bad_sample == "stop":
                    raise
                problems.append(str(error))
            if self.on_bad_sample == "leave_out":
                return Sample(None, problems)
            draw = self.squares.another(draw)
        raise DataError(f"expected photos that can be used, found {ATTEMPTS} in a row that cannot; {problems[-1]}")


def make_loader(
    squares: TrainingSquares,
    sampler: Sampler[Draw],
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool,
    on_bad_sample: str = "stop",
    at_once: int = 1,
) -> DataLoader[Sample]:
    """Load photos and label maps in batches, for ``Batches``.

    Args:
        squares: the photos.
        sampler: their order.
        batch_size: photos in a batch, less those that are left out.
        workers: processes that load; 0: this one does.
        pin_memory: speeds up copies to a GPU.
        on_bad_sample: see ``Samples``.
        at_once: batches that are asked for one after another, before any is used; as many are loaded ahead.
    """
    return DataLoader(
        Samples(squares, on_bad_sample),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        prefetch_factor=1 + math.ceil(at_once / workers) if workers else None,
        timeout=LOOK_UP if workers else 0,
        generator=torch.Generator(),  # all chance is in the draws' seeds; the global random numbers stay untouched
        worker_init_fn=_leave_signals_to_parent,
    )


def collate(samples: Sequence[Sample]) -> "Batch | BatchInMemory":
    """Put samples together; those that are left out leave their problems only."""
    squares = [sample.square for sample in samples if sample.square is not None]
    problems = [problem for sample in samples for problem in sample.problems]
    if not squares:
        return Batch(torch.empty(0), torch.empty(0), problems)
    batch = Batch(
        torch.stack([photo for photo, _ in squares]), torch.stack([labels for _, labels in squares]), problems
    )
    return BatchInMemory(batch) if get_worker_info() and hasattr(os, "memfd_create") else batch


LITTLE = 2**28
"""Bytes of shared memory under which runs often fail elsewhere, so that people look for the cause there."""


def little_shared_memory() -> str:
    """What to say where there is little shared memory, which a run does not need; "" elsewhere."""
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return ""
    if size >= LITTLE:
        return ""
    return (
        f"/dev/shm has {size / 2**20:,.0f} MB: batches of photos go on without it, in other memory. docker run "
        "--shm-size=1g makes it larger, and --nThreads 0 needs none"
    )


class BatchInMemory:
    """A batch on its way to another process, which reads it where it lies.

    PyTorch's own way takes files in /dev/shm, of which a Docker container has 64 MB; where these are full, batches are
    lost, or the process is killed. This memory is in no file system. Systems other than Linux have none of the kind,
    and no such limit.
    """

    def __init__(self, batch: Batch) -> None:
        from multiprocessing.reduction import DupFd  # Windows has none

        self.shape, self.problems = batch.photos.shape, batch.problems
        with os.fdopen(os.memfd_create("batch"), "wb") as file:
            for tensor in (batch.photos, batch.labels):
                file.write(tensor.numpy().data)
            file.flush()
            self.memory = DupFd(file.fileno())

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        return _received, (self.memory, self.shape, self.problems)


def _received(memory: Any, shape: torch.Size, problems: list[str]) -> Batch:
    """The batch, in the process that has received it."""
    with os.fdopen(memory.detach(), "rb+") as file:
        content = torch.frombuffer(mmap.mmap(file.fileno(), 0), dtype=torch.uint8)
    photos, labels = content[: shape.numel()], content[shape.numel() :]
    return Batch(photos.view(shape), labels.view(shape[0], *shape[2:]), problems)


class Batches(Iterator[tuple[Tensor, Tensor]]):
    """The batches of a loader: (photos (N, 3, H, W), label maps (N, H, W)), both uint8.

    No wait for a batch is endless. An error in a process that loads keeps its message and loses its stack trace. These
    processes live as long as this object, so that what is urgent need not wait for their end.

    Args:
        loader: see ``make_loader``.
        on_problem: is told of each photo that could not be used.

    Raises:
        DataError: see ``Samples``, or the processes that load cannot start or do not answer.
    """

    def __init__(
        self,
        loader: DataLoader[Sample],
        on_problem: Callable[[str], None] = lambda problem: None,
    ) -> None:
        self._loader, self._on_problem = loader, on_problem
        self._loading: Iterator[Batch] | None = None

    def __next__(self) -> tuple[Tensor, Tensor]:
        waited = 0
        while True:
            try:
                photos, labels, problems = next(self._begun())
            except DataError as error:
                raise DataError(re.split(r"^[\w.]+Error: ", str(error).strip(), flags=re.MULTILINE)[-1]) from error
            except RuntimeError as error:
                if "DataLoader timed out" not in str(error):
                    raise
                waited += LOOK_UP  # not by the clock, which goes on while the whole machine sleeps
                if waited >= PATIENCE:
                    raise DataError(
                        f"expected the processes that load photos to give some within {PATIENCE} s, found none; is the "
                        "disk that holds the photos still there? What was saved before is whole"
                    ) from error
                continue
            waited = 0
            for problem in problems:
                self._on_problem(problem)
            if len(photos):
                return photos, labels

    def _begun(self) -> Iterator[Batch]:
        """The processes that load, which are started once the first batch is asked for."""
        if self._loading is None:
            try:
                if self._loader.num_workers:  # PyTorch makes these first, and prints a stack trace where it cannot
                    multiprocessing.Queue(), multiprocessing.Event()
                self._loading = iter(self._loader)
            except OSError as error:
                raise DataError(
                    "expected to start processes that load photos, found that the system does not let them start "
                    f"({error.strerror}); they need memory and a little room in /dev/shm (docker run --shm-size=64m "
                    "gives it some); --nThreads 0 needs neither"
                ) from error
        return self._loading


@contextmanager
def workers_expected() -> Iterator[None]:
    """Say in a sentence that a process that loads photos has died, which PyTorch raises wherever its parent is then.

    At the end, all processes that were started meanwhile are ended.

    Raises:
        DataError: one has.
    """
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    others = multiprocessing.active_children()
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise DataError(
            f"expected the processes that load photos to live, found one dead ({str(error).splitlines()[0]}); often "
            "there is too little memory, and smaller batches (--batchSize) and fewer processes (--nThreads, 0 for "
            "none) need less"
        ) from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # not PyTorch's: those that are left are ended by signals
        _end([process for process in multiprocessing.active_children() if process not in others])
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)


def _end(workers: Sequence[BaseProcess]) -> None:
    """End processes, those too that do not answer."""
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + GRACE
    for worker in workers:
        worker.join(max(0, until - time.monotonic()))
        worker.kill()


def _leave_signals_to_parent(worker: int) -> None:
    """Let Ctrl-C and a launcher's SIGTERM reach the parent only, which saves and then ends its workers by SIGTERM."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # both signals go to a whole process group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # files that are half-written are removed
