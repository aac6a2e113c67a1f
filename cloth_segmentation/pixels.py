"""From pixels of any mode, depth and colour profile to 8 bits in sRGB, and transparency apart."""

from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from cloth_segmentation.depths import grey_to_8_bits, is_deep_grey


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
    has_profile, profile = "icc_profile" in image.info, image.info.get("icc_profile")
    alpha = None
    if is_deep_grey(image):
        image, alpha = grey_to_8_bits(image)
    elif image.mode == "La":
        image = image.convert("LA")  # the only mode that Pillow converts it to
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        # Grey stays grey, for its profile.
        image = image.convert("L") if image.mode in ("L", "LA", "1") else rgba.convert("RGB")
    notes: tuple[str, ...] = ()
    transform = None
    if has_profile:
        profile = bytes(profile or b"")  # Pillow gives None for one that it cannot read
        # Those that cameras and programs write are kept, up to 64 MB of them.
        look = _from_profile if len(profile) <= 2**20 else _from_profile.__wrapped__
        space, transform = look(profile)
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


@lru_cache(maxsize=64)
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
