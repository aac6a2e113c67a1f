"""The service, as a process, from outside: answers, places, its end, its log, its numbers."""

import io
import json
import re
import signal
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import CCP, ROOT, needs_ccp, python, run
from PIL import Image

pytest.importorskip("fastapi_offline")
pytest.importorskip("httpx")

import httpx
from prometheus_client import parser
from service import BUNDLED, Service, received, request, serving

INPUTS = ROOT / "input_images"
HOPPER = (INPUTS / "grace_hopper.jpg").read_bytes()
if TYPE_CHECKING:
    from playwright.sync_api import Browser

SOME = ["astronaut.png", "grace_hopper.jpg", "skirt.jpg"]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving() as started:
        yield started


def ask(service: Service, photo: bytes = HOPPER, headers: dict[str, str] | None = None, **wanted: Any) -> Any:
    return httpx.post(f"{service.url}/v1/segment", content=photo, params=wanted, headers=headers or {}, timeout=60)


def assert_as_the_command(service: Service, photos: list[Path], folder: Path, size: int = 64) -> None:
    """All that infer.py writes for photos is what the service answers, byte for byte; JSON but for the path."""
    done = python(
        "infer.py", photos[0].parent, folder, f"--checkpoint={BUNDLED}", f"--size={size}",
        "--save=mask,overlay,cutout,classes,json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for photo in photos:
        answer = ask(service, photo.read_bytes(), output="zip")
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            found = {name.replace("photo", photo.stem, 1): archive.read(name) for name in archive.namelist()}
        written = {path.name: path.read_bytes() for path in folder.glob(f"{photo.stem}[._]*")}
        said, says = (json.loads(files.pop(f"{photo.stem}.json")) for files in (written, found))
        assert said.pop("photo") == str(photo)
        assert says.pop("photo") is None
        assert (says, found) == (said, written), photo


def test_answers_are_what_infer_py_writes(service: Service, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photos = [tmp_path / "photos" / name for name in SOME]
    for path in photos:
        path.write_bytes((INPUTS / path.name).read_bytes())
    assert_as_the_command(service, photos, tmp_path / "masks")


@pytest.mark.long
def test_answers_for_all_bundled_photos_are_what_infer_py_writes(service: Service, tmp_path: Path) -> None:
    assert_as_the_command(service, sorted(INPUTS.glob("*.[jp][pn]g")), tmp_path)


@needs_ccp
@pytest.mark.long
def test_answers_for_photos_of_whole_people_are_what_infer_py_writes(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for path in sorted(CCP.rglob("*.jpg"))[:50]:
        (tmp_path / "photos" / path.name).symlink_to(path)
    with serving("--size=192") as started:
        assert_as_the_command(started, sorted((tmp_path / "photos").iterdir()), tmp_path / "masks", 192)


def test_the_form_is_that_of_the_parameter_or_of_the_header(service: Service) -> None:
    kinds = {"json": "application/json", "mask": "image/png", "overlay": "image/jpeg", "zip": "application/zip"}
    for output, kind in kinds.items():
        named, accepted = ask(service, output=output), ask(service, headers={"Accept": f"text/html, {kind};q=0.5"})
        for answer in (named, accepted):
            assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert named.content == accepted.content
    assert ask(service).headers["content-type"] == "application/json"
    assert (
        ask(service, headers={"Accept": "image/*;q=0.3, application/json;q=0.2"}).headers["content-type"] == "image/png"
    )
    assert ask(service, headers={"Accept": "text/html", "X-Request-ID": "mine"}).json()["request"] == "mine"


def test_a_form_with_a_file_is_taken_as_a_body_is(service: Service) -> None:
    plain = ask(service).content
    for name in ("photo", "anything"):
        form = httpx.post(f"{service.url}/v1/segment", files={name: ("../../x.jpg", HOPPER, "image/jpeg")})
        assert form.content == plain


def test_what_is_wanted_is_what_the_library_makes(service: Service) -> None:
    from cloth_segmentation import Segmenter

    one = Segmenter.load(BUNDLED, device="cpu", size=64)(HOPPER)

    def picture(**wanted: Any) -> Image.Image:
        answer = ask(service, **wanted)
        assert answer.status_code == 200, answer.text
        return Image.open(io.BytesIO(answer.content))

    assert picture(output="mask", grow=9, only="upper").tobytes() == one.only("upper").grown(9).mask().tobytes()
    assert picture(output="mask", shrink=4).tobytes() == one.shrunk(4).mask().tobytes()
    cutout = picture(output="cutout", **{"class": "upper", "crop": "true", "background": "#20ff00"})
    expected = one.cutout("upper", crop=True, background=(32, 255, 0))
    assert (cutout.mode, cutout.tobytes()) == ("RGB", expected.tobytes())


def test_classes_and_weights_are_told(service: Service) -> None:
    told = httpx.get(f"{service.url}/v1/classes").json()
    assert [each["short_name"] for each in told["classes"]] == ["background", "upper", "lower", "full"]
    assert told["classes"][1] == {"id": 1, "name": "upper body", "short_name": "upper", "color": [128, 0, 0]}
    assert told["weights"]["seen_at"] == [64, 64]


def test_numbers_are_those_of_prometheus(service: Service) -> None:
    def numbers() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        text = httpx.get(f"{service.url}/metrics").text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = numbers()
    ask(service, output="mask")
    ask(service, b"no photo")
    after = numbers()

    def grown(name: str, **labels: str) -> float:
        key = name, tuple(sorted(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    path = "/v1/segment"
    assert grown("cloth_segmentation_requests_total", path=path, method="POST", status="200") == 1
    assert grown("cloth_segmentation_requests_total", path=path, method="POST", status="422") == 1
    assert grown("cloth_segmentation_answers_total", output="mask") == 1
    assert grown("cloth_segmentation_batch_photos_sum") == 1
    assert grown("cloth_segmentation_request_seconds_count", path=path) == 2
    assert after["cloth_segmentation_places_taken", ()] == 0
    assert after["cloth_segmentation_places", ()] == 64
    assert any(name == "process_resident_memory_bytes" for name, _ in after)


def test_each_request_has_a_line_with_its_id_and_no_photo_is_kept(service: Service) -> None:
    answer = ask(service, headers={"X-Request-ID": "order-66"}, only="upper")
    assert answer.headers["x-request-id"] == "order-66"
    own = ask(service, headers={"X-Request-ID": "not\u2028ours".encode("utf-8")}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", own)
    line = service.line_of("order-66")
    assert re.fullmatch(r"\S+ 127.0.0.1 POST /v1/segment 200 \d+ \d+ order-66", line)
    assert not list(service.folder.rglob("*"))


def test_the_page_of_the_interface_asks_no_other_server(service: Service) -> None:
    page = httpx.get(f"{service.url}/docs").text
    assert "http" not in page
    fetched = re.findall(r"(?:src|href)=[\"']([^\"']+)", page)
    assert fetched
    for address in fetched:
        assert address.startswith("/"), address
        assert httpx.get(service.url + address).status_code == 200
    interface = httpx.get(f"{service.url}/openapi.json").json()
    assert {"/v1/segment", "/v1/classes", "/healthz", "/readyz", "/metrics"} <= set(interface["paths"])


@pytest.mark.long
def test_a_browser_shows_the_interface_and_asks_no_other_server(service: Service, browser: "Browser") -> None:
    page, asked, wrong = browser.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(f"{service.url}/docs")
    page.get_by_text("/v1/segment").first.wait_for()
    assert all(address.startswith((service.url, "data:")) for address in asked), asked
    assert not wrong
    page.close()


def test_a_client_that_goes_away_frees_its_place() -> None:
    with serving("--places=1") as service:
        with service.connect() as connection:
            connection.sendall(request(body=HOPPER)[:-10])
            wait_for(lambda: service.metrics()["cloth_segmentation_places_taken"] == 1)
            refused = ask(service)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "expected one of 1 places to be free" in refused.json()["detail"]
        wait_for(lambda: service.metrics()["cloth_segmentation_places_taken"] == 0)
        assert ask(service).status_code == 200
        with service.connect() as connection:  # the whole photo, but nobody to wait for what it shows
            connection.sendall(request(body=HOPPER))
        wait_for(lambda: service.metrics()["cloth_segmentation_places_taken"] == 0)
        assert ask(service).status_code == 200
        assert "Traceback" not in service.log.read_text()


def wait_for(happened: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_once_what_was_begun_is_answered(number: signal.Signals) -> None:
    with serving() as service, service.connect() as connection:
        whole = request(body=HOPPER)
        connection.sendall(whole[:-10])
        wait_for(lambda: service.metrics()["cloth_segmentation_places_taken"] == 1)
        service.process.send_signal(number)
        wait_for(lambda: not listens(service))
        connection.sendall(whole[-10:])
        assert received(connection).status == 200
        assert service.process.wait(30) == 0
        assert service.log.read_text().splitlines()[-1] == "Ended by a signal"


def listens(service: Service) -> bool:
    try:
        service.connect().close()
    except OSError:
        return False
    return True


def test_what_takes_too_long_is_told_and_frees_its_place() -> None:
    with serving("--max_seconds=0.3", "--size=1024") as service:
        answer = ask(service)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "expected the answer within 0.3 seconds, found too much to do" in answer.json()["detail"]
        assert service.metrics()["cloth_segmentation_places_taken"] == 0


def test_requests_that_come_together_share_the_network() -> None:
    with serving("--batch_size=4", "--size=192") as service:
        alone = ask(service).content
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(service))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.content for answer in answers] == [alone] * 8
        numbers = service.metrics()
        assert numbers["cloth_segmentation_batch_photos_sum"] == 9
        assert numbers["cloth_segmentation_batch_photos_count"] < 9


def test_the_batch_is_what_is_fastest_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloth_segmentation.serve import batcher

    class Timed:
        """A network whose time depends on the number of photos as it is told."""

        size = 32, 32

        def __init__(self, seconds: dict[int, float]) -> None:
            self.seconds, self.now = seconds, 0.0

        def logits(self, squares: list[Any]) -> None:
            self.now += self.seconds[len(squares)]

    assert batcher.batch_size(Timed({1: 1.0}), 5) == 5

    for seconds, expected in (
        ({1: 1.0, 2: 2.0}, 1),
        ({1: 1.0, 2: 1.2, 4: 2.4}, 2),
        ({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.3}, 8),
    ):
        network = Timed(seconds)
        monkeypatch.setattr(batcher.time, "perf_counter", lambda network=network: network.now)
        assert batcher.batch_size(network, 0) == expected


def test_the_log_can_be_json() -> None:
    with serving("--log=json") as service:
        ask(service, headers={"X-Request-ID": "a"})
        entry = json.loads(service.line_of("a"))
        assert (entry["status"], entry["path"], entry["client"]) == (200, "/v1/segment", "127.0.0.1")


def test_what_it_cannot_start_with_is_told(tmp_path: Path, service: Service) -> None:
    (tmp_path / "keys").write_text("  # none\n")
    (tmp_path / "odd").write_text("schl\u00fcssel\n", encoding="utf-8")
    (tmp_path / "good").write_text("\ufeffk\n", encoding="utf-8")
    for flags, code, words in (
        ([f"--port={service.port}"], 1, "expected an address of this machine that is free, found one that is not"),
        ([f"--keys={tmp_path}/none"], 1, "--keys .*none: expected a text file with a key in each line, found none"),
        ([f"--keys={tmp_path}/keys"], 1, "--keys .*keys: expected a key, found none; unset it"),
        (["--origins=shop.example"], 2, "--origins: expected addresses without a path, .*, found 'shop.example'"),
        ([f"--keys={tmp_path}/odd"], 1, "expected keys of printable ASCII"),
        (
            ["--page", f"--keys={tmp_path}/good"],
            1,
            "--page: expected no keys, which the page cannot ask for, found --k",
        ),
        (["--host=::1"], 2, "--host: expected a name or an IPv4 address"),
        (["--places=0"], 2, "--places: expected a whole number of at least 1, found 0"),
    ):
        done = python("serve.py", f"--checkpoint={BUNDLED}", *flags)
        assert done.returncode == code, done.stderr
        assert re.search(words, done.stderr), done.stderr
        assert "Traceback" not in done.stderr


def test_the_installed_command_serves_too(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "cloth_segmentation", "serve", "--help")
    assert "--max_megapixels" in done.stdout
    done = run(sys.executable, "-m", "cloth_segmentation", "serve", "--page")
    assert done.returncode == 1
    assert done.stderr.startswith("python -m cloth_segmentation serve: --page: expected a clone of the project")


@pytest.mark.long
def test_the_page_is_there_if_it_is_asked_for() -> None:
    pytest.importorskip("gradio")
    with serving("--page") as service:
        with urllib.request.urlopen(f"{service.url}/page/") as page:
            assert b"gradio" in page.read()
        assert ask(service).status_code == 200
