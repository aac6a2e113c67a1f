"""Order of the photos, and batches."""

import os
import signal
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from data import DataError
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


def make_loader(
    squares: TrainingSquares, sampler: Sampler[Draw], *, batch_size: int, workers: int, pin_memory: bool
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of (photos (N, 3, H, W), label maps (N, H, W)), both uint8.

    Args:
        squares: the photos.
        sampler: their order.
        batch_size: N.
        workers: processes that load; 0: this one does.
        pin_memory: speeds up copies to a GPU.
    """
    return DataLoader(
        squares,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # all chance is in the draws' seeds; the global random numbers stay untouched
        worker_init_fn=_leave_signals_to_parent,
    )


def batches(loader: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over the loader; an error in a worker keeps its message and loses the worker's stack trace."""
    try:
        yield from loader
    except DataError as error:
        raise DataError(str(error).strip().rsplit("DataError: ", 1)[-1]) from error


def _leave_signals_to_parent(worker: int) -> None:
    """Let Ctrl-C and a launcher's SIGTERM reach the parent only, which saves and then ends its workers by SIGTERM."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # both signals go to a whole process group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
