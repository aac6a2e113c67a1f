import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import from_memory, load_photo, read_photo

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
RGB = np.stack((RAMP, RAMP[:, ::-1], np.full_like(RAMP, 60)), axis=2)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png", "a.webp", "a.bmp", "a.tif", "without_ending"])
def test_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(RGB).save(path, format=None if "." in name else "PNG", **({"quality": 95} if "p" in name else {}))
    photo = load_photo(path)
    assert (photo.mode, photo.size) == ("RGB", (64, 48))
    assert np.abs(np.asarray(photo).astype(int) - RGB).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_come_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(RGB)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that store it the way the tag says
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(load_photo(tmp_path / "a.png")), RGB)


def test_strange_tags_beside_the_orientation_do_no_harm(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    start = data.index(b"\x01\x12")  # the orientation's entry: tag, type, count, value
    entry = data[start : start + 12]
    assert entry[2:8] == b"\x00\x03\x00\x00\x00\x01"
    twice = (
        data[: start - 2]
        + b"\x00\x02"
        + entry
        + b"\xff\xfe\x00\x0b\xff\xff\xff\xff\xff\xff\xff\xff"
        + data[start + 12 :]
    )
    length = data.index(b"\xff\xe1") + 2
    size = int.from_bytes(data[length : length + 2], "big") + 12
    (tmp_path / "a.jpg").write_bytes(twice[:length] + size.to_bytes(2, "big") + twice[length + 2 :])
    assert load_photo(tmp_path / "a.jpg").size == (48, 64)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA"])
def test_modes(tmp_path: Path, mode: str) -> None:
    name = "a.tif" if mode == "CMYK" else "a.png"
    image = Image.fromarray(RGB).convert(mode)
    image.save(tmp_path / name)
    expected = np.asarray(image.convert("RGB")).astype(int)
    photo = load_photo(tmp_path / name)
    assert photo.mode == "RGB"
    assert np.abs(np.asarray(photo) - expected).max() <= 1


def test_modes_that_no_file_has_but_decoders_may_give() -> None:
    half = Image.fromarray(np.dstack((RAMP, np.full_like(RAMP, 128)))).convert("LA")
    over_white = (RAMP.astype(int) + 255) / 2
    for image in (half.convert("La"), half.convert("RGBA").convert("RGBa")):
        assert np.abs(np.asarray(from_memory(image).picture)[..., 0] - over_white).max() <= 2, image.mode
    for mode in ("PA", "HSV", "YCbCr", "LAB", "I;16", "I", "RGBX"):
        assert from_memory(Image.new(mode, (5, 4))).picture.mode == "RGB"


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = np.zeros((48, 64), dtype=np.uint8)
    alpha[:, :32] = 255
    image = Image.fromarray(np.dstack((RGB, alpha)))
    image.save(tmp_path / "a.png")
    expected = RGB.copy()
    expected[:, 32:] = 255
    np.testing.assert_array_equal(np.asarray(load_photo(tmp_path / "a.png")), expected)
    palette = Image.fromarray(RGB).quantize(8)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert load_photo(tmp_path / "p.png").getpixel((0, 0)) == (255, 255, 255)


def test_what_is_no_photo_is_named(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(RGB).save(content, format="JPEG")
    for name, data in {"notes.txt": b"hello", "empty.jpg": b"", "half.jpg": content.getvalue()[:700]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: expected a picture"):
            load_photo(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_photo(tmp_path / "missing.jpg")


@pytest.mark.parametrize("enough", [None, (8, 8), (500, 500)])
def test_damage_is_found_however_much_is_enough(tmp_path: Path, enough: tuple[int, int] | None) -> None:
    # A look at a PNG's EXIF loads it; what could not be loaded then passed for loaded.
    noise = np.random.default_rng(3).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:60] + bytes(4) + data[64:])
    with pytest.raises(DataError, match=r"a\.png: expected a picture, found one that cannot be decoded"):
        read_photo(tmp_path / "a.png", enough)


@pytest.mark.parametrize(("orientation", "upright"), [(1, (800, 400)), (6, (400, 800))])
def test_jpegs_are_decoded_no_larger_than_need_be(tmp_path: Path, orientation: int, upright: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (800, 400), "navy").save(tmp_path / "a.jpg", exif=exif)
    for share, scale in ((None, 1), (0.6, 1), (0.5, 2), (0.25, 4), (0.2, 4), (0.01, 8)):
        enough = None if share is None else (int(upright[0] * share), int(upright[1] * share))
        photo = read_photo(tmp_path / "a.jpg", enough)
        assert photo.size == upright
        assert photo.picture.size == (upright[0] // scale, upright[1] // scale)
    assert read_photo(tmp_path / "a.jpg", (upright[0], 10)).picture.size == upright


def test_a_tiff_comes_upright_whatever_is_enough(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.tif", exif=exif)
    for enough in (None, (8, 8)):
        photo = read_photo(tmp_path / "a.tif", enough)
        assert photo.picture.size == photo.size == (48, 64)
