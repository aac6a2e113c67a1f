import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PhotoFolder, python
from PIL import Image

import evaluate
from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.errors import RunError
from cloth_segmentation.weights_info import WeightsInfo
from data.dataset import LabelledPhotos
from data.labels import read_annotations
from infer import Segmenter
from networks import U2NETP
from options import EvaluateOptions
from utils.weights_files import read_file, save_weights

KEYS = {
    "iou", "mean_iou_clothes", "mean_iou", "pixel_accuracy", "confusion", "photos",
    "precision", "recall", "boundary_iou", "mean_boundary_iou_clothes", "photo_error",
}  # fmt: skip


def flags(photo_folder: PhotoFolder, weights: Path, *more: object) -> list[str]:
    common = {
        "checkpoint": weights, "image_folder": photo_folder.images, "df_path": photo_folder.csv, "device": "cpu",
        "pictures": photo_folder.csv.parent / "pictures",
    }  # fmt: skip
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
    pairs = [(photos[index][1], segment(photos[index][0]).labels) for index in range(8)]
    truth, prediction = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    assert np.array(figures["confusion"]).sum() == truth.size == 8 * 60 * 80  # the photos' own resolution
    for value, (name, found) in enumerate(figures["iou"].items()):
        union = ((truth == value) | (prediction == value)).sum()
        assert found == pytest.approx(((truth == value) & (prediction == value)).sum() / union), name
        hits = ((truth == value) & (prediction == value)).sum()
        assert figures["recall"][name] == pytest.approx(hits / (truth == value).sum())
        assert re.search(rf"^{name} +{found:.4f} ", done.stdout, re.M)
    assert figures["pixel_accuracy"] == pytest.approx((truth == prediction).mean())
    assert figures["mean_iou_clothes"] == pytest.approx(np.mean(list(figures["iou"].values())[1:]))
    assert figures["mean_iou"] == pytest.approx(np.mean(list(figures["iou"].values())))


def test_a_class_that_is_absent_is_left_out_and_named(photo_folder: PhotoFolder, weights: Path) -> None:
    segment = Segmenter.load(weights, device="cpu")
    with torch.no_grad():  # a network that calls everything upper body
        segment.engine.network.outconv.weight.zero_()
        segment.engine.network.outconv.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
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


def test_pictures_of_what_fails(photo_folder: PhotoFolder, weights: Path, tmp_path: Path) -> None:
    done = python("evaluate.py", *flags(photo_folder, weights, "--gallery=2", f"--json={tmp_path / 'out.json'}"))
    assert done.returncode == 0, done.stderr
    for name in ("confusion_matrix.png", "gallery.png"):
        assert str(tmp_path / "pictures" / name) in done.stdout
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200
    each = json.loads((tmp_path / "out.json").read_text())["photo_error"]
    assert list(each) == [f"{number:03d}.png" for number in range(8)]
    assert all(0 <= error <= 1 for error in each.values())


def test_no_pictures_unless_asked_for(photo_folder: PhotoFolder, weights: Path, tmp_path: Path) -> None:
    assert evaluate.main(flags(photo_folder, weights, "--pictures=")) == 0
    assert not (tmp_path / "pictures").exists()
    assert EvaluateOptions().picture_folder == ""
    assert EvaluateOptions(gallery=1).picture_folder == "results/evaluation"


def test_nothing_to_draw_or_record_without_clothes(
    photo_folder: PhotoFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = U2NETP(3, 4)
    torch.nn.init.zeros_(network.outconv.weight)  # calls everything background
    network.outconv.bias.data.copy_(torch.tensor([1.0, 0, 0, 0]))
    save_weights(tmp_path / "w.pth", network.state_dict(), WeightsInfo("u2netp", CLOTHES, (64, 64), step=1))
    shoes = photo_folder.csv.read_text().splitlines()
    photo_folder.csv.write_text("\n".join([shoes[0]] + [line.rsplit(",", 1)[0] + ",23" for line in shoes[1:]]) + "\n")
    assert evaluate.main(flags(photo_folder, tmp_path / "w.pth", "--gallery=2")) == 0
    assert "No gallery" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"--record: expected photos with clothes"):
        evaluate.main(flags(photo_folder, tmp_path / "w.pth", "--record"))


def test_the_worst_and_the_median_are_found() -> None:
    each = [0.1, 0.9, None, 0.5, 0.3, 0.7]
    assert evaluate.worst_and_median(each, 1) == ([1], [3])
    assert evaluate.worst_and_median(each, 3) == ([1, 5, 3], [5, 3, 4])
    assert evaluate.worst_and_median(each, 20) == ([1, 5, 3, 4, 0], [1, 5, 3, 4, 0])
    assert evaluate.worst_and_median([None], 2) == ([], [])


def test_pairs_of_photos_can_be_measured(photo_folder: PhotoFolder, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert evaluate.main(flags(photo_folder, weights, "--pairs", "--gallery=1", f"--json={out}")) == 0
    figures = json.loads(out.read_text())
    assert figures["photos"] == 8
    assert np.array(figures["confusion"]).sum() == 8 * 120 * 80


def test_mean_iou_and_size_can_be_recorded_in_the_weights(
    photo_folder: PhotoFolder, weights: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.pth"
    shutil.copy(weights, copy)
    before = Segmenter.load(copy, device="cpu")
    assert evaluate.main(flags(photo_folder, copy, "--record", "--size=96", f"--json={tmp_path / 'out.json'}")) == 0
    after = Segmenter.load(copy, device="cpu")
    assert after.info.mean_iou_clothes == json.loads((tmp_path / "out.json").read_text())["mean_iou_clothes"]
    assert after.info == replace(before.info, size=(96, 96), mean_iou_clothes=after.info.mean_iou_clothes)
    tensors = read_file(copy)["state_dict"]
    for name, tensor in read_file(weights)["state_dict"].items():
        assert torch.equal(tensor, tensors[name])
