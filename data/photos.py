"""Reading one photo, whatever its format, mode and orientation."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

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
            # Pillow warns of "decompression bombs" from 90 megapixels on and refuses from 180: only the latter matters.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except UnidentifiedImageError:
        raise DataError(f"{path}: expected a picture, found a file in no format that Pillow knows") from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file provokes: OSError, SyntaxError, ...
        raise DataError(f"{path}: expected a picture, found one that cannot be decoded ({error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB."""
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
