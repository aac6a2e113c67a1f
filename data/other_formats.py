"""Files that people give for labels in plain text: what they are, and what to do with them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cloth_segmentation.files import known_kind

PACKED = {
    b"PK\x03\x04": ("a zip archive", "unzip"),
    b"\x1f\x8b": ("a gzip file", "gunzip -k"),
    b"BZh": ("a bzip2 file", "bunzip2 -k"),
    b"\xfd7zXZ\0": ("an xz file", "unxz -k"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", "unzstd"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x"),
}
"""{first bytes: what they are of, the command that unpacks it}."""

PACKED_ENDINGS = (".zip", ".gz", ".bz2", ".xz", ".zst", ".7z")

SPREADSHEET = "spreadsheets cut masks of more than 32,767 characters, so better take the file that it was made from"

MOST = 2**16
"""Bytes in which the header of a CSV is looked for."""


def packed_beside(path: Path) -> str:
    """What packed form of a file that is missing lies beside it, and what to do; "" if there is none."""
    for ending in PACKED_ENDINGS:
        packed = path.with_name(path.name + ending)
        if packed.is_file():
            return f"{packed}: {other_format(packed, ())}"
    return ""


def other_format(path: Path, columns: Sequence[str]) -> str:
    """What a file is that is no text in UTF-8, nor a CSV with commas, and what to do with it; "" if it seems to be one.

    Args:
        path: the file.
        columns: that such a CSV has; empty for JSON.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        begin = file.read(MOST)
    if kind := known_kind(begin[:512]):
        return kind
    name = shlex.quote(str(path))
    if begin.startswith(b"\xd0\xcf\x11\xe0") or (begin.startswith(b"PK\x03\x04") and _is_spreadsheet(begin)):
        return f"a spreadsheet; save it as CSV, UTF-8, separated by commas; {SPREADSHEET}"
    for first, (kind, command) in PACKED.items():
        if begin.startswith(first):
            return f"{kind}; unpack it ({command} {name}) and give the file that comes out"
    is_wide = any(column.encode("utf-16-be") in begin for column in columns) if columns else b"\0" in begin[:4]
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")) or is_wide:
        encoding = "UTF-16BE" if begin[0] in b"\xfe\0" else "UTF-16LE"
        made = "utf8.csv" if columns else "utf8.json"
        return f"text in UTF-16; turn it into UTF-8 (iconv -f {encoding} -t UTF-8 {name} > {made})"
    header = begin.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].rstrip(b"\r")
    for separator, word in ((b";", "semicolons"), (b"\t", "tabs")):
        if columns and {column.encode() for column in columns} <= {
            field.strip(b' "') for field in header.split(separator)
        }:
            return f"columns separated by {word}; save it with commas; {SPREADSHEET}"
    if columns and b"\r" in header:
        return f"lines that end in a carriage return alone; write them anew (tr '\\r' '\\n' < {name} > new.csv)"
    return ""


def _is_spreadsheet(begin: bytes) -> bool:
    """Whether a zip archive that begins so is one of Excel or LibreOffice."""
    return any(part in begin[:200] for part in (b"[Content_Types].xml", b"_rels/.rels", b"opendocument.spreadsheet"))
