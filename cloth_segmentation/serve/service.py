"""What requests share, the network, threads and places, and the way of a photo through them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cloth_segmentation.command.outputs import Drawing
from cloth_segmentation.command.problems import reason
from cloth_segmentation.segmenter import PHOTO_ERRORS, Seen, Segmenter
from cloth_segmentation.serve.answers import KINDS, render
from cloth_segmentation.serve.batcher import Batcher, batch_size
from cloth_segmentation.serve.metrics import Metrics
from cloth_segmentation.serve.options import ServeOptions
from cloth_segmentation.serve.problems import Problem
from cloth_segmentation.serve.uploads import URLENCODED, TooLargeError, check_photo, kind_of, read_photo_of

RETRY = {"Retry-After": "1"}
"""Seconds after which a client may ask again."""

PIECE = 2**16
"""Bytes of an answer that are sent at once."""

Result = TypeVar("Result")


class Threads:
    """Threads for one kind of work, without a queue: who waits for one and goes away leaves nothing behind.

    Work that has begun goes on when nobody waits for it any more, and its thread is busy until its end.
    """

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)
        self._free = asyncio.Semaphore(count)
        self._count, self._since = count, dict[Future[Any], float]()

    async def run(self, work: Callable[[], Result]) -> Result:
        """What work gives, or raises."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future = self._pool.submit(work)
        self._since[future] = time.monotonic()

        def end() -> None:
            del self._since[future]
            self._free.release()

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the service has ended
                loop.call_soon_threadsafe(end)

        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    def are_busy(self) -> bool:
        """Whether any works."""
        return not all(future.done() for future in self._since)

    def are_stuck(self, seconds: float) -> bool:
        """Whether all of them work for longer than this."""
        long = [since for since in self._since.values() if time.monotonic() - since > seconds]
        return len(long) == self._count


class Asked(NamedTuple):
    """What a request asks for."""

    output: str  # one of ``KINDS``
    garment: str  # the class, for a cut-out
    drawing: Drawing


class Service:
    """What requests share."""

    def __init__(self, segment: Segmenter, opt: ServeOptions) -> None:
        """Make the network warm, and see how many photos it should have at once. Raises RunError and MemoryError."""
        self.segment, self.opt = segment, opt
        self.metrics = Metrics(segment, opt.places)
        self.batcher = Batcher(segment, batch_size(segment, opt.batch_size), self.metrics.batches.observe)
        self.readers, self.drawers = Threads(opt.workers, "read"), Threads(opt.workers, "draw")
        self._taken = 0
        self._network: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the network run."""
        self._network = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            self._network.cancel()
            with suppress(asyncio.CancelledError):
                await self._network

    def is_ready(self) -> bool:
        """Whether photos are segmented: the network runs, and threads are free, or will be soon."""
        stuck = self.readers.are_stuck(self.opt.max_seconds) or self.drawers.are_stuck(self.opt.max_seconds)
        return self._network is not None and not self._network.done() and not stuck

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places for requests. Raises Problem if there is none."""
        if self._taken >= self.opt.places:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"expected one of {self.opt.places} places to be free, found all taken; ask again in a second",
                RETRY,
            )
        self._taken += 1
        self.metrics.taken.set(self._taken)
        try:
            yield
        finally:
            self._taken -= 1
            self.metrics.taken.set(self._taken)

    async def answer(self, request: Request, asked: Asked) -> bytes:
        """The content of the answer. Raises Problem, and ClientDisconnect if there is nobody to answer."""
        end = time.monotonic() + self.opt.max_seconds
        within = f"within {self.opt.max_seconds:g} seconds"
        try:
            with self.metrics.stage("body"):
                photo = await asyncio.wait_for(
                    read_photo_of(request, round(self.opt.max_megabytes * 1e6)), self.opt.max_seconds
                )
        except asyncio.TimeoutError:
            detail = f"expected the whole body {within}, found it still on its way"
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail) from None
        work = asyncio.create_task(self._segment(photo, kind_of(request), asked))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait((work, gone), timeout=end - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return await work
            if gone.done():
                raise ClientDisconnect
            detail = f"expected the answer {within}, found too much to do; ask again later"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, RETRY)
        finally:
            work.cancel()
            gone.cancel()

    async def _segment(self, photo: bytes, kind: str, asked: Asked) -> bytes:
        def read() -> Seen:
            check_photo(photo, self.opt.max_megapixels * 1e6)
            return self.segment.see(photo)

        try:
            with self.metrics.stage("read"):
                seen = await self.readers.run(read)
            with self.metrics.stage("network"):
                logits = await self.batcher.logits(seen.square)
            with self.metrics.stage("draw"):
                return await self.drawers.run(
                    lambda: render(self.segment.segmentation(seen, logits), asked.output, asked.garment, asked.drawing)
                )
        except MemoryError as error:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, reason(photo, error), RETRY) from error
        except PHOTO_ERRORS as error:
            large = isinstance(error, TooLargeError)
            by_d = kind == URLENCODED and b"\n" not in photo  # which a photo has by chance
            hint = "; curl -d takes line breaks out: write --data-binary @FILE" if by_d else ""
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if large else HTTPStatus.UNPROCESSABLE_ENTITY
            raise Problem(status, reason(photo, error) + hint) from error


async def _gone(request: Request) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Reply(Response):
    """The answer to a photo, which is made when it is sent. It has its place until its last byte is gone."""

    def __init__(self, service: Service, request: Request, asked: Asked) -> None:
        super().__init__()
        self.service, self.request, self.asked = service, request, asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Problem."""
        with self.service.place(), suppress(ClientDisconnect):
            content = await self.service.answer(self.request, self.asked)
            self.service.metrics.answers.labels(self.asked.output).inc()
            with suppress(asyncio.TimeoutError):  # a client that does not read loses its connection
                await asyncio.wait_for(self._send(content, send), self.service.opt.max_seconds)

    async def _send(self, content: bytes, send: Send) -> None:
        """Send it in pieces, each of which waits until there is room for it."""
        headers = {"content-type": KINDS[self.asked.output], "content-length": str(len(content))}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        for start in range(0, len(content), PIECE):
            await send({"type": "http.response.body", "body": content[start : start + PIECE], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
