"""Throw damaged input at what reads files of unknown origin: whatever comes, it is read, or refused in a sentence.

python tests/fuzz.py
python tests/fuzz.py --target image --examples 1000000 --seconds 3600 --seed 7

Each target runs in a process of its own, on changed copies of the files in tests/fuzz_corpus. What makes one fail is
kept there, and the tests read it again for ever.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from tqdm import tqdm

from cloth_segmentation import png
from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.onnx_engine import OnnxEngine
from cloth_segmentation.photos import read_photo, read_sizes
from data import label_map, rle
from data.checks import read_checked
from data.class_sets import find_class_set
from data.dataset import LabelledPhotos
from utils.run_folder import RunFolder
from utils.weights_files import class_count, load_network, read_file, read_info, state_dict_of, transplant

CORPUS = Path(__file__).parent / "fuzz_corpus"
CLASSES = ("background", "upper body", "lower body", "full body")
HANG = 60
"""Seconds that one input may take."""
MEMORY = 2 * 2**30
"""Bytes that a process may take, its imports included."""


class TinyNetwork(nn.Module):
    """Small enough to be written and read thousands of times, with the head that all our networks have."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.stage1 = nn.Conv2d(in_ch, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.outconv = nn.Conv2d(2, out_ch, 1)


def read_rle(content: bytes, folder: Path) -> None:
    """First line: height and width."""
    first, _, rest = content.partition(b"\n")
    numbers = [int(word) for word in first.split() if word.isdigit() and len(word) < 4][:2]
    shape = (numbers[0] + 1, numbers[1] + 1) if len(numbers) == 2 else (6, 7)
    text = rest.decode("utf-8", errors="surrogateescape")
    try:
        runs = rle.parse(text, shape)
    except ValueError:
        return
    mask = rle.decode(text, shape)
    assert rle.area(runs) == mask.sum()
    assert np.array_equal(rle.decode(rle.encode(mask), shape), mask)
    squashed = label_map.merge([(3, runs)], shape, (5, 4))
    whole = label_map.merge([(3, runs)], shape)
    assert np.array_equal(squashed, np.asarray(Image.fromarray(whole).resize((5, 4), Image.Resampling.NEAREST)))


def read_csv(content: bytes, folder: Path) -> None:
    read_labels(content, folder, "train.csv")


def read_labels(content: bytes, folder: Path, file: str) -> None:
    """Beside photos a.png and b.png, 8 x 6 pixels."""
    for name in ("a.png", "b.png"):
        if not (folder / name).exists():
            Image.new("RGB", (8, 6)).save(folder / name)
    path = folder / file
    path.write_bytes(content)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
            found = read_checked(("--df_path", str(path)), ("--image_folder", str(folder)))
    except RunError:
        return
    photos = LabelledPhotos(found.photos, folder)
    for number in found.photos.without(found.bad).tolist():  # what passes the checks can be used
        photo, labels = photos[number]
        assert photo.size == labels.shape[::-1] == (8, 6)
        photos.squashed(number, (5, 4))


def read_class_set(content: bytes, folder: Path) -> None:
    """Called classes.toml, so that it may name itself."""
    (folder / "classes.toml").write_bytes(content)
    try:
        found = find_class_set("classes.toml", beside=folder)
    except DataError:
        return
    assert ClassSet.read(found.to_dict()) == found
    assert [found.number(name) for name in found.names] == list(range(len(found)))
    assert all(found.number_of(name) == number for number, group in enumerate(found.categories) for name in group)


def read_png_labels(content: bytes, folder: Path) -> None:
    """The label of photo a.png, 8 x 6 pixels, as a mask, a class mask and a cut-out."""
    for place in ("photos", "masks", "class_masks", "cutouts"):
        (folder / place).mkdir(exist_ok=True)
    Image.new("RGB", (8, 6)).save(folder / "photos" / "a.png")
    content = with_sums(content)
    if int.from_bytes(content[16:20], "big") * int.from_bytes(content[20:24], "big") in range(2**24, 2**28):
        return  # no fault: it is read, but takes seconds
    for labels in ("masks/a.png", "class_masks/a_mask_upper.png", "cutouts/a_cutout_upper.png"):
        (folder / labels).write_bytes(content)
        read_folder((folder / labels).parent, folder / "photos")


def with_sums(content: bytes) -> bytes:
    """A PNG with the right sum of each chunk; without it, little of what is damaged would be read."""
    parts = [content[: len(png.SIGNATURE)]]
    for name, data, _ in png.chunks(content):
        sums = zlib.crc32(name + data).to_bytes(4, "big")
        parts += [len(data).to_bytes(4, "big"), name, data, sums]
    return b"".join(parts)


def read_labelme(content: bytes, folder: Path) -> None:
    """The label of photo a.png, 8 x 6 pixels."""
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "photos").mkdir(exist_ok=True)
    Image.new("RGB", (8, 6)).save(folder / "photos" / "a.png")
    (folder / "labels" / "a.json").write_bytes(content)
    read_folder(folder / "labels", folder / "photos")


def read_folder(labels: Path, images: Path) -> None:
    """What passes the checks can be used."""
    with contextlib.suppress(RunError), contextlib.redirect_stderr(io.StringIO()):  # the progress bar
        found = read_checked(("--df_path", str(labels)), ("--image_folder", str(images)), ignored=255)
        photos = LabelledPhotos(found.photos, images)
        for number in found.photos.without(found.bad).tolist():
            photo, own = photos[number]
            assert photo.size == own.shape[::-1] == (8, 6)
            assert set(np.unique(own).tolist()) <= {0, 1, 2, 3, 255}
            photos.squashed(number, (5, 4))


def read_coco(content: bytes, folder: Path) -> None:
    """Masks pass through pycocotools, whose C code checks nothing."""
    read_labels(content, folder, "instances.json")


def read_image(content: bytes, folder: Path) -> None:
    path = folder / "photo"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        read_sizes(path, (4, 4))
    try:
        photo = read_photo(path)
    except DataError:
        return
    assert photo.picture.mode == "RGB"
    assert photo.picture.size == photo.size
    assert min(photo.size) > 0
    reduced = read_photo(path, (4, 4))
    assert reduced.size == photo.size
    assert all(small >= min(4, own) for small, own in zip(reduced.picture.size, photo.size, strict=True))
    for one in (photo, reduced):
        assert one.alpha is None or (one.alpha.mode, one.alpha.size) == ("L", one.picture.size)


def read_weights(content: bytes, folder: Path) -> None:
    path = folder / "weights.pth"
    path.write_bytes(content)
    try:
        network, _ = load_network(path, {"tiny": TinyNetwork}, CLOTHES)
        assert all(value.isfinite().all() for value in network.state_dict().values())
        content = read_file(path)
        state = state_dict_of(content, path)
        kept = {0: 0} if read_info(content, "tiny", class_count(state), path) else None
        transplant(state, TinyNetwork(3, 2), path, kept)
    except RunError:
        pass
    (folder / "run").mkdir(exist_ok=True)
    path.replace(folder / "run" / "training_state.pth")
    with contextlib.suppress(RunError):
        RunFolder(folder / "run").open(go_on=True)


def read_onnx(content: bytes, folder: Path) -> None:
    path = folder / "weights.onnx"
    path.write_bytes(content)
    with contextlib.suppress(RunError):
        OnnxEngine(path)(np.zeros((1, 32, 32, 3), dtype=np.uint8))


@dataclass(frozen=True)
class Target:
    """What reads an input, and words that mean something to it."""

    read: Callable[[bytes, Path], None]
    words: tuple[bytes, ...]


NUMBERS = tuple(
    value.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for order in ("big", "little")
    for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
)
TEXTS = (b"0", b"1", b"-1", b"99999999999999999999", b"1e400", b"nan", b"inf", b"46", b"12_", b'"', b"'", b",", b";",
         b"\0", b"\xff", b"\xe9", b"\r", b"\n", b"\t", b" ", b"x")  # fmt: skip
JSON = (b"[", b"]", b"{", b"}", b":", b"null", b"true", b"-0", b"1e999", b"\\ud800", b"\\u0000", b'"polygon"',
        b'"mask"', b'"rectangle"', b'"circle"', b'"upper body"', b'"points"', b'"shapes"', b'"imagePath"', b"/", b"[]",
        b"{}", b'"a"', b"1.5", b"1e300", b"NaN", b"Infinity", b"[[", b"]]", b"[1,1,5,1,5,5],", b'"counts":',
        b'"size":', b'"id":', b'"segmentation":', b'"annotations":', b"[" * 2000)  # fmt: skip
PICKLE = (b"K\x00", b"J\xff\xff\xff\x7f", b"cbuiltins\neval\n", b"R", b"(", b"t", b"Q", b"N", b"}", b"]")
TOML = (b"[[class]]\n", b"[", b"]", b"{", b"}", b"=", b".", b"#", b'"""', b"name", b"color", b"categories", b"within",
        b"coarser", b"classes.toml", b"clothes", b"background", b"1979-05-27", b"\\u0000", b"\xe2\x80\xa8")  # fmt: skip
TARGETS = {
    "rle": Target(read_rle, TEXTS),
    "csv": Target(read_csv, TEXTS),
    "class_set": Target(read_class_set, TEXTS + TOML),
    "png_labels": Target(read_png_labels, NUMBERS),
    "labelme": Target(read_labelme, TEXTS + JSON),
    "coco": Target(read_coco, TEXTS + JSON),
    "image": Target(read_image, NUMBERS),
    "weights": Target(read_weights, NUMBERS + PICKLE),
    "onnx": Target(read_onnx, NUMBERS + TEXTS),
}


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...], words: tuple[bytes, ...]) -> bytes:
    """A file of the corpus with some changes. In a zip, of which each part has a sum, parts are changed as well."""
    content = draw(st.sampled_from(seeds))
    if zipfile.is_zipfile(io.BytesIO(content)) and draw(st.booleans()):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        for _ in range(draw(st.integers(1, 2))):
            name = draw(st.sampled_from(sorted(parts)))
            parts[name] = _changed(draw, parts[name], words)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part)
        return file.getvalue()
    return _changed(draw, content, words)


def _changed(draw: st.DrawFn, content: bytes, words: tuple[bytes, ...]) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(changed)))
        length = draw(st.integers(0, 8))
        kind = draw(st.sampled_from(("flip", "word", "insert", "delete", "repeat", "cut", "bytes")))
        if kind == "flip" and at < len(changed):
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "word":
            word = draw(st.sampled_from(words))
            changed[at : at + len(word)] = word
        elif kind == "insert":
            changed[at:at] = draw(st.sampled_from(words))
        elif kind == "delete":
            del changed[at : at + length]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + length * 8]
        elif kind == "cut":
            del changed[at:]
        elif kind == "bytes":
            changed[at : at + length] = draw(st.binary(min_size=length, max_size=length))
    return bytes(changed)


def corpus(name: str) -> tuple[bytes, ...]:
    """The files of a target."""
    return tuple(path.read_bytes() for path in sorted((CORPUS / name).iterdir()))


def fuzz(name: str, folder: Path, *, examples: int, seconds: float, number: int) -> int:
    """Read up to ``examples`` inputs; returns how many there were. The one being read is in ``folder``/input."""
    target, until, read = TARGETS[name], time.monotonic() + seconds, 0

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged(corpus(name), target.words))
    def try_all(content: bytes) -> None:
        nonlocal read
        if time.monotonic() > until:
            return
        (folder / "input").write_bytes(content)
        faulthandler.dump_traceback_later(HANG, exit=True)
        target.read(content, folder)
        faulthandler.cancel_dump_traceback_later()
        read += 1
        progress.update()

    with warnings.catch_warnings(), tqdm(total=examples, desc=name, unit="input", leave=False) as progress:
        warnings.simplefilter("ignore")
        try_all()
    return read


def run_target(name: str, opt: argparse.Namespace) -> bool:
    """Fuzz one target in a process of its own, and say what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, f"--target={name}", f"--examples={opt.examples}", f"--folder={folder}"]
        command += [f"--seconds={opt.seconds}", f"--seed={opt.seed}"]
        code = subprocess.run(command).returncode
        if code:
            content = (Path(folder) / "input").read_bytes()
            kept = CORPUS / name / hashlib.sha256(content).hexdigest()[:12]
            kept.write_bytes(content)
            print(f"{name}: failed, with exit code {code}, on the input that is kept as {kept}")
            return False
        found = json.loads((Path(folder) / "found.json").read_text())
    megabytes = f"{found['bytes'] / 2**20:.0f} MB"
    print(
        f"{name}: {found['inputs']:,} inputs in {found['seconds']} s, at most {megabytes}; no crash, no hang",
        flush=True,
    )
    if found["bytes"] > MEMORY:
        print(f"{name}: failed: expected less than {MEMORY / 2**20:.0f} MB, found {megabytes}")
    return bool(found["bytes"] <= MEMORY)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--examples", type=int, default=20_000, help="inputs for each target [20000]")
    parser.add_argument("--seconds", type=float, default=900, help="time limit for each target [900]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the process that does the work
    opt = parser.parse_args()
    if opt.folder is None:
        passed = [run_target(name, opt) for name in (TARGETS if opt.target == "all" else [opt.target])]
        return 0 if all(passed) else 1
    faulthandler.enable()
    torch.set_num_threads(1)
    began = time.monotonic()
    read = fuzz(opt.target, opt.folder, examples=opt.examples, seconds=opt.seconds, number=opt.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"inputs": read, "seconds": round(time.monotonic() - began), "bytes": peak}
    (opt.folder / "found.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
