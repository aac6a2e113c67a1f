from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CCP, ROOT, needs_ccp
from PIL import Image

from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.logits import label_map
from cloth_segmentation.photos import load_photo
from infer import Segmenter
from networks import ARCHITECTURES, U2NETP, fold_batch_norm
from utils.weights_files import load_network

BUNDLED = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"


def plain_labels(path: Path, photo: Image.Image) -> np.ndarray:
    """The network as it was trained, nothing folded, in float32 with the channels apart."""
    network, info = load_network(path, ARCHITECTURES, CLOTHES)
    square = np.asarray(photo.resize(info.size, Image.Resampling.BICUBIC)).copy()
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None].contiguous()
    with torch.no_grad():
        return label_map(network.eval()((pixels / 255 - info.mean) / info.std)[0][0].numpy(), photo.size)


def agreement(engine: str, photos: list[Path]) -> float:
    segment = Segmenter.load(BUNDLED, device="cpu", engine=engine, consistent=False)
    same = []
    for path in photos:
        photo = load_photo(path)
        same.append((segment(photo).labels == plain_labels(BUNDLED, photo)).mean())
    return float(np.mean(same))


@pytest.mark.parametrize("engine", [pytest.param("torch", marks=pytest.mark.long), "onnx"])
def test_engines_give_the_labels_of_the_plain_network(engine: str) -> None:
    assert agreement(engine, sorted((ROOT / "input_images").glob("*.[jp][pn]g"))) >= 0.9995


@needs_ccp
@pytest.mark.long
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_engines_give_the_labels_of_the_plain_network_on_photos_of_whole_people(engine: str) -> None:
    assert agreement(engine, sorted((CCP / "train").glob("*.jpg"))[::150]) >= 0.9995


def test_folding_keeps_the_function() -> None:
    torch.manual_seed(0)
    network = U2NETP(3, 4)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that have seen photos
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    network.eval()
    photos = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        before = network(photos)
        fold_batch_norm(network)
        after = network(photos)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4 * first.abs().max().item())


def test_half_precision_on_request(weights: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    full = Segmenter.load(weights, device="cpu")
    half = Segmenter.load(weights, device="cpu", amp="bf16")
    assert "bf16" in half.describe()
    logits = [segment.logits([np.asarray(photo)]) for segment in (full, half)]
    assert logits[1].dtype == np.float32
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.1 * np.abs(logits[0]).max()
