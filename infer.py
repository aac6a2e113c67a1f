"""Draw a coloured clothes mask for every photo of a folder.

python infer.py
python infer.py --input holiday/ --output masks/ --device cuda --batch_size 8
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from tqdm import tqdm

from data import DataError
from data.classes import CLASSES, PALETTE
from data.photos import load_photo
from data.transforms import Size, photo_to_tensor
from networks import ARCHITECTURES
from options import InferOptions, SegmentOptions, describe, parse
from utils import RunError
from utils.checkpoints import WeightsInfo, load_network
from utils.devices import pick_device
from utils.regions import absorb_small
from utils.script import blame, run_script
from utils.visuals import save_mask, save_overlay

TRAINED = Path("trained_checkpoint")
"""Where weights are looked for unless a file is named."""


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """Photos in, label maps out, at the photos' own size. Make one with ``Segmenter.load``."""

    network: nn.Module
    info: WeightsInfo
    path: Path  # of the weights
    device: torch.device
    size: Size | None  # (width, height) at which the network sees photos; None: their own
    flip: bool = False  # average with the mirrored photo
    min_area: float = 0.0  # share of the photo under which a region of clothes takes the class around it

    @classmethod
    def load(
        cls,
        checkpoint: Path | None = None,
        *,
        device: str = "auto",
        size: Size | str = "auto",
        flip: bool = False,
        min_area: float = 0.0,
    ) -> "Segmenter":
        """Read weights.

        Args:
            checkpoint: weights file; None: the best one in trained_checkpoint/.
            device: auto, cpu, cuda, cuda:N or mps.
            size: (width, height) at which the network sees a photo, "auto" for what the weights file says, or
                "native".
            flip: average the logits with those of the mirrored photo.
            min_area: give regions of clothes under this share of the photo the class around them, 0 to below 1.

        Raises:
            RunError: there are no such weights, or no such device.
        """
        where = pick_device(device)
        path, network, info = best_weights(TRAINED) if checkpoint is None else (checkpoint, *load(checkpoint))
        seen = {"auto": info.size, "native": None}[size] if isinstance(size, str) else size
        network.requires_grad_(False).eval().to(where)
        return cls(network=network, info=info, path=path, device=where, size=seen, flip=flip, min_area=min_area)

    @classmethod
    def from_options(cls, opt: SegmentOptions) -> "Segmenter":
        """As the options of a script say."""
        checkpoint = Path(opt.checkpoint) if opt.checkpoint else None
        return cls.load(checkpoint, device=opt.device, size=opt.network_size, flip=opt.flip, min_area=opt.min_area)

    @torch.inference_mode()
    def __call__(self, photos: Sequence[Image.Image]) -> list[NDArray[np.uint8]]:
        """RGB photos -> label maps (H, W) uint8, each of its photo's size.

        The logits, not the labels, are brought to the photo's size, which keeps edges smooth.
        """
        tensors = [photo_to_tensor(photo, self.size, self.info.mean, self.info.std) for photo in photos]
        batch = torch.stack(tensors).to(self.device)
        logits = self.network(batch)[0]
        if self.flip:
            logits = (logits + self.network(batch.flip(-1))[0].flip(-1)) / 2
        results = []
        for photo, own in zip(photos, logits, strict=True):
            full = F.interpolate(own[None], (photo.height, photo.width), mode="bilinear", align_corners=False)
            labels = full[0].argmax(0).to(torch.uint8).cpu().numpy()
            results.append(absorb_small(labels, self.min_area) if self.min_area else labels)
        return results

    def describe(self) -> str:
        """One line on the weights in use."""
        info = self.info
        size = "the photos' own size" if self.size is None else f"{self.size[0]} x {self.size[1]} pixels"
        iou = f", validation IoU {info.mean_iou_clothes:.3f}" if info.mean_iou_clothes is not None else ""
        return f"{self.path}: {info.arch}{iou}, at {size} on {self.device}"


def load(path: Path) -> tuple[nn.Module, WeightsInfo]:
    network, info = load_network(path, ARCHITECTURES, CLASSES)
    if info.step == 0:
        raise RunError(f"{path}: expected trained weights, found initial ones, whose head is random; train them first")
    return network, info


def best_weights(folder: Path) -> tuple[Path, nn.Module, WeightsInfo]:
    """The weights of a folder that promise the best masks.

    The full network comes before the small one; then the higher validation IoU on record counts, then the newer file.
    """
    found = []
    for path in sorted(folder.glob("*.pth")):
        try:
            network, info = load(path)
        except RunError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        rank = (-list(ARCHITECTURES).index(info.arch), info.mean_iou_clothes or 0.0, path.stat().st_mtime)
        found.append((rank, path, network, info))
    if not found:
        raise RunError(
            f"{folder}: expected weights (*.pth), found none; fetch the released ones by "
            "python setup_model_weights.py --released, or name your own by --checkpoint"
        )
    return max(found, key=lambda entry: entry[0])[1:]


def list_files(source: Path, output: Path) -> list[Path]:
    """Files to segment: all in a folder but hidden ones and what lies in the output folder.

    Raises:
        RunError: there are none, or masks would overwrite photos.
    """
    if source.is_file():
        files, folder = [source], source.parent
    elif source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file() and not _passed_over(path, source, output))
        folder = source
    else:
        raise RunError(f"--input {source}: expected a folder of photos or one photo, found nothing of that name")
    if folder.resolve() == output.resolve():
        raise RunError(f"--output {output}: expected another folder than that of the photos, which masks would replace")
    if not files:
        raise RunError(f"--input {source}: expected photos, found an empty folder")
    return files


def _passed_over(path: Path, source: Path, output: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
    return hidden or output.resolve() in path.resolve().parents


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


def in_batches(files: Iterator[Path], size: int) -> Iterator[tuple[list[tuple[Path, Image.Image]], list[DataError]]]:
    """Yield photos, ``size`` at a time, and what was wrong with the files that are none."""
    while chunk := list(islice(files, size)):
        photos, errors = [], []
        for path in chunk:
            try:
                photos.append((path, load_photo(path)))
            except (DataError, OSError) as error:
                errors.append(error if isinstance(error, DataError) else DataError(f"{path}: {error.strerror}"))
        yield photos, errors


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(InferOptions, argv)
    source, output = Path(opt.input), Path(opt.output)
    files = list_files(source, output)
    masks = dict(zip(files, mask_paths(files, source, output), strict=True))
    with blame(f"--output {output}: expected a folder that can be written", OSError):
        output.mkdir(parents=True, exist_ok=True)
    segment = Segmenter.from_options(opt)
    print(describe(opt))
    print(segment.describe())

    failed = 0
    with tqdm(total=len(files), unit="photo", dynamic_ncols=True) as progress:
        for photos, errors in in_batches(iter(files), opt.batch_size):
            if photos:
                labels = segment([photo for _, photo in photos])
                for (path, photo), label_map in zip(photos, labels, strict=True):
                    mask = masks[path]
                    if "mask" in opt.outputs:
                        save_mask(label_map, mask, PALETTE)
                    if "overlay" in opt.outputs:
                        save_overlay(photo, label_map, mask.with_name(f"{mask.stem}_overlay.jpg"), PALETTE)
            for error in errors:
                progress.write(f"Skipped: {error}", file=sys.stderr)
            failed += len(errors)
            progress.update(len(photos) + len(errors))
    written = " and ".join(f"{name}s" for name in opt.outputs)
    print(f"{len(files) - failed} {written} in {output}" + (f", {failed} files skipped" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main, RunError, DataError)
