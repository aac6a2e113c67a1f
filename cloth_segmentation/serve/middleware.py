"""What each request passes on its way to the application: its id and log line, checks of who asks, faults."""

import hmac
import json
import logging
import re
import socket
import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from http import HTTPStatus
from ipaddress import ip_address
from queue import Full, Queue
from threading import Thread

from starlette.datastructures import Headers, MutableHeaders

from cloth_segmentation.command.script import one_line
from cloth_segmentation.serve.headers import Application, Message, Receive, Send
from cloth_segmentation.serve.metrics import Metrics
from cloth_segmentation.serve.problems import GONE, Problem

log = logging.getLogger(__name__)

ID = "x-request-id"
"""Header of the id of a request, which the client may give."""

IDS = re.compile(r"[\w.:-]{1,64}", re.ASCII)
"""Ids that are taken; others are replaced."""

LINES = 10_000
"""Lines of the log that wait to be written."""

LONGEST_PATH = 300
"""Characters of a path in the log."""

OPEN = ("/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json")
"""Paths that need no key. All others do, those that are not there too."""

COUNTED = ("/v1/segment", "/v1/classes", "/metrics", *OPEN)
"""Paths that have numbers of their own; those of others are added up."""

METHODS = ("GET", "HEAD", "POST", "OPTIONS")
"""Methods that have numbers of their own."""


def path_of(scope: Message) -> str:
    """The path of a request below that of the application, which may be mounted on another one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Lines:
    """Writes lines to the terminal in a thread of its own: who reads the log slowly, or no more, holds nobody up."""

    def __init__(self) -> None:
        self._waiting = Queue[str](LINES)
        Thread(target=self._run, daemon=True).start()

    def write(self, line: str) -> None:
        """Write a line, soon; it is left out if too many wait."""
        with suppress(Full):
            self._waiting.put_nowait(line)

    def _run(self) -> None:
        while True:
            line = self._waiting.get()
            with suppress(OSError, ValueError):  # who has read the log is gone
                print(line, flush=True)


class RequestLog:
    """ASGI middleware that gives each request an id, a line in the log, and its numbers.

    Args:
        app: what is behind it.
        form: of the lines, text or json.
        metrics: are counted.
    """

    def __init__(self, app: Application, form: str, metrics: Metrics) -> None:
        self.app, self.form, self.metrics, self.lines = app, form, metrics, Lines()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, given = time.perf_counter(), Headers(scope=scope).get(ID, "")
        scope["request_id"] = given if IDS.fullmatch(given) else uuid.uuid4().hex
        status, count = GONE, 0
        headers = Headers(scope=scope)
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

        async def receive_more() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def send_more(message: Message) -> None:
            nonlocal status, count
            if message["type"] == "http.response.start":
                status = message["status"]
                own = MutableHeaders(scope=message)
                own[ID] = scope["request_id"]
                if unread:  # a body that comes without an end would be read without one
                    own["connection"] = "close"
                if path_of(scope).startswith("/v1/"):
                    own.setdefault("cache-control", "no-store")
            count += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive_more, send_more)
        finally:
            self._note(scope, status, count, time.perf_counter() - began)

    def _note(self, scope: Message, status: int, count: int, seconds: float) -> None:
        path = path_of(scope)
        path = path if path in COUNTED else "/page" if path.startswith("/page") else "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.requests.labels(path, method, status).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        entry = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "client": (scope.get("client") or ("-",))[0],
            "method": scope["method"],
            "path": scope["raw_path"].decode("ascii", "backslashreplace")[:LONGEST_PATH],  # as it came: without spaces
            "status": status,
            "bytes": count,
            "milliseconds": round(seconds * 1000),
            "id": scope["request_id"],
        }
        text = json.dumps(entry) if self.form == "json" else " ".join(one_line(str(each)) for each in entry.values())
        self.lines.write(text)


class SourceCheck:
    """ASGI middleware that refuses requests that are meant for another server, or come from a page of one.

    Args:
        app: what is behind it.
        hosts: names under which the service is reached.
        origins: addresses of servers whose pages may ask.
    """

    def __init__(self, app: Application, hosts: Collection[str], origins: Collection[str]) -> None:
        self.app = app
        self.hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self.origins = {origin.lower() for origin in origins}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none
            await send({"type": "websocket.close", "code": 1008})
            return
        problem = self._problem(scope) if scope["type"] == "http" else None
        await (problem.answer(scope["request_id"]) if problem else self.app)(scope, receive, send)

    def _problem(self, scope: Message) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        name = re.sub(r":\d*$", "", host)
        if not (name in self.hosts or _is_address(name.strip("[]"))):
            return Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"Host: expected a name of this service, found {host!r}; --hosts tells it its names",
            )
        origin = headers.get("origin", "").lower()
        if origin and origin not in self.origins and origin != f"{scope['scheme']}://{host}":
            return Problem(
                HTTPStatus.FORBIDDEN,
                f"Origin: expected a page that may ask, found {origin!r}; --origins names those that may",
            )
        return None


def _is_address(name: str) -> bool:
    """Whether this is an IP address, which no page of another server can have for a name."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class KeyCheck:
    """ASGI middleware that refuses requests without a key, unless they ask for what is open to all.

    Args:
        app: what is behind it.
        keys: of which one is enough; none: all is open.
    """

    def __init__(self, app: Application, keys: Sequence[str]) -> None:
        self.app, self.keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http" and self.keys and not self._is_open(path_of(scope)):
            headers = Headers(scope=scope)
            scheme, _, bearer = headers.get("authorization", "").partition(" ")
            given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            # All are compared, in constant time, so that the time tells nothing.
            if not sum(hmac.compare_digest(given.encode(), key) for key in self.keys):
                found = "another one" if given else "none"
                app = Problem(
                    HTTPStatus.UNAUTHORIZED,
                    f"expected a key of this service, as Authorization: Bearer KEY or X-API-Key: KEY, found {found}",
                    {"WWW-Authenticate": "Bearer"},
                ).answer(scope["request_id"])
        await app(scope, receive, send)

    @staticmethod
    def _is_open(path: str) -> bool:
        return path in OPEN or path.startswith("/static-offline-docs/")


class Faults:
    """ASGI middleware that answers what should not have been raised, and writes it to the log."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        begun = False

        async def send_more(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_more)
        except Exception:
            if scope["type"] != "http":
                raise
            request = scope["request_id"]
            log.exception("%s: a fault of the service", request)
            if not begun:
                detail = f"expected an answer, found a fault of the service; its log has more under {request}"
                await Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).answer(request)(scope, receive, send)
