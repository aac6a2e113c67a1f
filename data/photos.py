"""Reading one photo, whatever its format, mode and orientation."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data import DataError


def load_photo(path: Path) -> Image.Image:
    """Read a photo as an upright 8-bit RGB picture, at its own size.

    EXIF orientation is applied, transparency is laid over white, and 16-bit values are scaled to 8 bits.

    Raises:
        DataError: the file cannot be read as a picture.
        OSError: the file cannot be opened.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strange tags, and of sizes from 90 megapixels on; 180 are an error
            with Image.open(path) as image:
                image.load()
                return to_rgb(_upright(image))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except UnidentifiedImageError:
        raise DataError(f"{path}: expected a picture, found a file in no format that Pillow knows") from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file provokes: OSError, SyntaxError, ...
        raise DataError(f"{path}: expected a picture, found one that cannot be decoded ({error})") from error


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a photo upright, by its EXIF orientation (EXIF 2.32, section 4.6.4, tag 0x0112)."""


def _upright(image: Image.Image) -> Image.Image:
    # Pillow's exif_transpose writes the other tags anew and fails on strange ones; only the orientation matters here.
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:
        return image  # no EXIF that could be read
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB. Raises ValueError for floating-point pictures."""
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point values have no fixed range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
