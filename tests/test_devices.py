import os

import pytest

from cloth_segmentation.resources import cpu_threads
from utils.devices import on_cpu


def test_the_cpu_is_the_cpu() -> None:
    assert on_cpu("cpu")
    assert not on_cpu("cuda:0")
    assert not on_cpu("mps")


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, 0),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 0),
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "1"}, 1),
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "10000"}, 1),
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, max(1, (os.cpu_count() or 1) // 2)),
    ],
)
def test_processes_share_the_cores(environment: dict[str, str], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cpu_threads() == threads
