"""The service in a process of its own, as people start it, and raw requests to it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from conftest import ROOT, free_port

BUNDLED = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"


class Answer(NamedTuple):
    """What came back on a connection."""

    status: int  # 0: nothing
    headers: dict[str, str]
    body: bytes


class Service(NamedTuple):
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path  # what it prints
    folder: Path  # where its temporary files would be

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def send(self, *parts: bytes | float) -> Answer:
        """Send bytes, and wait where a number of seconds is among them, until an answer comes; what it is."""
        with self.connect() as connection:
            try:
                for part in parts:
                    if isinstance(part, bytes):
                        connection.sendall(part)
                    else:
                        time.sleep(part)
            except OSError:  # it has answered already, and closed
                pass
            return received(connection)

    def line_of(self, request: str) -> str:
        """The line of the log on the request of an id, which is written a little later."""
        end = time.monotonic() + 10
        while True:
            for line in self.log.read_text().splitlines():
                if line.endswith(f" {request}") or f'"id": "{request}"' in line:
                    return line
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def metrics(self) -> dict[str, float]:
        """The numbers that have no labels."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            lines = [line for line in answer.read().decode().splitlines() if line[:1] not in "#" and "{" not in line]
        return {name: float(value) for name, value in (line.split() for line in lines)}


def received(connection: socket.socket) -> Answer:
    """The whole of what comes until the end of a connection."""
    content = b""
    try:
        while part := connection.recv(2**16):
            content += part
    except ConnectionError:
        pass
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = int(first.split()[1]) if first.startswith("HTTP/1.1 ") else 0
    return Answer(status, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body)


def request(
    method: str = "POST", path: str = "/v1/segment", body: bytes | None = b"", **headers: str | list[str] | None
) -> bytes:
    """The bytes of a request. Of headers, _ stands for -, and None leaves one out that there would be."""
    fields: dict[str, Any] = {"Host": "127.0.0.1", "Connection": "close"}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    fields |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1"]
    for name, value in fields.items():
        lines += [f"{name}: {each}" for each in ([] if value is None else [value] if isinstance(value, str) else value)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


@contextmanager
def serving(*flags: object, env: dict[str, str] | None = None) -> Iterator[Service]:
    """Start the service at 64 x 64, and end it."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name, "temporary"), Path(name, "log.txt")
        folder.mkdir()
        words = ["serve.py", f"--checkpoint={BUNDLED}", "--size=64", "--batch_size=1", f"--port={port}", *flags]
        settings = (
            os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(folder)} | (env or {})
        )
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *map(str, words)], cwd=ROOT, env=settings, stdout=file, stderr=subprocess.STDOUT
            )
        service = Service(port, process, log, folder)
        try:
            wait_until_ready(service)
            yield service
        finally:
            process.kill()
            process.wait()


def wait_until_ready(service: Service) -> None:
    end = time.monotonic() + 60
    while True:
        assert service.process.poll() is None, service.log.read_text()
        assert time.monotonic() < end, service.log.read_text()
        try:
            with urllib.request.urlopen(f"{service.url}/readyz"):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
