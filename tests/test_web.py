import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cloth_segmentation.errors import RunError
from cloth_segmentation.serve.headers import OwnHeaders
from utils.web import StayHere, free_address, sweep


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("192.0.2.1", 443))),
        ("socket.connect", (None, ("2001:db8::1", 443, 0, 0))),
        ("socket.sendto", (None, ("192.0.2.1", 53))),
        ("socket.sendmsg", (None, ("192.0.2.1", 53))),
        ("socket.gethostbyaddr", ("192.0.2.1",)),
        ("socket.getnameinfo", (("192.0.2.1", 53),)),
        ("socket.getaddrinfo", ("api.gradio.app", 443, 0, 0, 0)),
        ("socket.getaddrinfo", (b"api.gradio.app", 443, 0, 0, 0)),
        ("socket.gethostbyname", ("api.gradio.app",)),
    ],
)
def test_connections_to_other_machines_are_refused(event: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(PermissionError, match="expected a connection to this machine, found one to "):
        StayHere({"127.0.0.1"})(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("127.0.0.1", 7860))),
        ("socket.connect", (None, ("::1", 7860, 0, 0))),
        ("socket.connect", (None, "/run/socket")),
        ("socket.connect", (None, ("192.0.2.7", 7860))),
        ("socket.getaddrinfo", ("localhost", 7860, 0, 0, 0)),
        ("socket.getaddrinfo", (None, 7860, 0, 0, 0)),
        ("socket.getaddrinfo", ("this-machine", 7860, 0, 0, 0)),
        ("open", ("192.0.2.1", "r", 0)),
    ],
)
def test_connections_to_this_machine_are_not(event: str, arguments: tuple[Any, ...]) -> None:
    StayHere({"192.0.2.7", "this-machine"})(event, arguments)


def test_a_free_address_is_given_with_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            RunError, match=f"^--host 127.0.0.1 --port {port}: expected .* free, found .*; name another"
        ):
            free_address("127.0.0.1", port)
    assert free_address("127.0.0.1", port) == {"127.0.0.1"}
    assert {"localhost", "127.0.0.1"} <= free_address("localhost", port)


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(RunError, match="expected an address of this machine"):
        free_address("192.0.2.1", 7860)


def test_answers_get_headers() -> None:
    sent: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"page"})

    async def keep(message: Any) -> None:
        sent.append(message)

    asyncio.run(OwnHeaders(page)({"type": "http"}, None, keep))  # type: ignore[arg-type]
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b"text/html"
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'; ")
    assert sent[1] == {"type": "http.response.body", "body": b"page"}


def test_old_files_go(tmp_path: Path) -> None:
    for name in ("sub/old", "sub/new", "empty/old", "fresh/new"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("sub/old", "sub", "empty/old", "fresh"):
        os.utime(tmp_path / name, (0, 0))
    sweep(tmp_path, 3600)
    os.utime(tmp_path / "empty", (0, 0))  # it was changed just now
    sweep(tmp_path, 3600)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["fresh", "fresh/new", "sub", "sub/new"]
