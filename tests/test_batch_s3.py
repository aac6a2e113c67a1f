"""Batches whose photos and tables are in buckets, by a real S3 server on this machine that fails at times."""

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from conftest import fork, write_photos

pytest.importorskip("ray")
if importlib.util.find_spec("moto") is None:
    pytest.skip("moto, the S3 server, is not installed", allow_module_level=True)

import pyarrow as pa
import pyarrow.parquet as pq

from cloth_segmentation.batch.stores import Store, open_store

OF_A_LINK = ("transfer-encoding", "connection", "content-length", "expect", "server", "date")
"""Headers that are not passed on."""


class Failing(BaseHTTPRequestHandler):
    """Passes requests on to a server, but for some, which it answers itself."""

    protocol_version = "HTTP/1.1"
    server_port: ClassVar[int]
    answers: ClassVar[list[tuple[str, str, int, str]]]  # method, part of the path, status, code: each is given once
    given: ClassVar[list[int]]
    lock = threading.Lock()

    def answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        with self.lock:
            due = next((one for one in self.answers if self.command == one[0] and one[1] in self.path), None)
            if due:
                self.answers.remove(due)
                self.given.append(due[2])
        if due:
            body = f"<Error><Code>{due[3]}</Code><Message>try again</Message></Error>".encode()
            status, headers = due[2], {"Content-Type": "application/xml"}
        else:
            link = HTTPConnection("127.0.0.1", self.server_port, timeout=30)
            asked = {name: self.headers[name] for name in self.headers if name.lower() not in OF_A_LINK}
            link.request(self.command, self.path, content, asked | {"Content-Length": str(len(content))})
            found = link.getresponse()
            body, status, headers = found.read(), found.status, dict(found.getheaders())
            link.close()
        self.send_response(status)
        length = headers.pop("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
        for name, value in headers.items():
            if name.lower() not in OF_A_LINK:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(NamedTuple):
    port: int
    failing: type[Failing]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    def store(self, path: str) -> Store:
        return open_store(
            f"s3://someone:hidden@{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the buckets photos and tables, reached through one that fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    moto = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    handler = type("Handler", (Failing,), {"server_port": port, "answers": [], "given": []})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        until = time.monotonic() + 60
        for bucket in ("photos", "tables"):
            while True:
                try:
                    asked = urllib.request.Request(f"http://127.0.0.1:{port}/{bucket}", method="PUT")
                    urllib.request.urlopen(asked, timeout=10).close()
                    break
                except OSError:
                    assert moto.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.1)
        yield Server(proxy.server_address[1], handler)
    finally:
        proxy.shutdown()
        moto.kill()
        moto.wait()


def batch(server: Server, folder: Path, weights: Path, *flags: str, env: dict[str, str] | None = None) -> Any:
    words = ["--checkpoint", str(weights), "--networks", "1", *flags]
    environment = {"OMP_NUM_THREADS": "1", **(server.environment if env is None else env)}
    return fork("infer_batch.py", *words, folder=folder / "printed", env=environment)


def table_of(store: Store) -> dict[str, dict[str, Any]]:
    """{key: row}, as infer.py's JSON files have it."""
    rows = [
        row
        for name in (store / "table").files()
        for row in pq.read_table(io.BytesIO((store / "table" / name).read())).to_pylist()
    ]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row.pop("key"): row for row in rows}


def assert_as_infer_has_it(rows: dict[str, dict[str, Any]], expected: Path) -> None:
    """Rows equal the JSON files of infer.py, but for the photo."""
    for key, row in rows.items():
        one = json.loads((expected / key).with_suffix(".json").read_text())
        one.pop("photo")
        assert row["problem"] is None
        assert {name: row[name] for name in one} == one


def segment_alone(photos: Path, weights: Path, folder: Path) -> Path:
    """What infer.py makes of the photos."""
    flags = [f"--input={photos}", f"--output={folder}/alone", f"--checkpoint={weights}", "--save=mask,json"]
    done = fork("infer.py", *flags, folder=folder / "printed")
    assert done.returncode == 0, done.stderr
    return folder / "alone"


def upload(folder: Path, store: Store) -> None:
    for path in sorted(folder.iterdir()):
        (store / path.name).write(path.read_bytes())


@pytest.mark.long
def test_photos_in_a_bucket_become_a_table_in_a_bucket(server: Server, weights: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path, 6).images
    upload(photos, server.store("photos/few/sub"))
    server.store("photos/few/notes.txt").write(b"no photo")
    server.store("photos/few/bad.png").write(b"no picture")
    server.failing.answers += [
        ("GET", "/photos/few/sub/002.png", 500, "InternalError"),
        ("GET", "/photos/few/sub/004.png", 503, "SlowDown"),
        ("PUT", "/tables/few/pictures/mask/sub/001.png.png", 503, "SlowDown"),
        ("PUT", "/tables/few/table/part", 500, "InternalError"),
        ("GET", "list-type", 503, "SlowDown"),
    ]
    server.failing.given.clear()
    done = batch(
        server, tmp_path, weights, "--input=s3://photos/few", "--output=s3://tables/few", "--save=mask", "--rows=4"
    )
    assert done.returncode == 1, done.stderr
    assert sorted(server.failing.given) == [500, 500, 503, 503, 503]
    assert "Failed: bad.png: expected a picture, found" in done.stderr
    assert "Traceback" not in done.stderr
    assert "7 photos in s3://tables/few/table, 1 failed" in done.stdout

    rows = table_of(server.store("tables/few"))
    assert rows.pop("bad.png")["problem"].startswith("expected a picture")
    alone = segment_alone(photos, weights, tmp_path)
    assert set(rows) == {f"sub/{path.name}" for path in photos.iterdir()}
    assert_as_infer_has_it({key.removeprefix("sub/"): row for key, row in rows.items()}, alone)
    for key in rows:
        mask = server.store(f"tables/few/pictures/mask/{key}.png").read()
        assert mask == (alone / Path(key).name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("save", ["tree", "tar"])
def test_sixty_photos_in_a_bucket(save: str, server: Server, weights: Path, tmp_path: Path) -> None:
    """By addresses with an endpoint; of both kinds of pictures; stopped half way, and gone on with."""
    photos = write_photos(tmp_path, int(os.environ.get("PHOTOS", "60"))).images
    upload(photos, server.store(f"photos/sixty-{save}"))
    more = f"?endpoint_override=127.0.0.1:{server.port}&scheme=http&region=us-east-1"
    keys = {name: value for name, value in server.environment.items() if name != "AWS_ENDPOINT_URL"}
    server.failing.answers += [
        ("GET", f"/photos/sixty-{save}/010.png", 500, "InternalError"),
        ("GET", f"/photos/sixty-{save}/020.png", 503, "SlowDown"),
    ]
    server.failing.given.clear()
    flags = [f"--input=s3://photos/sixty-{save}{more}", f"--output=s3://tables/sixty-{save}{more}", "--rows=25"]
    began = time.monotonic()
    done = batch(server, tmp_path, weights, *flags, "--save=mask", f"--pack={save}", env=keys)
    print(f"{time.monotonic() - began:.1f} s", done.stdout)
    assert done.returncode == 0, done.stderr
    assert sorted(server.failing.given) == [500, 503]
    assert "endpoint" not in done.stdout + done.stderr
    assert "endpoint" not in server.store(f"tables/sixty-{save}/run.json").read().decode()
    rows = table_of(server.store(f"tables/sixty-{save}"))
    assert set(rows) == {path.name for path in photos.iterdir()}
    alone = segment_alone(photos, weights, tmp_path)
    assert_as_infer_has_it(rows, alone)
    pictures = server.store(f"tables/sixty-{save}/pictures")
    masks = {}
    for name in pictures.files():
        content = (pictures / name).read()
        if save == "tree":
            masks[name] = content
            continue
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                masks[member.name] = file.read()
    assert masks == {f"mask/{key}.png": (alone / key).read_bytes() for key in rows}

    again = batch(server, tmp_path, weights, *flags, "--save=mask", f"--pack={save}", "--resume", env=keys)
    assert again.returncode == 0, again.stderr
    assert f"Nothing to do: all photos have a row in s3://tables/sixty-{save}/table already" in again.stdout
    assert table_of(server.store(f"tables/sixty-{save}")) == rows


@pytest.mark.long
@pytest.mark.parametrize("kind", ["tar", "parquet", "addresses"])
def test_tars_and_tables_in_a_bucket(kind: str, server: Server, weights: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path, 12).images
    place = server.store(f"photos/{kind}")
    names = sorted(path.name for path in photos.iterdir())
    expected = {f"{place.name}/x": "x"}
    if kind == "tar":
        for number in range(2):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as tar:
                for name in names[number::2]:
                    tar.add(photos / name, name)
            (place / f"{number}.tar").write(file.getvalue())
        expected = {f"{number}.tar/{name}": name for number in range(2) for name in names[number::2]}
    else:
        upload(photos, place / "files")
        columns: dict[str, Any] = {"sku": [f"sku-{number}" for number in range(12)]}
        if kind == "parquet":
            columns["photo"] = [(photos / name).read_bytes() for name in names]
        else:  # relative to the table, and whole
            columns["photo"] = [f"files/{n}" if i % 2 else f"s3://photos/{kind}/files/{n}" for i, n in enumerate(names)]
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file, row_group_size=5)
        (place / "list.parquet").write(file.getvalue())
        expected = dict(zip(columns["sku"], names, strict=True))
    more = f"?endpoint_override=127.0.0.1:{server.port}&scheme=http&region=us-east-1"
    keys = {name: value for name, value in server.environment.items() if name != "AWS_ENDPOINT_URL"}
    source = f"s3://photos/{kind}" + ("" if kind == "tar" else "/list.parquet") + more
    flags = [f"--input={source}", f"--output={tmp_path}/out", "--rows=5", "--unit=4"]
    done = batch(server, tmp_path, weights, *flags, *([] if kind == "tar" else ["--key_column=sku"]), env=keys)
    assert done.returncode == 0, done.stderr
    rows = table_of(open_store(str(tmp_path / "out")))
    assert set(rows) == set(expected)
    alone = segment_alone(photos, weights, tmp_path)
    assert_as_infer_has_it({expected[key]: row for key, row in rows.items()}, alone)
