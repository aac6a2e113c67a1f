"""Draw a coloured clothes mask for every photo of a folder.

python infer.py
python infer.py --input holiday/ --output masks/ --device cuda --batch_size 8
torchrun --nproc_per_node=4 infer.py --input holiday/
"""

import os
import sys
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data import DataError
from data.classes import CLASSES, PALETTE
from data.photos import Size, load_photo, load_reduced, squash_photo
from options import InferOptions, SegmentOptions, describe, parse
from utils import RunError
from utils.devices import check_precision, cpu_threads, on_cpu, pick_device
from utils.files import sha256
from utils.logits import label_map
from utils.pipeline import ahead, in_batches
from utils.script import blame, run_script
from utils.visuals import save_mask, save_overlay
from utils.weights_info import ONNX_SIDES, WeightsInfo

# PyTorch takes seconds and half a gigabyte to import, and ONNX Runtime does without it. So what needs PyTorch is
# imported where it is needed, here and in the modules above.
if TYPE_CHECKING:
    from torch import nn

    from utils.distributed import Processes

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


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """Photos in, label maps out, at the photos' own size. Make one with ``Segmenter.load``."""

    engine: Engine
    path: Path  # of the weights
    size: Size | None  # (width, height) at which the network sees photos; None: their own
    flip: bool = False  # average with the mirrored photo
    min_area: float = 0.0  # share of the photo under which a region of clothes takes the class around it

    @classmethod
    def load(
        cls,
        checkpoint: Path | None = None,
        *,
        device: str = "auto",
        engine: str = "auto",
        amp: str = "off",
        size: Size | str = "auto",
        flip: bool = False,
        min_area: float = 0.0,
    ) -> "Segmenter":
        """Read weights.

        Args:
            checkpoint: weights file, .pth or .onnx; None: the best one in trained_checkpoint/.
            device: auto, cpu, cuda, cuda:N or mps.
            engine: torch, onnx, or auto: ONNX Runtime on a CPU if export.py has been run, else PyTorch.
            amp: off, bf16 or fp16: precision of PyTorch.
            size: (width, height) at which the network sees a photo, "auto" for what the weights file says, or
                "native".
            flip: average the logits with those of the mirrored photo.
            min_area: give regions of clothes under this share of the photo the class around them, 0 to below 1.

        Raises:
            RunError: there are no such weights, or no such device.
        """
        check_device(device, amp)
        fits = isinstance(size, str) or not (size[0] % ONNX_SIDES or size[1] % ONNX_SIDES)
        if engine == "auto" and (amp != "off" or size == "native" or not fits):
            engine = "torch"  # which takes any size and knows other precisions
        if checkpoint is None:
            path, runner = best_weights(TRAINED, device, engine, amp)
        else:
            path, runner = open_weights(checkpoint, device, engine, amp)
        seen = {"auto": runner.info.size, "native": None}[size] if isinstance(size, str) else size
        return cls(engine=runner, path=path, size=seen, flip=flip, min_area=min_area)

    @classmethod
    def from_options(cls, opt: SegmentOptions) -> "Segmenter":
        """As the options of a script say."""
        return cls.load(
            Path(opt.checkpoint) if opt.checkpoint else None,
            device=opt.device,
            engine=opt.engine,
            amp=opt.amp,
            size=opt.network_size,
            flip=opt.flip,
            min_area=opt.min_area,
        )

    def __call__(self, photos: Sequence[Image.Image]) -> list[NDArray[np.uint8]]:
        """RGB photos -> label maps (H, W) uint8, each of its photo's size."""
        logits = self.logits([np.asarray(squash_photo(photo, self.size)) for photo in photos])
        return [self.labels(own, photo.size) for own, photo in zip(logits, photos, strict=True)]

    def read(self, path: Path) -> tuple[NDArray[np.uint8], Size]:
        """(what the network sees of a photo (H, W, 3), the photo's own size). Errors are those of ``load_photo``."""
        enough = None if self.size is None else (ENOUGH * self.size[0], ENOUGH * self.size[1])
        photo, own = load_reduced(path, enough)
        return np.asarray(squash_photo(photo, self.size)), own

    def logits(self, squares: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What the network sees of N photos, each (H, W, 3) -> logits (N, C, H, W)."""
        batch = np.stack(squares)
        logits = self.engine(batch)
        if self.flip:
            mirrored = self.engine(np.ascontiguousarray(batch[:, :, ::-1]))
            logits = (logits + mirrored[..., ::-1]) * np.float32(0.5)
        return logits

    def labels(self, logits: NDArray[np.float32], size: Size) -> NDArray[np.uint8]:
        """Logits (C, h, w) of a photo -> its label map (H, W), at its own ``size``.

        The logits, not the labels, are brought to that size, which keeps edges smooth.
        """
        labels = label_map(logits, size)
        if not self.min_area:
            return labels
        from utils.regions import absorb_small  # scipy takes longer to import than all else that is needed

        return absorb_small(labels, self.min_area)

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
        from utils.onnx_engine import OnnxEngine
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


def list_files(source: Path, output: Path) -> list[Path]:
    """Files to segment: all in a folder but hidden ones and what lies in the output folder.

    Raises:
        RunError: there are none, or masks would overwrite photos.
    """
    if source.is_file():
        files, folder = [source], source.parent
    elif source.is_dir():
        files = [path for path in visible_files(source) if output.resolve() not in path.resolve().parents]
        folder = source
    else:
        raise RunError(f"--input {source}: expected a folder of photos or one photo, found nothing of that name")
    if folder.resolve() == output.resolve():
        raise RunError(f"--output {output}: expected another folder than that of the photos, which masks would replace")
    if not files:
        raise RunError(f"--input {source}: expected photos, found an empty folder")
    return files


def visible_files(folder: Path) -> list[Path]:
    """All files of a folder and its sub-folders but hidden ones, in order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def mask_paths(files: Sequence[Path], source: Path, output: Path) -> list[Path]:
    """Where the mask of each file goes: the same sub-folder and name, ending in .png.

    Files that differ in their ending only, a.jpg and a.webp, keep it: a.jpg.png and a.webp.png.
    """
    folder = source if source.is_dir() else source.parent
    whole = [output / path.relative_to(folder).with_name(path.name + ".png") for path in files]
    masks = [output / path.relative_to(folder).with_suffix(".png") for path in files]
    while True:
        # Some file systems take A.png and a.png for one.
        count = Counter(str(mask).lower() for mask in masks)
        meet = [number for number, mask in enumerate(masks) if count[str(mask).lower()] > 1 and mask != whole[number]]
        if not meet:
            return masks
        for number in meet:
            masks[number] = whole[number]


class Job(NamedTuple):
    """A photo, and where its mask goes."""

    photo: Path
    mask: Path


def list_jobs(opt: InferOptions) -> list[Job]:
    """What there is to do. Makes the output folder. Raises RunError."""
    source, output = Path(opt.input), Path(opt.output)
    files = list_files(source, output)
    with blame(f"--output {output}: expected a folder that can be written", OSError):
        output.mkdir(parents=True, exist_ok=True)
    return [Job(*paths) for paths in zip(files, mask_paths(files, source, output), strict=True)]


def write(segment: Segmenter, job: Job, logits: NDArray[np.float32], size: Size, outputs: Sequence[str]) -> None:
    """Write what was asked for of one photo."""
    labels = segment.labels(logits, size)
    if "mask" in outputs:
        save_mask(labels, job.mask, PALETTE)
    if "overlay" in outputs:
        # Read again rather than kept since: photos that wait for the network would fill the memory.
        save_overlay(load_photo(job.photo), labels, job.mask.with_name(f"{job.mask.stem}_overlay.jpg"), PALETTE)


def segment_photos(segment: Segmenter, jobs: Sequence[Job], opt: InferOptions, progress: "tqdm[NoReturn]") -> int:
    """Read, segment and write, all at once; returns the number of files that are no photos.

    Few photos are on their way at any time, so memory does not grow with their number.
    """
    failed = 0
    with ThreadPoolExecutor(opt.workers) as readers, ThreadPoolExecutor(opt.workers) as writers:
        writing: deque[Future[None]] = deque()
        reading = ahead(readers, lambda job: segment.read(job.photo), jobs, opt.workers + opt.batch_size)
        for batch in in_batches(reading, opt.batch_size):
            good = []
            for job, read in batch:
                try:
                    good.append((job, *read.result()))
                except (DataError, OSError) as error:
                    reason = error if isinstance(error, DataError) else f"{job.photo}: {error.strerror}"
                    progress.write(f"Skipped: {reason}", file=sys.stderr)
                    failed += 1
                    progress.update()
            if not good:
                continue
            for (job, _, size), logits in zip(good, segment.logits([square for _, square, _ in good]), strict=True):
                writing.append(writers.submit(write, segment, job, logits, size, opt.outputs))
            while len(writing) > opt.workers:
                writing.popleft().result()
                progress.update()
        for future in writing:
            future.result()
            progress.update()
    return failed


def join(device: str) -> "Processes | None":
    """The processes that share the folder; None where no launcher started several."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return None
    from utils.distributed import Processes

    return Processes.start(device, train=False)


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(InferOptions, argv)
    processes = join(opt.device)
    rank, world_size = (processes.rank, processes.world_size) if processes else (0, 1)
    # One process lists the folder for all: its content may change.
    jobs = processes.on_main(lambda: list_jobs(opt)) if processes else list_jobs(opt)
    share = jobs[rank::world_size]
    segment = Segmenter.from_options(opt)
    if rank == 0:
        print(describe(opt))
        print(segment.describe())

    with tqdm(total=len(share), unit="photo", dynamic_ncols=True, disable=rank > 0) as progress:
        failed = segment_photos(segment, share, opt, progress)
    if processes:
        failed = sum(processes.gather(failed))
        processes.stop()
    if rank == 0:
        written = " and ".join(f"{name}s" for name in opt.outputs)
        print(f"{len(jobs) - failed} {written} in {opt.output}" + (f", {failed} files skipped" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main, RunError, DataError)
