"""Requests that are wrong or mean harm: each has its answer in a sentence, none a trace, none keeps a place."""

import io
import json
import re
import struct
import time
import zlib
from collections.abc import Iterator

import pytest
from conftest import ROOT
from PIL import Image

pytest.importorskip("fastapi_offline")
pytest.importorskip("httpx")

from service import BUNDLED, Answer, Service, request, serving

SECONDS, BYTES, PIXELS = 1.5, 1_000_000, 2_000_000
"""Limits of the service."""

HOPPER = (ROOT / "input_images" / "grace_hopper.jpg").read_bytes()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    flags = [f"--max_seconds={SECONDS}", f"--max_megabytes={BYTES / 1e6}", f"--max_megapixels={PIXELS / 1e6}"]
    with serving(*flags, "--places=2", "--hosts=clothes.example", "--origins=https://shop.example") as started:
        yield started


@pytest.fixture(scope="module")
def locked() -> Iterator[Service]:
    with serving(env={"CLOTH_SEGMENTATION_KEYS": "first key,zweiter"}) as started:
        yield started


def png(width: int, height: int, rest: bytes = b"") -> bytes:
    """The head of a PNG of any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest + chunk(b"IDAT", b"x\x9c") + chunk(b"IEND", b"")


def packed_bomb() -> bytes:
    """A PNG whose text is 100 MB long when it is unpacked."""
    content = b"Comment\0\0" + zlib.compress(b"a" * 100_000_000, 9)
    return struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))


def tiff_loop() -> bytes:
    """A TIFF whose directory names itself as the next one."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "TIFF")
    content = bytearray(file.getvalue())
    start = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[start : start + 2])[0]
    end = start + 2 + 12 * count
    content[end : end + 4] = struct.pack("<I", start)
    return bytes(content)


def encoded(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (9, 99, 200)).save(file, format)
    return file.getvalue()


def scans(number: int) -> bytes:
    """A progressive JPEG with its last scan again and again."""
    file = io.BytesIO()
    Image.open(io.BytesIO(HOPPER)).resize((64, 64)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * number + content[-2:]


def pages(number: int) -> bytes:
    """A TIFF whose directories are a long chain, which takes Pillow a time that grows with its square to count."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, "TIFF")
    content = bytearray(file.getvalue())
    start = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[start : start + 2])[0]
    end, whole = start + 2 + 12 * count, bytes(content[start : start + 2 + 12 * count])
    for _ in range(number):
        content[end : end + 4] = struct.pack("<I", len(content) + len(content) % 2)
        content += bytes(len(content) % 2)
        end = len(content) + len(whole)
        content += whole + bytes(4)
        if len(content) > BYTES - 500:
            break
    return bytes(content)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def form(content: bytes, **headers: str) -> bytes:
    kind = headers.pop("content_type", "multipart/form-data; boundary=AaB")
    return request(body=content, Content_Type=kind, **headers)


def part(content: bytes, head: bytes = b'name="photo"; filename="a.jpg"') -> bytes:
    return b"--AaB\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n"


END = b"--AaB--\r\n"
CHUNKED = request(body=None, Transfer_Encoding="chunked")
LARGE = {"Content_Length": str(10**12)}

REQUESTS: dict[str, tuple[tuple[bytes | float, ...], int, str]] = {
    # photos
    "nothing": ((request(body=b""),), 400, "expected the file of a photo in the body, found an empty one"),
    "no body": ((request(body=None),), 400, "found an empty one"),
    "a text": ((request(body=b"no photo"),), 422, "expected a picture.* found"),
    "half a photo": ((request(body=HOPPER[: len(HOPPER) // 2]),), 422, "found one that cannot be decoded"),
    "many pixels": ((request(body=png(60_000, 60_000)),), 413, "expected at most .* pixels, found 3,600,000,000"),
    "somewhat too many pixels": ((request(body=png(2000, 1600)),), 413, "expected at most .* found 3,200,000"),
    "a packed text": ((request(body=png(8, 8, packed_bomb())),), 422, "expected a picture.* found"),
    "a loop": ((request(body=tiff_loop()),), 200, ""),
    "a program": (
        (request(body=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),),
        422,
        "expected a picture .*found",
    ),
    "SVG": ((request(body=b"<svg xmlns='http://www.w3.org/2000/svg'/>"),), 422, "expected a picture.* found"),
    "a path": ((request(body=b"/etc/passwd"),), 422, "expected a picture.* found"),
    "a photo of very many scans": (
        (request(body=scans(1000)),),
        422,
        "expected a JPEG of at most 100 scans, found 1[0-9]{3}",
    ),
    "a TIFF of very many pages": ((request(body=pages(40_000)),), 200, ""),
    "a format whose decoder stops all threads": (
        (request(body=encoded("JPEG2000")),),
        422,
        "expected a picture .JPEG, ",
    ),
    "a format that is slow to read": ((request(body=encoded("PPM")),), 422, "expected a picture .JPEG, "),
    "a very long side": (
        (request(body=png(70_000, 9)),),
        413,
        "expected sides of at most 65,535 pixels, found 70000 x 9",
    ),
    # bodies
    "too many bytes": (
        (request(body=b"x" * (BYTES + 1)),),
        413,
        "expected a file of at most 1,000,000 bytes, found 1,0",
    ),
    "a terabyte announced": ((request(**LARGE),), 413, "found 1,000,000,000,000"),
    "too many bytes in parts": ((CHUNKED + chunked(*[b"x" * 10**5] * 12),), 413, "found more"),
    "an endless body": ((CHUNKED, *[chunked(b"x" * 10**5), 0.01] * 20), 413, "found more"),
    "a slow body": (
        (request(body=None, Content_Length="1000"), *[b"x", 0.2] * 15),
        408,
        "expected the whole body within",
    ),
    "a body that stops": ((request(body=HOPPER)[:-9], SECONDS + 1), 408, "found it still on its way"),
    "less announced than sent": ((request(body=HOPPER, Content_Length="100"),), 422, "expected a picture.* found"),
    "parts that end well": ((CHUNKED + chunked(HOPPER[:999], HOPPER[999:], b""),), 200, ""),
    "packed": ((request(body=HOPPER, Content_Encoding="gzip"),), 415, "expected a body as it is, found .* 'gzip'"),
    "JSON": ((request(body=b'{"a": 1}', Content_Type="application/json"),), 415, "found application/json"),
    "deep JSON": ((request(body=b"[" * 90_000, Content_Type="Application/JSON;a=b"),), 415, "found application/json"),
    "what curl -d makes of a photo": (
        (request(body=HOPPER.replace(b"\n", b""), Content_Type="application/x-www-form-urlencoded"),),
        422,
        "curl -d takes line breaks out: write --data-binary @FILE",
    ),
    "what curl --data-binary sends": (
        (request(body=HOPPER, Content_Type="application/x-www-form-urlencoded"),),
        200,
        "",
    ),
    # forms
    "a form without a boundary": (
        (form(b"", content_type="multipart/form-data"),),
        400,
        "with one file, found another",
    ),
    "a form of nothing": ((form(END),), 400, "found a form without any"),
    "two files": ((form(part(HOPPER) * 2 + END),), 400, "Too many files"),
    "a field": ((form(part(b"1", b'name="a"') + END),), 400, "Too many fields"),
    "a form that is no form": ((form(HOPPER),), 400, "with one file, found another form"),
    "a form without an end": ((form(part(b"no photo")),), 400, "found a form without any"),
    "a form with a huge head": (
        (form(part(HOPPER, b'name="a"; filename="' + b"a" * 500_000 + b'"')),),
        400,
        "another form",
    ),
    "a form that is too large": ((form(part(b"x" * (BYTES + 9)) + END),), 413, "expected a file of at most"),
    "a form with tricks in the name": ((form(part(HOPPER, b'name="../x"; filename="../../../tmp/x"') + END),), 200, ""),
    "a form with no name": ((form(part(HOPPER, b"") + END),), 400, "another form"),
    # parameters
    "an odd output": ((request(path="/v1/segment?output=hat"),), 400, "output: expected one of json, mask, .* 'hat'"),
    "an unknown parameter": ((request(path="/v1/segment?outptu=mask"),), 400, "outptu: expected one of the parameters"),
    "a negative number": (
        (request(path="/v1/segment?grow=-1"),),
        400,
        "grow: expected a number of at least 0, found '-1'",
    ),
    "a huge number": ((request(path="/v1/segment?grow=99999"),), 400, "grow: expected a number of at most 10000"),
    "no number": ((request(path="/v1/segment?shrink=abc"),), 400, "shrink: expected a whole number, found 'abc'"),
    "many digits": ((request(path=f"/v1/segment?grow={'9' * 5000}"),), 400, "grow: expected"),
    "both ways": ((request(path="/v1/segment?grow=1&shrink=1"),), 400, "expected it without shrink"),
    "neither true nor false": ((request(path="/v1/segment?crop=maybe"),), 400, "crop: expected true or false"),
    "a cut-out of nothing": (
        (request(path="/v1/segment?output=cutout"),),
        400,
        "class: expected one of upper,lower,full",
    ),
    "no such class": ((request(path="/v1/segment?only=hat"),), 400, "only: expected some of upper,lower,full"),
    "a class of a mask": ((request(path="/v1/segment?class=upper"),), 400, "class: expected output=cutout"),
    "an odd colour": (
        (request(path="/v1/segment?output=zip&background=red"),),
        400,
        "background: expected transparent or a colour .* is written %23",
    ),
    "a colour of a mask": (
        (request(path="/v1/segment?background=%23ffffff"),),
        400,
        "expected output=cutout or output=zip",
    ),
    "no form that we have": ((request(body=HOPPER, Accept="text/html;q=x, ,;;"),), 406, "Accept: expected one of"),
    # paths and methods
    "no such path": ((request("GET", "/v2/segment"),), 404, "expected a path of this service"),
    "a way out": ((request("GET", "/static-offline-docs/../../../../etc/passwd"),), 404, "expected a path"),
    "a hidden way out": ((request("GET", "/static-offline-docs/%2e%2e/%2e%2e/etc/passwd"),), 404, "expected a path"),
    "control characters": ((request("GET", "/%0d%0aX:%201%1b%5B2J"),), 404, "expected a path"),
    "another method": ((request("GET", "/v1/segment"),), 405, "expected another method"),
    "an unknown method": ((request("BREW", "/v1/segment"),), 405, "expected another method"),
    "a proxy's request": (
        (request("GET", "http://other.example/healthz", Host="other.example"),),
        421,
        "Host: expected a name",
    ),
    # who asks
    "another host": ((request(body=HOPPER, Host="evil.example"),), 421, "found 'evil.example'"),
    "another host's port": ((request(body=HOPPER, Host="evil.example:8000"),), 421, "found 'evil.example:8000'"),
    "no host at all": ((request(body=HOPPER, Host=""),), 421, "found ''"),
    "our name": ((request(body=HOPPER, Host="Clothes.example:80"),), 200, ""),
    "another page": ((request(body=HOPPER, Origin="https://evil.example"),), 403, "found 'https://evil.example'"),
    "a page of no server": ((request(body=HOPPER, Origin="null"),), 403, "found 'null'"),
    "our page": ((request(body=HOPPER, Origin="https://shop.example"),), 200, ""),
    "a question of another page": (
        (request("OPTIONS", Origin="https://evil.example", Access_Control_Request_Method="POST"),),
        403,
        "Origin: expected a page that may ask",
    ),
}


def assert_told(answer: Answer, status: int, words: str) -> None:
    assert answer.status == status, answer
    assert b"Traceback" not in answer.body
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        told = json.loads(answer.body)
        assert told["status"] == status
        assert told["request"] == answer.headers["x-request-id"]
        assert re.search(words, told["detail"]), told
        assert re.search("expected .*found", told["detail"]), told


@pytest.mark.parametrize("name", REQUESTS)
def test_it_is_answered(name: str, service: Service) -> None:
    parts, status, words = REQUESTS[name]
    began = time.monotonic()
    assert_told(service.send(*parts), status, words)
    assert time.monotonic() - began < SECONDS + 5
    assert service.metrics()["cloth_segmentation_places_taken"] == 0


PROTOCOL: dict[str, tuple[bytes, ...]] = {
    "no HTTP": (b"hello\r\n\r\n",),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",),
    "no Host": (request(body=b"", Host=None),),
    "two Hosts": (request(body=b"", Host=["127.0.0.1", "evil.example"]),),
    "a negative length": (request(Content_Length="-5"),),
    "a length that is none": (request(Content_Length="0x10"),),
    "two lengths": (request(Content_Length=["5", "7"]),),
    "a space before the colon": (b"GET /healthz HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",),
    "a null character": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nA: \0\r\n\r\n",),
    "a huge header": (request("GET", "/healthz", None, Cookie="a" * 10**6),),
    "endless headers": (b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n" * 200_000),
    "a bad part": (CHUNKED + b"zz\r\nabc\r\n",),
}


@pytest.mark.parametrize("name", PROTOCOL)
def test_what_is_no_request_is_refused(name: str, service: Service) -> None:
    answer = service.send(*PROTOCOL[name])
    assert 400 <= answer.status < 500 or answer.status == 0
    assert b"Traceback" not in answer.body
    wait_until_free(service)


def wait_until_free(service: Service) -> None:
    end = time.monotonic() + 2 * SECONDS
    while service.metrics()["cloth_segmentation_places_taken"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_body_that_is_cut_off_frees_its_place(service: Service) -> None:
    for _ in range(5):  # of which there are two
        with service.connect() as connection:
            connection.sendall(request(body=HOPPER)[:-100])
    wait_until_free(service)
    assert_told(service.send(request(body=HOPPER)), 200, "")


def test_slow_clients_hold_no_place_for_longer_than_a_request_may_take(service: Service) -> None:
    began = time.monotonic()
    slow = [service.connect() for _ in range(2)]
    for connection in slow:
        connection.sendall(request(body=HOPPER)[:-100])
    end = began + SECONDS + 3
    statuses = []
    while time.monotonic() < end:
        statuses.append(service.send(request(body=HOPPER)).status)
        if statuses[-1] == 200 and 429 in statuses:
            break
        time.sleep(0.1)
    assert set(statuses) == {429, 200}
    for connection in slow:
        connection.close()


def test_clients_that_never_end_their_headers_hold_no_place(service: Service) -> None:
    connections = [service.connect() for _ in range(50)]
    for connection in connections:
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert_told(service.send(request(body=HOPPER)), 200, "")
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer first"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Basic Zmlyc3Qga2V5"}, 401),
        ({"X_API_Key": "zweite\xff"}, 401),
        ({"X_API_Key": ["wrong", "zweiter"]}, 401),
        ({"Authorization": "bearer first key"}, 200),
        ({"X_API_Key": "zweiter"}, 200),
    ],
)
def test_a_key_is_asked_for(headers: dict[str, str], status: int, locked: Service) -> None:
    answer = locked.send(request(body=HOPPER, **headers))
    assert_told(answer, status, "expected a key of this service, .* found")
    for key in ("first key", "zweiter"):
        assert key.encode() not in answer.body
        assert key not in locked.log.read_text()
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_body_without_an_end_is_not_read_once_it_is_refused(locked: Service) -> None:
    with locked.connect() as connection:
        connection.sendall(CHUNKED)
        began, refused = time.monotonic(), False
        while not refused and time.monotonic() - began < 10:
            try:
                connection.sendall(chunked(b"x" * 10**5))
            except OSError:
                refused = True
        assert refused
    assert locked.send(request("GET", "/healthz", None)).status == 200


def test_what_needs_no_key_and_what_does(locked: Service) -> None:
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/docs", 200), ("/metrics", 401), ("/v1/classes", 401)):
        assert locked.send(request("GET", path, None)).status == status
    for path in (
        "/v1/classes?key=zweiter",
        "//v1/classes",
        "/v1//classes",
        "/V1/classes",
        "/v1/classes/",
        "/%761/classes",
    ):
        assert locked.send(request("GET", path, None)).status == 401


def test_keys_are_asked_for_below_another_application_too() -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    from cloth_segmentation import Segmenter
    from cloth_segmentation.serve.application import create
    from cloth_segmentation.serve.options import ServeOptions

    service = create(Segmenter.load(BUNDLED, device="cpu", size=64), ServeOptions(batch_size=1), ["k"])
    client = TestClient(Starlette(routes=[Mount("/clothes", service)]), "http://localhost")
    key = {"X-API-Key": "k"}
    for path, status in (("/clothes/v1/classes", 401), ("/clothes/metrics", 401), ("/clothes/healthz", 200)):
        assert client.get(path).status_code == status
        assert client.get(path, headers=key).status_code == 200


def test_proxies_are_not_believed_and_ids_cannot_forge_lines(service: Service) -> None:
    spoof = {"X_Forwarded_For": "6.6.6.6", "X_Forwarded_Proto": "https", "Forwarded": "for=6.6.6.6"}
    forged = "a" * 65
    answer = service.send(request("GET", "/%0Aforged%20200", None, X_Request_ID=forged, **spoof))
    assert answer.headers["x-request-id"] != forged
    line = service.line_of(answer.headers["x-request-id"])
    assert "6.6.6.6" not in service.log.read_text()
    assert "127.0.0.1 GET /%0Aforged%20200 404" in line


def test_after_all_that_it_is_well(service: Service) -> None:
    assert_told(service.send(request(body=HOPPER)), 200, "")
    log = service.log.read_text()
    assert "Traceback" not in log
    assert not list(service.folder.rglob("*"))
