"""What is wrong with a batch is said in a sentence, with an exit code, before Ray starts where it can be."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, fork, write_photos

pytest.importorskip("ray")

import pyarrow as pa
import pyarrow.parquet as pq

import infer_batch
from cloth_segmentation.command.base_options import OptionError
from cloth_segmentation.errors import Error

Make = Callable[[Path], list[str]]
"""Lays a folder out and gives the flags of the command; {photos}, {out} and {here} in them are paths."""


def with_files(*flags: str, **files: bytes) -> Make:
    def make(folder: Path) -> list[str]:
        for name, content in files.items():
            path = folder / name.replace("_DOT_", ".").replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return list(flags)

    return make


def with_table(*flags: str, torn: bool = False, **columns: Any) -> Make:
    def make(folder: Path) -> list[str]:
        path = folder / "t.parquet"
        pq.write_table(pa.table(columns), path)
        if torn:
            path.write_bytes(path.read_bytes()[:-9])
        return [f"--input={path}", *flags]

    return make


def with_earlier_run(
    *flags: str, settings: dict[str, Any] | None = None, part: bytes | None = None, **state: Any
) -> Make:
    """An output with a row of an earlier run, whose settings are those of this one but for some."""

    def make(folder: Path) -> list[str]:
        table = folder / "out" / "table"
        table.mkdir(parents=True)
        made = {
            "weights": weights_sum(folder), "size": [64, 64], "classes": ["upper body", "lower body", "full body"],
            "flip": False, "consistent": True, "min_area": 0.0, "amp": "off", "save": "", "pack": "tree", "crop": False,
            "background": "transparent", "grow": 0, "shrink": 0,
        }  # fmt: skip
        run = {"run": "0" * 12, "host": socket.gethostname(), "pid": 1, "alive": None}
        run |= {"settings": made | (settings or {})}
        (folder / "out" / "run.json").write_text(json.dumps(run | state))
        if part is None:
            pq.write_table(pa.table({"key": ["000.png"]}), table / "part-000000000000-00000.parquet")
        else:
            (table / "mine.parquet").write_bytes(part)
        return list(flags)

    return make


def weights_sum(folder: Path) -> str:
    return (folder / "sha256").read_text()


FREE_PORT = "1"
"""Where nobody listens."""

ROWS: dict[str, tuple[Make, int, str]] = {
    # addresses
    "web address": (
        with_files("--input=https://h/a"),
        1,
        "https://h: expected a path or the address of a bucket, found a web",
    ),
    "web output": (with_files("--output=http://h/a"), 1, "found a web address, which is not fetched"),
    "unknown scheme": (with_files("--input=foo://h/a"), 1, "foo://h: expected .* found one that cannot be used"),
    "no bucket named": (with_files("--input=s3:///a"), 1, "expected the name of a bucket after s3://, found none"),
    "one slash": (with_files("--input=s3:/shop/a"), 1, "expected an address with two slashes, as in s3://, found one"),
    "no adlfs": (
        with_files("--input=az://box/a"),
        1,
        "az://box: expected a file system for az://, found none .*pip install",
    ),
    "memory": (
        with_files("--output=memory://a"),
        1,
        "expected a place that all processes share, found the memory of one",
    ),
    "strange query": (with_files("--input=s3://shop/a?x=SECRET"), 1, "s3://shop: .*Unexpected query parameter"),
    # input
    "no such folder": (
        with_files("--input={here}/no"),
        1,
        "--input .*/no: expected photos, found nothing of that name",
    ),
    "no such input nor name": (
        with_files("--input="),
        2,
        "--input: expected a path or an address, found an empty text",
    ),
    "empty folder": (
        lambda folder: (folder / "empty").mkdir() or ["--input={here}/empty"],
        1,
        "expected photos, .* found an empty folder",
    ),
    "only texts": (with_files("--input={here}/texts", texts__a_DOT_txt=b"1"), 1, r"found none among 1 file \(a\.txt\)"),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe") or ["--input={here}/pipe"], 1, "neither a file nor a folder"),
    "output is input": (
        with_files("--output={photos}"),
        1,
        "expected another place than that of the photos, found the same",
    ),
    "output is input by a link": (
        lambda folder: (folder / "link").symlink_to(folder / "photos") or ["--output={here}/link"],
        1,
        "expected another place than that of the photos, found the same",
    ),
    "input is the pictures": (
        with_files("--input={out}/pictures/mask", out__pictures__mask__a_DOT_png=b"1"),
        1,
        "found what goes to --output",
    ),
    # Parquet files
    "no such column": (with_table("--column=b", a=[b"1"]), 1, r"t\.parquet: expected a column 'b', found a; --column"),
    "two columns": (with_table(a=[b"1"], b=[b"2"]), 1, "expected one column of photos, found a, b; --column names"),
    "column of numbers": (
        with_table("--column=a", a=[1]),
        1,
        r"expected photos \(binary\) or addresses .* found int64",
    ),
    "no fitting column": (with_table(a=[1]), 1, r"expected a column of photos \(binary\) .* found a \(int64\)"),
    "column of a folder": (
        with_files("--column=photo"),
        1,
        "--column photo: expected Parquet files in .*, found other files",
    ),
    "key column of a tar": (
        with_files("--input={here}/t.tar", "--key_column=id", t_DOT_tar=b"1"),
        1,
        r"--key_column id: expected Parquet files in .*t\.tar, found other files",
    ),
    "no key column": (with_table("--key_column=k", a=[b"1"]), 1, "expected a column 'k', found a"),
    "keys of fractions": (with_table("--key_column=k", a=[b"1"], k=[0.5]), 1, "expected names .* found double"),
    "no rows": (with_table(a=pa.array([], pa.binary())), 1, "expected photos, found a table without rows"),
    "torn table": (
        with_table(a=[b"1"], torn=True),
        1,
        r"t\.parquet: expected a Parquet file, found none that can be read",
    ),
    # output
    "output is a file": (with_files("--output={here}/f", f=b"1"), 1, "--output .*/f: expected a folder, found a file"),
    "output below a file": (
        with_files("--output={here}/f/g", f=b"1"),
        1,
        r"found one that cannot be \(Not a directory\)",
    ),
    "output of /proc": (
        with_files("--output=/proc/table"),
        1,
        "expected a place that can be read and written, found one",
    ),
    "earlier run": (
        with_earlier_run(),
        1,
        "expected an empty place, found a table of an earlier run; --resume adds to it",
    ),
    "other weights": (with_earlier_run("--resume", settings={"weights": "x"}), 1, "expected a table with weights '"),
    "other size": (
        with_earlier_run("--resume", "--size=96"),
        1,
        r"expected a table with size \[96, 96\]|size \(96, 96\)",
    ),
    "other pictures": (
        with_earlier_run("--resume", "--save=mask"),
        1,
        "expected a table with save 'mask' .*, found ''",
    ),
    "other flip": (with_earlier_run("--resume", "--flip"), 1, "expected a table with flip True .*, found False"),
    "foreign table": (
        with_earlier_run("--resume", part=b"mine"),
        1,
        r"mine\.parquet: expected a table of infer_batch\.py",
    ),
    "damaged state": (
        with_files("--resume", out__run_DOT_json=b"{"),
        1,
        r"run\.json: expected the file that infer_batch",
    ),
    "two runs": (
        with_earlier_run("--resume", alive=time.time() + 60, pid=os.getppid()),
        1,
        "expected no other run that adds to it",
    ),
    # settings
    "wrong class": (with_files("--only=hat"), 2, "--only: expected some of upper,lower,full, with commas, found 'hat'"),
    "wrong picture": (with_files("--save=mask,json"), 2, "--save: expected some of mask,overlay,cutout,classes"),
    "json": (with_files("--save=json"), 2, "found 'json'; the table has what JSON files say"),
    "crop alone": (with_files("--crop"), 2, "--crop: expected cutout in --save, found ''"),
    "device": (with_files("--device=cuda"), 2, "--device cuda: expected --gpus"),
    "part of two GPUs": (with_files("--gpus=1.5"), 2, "--gpus: expected a share of one GPU, or whole ones, found 1.5"),
    "amp on CPUs": (with_files("--amp=bf16"), 2, "--amp bf16: expected --gpus above 0"),
    "native size": (with_files("--size=native"), 2, "--size native: expected one size for all photos"),
    "no rows a file": (with_files("--rows=0"), 2, "--rows: expected a whole number of at least 1, found 0"),
    "no memory": (with_files("--memory=0"), 2, "--memory: expected a number above 0, found 0.0"),
    "wrong pack": (with_files("--pack=zip"), 2, "--pack: expected one of tree, tar, found 'zip'"),
    "unknown flag": (with_files("--outptu=x"), 2, "--outptu: unknown option; did you mean --output?"),
    "no weights": (with_files("--checkpoint={here}/no.pth"), 1, r"no\.pth: expected a weights file, found none"),
    "damaged weights": (with_files("--checkpoint={here}/w.pth", w_DOT_pth=b"junk"), 1, r"w\.pth: expected"),
    # clusters
    "no cluster": (
        with_files(f"--address=127.0.0.1:{FREE_PORT}"),
        1,
        "--address 127.0.0.1:1: expected a Ray cluster, found none",
    ),
    "no client": (
        with_files(f"--address=ray://127.0.0.1:{FREE_PORT}"),
        1,
        "expected the address of a cluster's head, such as head:6379, found one for programs outside",
    ),
    "no address": (with_files("--address=nonsense"), 1, "--address nonsense: expected a Ray cluster, found none"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 2).images


def laid_out(tmp_path: Path, photos: Path, weights: Path) -> dict[str, str]:
    from cloth_segmentation.files import sha256

    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "sha256").write_text(sha256(weights))
    return {"{photos}": str(photos), "{out}": str(tmp_path / "out"), "{here}": str(tmp_path)}


def segment(argv: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run the command in this process, as far as nothing is wrong; run_script makes the same of its errors."""
    printed, said = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(said):
        try:
            code = infer_batch.main(argv)
        except SystemExit as error:
            code = int(error.code or 0)
        except OptionError as error:
            code = 2
            print(f"infer_batch.py: {error}", file=sys.stderr)
        except Error as error:
            code = 1
            print(f"infer_batch.py: {error}", file=sys.stderr)
    return subprocess.CompletedProcess(argv, code, printed.getvalue(), said.getvalue())


def tell(done: Any, code: int, words: str) -> None:
    """One sentence, one code, no trace."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == (1 if code == 1 or "See " not in done.stderr else 2), done.stderr
    assert lines[0].startswith("infer_batch.py: ")
    assert re.search(words, lines[0]), lines[0]
    assert re.search("expected .* found|unknown option", lines[0]), lines[0]
    assert "SECRET" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ROWS)
def test_it_is_told(name: str, photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["infer_batch.py"])
    make, code, words = ROWS[name]
    paths = laid_out(tmp_path, photos, weights)
    flags = make(tmp_path)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    given = [f"--input={paths['{photos}']}", f"--output={paths['{out}']}", f"--checkpoint={weights}", *flags]
    for place, path in paths.items():
        given = [word.replace(place, path) for word in given]
    began = time.monotonic()
    done = segment(given)
    assert time.monotonic() - began < 60
    tell(done, code, words)
    for path, content in before.items():  # nothing is lost or changed
        assert path.exists()
        assert path.name == "run.json" or (path.is_file() and path.read_bytes()) == content
    new = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path not in before}
    assert new <= ({"out"} if name != "no such folder" else set())
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.mark.parametrize(("flag", "code"), [("--input=nowhere", 1), ("--only=hat", 2), ("--gpus=1.5", 2)])
def test_a_process_ends_with_its_sentence_and_code(flag: str, code: int, weights: Path, tmp_path: Path) -> None:
    flags = [f"--output={tmp_path}/out", f"--checkpoint={weights}", flag]
    tell(fork("infer_batch.py", *flags, folder=tmp_path / "printed"), code, flag.partition("=")[0])


class Forbids(BaseHTTPRequestHandler):
    """An S3 server that lets nobody in."""

    status, code, words = 403, "AccessDenied", "Access Denied"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = f"<Error><Code>{self.code}</Code><Message>{self.words}</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Empty(Forbids):
    """An S3 server without buckets."""

    status, code, words = 404, "NoSuchBucket", "The specified bucket does not exist"


@pytest.fixture
def port_of() -> Iterator[Callable[[type[BaseHTTPRequestHandler] | None], int]]:
    servers = []

    def start(handler: type[BaseHTTPRequestHandler] | None) -> int:
        if handler is None:
            return int(FREE_PORT)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return int(servers[-1].server_address[1])

    yield start
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("flag", ["input", "output"])
@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (Forbids, "ACCESS_DENIED"),
        (Empty, "found no bucket shop|NO_SUCH_BUCKET"),
        pytest.param(None, "NETWORK_CONNECTION", marks=pytest.mark.long),
    ],
)
def test_buckets_that_cannot_be_used_are_told(
    handler: Any,
    words: str,
    flag: str,
    port_of: Any,
    photos: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"s3://shop/a?endpoint_override=127.0.0.1:{port_of(handler)}&scheme=http&region=us-east-1"
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "SECRET", "AWS_EC2_METADATA_DISABLED": "true"}
    flags = [f"--input={photos}", f"--output={tmp_path}/out", f"--checkpoint={weights}", f"--{flag}={address}"]
    began = time.monotonic()
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    done = segment(flags)
    assert time.monotonic() - began < 60
    tell(done, 1, f"--{flag} s3://shop/a: expected .*({words})")


def test_without_ray_it_is_told_what_to_install(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('none here')")
    words = [sys.executable, "infer_batch.py", f"--input={photos}", f"--output={tmp_path}/out"]
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    tell(
        done,
        1,
        r"expected Ray Data, found none .*pip install -r requirements-ray\.txt",
    )
    helped = subprocess.run(
        [sys.executable, "infer_batch.py", "--help"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert helped.returncode == 0
    assert "--key_column" in helped.stdout


@pytest.mark.long
def test_bad_photos_of_all_kinds_are_rows(weights: Path, tmp_path: Path) -> None:
    """With what Ray needs to start once: damage, hostile names, keys that meet, an output among the photos."""
    photos = write_photos(tmp_path, 2).images
    good, broken = ((photos / "000.png").read_bytes(), b"junk")
    source = tmp_path / "source"
    source.mkdir()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, some in (("a.png", good), ("../up.png", good), ("a.png", good), ("b.png", broken), ("c.png", good)):
            member = tarfile.TarInfo(name)
            member.size = len(some)
            tar.addfile(member, io.BytesIO(some))
    end = content.getvalue().rindex(b"c.png")
    (source / "t.tar").write_bytes(content.getvalue()[: end + 700])
    (source / "no.tar").write_bytes(b"no tar")
    flags = [f"--input={source}", f"--output={source}/out", f"--checkpoint={weights}", "--save=mask", "--networks=1"]
    done = fork("infer_batch.py", *flags, folder=tmp_path / "printed")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    table = pq.read_table(source / "out/table").to_pylist()
    problems = {row["key"]: row["problem"] for row in table}
    assert len(problems) == len(table) == 6
    assert problems.pop("t.tar/a.png") is None
    for key, words in {
        "t.tar/../up.png": "expected a name that can be a path",
        "t.tar/a.png 2": "expected a name of its own, found that of an earlier photo",
        "t.tar/b.png": "expected a picture, found",
        "t.tar": "expected a whole tar, found one that cannot be read after",
        "no.tar": "expected a whole tar, found one that cannot be read after 0 photos",
    }.items():
        assert problems[key].startswith(words)
        assert f"Failed: {key}: {words}" in done.stderr
    assert [path.name for path in (source / "out/pictures").rglob("*.png")] == ["a.png.png"]
    assert "left out of the photos" in done.stdout


@pytest.mark.long
def test_a_full_disk_ends_a_batch_that_goes_on_later(weights: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path, 12, size=(300, 300)).images
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root, on Linux")
    try:
        flags = [f"--input={photos}", f"--output={disk}/out", f"--checkpoint={weights}", "--networks=1", "--rows=2"]
        flags += ["--save=cutout", "--pack=tar"]
        done = fork("infer_batch.py", *flags, folder=tmp_path / "printed")
        assert done.returncode == 1, done.stdout
        assert "expected a disk that can be written, found one that cannot be (No space left on device)" in done.stderr
        assert "the same command with --resume goes on from here" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(disk.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        done = fork("infer_batch.py", *flags, "--resume", folder=tmp_path / "printed")
        assert done.returncode == 0, done.stderr
        keys = pq.read_table(disk / "out/table").column("key").to_pylist()
        assert sorted(keys) == sorted(path.name for path in photos.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
