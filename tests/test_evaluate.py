import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PhotoFolder, python

import evaluate
from data.annotations import read_annotations
from data.dataset import LabelledPhotos
from infer import Segmenter

KEYS = {"iou", "mean_iou_clothes", "mean_iou", "pixel_accuracy", "confusion", "photos"}


def flags(photo_folder: PhotoFolder, weights: Path, *more: object) -> list[str]:
    common = {"checkpoint": weights, "image_folder": photo_folder.images, "df_path": photo_folder.csv, "device": "cpu"}
    return [f"--{name}={value}" for name, value in common.items()] + [str(flag) for flag in more]


def test_figures_are_those_of_the_label_maps(photo_folder: PhotoFolder, weights: Path, tmp_path: Path) -> None:
    done = python("evaluate.py", *flags(photo_folder, weights, f"--json={tmp_path / 'new' / 'out.json'}"))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "new" / "out.json").read_text())
    assert set(figures) >= KEYS
    assert figures["photos"] == 8
    assert set(figures["iou"]) == {"background", "upper body", "lower body", "full body"}

    segment = Segmenter.load(weights, device="cpu")
    photos = LabelledPhotos(read_annotations(photo_folder.csv), photo_folder.images)
    pairs = [(photos[index][1], segment([photos[index][0]])[0]) for index in range(8)]
    truth, prediction = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    assert np.array(figures["confusion"]).sum() == truth.size == 8 * 60 * 80  # the photos' own resolution
    for value, (name, found) in enumerate(figures["iou"].items()):
        union = ((truth == value) | (prediction == value)).sum()
        assert found == pytest.approx(((truth == value) & (prediction == value)).sum() / union), name
        assert f"IoU {name}" in done.stdout
    assert figures["pixel_accuracy"] == pytest.approx((truth == prediction).mean())
    assert figures["mean_iou_clothes"] == pytest.approx(np.mean(list(figures["iou"].values())[1:]))
    assert figures["mean_iou"] == pytest.approx(np.mean(list(figures["iou"].values())))


def test_a_class_that_is_absent_is_left_out_and_named(photo_folder: PhotoFolder, weights: Path) -> None:
    segment = Segmenter.load(weights, device="cpu")
    with torch.no_grad():  # a network that calls everything upper body
        segment.network.outconv.weight.zero_()
        segment.network.outconv.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    photos = LabelledPhotos(read_annotations(photo_folder.csv).select(np.array([1, 2, 4])), photo_folder.images)
    figures = evaluate.evaluate(segment, photos, batch_size=2)
    upper = np.mean([(photos[index][1] == 1).mean() for index in range(3)])
    assert figures["iou"] == {
        "background": 0,
        "upper body": pytest.approx(upper),
        "lower body": 0,
        "full body": None,
    }
    assert figures["mean_iou_clothes"] == pytest.approx(upper / 2)
    assert figures["mean_iou"] == pytest.approx(upper / 3)
    assert "neither truth nor prediction has it: full body" in evaluate.report(figures)


def test_fewer_photos_can_be_asked_for(photo_folder: PhotoFolder, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert evaluate.main(flags(photo_folder, weights, "--max_dataset_size=3", "--batch_size=2", f"--json={out}")) == 0
    assert json.loads(out.read_text())["photos"] == 3


def test_mistakes_are_sentences(photo_folder: PhotoFolder, weights: Path) -> None:
    (photo_folder.images / "001.png").unlink()
    done = python("evaluate.py", *flags(photo_folder, weights))
    assert done.returncode == 1
    assert "001.png" in done.stderr
    assert "Traceback" not in done.stderr
