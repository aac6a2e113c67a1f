"""Pictures of more than 8 bits a channel to 8 bits, from black to white.

Files seldom say which value is white. 12 bits may be stored in 16, and 8 in 32, so that the values have to tell.
"""

import sys
from numbers import Rational
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16, 24, 31, 32)
"""Bits that the whole numbers of a picture usually have, whatever they are stored in."""

DARK = 2**14
"""Colours of 16 bits that are all below this, a quarter of the range, may have fewer bits."""

SCALED = ("PPM", "JPEG2000", "HEIF", "AVIF")
"""Formats that state what is white, and that Pillow brings to 16 bits by that."""

STRIP = 2**21
"""Pixels that are worked on at once, so that little memory is needed beside the picture."""


def white_of(highest: float) -> float:
    """The value of white in a picture of whole numbers up to ``highest``: the greatest one of the least usual depth."""
    return next((2.0**bits - 1 for bits in DEPTHS if highest < 2**bits), highest)


def is_deep_grey(image: Image.Image) -> bool:
    """Whether a picture is grey with more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


# Tags of TIFF (TIFF 6.0, sections 8 and 19).
_BITS, _PHOTOMETRIC, _GREATEST, _FORMAT, _S_LEAST, _S_GREATEST = 258, 262, 281, 339, 340, 341


def grey_to_8_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Deep grey -> (L, alpha or None)."""
    values = np.asarray(image)
    tags = _tags(image)
    if image.mode == "I" and tags.get(_BITS) == 32 and tags.get(_FORMAT, 1) == 1:
        values = values.view(np.uint32)  # Pillow reads them as if they had a sign
    transparent = image.info.get("transparency")
    opaque = values != transparent if isinstance(transparent, int) else None

    finite = np.isfinite(values)
    known = values if finite.all() else values[finite]
    black, white = (_floating_range if values.dtype.kind == "f" else _whole_range)(known, image)
    with np.errstate(all="ignore"):
        grey = values.astype(np.float32)
        grey[~finite] = black
        grey -= np.float32(black)
        grey *= np.float32(256 / (white - black + (values.dtype.kind != "f")))
        levels = grey.clip(0, 255, out=grey).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow minds up to 8 bits only
        levels = 255 - levels
    return Image.fromarray(levels), None if opaque is None else Image.fromarray(opaque.astype(np.uint8) * np.uint8(255))


def _whole_range(values: NDArray[Any], image: Image.Image) -> tuple[float, float]:
    """(black, white) of grey in whole numbers."""
    lowest, highest = float(values.min()), float(values.max())
    tags = _tags(image)
    black = min(lowest, 0.0)
    if _S_LEAST in tags and tags[_S_LEAST] <= lowest:
        black = tags[_S_LEAST]
    if tags.get(_S_GREATEST, 0) >= max(highest, black + 1):
        return black, tags[_S_GREATEST]
    said = _said(image)
    if highest < 2**16 and not said and _is_widened(values):
        return black, 65535.0
    signed = tags.get(_FORMAT) == 2 and tags.get(_BITS) == 16
    return black, min(white_of(max(highest, said)), 32767.0 if signed else np.inf)


def _floating_range(values: NDArray[Any], image: Image.Image) -> tuple[float, float]:
    """(black, white) of grey in floating-point values."""
    tags = _tags(image)
    lowest, highest = (float(values.min()), float(np.percentile(values, 99.9))) if values.size else (0.0, 1.0)
    black = tags.get(_S_LEAST, min(lowest, 0.0))
    if tags.get(_S_GREATEST, black) > black:
        return black, tags[_S_GREATEST]
    if highest > 1 and (highest > 64 or not (values % 1).any()):
        return black, max(white_of(highest), black + 1)
    # From 0 to 1, but highlights may be brighter, which are cut off; or with another exposure.
    usual = float(values.clip(None, highest).mean(dtype=np.float64)) <= 1 if values.size else True
    return black, 1.0 if usual else highest


def _is_widened(values: NDArray[Any]) -> bool:
    """Whether these are 8 bits that were widened to 16 as they should be."""
    return any(not (values % step).any() for step in (256, 257))


def _said(image: Image.Image) -> float:
    """The greatest value that a picture of whole numbers may have, as far as its file says so; 0: it does not."""
    if image.format in SCALED:
        return 65535.0
    tags = _tags(image)
    bits = image.info.get("significant_bits") or tags.get(_BITS, 16)
    few = 2.0**bits - 1 if bits < 16 or "significant_bits" in image.info else 0.0
    return max(few, tags.get(_GREATEST, 0.0), tags.get(_S_GREATEST, 0.0))


def _tags(image: Image.Image) -> dict[int, float]:
    """The tags of a TIFF that tell what its values mean, and the first number of each; none of other pictures."""
    found = {}
    for tag in (_BITS, _PHOTOMETRIC, _GREATEST, _FORMAT, _S_LEAST, _S_GREATEST):
        value = getattr(image, "tag_v2", {}).get(tag)
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, int | float | Rational) and np.isfinite(float(first)):
            found[tag] = float(first)
    return found


# How Pillow loads a file is in ``image.tile``: a list of (codec, box, offset, settings), whose settings are, or begin
# with, the form of the file's values.

Plan = list[tuple[Any, ...]]

GREY_AND_ALPHA = "LA;16B"

_OTHER_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
} | {GREY_AND_ALPHA: "RGBA"}
"""Of 16-bit colours, Pillow keeps the high byte. Told that the other order holds, it keeps the low one.

Grey and alpha are as many bytes as four channels of 8 bits.
"""

_NATIVE = (
    {"F;32BF": "F;32F", "I;32BS": "I;32S", "I;32B": "I;32", "I;16BS": "I;16S"} if sys.byteorder == "little" else {}
)
"""libtiff has already brought these to the order of the machine; Pillow would do it once more."""


def _plan(image: Image.Image) -> Plan:
    return list(getattr(image, "tile", ()))


def form_of(image: Image.Image) -> str:
    """The form of the values of a picture, opened and not loaded; "" if it has several, or none that is known."""
    forms = {settings[0] if isinstance(settings, tuple) else settings for *_, settings in _plan(image)}
    form = forms.pop() if len(forms) == 1 else ""
    return form if isinstance(form, str) else ""


def _load_as(image: Image.Image, form: str) -> None:
    """Let a picture, opened and not loaded, be loaded as if its values had another form."""
    image.tile = [  # type: ignore[attr-defined]
        (*part, (form, *settings[1:]) if isinstance(settings, tuple) else form) for *part, settings in _plan(image)
    ]


def mend_order(image: Image.Image, form: str) -> None:
    """Let a compressed TIFF, opened and not loaded, be loaded in the right order of bytes."""
    if form in _NATIVE and all(part[0] == "libtiff" for part in _plan(image)):
        _load_as(image, _NATIVE[form])


def are_high_bytes_enough(image: Image.Image, form: str) -> bool:
    """Whether what Pillow has loaded of a picture tells what it shows.

    Args:
        image: as it was loaded.
        form: that of its values; see ``form_of``.
    """
    if form not in _OTHER_BYTES:
        return True
    if form == GREY_AND_ALPHA or isinstance(image.info.get("transparency"), tuple):
        return False
    return max(extrema[1] for extrema in image.getextrema()[:3]) >= DARK >> 8  # type: ignore[index]


def colours_to_8_bits(image: Image.Image, again: Image.Image) -> Image.Image:
    """Colours of 16 bits to 8 bits.

    Args:
        image: as Pillow has loaded it.
        again: the same, opened and not loaded.

    Returns:
        RGB, RGBA or LA, with what ``info`` holds.
    """
    form = form_of(again)
    grey = form == GREY_AND_ALPHA
    _load_as(again, _OTHER_BYTES[form])
    again.load()
    other = np.asarray(again)
    highs, lows = (other[..., 0::2], other[..., 1::2]) if grey else (np.asarray(image), other)
    channels = 1 if grey else 3
    height, width, all_channels = highs.shape
    has_alpha = all_channels > channels
    rows = max(1, STRIP // max(width, 1))

    def strips() -> Any:
        for top in range(0, height, rows):
            strip = slice(top, top + rows)
            yield strip, highs[strip].astype(np.uint16) << 8 | lows[strip]

    highest = alpha_highest = 0
    widened = True
    for _, values in strips():
        colours = values[..., :channels]
        highest = max(highest, int(colours.max()))
        alpha_highest = max(alpha_highest, int(values[..., channels:].max()) if has_alpha else 0)
        widened = widened and _is_widened(colours)
    said = _said(image)
    if not said and (widened or highest >= DARK):
        white = 65535
    else:  # alpha has as many bits
        white = int(white_of(max(highest, said, alpha_highest if alpha_highest < DARK else 0)))

    key = image.info.get("transparency")
    key = key if isinstance(key, tuple) and not has_alpha else None
    levels = np.empty((height, width, channels + (has_alpha or key is not None)), np.uint8)
    for strip, values in strips():
        small = (values.astype(np.uint32) * 256 // (white + 1)).astype(np.uint8)
        levels[strip, :, :channels] = small[..., :channels]
        if has_alpha:
            narrow = alpha_highest <= white
            levels[strip, :, channels] = small[..., channels] if narrow else highs[strip, :, channels]
        elif key is not None:
            levels[strip, :, channels] = (values != key).any(2) * np.uint8(255)
    picture = Image.fromarray(levels)
    picture.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return picture
