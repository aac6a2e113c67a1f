"""Photos in, label maps and all that is made of them out. The one way to segment: every script stands on it.

segment = Segmenter.load()
segment("photo.jpg").cutout("upper body").save("top.png")
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cloth_segmentation.classes import CLASSES, PALETTE, class_number
from cloth_segmentation.coco import encode_coco
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.files import sha256
from cloth_segmentation.logits import label_map, probabilities
from cloth_segmentation.memory import out_of_memory
from cloth_segmentation.onnx_engine import cpu_threads
from cloth_segmentation.photos import Size, from_memory, load_photo, read_photo, squash_photo
from cloth_segmentation.pictures import mask_picture, overlay
from cloth_segmentation.weights_info import ONNX_SIDES, WeightsInfo
from utils.devices import check_precision, on_cpu, pick_device

# PyTorch takes seconds and half a gigabyte to import, and ONNX Runtime does without it. So what needs PyTorch is
# imported where it is needed, here and in the modules above.
if TYPE_CHECKING:
    from torch import nn

TRAINED = Path("trained_checkpoint")
"""Where weights are looked for unless a file is named."""

PREFERRED = ("u2net", "u2netp")
"""Networks, the better one first."""

ENOUGH = 4
"""A JPEG is decoded at a half or less only if at least this many times the size that the network sees is left.

At 4, labels of 0.02 % of the pixels change; at 2, of 0.2 %. (40 photos, bundled weights.)
"""


class Engine(Protocol):
    """A network ready to run."""

    @property
    def name(self) -> str:
        """What runs it, and where."""

    @property
    def info(self) -> WeightsInfo:
        """What its weights say about themselves."""

    def __call__(self, photos: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """RGB photos (N, H, W, 3) -> logits (N, C, H, W)."""


PhotoLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""What can be segmented: a file's path; a Pillow picture, as it stands; an array (H, W, 3) in RGB, (H, W, 4) with
transparency, or (H, W) in grey, uint8, 0 to 255. OpenCV's arrays are BGR: ``array[..., ::-1]`` turns them."""

PHOTO_ERRORS = (DataError, OSError, MemoryError)
"""What a photo may meet without harm to others."""

JSON_VERSION = 1
"""Of ``Segmentation.to_dict``; it rises when a key changes its meaning or goes."""


class Seen(NamedTuple):
    """A photo as the network sees it."""

    source: Path | Image.Image  # where the whole photo is, or the photo itself, RGB
    square: NDArray[np.uint8]  # (h, w, 3)
    size: Size  # the photo's own
    frames: int  # more than 1: this is the first of an animation, or of a document's pages


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """What a photo shows, at the photo's own size. Made by a ``Segmenter``.

    Classes are named as in ``data.classes.CLASSES``, or by their first word: "upper body" or "upper".
    """

    labels: NDArray[np.uint8]
    """Label map (H, W): the class of each pixel, 0 background, 1 upper body, 2 lower body, 3 full body."""

    classes: tuple[str, ...] = CLASSES[1:]
    """Names of the clothes classes that were asked for; pixels of others are background."""

    segmenter: "Segmenter" = field(repr=False)
    """What made it."""

    source: Path | Image.Image = field(repr=False)
    """Where the photo is, or the photo itself, RGB."""

    logits: NDArray[np.float32] = field(repr=False)
    """What the network gave, (4, h, w), at the size at which it saw the photo."""

    @property
    def size(self) -> Size:
        """(width, height) in pixels, of the photo and of everything below."""
        return self.labels.shape[1], self.labels.shape[0]

    @property
    def found(self) -> tuple[str, ...]:
        """Names of the classes that the photo has."""
        return tuple(name for name in self.classes if (self.labels == class_number(name)).any())

    @cached_property
    def photo(self) -> Image.Image:
        """The photo, upright, in RGB.

        If it came as a path, it is read again when it is first asked for: many that wait would fill the memory.

        Raises:
            DataError: it can no longer be read, or is another one now.
            OSError: it can no longer be opened.
        """
        if isinstance(self.source, Image.Image):
            return self.source
        photo = load_photo(self.source)
        if photo.size != self.size:
            expected, found = (f"{size[0]} x {size[1]} pixels" for size in (self.size, photo.size))
            raise DataError(f"{self.source}: expected the photo of {expected} that was there, found one of {found}")
        return photo

    def only(self, *classes: str) -> "Segmentation":
        """The same for some classes: pixels of the others are background."""
        numbers = sorted(class_number(name) for name in classes)
        kept = np.where(np.isin(self.labels, numbers), self.labels, np.uint8(0))
        return replace(self, labels=kept, classes=tuple(CLASSES[number] for number in numbers if number))

    def probabilities(self) -> NDArray[np.float32]:
        """Probability of each class at each pixel, (4, H, W), 0 to 1, from the softmax of the logits.

        The class of the highest is the label, unless ``min_area`` or ``only`` has changed it.
        """
        return probabilities(self.logits, self.size)

    def mask(self) -> Image.Image:
        """The label map as a palette picture: the value of a pixel is its class, shown in that class's colour."""
        return mask_picture(self.labels, PALETTE)

    def class_mask(self, name: str) -> Image.Image:
        """One class as a grey picture: 255 where the photo has it, 0 elsewhere."""
        return Image.fromarray((self.labels == class_number(name)).astype(np.uint8) * np.uint8(255))

    def overlay(self) -> Image.Image:
        """The photo with its clothes tinted and outlined in the colours of their classes, RGB."""
        return overlay(self.photo, self.labels, PALETTE)

    def cutout(self, name: str, *, crop: bool = False) -> Image.Image:
        """The photo with all but one class transparent, and soft edges, RGBA.

        Args:
            name: the class. If the photo does not have it, everything is transparent.
            crop: leave out what is transparent around it, if there is something that is not.
        """
        from cloth_segmentation.cutouts import (
            coverage,
            cut_out,
        )  # scipy takes longer to import than all else that is needed

        number = class_number(name)
        picture = cut_out(self.photo, coverage(self.labels == number, self.logits, number))
        return picture.crop(picture.getchannel("A").getbbox()) if crop else picture

    def to_dict(self) -> dict[str, Any]:
        """What was found, in numbers, text and lists: what JSON can hold. docs/outputs.md explains each key."""
        width, height = self.size
        return {
            "version": JSON_VERSION,
            "photo": str(self.source) if isinstance(self.source, Path) else None,
            "width": width,
            "height": height,
            "weights": self.segmenter.weights(),
            "classes": [self._class_to_dict(class_number(name)) for name in self.classes],
        }

    def _class_to_dict(self, number: int) -> dict[str, Any]:
        mask = self.labels == number
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        pixels = int(mask.sum())
        box = [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1] if pixels else None
        return {
            "id": number,
            "name": CLASSES[number],
            "pixels": pixels,
            "share": pixels / mask.size,
            "box": box,
            "segmentation": encode_coco(mask),
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """Photos in, segmentations out. Make one with ``Segmenter.load``."""

    engine: Engine
    path: Path  # of the weights
    size: Size | None  # (width, height) at which the network sees photos; None: their own
    sha256: str | None = None  # of the weights file
    flip: bool = False  # average with the mirrored photo
    min_area: float = 0.0  # share of the photo under which a region of clothes takes the class around it

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        engine: str = "auto",
        amp: str = "off",
        size: int | Size | str = "auto",
        flip: bool = False,
        min_area: float = 0.0,
    ) -> "Segmenter":
        """Read weights.

        Args:
            checkpoint: weights file, .pth or .onnx; None: the best one in trained_checkpoint/.
            device: auto, cpu, cuda, cuda:N or mps.
            engine: torch, onnx, or auto: ONNX Runtime on a CPU if export.py has been run, else PyTorch.
            amp: off, bf16 or fp16: precision of PyTorch.
            size: (width, height) at which the network sees a photo, or one number for both; "auto" for what the weights
                file says, or "native" for the photo's own.
            flip: average the logits with those of the mirrored photo.
            min_area: give regions of clothes under this share of the photo the class around them, 0 to below 1.

        Raises:
            RunError: there are no such weights, or no such device.
            ValueError: an argument is none of these.
        """
        if isinstance(size, int):
            size = size, size
        check_arguments(engine, amp, size, min_area)
        check_device(device, amp)
        fits = isinstance(size, str) or not (size[0] % ONNX_SIDES or size[1] % ONNX_SIDES)
        if engine == "auto" and (amp != "off" or size == "native" or not fits):
            engine = "torch"  # which takes any size and knows other precisions
        if checkpoint is None:
            path, runner = best_weights(TRAINED, device, engine, amp)
        else:
            path, runner = open_weights(Path(checkpoint), device, engine, amp)
        seen = {"auto": runner.info.size, "native": None}[size] if isinstance(size, str) else size
        # Now, since training may put other weights in its place.
        return cls(engine=runner, path=path, sha256=sha256(path), size=seen, flip=flip, min_area=min_area)

    @overload
    def __call__(self, photos: PhotoLike, /) -> Segmentation: ...  # type: ignore[overload-overlap]  # of str

    @overload
    def __call__(self, photos: Sequence[PhotoLike], /, *, batch_size: int = 1) -> list[Segmentation]: ...

    def __call__(
        self, photos: PhotoLike | Sequence[PhotoLike], /, *, batch_size: int = 1
    ) -> Segmentation | list[Segmentation]:
        """Segment a photo, or a list of them.

        Args:
            photos: one or several.
            batch_size: photos that go through the network at once.

        Raises:
            DataError: a photo cannot be read, or is no photo.
            OSError: a file cannot be opened.
            RunError: the weights give no finite logits.
            MemoryError: there is too little.
            TypeError: there is something else than photos.
        """
        if isinstance(photos, str | os.PathLike | Image.Image | np.ndarray):
            return self([photos])[0]
        if not isinstance(photos, Sequence):
            raise TypeError(f"expected a photo (path, Pillow picture or array) or a list of them, found {photos!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, found {batch_size}")
        together = batch_size if self.size else 1  # at their own sizes, photos cannot share a batch
        done: list[Segmentation] = []
        for start in range(0, len(photos), together):
            seen = [self.see(photo) for photo in photos[start : start + together]]
            done += map(self.segmentation, seen, self.logits([each.square for each in seen]))
        return done

    # The steps of the above, for those who take them at different times or in several threads.

    def see(self, photo: PhotoLike) -> Seen:
        """What the network sees of a photo.

        Raises:
            DataError: it cannot be read, or is no photo.
            OSError: it cannot be opened.
            MemoryError: there is too little for it.
        """
        if isinstance(photo, str | os.PathLike):
            path = Path(photo)
            enough = None if self.size is None else (ENOUGH * self.size[0], ENOUGH * self.size[1])
            picture, size, frames = read_photo(path, enough)
            return Seen(path, np.asarray(squash_photo(picture, self.size)), size, frames)
        if not isinstance(photo, Image.Image | np.ndarray):
            raise TypeError(f"expected a photo (path, Pillow picture or array), found {photo!r}")
        picture = from_memory(photo)
        return Seen(picture, np.asarray(squash_photo(picture, self.size)), picture.size, 1)

    def logits(self, squares: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What the network sees of N photos, each (H, W, 3) -> logits (N, C, H, W).

        Raises:
            RunError: they are not finite.
            MemoryError: there is too little for so many pixels.
        """
        batch = np.stack(squares)
        try:
            logits = self.engine(batch)
            if self.flip:
                mirrored = self.engine(np.ascontiguousarray(batch[:, :, ::-1]))
                logits = (logits + mirrored[..., ::-1]) * np.float32(0.5)
        except RuntimeError as error:  # what PyTorch and ONNX Runtime raise then, too
            if not out_of_memory(error):
                raise
            raise MemoryError(str(error)) from error
        if not np.isfinite(logits).all():
            found = "NaN" if np.isnan(logits).any() else "infinity"
            raise RunError(
                f"{self.path}: expected finite logits, found {found}; the weights are damaged, or too large for "
                "--amp fp16"
            )
        return logits

    def segmentation(self, seen: Seen, logits: NDArray[np.float32]) -> Segmentation:
        """A photo, and its logits (C, h, w) -> what it shows.

        The logits, not the labels, are brought to the photo's size, which keeps edges smooth.
        """
        labels = label_map(logits, seen.size)
        if self.min_area:
            from cloth_segmentation.regions import absorb_small  # which imports scipy too

            labels = absorb_small(labels, self.min_area)
        return Segmentation(labels=labels, segmenter=self, source=seen.source, logits=logits)

    def weights(self) -> dict[str, Any]:
        """Which weights these are, for files that are made by them."""
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "arch": self.info.arch,
            "seen_at": None if self.size is None else list(self.size),
            "validation_iou": self.info.mean_iou_clothes,
        }

    @property
    def info(self) -> WeightsInfo:
        """What the weights say about themselves."""
        return self.engine.info

    def describe(self) -> str:
        """One line on the weights in use."""
        size = "the photos' own size" if self.size is None else f"{self.size[0]} x {self.size[1]} pixels"
        if self.size != self.info.size:
            size += f" instead of the {self.info.size[0]} x {self.info.size[1]} that the weights file names"
        iou = f", validation IoU {self.info.mean_iou_clothes:.3f}" if self.info.mean_iou_clothes is not None else ""
        return f"{self.path}: {self.info.arch}{iou}, at {size} by {self.engine.name}"


def local_rank() -> int:
    """Number of this process among those of a launcher on this machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def check_arguments(engine: str, amp: str, size: Size | str, min_area: float) -> None:
    """Raise ValueError for what the options of a script would refuse."""
    sized = size in ("auto", "native") if isinstance(size, str) else len(size) == 2 and min(size) >= 32
    for fits, expected, found in (
        (engine in ("auto", "torch", "onnx"), "engine: expected auto, torch or onnx", engine),
        (amp in ("off", "bf16", "fp16"), "amp: expected off, bf16 or fp16", amp),
        (sized, "size: expected auto, native, or a width and height of at least 32 pixels", size),
        (0 <= min_area < 1, "min_area: expected a share of at least 0 and below 1", min_area),
    ):
        if not fits:
            raise ValueError(f"{expected}, found {found!r}")


def check_device(device: str, amp: str) -> None:
    """Raise RunError if the device is not there, or does not know the precision."""
    check_precision(amp, "cpu" if on_cpu(device) else pick_device(device, local_rank()).type)


def load(path: Path) -> tuple["nn.Module", WeightsInfo]:
    """Read trained weights. Raises RunError."""
    from networks import ARCHITECTURES
    from utils.checkpoints import load_network

    network, info = load_network(path, ARCHITECTURES, CLASSES)
    if info.step == 0:
        raise RunError(f"{path}: expected trained weights, found initial ones, whose head is random; train them first")
    return network, info


def open_weights(path: Path, device: str, engine: str, amp: str) -> tuple[Path, Engine]:
    """The file to use for a weights file, and what runs it: the ONNX file beside it where that is asked for or best.

    Raises:
        RunError: there is none, or it cannot be run that way.
    """
    exported = path.with_suffix(".onnx")
    if path == exported and (engine == "torch" or device not in ("auto", "cpu")):
        raise RunError(
            f"{path}: expected weights for PyTorch (.pth), found an ONNX file; it runs on the CPU, in its own "
            f"precision, on photos whose sides are multiples of {ONNX_SIDES} pixels"
        )
    if path == exported or engine == "onnx":
        return exported, open_onnx(exported, path)
    if engine == "auto" and exported.is_file() and on_cpu(device):
        try:
            return exported, open_onnx(exported, path)
        except RunError as error:
            print(f"Left out: {error}", file=sys.stderr)
    return path, open_torch(path, device, amp)


def open_onnx(exported: Path, weights: Path) -> Engine:
    """An ONNX file run by ONNX Runtime, if it was made from these weights or they are not here. Raises RunError."""
    try:
        from cloth_segmentation.onnx_engine import OnnxEngine
    except ImportError as error:
        raise RunError(
            f"{exported}: expected ONNX Runtime, found none that can be loaded ({error}); pip install onnxruntime"
        ) from error

    engine = OnnxEngine(exported)
    if engine.info.classes != CLASSES:
        raise RunError(f"{exported}: expected the classes {', '.join(CLASSES)}, found {', '.join(engine.info.classes)}")
    if weights != exported and weights.is_file() and engine.source != sha256(weights):
        raise RunError(
            f"{exported}: expected to be made from {weights}, found it made from other weights; "
            f"python export.py --checkpoint {weights} makes it anew"
        )
    return engine


def open_torch(path: Path, device: str, amp: str) -> Engine:
    """Weights run by PyTorch. Raises RunError."""
    import torch

    from networks import fold_batch_norm
    from utils.torch_engine import TorchEngine

    where = pick_device(device, local_rank())
    if where.type == "cpu" and cpu_threads():
        torch.set_num_threads(cpu_threads())
    network, info = load(path)
    fold_batch_norm(network)
    return TorchEngine(network, info, where, amp)


def best_weights(folder: Path, device: str = "auto", engine: str = "auto", amp: str = "off") -> tuple[Path, Engine]:
    """The weights of a folder that promise the best masks, and what runs them.

    The full network comes before the small one; then the higher validation IoU on record counts, then the newer file.
    """
    found = []
    for path in sorted(folder.glob("*.pth")):
        try:
            entry = open_weights(path, device, engine, amp)
        except RunError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        info = entry[1].info
        rank = (-PREFERRED.index(info.arch), info.mean_iou_clothes or 0.0, path.stat().st_mtime)
        found.append((rank, entry))
    if not found:
        raise RunError(
            f"{folder}: expected weights (*.pth), found none; fetch the released ones by "
            "python setup_model_weights.py --released, or name your own by --checkpoint"
        )
    return max(found, key=lambda entry: entry[0])[1]
