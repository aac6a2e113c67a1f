"""The service: an ASGI application around a Segmenter."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import cloth_segmentation
from cloth_segmentation.command.infer_options import FURTHEST
from cloth_segmentation.segmenter import Segmenter
from cloth_segmentation.serve.answers import KINDS, SegmentQuery, output_for
from cloth_segmentation.serve.headers import OwnHeaders
from cloth_segmentation.serve.middleware import Faults, KeyCheck, RequestLog, SourceCheck
from cloth_segmentation.serve.options import ServeOptions
from cloth_segmentation.serve.problems import Problem
from cloth_segmentation.serve.service import Asked, Reply, Service
from cloth_segmentation.serve.uploads import FORM

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
    503: "The answer was not ready in time, or memory is short.",
}


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
    async def segment_photo(request: Request, query: Annotated[SegmentQuery, Query()]) -> Response:
        """Find the clothes in a photo."""
        given = [name for name, _ in request.query_params.multi_items()]
        if several := sorted({name for name in given if given.count(name) > 1}):
            raise Problem(HTTPStatus.BAD_REQUEST, f"{several[0]}: expected it once, found it more often")
        accept = ",".join(request.headers.getlist("accept")) or "*/*"
        output = query.output or output_for(accept)
        if output is None:
            kinds = ", ".join(dict.fromkeys(KINDS.values()))
            raise Problem(HTTPStatus.NOT_ACCEPTABLE, f"Accept: expected one of {kinds}, found {accept!r}")
        try:
            drawing = query.drawing(segment.classes, output)
        except ValueError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
        return Reply(service, request, Asked(output, query.garment, drawing))

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
    @app.head("/healthz", include_in_schema=False)
    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"], responses={503: {"description": "The network, or its threads, hang."}})
    @app.head("/readyz", include_in_schema=False)
    async def ready() -> dict[str, str]:
        """Whether photos are segmented."""
        if not service.is_ready():
            detail = "expected a network that runs, found that it has ended, or that all threads are busy for too long"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        return {"status": "ready"}

    @app.get("/metrics", tags=["service"], response_class=Response)
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return error.answer(request.scope["request_id"])

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        found = f"{request.method} {request.scope['path']}"
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
    # The last one is the first that a request meets.
    app.add_middleware(KeyCheck, keys=keys)
    app.add_middleware(Faults)
    if origins := opt.listed("origins"):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(SourceCheck, hosts=(opt.host, *opt.listed("hosts")), origins=origins)
    app.add_middleware(OwnHeaders)
    app.add_middleware(RequestLog, form=opt.log, metrics=service.metrics)
    return app


def _wrong_parameter(error: RequestValidationError) -> str:
    """What is wrong with the first parameter that is."""
    found = error.errors()[0]
    name = ".".join(str(part) for part in found["loc"][1:])
    known = [field.alias or name for name, field in SegmentQuery.model_fields.items()]
    if found["type"] == "extra_forbidden":
        return f"{name}: expected one of the parameters {', '.join(known)}, found another"
    expected = {
        "literal_error": f"one of {', '.join(KINDS)}",
        "int_parsing": "a whole number",
        "int_parsing_size": f"a number of at most {FURTHEST}",
        "bool_parsing": "true or false",
        "greater_than_equal": "a number of at least 0",
        "less_than_equal": f"a number of at most {FURTHEST}",
    }.get(found["type"], found["msg"])
    return f"{name}: expected {expected}, found {found.get('input')!r}"
