"""The service on Ray Serve, on two nodes of this machine."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT

pytest.importorskip("ray.serve")
pytest.importorskip("fastapi_offline")
pytest.importorskip("httpx")

from service import BUNDLED, free_port

from cloth_segmentation import Segmenter
from cloth_segmentation.client import Client
from cloth_segmentation.command.base_options import OptionError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in Linux's /proc")

HOPPER = (ROOT / "input_images" / "grace_hopper.jpg").read_bytes()


class Served(NamedTuple):
    url: str
    replicas: int


def config(folder: Path, port: int, replicas: int) -> Path:
    """The config file of the docs, with another port, weights and number of replicas. It is YAML, as JSON is."""
    import yaml

    content = yaml.safe_load((ROOT / "docs" / "service" / "ray.yaml").read_text())
    content["http_options"]["port"] = port
    [application] = content["applications"]
    application["args"] |= {"checkpoint": str(BUNDLED), "size": "64", "batch_size": 1}
    [deployment] = application["deployments"]
    del deployment["autoscaling_config"]
    deployment |= {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 1}}
    path = folder / "ray.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Two nodes of one CPU, each with a replica."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # sockets have short paths
    (folder / "token").write_text(secrets.token_hex(32))
    head, port = free_port(), free_port()
    env = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": f"127.0.0.1:{head}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
    }
    node = ["start", "--block", "--num-cpus=1", "--object-store-memory=100000000"]
    flags = [["--head", f"--port={head}", f"--temp-dir={folder}", "--include-dashboard=false"]]
    flags += [[f"--address=127.0.0.1:{head}"]]
    processes = []
    log = (folder / "log.txt").open("wb")
    ray = Path(sys.executable).with_name("ray")
    try:
        for number, more in enumerate(flags):
            own = {name: value for name, value in env.items() if name != "RAY_ADDRESS"}
            processes.append(start([ray, *node, *more], own, log))
            wait_for(lambda number=number: (folder / "log.txt").read_text().count("Ray runtime started") > number)
        serve = Path(sys.executable).with_name("serve")
        processes.append(start([serve, "run", config(folder, port, 2)], env, log))
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/readyz") and len(replicas()) == 2)
        yield Served(url, 2)
    finally:
        for process in reversed(processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
        for process in reversed(processes):
            kill_below(process.pid)
        if "PYTEST_KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)


def start(words: list[object], env: dict[str, str], log: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        list(map(str, words)), cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )  # type: ignore[call-overload]


def wait_for(happened: object, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.2)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address):
            return True
    except OSError:
        return False


def titles() -> dict[int, str]:
    found = {}
    for path in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def replicas() -> list[int]:
    """Processes of replicas."""
    return [number for number, title in titles().items() if title.startswith("ray::ServeReplica:")]


def kill_below(group: int) -> None:
    """End what is left of a session."""
    for path in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[3]) == group:
                os.kill(int(path.name), signal.SIGKILL)


@pytest.mark.long
def test_no_answer_is_lost_that_asking_again_does_not_bring(served: Served) -> None:
    expected = Segmenter.load(BUNDLED, device="cpu", size=64)(HOPPER).to_dict()
    answers_, errors = list[dict[str, object]](), list[Exception]()

    def visit() -> None:
        with Client(served.url, tries=8) as client:
            for _ in range(25):
                try:
                    answers_.append(client(HOPPER))
                except Exception as error:
                    errors.append(error)

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(answers_) > 20)
    before = replicas()
    os.kill(before[0], signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert not errors
    assert len(answers_) == 100
    assert all(answer == expected for answer in answers_)
    wait_for(lambda: len(replicas()) == 2 and before[0] not in replicas())  # another one takes its place


@pytest.mark.long
def test_it_is_the_same_application(served: Served) -> None:
    with Client(served.url) as client:
        assert client.mask(HOPPER).tobytes() == Segmenter.load(BUNDLED, device="cpu", size=64)(HOPPER).mask().tobytes()
    for path in ("/v1/classes", "/metrics", "/docs", "/openapi.json"):
        assert answers(served.url + path)


def test_wrong_options_are_told() -> None:
    from cloth_segmentation.serve.on_ray import build

    with pytest.raises(OptionError, match=r"args: expected some of .*places.*, found port"):
        build({"port": 1})
    with pytest.raises(OptionError, match="args: expected places to be int, found 'many'"):
        build({"places": "many"})
    with pytest.raises(OptionError, match="--places: expected a whole number of at least 1, found 0"):
        build({"places": "0"})
