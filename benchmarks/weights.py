"""Weights to time: how long a network takes does not depend on what it learned."""

from pathlib import Path

import torch

from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.weights_info import WeightsInfo
from networks import ARCHITECTURES
from utils.weights_files import save_weights


def random_weights(folder: Path, arch: str, size: int) -> Path:
    """Write weights of ``arch`` from random numbers that see photos at ``size`` x ``size`` pixels."""
    torch.manual_seed(0)
    path = folder / f"{arch}.pth"
    network = ARCHITECTURES[arch](3, len(CLOTHES))
    save_weights(path, network.state_dict(), WeightsInfo(arch, CLOTHES, (size, size), step=1))
    return path
