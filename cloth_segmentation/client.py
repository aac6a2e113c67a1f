"""A client of the service: photos there, what they show back.

from cloth_segmentation.client import Client

with Client("http://127.0.0.1:8000") as client:
    print(client("photo.jpg")["classes"])
    client.cutout("photo.jpg", "upper").save("top.png")

It needs httpx: pip install 'cloth-segmentation[client]'. Threads may share a client.
"""

import email.utils
import os
import random
import time
import zipfile
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from PIL import Image

import cloth_segmentation
from cloth_segmentation.errors import Error

Photo = str | os.PathLike[str] | bytes
"""The path of a file, or its content."""

BUSY = (429, 503)
"""Statuses of the service that say: ask again."""

LONGEST = 60.0
"""Seconds of the longest pause between two tries."""


class ServiceError(Error, RuntimeError):
    """The service cannot answer a request.

    Attributes:
        status: of HTTP; None: there was no answer.
        request: the id of the request, under which the log of the service has it.
    """

    def __init__(self, text: str, status: int | None = None, request: str = "") -> None:
        super().__init__(text)
        self.status, self.request = status, request


class Client:
    """A client of one service.

    Args:
        url: of the service, such as http://127.0.0.1:8000.
        key: that the service asks for; "": none.
        tries: how often to ask, if the service is busy, restarts, or a connection breaks. Between two tries, it waits
            as long as the service says, else 0.5 seconds, 1, 2 and so on, with a little chance in it, but never longer
            than 60 seconds.
        timeout: seconds for which a connection may be silent.
    """

    def __init__(self, url: str, key: str = "", *, tries: int = 6, timeout: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected an address such as http://127.0.0.1:8000, found {url!r}")
        if tries < 1:
            raise ValueError(f"tries: expected a whole number of at least 1, found {tries!r}")
        headers = {"User-Agent": f"cloth-segmentation/{cloth_segmentation.__version__}"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._tries = tries

    def __call__(self, photo: Photo, **wanted: Any) -> dict[str, Any]:
        """What a photo shows, as ``Segmentation.to_dict`` says it.

        Args:
            photo: the path of a file, or its content.
            wanted: parameters of the service: only="upper,lower", grow=5 or shrink=5.

        Raises:
            ServiceError: the service refuses the photo or the parameters, or does not answer.
            OSError: the file cannot be read.
        """
        return _content(self._ask(photo, "json", wanted))

    def mask(self, photo: Photo, **wanted: Any) -> Image.Image:
        """The label map as a palette picture. Args and errors are those of a call."""
        return _picture(self._ask(photo, "mask", wanted))

    def overlay(self, photo: Photo, **wanted: Any) -> Image.Image:
        """The photo with its clothes tinted, RGB. Args and errors are those of a call."""
        return _picture(self._ask(photo, "overlay", wanted))

    def cutout(self, photo: Photo, name: str, **wanted: Any) -> Image.Image:
        """One class of the photo, all else transparent, RGBA, or on a background, RGB.

        Args:
            photo: the path of a file, or its content.
            name: the class, such as upper.
            wanted: parameters as of a call, and crop=True or background="#ffffff".

        Raises:
            ServiceError, OSError: as a call.
        """
        return _picture(self._ask(photo, "cutout", {"class": name, **wanted}))

    def files(self, photo: Photo, **wanted: Any) -> dict[str, bytes]:
        """All that can be made of a photo, by the names of files: photo.png, photo.json, photo_cutout_upper.png, ...

        Args and errors are those of ``cutout``, without the name.
        """
        with zipfile.ZipFile(BytesIO(self._ask(photo, "zip", wanted).content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def classes(self) -> list[dict[str, Any]]:
        """The classes that the service tells apart: id, name, short_name, color. Raises ServiceError."""
        found: list[dict[str, Any]] = _content(self._send("GET", "/v1/classes"))["classes"]
        return found

    def _ask(self, photo: Photo, output: str, wanted: dict[str, Any]) -> httpx.Response:
        content = bytes(photo) if isinstance(photo, bytes | bytearray) else Path(photo).read_bytes()
        parameters = {name: str(value).lower() if isinstance(value, bool) else value for name, value in wanted.items()}
        return self._send(
            "POST",
            "/v1/segment",
            params={**parameters, "output": output},
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        for attempt in range(1, self._tries + 1):
            answer: httpx.Response | None = None
            try:
                answer = self._http.request(method, path, **more)
                if answer.is_success:
                    return answer
                problem = _problem(answer)
                of_another = answer.is_server_error and not problem.request  # a proxy, whose service has died
                if answer.status_code not in BUSY and not of_another:
                    raise problem
            except httpx.HTTPError as error:
                url = self._http.base_url
                problem = ServiceError(f"{url}: expected an answer of the service, found none ({error or repr(error)})")
                problem.__cause__ = error
            if attempt < self._tries:
                time.sleep(_pause(attempt, answer))
        raise problem

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _content(answer: httpx.Response) -> dict[str, Any]:
    try:
        found: dict[str, Any] = answer.json()
    except ValueError as error:
        raise _another(answer) from error
    return found


def _picture(answer: httpx.Response) -> Image.Image:
    try:
        picture = Image.open(BytesIO(answer.content))
        picture.load()
    except OSError as error:
        raise _another(answer) from error
    return picture


def _another(answer: httpx.Response) -> ServiceError:
    kind = answer.headers.get("Content-Type", "no type")
    return ServiceError(f"{answer.url}: expected an answer of the service, found {kind}", answer.status_code)


def _problem(answer: httpx.Response) -> ServiceError:
    try:
        found = answer.json()
        text, request = str(found["detail"]), str(found["request"])
    except (ValueError, LookupError, TypeError):  # a proxy's
        text, request = f"expected an answer of the service, found {answer.status_code} {answer.reason_phrase}", ""
    return ServiceError(text, answer.status_code, request)


def _pause(attempt: int, answer: httpx.Response | None) -> float:
    """Seconds until the next try."""
    said = answer.headers.get("Retry-After", "") if answer is not None else ""
    if said.isdecimal():
        least = float(said)
    elif said and (at := _date(said)) is not None:
        least = max(0.0, at - time.time())
    else:
        least = 0.0
    # With chance, so that clients that were refused together do not come again together.
    seconds: float = max(least, 0.5 * 2 ** (attempt - 1)) * random.uniform(1.0, 1.25)
    return min(LONGEST, seconds)


def _date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
