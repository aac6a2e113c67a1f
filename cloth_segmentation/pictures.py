"""Masks and pictures in the palette's colours."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cloth_segmentation.colors import Color
from cloth_segmentation.files import atomic_path

Palette = Sequence[Color]
"""RGB colour of each class, 0 to 255."""


def save_picture(picture: Image.Image, path: Path, note: str = "") -> None:
    """Write a picture as PNG, or as JPEG where its name ends in .jpg. It gets its name when it is whole.

    Args:
        picture: to write.
        path: of the file.
        note: a PNG's comment, for ``has_note``.
    """
    with atomic_path(path) as part, part.open("wb") as file:
        encode_picture(picture, file, path.suffix, note)


def encode_picture(picture: Image.Image, file: BinaryIO, ending: str, note: str = "") -> None:
    """Write a picture into an open file: as JPEG if ``ending`` is .jpg, else as PNG with ``note`` as its comment."""
    if ending == ".jpg":
        picture.save(file, format="JPEG", quality=90)
    else:
        texts = PngInfo()
        if note:
            texts.add_text("Comment", note)
        picture.save(file, format="PNG", pnginfo=texts)


def has_note(path: Path, note: str) -> bool:
    """Whether a picture is there and has the note that ``save_picture`` wrote."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("Comment") == note
    except Exception:  # none is there, or none that can be read: Pillow raises whatever it meets
        return False


LAST_BYTES = {".png": b"IEND\xae\x42\x60\x82", ".jpg": b"\xff\xd9", ".json": b"\n}\n"}
"""The last bytes of a complete file, by the ending of its name."""


def is_whole(path: Path) -> bool:
    """Whether a file is complete: not cut off by a full disk or a killed program."""
    end = LAST_BYTES[path.suffix]
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # none is there, or it is shorter than its end
        return False


NO_CLASS = (128, 128, 128)
"""Grey of pixels that belong to no class, in pictures for people."""


def with_grey(palette: Palette) -> list[Color]:
    """A palette of 256 colours: these, and grey for all other values."""
    return [*palette, *[NO_CLASS] * (256 - len(palette))]


def mask_picture(labels: NDArray[np.uint8], palette: Palette) -> Image.Image:
    """Label map (H, W) uint8 -> palette picture: pixel values are classes, shown in their colours."""
    mask = Image.fromarray(labels)
    mask.putpalette([value for colour in palette for value in colour])  # makes a palette picture of a grey one
    return mask


def brightened(palette: Palette) -> list[Color]:
    """The colours as bright as can be without changing how they relate: those of clothes twice as bright."""
    brightest = max(value for color in palette for value in color) or 255
    return [(r * 255 // brightest, g * 255 // brightest, b * 255 // brightest) for r, g, b in palette]


TINT = 0.5
"""Share of a class's colour in an overlay."""


def overlay(photo: Image.Image, labels: NDArray[np.uint8], palette: Palette) -> Image.Image:
    """RGB photo with its clothes tinted and outlined in the brightened colours of their classes.

    Args:
        photo: RGB.
        labels: its label map (H, W); 0 is background and stays as it is.
        palette: colours of the classes.
    """
    from scipy import ndimage  # takes longer to import than all else that a mask needs

    bright = np.array(brightened(palette), dtype=np.uint8)[labels]
    tinted = np.array(Image.blend(photo, Image.fromarray(bright), TINT))
    tinted[labels == 0] = np.asarray(photo)[labels == 0]
    side = 2 * max(1, round(min(labels.shape) / 400)) + 1
    contour = ndimage.minimum_filter(labels, side) != ndimage.maximum_filter(labels, side)
    outline = contour & (labels > 0)
    tinted[outline] = bright[outline]
    return Image.fromarray(tinted)
