"""Measure weights on labelled photos, at the photos' own resolution.

python evaluate.py --checkpoint F --image_folder D --df_path CSV --json OUT.json
python evaluate.py --image_folder D --df_path CSV --gallery 6
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from cloth_segmentation.classes import FEW_CLASSES, ClassSet
from cloth_segmentation.command.script import blame, run_script
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.files import atomic_path, check_folder, check_output
from cloth_segmentation.pictures import save_picture
from data.annotations import Annotations
from data.checks import read_checked
from data.dataset import LabelledPhotos, PhotoPairs
from infer import Segmenter, load
from options import EvaluateOptions, describe, parse
from utils.evaluation_pictures import confusion_picture, gallery, panel
from utils.metrics import boundary_overlap, clothes_error, confusion_matrix, summarise
from utils.weights_files import save_weights

Photos = LabelledPhotos | PhotoPairs


def evaluate(segment: Segmenter, photos: Photos, batch_size: int = 1) -> dict[str, Any]:
    """Figures of ``metrics.summarise`` over all photos, and more.

    "photos" is their number; "photo_error" holds the share of each one's pixels of clothes that are wrong, by its name;
    None for a photo without clothes.
    """
    classes = len(segment.classes)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    boundary = torch.zeros(classes, 2, dtype=torch.int64)
    each: list[float | None] = []
    with tqdm(total=len(photos), unit="photo", dynamic_ncols=True) as progress:
        for start in range(0, len(photos), batch_size):
            batch = [photos[index] for index in range(start, min(start + batch_size, len(photos)))]
            predictions = segment([photo for photo, _ in batch], batch_size=batch_size)
            for (_, labels), prediction in zip(batch, predictions, strict=True):
                maps = torch.from_numpy(labels), torch.from_numpy(prediction.labels)
                own = confusion_matrix(*maps, classes)
                confusion += own
                boundary += boundary_overlap(*maps, classes)
                error = clothes_error(own)
                each.append(None if math.isnan(error) else error)
            progress.update(len(batch))
    names = dict(zip(photos.names, each, strict=True))
    return summarise(confusion, segment.classes.names, boundary) | {"photos": len(photos), "photo_error": names}


def worst_and_median(errors: Sequence[float | None], count: int) -> tuple[list[int], list[int]]:
    """Numbers of the ``count`` photos with the greatest errors, worst first, and of those around the median."""
    order = sorted((-error, number) for number, error in enumerate(errors) if error is not None)
    numbers = [number for _, number in order]
    first = max(0, (len(numbers) - count) // 2)
    return numbers[:count], numbers[first : first + count]


def draw_gallery(segment: Segmenter, photos: Photos, figures: dict[str, Any], count: int) -> Image.Image:
    """The worst photos at the left, median ones at the right."""
    each = list(figures["photo_error"].items())
    columns = []
    for title, numbers in zip(("worst", "median"), worst_and_median([error for _, error in each], count), strict=True):
        panels = []
        for number in numbers:
            photo, truth = photos[number]
            name, error = each[number]
            caption = f"{title}: {name}, {error:.0%} of clothes wrong. Photo, truth, prediction"
            panels.append(panel(caption, photo, truth, segment(photo).labels, segment.classes.palette))
        columns.append(panels)
    return gallery(columns)


def write_picture(picture: Image.Image, path: Path) -> None:
    save_picture(picture, path)
    print(f"{path} drawn")


SHOWN = 12
"""Confusions that are named where there are too many classes for a matrix."""


def confusion_shares(confusion: Sequence[Sequence[int]]) -> list[list[float]]:
    """Share of each true class (row) that was called each class (column)."""
    return [[count / max(sum(row), 1) for count in row] for row in confusion]


def report(figures: dict[str, Any]) -> str:
    """The figures as a table for people."""

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    names = {
        "iou": "IoU",
        "boundary_iou": "boundary IoU",
        "precision": "precision",
        "recall": "recall",
    }
    classes = list(figures["iou"])
    width = max(map(len, classes)) + 1
    column = max(map(len, names.values())) + 2
    absent = [name for name, value in figures["iou"].items() if value is None]
    lines = [" " * width + "".join(f"{title:>{column}}" for title in names.values())]
    for name in classes:
        lines.append(f"{name:<{width}}" + "".join(f"{shown(figures[key][name]):>{column}}" for key in names))
    rows = [
        ("mean IoU, clothes", shown(figures["mean_iou_clothes"])),
        ("mean IoU, all", shown(figures["mean_iou"])),
        ("mean boundary IoU, clothes", shown(figures["mean_boundary_iou_clothes"])),
        ("pixel accuracy", shown(figures["pixel_accuracy"])),
    ]
    lines += [f"{name:<27} {value:>8}" for name, value in rows]
    if absent:
        lines.append(f"Left out of the means, since neither truth nor prediction has it: {', '.join(absent)}.")
    shares = confusion_shares(figures["confusion"])
    if len(classes) <= FEW_CLASSES:
        lines.append("Confusion matrix, share of each true class (rows) that was called each class (columns):")
        lines.append(" " * width + "".join(f"{name:>{width}}" for name in classes))
        for name, row in zip(classes, shares, strict=True):
            lines.append(f"{name:<{width}}" + "".join(f"{share:>{width}.4f}" for share in row))
        return "\n".join(lines)
    lines.append("Greatest confusions, share of a true class that was called another (--pictures draws them all):")
    confused = [
        (share, true, called)
        for true, row in zip(classes, shares, strict=True)
        for called, share in zip(classes, row, strict=True)
        if true != called
    ]
    lines += [f"{true:<{width}}{share:>8.4f}  {called}" for share, true, called in sorted(confused)[: -SHOWN - 1 : -1]]
    return "\n".join(lines)


def read_photos(opt: EvaluateOptions, classes: ClassSet) -> Annotations:
    """The photos to measure on. What is wrong but harmless is told.

    Raises:
        RunError: a photo, row or mask cannot be used.
    """
    found = read_checked(
        ("--df_path", opt.df_path),
        ("--image_folder", opt.image_folder),
        classes,
        opt.max_dataset_size,
        ignored=opt.ignore_index,
        rescale=opt.rescale,
    )
    if found.notes:
        print(found.notes, file=sys.stderr)
    if not all(fault.harmless for fault in found.faults):
        raise RunError(found.report)
    if found.faults:
        print(found.report, file=sys.stderr)
    return found.photos


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(EvaluateOptions, argv)
    if opt.json:
        with blame(f"--json {opt.json}: expected a file that can be written", OSError):
            check_output(Path(opt.json), b"{")
    if opt.picture_folder:
        with blame(f"--pictures {opt.picture_folder}: expected a folder that can be written", OSError):
            check_folder(Path(opt.picture_folder))
    segment = Segmenter.load(**opt.loading)
    photos = LabelledPhotos(read_photos(opt, segment.classes), Path(opt.image_folder), rescale=opt.rescale)
    print(describe(opt))
    print(segment.describe())
    shown: Photos = PhotoPairs(photos) if opt.pairs else photos
    figures = evaluate(segment, shown, opt.batch_size)
    print(f"{figures['photos']} {'pairs of photos' if opt.pairs else 'photos'}")
    print(report(figures))
    if opt.json:
        with atomic_path(Path(opt.json)) as part:
            part.write_text(json.dumps(figures | {"checkpoint": str(segment.path)}, indent=2) + "\n")
    if opt.record and segment.size is not None:
        if figures["mean_iou_clothes"] is None:
            raise RunError(f"--record: expected photos with clothes, found none in {opt.df_path}")
        path = Path(opt.checkpoint)
        network, info = load(path)  # as it is in the file, not as it runs
        info = replace(info, size=segment.size, mean_iou_clothes=figures["mean_iou_clothes"])
        save_weights(path, network.state_dict(), info)
        print(f"Mean IoU and size recorded in {path}")
        if path.with_suffix(".onnx").exists():
            print(f"{path.with_suffix('.onnx')} does not have them: python export.py --checkpoint {path} makes it anew")
    if opt.picture_folder:
        folder = Path(opt.picture_folder)
        write_picture(confusion_picture(figures["confusion"], segment.classes.names), folder / "confusion_matrix.png")
        if opt.gallery and set(figures["photo_error"].values()) == {None}:
            print("No gallery: neither truth nor prediction has clothes.")
        elif opt.gallery:
            write_picture(draw_gallery(segment, shown, figures, opt.gallery), folder / "gallery.png")
    return 0


if __name__ == "__main__":
    run_script(main, RunError, DataError)
