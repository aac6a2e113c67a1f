"""Answers to requests that cannot be done: problem details (RFC 9457), in our words."""

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

GONE = 499
"""Status of the log for a client that has gone before its answer, as nginx has it."""


class Problem(Exception):  # noqa: N818
    """A request cannot be done.

    Args:
        status: of HTTP.
        detail: what was expected, what was found and what to do.
        headers: that the answer has.
    """

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}

    def answer(self, request: str) -> JSONResponse:
        """The answer to the request of this id."""
        content: dict[str, Any] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "request": request,
        }
        return JSONResponse(content, self.status, self.headers, "application/problem+json")
