"""Names of photos, as people and programs spell them."""

import unicodedata
from typing import NamedTuple

from PIL import Image

ENDINGS = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
"""Endings of pictures that Pillow reads, in small letters."""

SAME_ENDING = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}


class Spelling(NamedTuple):
    """What all spellings of a name have in common."""

    stem: str  # composed (Unicode NFC), case folded, without the ending of a picture
    ending: str  # .jpg for all of a kind; "" for none of a picture


def spelling(name: str) -> Spelling:
    """The spelling of a name, with or without folders."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    stem, dot, ending = composed.rpartition(".")
    if dot + ending not in ENDINGS:
        return Spelling(composed, "")
    return Spelling(stem, SAME_ENDING.get(dot + ending, dot + ending))
