"""Order of the photos, and batches."""

import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

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
) -> DataLoader[Sample]:
    """Load photos and label maps in batches, for ``batches``.

    Args:
        squares: the photos.
        sampler: their order.
        batch_size: photos in a batch, less those that are left out.
        workers: processes that load; 0: this one does.
        pin_memory: speeds up copies to a GPU.
        on_bad_sample: see ``Samples``.
    """
    return DataLoader(
        Samples(squares, on_bad_sample),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # all chance is in the draws' seeds; the global random numbers stay untouched
        worker_init_fn=_leave_signals_to_parent,
    )


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples together; those that are left out leave their problems only."""
    squares = [sample.square for sample in samples if sample.square is not None]
    problems = [problem for sample in samples for problem in sample.problems]
    if not squares:
        return Batch(torch.empty(0), torch.empty(0), problems)
    return Batch(torch.stack([photo for photo, _ in squares]), torch.stack([labels for _, labels in squares]), problems)


def batches(
    loader: Iterable[Batch], on_problem: Callable[[str], None] = lambda problem: None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over the loader: (photos (N, 3, H, W), label maps (N, H, W)), both uint8.

    An error in a worker keeps its message and loses the worker's stack trace.

    Args:
        loader: see ``make_loader``.
        on_problem: is told of each photo that could not be used.

    Raises:
        DataError: see ``Samples``.
    """
    try:
        for photos, labels, problems in loader:
            for problem in problems:
                on_problem(problem)
            if len(photos):
                yield photos, labels
    except DataError as error:
        raise DataError(re.split(r"^[\w.]+Error: ", str(error).strip(), flags=re.MULTILINE)[-1]) from error


@contextmanager
def workers_expected() -> Iterator[None]:
    """Say in a sentence that a process that loads photos has died, which PyTorch raises wherever its parent is then.

    Raises:
        DataError: one has.
    """
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise DataError(
            f"expected the processes that load photos to live, found one dead ({str(error).splitlines()[0]}); "
            "often there is too little memory, and fewer of them, or none, need less"
        ) from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)  # not PyTorch's: those that are left are ended by signals too


def _leave_signals_to_parent(worker: int) -> None:
    """Let Ctrl-C and a launcher's SIGTERM reach the parent only, which saves and then ends its workers by SIGTERM."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # both signals go to a whole process group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
