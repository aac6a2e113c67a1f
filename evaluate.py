"""Measure weights on labelled photos, at the photos' own resolution.

python evaluate.py --checkpoint F --image_folder D --df_path CSV --json OUT.json
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data import DataError
from data.annotations import read_annotations
from data.classes import CLASSES
from data.dataset import LabelledPhotos
from infer import Segmenter
from options import EvaluateOptions, describe, parse
from utils import RunError
from utils.files import atomic_path
from utils.metrics import confusion_matrix, summarise
from utils.script import blame, run_script


def evaluate(segment: Segmenter, photos: LabelledPhotos, batch_size: int = 1) -> dict[str, Any]:
    """Figures of ``metrics.summarise`` over all photos, and their number as "photos"."""
    confusion = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    with tqdm(total=len(photos), unit="photo", dynamic_ncols=True) as progress:
        for start in range(0, len(photos), batch_size):
            batch = [photos[index] for index in range(start, min(start + batch_size, len(photos)))]
            predictions = segment([photo for photo, _ in batch])
            for (_, truth), prediction in zip(batch, predictions, strict=True):
                confusion += confusion_matrix(torch.from_numpy(truth), torch.from_numpy(prediction), len(CLASSES))
            progress.update(len(batch))
    return summarise(confusion, CLASSES) | {"photos": len(photos)}


def report(figures: dict[str, Any]) -> str:
    """The figures as a table for people."""

    def shown(value: float | None) -> str:
        return "absent" if value is None else f"{value:.4f}"

    absent = [name for name, value in figures["iou"].items() if value is None]
    rows = [(f"IoU {name}", shown(value)) for name, value in figures["iou"].items()]
    rows += [
        ("mean IoU, clothes", shown(figures["mean_iou_clothes"])),
        ("mean IoU, all", shown(figures["mean_iou"])),
        ("pixel accuracy", shown(figures["pixel_accuracy"])),
    ]
    lines = [f"{name:<20} {value:>8}" for name, value in rows]
    if absent:
        lines.append(f"Left out of the means, since neither truth nor prediction has it: {', '.join(absent)}.")
    lines.append("Confusion matrix, share of each true class (rows) that was called each class (columns):")
    width = max(map(len, CLASSES)) + 1
    lines.append(" " * width + "".join(f"{name:>{width}}" for name in CLASSES))
    for name, row in zip(CLASSES, figures["confusion"], strict=True):
        lines.append(f"{name:<{width}}" + "".join(f"{count / max(sum(row), 1):>{width}.4f}" for count in row))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(EvaluateOptions, argv)
    with blame("--df_path", DataError):
        index = read_annotations(Path(opt.df_path))
    if opt.max_dataset_size is not None:
        index = index.head(opt.max_dataset_size)
    with blame("--image_folder", DataError):
        photos = LabelledPhotos(index, Path(opt.image_folder))
    segment = Segmenter.load(Path(opt.checkpoint) if opt.checkpoint else None, device=opt.device)
    print(describe(opt))
    print(segment.describe())
    figures = evaluate(segment, photos, opt.batch_size)
    print(f"{figures['photos']} photos")
    print(report(figures))
    if opt.json:
        with atomic_path(Path(opt.json)) as part:
            part.write_text(json.dumps(figures | {"checkpoint": str(segment.path)}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    run_script(main, RunError, DataError)
