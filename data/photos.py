"""Reading one photo, whatever its format, mode and orientation."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data import DataError

# Of strange tags, and of sizes from 90 megapixels on; 180 are an error. Once for all: photos are read in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

Size = tuple[int, int]
"""(width, height) in pixels, Pillow's order."""


def load_photo(path: Path) -> Image.Image:
    """Read a photo as an upright 8-bit RGB picture, at its own size.

    EXIF orientation is applied, transparency is laid over white, and 16-bit values are scaled to 8 bits.

    Raises:
        DataError: the file cannot be read as a picture.
        OSError: the file cannot be opened.
    """
    return load_reduced(path, None)[0]


def load_reduced(path: Path, enough: Size | None, *, upright: bool = True) -> tuple[Image.Image, Size]:
    """Read a photo as ``load_photo`` does, but no larger than need be where its format allows that.

    JPEGs can be decoded at a half, a quarter or an eighth of their size, for a fraction of the time and memory.

    Args:
        path: the file.
        enough: (width, height) that the picture must have at least, if the photo has it; None: its own size.
        upright: apply EXIF orientation; False gives the photo as it is stored.

    Returns:
        The picture, and the photo's own (width, height). Errors are those of ``load_photo``.
    """
    try:
        with Image.open(path) as image:
            own = image.size
            reduced = None
            if enough is not None:
                stored = enough[::-1] if upright and _turn(image) in _TRANSPOSED else enough
                reduced = image.draft(None, stored)  # None keeps the mode
            image.load()
            if reduced is None:
                own = image.size  # only now: Pillow turns TIFFs by itself when it loads them
            turn = _turn(image) if upright else None
            picture = to_rgb(image)
            if turn is None:
                return picture, own
            return picture.transpose(turn), own[::-1] if turn in _TRANSPOSED else own
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except UnidentifiedImageError:
        raise DataError(f"{path}: expected a picture, found a file in no format that Pillow knows") from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file provokes: OSError, SyntaxError, ...
        raise DataError(f"{path}: expected a picture, found one that cannot be decoded ({error})") from error


def squash_photo(photo: Image.Image, size: Size | None) -> Image.Image:
    """Resize by bicubic resampling without keeping the shape; None keeps the size."""
    return photo if size is None or photo.size == size else photo.resize(size, Image.Resampling.BICUBIC)


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


_TRANSPOSED = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
"""What swaps width and height."""


def _turn(image: Image.Image) -> Image.Transpose | None:
    # Pillow's exif_transpose writes the other tags anew and fails on strange ones; only the orientation matters here.
    try:
        return _UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:
        return None  # no EXIF that could be read


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
