"""Pictures of how good weights are: a gallery of photos, a confusion matrix."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cloth_segmentation.pictures import Palette, mask_picture

PANEL_HEIGHT = 260
"""Height of a picture in a gallery, pixels."""


MARGIN = 8
"""Space around what is drawn, pixels."""


def panel(
    caption: str, photo: Image.Image, truth: NDArray[np.uint8], prediction: NDArray[np.uint8], palette: Palette
) -> Image.Image:
    """A small picture of a photo, its true and its predicted label map side by side under a caption."""
    width = max(1, round(photo.width * PANEL_HEIGHT / photo.height))
    font = ImageFont.load_default(14)
    header = 22
    sheet = Image.new("RGB", (3 * width + 4 * MARGIN, header + PANEL_HEIGHT + 2 * MARGIN), "white")
    ImageDraw.Draw(sheet).text((MARGIN, MARGIN // 2), caption, fill="black", font=font)
    # Palette pictures are resized by nearest neighbour, whatever is asked for, so classes do not mix.
    for number, picture in enumerate((photo, mask_picture(truth, palette), mask_picture(prediction, palette))):
        small = picture.resize((width, PANEL_HEIGHT), Image.Resampling.BICUBIC)
        sheet.paste(small, (MARGIN + number * (width + MARGIN), header))
    return sheet


def gallery(columns: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Pictures, one below the other, in columns."""
    height = max(sum(picture.height for picture in column) for column in columns)
    sheet = Image.new("RGB", (sum(max(picture.width for picture in column) for column in columns), height), "white")
    left = 0
    for column in columns:
        top = 0
        for picture in column:
            sheet.paste(picture, (left, top))
            top += picture.height
        left += max(picture.width for picture in column)
    return sheet


CELL = 110
"""Width and height of a cell of the confusion matrix, pixels."""


def confusion_picture(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix: rows are true classes, columns what they were called, as shares of the row.

    Args:
        confusion: counts, (C, C).
        classes: C names.
    """
    counts = np.array(confusion, dtype=np.float64)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    large, small = ImageFont.load_default(20), ImageFont.load_default(15)
    left, top = 140, 60
    side = len(classes) * CELL
    sheet = Image.new("RGB", (left + side + 2 * MARGIN, top + side + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((left + side / 2, MARGIN), "called", fill="black", font=small, anchor="ma")
    draw.text((MARGIN, top - MARGIN), "true", fill="black", font=small, anchor="ls")
    for row, name in enumerate(classes):
        middle = (row + 0.5) * CELL
        draw.text((left - MARGIN, top + middle), name, fill="black", font=small, anchor="rm")
        draw.text((left + middle, top - MARGIN), name, fill="black", font=small, anchor="ms")
        for column, share in enumerate(shares[row]):
            # White to dark blue; the root makes small confusions visible.
            strength = math.sqrt(share)
            fill = tuple(round(255 + (dark - 255) * strength) for dark in (8, 48, 107))
            corner = (left + column * CELL, top + row * CELL)
            draw.rectangle((*corner, corner[0] + CELL - 2, corner[1] + CELL - 2), fill=fill)
            ink = "white" if strength > 0.6 else "black"
            draw.text((corner[0] + CELL / 2, corner[1] + CELL / 2), f"{share:.1%}", fill=ink, font=large, anchor="mm")
    return sheet
