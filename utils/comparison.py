"""The picture of a training run: photos, truth and prediction. Apart from visuals, which does without PyTorch."""

import torch
from torch import Tensor
from torchvision.utils import make_grid

from utils.visuals import Palette


def colour(labels: Tensor, palette: Palette) -> Tensor:
    """Label maps (N, H, W) -> pictures (N, 3, H, W) uint8."""
    table = torch.tensor(palette, dtype=torch.uint8, device=labels.device)
    return table[labels.long()].permute(0, 3, 1, 2)


def comparison(photos: Tensor, truth: Tensor, prediction: Tensor, palette: Palette, mean: float, std: float) -> Tensor:
    """One picture with a row for each photo: the photo, its true label map, the predicted one.

    Args:
        photos: (N, 3, H, W) float, normalised by mean and std.
        truth: (N, H, W) integers.
        prediction: (N, H, W) integers.
        palette: colours of the classes.
        mean: of the normalisation.
        std: of the normalisation.

    Returns:
        (3, height, width) uint8, on the CPU.
    """
    pixels = ((photos.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    rows = torch.stack((pixels, colour(truth, palette), colour(prediction, palette)), dim=1).flatten(0, 1)
    grid: Tensor = make_grid(rows.cpu(), nrow=3, padding=4, pad_value=255)
    return grid
