"""The service: an ASGI application around a Segmenter."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

import cloth_segmentation
from cloth_segmentation.command.outputs import Drawing
from cloth_segmentation.command.problems import reason
from cloth_segmentation.errors import DataError
from cloth_segmentation.segmenter import PHOTO_ERRORS, Segmenter
from cloth_segmentation.serve.answers import KINDS, Wanted, output_for, render
from cloth_segmentation.serve.door import Entrance, Lock
from cloth_segmentation.serve.gather import Gatherer, fastest_batch
from cloth_segmentation.serve.metrics import Metrics
from cloth_segmentation.serve.options import ServeOptions
from cloth_segmentation.serve.problems import Problem
from cloth_segmentation.serve.uploads import CURL, FORM, kind_of, read_photo_of

RETRY = "1"
"""Seconds after which a client may ask again that found no place."""

GONE = 499
"""Status of the log for a client that has gone before its answer."""

BODY = {
    "requestBody": {
        "required": True,
        "description": "The file of a photo, or a form with one file.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["photo"],
                    "properties": {"photo": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}

PROBLEMS = {
    400: "Something of the request is wrong.",
    401: "There is no key, or a wrong one.",
    406: "There is no answer of a form that would be accepted.",
    408: "The photo did not come in time.",
    413: "The file, or the photo, is too large.",
    415: "The body is no file of a photo.",
    422: "The file cannot be read as a photo.",
    429: "All places are taken. Retry-After says when to ask again.",
    503: "The answer was not ready in time.",
}


class Service:
    """What requests share: the network, threads, places and numbers."""

    def __init__(self, segment: Segmenter, opt: ServeOptions) -> None:
        """Make the network warm, and see how many photos it should have at once. Raises RunError and MemoryError."""
        self.segment, self.opt = segment, opt
        self.metrics = Metrics(segment, opt.places)
        self.gatherer = Gatherer(segment, opt.batch_size or fastest_batch(segment), self.metrics.batches.observe)
        self.readers = ThreadPoolExecutor(opt.workers, "read")
        self.drawers = ThreadPoolExecutor(opt.workers, "draw")
        self.ready = False
        self._taken = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the network run."""
        task = asyncio.create_task(self.gatherer.run())
        self.ready = True
        try:
            yield
        finally:
            self.ready = False
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def answer(self, request: Request, wanted: Wanted, output: str) -> Response:
        """The answer to a photo. Raises Problem."""
        try:
            drawing = wanted.drawing(self.segment.classes, output)
        except ValueError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
        if self._taken >= self.opt.places:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"expected one of {self.opt.places} places to be free, found all taken; ask again in a second",
                {"Retry-After": RETRY},
            )
        self._taken += 1
        self.metrics.taken.set(self._taken)
        step = ["body"]
        try:
            content = await asyncio.wait_for(self._work(request, wanted, drawing, output, step), self.opt.max_seconds)
        except asyncio.TimeoutError:
            within = f"within {self.opt.max_seconds:g} seconds"
            if step[0] == "body":
                detail = f"expected the whole body {within}, found it still on its way"
                raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None
            detail = f"expected the answer {within}, found too much to do ({step[0]}); ask again later"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": RETRY}) from None
        except ClientDisconnect:
            return Response(status_code=GONE)
        finally:
            self._taken -= 1
            self.metrics.taken.set(self._taken)
        self.metrics.answers.labels(output).inc()
        return Response(content, media_type=KINDS[output])

    async def _work(self, request: Request, wanted: Wanted, drawing: Drawing, output: str, step: list[str]) -> bytes:
        """Read, segment, draw, unless the client goes away. Raises Problem and ClientDisconnect."""
        with self.metrics.stage("body"):
            photo = await read_photo_of(request, round(self.opt.max_megabytes * 1e6))
        step[0] = "work"
        work = asyncio.create_task(self._segment(photo, kind_of(request), wanted, drawing, output))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            return await work
        finally:
            work.cancel()
            gone.cancel()

    async def _segment(self, photo: bytes, kind: str, wanted: Wanted, drawing: Drawing, output: str) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            with self.metrics.stage("read"):
                seen = await loop.run_in_executor(self.readers, self.segment.see, photo)
            with self.metrics.stage("network"):
                logits = await self.gatherer.logits(seen.square)

            def draw() -> bytes:
                return render(self.segment.segmentation(seen, logits), output, wanted.garment, drawing)

            with self.metrics.stage("draw"):
                return await loop.run_in_executor(self.drawers, draw)
        except MemoryError as error:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, reason(photo, error), {"Retry-After": RETRY}) from error
        except PHOTO_ERRORS as error:
            large = isinstance(error, DataError) and "expected at most" in str(error)
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if large else HTTPStatus.UNPROCESSABLE_ENTITY
            hint = "; curl -d takes line breaks out, --data-binary does not" if kind == CURL else ""
            raise Problem(status, reason(photo, error) + hint) from error


async def _gone(request: Request) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create(segment: Segmenter, opt: ServeOptions, keys: Sequence[str] = ()) -> FastAPI:
    """The application.

    Args:
        segment: what segments.
        opt: how to serve; its weights were loaded already.
        keys: of which requests must bring one; none: all may ask.

    Raises:
        RunError: the network does not work.
        MemoryError: there is too little for it.
    """
    # Pillow warns from here on, and refuses twice as many, when it has read the header of a photo.
    Image.MAX_IMAGE_PIXELS = round(opt.max_megapixels * 1e6) // 2
    service = Service(segment, opt)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app: FastAPI = FastAPIOffline(
        title="Cloth segmentation",
        version=cloth_segmentation.__version__,
        description="A photo of people in, the shapes of their clothes out.",
        lifespan=lifespan,
        redoc_url=None,
    )
    answers: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "What the photo shows, in the form that was asked for.",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"} if "json" not in kind else {"type": "object"}}
                for kind in KINDS.values()
            },
        },
        **{
            status: {"description": text, "content": {"application/problem+json": {}}}
            for status, text in PROBLEMS.items()
        },
    }

    @app.post("/v1/segment", openapi_extra=BODY, responses=answers, response_class=Response, tags=["photos"])
    async def segment_photo(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        """Find the clothes in a photo."""
        output = wanted.output or output_for(request.headers.get("accept", "*/*"))
        if output is None:
            raise Problem(
                HTTPStatus.NOT_ACCEPTABLE,
                f"Accept: expected one of {', '.join(dict.fromkeys(KINDS.values()))}, found "
                f"{request.headers['accept']!r}",
            )
        return await service.answer(request, wanted, output)

    @app.get("/v1/classes", tags=["photos"])
    async def classes() -> dict[str, Any]:
        """What the weights tell apart, and the colours of masks."""
        known = segment.classes
        return {
            "weights": segment.weights(),
            "classes": [
                {"id": number, "name": name, "short_name": known.short_name(name), "color": list(known.palette[number])}
                for number, name in enumerate(known.names)
            ],
        }

    @app.get("/healthz", tags=["service"])
    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"], responses={503: {"description": "It ends."}})
    async def ready() -> dict[str, str]:
        """Whether photos are taken."""
        if not service.ready:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "expected a service that goes on, found one that ends")
        return {"status": "ready"}

    @app.get("/metrics", tags=["service"], response_class=Response)
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return error.answer(request.scope["request_id"])

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        found = f"{request.method} {request.url.path}"
        detail = {
            404: f"expected a path of this service, such as /v1/segment, found {found}; /docs lists them",
            405: f"expected another method for this path, found {found}; /docs lists them",
        }.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        return Problem(HTTPStatus(error.status_code), detail, headers).answer(request.scope["request_id"])

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return Problem(HTTPStatus.BAD_REQUEST, _wrong_parameter(error)).answer(request.scope["request_id"])

    app.state.service = service
    app.add_middleware(Lock, keys=keys)
    if origins := opt.listed("origins"):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(
        Entrance, hosts=(opt.host, *opt.listed("hosts")), origins=origins, form=opt.log, metrics=service.metrics
    )
    return app


def _wrong_parameter(error: RequestValidationError) -> str:
    """What is wrong with the first parameter that is."""
    found = error.errors()[0]
    name = ".".join(str(part) for part in found["loc"][1:])
    known = [field.alias or name for name, field in Wanted.model_fields.items()]
    if found["type"] == "extra_forbidden":
        return f"{name}: expected one of the parameters {', '.join(known)}, found another"
    expected = {
        "literal_error": f"one of {', '.join(KINDS)}",
        "int_parsing": "a whole number",
        "bool_parsing": "true or false",
        "greater_than_equal": "a number of at least 0",
        "less_than_equal": "a number of at most 10000",
    }.get(found["type"], found["msg"])
    return f"{name}: expected {expected}, found {found.get('input')!r}"
