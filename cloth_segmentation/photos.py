"""Reading one photo, whatever its format, mode and orientation."""

import errno
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from cloth_segmentation.errors import DataError
from cloth_segmentation.files import known_kind

# Of strange tags, and of sizes from 90 megapixels on; 180 are an error. Once for all: photos are read in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # its errors come as exceptions too
# Pillow loads its formats when it first needs them, and a thread that asks meanwhile may be told that there is none.
Image.init()

Size = tuple[int, int]
"""(width, height) in pixels, Pillow's order."""


class Photo(NamedTuple):
    """A photo that was read."""

    picture: Image.Image  # upright 8-bit RGB
    size: Size  # the photo's own, which the picture may be smaller than
    frames: int  # more than 1: the picture is the first of an animation, or of a document's pages


Source = Path | bytes
"""A file, or its content."""


def load_photo(source: Source) -> Image.Image:
    """Read a photo as an upright 8-bit RGB picture, at its own size.

    EXIF orientation is applied, transparency is laid over white, and 16-bit values are scaled to 8 bits.

    Raises:
        DataError: the file cannot be read as a picture.
        OSError: the file cannot be opened.
        MemoryError: there is too little for it.
    """
    return read_photo(source, None).picture


def read_photo(source: Source, enough: Size | None, *, upright: bool = True) -> Photo:
    """Read a photo as ``load_photo`` does, but no larger than need be where its format allows that.

    JPEGs can be decoded at a half, a quarter or an eighth of their size, for a fraction of the time and memory.

    Args:
        source: the file.
        enough: (width, height) that the picture must have at least, if the photo has it; None: its own size.
        upright: apply EXIF orientation; False gives the photo as it is stored.

    Errors are those of ``load_photo``.
    """
    with _said(source), _opened(source) as image:
        if image.format == "EPS":
            raise DataError(f"{_name(source)}: expected a picture, found a PostScript program, which is not run")
        own = image.size
        reduced = None
        if enough is not None and isinstance(image, JpegImageFile):  # others are loaded by the look at their EXIF
            stored = enough[::-1] if upright and _turn(image) in _TRANSPOSED else enough
            reduced = image.draft(None, stored)  # None keeps the mode
        image.load()
        if reduced is None:
            own = image.size  # only now: Pillow turns TIFFs by itself when it loads them
        turn = _turn(image) if upright else None
        picture = to_rgb(image)
        frames = _frames(image)  # last, since it goes through the file
        if turn is None:
            return Photo(picture, own, frames)
        return Photo(picture.transpose(turn), own[::-1] if turn in _TRANSPOSED else own, frames)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a text that should be a path is an address, such as https://example.org/a.jpg."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(path), re.IGNORECASE) is not None


def _opened(source: Source) -> Image.Image:
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source)


def _name(source: Source) -> str:
    """What messages call a photo."""
    return f"{len(source):,} bytes" if isinstance(source, bytes) else str(source)


@contextmanager
def _said(source: Source) -> Iterator[None]:
    """Turn whatever a file provokes in Pillow into a DataError that says what was found."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        if isinstance(source, bytes):
            start = source[:512]
        else:
            with source.open("rb") as file:
                start = file.read(512)
        found = known_kind(start) or "a file in no format that Pillow knows"
        if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1"):  # ISO/IEC 23008-12
            found = "a HEIC one, which is not read; save it as JPEG"
        raise DataError(f"{_name(source)}: expected a picture, found {found}") from None
    except Image.DecompressionBombError as error:
        pixels, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
        raise DataError(
            f"{_name(source)}: expected at most {limit:,} pixels, found {pixels:,}; make it smaller"
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file provokes: OSError, SyntaxError, ...
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # that one is of wrong offsets
            raise  # the system's, which cannot open or read the file
        raise DataError(f"{_name(source)}: expected a picture, found one that cannot be decoded ({error})") from error


def _frames(image: Image.Image) -> int:
    # The further pictures of an MPO are a phone's: previews, depth. Those of a PSD are its layers, shown together.
    if image.format in ("MPO", "PSD") or not getattr(image, "is_animated", False):
        return 1
    return int(getattr(image, "n_frames", 1))


def from_memory(photo: Image.Image | NDArray[np.uint8]) -> Image.Image:
    """A photo that is no file as an 8-bit RGB picture, transparency laid over white.

    Args:
        photo: a picture of any Pillow mode but F, or an array: (H, W, 3) in RGB, (H, W, 4) in RGBA, or (H, W) in grey,
            uint8, 0 to 255.

    Raises:
        DataError: it is something else, or has no pixels.
    """
    if isinstance(photo, np.ndarray):
        fits = photo.ndim == 2 or (photo.ndim == 3 and photo.shape[2] in (3, 4))
        if photo.dtype != np.uint8 or not fits or not photo.size:
            raise DataError(
                "expected a photo as an array (H, W, 3), (H, W, 4) or (H, W) of uint8, 0 to 255, found one of shape "
                f"{photo.shape} of {photo.dtype}"
            )
        photo = Image.fromarray(photo)
    if not photo.width or not photo.height:
        raise DataError(f"expected a photo, found a picture of {photo.width} x {photo.height} pixels")
    try:
        return to_rgb(photo)
    except (ValueError, OSError, SyntaxError) as error:  # the last two of a file that Pillow has not read to its end
        raise DataError(f"expected a photo, found a picture that is none ({error})") from error


def another_size(path: Path, wanted: Size) -> Size | None:
    """The upright size of a photo, from its header, if it differs from ``wanted``; None if it fits.

    A photo also fits if it has the wanted size as stored, before EXIF turns it.

    Errors are those of ``load_photo``.
    """
    with _said(path), Image.open(path) as image:
        if image.size == wanted:
            return None
        upright = image.size[::-1] if _turn(image) in _TRANSPOSED else image.size
        return None if upright == wanted else upright


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
    if image.mode == "La":
        image = image.convert("LA")  # the only mode that Pillow converts it to
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
