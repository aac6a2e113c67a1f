"""Draw a coloured clothes mask for every photo of a folder.

python infer.py
python infer.py --input holiday/ --output masks/ --device cuda --batch_size 8
python infer.py --input holiday/ --output masks/ --skip_existing --report failed.csv
torchrun --nproc_per_node=4 infer.py --input holiday/
"""

import csv
import errno
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data import DataError
from data.classes import CLASSES, PALETTE
from data.photo_folder import Problem, list_photos, mask_paths
from data.photos import Photo, Size, load_photo, read_photo, squash_photo
from options import InferOptions, SegmentOptions, describe, parse
from utils import RunError
from utils.devices import check_precision, cpu_threads, on_cpu, pick_device
from utils.files import atomic_path, check_folder, check_output, sha256
from utils.logits import label_map
from utils.pipeline import ahead, in_batches
from utils.script import blame, one_line, out_of_memory, run_script
from utils.signals import ignore_stops
from utils.visuals import is_whole, save_mask, save_overlay
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
        photo = self.load_photo(path)
        return np.asarray(photo.picture), photo.size

    def load_photo(self, path: Path) -> Photo:
        """A photo; its picture is what the network sees. Errors are those of ``data.photos.load_photo``."""
        enough = None if self.size is None else (ENOUGH * self.size[0], ENOUGH * self.size[1])
        photo = read_photo(path, enough)
        return photo._replace(picture=squash_photo(photo.picture, self.size))

    def logits(self, squares: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What the network sees of N photos, each (H, W, 3) -> logits (N, C, H, W).

        Raises:
            RunError: they are not finite.
        """
        batch = np.stack(squares)
        logits = self.engine(batch)
        if self.flip:
            mirrored = self.engine(np.ascontiguousarray(batch[:, :, ::-1]))
            logits = (logits + mirrored[..., ::-1]) * np.float32(0.5)
        if not np.isfinite(logits).all():
            found = "NaN" if np.isnan(logits).any() else "infinity"
            raise RunError(
                f"{self.path}: expected finite logits, found {found}; the weights are damaged, or too large for "
                "--amp fp16"
            )
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


class Job(NamedTuple):
    """A photo, and where its mask goes."""

    photo: Path
    mask: Path

    def output(self, name: str) -> Path:
        """Where one of ``options.OUTPUTS`` goes."""
        return self.mask if name == "mask" else self.mask.with_name(f"{self.mask.stem}_{name}.jpg")


class Work(NamedTuple):
    """What there is to do."""

    jobs: list[Job]
    done: int  # number of photos whose outputs are there already
    problems: list[Problem]  # what is no photo at first sight


def list_work(opt: InferOptions) -> Work:
    """What there is to do. Makes the output folder.

    Raises:
        RunError: there is nothing, photos would be overwritten, or nothing can be written.
    """
    source, output = Path(opt.input), Path(opt.output)
    if not os.path.lexists(source):
        raise RunError(f"--input {source}: expected a folder of photos or one photo, found nothing of that name")
    folder = source if source.is_dir() else source.parent
    if folder.resolve() == output.resolve():
        raise RunError(f"--output {output}: expected another folder than that of the photos, which masks would replace")
    if source.resolve() in output.resolve().parents:
        print(f"{output}: left out of the photos, since masks go there")
    files, problems = list_photos(source, output)
    if not files and not problems:
        raise RunError(f"--input {source}: expected photos, found an empty folder")
    with blame(f"--output {output}: expected a folder that can be written", OSError):
        check_folder(output)
    if opt.report:
        with blame(f"--report {opt.report}: expected a file that can be written", OSError):
            check_output(Path(opt.report), REPORT_HEADER.encode())

    # Names depend on all photos of the folder, not on which are left to do.
    jobs = [Job(*paths) for paths in zip(files, mask_paths(files, folder, output), strict=True)]
    if output.resolve() in folder.resolve().parents:
        check_photos_stay(jobs, folder, output, opt.outputs)
    left = [job for job in jobs if not (opt.skip_existing and is_done(job, opt.outputs))]
    return Work(left, len(jobs) - len(left), problems)


def check_photos_stay(jobs: Sequence[Job], folder: Path, output: Path, outputs: Sequence[str]) -> None:
    """Raise RunError if an output would replace a photo, which only a folder above that of the photos can lead to."""
    photos = {folder.resolve() / job.photo.relative_to(folder) for job in jobs}
    for job in jobs:
        for path in (job.output(name) for name in outputs):
            if output.resolve() / path.relative_to(output) in photos:
                raise RunError(f"--output {output}: expected a folder where masks replace no photos, found {path}")


def is_done(job: Job, outputs: Sequence[str]) -> bool:
    """Whether all outputs of a photo are there. They are whole then: they get their names last."""
    return all(is_whole(job.output(name)) for name in outputs)


PHOTO_ERRORS = (DataError, OSError, MemoryError)
"""What a photo may meet without harm to the others."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
"""What all photos meet that are written later: a disk that is full, locked, broken or gone."""


def reason(photo: Path, error: Exception) -> str:
    """What is wrong with a photo, in one line without its name."""
    if isinstance(error, MemoryError):
        return "expected enough memory for this photo, found too little"
    if isinstance(error, OSError):
        return f"expected a photo, found none that can be opened ({error.strerror})"
    return one_line(str(error).removeprefix(f"{photo}: "))


def failure(problem: Problem) -> str:
    """How a problem is told."""
    return f"Failed: {one_line(str(problem.photo))}: {problem.reason}"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Tell an output that cannot be written (DataError) from a disk that nothing can be written to (RunError)."""
    try:
        yield path
    except OSError as error:
        found = error.strerror or error  # the system's words, or Pillow's
        if error.errno in DISK_ERRORS:
            raise RunError(
                f"{path}: expected a disk that can be written, found one that cannot be ({found}); once it can, the "
                "same command with --skip_existing goes on from here"
            ) from error
        raise DataError(f"expected to write {path}, found that it cannot be written ({found})") from error


def write(segment: Segmenter, job: Job, logits: NDArray[np.float32], size: Size, outputs: Sequence[str]) -> None:
    """Write what was asked for of one photo. Raises one of ``PHOTO_ERRORS``, or RunError: no more can be written."""
    labels = segment.labels(logits, size)
    if "mask" in outputs:
        with writing(job.output("mask")) as path:
            save_mask(labels, path, PALETTE)
    if "overlay" in outputs:
        # Read again rather than kept since: photos that wait for the network would fill the memory.
        photo = load_photo(job.photo)
        if photo.size != size:
            raise DataError(f"expected the photo of {size[0]} x {size[1]} pixels that was there, found another one")
        with writing(job.output("overlay")) as path:
            save_overlay(photo, labels, path, PALETTE)


def segment_photos(
    segment: Segmenter, jobs: Sequence[Job], opt: InferOptions, progress: "tqdm[NoReturn]", problems: list[Problem]
) -> None:
    """Read, segment and write, all at once; photos that fail are told, and added to ``problems``.

    Few photos are on their way at any time, so memory does not grow with their number. Where the run ends early, what
    is being written is finished, and nothing more begun.
    """

    def fail(photo: Path, error: Exception) -> None:
        problems.append(Problem(photo, reason(photo, error)))
        progress.write(failure(problems[-1]), file=sys.stderr)

    def write_one(job: Job, logits: NDArray[np.float32], size: Size) -> None:
        try:
            write(segment, job, logits, size, opt.outputs)
        except PHOTO_ERRORS as error:
            fail(job.photo, error)

    readers, writers = ThreadPoolExecutor(opt.workers), ThreadPoolExecutor(opt.workers)
    try:
        pending: deque[Future[None]] = deque()
        reading = ahead(readers, lambda job: segment.load_photo(job.photo), jobs, opt.workers + opt.batch_size)
        for batch in in_batches(reading, opt.batch_size):
            good = []
            for job, read in batch:
                try:
                    good.append((job, read.result()))
                except PHOTO_ERRORS as error:
                    fail(job.photo, error)
                    progress.update()
            for job, photo in good:
                if photo.frames > 1:
                    note = f"expected one picture, found {photo.frames} frames; the mask is that of the first"
                    progress.write(one_line(f"{job.photo}: {note}"), file=sys.stderr)
            if not good:
                continue
            squares = [np.asarray(photo.picture) for _, photo in good]
            try:
                all_logits = segment.logits(squares)
            except (MemoryError, RuntimeError) as error:
                # Photos that the network sees at one size would all meet it.
                if segment.size is not None or not out_of_memory(error):
                    raise
                for job, _ in good:
                    fail(job.photo, MemoryError())
                    progress.update()
                continue
            for (job, photo), logits in zip(good, all_logits, strict=True):
                pending.append(writers.submit(write_one, job, logits, photo.size))
            while len(pending) > opt.workers:
                pending.popleft().result()
                progress.update()
        for future in pending:
            future.result()
            progress.update()
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown(cancel_futures=True)


REPORT_HEADER = "photo,problem"


def write_report(path: Path, problems: Sequence[Problem]) -> None:
    """Write what failed, and why, as CSV, in order of the names, which keep their bytes whatever they are."""
    with (
        atomic_path(path) as part,
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(REPORT_HEADER.split(","))
        writer.writerows(sorted(problems))


def join(device: str) -> "Processes | None":
    """The processes that share the folder; None where no launcher started several."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return None
    from utils.distributed import Processes

    return Processes.start(device, train=False)


def gather_and_report(opt: InferOptions, processes: "Processes | None", problems: list[Problem]) -> list[Problem]:
    """The problems of all processes, which rank 0 writes as a report if one is asked for. Raises RunError."""
    lost: RunError | None = None
    if processes:
        # The launcher ends all processes once one has left, and passes on the Ctrl-C that they have had already.
        ignore_stops()
        try:
            with processes.others_expected():
                problems = [problem for share in processes.gather(problems) for problem in share]
        except RunError as error:
            lost = error  # this process's own are reported nevertheless
    if opt.report and (not processes or processes.is_main):
        with blame(f"--report {opt.report}: expected a file that can be written", OSError):
            write_report(Path(opt.report), problems)
    if lost:
        raise lost
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(InferOptions, argv)
    processes = join(opt.device)
    rank, world_size = (processes.rank, processes.world_size) if processes else (0, 1)
    # One process lists the folder for all: its content may change.
    work = processes.on_main(lambda: list_work(opt)) if processes else list_work(opt)
    share = work.jobs[rank::world_size]
    segment = Segmenter.from_options(opt) if share else None
    problems = list(work.problems) if rank == 0 else []
    if rank == 0:
        print(describe(opt))
        for problem in problems:
            print(failure(problem), file=sys.stderr)
    try:
        if segment:
            if rank == 0:
                print(segment.describe())
            with tqdm(total=len(share), unit="photo", dynamic_ncols=True, disable=rank > 0) as progress:
                segment_photos(segment, share, opt, progress, problems)
    except BaseException:
        try:
            gather_and_report(opt, processes, problems)
        except RunError as error:
            print(one_line(str(error)), file=sys.stderr)  # beside what ends the run
        raise
    problems = gather_and_report(opt, processes, problems)
    if processes:
        processes.stop()
    if rank == 0:
        written = len(work.jobs) - (len(problems) - len(work.problems))
        print(
            f"{written} {' and '.join(f'{name}s' for name in opt.outputs)} in {opt.output}"
            + (f", {work.done} photos done before" if opt.skip_existing else "")
            + (f", {len(problems)} failed" if problems else "")
        )
    return 1 if problems else 0


if __name__ == "__main__":
    run_script(main, RunError, DataError)
