"""The picture of a training run: photos, truth and prediction."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from cloth_segmentation.classes import FEW_CLASSES, ClassSet
from cloth_segmentation.colors import Color
from cloth_segmentation.pictures import Palette, with_grey

COLUMNS = ("photo", "truth", "prediction")
"""Titles of what is side by side."""


def colour(labels: Tensor, palette: Palette) -> Tensor:
    """Label maps (N, H, W) -> pictures (N, 3, H, W) uint8; grey where a label is of no class."""
    table = torch.tensor(with_grey(palette), dtype=torch.uint8, device=labels.device)
    return table[labels.long()].permute(0, 3, 1, 2)


def comparison(
    photos: Tensor,
    truth: Tensor,
    prediction: Tensor,
    classes: ClassSet,
    mean: float,
    std: float,
) -> Tensor:
    """One picture with a row for each photo: the photo, its true label map, the predicted one.

    Titles stand above the columns, and the classes with their colours below all rows. W is 64 or more, or a title may
    be wider than its column.

    Args:
        photos: (N, 3, H, W) float, normalised by mean and std.
        truth: (N, H, W) integers.
        prediction: (N, H, W) integers.
        classes: what the labels mean; a long legend has those that are seen.
        mean: of the normalisation.
        std: of the normalisation.

    Returns:
        (3, height, width) uint8, on the CPU.
    """
    pixels = ((photos.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    maps = [colour(labels, classes.palette) for labels in (truth, prediction)]
    rows = torch.stack((pixels, *maps), dim=1).flatten(0, 1)
    grid: Tensor = make_grid(rows.cpu(), nrow=len(COLUMNS), padding=4, pad_value=255)
    # TensorBoard shows every picture at the width of its card, so letters grow with the picture.
    size = max(10, photos.shape[-1] / 10)
    seen = set(np.unique(torch.cat((truth, prediction)).cpu().numpy()).tolist())
    legend = [
        (name, rgb)
        for number, (name, rgb) in enumerate(zip(classes.names, classes.palette, strict=True))
        if number in seen or len(classes) <= FEW_CLASSES
    ]
    explained = _explain(Image.fromarray(grid.permute(1, 2, 0).numpy()), size, legend)
    return torch.from_numpy(np.array(explained)).permute(2, 0, 1)


def _explain(grid: Image.Image, size: float, legend: Sequence[tuple[str, Color]]) -> Image.Image:
    """The grid with its titles and its legend (name and colour of each class), in letters of a size in pixels."""
    font = ImageFont.load_default(size)
    line = round(1.5 * size)
    corners, left, top = [], size / 2, line + grid.height
    for name, _ in legend:
        width = 1.5 * size + font.getlength(name)
        if left + width > grid.width:
            left, top = size / 2, top + line
        corners.append((left, top))
        left += width + size
    sheet = Image.new("RGB", (grid.width, top + line), "white")
    sheet.paste(grid, (0, line))
    draw = ImageDraw.Draw(sheet)
    for number, title in enumerate(COLUMNS):
        draw.text(((number + 0.5) * grid.width / len(COLUMNS), line / 2), title, "black", font, anchor="mm")
    for (left, top), (name, rgb) in zip(corners, legend, strict=True):
        middle = top + line / 2
        draw.rectangle((left, middle - size / 2, left + size, middle + size / 2), rgb)
        draw.text((left + 1.5 * size, middle), name, "black", font, anchor="lm")
    return sheet
