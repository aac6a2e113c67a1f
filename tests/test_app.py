"""The page, in a real browser, from a real server."""

import html
import io
import json
import os
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from conftest import ROOT, free_port, python, run, start
from PIL import Image

import app
from infer import Segmentation, Segmenter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ASTRONAUT, HOPPER = ROOT / "input_images" / "astronaut.png", ROOT / "input_images" / "grace_hopper.jpg"
DESKTOP, PHONE = (1280, 900), (390, 844)

pytestmark = pytest.mark.long


class Server(NamedTuple):
    address: str
    folder: Path  # of its temporary files


@pytest.fixture(scope="module")
def server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page with limits that small files exceed."""
    pytest.importorskip("gradio")
    limits = ["--max_megapixels", 1, "--max_megabytes", 2]
    with serve(tmp_path_factory.mktemp("server"), *limits) as one:
        yield one


@contextmanager
def serve(folder: Path, *more: object) -> Iterator[Server]:
    """The page from a process of its own, which must end in one line, and leave nothing behind."""
    port = free_port()
    flags = ["--port", port, "--device", "cpu", *more]
    process = start(sys.executable, "app.py", *flags, env={"TMPDIR": str(folder)})
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"The page is at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        yield Server(f"http://127.0.0.1:{port}/", folder)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (output, errors) == ("", "app.py: interrupted\n")
    assert process.returncode == 1
    assert list(folder.iterdir()) == []


class Visit:
    """A visitor's window."""

    def __init__(self, browser: "Browser", address: str, size: tuple[int, int]) -> None:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=size == PHONE)
        self.address = address
        self.requests: list[str] = []
        self.errors: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.goto(address)

    def until(self, happened: Callable[[], bool]) -> None:
        # Not Playwright's wait_for_function, which needs eval, which the page's headers forbid.
        for _ in range(500):
            if happened():
                return
            self.page.wait_for_timeout(20)
        pytest.fail("waited 10 s in vain")

    def drop(self, photo: Path) -> None:
        self.page.set_input_files("#drop input[type=file]", photo)

    def show(self, photo: Path) -> None:
        """Drop a photo and wait for what is found."""
        self.changes(lambda: self.drop(photo))

    def changes(self, act: Callable[[], None]) -> None:
        """Do what leads to another overlay, and wait for it."""
        before = self.addresses()
        act()
        self.until(lambda: len(self.addresses()) == 2 and not set(self.addresses()) & set(before))

    def addresses(self) -> list[str]:
        """Where the slider's pictures come from: photo, overlay."""
        found: list[str] = self.page.locator("#slider img").evaluate_all("all => all.map(each => each.src)")
        return found

    def caption(self) -> str:
        return self.page.locator("#shares p").inner_text()

    def pictures(self) -> tuple[Image.Image, Image.Image]:
        """Photo and overlay, as the browser has them."""
        images = self.page.locator("#slider img")
        self.until(lambda: images.count() == 2 and images.evaluate_all("all => all.every(each => each.naturalWidth)"))
        photo, overlay = map(self._fetch, self.addresses())
        return photo, overlay

    def _fetch(self, address: str) -> Image.Image:
        return Image.open(io.BytesIO(self.page.request.get(address).body()))

    def shares(self) -> list[list[str]]:
        """The table, without its head."""
        rows = self.page.locator("#shares tr").all()
        return [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in rows[1:]]

    def download(self, button: str) -> tuple[str, bytes]:
        """(name, content) of what a button gives."""
        with self.page.expect_download() as caught:
            self.page.get_by_role("button", name=button, exact=True).or_(
                self.page.get_by_role("link", name=button, exact=True)
            ).first.click()
        return caught.value.suggested_filename, Path(caught.value.path()).read_bytes()

    def fits(self) -> bool:
        """Whether nothing is cut off at the right."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))

    def check(self) -> None:
        """All must have been well behind the scenes."""
        assert all(address.startswith((self.address, "data:", "blob:" + self.address)) for address in self.requests)
        assert self.errors == []

    def end(self) -> None:
        self.check()
        self.page.context.close()


@pytest.fixture(scope="module")
def window(browser: "Browser", server: Server) -> Iterator[Visit]:
    one = Visit(browser, server.address, DESKTOP)
    yield one
    one.end()


@pytest.fixture
def visit(window: Visit) -> Iterator[Visit]:
    yield window
    window.check()


@pytest.fixture(scope="module")
def segment() -> Segmenter:
    return Segmenter.load(device="cpu")


def rows(one: Segmentation) -> list[list[str]]:
    """The table that a photo should have."""
    return [[each["name"], f"{each['share']:.1%}", f"{each['pixels']:,}"] for each in one.to_dict()["classes"]]


def alike(first: Image.Image, second: Image.Image) -> bool:
    """Whether two pictures are the same but for JPEG's losses."""
    pixels = [np.asarray(picture.convert("RGB"), dtype=np.float32) for picture in (first, second)]
    return pixels[0].shape == pixels[1].shape and float(np.abs(pixels[0] - pixels[1]).mean()) < 4


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_the_page_says_how_many_pixels_are_read(segment: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is served: the service has it too."""
    pytest.importorskip("gradio")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    app.build(segment, app.ServeOptions(max_megapixels=3))
    assert Image.MAX_IMAGE_PIXELS == 1_500_000  # Pillow refuses twice as many


def test_a_photo_shows_its_clothes(visit: Visit, segment: Segmenter) -> None:
    visit.show(ASTRONAUT)
    one = segment(ASTRONAUT)
    photo, overlay = visit.pictures()
    assert alike(photo, one.photo)
    assert alike(overlay, one.overlay())
    assert not alike(overlay, one.photo)
    assert visit.shares() == rows(one)
    assert visit.page.locator("#cutouts .grid-container img").count() == len(one.found) > 0


def test_the_name_of_a_class_is_shown_as_it_is() -> None:
    for name in ("<img src=x onerror=alert(1)>", "a | b", "*coat*", "[x](y)", "&amp;"):
        facts = {"photo": "a.jpg", "width": 2, "height": 1}
        table = app.shares_table(facts | {"classes": [{"id": 1, "name": name, "share": 0.5, "pixels": 1}]})
        [cell] = re.findall(r"</i>(.*) \| 50\.0%", table)
        assert not set(cell) & set("<>|*[]()")
        assert html.unescape(cell) == name


def test_a_class_is_switched_off_and_on(visit: Visit, segment: Segmenter, tmp_path: Path) -> None:
    garments = [Image.open(ROOT / "input_images" / f"{name}.jpg").convert("RGB") for name in ("t_shirt", "skirt")]
    both = Image.new("RGB", (400, sum(each.height for each in garments)))
    for top, garment in zip((0, garments[0].height), garments, strict=True):
        both.paste(garment, (0, top))
    both.save(tmp_path / "both.png")
    visit.show(tmp_path / "both.png")
    one = segment(tmp_path / "both.png")
    assert len(one.found) == 2
    off, kept = one.found
    part = one.only(*(name for name in one.classes if name != off))
    visit.changes(visit.page.get_by_label(off).uncheck)
    assert alike(visit.pictures()[1], part.overlay())
    assert visit.shares() == rows(part)
    _, content = visit.download("Mask")
    assert np.array_equal(np.asarray(opened(content)), part.labels)
    assert visit.page.get_by_text(off.capitalize(), exact=True).count() == 0
    assert visit.page.get_by_text(kept.capitalize(), exact=True).is_visible()
    visit.changes(visit.page.get_by_label(off).check)
    assert visit.shares() == rows(one)
    assert alike(visit.pictures()[1], one.overlay())


def test_downloads_are_what_python_gives(visit: Visit, segment: Segmenter) -> None:
    visit.show(HOPPER)
    one = segment(HOPPER)
    name, content = visit.download("Mask")
    assert name == "grace_hopper.png"
    assert opened(content).getpalette() == one.mask().getpalette()
    assert np.array_equal(np.asarray(opened(content)), one.labels)
    name, content = visit.download("JSON")
    assert name == "grace_hopper.json"
    assert json.loads(content) == one.to_dict() | {"photo": "grace_hopper.jpg"}
    for found in one.found:
        name, content = visit.download(found.capitalize())
        assert name == f"grace_hopper_cutout_{found.split()[0]}.png"
        assert np.array_equal(np.asarray(opened(content)), np.asarray(one.cutout(found)))


def test_an_example_is_taken_by_a_click(visit: Visit) -> None:
    visit.changes(visit.page.locator("#examples img").nth(1).click)
    assert visit.caption() == "grace_hopper.jpg, 512 x 600 pixels"


def strange_photos() -> dict[str, Any]:
    photo = Image.open(ASTRONAUT).convert("RGB").resize((120, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    clear = photo.copy()
    clear.putalpha(128)
    return {
        "turned.jpg": (photo, {"exif": exif}, "80 x 120"),
        "cmyk.jpg": (photo.convert("CMYK"), {}, "120 x 80"),
        "deep.png": (Image.fromarray(grey), {}, "120 x 80"),
        "clear.webp": (clear, {}, "120 x 80"),
        "scan.tif": (photo, {}, "120 x 80"),
        "50 % & _odd_ étoile #1.png": (photo, {}, "120 x 80"),
    }


def test_photos_of_all_kinds_are_taken(visit: Visit, tmp_path: Path, segment: Segmenter) -> None:
    for name, (photo, settings, size) in strange_photos().items():
        photo.save(tmp_path / name, **settings)
        visit.show(tmp_path / name)
        assert visit.caption() == f"{name}, {size} pixels"
        assert alike(visit.pictures()[0], segment(tmp_path / name).photo)
        assert visit.page.locator("#shares b").count() == 0


BAD = {
    "letter.jpg": (
        b"Dear photo,",
        "expected a picture, found a file in no format that Pillow knows.",
    ),
    "empty.png": (b"", "expected a picture, found an empty file."),
    "half.png": (ASTRONAUT.read_bytes()[:5000], "expected a picture, found one that cannot be decoded"),
    "wide.png": (b"P6 2000 501 255\n", "expected at most 1,000,000 pixels, found 1,002,000; make it smaller."),
    "vast.png": (b"P6 60000 60000 255\n", "expected at most 1,000,000 pixels, found 3,600,000,000; make it smaller."),
    "big.jpg": (bytes(2_100_000), "expected at most 2 MB, found 2.1 MB; make it smaller."),
}


def test_a_bad_file_gets_a_sentence(visit: Visit, tmp_path: Path) -> None:
    for name, (content, said) in BAD.items():
        (tmp_path / name).write_bytes(content)
        visit.drop(tmp_path / name)
        visit.page.locator("#alert p, #too-large", has_text=f"{name}: {said}").wait_for()
        assert visit.page.locator("#slider").count() == 0  # what was shown was another photo's
        assert str(tmp_path) not in visit.page.content()
        assert "Traceback" not in visit.page.content()
    visit.show(ASTRONAUT)  # and the next one is taken
    assert visit.page.locator("#alert p, #too-large").count() == 0


def test_a_large_file_is_refused_whoever_sends_it(server: Server) -> None:
    def send(size: int) -> int:
        body = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
            + bytes(size)
            + b"\r\n--x--"
        )
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        try:
            return int(
                urllib.request.urlopen(urllib.request.Request(f"{server.address}gradio_api/upload", body, kind)).status
            )
        except urllib.error.HTTPError as error:
            return error.code

    assert send(1_900_000) == 200
    assert send(2_100_000) >= 400


def test_it_fits_a_phone(browser: "Browser", server: Server) -> None:
    visit = Visit(browser, server.address, PHONE)
    visit.page.locator("#drop").get_by_text("Upload").wait_for()
    assert visit.fits()
    visit.show(ASTRONAUT)
    visit.pictures()
    assert visit.fits()
    top = 0.0
    for part in (
        "#drop",
        "#examples",
        "#slider",
        "#wanted",
        "#shares table",
        "#downloads",
        "#cutouts",
    ):  # in this order
        box = visit.page.locator(part).first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE[0]
        assert box["y"] > top
        top = box["y"]
    for image in visit.page.locator("#slider img").all():
        box = image.bounding_box()
        assert box is not None
        assert box["width"] <= PHONE[0]
        assert box["height"] <= PHONE[1]
    visit.end()


def test_visitors_do_not_meet(browser: "Browser", server: Server, visit: Visit) -> None:
    visit.show(ASTRONAUT)
    other = Visit(browser, server.address, DESKTOP)
    other.show(HOPPER)
    visit.changes(visit.page.get_by_label("lower body").uncheck)
    assert visit.caption().startswith("astronaut.png")
    assert other.caption().startswith("grace_hopper.jpg")
    assert len(other.shares()) == 3
    visit.changes(visit.page.get_by_label("lower body").check)
    other.end()


def test_a_photo_that_is_gone_is_asked_for_again(browser: "Browser", server: Server) -> None:
    visit = Visit(browser, server.address, DESKTOP)
    visit.show(ASTRONAUT)
    for path in server.folder.rglob("astronaut.png"):
        path.unlink()
    visit.page.get_by_label("full body").uncheck()
    visit.page.locator("#alert", has_text="astronaut.png: expected the photo that was dropped, found it del").wait_for()
    visit.end()


def test_the_server_fetches_nothing(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{server.address}gradio_api/file=http://192.0.2.1/a.png", timeout=5)


def test_the_process_stays_here_and_keeps_nothing_for_ever(tmp_path: Path) -> None:
    code = """
import os, pathlib, socket, threading, time
import app
app.KEPT = 1
def wait(old):
    while old.exists():
        time.sleep(0.05)
    print("swept", flush=True)
    os._exit(0)
def launch(page, opt, classes):
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    except PermissionError as error:
        print(error)
    old = pathlib.Path(os.environ["GRADIO_TEMP_DIR"], "old.jpg")
    old.touch()
    threading.Thread(target=wait, args=(old,)).start()
app.launch = launch
app.main(["--device=cpu"])
"""
    pytest.importorskip("gradio")
    done = run(sys.executable, "-c", code, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "expected a connection to this machine, found one to 192.0.2.1\nswept\n"


def test_the_page_names_the_server_only(server: Server) -> None:
    answer = urllib.request.urlopen(server.address)
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "fonts.googleapis.com" not in answer.read().decode()


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = python("app.py", "--port", port)
    assert done.returncode == 1
    assert re.fullmatch(r"app.py: --host 127.0.0.1 --port \d+: expected .*, found .*; name another one\n", done.stderr)


def test_weights_that_are_missing_are_one_line(tmp_path: Path) -> None:
    done = python("app.py", "--port", free_port(), "--checkpoint", tmp_path / "none.pth")
    assert done.returncode == 1
    assert done.stderr.startswith("app.py: ")
    assert done.stderr.count("\n") == 1


def test_a_wrong_flag_is_wrong_usage() -> None:
    done = python("app.py", "--port", "0")
    assert done.returncode == 2
    assert "--port: expected a whole number of at least 1 and of at most 65535, found 0" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host=::1"], "--host: expected a name or an IPv4 address such as 0.0.0.0, found '::1'"),
        (["--batch_size=8"], "--batch_size: unknown option"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(flags: list[str], words: str) -> None:
    done = python("app.py", *flags)
    assert done.returncode == 2
    assert words in done.stderr


def test_gradio_that_is_missing_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gradio.py").write_text("raise ImportError('none')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run(sys.executable, "app.py", "--port", free_port(), "--device", "cpu", env={"PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr == "app.py: expected gradio, found none; pip install -r requirements-app.txt\n"
