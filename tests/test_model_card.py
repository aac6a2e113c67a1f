"""The bundled weights, their figure and their samples agree wherever they are."""

import hashlib
import re
from pathlib import Path

import numpy as np
from conftest import ROOT
from PIL import Image

import infer
from cloth_segmentation.onnx_engine import OnnxEngine
from infer import Segmenter

WEIGHTS = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"
CARD = (ROOT / "docs" / "model_card.md").read_text()


def test_the_card_is_of_the_bundled_weights() -> None:
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() in CARD
    info = Segmenter.load(WEIGHTS, device="cpu").info
    assert f"{info.size[0]} x {info.size[1]} pixels" in CARD


def test_the_bundled_onnx_file_is_made_from_the_bundled_weights() -> None:
    exported = OnnxEngine(WEIGHTS.with_suffix(".onnx"))
    assert exported.source == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert exported.info == Segmenter.load(WEIGHTS, device="cpu", engine="torch").info
    assert not exported.eight_bit


def rows(text: str) -> dict[str, str]:
    """The rows of figures of a text, by what was measured."""
    found = re.findall(r"^\| ([^|]+) \|((?: [\d.]+ \|){3} \*\*[\d.]+\*\* .*)$", text, re.M)
    return dict(found)


def test_file_card_and_readme_give_one_figure() -> None:
    info = Segmenter.load(WEIGHTS, device="cpu").info
    assert info.mean_iou_clothes is not None
    card, readme = rows(CARD), rows((ROOT / "README.md").read_text())
    assert list(readme) == ["street", "flat"]
    assert f"**{info.mean_iou_clothes:.3f}**" in readme["street"]
    assert {title: card[title] for title in readme} == readme


def test_eight_bits_are_measured_on_the_same_file() -> None:
    [figure] = re.findall(
        r"^\| float32 \|(?: [\d.]+ \|){3} ([\d.]+) \|", (ROOT / "docs/benchmarks.md").read_text(), re.M
    )
    info = Segmenter.load(WEIGHTS, device="cpu").info
    assert info.mean_iou_clothes is not None
    assert abs(float(figure) - info.mean_iou_clothes) < 0.0005  # engines round differently


def test_the_samples_are_what_the_bundled_weights_draw(tmp_path: Path) -> None:
    commands = re.findall(r"^python infer.py --output docs/samples (.*)$", (ROOT / "docs/samples.md").read_text(), re.M)
    assert len(commands) == 2
    common = ["--output", str(tmp_path), "--input", str(ROOT / "input_images"), "--checkpoint", str(WEIGHTS)]
    for command in commands:
        assert infer.main([*common, *command.split(), "--device", "cpu"]) == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in (ROOT / "docs" / "samples").iterdir())
    for name in drawn:
        if name.endswith(".png"):
            now, then = (np.asarray(Image.open(folder / name)) for folder in (tmp_path, ROOT / "docs" / "samples"))
            rounding = 0 if now.ndim == 2 else 2  # in colours; the value of a mask's pixel is its class
            assert (np.abs(now.astype(int) - then) <= rounding).mean() > 0.999  # processors round differently
