"""Depths, colour profiles and transparency of photos: what a viewer shows is what the network sees."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import from_memory, load_photo, read_photo

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
RGB = np.stack((RAMP, RAMP[:, ::-1], np.full_like(RAMP, 60)), axis=2)


def read(path: Path) -> NDArray[np.int64]:
    """Pixels (H, W, 3)."""
    return np.asarray(load_photo(path)).astype(int)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png16(pixels: NDArray[np.uint16], *chunks: bytes) -> bytes:
    """A PNG of (H, W), (H, W, 2), (H, W, 3) or (H, W, 4) values with 16 bits, which Pillow cannot write."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: NDArray, tags: dict[int, int] | None = None, order: str = "<", packed: bool = False) -> bytes:
    """A TIFF of (H, W) or (H, W, 3) values of any type, with more tags, or others; packed: compressed by zlib."""
    channels = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if packed else data
    entries = {
        256: values.shape[1],
        257: values.shape[0],
        258: values.dtype.itemsize * 8,
        259: 8 if packed else 1,
        262: 2 if channels == 3 else 1,
        273: 8,
        277: channels,
        278: values.shape[0],
        279: len(data),
        339: {"u": 1, "i": 2, "f": 3}[values.dtype.kind],
    } | (tags or {})
    data += bytes(len(data) % 2)
    at = 8 + len(data)
    several = at + 2 + 12 * len(entries) + 4  # where the numbers of three channels lie
    body, rest = struct.pack(order + "H", len(entries)), b""
    for tag, value in sorted(entries.items()):
        if channels == 3 and tag in (258, 339):
            body += struct.pack(order + "HHII", tag, 3, 3, several + len(rest))
            rest += struct.pack(order + "HHH", value, value, value)
        elif isinstance(value, float):
            body += struct.pack(order + "HHIf", tag, 11, 1, value)
        else:
            body += struct.pack(order + "HHII", tag, 4, 1, value)
    return struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, at) + data + body + bytes(4) + rest


def ramp(white: int, dtype: type = np.uint16) -> NDArray:
    """Values from 0 to white, at every brightness of RAMP."""
    return (
        (RAMP.astype(np.int64) * (white + 1) // 256 + (white + 1) // 512).astype(dtype)
        if white > 255
        else RAMP.astype(dtype)
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_values_in_sixteen_bits_are_seen_from_black_to_white(tmp_path: Path, bits: int) -> None:
    values = ramp(2**bits - 1)
    files = {
        "a.png": png16(values),
        "a.tif": tiff(values),
        "b.tif": tiff(values.astype(np.int32)),
        "c.tif": tiff(values.astype(np.uint32)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read(tmp_path / name)[..., 1], RAMP, name)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_colours_in_sixteen_bits_are_seen_from_black_to_white(tmp_path: Path, bits: int) -> None:
    values = np.stack(
        [ramp(2**bits - 1), ramp(2**bits - 1)[:, ::-1], np.full_like(ramp(2**bits - 1), 60 << (bits - 8))], 2
    )
    opaque = np.full_like(values[..., :1], 2**bits - 1)
    Image.fromarray(RGB).save(tmp_path / "eight.tif", compression="tiff_lzw")
    files = {
        "a.png": png16(values),
        "b.png": png16(np.dstack((values, opaque))),
        "c.png": png16(np.dstack((values, np.full_like(opaque, 65535)))),
        "a.tif": tiff(values),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read(tmp_path / name), RGB, name)
        assert read_photo(tmp_path / name).alpha is None


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_with_alpha_in_sixteen_bits_is_seen_from_black_to_white(bits: int) -> None:
    values = ramp(2**bits - 1)
    half = np.full_like(values, 2 ** (bits - 1))
    photo = read_photo(png16(np.dstack((values, half))))
    np.testing.assert_array_equal(np.asarray(photo.colors)[..., 1], RAMP)
    assert photo.alpha is not None
    assert photo.alpha.getextrema() == (128, 128)
    assert read_photo(png16(np.dstack((values, np.full_like(values, 2**bits - 1))))).alpha is None


def test_colours_of_fewer_bits_than_their_alpha_stay_opaque() -> None:
    values = ramp(4095) // 5
    photo = read_photo(png16(np.dstack((values, values, values, np.full_like(values, 4095)))))
    assert photo.alpha is None
    assert np.abs(np.asarray(photo.picture)[..., 1] - RAMP / 5).max() <= 1


def test_a_transparent_value_is_known_at_any_depth() -> None:
    values = ramp(65535)
    key = struct.pack(">H", values[0, 20])
    expected = np.where(values == values[0, 20], 0, 255)
    np.testing.assert_array_equal(np.asarray(read_photo(png16(values, chunk(b"tRNS", key))).alpha), expected)
    three = np.dstack((values, values, values))
    np.testing.assert_array_equal(np.asarray(read_photo(png16(three, chunk(b"tRNS", key * 3))).alpha), expected)
    for bits in (2, 4):
        lines = np.tile(np.arange(2**bits, dtype=np.uint8), (8, 8 // bits * 4))
        packed = np.packbits((lines[..., None] >> np.arange(bits - 1, -1, -1)) & 1, axis=None).reshape(8, -1)
        header = struct.pack(">IIBBBBB", lines.shape[1], 8, bits, 0, 0, 0, 0)
        body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
        parts = chunk(b"IHDR", header), chunk(b"tRNS", b"\0\2"), chunk(b"IDAT", body), chunk(b"IEND", b"")
        photo = read_photo(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        np.testing.assert_array_equal(np.asarray(photo.alpha), np.where(lines == 2, 0, 255))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_order_of_bytes_is_no_matter(order: str, packed: bool) -> None:
    one = RAMP.astype(np.float32) / 255
    signed = RAMP.astype(np.int16) * 128 + 64
    for values in (one, signed, ramp(65535).astype(np.int32), ramp(65535), np.dstack([ramp(4095)] * 3)):
        found = np.asarray(load_photo(tiff(values, order=order, packed=packed)))[..., 1]
        assert np.abs(found.astype(int) - RAMP).max() <= 1, values.dtype


def test_dark_pictures_with_all_sixteen_bits_stay_dark(tmp_path: Path) -> None:
    dark = (RAMP // 10).astype(np.uint16)
    for step in (256, 257):
        (tmp_path / "a.png").write_bytes(png16(dark * step))
        (tmp_path / "b.png").write_bytes(png16(np.dstack([dark * step] * 3)))
        for name in ("a.png", "b.png"):
            np.testing.assert_array_equal(read(tmp_path / name)[..., 1], dark, name)


GREATEST, S_LEAST, S_GREATEST, PHOTOMETRIC = 281, 340, 341, 262
WHOLE = RAMP.astype(np.float32)


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        (ramp(4095) // 5, {GREATEST: 4095}),
        (ramp(4095) // 5, {S_GREATEST: 4095}),
        (ramp(65535).astype(np.int32) // 5, {S_GREATEST: 65535}),
        (WHOLE / 255 / 5, {}),
        (WHOLE / 5, {S_GREATEST: 255.0}),
        (WHOLE / 255 / 5 - 3, {S_LEAST: -3.0, S_GREATEST: -2.0}),
        (1000 + ramp(4095) // 5, {S_LEAST: 1000, S_GREATEST: 5095}),
        (ramp(4999) // 5, {S_GREATEST: 4999}),
        (np.dstack([ramp(65535) // 5] * 3), {S_GREATEST: 65535}),
    ],
    ids=[
        *("12 bits", "12 bits, signed tag", "16 in 32 bits", "0 to 1", "0 to 255", "-3 to -2", "1000 to 5095"),
        *("0 to 4999", "colours"),
    ],
)
def test_dark_pictures_stay_dark_where_the_file_says_what_is_white(tmp_path: Path, values: NDArray, tags: dict) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(values, tags))
    assert np.abs(read(tmp_path / "a.tif")[..., 1] - RAMP / 5).max() <= 1.5


@pytest.mark.parametrize("white", [255, 1023, 4095, 65535])
def test_a_dark_portable_graymap_stays_dark(white: int) -> None:
    values = RAMP.astype(np.int64) * white // 255 // 5
    data = values.astype(">u2" if white > 255 else "u1").tobytes()
    picture = load_photo(f"P5 64 48 {white}\n".encode() + data)
    assert np.abs(np.asarray(picture)[..., 1] - RAMP / 5).max() <= 1.5


def test_significant_bits_of_a_png_say_what_is_white() -> None:
    values = ramp(4095) // 5
    for pixels, bits in ((values, b"\x0c"), (np.dstack([values] * 3), b"\x0c\x0c\x0c")):
        found = np.asarray(load_photo(png16(pixels, chunk(b"sBIT", bits))))[..., 1]
        assert np.abs(found - RAMP / 5).max() <= 1


def test_great_numbers_without_a_sign_are_no_negative_ones() -> None:
    values = RAMP.astype(np.uint32) * 16_843_009
    np.testing.assert_array_equal(np.asarray(load_photo(tiff(values)))[..., 1], RAMP)


@pytest.mark.parametrize("exposure", [0.5, 2.0, 2.2, 4.0])
def test_floating_point_values_of_any_exposure_are_seen(exposure: float) -> None:
    found = np.asarray(load_photo(tiff(RAMP.astype(np.float32) / 255 * np.float32(exposure))))[..., 1]
    assert (np.diff(found[0].astype(int)) >= 0).all()
    assert found[:, 48:].min() > 60
    assert len(np.unique(found)) > 30


def test_an_outlier_darkens_no_floating_point_picture() -> None:
    for white in (1, 255):
        values = RAMP.astype(np.float32) * np.float32(white / 255)
        values[0, 0] = 1e6
        assert np.abs(np.asarray(load_photo(tiff(values)))[1:, :, 1].astype(int) - RAMP[1:]).max() <= 1


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floating_point_values_are_seen_from_black_to_white(tmp_path: Path, white: int) -> None:
    values = RAMP.astype(np.float32) * np.float32(white / 255)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    (tmp_path / "a.tif").write_bytes(tiff(values))
    found = read(tmp_path / "a.tif")[..., 1]
    assert np.abs(found - RAMP)[:, 3:].max() <= 1
    assert found[0, 0] == 0


def test_highlights_above_one_are_cut_off(tmp_path: Path) -> None:
    values = RAMP.astype(np.float32) / 255
    values[:4, :4] = 7
    (tmp_path / "a.tif").write_bytes(tiff(values))
    expected = RAMP.copy()
    expected[:4, :4] = 255
    assert np.abs(read(tmp_path / "a.tif")[..., 1] - expected).max() <= 1


@pytest.mark.parametrize("values", [255 - RAMP, 65535 - ramp(65535), 1 - RAMP.astype(np.float32) / 255])
def test_where_zero_is_white_it_is_seen_white(tmp_path: Path, values: NDArray) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(values, {PHOTOMETRIC: 0}))
    assert np.abs(read(tmp_path / "a.tif")[..., 1] - RAMP).max() <= 1


# Colour profiles


def curve(gamma: float) -> bytes:
    return struct.pack(">4s4xIH2x", b"curv", 1, round(gamma * 256))


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2.4 (ICC.1:2001-04), of an input device."""
    body, table = b"", b""
    at = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = at + len(body)
    white = struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    header = struct.pack(">I4xI4s4s4s12x4s28x12s48x", size, 0x02400000, b"scnr", space, b"XYZ ", b"acsp", white)
    return header + struct.pack(">I", len(tags)) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in values))


WHITE = {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"desc": b"desc\0\0\0\0\0\0\0\2a\0" + bytes(79)}
# Adobe RGB (1998), section 4.3.1.1, adapted to D50, with its exponent of 2.2; and the same with swapped primaries.
RED, GREEN, BLUE = xyz(0.60974, 0.31111, 0.01947), xyz(0.20528, 0.62567, 0.06087), xyz(0.14919, 0.06322, 0.74457)
CURVES = {b"rTRC": curve(2.199), b"gTRC": curve(2.199), b"bTRC": curve(2.199)}
ADOBE_RGB = profile(b"RGB ", WHITE | {b"rXYZ": RED, b"gXYZ": GREEN, b"bXYZ": BLUE} | CURVES)
SWAPPED = profile(b"RGB ", WHITE | {b"rXYZ": BLUE, b"gXYZ": RED, b"bXYZ": GREEN} | CURVES)
DARK_GREY = profile(b"GRAY", WHITE | {b"kTRC": curve(1.0)})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def managed(image: Image.Image, icc: bytes) -> NDArray[np.int64]:
    """What a colour-managed viewer shows."""
    shown = ImageCms.profileToProfile(image, io.BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(shown).astype(int)


@pytest.mark.parametrize("icc", [ADOBE_RGB, SWAPPED], ids=["Adobe RGB", "swapped"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "p.png", "big.jpg"])
def test_colours_come_from_their_profile_to_srgb(tmp_path: Path, name: str, icc: bytes) -> None:
    image = Image.fromarray(RGB)
    if name == "p.png":
        image = image.quantize(32)
    if name == "big.jpg":
        image = image.resize((1280, 960), Image.Resampling.NEAREST)
    image.save(
        tmp_path / name,
        icc_profile=icc,
        **({"lossless": True} if name == "a.webp" else {"quality": 100} if name.endswith("jpg") else {}),
    )
    with Image.open(tmp_path / name) as stored:
        assert stored.info["icc_profile"] == icc
        expected = managed(stored.convert("RGB"), icc)
        assert np.abs(expected - np.asarray(stored.convert("RGB"))).max() > 20
    photo = load_photo(tmp_path / name)
    assert np.abs(np.asarray(photo) - expected).max() <= 1
    assert "icc_profile" not in photo.info  # which would be that of other pixels
    small = read_photo(tmp_path / name, (32, 24)).picture
    assert np.abs(np.asarray(small.resize((16, 12))) - np.asarray(photo.resize((16, 12))).astype(int)).mean() < 8
    with Image.open(tmp_path / name) as stored:
        assert np.abs(np.asarray(from_memory(stored).picture) - expected).max() <= 1


def test_grey_comes_from_its_profile_to_srgb(tmp_path: Path) -> None:
    grey = Image.fromarray(RAMP)
    expected = managed(grey, DARK_GREY)
    assert np.abs(expected[..., 0] - RAMP).max() > 50
    grey.save(tmp_path / "a.png", icc_profile=DARK_GREY)
    Image.fromarray(np.dstack((RAMP, np.full_like(RAMP, 255)))).save(tmp_path / "b.png", icc_profile=DARK_GREY)
    packed = chunk(b"iCCP", b"a\0\0" + zlib.compress(DARK_GREY))
    (tmp_path / "c.png").write_bytes(png16(RAMP.astype(np.uint16) * 257, packed))
    for name in ("a.png", "b.png", "c.png"):
        assert np.abs(read(tmp_path / name) - expected).max() <= 1, name


def test_pixels_in_srgb_stay_as_they_are(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=SRGB)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), noise)


@pytest.mark.parametrize(
    ("icc", "found"), [(b"\xff" * 300, "cannot"), (ADOBE_RGB[:200], "cannot"), (DARK_GREY, "does not")]
)
def test_a_profile_that_cannot_be_used_is_left_out_and_said(tmp_path: Path, icc: bytes, found: str) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", icc_profile=icc)
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(photo.picture), RGB)
    assert len(photo.notes) == 1
    assert f"found one that {found}; it is left out" in photo.notes[0]


def test_a_profile_that_pillow_does_not_take_is_said() -> None:
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    broken = chunk(b"iCCP", b"a\0\0\x78\x9c" + b"\xff" * 50)
    long = chunk(b"iCCP", b"a\0\0" + zlib.compress(ADOBE_RGB + bytes(2**21)))
    for part in (broken, long):
        photo = read_photo(file.getvalue()[:33] + part + file.getvalue()[33:])
        np.testing.assert_array_equal(np.asarray(photo.picture), RGB)
        assert "found one that cannot; it is left out" in photo.notes[0]


def ink_profile() -> bytes:
    """A CMYK profile with a table (lut8Type) in which black ink alone counts: paper is white, ink is black."""
    corners = b"".join(bytes([0 if node & 1 else 255, 128, 128]) for node in range(16))  # Lab; the last ink goes first
    identity = struct.pack(">9i", *(65536 if place % 4 == 0 else 0 for place in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + corners + bytes(range(256)) * 3
    made = profile(b"CMYK", WHITE | {b"A2B0": lut})
    return made[:12] + b"prtr" + made[16:20] + b"Lab " + made[24:]


def test_ink_comes_from_its_profile_to_srgb(tmp_path: Path) -> None:
    ink = Image.merge("CMYK", [Image.fromarray(channel) for channel in (RAMP, RAMP, RAMP, RAMP[:, ::-1].copy())])
    icc = ink_profile()
    expected = managed(ink, icc)
    assert np.abs(expected - np.asarray(ink.convert("RGB"))).max() > 50
    for name in ("a.tif", "a.jpg"):
        ink.save(tmp_path / name, icc_profile=icc, **({"quality": 100, "subsampling": 0} if name == "a.jpg" else {}))
        assert np.abs(read(tmp_path / name) - expected).max() <= 4


def test_ink_without_a_profile_is_shown_as_before(tmp_path: Path) -> None:
    ink = Image.fromarray(RGB).convert("CMYK")
    for settings in ({}, {"icc_profile": ADOBE_RGB}):  # one that is not for inks
        ink.save(tmp_path / "a.tif", **settings)
        np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.asarray(ink.convert("RGB")))


# Texts


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
def test_long_texts_in_a_png_are_no_matter(tmp_path: Path, kind: bytes, place: str) -> None:
    # More than Pillow takes of one compressed text, and of all texts together.
    text = bytes(97 + number % 26 for number in range(26)) * (3 * 2**20 if kind == b"tEXt" else 2**17)
    packed = zlib.compress(text, 1)
    data = {b"zTXt": b"prompt\0\0" + packed, b"iTXt": b"workflow\0\1\0\0\0" + packed, b"tEXt": b"workflow\0" + text}
    long = chunk(kind, data[kind])
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(file, "PNG", exif=exif)
    content = file.getvalue()
    at = 33 if place == "before" else len(content) - 12
    (tmp_path / "a.png").write_bytes(content[:at] + long + content[at:])
    np.testing.assert_array_equal(read(tmp_path / "a.png"), np.rot90(RGB, -1))
    (tmp_path / "cut.png").write_bytes((content[:at] + long + content[at:])[:-900])
    if place == "before":
        with pytest.raises(DataError, match=r"cut\.png: expected a picture, found one that cannot be decoded"):
            load_photo(tmp_path / "cut.png")


def test_an_orientation_in_xmp_outlives_long_texts() -> None:
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    texts = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21)))
    content = file.getvalue()
    assert load_photo(content[:33] + b"".join(texts) + content[33:]).size == (48, 64)


# Previews


def preview_first(*more: tuple[int, int], make: Callable[[bytes], bytes] = bytes) -> bytes:
    return make(tiff(RGB, dict(more)))


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.dng", preview_first((254, 1), (330, 8), (50706, 0x0401)), "a camera raw"),
        ("linear.tif", preview_first((50706, 0x0401)), "a camera raw"),
        ("a.NEF", preview_first((254, 1), (330, 8)), "a camera raw"),
        ("a.arw", preview_first(), "a camera raw"),
        ("a.tif", preview_first((254, 1), (330, 8)), "a TIFF that begins with a preview"),
        ("b.tif", preview_first((254, 3), (330, 8)), "a TIFF that begins with a preview"),
        ("planes.tif", tiff(np.dstack([ramp(65535)] * 3), {284: 2}), "a TIFF with 16 bits in a plane"),
        ("a.jpg", b"II*\0\x10\0\0\0CR\x02\0" + tiff(RGB)[12:], "a camera raw|a TIFF"),
    ],
)
def test_a_preview_is_not_taken_for_the_photo(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}: expected a picture, found {kind}"):
        load_photo(tmp_path / name)


def test_a_tiff_with_a_preview_behind_it_is_read(tmp_path: Path) -> None:
    like_canon = RGB.copy()
    like_canon[0, 0] = (67, 82, 3)  # "CR"
    for pixels, tags in ((RGB, {254: 0, 330: 8}), (RGB, {254: 1}), (like_canon, {})):
        (tmp_path / "a.tif").write_bytes(tiff(pixels, tags))
        np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "JPEG")
    (tmp_path / "named_wrongly.dng").write_bytes(file.getvalue())
    assert load_photo(tmp_path / "named_wrongly.dng").size == (64, 48)


# HEIC


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_read_upright_where_pillow_heif_is_there(tmp_path: Path, orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    undo = {1: RGB, 3: np.rot90(RGB, 2), 6: np.rot90(RGB), 8: np.rot90(RGB, -1)}
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pillow_heif.from_pillow(stored).save(tmp_path / "a.heic", quality=-1, exif=exif.tobytes())
    found = read(tmp_path / "a.heic")
    assert found.shape == RGB.shape
    assert np.abs(found - RGB).mean() < 4
