"""Reading one photo, whatever its format, mode and orientation."""

import errno
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cloth_segmentation import png
from cloth_segmentation.depths import are_high_bytes_enough, colours_to_8_bits, form_of, is_deep_grey, mend_order
from cloth_segmentation.errors import DataError
from cloth_segmentation.picture_kinds import is_heif, raw_kind, unread_kind
from cloth_segmentation.pixels import over_white, to_srgb

# Of strange tags, and of sizes from 90 megapixels on; 180 are an error. Once for all: photos are read in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # its errors come as exceptions too
# Pillow loads its formats when it first needs them, and a thread that asks meanwhile may be told that there is none.
Image.init()

Size = tuple[int, int]
"""(width, height) in pixels, Pillow's order."""


class Photo(NamedTuple):
    """A photo that was read."""

    colors: Image.Image  # upright, RGB, 8 bits, sRGB, whatever the alpha
    alpha: Image.Image | None  # L, as large as the colors, 0 transparent to 255 opaque; None: all of it is opaque
    size: Size  # (width, height) of the photo; colors and alpha may be smaller
    notes: tuple[str, ...]  # what is odd about it: "expected ..., found ..."

    @property
    def picture(self) -> Image.Image:
        """The colors, with transparency laid over white."""
        return over_white(self.colors, self.alpha)


Source = Path | bytes
"""A file, or its content."""

Stamp = tuple[int, int, int]
"""(bytes, times of the last change of content and of anything, in nanoseconds) of a file: another one once it differs.

A copy may keep the first time; no program sets the second one.
"""


def file_stamp(path: Path) -> Stamp:
    """The stamp of a file. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def load_photo(source: Source) -> Image.Image:
    """Read a photo as an upright 8-bit RGB picture in sRGB, at its own size; see ``read_photo``."""
    return read_photo(source, None).picture


def read_photo(source: Source, enough: Size | None = None, *, upright: bool = True) -> Photo:
    """Read a photo upright, in 8-bit sRGB, and no larger than need be where its format allows that.

    EXIF orientation is applied, colours are brought from their profile to sRGB, transparency is laid over white, and
    greater depths are scaled to 8 bits. JPEGs can be decoded at a half, a quarter or an eighth of their size, for a
    fraction of the time and memory.

    Args:
        source: the file.
        enough: (width, height) that the picture must have at least, if the photo has it; None: its own size.
        upright: apply EXIF orientation; False gives the photo as it is stored.

    Raises:
        DataError: the file cannot be read as a picture.
        OSError: the file cannot be opened.
        MemoryError: there is too little for it.
    """
    return _despite_texts(source, lambda source: _read(source, enough, upright))


def _read(source: Source, enough: Size | None, upright: bool) -> Photo:
    with _said(source), _opened(source) as image:
        _check_kind(image, source)
        own = image.size
        reduced = None
        if enough is not None and isinstance(image, JpegImageFile):  # others are loaded by the look at their EXIF
            stored = enough[::-1] if upright and _turn(image) in _TRANSPOSED else enough
            reduced = image.draft(None, stored)  # None keeps the mode
        form = form_of(image)
        _mend(image, form)
        image.load()
        if reduced is None:
            own = image.size  # only now: Pillow turns TIFFs by itself when it loads them
        turn = _turn(image) if upright else None
        colors, alpha, notes = to_srgb(_with_all_bits(image, form, source))
        if _has_several(image):  # last, since it looks further into the file
            notes += ("expected one picture, found several; the mask is that of the first",)
        if turn is None:
            return Photo(colors, alpha, own, notes)
        turned = colors.transpose(turn), alpha.transpose(turn) if alpha else None
        return Photo(*turned, own[::-1] if turn in _TRANSPOSED else own, notes)


def _mend(image: Image.Image, form: str) -> None:
    """Mend what Pillow would read wrongly of a picture that it has opened and not loaded."""
    mend_order(image, form)
    key = image.info.get("transparency")
    if image.format == "PNG" and form in _LOW_BITS and isinstance(key, int):
        image.info["transparency"] = key * _LOW_BITS[form]  # the grey values become those of 8 bits


_LOW_BITS = {"L;2": 85, "L;4": 17}
"""Forms of grey with fewer bits, and by how much their values grow."""


def _with_all_bits(image: Image.Image, form: str, source: Source) -> Image.Image:
    """A loaded picture; one of 16 bits, of which Pillow has kept the high ones, in 8 bits that all of them tell."""
    enough = are_high_bytes_enough(image, form)
    # Only now, since it takes the whole file.
    if (
        image.format == "PNG"
        and (is_deep_grey(image) or not enough)
        and (bits := png.significant_bits(_content(source)))
    ):
        image.info["significant_bits"] = bits
    if enough:
        return image
    with _opened(source) as again:
        return colours_to_8_bits(image, again)


def _check_kind(image: Image.Image, source: Source) -> None:
    """Raise DataError for what Pillow opens although it is no photo, or not the one that is meant."""
    if image.format == "EPS":
        raise DataError(f"{source_name(source)}: expected a picture, found a PostScript program, which is not run")
    if image.format == "TIFF" and (raw := raw_kind(image, _begin(source), _path(source))):
        raise DataError(f"{source_name(source)}: expected a picture, found {raw}")


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a text that should be a path is an address, such as https://example.org/a.jpg."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(path), re.IGNORECASE) is not None


def _opened(source: Source) -> Image.Image:
    file = BytesIO(source) if isinstance(source, bytes) else source
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        if not is_heif(_begin(source)) or not can_read_heif():
            raise
    return Image.open(file)


@lru_cache(maxsize=1)
def can_read_heif() -> bool:
    """Let Pillow read HEIC if pillow-heif is there; whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _begin(source: Source) -> bytes:
    """The first bytes of a file."""
    if isinstance(source, bytes):
        return source[:512]
    with source.open("rb") as file:
        return file.read(512)


def _path(source: Source) -> Path | None:
    return None if isinstance(source, bytes) else source


def source_name(source: Source) -> str:
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
        found = unread_kind(_begin(source), _path(source), heif=can_read_heif())
        raise DataError(f"{source_name(source)}: expected a picture, found {found}") from None
    except Image.DecompressionBombError as error:
        pixels, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
        raise DataError(
            f"{source_name(source)}: expected at most {limit:,} pixels, found {pixels:,}; make it smaller"
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file provokes: OSError, SyntaxError, ...
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # that one is of wrong offsets
            raise  # the system's, which cannot open or read the file
        raise DataError(
            f"{source_name(source)}: expected a picture, found one that cannot be decoded ({error})"
        ) from error


def _has_several(image: Image.Image) -> bool:
    """Whether there are more pictures in the file; to count them, Pillow may take minutes."""
    # The further pictures of an MPO are a phone's: previews, depth. Those of a PSD are its layers, shown together.
    return image.format not in ("MPO", "PSD") and bool(getattr(image, "is_animated", False))


def from_memory(photo: Image.Image | NDArray[np.uint8]) -> Photo:
    """A photo that is no file, in 8-bit sRGB; a Pillow picture's EXIF orientation is not applied.

    Args:
        photo: a picture of any Pillow mode, or an array: (H, W, 3) in RGB, (H, W, 4) in RGBA, or (H, W) in grey,
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
        colors, alpha, notes = to_srgb(photo)
    except (ValueError, TypeError, OSError, SyntaxError) as error:  # the last two: a file not yet read to its end
        raise DataError(f"expected a photo, found a picture that is none ({error})") from error
    return Photo(colors, alpha, photo.size, notes)


class Sizes(NamedTuple):
    """The size of a photo before and after EXIF turns it."""

    stored: Size  # that of the other for a TIFF, which is never read as it is stored
    upright: Size
    turned: bool  # EXIF turns or mirrors it


def read_sizes(path: Path, wanted: Size) -> Sizes:
    """The sizes of a photo, from its header.

    A PNG of another stored size than ``wanted`` is decoded too, since its EXIF may stand behind the pixels.

    Errors are those of ``load_photo``.
    """

    def look(source: Source) -> Sizes:
        with _said(source), _opened(source) as image:
            _check_kind(image, source)
            turn = _turn(image, header_only=image.size == wanted)
            if isinstance(image, TiffImageFile):  # some versions of Pillow turn it already when they open it
                stored = image.tag_v2[256], image.tag_v2[257]
                upright = stored[::-1] if turn in _TRANSPOSED else stored
                return Sizes(upright, upright, turned=False)
            upright = image.size[::-1] if turn in _TRANSPOSED else image.size
            return Sizes(image.size, upright, turn is not None)

    return _despite_texts(path, look)


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


def _turn(image: Image.Image, *, header_only: bool = False) -> Image.Transpose | None:
    # Pillow's exif_transpose writes the other tags anew and fails on strange ones; only the orientation matters here.
    try:
        # A PNG looks for EXIF behind its pixels, and decodes them for that.
        exif = Image.Image.getexif(image) if header_only else image.getexif()
        return _UPRIGHT.get(exif.get(0x0112, 1))
    except Exception:
        return None  # no EXIF that could be read


Read = TypeVar("Read")


def _despite_texts(source: Source, read: Callable[[Source], Read]) -> Read:
    """Read a file; a PNG whose texts are too long for Pillow, without them."""
    try:
        return read(source)
    except DataError:
        if _begin(source).startswith(png.SIGNATURE):
            content = _content(source)
            light = png.without_texts(content)
            if len(light) < len(content):
                with suppress(DataError):
                    return read(light)
        raise


def _content(source: Source) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()
