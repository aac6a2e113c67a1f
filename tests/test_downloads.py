import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloth_segmentation.errors import RunError
from utils.downloads import ORIGINAL_WEIGHTS, RELEASED_WEIGHTS, Download, fetch

CONTENT = bytes(range(256)) * 400


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        if self.path == "/gone":
            self.send_error(404)
            return
        body = CONTENT[::-1] if self.path == "/wrong" else CONTENT
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    seen: list[str]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.seen = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def offer(server: Server, *paths: str) -> Download:
    addresses = tuple(f"http://127.0.0.1:{server.server_port}{path}" for path in paths)
    return Download("w.pth", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), addresses)


def test_addresses_are_tried_in_turn(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "w.pth"
    fetch(offer(server, "/gone", "/wrong", "/right", "/never"), path)
    assert path.read_bytes() == CONTENT
    assert list(dict.fromkeys(server.seen)) == ["/gone", "/wrong", "/right"]
    assert list(path.parent.iterdir()) == [path]


def test_a_wrong_file_never_gets_the_name(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(RunError) as error:
        fetch(offer(server, "/wrong", "/gone"), path)
    message = str(error.value)
    for part in (
        "/wrong\n    expected sha256",
        "/gone\n    404",
        "By hand",
        str(path),
        f"{len(CONTENT):,} bytes",
    ):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_right_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(CONTENT)
    fetch(offer(server, "/right"), path)
    assert server.seen == []
    path.write_bytes(b"stale")
    fetch(offer(server, "/right"), path)
    assert path.read_bytes() == CONTENT


def test_an_address_of_one_s_own_comes_first(server: Server, tmp_path: Path) -> None:
    own = offer(server, "/right").addresses[0]
    fetch(offer(server, "/never"), tmp_path / "w.pth", first=own)
    assert server.seen == ["/right"]


def test_known_files() -> None:
    assert {name: known.size for name, known in ORIGINAL_WEIGHTS.items()} == {"u2net": 176290937, "u2netp": 4683258}
    assert len(RELEASED_WEIGHTS.addresses) == 2
    for known in (*ORIGINAL_WEIGHTS.values(), RELEASED_WEIGHTS):
        assert len(known.sha256) == 64
        assert all(address.startswith("https://") for address in known.addresses)
