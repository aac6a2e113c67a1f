"""Photos in, label maps and all that is made of them out. The one way to segment: every script stands on it."""

import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.errors import DataError, DeviceError, RunError
from cloth_segmentation.files import known_kind, sha256
from cloth_segmentation.logits import label_map, summed
from cloth_segmentation.photos import Photo, Size, Stamp, file_stamp, from_memory, is_address, read_photo, squash_photo
from cloth_segmentation.resources import out_of_memory
from cloth_segmentation.segmentation import Segmentation
from cloth_segmentation.weights_info import ONNX_SIDES, WeightsInfo

log = logging.getLogger(__name__)  # what it is told reaches the terminal unless a program takes it

ENGINES = ("auto", "torch", "onnx")
"""What can run a network."""

PRECISIONS = ("off", "bf16", "fp16")
"""Of PyTorch; off: float32."""

SIDES = 32, 2**15
"""Shortest and longest side at which the network can see a photo, pixels."""

TRAINED = "trained_checkpoint"
"""Folder where weights are looked for unless a file is named."""

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
        """The facts that its weights file records."""

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the weights file when it was read; None: it came from no file."""

    def __call__(self, photos: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """RGB photos (N, H, W, 3) -> logits (N, C, H, W)."""


PhotoLike = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[np.uint8]
"""What can be segmented:

- the path of a file; addresses (https://...) are refused, never fetched;
- the bytes of a file, or a file opened in binary mode, which is read to its end;
- a Pillow picture, as it is: ``ImageOps.exif_transpose`` turns it as EXIF says;
- an array (H, W, 3) in RGB, (H, W, 4) with transparency, or (H, W) in grey, uint8, 0 to 255. OpenCV's arrays are BGR:
  ``array[..., ::-1]`` turns them.
"""

PHOTO_ERRORS = (DataError, OSError, MemoryError)
"""Errors that concern one photo; others can still be segmented."""


class Seen(NamedTuple):
    """A photo, squashed to the size at which the network sees it."""

    source: Path | bytes | Photo  # where the whole photo is, its file's content, or the photo itself
    stamp: Stamp | None  # of the file
    square: NDArray[np.uint8]  # (h, w, 3)
    size: Size  # the photo's own
    transparent: NDArray[np.bool_] | None  # (H, W), where the photo is; None: nowhere
    notes: tuple[str, ...]  # what is odd about the photo: "expected ..., found ..."


@dataclass(frozen=True)
class EngineFromElsewhere:
    """Stands for the engine of a pickled Segmenter. It opens the weights again when it first runs."""

    kind: "type[Segmenter]"
    path: Path
    device: str
    amp: str
    sha256: str
    name: str
    info: WeightsInfo

    def __call__(self, photos: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """RGB photos (N, H, W, 3) -> logits (N, C, H, W). Raises RunError."""
        with _opening:  # one thread opens, the others wait
            engine = _open_again(self)
        return engine(photos)


_opening = Lock()


def _renew_lock() -> None:
    """In a forked process, whose other threads, one of which may hold the lock, did not come along."""
    global _opening
    _opening = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@lru_cache(maxsize=8)
def _open_again(engine: EngineFromElsewhere) -> Engine:
    """The engine for pickled weights. Segmenters with the same weights and device share one."""
    if not engine.path.is_file() or sha256(engine.path) != engine.sha256:
        raise RunError(f"{engine.path}: expected the weights that the Segmenter was made with, found others or none")
    by = "onnx" if engine.path.suffix.lower() == ".onnx" else "torch"
    return engine.kind.open(engine.path, engine.device, by, engine.amp)[1]


Kind = TypeVar("Kind", bound="Segmenter")


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """Photos in, segmentations out. Make one with ``Segmenter.load``.

    Threads may share one. It can be pickled, and so sent to another process, which opens the weights file again when it
    segments its first photo.
    """

    has_pytorch: ClassVar[bool] = False
    """Whether ``load`` takes engine="torch"."""

    engine: Engine
    path: Path  # of the weights
    coarser: bool = False  # tell apart the coarser classes in which those of the weights lie
    size: Size | None  # (width, height) at which the network sees photos; None: their own
    device: str = "cpu"
    amp: str = "off"
    opened: Path | None = None  # the path as it was opened, absolute; None: it was not, and cannot be pickled
    flip: bool = False  # average with the mirrored photo
    consistent: bool = False  # give one class to a garment that is torn between upper and full body
    min_area: float = 0.0  # share of the photo under which a region of clothes takes the class around it

    @classmethod
    def load(
        cls: type[Kind],
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        engine: str = "auto",
        amp: str = "off",
        classes: str = "",
        size: int | Size | str = "auto",
        flip: bool = False,
        consistent: bool = True,
        min_area: float = 0.0,
    ) -> Kind:
        """Read weights.

        Args:
            checkpoint: weights file; an ONNX file beside it, of the same name, may be used instead. None: the best one
                in trained_checkpoint/ of the working folder, else in that of the clone, else the one that is included.
            device: auto (the CPU, unless PyTorch finds a GPU), cpu, cuda, cuda:N, coreml, directml, or the name of
                another execution provider of ONNX Runtime; mps is for PyTorch.
            engine: onnx, torch, or auto. PyTorch needs the Segmenter of ``infer``, in a clone of the project: there,
                auto is ONNX Runtime on a CPU if export.py has been run, else PyTorch.
            amp: off, bf16 or fp16: precision of PyTorch.
            classes: name of the class set to tell apart: that of the weights, or the coarser one in which it lies,
                whose probabilities are then sums; "" for that of the weights. Without ``checkpoint``, weights that tell
                it apart are looked for ("": clothes).
            size: (width, height) at which the network sees a photo, or one number for both; multiples of 32, unless
                PyTorch runs the network. "auto" is what the weights file says, "native" (PyTorch) the photo's own.
            flip: average the logits with those of the mirrored photo.
            consistent: where a garment, a connected region, is torn between upper and full body and one of them has
                less than three tenths of it, the other one takes it all.
            min_area: give regions of clothes under this share of the photo the class around them, 0 to below 1.

        Raises:
            RunError: there are no such weights.
            DeviceError: there is no such device, no engine for it, or an environment variable about them is wrong.
            ValueError: an argument has none of these values.
        """
        check_arguments(device, engine, amp, classes, flip, consistent, min_area)
        size = checked_size(size)
        if engine == "auto" and needs_pytorch("auto", amp, size):
            engine = "torch"  # which takes any size and knows other precisions
        if engine == "torch" and not cls.has_pytorch:
            raise DeviceError(
                f"expected PyTorch for {needs_pytorch(engine, amp, size)}, found the library alone; a clone of the "
                "project has PyTorch as an engine: python infer.py, or from infer import Segmenter"
            )
        opening = device, engine, amp
        if checkpoint is None:
            path, runner = cls.best(*opening, classes)
        else:
            check_named(checkpoint)
            path, runner = cls.open(Path(checkpoint), *opening)
        seen = {"auto": runner.info.size, "native": None}[size] if isinstance(size, str) else size
        return cls(
            engine=runner,
            path=path,
            coarser=asks_for_coarser(classes, runner.info.classes, path),
            opened=path.absolute(),
            size=seen,
            device=device,
            amp=amp,
            flip=flip,
            consistent=consistent,
            min_area=min_area,
        )

    @classmethod
    def open(cls, path: Path, device: str, engine: str, amp: str) -> tuple[Path, Engine]:
        """The file to use for a weights file, and what runs it. Arguments and errors are those of ``load``."""
        exported = onnx_path(path)
        if path != exported and not path.exists() and not exported.exists():
            raise RunError(f"{path}: expected a weights file, found none of that name")
        if path != exported and path.is_file() and not exported.is_file():
            with path.open("rb") as file:
                found = known_kind(file.read(512))
            raise RunError(
                f"{path}: expected an ONNX file, found "
                + (
                    found
                    or f"weights of another format; in a clone of the project, python export.py --checkpoint {path} "
                    "makes one, and infer.py runs them as they are"
                )
            )
        return exported, open_onnx(exported, path, device)

    @classmethod
    def best(cls, device: str, engine: str, amp: str, classes: str = "") -> tuple[Path, Engine]:
        """The best weights for a class set of the first folder that has any, as ``open`` gives them."""
        here = Path(__file__).parent
        clone = [here.parent / TRAINED] if (here.parent / "infer.py").is_file() else []
        # Each once, since Python may run in the clone.
        places = {folder.resolve(): folder for folder in (here / "weights", *clone, Path(TRAINED))}
        for folder in reversed(places.values()):
            if found := cls.best_of(folder, device, engine, amp, classes):
                return found
        raise RunError(
            f"expected weights{f' for {classes}' * bool(classes)} in {', '.join(map(str, reversed(places.values())))}, "
            "found none that can be used; name yours by --checkpoint, or, in a clone, fetch the "
            "released ones by python setup_model_weights.py --released"
        )

    @classmethod
    def best_of(cls, folder: Path, device: str, engine: str, amp: str, classes: str = "") -> tuple[Path, Engine] | None:
        """The weights of a folder that promise the best masks, as ``open`` gives them; None: it has none.

        The full network comes before the small one; then the higher validation IoU on record counts, then the newer
        file. Files in 8 bits are only used if they are named.
        """
        found = []
        endings = (".pth",) if engine == "torch" else (".onnx", ".pth")  # of two that differ in it, the last one
        names = {path.with_suffix(""): path for ending in endings for path in folder.glob("*" + ending)}
        for path in sorted(names.values()):
            try:
                used, engine_of_it = cls.open(path, device, engine, amp)
            except DeviceError:
                raise  # all files would meet it
            except RunError as error:
                log.warning("Left out: %s", error)
                continue
            if getattr(engine_of_it, "eight_bit", False):
                continue
            info = engine_of_it.info
            if not tells_apart(info.classes, classes):
                log.warning("Left out: %s: it has other classes; name it by --checkpoint to use it", used)
                continue
            rank = (info.arch != "u2netp", info.mean_iou_clothes or 0.0, path.stat().st_mtime)
            found.append((rank, (used, engine_of_it)))
        return max(found, key=lambda entry: entry[0])[1] if found else None

    def __getstate__(self) -> dict[str, Any]:
        if self.opened is None or self.engine.sha256 is None:
            raise TypeError("expected a Segmenter that Segmenter.load made, found another, which cannot be pickled")
        opening = type(self), self.opened, self.device, self.amp, self.engine.sha256
        return vars(self) | {"engine": EngineFromElsewhere(*opening, name=self.engine.name, info=self.engine.info)}

    @overload
    def __call__(self, photos: PhotoLike, /) -> Segmentation: ...  # type: ignore[overload-overlap]  # of str

    @overload
    def __call__(self, photos: Sequence[PhotoLike], /, *, batch_size: int = 1) -> list[Segmentation]: ...

    def __call__(
        self, photos: PhotoLike | Sequence[PhotoLike], /, *, batch_size: int = 1
    ) -> Segmentation | list[Segmentation]:
        """Segment a photo, or a list of them.

        Args:
            photos: one photo, or a list of them. A photo is the path of a file, its bytes, a file opened in binary
                mode, a Pillow picture, or an array: (H, W, 3) in RGB, (H, W, 4) in RGBA or (H, W) in grey, uint8. EXIF
                turns photos from files; pictures and arrays are taken as they are.
            batch_size: photos that go through the network at once.

        Raises:
            DataError: a photo cannot be read, or is no photo.
            OSError: a file cannot be opened.
            RunError: the weights give no finite logits.
            MemoryError: the memory is too small for the photo, or for the size at which the network sees it.
            TypeError: something is no photo.
            ValueError: batch_size is no whole number of at least 1.
        """
        if type(batch_size) is not int or batch_size < 1:
            raise ValueError(f"batch_size: expected a whole number of at least 1, found {batch_size!r}")
        if not isinstance(photos, Sequence) or isinstance(photos, str | bytes | bytearray | memoryview):
            return self([photos], batch_size=batch_size)[0]
        together = batch_size if self.size else 1  # at their own sizes, photos cannot share a batch
        done: list[Segmentation] = []
        for start in range(0, len(photos), together):
            seen = [self.see(photo) for photo in photos[start : start + together]]
            done += map(self.segmentation, seen, self.logits([each.square for each in seen]))
        return done

    # The three steps of __call__, for callers that overlap them.

    def see(self, photo: PhotoLike) -> Seen:
        """Read a photo and squash it to the size at which the network sees it.

        Raises:
            DataError: it cannot be read, or is no photo.
            OSError: it cannot be opened.
            MemoryError: there is too little for it.
        """
        source = _source(photo)
        enough = None if self.size is None else (ENOUGH * self.size[0], ENOUGH * self.size[1])
        stamp = file_stamp(source) if isinstance(source, Path) else None  # before it is read: no gap is left
        read = source if isinstance(source, Photo) else read_photo(source, enough)
        square = np.asarray(squash_photo(read.picture, self.size))
        notes = read.notes
        if (square == square[0, 0]).all():
            notes += ("expected a photo, found a picture of one colour, in which there is nothing to see",)
        transparent = None if read.alpha is None else np.asarray(read.alpha) == 0
        return Seen(source, stamp, square, read.size, transparent, notes)

    def logits(self, squares: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Run the network on N squashed photos, each (H, W, 3) uint8 -> logits of ``classes`` (N, C, H, W).

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
        return summed(logits, self.info.classes.within, len(self.classes)) if self.coarser else logits

    def segmentation(self, seen: Seen, logits: NDArray[np.float32]) -> Segmentation:
        """A photo, and its logits (C, h, w) -> what it shows.

        The logits, not the labels, are brought to the photo's size, which keeps edges smooth.
        """
        # scipy takes longer to import than all else that a mask needs, so it is left out where it can be.
        torn = self.classes.torn
        if self.consistent and torn and np.isin(torn, logits.argmax(0)).all():
            from cloth_segmentation.regions import join_torn

            logits = join_torn(logits, torn)
        labels = label_map(logits, seen.size)
        if seen.transparent is not None:
            labels[seen.transparent] = 0
        if self.min_area:
            from cloth_segmentation.regions import absorb_small

            labels = absorb_small(labels, self.min_area)
        return Segmentation(
            labels=labels,
            class_set=self.classes,
            classes=self.classes.clothes,
            segmenter=self,
            source=seen.source,
            stamp=seen.stamp,
            notes=seen.notes,
            logits=logits,
        )

    def weights(self) -> dict[str, Any]:
        """The weights file, its sum and its figures, as ``to_dict`` reports them."""
        return {
            "file": self.path.name,
            "sha256": self.engine.sha256,
            "arch": self.info.arch,
            "seen_at": None if self.size is None else list(self.size),
            "validation_iou": self.info.mean_iou_clothes,
        }

    @property
    def classes(self) -> ClassSet:
        """What it tells apart."""
        own = self.info.classes
        return own.coarser if self.coarser and own.coarser else own

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


def tells_apart(classes: ClassSet, name: str) -> bool:
    """Whether weights for a class set can tell apart that of a name; "": the four classes of clothes."""
    return name in _names(classes) if name else classes == CLOTHES


def _names(classes: ClassSet) -> list[str]:
    """Names of a class set and of the coarser one in which it lies, if they have any."""
    return [each.name for each in (classes, classes.coarser) if each and each.name]


def asks_for_coarser(name: str, classes: ClassSet, path: Path) -> bool:
    """Whether a name is that of the coarser set in which the classes of weights lie; False: it is their own, or "".

    Raises:
        RunError: it is neither.
    """
    if name in ("", classes.name):
        return False
    if classes.coarser and name == classes.coarser.name:
        return True
    known = " or ".join(_names(classes)) or "classes of no name"
    raise RunError(
        f"--classes {name}: expected a class set that {path} tells apart ({known}), found another; leave it out to use "
        "the weights' own"
    )


def _source(photo: PhotoLike) -> Path | bytes | Photo:
    """Where a photo is, its file's content, or the photo itself. Errors are those of ``Segmenter.__call__``."""
    if isinstance(photo, str | os.PathLike):
        if is_address(photo):
            raise DataError(f"{photo}: expected a file, found an address, which is never fetched; download it first")
        if not os.fspath(photo):
            raise DataError("expected the path of a photo, found an empty text")
        return Path(photo)
    if isinstance(photo, Image.Image | np.ndarray):
        return from_memory(photo)
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    is_text = isinstance(photo, io.TextIOBase)
    content = photo.read() if hasattr(photo, "read") and not is_text else None
    if content == b"":
        raise DataError(f"{photo!r}: expected a file to read from, found its end; photo.seek(0) goes to its beginning")
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    raise TypeError(
        "expected a photo (path, Pillow picture or array), the bytes of its file, a file opened in binary mode, or a "
        f"list of photos, found {repr(photo)[:80]}" + (", which is opened as text" if is_text else "")
    )


def check_arguments(
    device: str, engine: str, amp: str, classes: str, flip: bool, consistent: bool, min_area: float
) -> None:
    """Raise ValueError for values that the options of the command refuse too."""
    number = isinstance(min_area, int | float) and not isinstance(min_area, bool)
    for fits, expected, found in (
        (isinstance(device, str), "device: expected a text such as auto, cpu or cuda", device),
        (engine in ENGINES, f"engine: expected one of {', '.join(ENGINES)}", engine),
        (amp in PRECISIONS, f"amp: expected one of {', '.join(PRECISIONS)}", amp),
        (isinstance(classes, str), "classes: expected the name of a class set", classes),
        (isinstance(flip, bool), "flip: expected True or False", flip),
        (isinstance(consistent, bool), "consistent: expected True or False", consistent),
        (number and 0 <= min_area < 1, "min_area: expected a share of at least 0 and below 1", min_area),
    ):
        if not fits:
            raise ValueError(f"{expected}, found {found!r}")


def checked_size(size: int | Size | str) -> Size | str:
    """A size as ``load`` takes it -> (width, height), "auto" or "native". Raises ValueError for anything else."""
    if isinstance(size, str) and size in ("auto", "native"):
        return size
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or not all(type(side) is int and SIDES[0] <= side <= SIDES[1] for side in sides):
        raise ValueError(
            f"size: expected auto, native, or one or two whole numbers of {SIDES[0]} to {SIDES[1]} pixels, found "
            f"{size!r}"
        )
    return sides


def needs_pytorch(engine: str, amp: str, size: Size | str) -> str:
    """What of these only PyTorch can do, in words; "" if ONNX Runtime will do."""
    if engine == "torch":
        return "engine torch" if not (others := needs_pytorch("auto", amp, size)) else others
    if amp != "off":
        return f"amp {amp}"
    if size == "native":
        return "size native"
    if isinstance(size, tuple) and (size[0] % ONNX_SIDES or size[1] % ONNX_SIDES):
        nearest = " x ".join(str(max(1, round(side / ONNX_SIDES)) * ONNX_SIDES) for side in size)
        return f"a size of {size[0]} x {size[1]} (for multiples of {ONNX_SIDES}, such as {nearest}, none is needed)"
    return ""


def onnx_path(path: Path) -> Path:
    """The ONNX file of a weights file: itself, or the one beside it. Raises RunError if the path is a folder's."""
    if path.is_dir():
        raise RunError(f"{path}: expected a weights file, found a folder")
    return path if path.suffix.lower() == ".onnx" else path.with_suffix(".onnx")


def check_named(checkpoint: str | os.PathLike[str]) -> None:
    """Raise RunError or ValueError if this cannot name a file."""
    if not isinstance(checkpoint, str | os.PathLike) or not os.fspath(checkpoint):
        raise ValueError(f"checkpoint: expected the path of a weights file, found {checkpoint!r}")
    if is_address(checkpoint):
        raise RunError(f"{checkpoint}: expected a weights file, found an address; download it first")


def open_onnx(exported: Path, weights: Path, device: str) -> Engine:
    """An ONNX file run by ONNX Runtime, if it was made from these weights or they are not here. Raises RunError."""
    try:
        from cloth_segmentation.onnx_engine import OnnxEngine
    except ImportError as error:
        raise RunError(
            f"{exported}: expected ONNX Runtime, found none that can be loaded ({error}); pip install onnxruntime"
        ) from error

    engine = OnnxEngine(exported, device)
    if weights != exported and weights.is_file() and engine.source != sha256(weights):
        raise RunError(
            f"{exported}: expected to be made from {weights}, found it made from other weights; "
            f"python export.py --checkpoint {weights} makes it anew"
        )
    return engine
