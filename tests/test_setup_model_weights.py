from pathlib import Path

import pytest
import torch
from conftest import ROOT, python

import setup_model_weights
from networks import ARCHITECTURES, U2NET, U2NETP
from utils import RunError
from utils.checkpoints import load_network, read_file

CLASSES = ("background", "upper body", "lower body", "full body")
REAL = ROOT.parent / "shared" / "weights" / "u2netp.pth"


@pytest.mark.parametrize("arch", [U2NET, U2NETP])
def test_surgery_from_a_file(arch: type[U2NET], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = arch.__name__.lower()
    source, output = tmp_path / "source.pth", tmp_path / "new" / "out.pth"
    torch.save(arch(3, 1).state_dict(), source)
    flags = [f"--arch={name}", f"--source={source}", f"--output={output}"]
    assert setup_model_weights.main(flags) == 0
    assert "784 of 798 tensors carried over" in capsys.readouterr().out
    network, info = load_network(output, ARCHITECTURES, CLASSES)
    assert info.arch == name
    before, after = read_file(source), network.state_dict()
    assert sum(torch.equal(before[key], after[key]) for key in after if before[key].shape == after[key].shape) == 784

    assert setup_model_weights.main([*flags, "--list_tensors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("carried over ") for line in lines) == 784
    assert sum(line.startswith("random ") for line in lines) == 14
    assert "random        outconv.bias" in lines


def test_the_wrong_architecture_is_said(tmp_path: Path) -> None:
    torch.save(U2NETP(3, 1).state_dict(), tmp_path / "u2netp.pth")
    output = tmp_path / "out.pth"
    done = python("setup_model_weights.py", f"--source={tmp_path / 'u2netp.pth'}", f"--output={output}")
    assert done.returncode == 1
    assert "is it the other architecture (--arch)?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_a_missing_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a weights file, found none"):
        setup_model_weights.main([f"--source={tmp_path / 'none.pth'}", f"--output={tmp_path / 'out.pth'}"])


@pytest.mark.skipif(not REAL.exists(), reason="the original U2NETP weights are not beside the project")
def test_the_original_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup_model_weights.main(["--arch=u2netp", f"--source={REAL}", f"--output={tmp_path / 'out.pth'}"]) == 0
    assert "784 of 798" in capsys.readouterr().out
