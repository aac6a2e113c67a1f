"""Small photos, weights and processes that the tests share."""

import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from cloth_segmentation.classes import CLASSES, CLOTHES
from cloth_segmentation.weights_info import WeightsInfo
from data import rle
from networks import U2NETP
from utils.weights_files import read_file, save_weights

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent
CCP = ROOT.parent / "shared" / "ccp"

needs_ccp = pytest.mark.skipif(not CCP.is_dir(), reason="the Clothing Co-Parsing photos are not beside the project")

torch.set_num_threads(1)


class PhotoFolder(NamedTuple):
    images: Path
    csv: Path
    masks: dict[str, list[tuple[str, np.ndarray]]]  # photo name -> [(ClassId, mask)]


def write_photos(folder: Path, count: int, size: tuple[int, int] = (60, 80)) -> PhotoFolder:
    """Photos whose clothes are plain rectangles: a top (category 1) over trousers (6), or a dress (10)."""
    images = folder / "train"
    images.mkdir(parents=True)
    draw = np.random.default_rng(count)
    width, height = size
    rows, masks = ["ImageId,EncodedPixels,Height,Width,ClassId"], {}
    for number in range(count):
        name = f"{number:03d}.png"
        pixels = draw.integers(0, 255, (height, width, 3)).astype(np.uint8)
        instances = []
        boxes = (
            [("10_3_4", 0.2, 0.9, (90, 90, 0))]
            if number % 3 == 0
            else [
                ("1", 0.2, 0.5, (200, 0, 0)),
                ("6_12", 0.5, 0.9, (0, 200, 0)),
            ]
        )
        for class_id, top, bottom, rgb in boxes:
            mask = np.zeros((height, width), dtype=bool)
            mask[round(top * height) : round(bottom * height), width // 4 : width // 4 * 3] = True
            pixels[mask] = rgb
            instances.append((class_id, mask))
            rows.append(f"{name},{rle.encode(mask)},{height},{width},{class_id}")
        Image.fromarray(pixels).save(images / name)
        masks[name] = instances
    csv = folder / "train.csv"
    csv.write_text("\n".join(rows) + "\n")
    return PhotoFolder(images, csv, masks)


@pytest.fixture
def photo_folder(tmp_path: Path) -> PhotoFolder:
    return write_photos(tmp_path, 8)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """U2NETP for our classes with random weights that sees photos at 64 x 64."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    save_weights(path, U2NETP(3, len(CLASSES)).state_dict(), WeightsInfo("u2netp", CLOTHES, (64, 64), step=1))
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def start(*arguments: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a process with one thread and no GPU, as a user would from a shell."""
    settings = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"} | (env or {})
    return subprocess.Popen(  # a session of its own, so that a launcher's children end with it
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=settings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(*arguments: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a process to its end."""
    process = start(*arguments, cwd=cwd, env=env)
    try:
        output, errors = process.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def python(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python to its end; a script of ours, where no environment is asked for, as ``fork`` does."""
    if str(arguments[0]).endswith(".py") and env is None:
        with tempfile.TemporaryDirectory() as folder:
            return fork(*arguments, folder=Path(folder))
    return run(sys.executable, *arguments, env=env)


class Fork:
    """A script in a process of its own that starts at once: forked from one that has imported PyTorch already.

    Args:
        arguments: the script and its arguments.
        folder: an empty or new one, for what it prints.
    """

    _context = multiprocessing.get_context("forkserver")

    def __init__(self, *arguments: object, folder: Path, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = folder / "stdout.txt", folder / "stderr.txt"
        self._context.set_forkserver_preload(["preloaded"])
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join((str(ROOT), str(ROOT / "tests")))):
            forkserver.ensure_running()
        words = [os.fspath(argument) if isinstance(argument, Path) else str(argument) for argument in arguments]
        self.process = self._context.Process(target=_be_script, args=(words, self.files, env or {}))
        self.process.start()

    def wait(self, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
        """Its end; a process that takes longer than ``timeout`` seconds is killed and fails the test."""
        self.process.join(timeout)
        hangs = self.process.is_alive()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        output, errors = (path.read_text(errors="surrogateescape") for path in self.files)
        assert not hangs, f"did not end within {timeout} s: {errors}"
        return subprocess.CompletedProcess([], self.process.exitcode, output, errors)

    def kill(self) -> None:
        """End it and its children as a power failure would."""
        self.process.kill()  # it may not have a group of its own yet
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()


def _be_script(words: list[str], files: tuple[Path, Path], env: dict[str, str]) -> None:
    os.setsid()
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | env)
    os.chdir(ROOT)
    multiprocessing.set_start_method(None, force=True)  # back to the default, for the processes that load photos
    sys.argv = words
    torch.set_num_threads(1)
    runpy.run_path(words[0], run_name="__main__")


def wait_until(happened: Callable[[], bool], process: Fork) -> None:
    """Wait, as long as the process lives."""
    while process.process.is_alive() and not happened():
        time.sleep(0.001)


def fork(*arguments: object, folder: Path, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a script to its end, as ``python`` does, but in a tenth of the time."""
    return Fork(*arguments, folder=folder, env=env).wait()


def two_ranks(flags: list[str], folder: Path) -> list[Fork]:
    """Two processes that train together, with no launcher that ends one when the other ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        Fork(
            "train.py", *flags, folder=folder / f"rank{rank}", env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]


TrainFlags = Callable[..., list[str]]


@pytest.fixture
def train_flags(photo_folder: PhotoFolder, tmp_path: Path) -> TrainFlags:
    """Flags of a tiny training run, with more to add."""

    def flags(*more: object) -> list[str]:
        common = {
            "image_folder": photo_folder.images, "df_path": photo_folder.csv, "arch": "u2netp", "unet_checkpoint": "",
            "fine_width": 64, "fine_height": 64, "batchSize": 2, "nThreads": 0, "device": "cpu", "name": "run",
            "save_dir": tmp_path / "results", "logs_dir": tmp_path / "logs",
        }  # fmt: skip
        return [f"--{name}={value}" for name, value in common.items()] + [str(flag) for flag in more]

    return flags


def state_of(folder: Path, name: str = "run") -> dict[str, Any]:
    return read_file(folder / "results" / name / "training_state.pth")


def assert_equal(first: Any, second: Any, where: str = "state") -> None:
    """Equal to the last bit, through dictionaries and lists."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key, value in first.items():
            assert_equal(value, second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{where}[{number}]")
    else:
        assert first == second, where


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, BROWSERS)), driver.chromium.executable_path)
        if not Path(path).exists():
            pytest.skip("there is no Chromium")
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
