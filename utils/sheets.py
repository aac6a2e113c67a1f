"""Parts of pictures for people: lines of text, legends, pictures beside and below one another, on white."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from math import ceil

from PIL import Image, ImageDraw, ImageFont

from cloth_segmentation.colors import Color

MARGIN = 8
"""Space around what is drawn, pixels."""

LINE = 22
"""Height of a line of text, pixels."""

SWATCH = 14
"""Width and height of a colour in a legend, pixels."""


@lru_cache
def font(size: int = 14) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all text."""
    return ImageFont.load_default(size)


def stacked(pictures: Sequence[Image.Image], *, across: bool = False, gap: int = 0) -> Image.Image:
    """Pictures below one another, or ``across``: beside one another; at least one.

    Args:
        pictures: RGB or with a palette.
        across: from left to right, their tops in a line.
        gap: between two of them, pixels.
    """
    widths, heights = [picture.width for picture in pictures], [picture.height for picture in pictures]
    between = gap * (len(pictures) - 1)
    size = (sum(widths) + between, max(heights)) if across else (max(widths), sum(heights) + between)
    sheet = Image.new("RGB", size, "white")
    at = 0
    for picture in pictures:
        sheet.paste(picture, (at, 0) if across else (0, at))
        at += (picture.width if across else picture.height) + gap
    return sheet


def framed(picture: Image.Image, margin: int = MARGIN) -> Image.Image:
    """A picture with white around it."""
    sheet = Image.new("RGB", (picture.width + 2 * margin, picture.height + 2 * margin), "white")
    sheet.paste(picture, (margin, margin))
    return sheet


def text_line(text: str, width: int) -> Image.Image:
    """A line of text; its end is cut off where it does not fit."""
    sheet = Image.new("RGB", (width, LINE), "white")
    ImageDraw.Draw(sheet).text((0, LINE / 2), _fitted(text, width), fill="black", font=font(), anchor="lm")
    return sheet


def legend(keys: Sequence[tuple[str, Color]], width: int) -> Image.Image:
    """Names after their colours, in as many lines as that takes."""
    places: list[tuple[int, int, str]] = []
    left = line = 0
    for name, _ in keys:
        shown = _fitted(name, width - SWATCH - MARGIN // 2)
        needed = SWATCH + MARGIN // 2 + round(font().getlength(shown))
        if left and left + needed > width:
            left, line = 0, line + 1
        places.append((left, line, shown))
        left += needed + 2 * MARGIN
    sheet = Image.new("RGB", (width, LINE * (line + 1)), "white")
    draw = ImageDraw.Draw(sheet)
    for (left, line, shown), (_, color) in zip(places, keys, strict=True):
        middle = LINE * line + LINE / 2
        corner = (left, middle - SWATCH / 2)
        draw.rectangle((*corner, corner[0] + SWATCH - 1, corner[1] + SWATCH - 1), fill=color, outline="black")
        draw.text((left + SWATCH + MARGIN // 2, middle), shown, fill="black", font=font(), anchor="lm")
    return sheet


def _fitted(text: str, width: int) -> str:
    """The text in characters that can be drawn, its middle left out where it is too long: "folder/ab...yz.jpg"."""
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    # A name of any length costs little: no letter that is seen is narrower than a pixel.
    if len(text) <= 2 * width and font().getlength(text) <= width:
        return text
    text = text if len(text) <= 2 * width else text[:width] + text[-width:]
    kept = bisect_right(range(1, len(text)), width, key=lambda kept: ceil(font().getlength(_shortened(text, kept))))
    return _shortened(text, max(1, kept))


def _shortened(text: str, kept: int) -> str:
    return text[: kept - kept // 2] + "..." + text[len(text) - kept // 2 :]
