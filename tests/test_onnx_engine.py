"""ONNX Runtime: devices, and files that other tools exported."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, python
from PIL import Image

from cloth_segmentation import DeviceError, RunError, Segmenter
from cloth_segmentation.onnx_engine import OnnxEngine

BUNDLED = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"
PHOTO = ROOT / "input_images" / "astronaut.png"


WEIGHT = np.random.default_rng(5).normal(size=(4, 3, 1, 1)).astype(np.float32)


def exported_elsewhere(path: Path, classes: int = 4, sides: tuple[int | str, ...] = (64, 64)) -> None:
    """Write a file like those of other tools: a photo of one size in float32, seven outputs, no metadata.

    In the place of the network stands a layer whose output the test can work out.
    """
    make, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    names = [f"d{number}" for number in range(7)]
    nodes = [onnx.helper.make_node("Conv", ["input.1", "weight"], ["d0"])]
    nodes += [onnx.helper.make_node("Neg", ["d0"], [name]) for name in names[1:]]  # others than the fused map
    graph = onnx.helper.make_graph(
        nodes,
        "torch_jit",
        [make("input.1", kind, [1, 3, *sides])],
        [make(name, kind, [1, classes, *sides]) for name in names],
        [onnx.numpy_helper.from_array(WEIGHT[:classes], "weight")],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


@pytest.mark.parametrize("sides", [(64, 64), ("height", "width")])
def test_a_file_of_another_tool_is_recognised_by_its_graph(tmp_path: Path, sides: tuple[int | str, ...]) -> None:
    path = tmp_path / "u2net_cloth_seg.onnx"
    exported_elsewhere(path, sides=sides)
    segment = Segmenter.load(path, device="cpu")
    assert segment.size == ((64, 64) if sides == (64, 64) else (768, 768))
    seen = [segment.see(PHOTO), segment.see(Image.new("RGB", (64, 64), "red"))]
    found = segment.logits([each.square for each in seen])
    for each, logits in zip(seen, found, strict=True):
        normalised = (each.square / 255 - 0.5) / 0.5  # as the weights were trained
        expected = np.einsum("hwc,kc->khw", normalised, WEIGHT[:, :, 0, 0])
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    if sides == (64, 64):
        with pytest.raises(RunError, match=r"expected photos of 64 x 64 pixels, the only size .* found 96 x 96"):
            Segmenter.load(path, device="cpu", size=96)(PHOTO)

    done = python("infer.py", f"--input={PHOTO}", f"--output={tmp_path / 'out'}", f"--checkpoint={path}")
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
