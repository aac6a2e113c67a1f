"""One network for many requests: photos that wait together go through it together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cloth_segmentation.segmenter import Segmenter

PATIENCE = 0.003
"""Seconds for which a batch that is not full waits for more photos."""

MAX_BATCH = 8
"""Photos of the largest batch that is tried."""

WORTHWHILE = 0.95
"""A batch of twice as many photos is taken if its time for each is under this share of that of the smaller one."""


def batch_size(segment: Segmenter, wanted: int) -> int:
    """How many photos should go through the network at once; makes it warm on the way.

    Args:
        segment: the network.
        wanted: 0: what is fastest here, which is measured.

    Raises:
        RunError: the network gives no finite logits.
        MemoryError: there is too little for a single photo.
    """
    width, height = segment.size or (320, 320)
    square = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)

    def seconds(count: int) -> float:
        segment.logits([square] * count)  # the first run of a size prepares memory
        began = time.perf_counter()
        segment.logits([square] * count)
        return (time.perf_counter() - began) / count

    best, size = seconds(1), 1
    if wanted or segment.size is None:  # photos of their own sizes cannot share a batch
        return wanted or 1
    while size < MAX_BATCH:
        try:
            larger = seconds(2 * size)
        except MemoryError:
            break
        if larger > WORTHWHILE * best:
            break
        best, size = larger, 2 * size
    return size


Pending = asyncio.Future[NDArray[np.float32]]
"""Logits that will be there."""


class Batcher:
    """Runs the network in a thread of its own, on photos of many requests.

    Args:
        segment: the network.
        batch_size: photos that go through it at once, at most.
        tell: is told the number of photos of each batch.
    """

    def __init__(self, segment: Segmenter, batch_size: int, tell: Callable[[int], None]) -> None:
        self.segment, self.batch_size, self.tell = segment, batch_size, tell
        self._waiting: deque[tuple[NDArray[np.uint8], Pending]] = deque()
        self._some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "network")

    async def logits(self, square: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A squashed photo (H, W, 3) -> logits (C, H, W). If the caller is cancelled, the photo loses its place.

        Errors are those of ``Segmenter.logits``.
        """
        future: Pending = asyncio.get_running_loop().create_future()
        self._waiting.append((square, future))
        self._some.set()
        return await future

    async def run(self) -> None:
        """Serve ``logits``, until this is cancelled."""
        while True:
            await self._some.wait()
            if len(self._waiting) < self.batch_size:
                await asyncio.sleep(PATIENCE)
            batch = list[tuple[NDArray[np.uint8], Pending]]()
            while self._waiting and len(batch) < self.batch_size:
                square, future = self._waiting.popleft()
                if not future.done():  # cancelled: its client has gone
                    batch.append((square, future))
            if not self._waiting:
                self._some.clear()
            if batch:
                squares, futures = zip(*batch, strict=True)
                await self._segment(squares, futures)

    async def _segment(self, squares: Sequence[NDArray[np.uint8]], futures: Sequence[Pending]) -> None:
        self.tell(len(squares))
        loop = asyncio.get_running_loop()
        try:
            done = await loop.run_in_executor(self._thread, self.segment.logits, squares)
            for future, logits in zip(futures, done, strict=True):
                if not future.done():
                    future.set_result(logits)
        except MemoryError as error:
            if len(squares) > 1:  # each may fit alone
                for square, future in zip(squares, futures, strict=True):
                    await self._segment([square], [future])
            else:
                _fail(futures, error)
        except Exception as error:  # each of the requests answers it
            _fail(futures, error)


def _fail(futures: Sequence[Pending], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
