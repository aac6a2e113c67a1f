"""Servers, networks and disks that fail, and what is said of them: real downloads from a server on this computer."""

import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import certifi
import pytest
from conftest import Fork, python

from cloth_segmentation.errors import RunError
from utils.downloads import ORIGINAL_WEIGHTS, Download, fetch

CONTENT = bytes(range(256)) * 3000
CUT = 600_000
KEPT = 2**19  # gdown writes blocks of this size
TIMEOUT = 0.25


class Server(ThreadingHTTPServer):
    """Answers as its ``behave`` says; ``asked`` has each request's path and Range."""

    daemon_threads = True
    behave: "Callable[[Handler], object]"
    tls: ssl.SSLContext

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []

    def address(self, path: str = "/w.pth") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that leaves early


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        self.server.behave(self)

    def do_CONNECT(self) -> None:
        """Be a proxy that answers in the name of each host, by HTTPS."""
        self.answer(200, None)
        Handler(self.server.tls.wrap_socket(self.connection, server_side=True), self.client_address, self.server)

    @property
    def times(self) -> int:
        """How many requests there were, this one included."""
        return len(self.server.asked)

    def answer(self, code: int, length: int | None, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def offer(*addresses: str) -> Download:
    return Download("w.pth", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), addresses)


def failure(download: Download, path: Path) -> str:
    with pytest.raises(RunError) as error:
        fetch(download, path, timeout=TIMEOUT, pause=0)
    return str(error.value)


def whole(request: Handler) -> None:
    request.answer(200, len(CONTENT), CONTENT)


def cut(request: Handler) -> None:
    request.answer(200, len(CONTENT), CONTENT[:CUT])


def goes_on(request: Handler) -> None:
    """Cut in the middle at first, then from where it was cut."""
    if request.headers["Range"] is None:
        cut(request)
    else:
        begin = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        size = len(CONTENT)
        request.answer(206, size - begin, CONTENT[begin:], Content_Range=f"bytes {begin}-{size - 1}/{size}")


def never_goes_on(request: Handler) -> None:
    """Cut in the middle at first; all of it is sent again whatever is asked for."""
    cut(request) if request.times == 1 else whole(request)


def forever(request: Handler) -> None:
    request.answer(200, None)
    while True:
        request.wfile.write(bytes(2**16))


PAGE = b"<!DOCTYPE html><title>Quota exceeded</title>"

ENDS_WELL: dict[str, tuple[Callable[[Handler], object], list[tuple[str, str | None]]]] = {
    "of no announced length": (lambda r: r.answer(200, None, CONTENT), [("/w.pth", None)]),
    "cut, goes on": (goes_on, [("/w.pth", None), ("/w.pth", None), ("/w.pth", f"bytes={KEPT}-")]),
    "cut, then busy, goes on": (
        lambda r: r.answer(503, 0) if r.times == 2 else goes_on(r),
        [("/w.pth", None)] * 3 + [("/w.pth", f"bytes={KEPT}-")],
    ),
    "cut, starts again": (
        never_goes_on,
        [("/w.pth", None), ("/w.pth", None), ("/w.pth", f"bytes={KEPT}-"), ("/w.pth", None)],
    ),
    "busy at first": (lambda r: r.answer(503, 0) if r.times == 1 else whole(r), [("/w.pth", None)] * 2),
    "moved": (
        lambda r: r.answer(302, 0, Location="/there") if r.path != "/there" else whole(r),
        [("/w.pth", None), ("/there", None)],
    ),
}


@pytest.mark.parametrize("kind", ENDS_WELL)
def test_a_download_that_ends_well(kind: str, server: Server, tmp_path: Path) -> None:
    server.behave, asked = ENDS_WELL[kind]
    path = tmp_path / "new" / "w.pth"
    fetch(offer(server.address()), path, timeout=5, pause=0)
    assert path.read_bytes() == CONTENT
    assert server.asked == asked
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == path.parent.stat().st_mode & 0o666  # as any new file


ENDS_BADLY: dict[str, tuple[Callable[[Handler], object], str, int]] = {
    "no such file": (lambda r: r.answer(404, 0), "404 Client Error", 1),
    "busy all the time": (lambda r: r.answer(503, 0), "503 Server Error", 3),
    "another file": (
        lambda r: r.answer(200, len(CONTENT), CONTENT[::-1]),
        f"expected sha256 {hashlib.sha256(CONTENT).hexdigest()}, found "
        f"{hashlib.sha256(CONTENT[::-1]).hexdigest()} in 768,000 bytes",
        1,
    ),
    "a web page": (lambda r: r.answer(200, len(PAGE), PAGE), "found a web page (Quota exceeded)", 1),
    "a web page of no announced length": (lambda r: r.answer(200, None, PAGE), "found a web page (Quota exceeded)", 1),
    "nothing": (lambda r: r.answer(200, 0), "in 0 bytes", 1),
    "cut every time": (cut, "the connection broke off, after 524,288 of 768,000 bytes", 7),
    "a smaller file": (lambda r: r.answer(200, 5, b"hello"), "expected 768,000 bytes, found 5", 1),
    "a larger file": (lambda r: r.answer(200, 10**9, CONTENT), "expected 768,000 bytes, found 1,000,000,000", 1),
    "without an end": (forever, "expected 768,000 bytes, found more", 1),
    "moved in a circle": (lambda r: r.answer(302, 0, Location="/w.pth"), "Exceeded 30 redirects", 31),
    "silent": (lambda r: time.sleep(2 * TIMEOUT), f"expected an answer within {TIMEOUT} s, found none", 3),
    "silent in the middle": (
        lambda r: (cut(r), time.sleep(2 * TIMEOUT)),
        f"expected an answer within {TIMEOUT} s, found none, after 524,288 of 768,000 bytes",
        7,
    ),
    "no HTTP": (lambda r: r.wfile.write(b"220 mail.example ESMTP\r\n"), "Connection aborted", 3),
}


@pytest.mark.parametrize("kind", ENDS_BADLY)
def test_a_download_that_fails_is_named(kind: str, server: Server, tmp_path: Path) -> None:
    """A file that is there stays, nothing is left beside it, and each address is said with what it gave."""
    server.behave, words, times = ENDS_BADLY[kind]
    path = tmp_path / "w.pth"
    path.write_bytes(b"what was here")
    message = failure(offer(server.address()), path)
    assert f"\n  {server.address()}\n    " in message
    assert words in message.splitlines()[2]
    assert len(message.splitlines()) == 4
    assert f"By hand: open an address in a browser, save the file as {path} (768,000 bytes, sha256 " in message
    assert len(server.asked) == times
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"what was here"


def test_a_line_that_breaks_often_gets_there(server: Server, tmp_path: Path) -> None:
    """What gets farther each time is not given up after some tries."""
    content = bytes(range(256)) * 30_000

    def breaks(request: Handler) -> None:
        begin = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        span = {"Content_Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        part = content[begin : begin + 3 * KEPT]
        request.answer(206 if begin else 200, len(content) - begin, part, **span)

    server.behave = breaks
    path = tmp_path / "w.pth"
    fetch(Download("w.pth", len(content), hashlib.sha256(content).hexdigest(), (server.address(),)), path, pause=0)
    assert path.read_bytes() == content
    begins = [int(asked.removeprefix("bytes=").removesuffix("-")) for _, asked in server.asked if asked]
    assert begins == [3 * KEPT, 6 * KEPT, 9 * KEPT, 12 * KEPT]


@pytest.fixture
def drive(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that stands in for Google Drive."""
    if not shutil.which("openssl"):
        pytest.skip("a certificate is made by openssl, which is not here")
    home, key, certificate = tmp_path / "home", tmp_path / "home" / "key", tmp_path / "home" / "certificate"
    home.mkdir()
    names = "subjectAltName=DNS:drive.google.com,DNS:drive.usercontent.google.com"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]
    request = ["openssl", "req", "-x509", *new_key, "-out", certificate, "-subj", "/CN=drive", "-addext", names]
    subprocess.run(request, check=True, capture_output=True)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(certificate, key)
    monkeypatch.setattr(sys.modules["gdown.download"], "DEFAULT_COOKIES_FILE", str(home / "cookies.txt"))
    for name, value in {
        "HTTPS_PROXY": server.address(""),
        "https_proxy": server.address(""),
        "NO_PROXY": "",
        "no_proxy": "",
        "REQUESTS_CA_BUNDLE": certificate,
    }.items():
        monkeypatch.setenv(name, str(value))
    return server


DRIVE = ORIGINAL_WEIGHTS["u2netp"].addresses[0]
ASKS = (  # on one line, as Drive's own
    b'<!DOCTYPE html><form id="download-form" action="https://drive.usercontent.google.com/download">'
    b'<input type="hidden" name="confirm" value="t"></form>'
)
OVER_QUOTA = (
    b"<!DOCTYPE html><title>Google Drive - Quota exceeded</title>"
    b'<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>'
)


def test_google_drive_asks_first(drive: Server, tmp_path: Path) -> None:
    def ask(request: Handler) -> None:
        if request.path.startswith("/uc?id="):
            request.answer(200, len(ASKS), ASKS, Content_Type="text/html")
        else:
            name = 'attachment; filename="w.pth"'
            request.answer(200, len(CONTENT), CONTENT, Content_Type="x/y", Content_Disposition=name)

    drive.behave = ask
    fetch(offer(DRIVE), tmp_path / "w.pth", pause=0)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [path for path, _ in drive.asked][1:] == ["/download?confirm=t"]


def test_google_drive_is_over_quota(drive: Server, tmp_path: Path) -> None:
    drive.behave = lambda request: request.answer(200, len(OVER_QUOTA), OVER_QUOTA, Content_Type="text/html")
    message = failure(offer(DRIVE), tmp_path / "w.pth")
    assert "Too many users have viewed or downloaded this file recently." in message.splitlines()[2]
    assert len(drive.asked) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_server_that_is_not_who_it_says(drive: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive.behave = whole
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    message = failure(offer(DRIVE), tmp_path / "w.pth")
    assert "    no connection ([SSL: CERTIFICATE_VERIFY_FAILED]" in message
    assert drive.asked == []


def test_a_download_that_is_interrupted_leaves_nothing(server: Server, tmp_path: Path) -> None:
    arrived, over = threading.Event(), threading.Event()

    def stop_in_the_middle(request: Handler) -> None:
        request.answer(200, ORIGINAL_WEIGHTS["u2netp"].size, CONTENT)
        arrived.set()
        over.wait(60)

    server.behave = stop_in_the_middle
    folder, output = tmp_path / "folder", tmp_path / "folder" / "out.pth"
    flags = ["--arch=u2netp", f"--address={server.address()}", f"--output={output}"]
    process = Fork("setup_model_weights.py", *flags, folder=tmp_path / "printed")
    assert arrived.wait(60)
    os.kill(process.process.pid, signal.SIGTERM)
    done = process.wait(60)
    over.set()
    assert (done.returncode, done.stderr) == (1, "setup_model_weights.py: interrupted\n")
    assert list(folder.iterdir()) == []


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/w.pth"
    message = failure(offer(address), tmp_path / "w.pth")
    assert message.splitlines()[2] == "    no connection (Connection refused)"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root, on Linux")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_others_fill_meanwhile(server: Server, small_disk: Path) -> None:
    def fill(request: Handler) -> None:
        (small_disk / "other").write_bytes(bytes(1_800_000))
        whole(request)

    server.behave = fill
    message = failure(offer(server.address("/1"), server.address("/2")), small_disk / "w.pth")
    assert "expected room and leave to write it, found none (No space left on device); make room" in message
    assert [path for path, _ in server.asked] == ["/1"]
    assert [path.name for path in small_disk.iterdir()] == ["other"]
    message = failure(offer(server.address()), small_disk / "w.pth")
    assert "w.pth: expected 0.8 MB of room on its disk, found 0.3 MB; make room" in message
    assert len(server.asked) == 1


def test_a_disk_that_cannot_be_written(server: Server, small_disk: Path) -> None:
    (small_disk / "w.pth").write_bytes(b"what was here")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    message = failure(offer(server.address()), small_disk / "w.pth")
    assert "expected room and leave to write it, found none (Read-only file system)" in message
    assert server.asked == []
    assert (small_disk / "w.pth").read_bytes() == b"what was here"


def test_a_file_larger_than_the_disk_is_not_begun(server: Server, tmp_path: Path) -> None:
    message = failure(Download("w.pth", 2**60, "0", (server.address(),)), tmp_path / "w.pth")
    assert "w.pth: expected 1152921504606.8 MB of room on its disk, found " in message
    assert server.asked == []
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
from cloth_segmentation.errors import RunError
from utils.downloads import Download, fetch
address, total, size, path = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    fetch(Download("w.pth", int(size), total, (address, address)), Path(path))
except RunError as error:
    print(error)
"""


def test_a_disk_that_fills_up_is_said_and_no_other_address_tried(server: Server, tmp_path: Path) -> None:
    server.behave = whole
    total = hashlib.sha256(CONTENT).hexdigest()
    done = python("-c", LIMITED, server.address(), total, len(CONTENT), tmp_path / "w.pth")
    assert "w.pth: expected room and leave to write it, found none (File too large)" in done.stdout, done.stderr
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said_before_the_download(server: Server, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    offered = offer(server.address())
    assert "folder: expected the name of a file to write, found a folder" in failure(offered, tmp_path / "folder")
    assert "found none (File name too long)" in failure(offered, tmp_path / ("w" * 300))
    assert "expected room and leave to write it, found none (" in failure(offered, tmp_path / "file" / "w.pth")
    assert server.asked == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
