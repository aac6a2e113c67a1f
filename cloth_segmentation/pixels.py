"""From pixels of any mode, depth and colour profile to 8 bits in sRGB, and transparency apart."""

import sys
from functools import lru_cache
from io import BytesIO
from numbers import Rational
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms


class Pixels(NamedTuple):
    """A picture in the form that everything else works on."""

    colors: Image.Image  # RGB, 8 bits, sRGB, whatever the alpha
    alpha: Image.Image | None  # L, 0 transparent to 255 opaque; None: all of it is opaque
    notes: tuple[str, ...]  # what is odd about it: "expected ..., found ..."


def over_white(colors: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """An RGB picture with its alpha, laid over white."""
    if alpha is None:
        return colors
    picture = colors.copy()
    picture.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def to_srgb(image: Image.Image) -> Pixels:
    """Any Pillow mode, with or without a colour profile, to sRGB.

    Args:
        image: its ``info`` holds the profile, as Pillow reads it, and the colour that is transparent.
    """
    profile: bytes | None = image.info.get("icc_profile")
    alpha = None
    if is_deep_grey(image):
        image, alpha = _deep_grey(image)
    elif image.mode == "La":
        image = image.convert("LA")  # the only mode that Pillow converts it to
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        # Grey stays grey, for its profile.
        image = image.convert("L") if image.mode in ("L", "LA", "1") else rgba.convert("RGB")
    notes: tuple[str, ...] = ()
    transform = None
    if profile:
        space, transform = _from_profile(profile)
        if space == "RGB" and image.mode not in ("RGB", "CMYK"):
            image = image.convert("RGB")
        elif space == "L" and image.mode == "1":
            image = image.convert("L")
        if space != image.mode:
            transform = None
            wanted, found = ("fits the picture", "does not") if space else ("can be read", "cannot")
            notes = (f"expected a colour profile that {wanted}, found one that {found}; it is left out",)
    colors = image.convert("RGB") if transform is None else transform.apply(image)
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    for name in ("icc_profile", "transparency"):  # which Pillow would write beside pixels that are others now
        colors.info.pop(name, None)
    return Pixels(colors, alpha, notes)


SAME = 2
"""Where a profile changes no colour by more than this, of 255, it is sRGB by another name, and pixels stay."""


@lru_cache(maxsize=16)
def _from_profile(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode of pictures that a colour profile is for, and what brings them to sRGB; None: they are in sRGB.

    The mode is "" if the profile cannot be used.
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}[source.profile.xcolor_space]
        # Threads share the transform, and LittleCMS's cache of the last pixel is not made for that.
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=ImageCms.Flags.NOCACHE
        )
    except Exception:  # LittleCMS is not there, or cannot read it; Pillow raises PyCMSError, OSError, TypeError, ...
        return "", None
    if mode != "CMYK":
        steps = np.linspace(0, 255, 9).round().astype(np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
        sample = Image.fromarray(colours if mode == "RGB" else colours[..., 0])
        change = np.asarray(transform.apply(sample)).astype(int) - np.asarray(sample.convert("RGB"))
        if np.abs(change).max() <= SAME:
            return mode, None
    return mode, transform


def is_deep_grey(image: Image.Image) -> bool:
    """Whether a picture is grey with more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


DEPTHS = (8, 10, 12, 14, 16, 24, 31, 32)
"""Bits that the whole numbers of a picture usually have, whatever they are stored in."""


def white_of(highest: float) -> float:
    """The value of white in a picture of whole numbers up to ``highest``: the greatest one of the least usual depth."""
    return next((2.0**bits - 1 for bits in DEPTHS if highest < 2**bits), highest)


# Tags of TIFF (TIFF 6.0, sections 8 and 19).
_BITS, _PHOTOMETRIC, _GREATEST, _FORMAT, _S_LEAST, _S_GREATEST = 258, 262, 281, 339, 340, 341


def _deep_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Deep grey -> (L, alpha or None).

    Files seldom say which value is white. 12 bits may be stored in 16, and 8 in 32, so the values tell.
    """
    values = np.asarray(image)
    tags = {tag: float(np.ravel(value)[0]) for tag, value in _tags(image).items()}
    if image.mode == "I" and tags.get(_BITS) == 32 and tags.get(_FORMAT, 1) == 1:
        values = values.view(np.uint32)  # Pillow reads them as if they had a sign
    transparent = image.info.get("transparency")
    alpha = None if transparent is None else Image.fromarray((values != transparent).astype(np.uint8) * np.uint8(255))

    finite = np.isfinite(values)
    known = values if finite.all() else values[finite]
    lowest, highest = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    black = min(lowest, 0.0)
    if values.dtype.kind != "f":
        bits = tags.get(_BITS, 16)
        said = max(tags.get(_GREATEST, 0), tags.get(_S_GREATEST, 0), 2**bits - 1 if bits < 16 else 0)
        # 8 bits that were widened rightly are multiples of these.
        widened = highest < 2**16 and any(not (values % step).any() for step in (256, 257))
        white = 65535.0 if widened and not said else white_of(max(highest, said))
        scale = 256 / (white - black + 1)
    else:
        black = tags.get(_S_LEAST, black)
        # Values from 0 to 1 may have highlights that are brighter, which are cut off.
        bright = 1.0 if known.size and known.mean() <= 1 else white_of(highest)
        white = tags.get(_S_GREATEST, bright)
        scale = 256 / (white - black) if white > black else 0.0
    grey = values.astype(np.float32)
    grey[~finite] = black
    grey -= np.float32(black)
    grey *= np.float32(scale)
    levels = grey.clip(0, 255, out=grey).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow minds up to 8 bits only
        levels = 255 - levels
    return Image.fromarray(levels), alpha


def _tags(image: Image.Image) -> dict[int, float]:
    """The tags of a TIFF that tell what its values mean, and the first number of each; none of other pictures."""
    found = {}
    for tag in (_BITS, _PHOTOMETRIC, _GREATEST, _FORMAT, _S_LEAST, _S_GREATEST):
        value = getattr(image, "tag_v2", {}).get(tag)
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, int | float | Rational) and np.isfinite(float(first)):
            found[tag] = float(first)
    return found


_LOW_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
"""Of 16-bit colours, Pillow keeps the high byte. Told that the other order holds, it keeps the low one."""


def low_bytes(image: Image.Image) -> list[tuple[Any, ...]]:
    """What ``image.tile``, the plan by which Pillow loads a picture, must be for the low bytes of 16-bit colours.

    Empty if the colours have no 16 bits.
    """
    plan = []
    for codec, box, offset, settings in getattr(image, "tile", ()):
        rawmode = _LOW_BYTES.get(settings[0] if isinstance(settings, tuple) else settings)
        if rawmode is None:
            return []
        plan.append((codec, box, offset, (rawmode, *settings[1:]) if isinstance(settings, tuple) else rawmode))
    return plan


def needs_low_bytes(image: Image.Image) -> bool:
    """Whether the high bytes of 16-bit colours do not tell what a picture shows."""
    # With no colour above a quarter of the range, the values may have 14 bits or fewer.
    dark = np.asarray(image)[..., :3].max() < 64
    return bool(dark) or isinstance(image.info.get("transparency"), tuple)


def with_low_bytes(high: Image.Image, low: Image.Image) -> Image.Image:
    """Colours of 16 bits, as two pictures (RGB or RGBA) of their bytes, to 8 bits, from black to white."""
    lows = np.asarray(low)
    values = np.asarray(high).astype(np.uint16) << 8 | lows
    colours = values[..., :3]
    widened = not lows.any() or not (colours % 257).any()
    white = 65535 if widened else int(white_of(int(colours.max())))
    levels = np.asarray(high).copy()
    levels[..., :3] = (colours.astype(np.uint32) * 256 // (white + 1)).astype(np.uint8)
    transparent = high.info.get("transparency")
    if values.shape[2] == 4:
        if values[..., 3].max() <= white:
            levels[..., 3] = (values[..., 3].astype(np.uint32) * 256 // (white + 1)).astype(np.uint8)
    elif isinstance(transparent, tuple):
        levels = np.dstack((levels, (colours != transparent).any(2).astype(np.uint8) * np.uint8(255)))
    picture = Image.fromarray(levels)
    picture.info = {name: value for name, value in high.info.items() if name != "transparency"}
    return picture
