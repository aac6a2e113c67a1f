"""What dies in a run over very many photos: machines, workers, the driver; and what is left of it."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cluster import Cluster, below, kill, processes
from conftest import ROOT, python, start
from PIL import Image

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in Linux's /proc")

CHECKPOINT = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"
FLAGS = ["--checkpoint", CHECKPOINT, "--size", 96]


class Photos(NamedTuple):
    folder: Path
    rows: dict[str, dict[str, Any]]  # what infer.py says of each: {"problem": ...}, or its JSON without ``photo``


def write_jpegs(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(count)
    for number in range(count):
        colors = draw.integers(0, 255, (6, 4, 3)).astype(np.uint8)
        Image.fromarray(colors).resize((120, 180)).save(folder / f"{number:03d}.jpg")


def write_bad(folder: Path) -> None:
    whole = (folder / "000.jpg").read_bytes()
    png = BytesIO()
    Image.open(folder / "000.jpg").save(png, "PNG")
    (folder / "below").mkdir()
    (folder / "005_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "015_empty.jpg").touch()
    (folder / "025_text.jpg").write_text("no photo\n" * 30)
    (folder / "below" / "chunk.png").write_bytes(png.getvalue()[:60] + b"XXXX" + png.getvalue()[64:])


def segmented(folder: Path, into: Path) -> Photos:
    """Photos, and what infer.py says of them."""
    done = python("infer.py", folder, into, *FLAGS, "--save", "json", "--report", into.with_suffix(".csv"))
    assert done.returncode in (0, 1), done.stderr
    rows: dict[str, dict[str, Any]] = {}
    with into.with_suffix(".csv").open(newline="") as file:
        for row in csv.DictReader(file):
            rows[Path(row["photo"]).relative_to(folder).as_posix()] = {"problem": row["problem"]}
    for path in into.rglob("*.json"):
        said = json.loads(path.read_text())
        rows[Path(said.pop("photo")).relative_to(folder).as_posix()] = said
    assert len(rows) == sum(path.is_file() for path in folder.rglob("*"))
    return Photos(folder, rows)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    folder = tmp_path_factory.mktemp("few") / "photos"
    write_jpegs(folder, 56)
    write_bad(folder)
    return segmented(folder, folder.parent / "json")


def batch(photos: Path, output: Path, *more: object, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    words = ["--input", photos, "--output", output, *FLAGS, "--rows", 5, "--unit", 2, *more]
    return start(sys.executable, "infer_batch.py", *words, env=env)


def ended(process: "subprocess.Popen[str]", timeout: float = 200) -> tuple[int, str, str]:
    """Exit code and what was printed; no trace and no line of Ray is among it."""
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for told in ("Traceback", "ray::", "(raylet", "Ray's", "ray.exceptions", "Warning", "WARNING"):
        assert told not in output + errors, errors
    return process.returncode, output, errors


def table(output: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((output / "table").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def wait_for(happened: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    """Wait, as long as a process lives."""
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_files(count: int, output: Path, process: "subprocess.Popen[str]") -> None:
    wait_for(lambda: len(list((output / "table").glob("*.parquet"))) >= count, process)


def assert_complete(output: Path, photos: Photos) -> None:
    """Every photo once, and all as infer.py says it."""
    rows = table(output)
    assert sorted(row["key"] for row in rows) == sorted(photos.rows)
    for row in rows:
        said = photos.rows[row["key"]]
        assert {name: row[name] for name in said} == said
        assert (row["problem"] is None) == ("problem" not in said)
    assert json.loads((output / "run.json").read_text())["alive"] is None


def assert_gone(numbers: list[int]) -> None:
    end = time.monotonic() + 60
    while left := [number for number in numbers if processes().get(number, (0, ""))[1]]:  # a dead one has no title
        assert time.monotonic() < end, [processes().get(number) for number in left]
        time.sleep(0.2)


def assert_interrupted(process: "subprocess.Popen[str]", output: Path, photos: Photos) -> None:
    code, _, errors = ended(process, 60)
    rows = table(output)
    assert code == 1
    assert 5 <= len(rows) < len(photos.rows)
    left = sorted(set(photos.rows) - {row["key"] for row in rows})
    assert f"Missing: {len(left)} photos (" in errors
    assert "the same command with --resume goes on from here" in errors
    assert errors.rstrip().endswith("infer_batch.py: interrupted")
    assert json.loads((output / "run.json").read_text())["alive"] is None


@pytest.mark.long
def test_a_run_that_is_stopped_keeps_what_came_and_bears_none_beside_it(photos: Photos, tmp_path: Path) -> None:
    process = batch(photos.folder, tmp_path / "table")
    wait_for((tmp_path / "table" / "run.json").exists, process)
    code, _, errors = ended(batch(photos.folder, tmp_path / "table", "--resume"))
    assert code == 1
    assert f"expected no other run that adds to it, found one on {socket.gethostname()}" in errors
    wait_for_files(1, tmp_path / "table", process)
    process.send_signal(signal.SIGTERM)
    assert_interrupted(process, tmp_path / "table", photos)


@pytest.mark.long
def test_a_run_goes_on_after_ctrl_c_and_after_sigkill(photos: Photos, tmp_path: Path) -> None:
    process = batch(photos.folder, tmp_path / "table")
    wait_for_files(1, tmp_path / "table", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to Ray's processes too
    assert_interrupted(process, tmp_path / "table", photos)

    done = len(table(tmp_path / "table"))
    process = batch(photos.folder, tmp_path / "table", "--resume")
    wait_for_files(done // 5 + 3, tmp_path / "table", process)
    others = [number for number, title in below(process.pid).items() if "Agent" not in title]  # which take minutes
    process.kill()
    process.communicate()
    assert_gone(others)

    began = time.monotonic()
    code, output, errors = ended(batch(photos.folder, tmp_path / "table", "--resume"))
    assert (code, "Missing" in errors) == (1, False)
    assert "done before" in output
    assert time.monotonic() - began < 60  # it does not wait for the dead one
    assert_complete(tmp_path / "table", photos)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_it_can_be_stopped_while_ray_starts(number: signal.Signals, photos: Photos, tmp_path: Path) -> None:
    process = batch(photos.folder, tmp_path / "table")
    wait_for(lambda: any("gcs_server" in title for title in below(process.pid).values()), process)
    others = list(below(process.pid))
    process.send_signal(number)
    code, _, errors = ended(process, 60)
    assert code == 1
    assert errors.rstrip().endswith("infer_batch.py: interrupted")
    assert json.loads((tmp_path / "table" / "run.json").read_text())["alive"] is None
    assert_gone(others)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["Read", "Network", "Draw"])
def test_a_worker_that_is_killed_loses_no_photo(stage: str, photos: Photos, tmp_path: Path) -> None:
    process = batch(photos.folder, tmp_path / "table")
    wait_for_files(2, tmp_path / "table", process)
    killed = [
        number for number, title in below(process.pid).items() if f"ray::MapWorker(MapBatches(Guarded{stage})" in title
    ]
    assert killed
    kill(killed)
    code, _, errors = ended(process)
    assert (code, "Missing" in errors) == (1, False)
    assert_complete(tmp_path / "table", photos)


DEADLY = """
import os, signal, sys
from PIL import Image

def deadly(file, *_):
    os.kill(os.getpid(), signal.SIGKILL)

Image.register_open("DEADLY", deadly, lambda first: first.startswith(b"DEADLY"))
"""


@pytest.mark.long
def test_a_photo_that_ends_each_process_is_named_and_the_others_are_done(photos: Photos, tmp_path: Path) -> None:
    """As one does that meets a fault of a decoder, or takes all memory."""
    (tmp_path / "decoder").mkdir()
    (tmp_path / "decoder" / "sitecustomize.py").write_text(DEADLY)
    shutil.copytree(photos.folder, tmp_path / "photos")
    deadly = ["000_first.jpg", "031_deadly.jpg", "below/last.png"]
    for name in deadly:
        (tmp_path / "photos" / name).write_bytes(b"DEADLY" * 20)
    code, _, errors = ended(
        batch(tmp_path / "photos", tmp_path / "table", env={"PYTHONPATH": str(tmp_path / "decoder")})
    )
    assert (code, "Missing" in errors) == (1, False)
    problem = "expected a photo that can be read, found one that ends the process that reads it"
    rows = photos.rows | {name: {"problem": problem} for name in deadly}
    assert_complete(tmp_path / "table", Photos(tmp_path / "photos", rows))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    whole = Cluster()
    yield whole
    whole.end()


@pytest.mark.long
def test_a_machine_and_then_the_driver_are_lost(cluster: Cluster, photos: Photos, tmp_path: Path) -> None:
    node = cluster.add()
    more = ["--address", cluster.address]
    process = batch(photos.folder, tmp_path / "table", *more, env=cluster.env)
    wait_for_files(3, tmp_path / "table", process)
    workers = [title for title in below(node.pid).values() if "ray::MapWorker" in title]
    assert workers  # the node has a share of the work
    cluster.kill(node)
    wait_for_files(7, tmp_path / "table", process)
    process.kill()
    process.communicate()
    assert len(table(tmp_path / "table")) < len(photos.rows)

    code, _, errors = ended(batch(photos.folder, tmp_path / "table", *more, "--resume", env=cluster.env))
    assert (code, "Missing" in errors) == (1, False)
    assert_complete(tmp_path / "table", photos)


@pytest.mark.long
def test_all_machines_but_the_drivers_are_lost_one_by_one(cluster: Cluster, photos: Photos, tmp_path: Path) -> None:
    process = batch(photos.folder, tmp_path / "table", "--address", cluster.address, env=cluster.env)
    for files in (1, 5):
        node = cluster.add()
        wait_for_files(files, tmp_path / "table", process)
        cluster.kill(node)
    code, _, errors = ended(process)
    assert (code, "Missing" in errors) == (1, False)
    assert_complete(tmp_path / "table", photos)


@pytest.mark.long
def test_a_cluster_that_is_lost_is_said(cluster: Cluster, photos: Photos, tmp_path: Path) -> None:
    process = batch(photos.folder, tmp_path / "table", "--address", cluster.address, env=cluster.env)
    wait_for_files(1, tmp_path / "table", process)
    cluster.kill(cluster.nodes[0])
    code, _, errors = ended(process)
    assert code == 1
    keys = [row["key"] for row in table(tmp_path / "table")]
    assert len(set(keys)) == len(keys) >= 5
    assert "--resume goes on from here" in errors
