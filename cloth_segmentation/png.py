"""The parts of a PNG that Pillow does not tell of, or stumbles over."""

import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(name, data, all of it) of each chunk of a PNG: length, name, data, sum (PNG, third edition, section 5.3)."""
    at = len(SIGNATURE)
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        yield png[at + 4 : at + 8], png[at + 8 : end - 4], png[at:end]
        at = end


def significant_bits(png: bytes) -> int | None:
    """The greatest number of bits that a PNG calls significant (section 11.3.2.7); None if it calls none so."""
    for name, data, _ in chunks(png):
        if name == b"sBIT":
            return max(data, default=0) or None
        if name == b"IDAT":
            break
    return None


ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Begin texts that may hold the orientation: EXIF of ImageMagick, and XMP."""

LARGEST_PROFILE = 2**20
"""Bytes of a colour profile that Pillow takes from a PNG."""

NO_PROFILE = b"\0\0\0\3iCCPx\0\0" + zlib.crc32(b"iCCPx\0\0").to_bytes(4, "big")
"""A colour profile that cannot be read, in the place of one that Pillow does not take, so that it is told of one."""


def without_texts(png: bytes) -> bytes:
    """A PNG without its texts, and without a colour profile that is too long for Pillow."""
    kept = [png[: len(SIGNATURE)]]
    for name, data, chunk in chunks(png):
        if name == b"iCCP" and _too_long(data):
            kept.append(NO_PROFILE)
        elif name not in (b"tEXt", b"zTXt", b"iTXt") or data.startswith(ORIENTATION_TEXTS):
            kept.append(chunk)
    return b"".join(kept)


def _too_long(profile: bytes) -> bool:
    compressed = profile[profile.find(b"\0") + 2 :]
    try:
        return len(zlib.decompressobj().decompress(compressed, LARGEST_PROFILE + 1)) > LARGEST_PROFILE
    except zlib.error:
        return True
