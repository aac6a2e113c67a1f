"""What a file is that should be a photo and cannot be read as one."""

from pathlib import Path

from PIL import Image, features

from cloth_segmentation.files import known_kind

_RAW = "a camera raw, of which only a preview could be read; develop it, and save it as JPEG, PNG or TIFF"
_JPEG_XL = "a JPEG XL picture, which is not read; save it as JPEG or PNG"
_TIFF = "a TIFF of a kind that Pillow cannot read; save it as JPEG, PNG, or a TIFF in RGB with 8 bits a channel"
_VIDEO = "a video; save frames of it as JPEG or PNG"
_SOUND = "a sound file"
_ARCHIVE = "an archive; unpack it"
_DOCUMENT = "a document; save its pages as JPEG or PNG"

_STARTS = (
    (b"\xff\x0a", _JPEG_XL),
    (b"\0\0\0\x0cJXL ", _JPEG_XL),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"FOVb", _RAW),  # Sigma
    (b"IIU\0", _RAW),  # Panasonic
    (b"IIRO", _RAW),  # Olympus
    (b"IIRS", _RAW),
    (b"\0MRM", _RAW),  # Minolta
    (b"\x1a\x45\xdf\xa3", _VIDEO),  # Matroska, WebM
    (b"FLV\x01", _VIDEO),
    (b"\x30\x26\xb2\x75", _VIDEO),  # Windows Media
    (b"\0\0\x01\xba", _VIDEO),  # MPEG
    (b"ID3", _SOUND),
    (b"OggS", _SOUND),
    (b"fLaC", _SOUND),
    (b"%PDF", _DOCUMENT),
    (b"{\\rtf", _DOCUMENT),
    (b"\xd0\xcf\x11\xe0", _DOCUMENT),  # older Office
    (b"PK\x03\x04", _ARCHIVE),
    (b"\x1f\x8b", _ARCHIVE),
    (b"Rar!", _ARCHIVE),
    (b"7z\xbc\xaf", _ARCHIVE),
    (b"II*\0", _TIFF),
    (b"MM\0*", _TIFF),
    (b"II+\0", _TIFF),
    (b"MM\0+", _TIFF),
)
"""First bytes of files, and what they are."""

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2")
_HEIC_SEQUENCE = (b"hevc", b"hevx", b"hevm", b"hevs", b"msf1")
_PILLOW_HEIF = "takes pillow-heif: pip install pillow-heif; or save it as JPEG"
_BRANDS = (
    dict.fromkeys(_HEIC, ("a HEIC picture", _PILLOW_HEIF))
    | dict.fromkeys(_HEIC_SEQUENCE, ("a HEIC sequence of pictures", _PILLOW_HEIF))
    | dict.fromkeys((b"avif", b"avis"), ("an AVIF picture", "this Pillow cannot read: pip install --upgrade pillow"))
)
"""Names and remedies by the brand of a file (ISO/IEC 23008-12, annexes B and G), which is in bytes 8 to 12."""

_OTHER_BRANDS = {b"crx ": _RAW, b"jxl ": _JPEG_XL}
"""The rest is video."""

_RIFF = {b"AVI ": _VIDEO, b"WAVE": _SOUND}

RAW_ENDINGS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
"""Endings of the names of camera raws, many of which are TIFFs."""


def is_heif(begin: bytes) -> bool:
    """Whether a file that begins like this is what pillow-heif reads."""
    return _brand(begin) in _HEIC + _HEIC_SEQUENCE


def _brand(begin: bytes) -> bytes:
    """The first brand of a file that is known; else its major one, or b"" if it has none."""
    if begin[4:8] != b"ftyp":
        return b""
    end = min(int.from_bytes(begin[:4], "big"), len(begin))
    brands = [begin[8:12], *(begin[at : at + 4] for at in range(16, end - 3, 4))]
    return next((brand for brand in brands if brand in _BRANDS), brands[0])


def unread_kind(begin: bytes, path: Path | None, *, heif: bool) -> str:
    """Name a file that Pillow does not know.

    Args:
        begin: its first bytes, up to 512.
        path: of the file, if it has one.
        heif: whether pillow-heif is there.
    """
    if known := known_kind(begin):
        return known
    if path is not None and path.suffix.lower() in RAW_ENDINGS:
        return _RAW
    if begin[4:8] == b"ftyp":
        brand = _brand(begin)
        if brand not in _BRANDS:
            return _OTHER_BRANDS.get(brand, _VIDEO)
        name, remedy = _BRANDS[brand]
        can_be_read = heif if is_heif(begin) else features.check("avif")
        return f"{name} that cannot be decoded" if can_be_read else f"{name}, which {remedy}"
    if begin[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime before it had brands
        return _VIDEO
    if begin[:4] == b"RIFF" and begin[8:12] in _RIFF:
        return _RIFF[begin[8:12]]
    if begin.lstrip()[:1] == b"<" and b"<svg" in begin:
        return "an SVG drawing; save it as PNG"
    return next((kind for start, kind in _STARTS if begin.startswith(start)), "a file in no format that Pillow knows")


# Tags of TIFF and DNG (TIFF 6.0, section 8; DNG 1.7, chapter 4).
_SUBFILE_TYPE, _BITS, _COMPRESSION, _PLANES, _SUB_IFDS, _DNG_VERSION = 254, 258, 259, 284, 330, 50706


def raw_kind(image: Image.Image, begin: bytes, path: Path | None) -> str:
    """Name a TIFF of which a preview, or nothing right, would be read; "" for all other TIFFs.

    Args:
        image: as opened.
        begin: the first bytes of its file.
        path: of the file, if it has one.
    """
    tags = getattr(image, "tag_v2", {})
    canon = begin[:4] == b"II*\0" and begin[8:12] == b"CR\x02\0"
    if _DNG_VERSION in tags or canon or (path is not None and path.suffix.lower() in RAW_ENDINGS):
        return _RAW
    kind = tags.get(_SUBFILE_TYPE, 0)
    if isinstance(kind, int) and kind & 1 and (_SUB_IFDS in tags or getattr(image, "n_frames", 1) > 1):
        return "a TIFF that begins with a preview, as camera raws do; save the whole picture as JPEG, PNG or TIFF"
    bits = tags.get(_BITS, (8,))
    if tags.get(_PLANES) == 2 and tags.get(_COMPRESSION) == 1 and isinstance(bits, tuple) and max(bits) > 8:
        return "a TIFF with 16 bits in a plane for each colour, which Pillow reads wrongly; save it as PNG"
    return ""
