"""The client of the service, against the service, and against one that is busy."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, free_port

pytest.importorskip("fastapi_offline")
pytest.importorskip("httpx")

from service import BUNDLED, Service, serving

from cloth_segmentation import Segmenter
from cloth_segmentation.client import Client, ServiceError

HOPPER = ROOT / "input_images" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving(env={"CLOTH_SEGMENTATION_KEYS": "k"}) as started:
        yield started


def test_it_gives_what_the_library_gives(service: Service) -> None:
    one = Segmenter.load(BUNDLED, device="cpu", size=64)(HOPPER)
    with Client(service.url, "k") as client:
        assert client(HOPPER) == one.to_dict() | {"photo": None}
        assert client(HOPPER.read_bytes(), only="upper") == one.only("upper").to_dict() | {"photo": None}
        assert (np.asarray(client.mask(str(HOPPER), grow=5)) == one.grown(5).labels).all()
        assert client.overlay(HOPPER).size == one.size
        cutout = client.cutout(HOPPER, "upper", crop=True)
        assert cutout.tobytes() == one.cutout("upper", crop=True).tobytes()
        assert "photo_cutout_upper.png" in client.files(HOPPER)
        assert [each["short_name"] for each in client.classes()] == ["background", "upper", "lower", "full"]


def test_what_is_refused_is_told_at_once(service: Service, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_text("no photo")
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"expected a picture .*found") as raised, Client(service.url, "k") as client:
        client(tmp_path / "no.jpg")
    assert raised.value.status == 422
    assert " 422 " in service.line_of(raised.value.request)
    with pytest.raises(ServiceError, match=r"expected a key of this service, .*found another one"):
        Client(service.url, "wrong")(HOPPER)
    with pytest.raises(ServiceError, match="outptu: expected one of the parameters"):
        Client(service.url, "k")(HOPPER, outptu="mask")
    with pytest.raises(FileNotFoundError):
        Client(service.url, "k")(tmp_path / "none.jpg")
    assert time.monotonic() - began < 5


@pytest.fixture
def busy() -> Iterator[Callable[..., tuple[str, list[float]]]]:
    """Starts a server with a list of answers; gives its address, and the times at which it was asked."""
    servers = []

    def start(*answers: tuple[int, dict[str, str]] | None) -> tuple[str, list[float]]:
        left, times = list(answers), list[float]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                times.append(time.monotonic())
                self.rfile.read(int(self.headers["Content-Length"]))
                if (answer := left.pop(0)) is None:  # the connection breaks
                    self.close_connection = True
                    return
                status, headers = answer
                body = json.dumps({"detail": "busy", "request": "r"} if status != 200 else {"classes": []}).encode()
                if headers.pop("Server", ""):
                    body = b"a proxy's page"
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}", times

    yield start
    for server in servers:
        server.shutdown()


def test_it_asks_again_where_that_can_help(busy: Any) -> None:
    url, times = busy((429, {"Retry-After": "1"}), (503, {}), None, (200, {}))
    assert Client(url, tries=4)(HOPPER) == {"classes": []}
    first, second, third = np.diff(times)
    assert 1.0 <= first < 2.5  # as it was told
    assert 1.0 <= second < 2.5
    assert 2.0 <= third < 3.5


def test_faults_of_a_proxy_may_pass_and_those_of_the_service_stay(busy: Any) -> None:
    url, times = busy((500, {"Server": "proxy"}), (200, {}))
    assert Client(url)(HOPPER) == {"classes": []}
    assert len(times) == 2
    url, times = busy((404, {"Server": "proxy"}))
    with pytest.raises(ServiceError, match="expected an answer of the service, found 404 Not Found"):
        Client(url)(HOPPER)
    assert len(times) == 1


def test_in_the_end_it_gives_up(busy: Any) -> None:
    url, times = busy((429, {}), (429, {}))
    with pytest.raises(ServiceError, match="busy") as raised:
        Client(url, tries=2)(HOPPER)
    assert (len(times), raised.value.status, raised.value.request) == (2, 429, "r")
    url, times = busy((500, {}))
    with pytest.raises(ServiceError, match="busy"):
        Client(url)(HOPPER)
    assert len(times) == 1
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServiceError, match=rf"{url}.*: expected an answer of the service, found none"):
        Client(url, tries=2)(HOPPER)
    with pytest.raises(ValueError, match="tries: expected a whole number of at least 1, found 0"):
        Client(url, tries=0)
