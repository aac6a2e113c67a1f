"""Everything that a folder may hold beside good photos, all in one folder: each is told, and the rest is done."""

import csv
import io
import os
import socket
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import pytest
from conftest import fork
from PIL import Image

PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 255, (48, 64, 3)).astype(np.uint8))

Make = Callable[[Path, Path], None]
"""Puts something at the path of a photo, or at that of its mask."""


def encoded(format: str, picture: Image.Image = PICTURE, **settings: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **settings)
    return file.getvalue()


def holding(data: bytes) -> Make:
    return lambda photo, mask: photo.write_bytes(data)


def cut(format: str, **settings: object) -> Make:
    data = encoded(format, **settings)
    return holding(data[: len(data) * 2 // 3])


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that says it is RGB of that size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def icon(picture: bytes) -> bytes:
    """An ICO that says its picture is small."""
    return struct.pack("<HHH BBBBHHII", 0, 1, 1, 32, 32, 0, 0, 1, 32, len(picture), 22) + picture


def linked(target: str) -> Make:
    return lambda photo, mask: photo.symlink_to(target)


def pipe(photo: Path, mask: Path) -> None:
    os.mkfifo(photo)


def listening(photo: Path, mask: Path) -> None:
    here = Path.cwd()
    os.chdir(photo.parent)  # sockets have short names only
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(photo.name)
    finally:
        os.chdir(here)


def locked_file(photo: Path, mask: Path) -> None:
    PICTURE.save(photo, "PNG")
    photo.chmod(0)


def locked_folder(photo: Path, mask: Path) -> None:
    photo.mkdir()
    PICTURE.save(photo / "inside.png")
    photo.chmod(0)


def folder_in_its_place(photo: Path, mask: Path) -> None:
    PICTURE.save(photo)
    mask.mkdir(parents=True)


def file_in_the_place_of_its_folder(photo: Path, mask: Path) -> None:
    photo.parent.mkdir()
    PICTURE.save(photo)
    mask.parent.write_text("")


class Bad(NamedTuple):
    name: str
    make: Make
    reason: str  # how it begins
    shown: str = ""  # the name in messages, where it differs


NO_PICTURE = "expected a picture, found a file in no format that Pillow knows"
BROKEN = "expected a picture, found one that cannot be decoded ("
TOO_LARGE = "expected at most 178,956,970 pixels, found 900,000,000; make it smaller"
OTHER_TIFF = "expected a picture, found a TIFF of a kind that Pillow cannot read"

CHANNELS = struct.pack("<HHI", 277, 3, 1)
"""Begins a TIFF's entry for the number of channels."""

PHOTO_APP = "\0\0\0\x18ftyp{}\0\0\0\0mif1heic"

KINDS = [
    *((f"{brand}.jpg", PHOTO_APP.format(brand).encode(), "a HEIC sequence") for brand in ("hevc", "hevx", "msf1")),
    *((f"{brand}.png", PHOTO_APP.format(brand).encode(), "a HEIC picture") for brand in ("mif1", "heix")),
    ("avif.jpg", PHOTO_APP.format("avif").encode(), "an AVIF picture"),
    ("other_brand.jpg", PHOTO_APP.format("MiHB").encode(), "a HEIC picture"),
    ("video.jpg", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
    ("video.png", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a video"),
    ("webm.jpg", b"\x1a\x45\xdf\xa3\x01", "a video"),
    ("avi.jpg", b"RIFF\x10\x10\0\0AVI LIST", "a video"),
    ("canon.cr3", PHOTO_APP.format("crx ").encode(), "a camera raw"),
    ("fuji.raf", b"FUJIFILMCCD-RAW 0201", "a camera raw"),
    ("panasonic.jpg", b"IIU\0\x18\0\0\0", "a camera raw"),
    ("sony.arw", b"II*\0\x08\0\0\0", "a camera raw"),
    ("codestream.jxl", b"\xff\x0a\xfa\x1f", "a JPEG XL picture"),
    ("container.jpg", b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    ("lfs.jpg", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ("pdf.jpg", b"%PDF-1.7\n", "a document"),
    ("zip.jpg", b"PK\3\4\x14", "an archive"),
    ("drawing.jpg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
]

BAD = [
    Bad("text.jpg", holding(b"not a picture"), NO_PICTURE),
    Bad("page.jpg", holding(b"<!DOCTYPE html><html><body>404</body></html>"), "expected a picture, found a web page"),
    Bad(
        "apple.heic",
        holding(b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHE" + bytes(200)),
        "expected a picture, found a HEIC picture",
    ),
    *(Bad(name, holding(data + bytes(200)), f"expected a picture, found {kind}") for name, data, kind in KINDS),
    Bad("zeros.png", holding(bytes(5000)), NO_PICTURE),
    Bad("empty.jpg", holding(b""), "expected a picture, found an empty file"),
    Bad("cut.jpg", cut("JPEG"), BROKEN),
    Bad("cut_progressive.jpg", cut("JPEG", progressive=True), BROKEN),
    Bad("cut.png", cut("PNG"), BROKEN),
    Bad("cut.webp", cut("WEBP"), BROKEN),
    Bad("cut.gif", cut("GIF"), BROKEN),
    Bad("cut.bmp", cut("BMP"), BROKEN),
    Bad("cut.tif", cut("TIFF"), BROKEN),
    Bad("cut_lzw.tif", cut("TIFF", compression="tiff_lzw"), OTHER_TIFF),  # its table of contents comes last
    Bad("many_channels.tif", holding(encoded("TIFF").replace(CHANNELS + b"\3", CHANNELS + b"\xff")), OTHER_TIFF),
    Bad("start_only.jpg", holding(encoded("JPEG")[:4]), NO_PICTURE),
    Bad("no_pixels.png", holding(png(64, 48)), BROKEN),
    Bad("zero_wide.png", holding(png(0, 48)), NO_PICTURE),
    Bad("noise.jpg", holding(encoded("JPEG")[:200] + b"\xff\xc0" * 500), BROKEN),
    Bad("noise.png", holding(encoded("PNG")[:60] + b"\0\0\0\0" + encoded("PNG")[64:]), BROKEN),
    Bad("bomb.png", holding(png(30_000, 30_000)), TOO_LARGE),
    Bad("bomb.ico", holding(icon(png(30_000, 30_000))), TOO_LARGE),
    Bad(
        "program.eps",
        holding(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n{} loop\n%%EOF\n"),
        "expected a picture, found a PostScript program, which is not run",
    ),
    Bad("with spaces .jpg", holding(b"?"), NO_PICTURE),
    Bad("👗🧥 نسيج.jpg", holding(b"?"), NO_PICTURE),
]

BAD_ON_LINUX = [
    Bad("two\nlines.jpg", holding(b"?"), NO_PICTURE, r"two\nlines.jpg"),
    Bad("\x1b[31mred\t\x7f.jpg", holding(b"?"), NO_PICTURE, r"\x1b[31mred\t\x7f.jpg"),
    Bad(os.fsdecode(b"bytes\xff\xfe.jpg"), holding(b"?"), NO_PICTURE, r"bytes\udcff\udcfe.jpg"),
    Bad("'quotes\" and, commas;.jpg", holding(b"?"), NO_PICTURE),
    Bad("n" * 251 + ".jpg", holding(b"?"), NO_PICTURE),
    Bad("l" * 255, holding(encoded("PNG")), "expected to write {mask}, found that it cannot be written (File name too"),
    Bad("memory.png", holding(png(170_000_000, 1)), "expected enough memory for this photo, found too little"),
    Bad("nowhere.jpg", linked("absent.jpg"), "expected a photo, found a link that leads nowhere"),
    Bad("circle.jpg", linked("circle.jpg"), "expected a photo, found a link that leads in a circle"),
    Bad("shortcut", linked("."), "expected a photo, found a link to a folder, which is not followed"),
    Bad("zero.jpg", linked("/dev/zero"), "expected a photo, found a link to a device"),
    Bad("pipe.jpg", pipe, "expected a photo, found a named pipe"),
    Bad("socket.jpg", listening, "expected a photo, found a socket"),
    Bad("locked.jpg", locked_file, "expected a photo, found none that can be opened (Permission denied)"),
    Bad("locked", locked_folder, "expected a file or folder that can be opened, found one that cannot be (Permission"),
    Bad("folder.jpg", folder_in_its_place, "expected to write {mask}, found that it cannot be written (Is a dir"),
    Bad("taken/a.jpg", file_in_the_place_of_its_folder, "expected to write {mask}, found that it cannot be written ("),
]

ROWS = BAD + (BAD_ON_LINUX if sys.platform == "linux" else [])


def frames(format: str, count: int, **settings: object) -> bytes:
    more = [PICTURE.rotate(20 * number) for number in range(1, count)]
    return encoded(format, save_all=True, append_images=more, **settings)


OLD_PILLOW = int(PIL.__version__.split(".")[0]) < 13
"""Such a Pillow cannot read the uncompressed YCbCr TIFFs that it writes."""

GOOD = {
    "a.jpg": encoded("JPEG"),
    "named_wrongly.jpg": encoded("PNG"),
    "named_wrongly.dat": encoded("WEBP"),
    "1x1.png": encoded("PNG", PICTURE.resize((1, 1))),
    "tall.png": encoded("PNG", PICTURE.resize((1, 20_000))),
    "wide.jpg": encoded("JPEG", PICTURE.resize((20_000, 1))),
    "moving.gif": frames("GIF", 12),
    "moving.webp": frames("WEBP", 3),
    "moving.png": frames("PNG", 4),
    "pages.tif": frames("TIFF", 2),
    "phone.mpo": frames("MPO", 2),
    "one.gif": encoded("GIF"),
    "bits.png": encoded("PNG", PICTURE.convert("1")),
    "cmyk.jpg": encoded("JPEG", PICTURE.convert("CMYK")),
    "ycbcr.tif": encoded("TIFF", PICTURE.convert("YCbCr"), compression="tiff_lzw" if OLD_PILLOW else None),
    "lab.tif": encoded("TIFF", Image.new("LAB", (64, 48), (128, 10, 200))),
    "deep.tif": encoded("TIFF", PICTURE.convert("I")),
    "profile.jpg": encoded("JPEG", icc_profile=b"\xff" * 300),
    "profile.png": encoded("PNG")[:33] + chunk(b"iCCP", b"x\0\0broken") + encoded("PNG")[33:],
    " spaces \u00e9\u0301 👗.png": encoded("PNG"),
    "m" * 251 + ".png": encoded("PNG"),
} | ({os.fsdecode(b"good\xff\n.png"): encoded("PNG")} if sys.platform == "linux" else {})

SEVERAL = ["moving.gif", "moving.webp", "moving.png", "pages.tif"]

NOTES = {
    **dict.fromkeys(SEVERAL, "expected one picture, found several; the mask is that of the first"),
    "1x1.png": "expected a photo, found a picture of one colour, in which there is nothing to see",
    "lab.tif": "expected a photo, found a picture of one colour, in which there is nothing to see",
    "profile.jpg": "expected a colour profile that can be read, found one that cannot; it is left out",
    "profile.png": "expected a colour profile that can be read, found one that cannot; it is left out",
}

OTHERS = ("Thumbs.db", "desktop.ini", "labels.CSV", "notes.txt", "clip.MOV")

CONFINED = """
import ctypes, os, resource, runpy, struct, sys

if sys.platform == "linux":
    header, sets = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    libc = ctypes.CDLL(None)
    assert libc.capget(header, sets) == 0
    capabilities = bytearray(sets.raw)
    capabilities[0] &= ~6  # root reads files that nobody may read by CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, bytes(capabilities)) == 0
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + 600 * 2**20  # less than one row of memory.png
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script as a user with ordinary rights and little memory."""


class Done(NamedTuple):
    folder: Path  # with in/ and out/
    code: int
    output: str
    errors: list[str]
    report: dict[str, str]


def segment(folder: Path, weights: Path) -> Done:
    """Run infer.py on ``in`` of a folder, writing to ``out``."""
    script = folder / "confined.py"
    script.write_text(CONFINED)
    report = folder / "report.csv"
    flags = [f"--input={folder / 'in'}", f"--output={folder / 'out'}", f"--report={report}", f"--checkpoint={weights}"]
    done = fork(script, "infer.py", *flags, "--device=cpu", folder=folder / "said")
    with report.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["photo", "problem"]
    assert len({photo for photo, _ in rows[1:]}) == len(rows) - 1
    return Done(folder, done.returncode, done.stdout, done.stderr.splitlines(), dict(rows[1:]))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for name, data in GOOD.items():
        (folder / "in" / name).write_bytes(data)
    for row in ROWS:
        row.make(folder / "in" / row.name, mask_of(folder, row.name))
    for name in OTHERS:
        (folder / "in" / name).write_bytes(b"?")
    yield segment(folder, weights)
    for row in ROWS:
        if row.name.startswith("locked"):
            (folder / "in" / row.name).chmod(0o700)  # so that pytest can remove it


def mask_of(folder: Path, name: str) -> Path:
    # cut.jpg and cut.png, say, differ in their ending only.
    names = [*GOOD, *(row.name for row in ROWS)]
    alone = sum(Path(other).with_suffix("") == Path(name).with_suffix("") for other in names) == 1
    return folder / "out" / (Path(name).with_suffix(".png") if alone else name + ".png")


@pytest.mark.parametrize("row", ROWS, ids=[ascii(row.name[:20])[1:-1] for row in ROWS])
def test_it_is_told_and_has_no_mask(done: Done, row: Bad) -> None:
    photo, mask = done.folder / "in" / row.name, mask_of(done.folder, row.name)
    reason = row.reason.format(mask=mask)
    assert done.report[str(photo)].startswith(reason)
    shown = f"Failed: {done.folder / 'in' / (row.shown or row.name)}: {reason}"
    assert sum(line.startswith(shown) for line in told(done)) == 1
    assert not os.path.isfile(mask)  # noqa: PTH113 (the other way, long names are an error)


def told(done: Done) -> list[str]:
    """What is said beside the progress bar."""
    lines = (line.rpartition("photo/s]")[2].strip() for line in done.errors)
    return [line for line in lines if line]


def test_each_is_one_line_and_nothing_else_is_said(done: Done) -> None:
    expected = len(ROWS) + len(NOTES)
    assert len(told(done)) == expected, told(done)
    assert len(done.report) == len(ROWS)
    assert f"Masks of {len(GOOD)} photos in {done.folder / 'out'}, {len(ROWS)} failed" in done.output
    assert done.code == 1


@pytest.mark.parametrize("name", NOTES)
def test_what_is_odd_about_a_good_photo_is_said(done: Done, name: str) -> None:
    assert f"{done.folder / 'in' / name}: {NOTES[name]}" in told(done)


def test_files_that_are_plainly_no_photos_are_counted_and_left_out(done: Done) -> None:
    line = "Left out, since their names are not those of photos: 5 files (Thumbs.db, clip.MOV, desktop.ini, ...)"
    assert line in done.output.splitlines()


def test_good_neighbours_have_the_masks_that_they_have_alone(done: Done, tmp_path: Path, weights: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in GOOD.items():
        (tmp_path / "in" / name).write_bytes(data)
    alone = segment(tmp_path, weights)
    assert (alone.code, alone.report) == (0, {})
    for name in GOOD:
        mask = mask_of(done.folder, name)
        with Image.open(mask) as picture, Image.open(done.folder / "in" / name) as photo:
            assert picture.size == photo.size
        assert mask.read_bytes() == (tmp_path / "out" / mask.name).read_bytes(), name


@pytest.mark.skipif(sys.platform != "linux", reason="rights are taken from a process the way Linux does it")
def test_an_output_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path, weights: Path) -> None:
    script = tmp_path / "confined.py"
    script.write_text(CONFINED)
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    PICTURE.save(tmp_path / "in" / "a.png")
    (tmp_path / "out").chmod(0o555)
    flags = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", f"--checkpoint={weights}"]
    done = fork(script, "infer.py", *flags, "--device=cpu", folder=tmp_path / "said")
    assert done.returncode == 1
    assert f"--output {tmp_path / 'out'}: expected a folder that can be written: [Errno 13]" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_half_written_file_is_left(done: Done) -> None:
    files = {path for path in (done.folder / "out").rglob("*") if path.is_file()}
    masks = {mask_of(done.folder, name) for name in GOOD}
    assert files - masks == ({done.folder / "out" / "taken"} if sys.platform == "linux" else set())
