"""The service on Ray Serve, on two nodes of this machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, free_port

pytest.importorskip("ray.serve")
pytest.importorskip("fastapi_offline")
pytest.importorskip("httpx")

from cluster import Cluster, below, kill, processes
from service import BUNDLED

from cloth_segmentation import Segmenter
from cloth_segmentation.client import Client
from cloth_segmentation.command.base_options import OptionError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in Linux's /proc")

HOPPER = (ROOT / "input_images" / "grace_hopper.jpg").read_bytes()


def config(folder: Path, port: int) -> Path:
    """The config file of the docs, with another port and weights, and two replicas. It is YAML, as JSON is."""
    import yaml

    content = yaml.safe_load((ROOT / "docs" / "service" / "ray.yaml").read_text())
    content["http_options"]["port"] = port
    [application] = content["applications"]
    application["args"] |= {"checkpoint": str(BUNDLED), "size": "64", "batch_size": 1}
    [deployment] = application["deployments"]
    del deployment["autoscaling_config"]
    deployment |= {"num_replicas": 2, "ray_actor_options": {"num_cpus": 1}}
    path = folder / "ray.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of the service on two nodes of one CPU, each with a replica."""
    cluster, port = Cluster(cpus=1), free_port()
    cluster.add()
    settings = {"RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [Path(sys.executable).with_name("serve"), "run", config(cluster.folder, port)],
        cwd=ROOT,
        env=os.environ | cluster.env | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/readyz") and len(replicas()) == 2)
        yield url
    finally:
        kill([process.pid, *below(process.pid)])
        process.wait()
        cluster.end()


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


def replicas() -> list[int]:
    """Processes of replicas."""
    return [number for number, (_, title) in processes().items() if title.startswith("ray::ServeReplica:")]


@pytest.mark.long
def test_no_answer_is_lost_that_asking_again_does_not_bring(served: str) -> None:
    expected = Segmenter.load(BUNDLED, device="cpu", size=64)(HOPPER).to_dict()
    answers_, errors = list[dict[str, object]](), list[Exception]()

    def visit() -> None:
        with Client(served, tries=8) as client:
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
def test_it_is_the_same_application(served: str) -> None:
    with Client(served) as client:
        assert client.mask(HOPPER).tobytes() == Segmenter.load(BUNDLED, device="cpu", size=64)(HOPPER).mask().tobytes()
    for path in ("/v1/classes", "/metrics", "/docs", "/openapi.json"):
        assert answers(served + path)


def test_wrong_options_are_told() -> None:
    from cloth_segmentation.serve.on_ray import build

    with pytest.raises(OptionError, match=r"args: expected some of .*places.*, found port"):
        build({"port": 1})
    with pytest.raises(OptionError, match="args: expected places to be int, found 'many'"):
        build({"places": "many"})
    with pytest.raises(OptionError, match="--places: expected a whole number of at least 1, found 0"):
        build({"places": "0"})
