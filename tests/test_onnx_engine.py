"""ONNX Runtime: devices, and files that other tools exported."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT, python
from PIL import Image
from torch import Tensor, nn

import export
from cloth_segmentation import DeviceError, RunError, Segmenter
from cloth_segmentation.onnx_engine import OnnxEngine
from networks import U2NETP

BUNDLED = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"
PHOTO = ROOT / "input_images" / "astronaut.png"


class AsOthersExport(nn.Module):
    """A network whose outputs are a list of names of their own."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.network = U2NETP(3, classes).eval()

    def forward(self, photo: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.network(photo)
        return outputs


def exported_elsewhere(path: Path, classes: int = 4, size: int = 64) -> AsOthersExport:
    """Write a file like those of other tools: a photo of one size in float32, seven outputs, no metadata."""
    if not export.can_export():
        pytest.skip("this PyTorch is too old to export")
    network = AsOthersExport(classes)
    program = torch.onnx.export(network, (torch.zeros(1, 3, size, size),), dynamo=True, verbose=False)
    assert program is not None
    program.save(path)
    return network


def test_a_file_of_another_tool_is_recognised_by_its_graph(tmp_path: Path) -> None:
    network = exported_elsewhere(tmp_path / "u2net_cloth_seg.onnx")
    graph = onnx.load(tmp_path / "u2net_cloth_seg.onnx").graph
    assert (len(graph.input), len(graph.output)) == (1, 7)
    segment = Segmenter.load(tmp_path / "u2net_cloth_seg.onnx", device="cpu")
    assert segment.size == (64, 64)
    seen = [segment.see(PHOTO), segment.see(Image.new("RGB", (64, 64), "red"))]
    found = segment.logits([each.square for each in seen])
    for number, each in enumerate(seen):
        photo = torch.from_numpy(each.square / 127.5 - 1).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            np.testing.assert_allclose(found[number], network.network(photo)[0][0].numpy(), atol=1e-4)
    with pytest.raises(RunError, match=r"expected photos of 64 x 64 pixels, the only size .* found 96 x 96"):
        Segmenter.load(tmp_path / "u2net_cloth_seg.onnx", device="cpu", size=96)(PHOTO)

    flags = [f"--input={PHOTO}", f"--output={tmp_path / 'out'}", f"--checkpoint={tmp_path / 'u2net_cloth_seg.onnx'}"]
    done = python("infer.py", *flags)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / "astronaut.png") as mask:
        np.testing.assert_array_equal(mask, segment(PHOTO).labels)


def test_one_for_other_classes_is_named(tmp_path: Path) -> None:
    exported_elsewhere(tmp_path / "u2net.onnx", classes=1)
    with pytest.raises(
        RunError, match=r"u2net.onnx: expected a U2NET for 4 classes \(background, .*\), found one for 1"
    ):
        Segmenter.load(tmp_path / "u2net.onnx")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", r"device cuda: expected an ONNX Runtime that has CUDAExecutionProvider, found .*onnxruntime-gpu"),
        ("cuda:1", r"device cuda:1: expected an ONNX Runtime that has CUDAExecutionProvider"),
        ("directml", r"device directml: .* DmlExecutionProvider, found .*CPUExecutionProvider; .*onnxruntime-directml"),
        ("coreml", r"device coreml: .* CoreMLExecutionProvider"),
        ("OpenVINOExecutionProvider", r"expected an ONNX Runtime that has OpenVINOExecutionProvider"),
        ("gpu", r"device: expected auto, cpu, cuda, .*, found 'gpu'"),
        ("mps", r"device: expected auto, cpu, cuda, .*, found 'mps'"),
    ],
)
def test_a_device_that_is_not_here_is_named(device: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        Segmenter.load(BUNDLED, device=device)
    with pytest.raises(DeviceError, match=words):
        Segmenter.load(device=device)  # not: no weights


@pytest.mark.parametrize("device", ["auto", "cpu", "CPUExecutionProvider"])
def test_the_cpu_by_all_its_names(device: str) -> None:
    assert OnnxEngine(BUNDLED, device).name == "ONNX Runtime on the CPU"


def test_another_provider_runs_it_where_there_is_one() -> None:
    """The Azure provider comes with ONNX Runtime, and leaves the network to the CPU."""
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no second provider")
    other = Segmenter.load(BUNDLED, device="AzureExecutionProvider")
    assert other.describe().endswith("by ONNX Runtime on AzureExecutionProvider")
    np.testing.assert_array_equal(other(PHOTO).labels, Segmenter.load(BUNDLED)(PHOTO).labels)


@pytest.mark.parametrize("device", ["cpu:1", "auto:0", "CPUExecutionProvider:3", "cuda:x"])
def test_numbers_are_for_gpus(device: str) -> None:
    with pytest.raises(DeviceError, match=f"device: expected auto, cpu, .*, found '{device}'"):
        Segmenter.load(BUNDLED, device=device)


def test_the_command_takes_devices_of_onnx_runtime(tmp_path: Path) -> None:
    flags = [f"--input={PHOTO}", f"--output={tmp_path / 'out'}"]
    for device in ("coreml", "directml", "OpenVINOExecutionProvider"):
        for more in ([], ["--engine=onnx"], [f"--checkpoint={BUNDLED}"]):
            done = python("infer.py", *flags, f"--device={device}", *more)
            assert done.returncode == 1
            assert f"device {device}: expected an ONNX Runtime that has " in done.stderr
    done = python("infer.py", *flags, "--device=gpu")
    assert done.returncode == 2
    assert "--device: expected auto, cpu, cuda, cuda:N, mps, coreml, directml or the name of an" in done.stderr
