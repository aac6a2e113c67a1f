"""The photo of a request: its body, or the one file of a form. It stays in memory."""

import re
from collections.abc import AsyncGenerator
from http import HTTPStatus
from io import BytesIO

from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import can_read_heif
from cloth_segmentation.picture_kinds import unread_kind
from cloth_segmentation.serve.problems import Problem

FORM = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
"""What curl calls all that it sends by -d, which takes line breaks out, and by --data-binary, which does not."""

FORM_OVERHEAD = 4096
"""Bytes that a form may have beside its file."""


def kind_of(request: Request) -> str:
    """The media type of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_photo_of(request: Request, largest: int) -> bytes:
    """The content of the file that a request sends.

    Args:
        request: whose body was not read.
        largest: bytes of a file.

    Raises:
        Problem: it is too large, empty, or no file.
        ClientDisconnect (of Starlette): the client has gone.
    """
    kind = kind_of(request)
    if (coding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Encoding: expected a body as it is, found one packed by {coding!r}; send the file itself",
        )
    if kind == "application/json":
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type: expected the file of a photo (image/jpeg or another one), or {FORM} with one file, found "
            f"{kind}",
        )
    content = await _body(request, largest, FORM_OVERHEAD if kind == FORM else 0)
    if kind == FORM:
        content = await _file_of_form(request, content)
    if not content:
        raise Problem(HTTPStatus.BAD_REQUEST, "expected the file of a photo in the body, found an empty one")
    if len(content) > largest:
        raise _too_large(largest, f"{len(content):,}")
    return content


async def _body(request: Request, largest: int, around: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > largest + around:
        raise _too_large(largest, f"{int(length):,}")
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > largest + around:
            raise _too_large(largest, "more")
    return bytes(content)


def _too_large(largest: int, found: str) -> Problem:
    detail = f"expected a file of at most {largest:,} bytes, found {found}; make it smaller"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


async def _file_of_form(request: Request, content: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield content

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=0)
    parser.spool_max_size = len(content) + 1  # no file of it goes to a disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        words = getattr(error, "message", "") or "it has no boundary"
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f"expected {FORM} with one file, found another form ({words}); curl writes -F photo=@FILE; parameters go "
            "into the address, as ?output=mask",
        ) from error
    try:
        files = [each for _, each in form.multi_items() if isinstance(each, UploadFile)]
        if len(files) != 1:
            raise Problem(HTTPStatus.BAD_REQUEST, f"expected {FORM} with one file, found a form without any")
        return await files[0].read()
    finally:
        await form.close()


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "MPO", "HEIF", "AVIF")
"""Formats of photos that are taken, by Pillow's names. The decoders of others are slower, or stop all threads."""

NAMES = "JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF"
"""What people call them."""

LONGEST = 65_535
"""Pixels of the longest side, which is the longest of a JPEG."""

MOST_SCANS = 100
"""Scans of a progressive JPEG; cameras and programs write about ten, and each takes the time of a photo."""


class TooLargeError(DataError):
    """A photo has too many pixels."""


def check_photo(photo: bytes, most_pixels: float) -> None:
    """Look at the head of a photo, before more time and memory is spent on it.

    Args:
        photo: the content of its file.
        most_pixels: that it may have.

    Raises:
        DataError: it is no picture of a format that is taken, or made to take long.
        TooLargeError: it has too many pixels.
    """
    heif = can_read_heif()
    try:
        with Image.open(BytesIO(photo), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        pixels = int(re.findall(r"\d+", str(error))[0])
        raise TooLargeError(f"expected at most {most_pixels:,.0f} pixels, found {pixels:,}; make it smaller") from error
    except UnidentifiedImageError:
        found = unread_kind(photo[:512], None, heif=heif)
        raise DataError(f"expected a picture ({NAMES}), found {found}") from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file provokes
        raise DataError(f"expected a picture, found one that cannot be decoded ({error})") from error
    if width * height > most_pixels:
        raise TooLargeError(f"expected at most {most_pixels:,.0f} pixels, found {width * height:,}; make it smaller")
    if max(width, height) > LONGEST:
        raise TooLargeError(f"expected sides of at most {LONGEST:,} pixels, found {width} x {height}; make it smaller")
    if (scans := photo.count(b"\xff\xda")) > MOST_SCANS and photo.startswith(b"\xff\xd8"):
        raise DataError(f"expected a JPEG of at most {MOST_SCANS} scans, found {scans}; save it anew")
