"""Masks and pictures in the palette's colours."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from utils.files import atomic_path

Palette = Sequence[tuple[int, int, int]]
"""RGB colour of each class, 0 to 255."""


def save_picture(picture: Image.Image, path: Path, note: str = "") -> None:
    """Write a picture as PNG, or as JPEG where its name ends in .jpg. It gets its name when it is whole.

    Args:
        picture: to write.
        path: of the file.
        note: a PNG's comment, for ``has_note``.
    """
    with atomic_path(path) as part:
        if path.suffix == ".jpg":
            picture.save(part, format="JPEG", quality=90)
        else:
            texts = PngInfo()
            if note:
                texts.add_text("Comment", note)
            picture.save(part, format="PNG", pnginfo=texts)


def has_note(path: Path, note: str) -> bool:
    """Whether there is a picture with this note."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("Comment") == note
    except Exception:  # none is there, or none that can be read: Pillow raises whatever it meets
        return False


LAST_BYTES = {".png": b"IEND\xae\x42\x60\x82", ".jpg": b"\xff\xd9", ".json": b"\n}\n"}
"""How files end, by the ending of their names."""


def is_whole(path: Path) -> bool:
    """Whether a file is there to its end, as one is not that a full disk or another program has cut off."""
    end = LAST_BYTES[path.suffix]
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # none is there, or it is shorter than its end
        return False


def mask_picture(labels: NDArray[np.uint8], palette: Palette) -> Image.Image:
    """Label map (H, W) uint8 -> palette picture: pixel values are classes, shown in their colours."""
    mask = Image.fromarray(labels)
    mask.putpalette([value for colour in palette for value in colour])  # makes a palette picture of a grey one
    return mask


TINT = 0.5
"""Share of a class's colour in an overlay."""


def overlay(photo: Image.Image, labels: NDArray[np.uint8], palette: Palette) -> Image.Image:
    """RGB photo with its clothes tinted and outlined in twice the brightness of their classes' colours.

    Args:
        photo: RGB.
        labels: its label map (H, W); 0 is background and stays as it is.
        palette: colours of the classes.
    """
    from scipy import ndimage  # takes longer to import than all else that a mask needs

    bright = (np.array(palette) * 2).clip(0, 255).astype(np.uint8)[labels]
    tinted = np.array(Image.blend(photo, Image.fromarray(bright), TINT))
    tinted[labels == 0] = np.asarray(photo)[labels == 0]
    side = 2 * max(1, round(min(labels.shape) / 400)) + 1
    contour = ndimage.minimum_filter(labels, side) != ndimage.maximum_filter(labels, side)
    outline = contour & (labels > 0)
    tinted[outline] = bright[outline]
    return Image.fromarray(tinted)


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
