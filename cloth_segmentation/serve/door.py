"""What stands before the application: who may come in, and the book of who came."""

import hmac
import json
import logging
import re
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import Headers, MutableHeaders

from cloth_segmentation.command.script import one_line
from cloth_segmentation.serve.headers import HEADERS
from cloth_segmentation.serve.metrics import Metrics
from cloth_segmentation.serve.problems import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

ID = "x-request-id"
"""Header of the id of a request, which the client may give."""

IDS = re.compile(r"[\w.:-]{1,64}", re.ASCII)

OPEN = ("/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json")
"""Paths that need no key. All others do, those that are not there too."""

KNOWN = ("/v1/segment", "/v1/classes", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
"""Paths that have numbers of their own."""


class Entrance:
    """ASGI middleware: gives each request an id, a line in the log and its numbers; checks where it comes from.

    Args:
        app: what is behind it.
        hosts: names under which the service is reached.
        origins: addresses of servers whose pages may ask.
        form: of the log, text or json.
        metrics: are counted.
    """

    def __init__(
        self, app: Application, hosts: Collection[str], origins: Collection[str], form: str, metrics: Metrics
    ) -> None:
        self.app, self.form, self.metrics = app, form, metrics
        self.hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self.origins = {origin.lower() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, headers = time.perf_counter(), Headers(scope=scope)
        given = headers.get(ID, "")
        scope["request_id"] = request = given if IDS.fullmatch(given) else uuid.uuid4().hex
        sent = {"status": 0, "bytes": 0}

        async def send_more(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                own = MutableHeaders(scope=message)
                for name, value in ((ID, request), *HEADERS):
                    own.setdefault(name, value)
                if path_of(scope).startswith("/v1/"):
                    own.setdefault("cache-control", "no-store")
            sent["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            try:
                self._check(scope, headers)
                await self.app(scope, receive, send_more)
            except Problem as problem:
                await problem.answer(request)(scope, receive, send_more)
            except Exception:
                log.exception("%s: a fault of the service", request)
                if not sent["status"]:
                    detail = f"expected an answer, found a fault of the service; its log has more under {request}"
                    await Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).answer(request)(scope, receive, send_more)
        finally:
            self._note(scope, request, time.perf_counter() - began, **sent)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raise Problem if a request is meant for another server, or comes from a page of one."""
        host = headers.get("host", "").lower()
        name = re.sub(r":\d*$", "", host)
        if not (name in self.hosts or _is_address(name.strip("[]"))):
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"Host: expected a name of this service, found {host!r}; --hosts tells it its names",
            )
        origin = headers.get("origin", "").lower()
        if origin and origin not in self.origins and origin != f"{scope['scheme']}://{host}":
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"Origin: expected a page that may ask, found {origin!r}; --origins names those that may",
            )

    def _note(self, scope: Scope, request: str, seconds: float, status: int, bytes: int) -> None:
        path = path_of(scope)
        path = path if path in KNOWN else "/page" if path.startswith("/page") else "other"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        self.metrics.requests.labels(path, method, status).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        entry = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"],
            "path": scope["path"],
            "status": status or 499,  # the client has gone
            "bytes": bytes,
            "milliseconds": round(seconds * 1000),
            "id": request,
        }
        text = json.dumps(entry) if self.form == "json" else " ".join(one_line(str(each)) for each in entry.values())
        print(text, flush=True)


class Lock:
    """ASGI middleware: lets requests in if they bring a key, or ask for what is open to all.

    Args:
        app: what is behind it.
        keys: of which one is enough; none: it is open.
    """

    def __init__(self, app: Application, keys: Sequence[str]) -> None:
        self.app, self.keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Problem."""
        if self.keys and scope["type"] == "http" and not is_open(path_of(scope)):
            headers = Headers(scope=scope)
            scheme, _, bearer = headers.get("authorization", "").partition(" ")
            given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            # All are compared, in constant time, so that the time tells nothing.
            if not sum(hmac.compare_digest(given.encode(), key) for key in self.keys):
                found = "another one" if given else "none"
                raise Problem(
                    HTTPStatus.UNAUTHORIZED,
                    f"expected a key of this service, as Authorization: Bearer KEY or X-API-Key: KEY, found {found}",
                    {"WWW-Authenticate": "Bearer"},
                )
        await self.app(scope, receive, send)


def path_of(scope: Scope) -> str:
    """The path of a request below that of the application, which may be mounted on another one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN or path.startswith("/static-offline-docs/")


def _is_address(name: str) -> bool:
    """Whether this is an IP address, which no page of another server can have for a name."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
