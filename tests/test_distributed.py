import pytest
import torch

from cloth_segmentation.errors import RunError
from utils.devices import pick_device
from utils.distributed import Processes


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    processes = Processes.start("cpu")
    network = torch.nn.Linear(1, 1)
    assert (processes.rank, processes.world_size, processes.is_main) == (0, 1, True)
    assert processes.wrap(network) is network
    assert processes.any(True)
    assert not processes.any(False)
    assert processes.gather(3) == [3]
    assert processes.on_main(lambda: 5) == 5
    assert processes.sum(torch.tensor(2)) == 2
    processes.stop()


def test_launcher_and_option_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RunError, match="--distributed: expected to be started by a launcher"):
        Processes.start("cpu", distributed=True)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="--no-distributed: expected one process"):
        Processes.start("cpu", distributed=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Processes.start("cpu", distributed=False).world_size == 1


def test_one_gpu_cannot_serve_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="--device cuda:1: expected cuda or cpu for several processes"):
        Processes.start("cuda:1")


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(RunError, match=r"--device cuda:99: expected GPU number 99, found \d+ CUDA GPUs"):
        pick_device("cuda:99")
