"""Pictures of how good weights are: a gallery of photos, a confusion matrix."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cloth_segmentation.classes import FEW_CLASSES
from cloth_segmentation.pictures import Palette, mask_picture, with_grey
from utils.sheets import MARGIN, font, framed, stacked, text_line

PANEL_HEIGHT = 260
"""Height of a picture in a gallery, pixels."""


def panel(
    caption: str, photo: Image.Image, truth: NDArray[np.uint8], prediction: NDArray[np.uint8], palette: Palette
) -> Image.Image:
    """A small picture of a photo, its true and its predicted label map side by side under a caption."""
    size = max(1, round(photo.width * PANEL_HEIGHT / photo.height)), PANEL_HEIGHT
    masks = [mask_picture(labels, with_grey(palette)) for labels in (truth, prediction)]
    # Palette pictures are resized by nearest neighbour, whatever is asked for, so classes do not mix.
    pictures = [picture.resize(size, Image.Resampling.BICUBIC) for picture in (photo, *masks)]
    beside = stacked(pictures, across=True, gap=MARGIN)
    return framed(stacked([text_line(caption, beside.width), beside]))


def gallery(columns: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Pictures, one below the other, in columns."""
    return stacked([stacked(column) for column in columns], across=True)


def confusion_picture(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix: rows are true classes, columns what they were called, as shares of the row.

    Args:
        confusion: counts, (C, C).
        classes: C names.
    """
    counts = np.array(confusion, dtype=np.float64)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    few = len(classes) <= FEW_CLASSES
    cell, large, small = (110, font(20), font(15)) if few else (34, font(12), font(14))
    left = max(140, math.ceil(max(small.getlength(name) for name in classes)) + 2 * MARGIN)
    top = 60 if few else left + 20
    side = len(classes) * cell
    sheet = Image.new("RGB", (left + side + 2 * MARGIN, top + side + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((left + side / 2, MARGIN), "called", fill="black", font=small, anchor="ma")
    draw.text((MARGIN, top - MARGIN), "true", fill="black", font=small, anchor="ls")
    for row, name in enumerate(classes):
        middle = (row + 0.5) * cell
        draw.text((left - MARGIN, top + middle), name, fill="black", font=small, anchor="rm")
        if few:
            draw.text((left + middle, top - MARGIN), name, fill="black", font=small, anchor="ms")
        else:
            turned = text_line(name, left - MARGIN).rotate(90, expand=True)
            sheet.paste(turned, (round(left + middle - turned.width / 2), top - MARGIN // 2 - turned.height))
        for column, share in enumerate(shares[row]):
            # White to dark blue; the root makes small confusions visible.
            strength = math.sqrt(share)
            fill = tuple(round(255 + (dark - 255) * strength) for dark in (8, 48, 107))
            corner = (left + column * cell, top + row * cell)
            draw.rectangle((*corner, corner[0] + cell - 2, corner[1] + cell - 2), fill=fill)
            ink = "white" if strength > 0.6 else "black"
            if few or round(100 * share):
                text = f"{share:.1%}" if few else f"{100 * share:.0f}"
                draw.text((corner[0] + cell / 2, corner[1] + cell / 2), text, fill=ink, font=large, anchor="mm")
    return sheet
