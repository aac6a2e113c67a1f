"""The recipe of the bundled weights, a few steps of it, from the pictures to the evaluation."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, PhotoFolder, run, write_photos
from PIL import Image

import train
from cloth_segmentation.classes import CLASSES, CLOTHES
from cloth_segmentation.weights_info import WeightsInfo
from data.dataset import LabelledPhotos
from data.labels import read_annotations
from infer import Segmenter
from networks import U2NETP
from recipe.prepare import is_held_out, paste, strip_beside
from utils.weights_files import save_weights

SCRIPT = ROOT / "recipe" / "train.sh"


@pytest.mark.long
def test_a_few_steps_from_pictures_to_evaluation(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    data: PhotoFolder = write_photos(shared / "ccp", 14, (200, 160))  # 003.png and 013.png are held out
    write_photos(shared / "more", 4, (200, 160))
    flat = write_photos(shared / "flat", 4)
    for number in range(4):  # two are held out
        name = f"flat_{number}{7 if number % 2 else 0}.png"
        (flat.images / f"{number:03d}.png").rename(flat.images / name)
        flat.csv.write_text(flat.csv.read_text().replace(f"{number:03d}.png", name))
    torch.manual_seed(0)
    (shared / "weights").mkdir()
    torch.save(U2NETP(3, 1).state_dict(), shared / "weights" / "u2netp.pth")
    starts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        starts.append(tmp_path / f"start{seed}.pth")
        info = WeightsInfo("u2netp", CLOTHES, (64, 64), step=1)
        save_weights(starts[-1], U2NETP(3, len(CLASSES)).state_dict(), info)
    copy = tmp_path / "clone"
    for name in ("recipe", "cloth_segmentation", "options", "networks", "data", "utils"):
        shutil.copytree(ROOT / name, copy / name)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, copy)
    # As if an earlier start had been killed in its first run, after one step.
    small = ["--fine_width=64", "--fine_height=64", "--batchSize=2", "--device=cpu"]
    begun = ["--name=trained", "--arch=u2netp", "--unet_checkpoint=", "--ema=0.9", "--nThreads=0", "--iter=1"]
    begun += [f"--save_dir={copy / 'results' / 'bundled'}", f"--logs_dir={tmp_path / 'logs'}"]
    begun += [f"--image_folder={data.images}", f"--df_path={data.csv}"]
    assert train.main(begun + small) == 0

    tiny = ["--iter=2", "--warmup=1", "--amp=off", *small]
    trial = {"PREPARE": "--walls 2 --flat_photos 1 --flat_small 2 --strips 2"}
    trial["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    arguments = [shared, f"{starts[0]},{starts[1]}", *tiny]
    done = run("bash", copy / "recipe" / SCRIPT.name, *arguments, cwd=tmp_path, env=trial)
    assert done.returncode == 0, done.stderr
    assert "step 1 of 2" in done.stdout + done.stderr  # the first run went on
    out = copy / "results" / "bundled"

    with (out / "data" / "train.csv").open() as file:
        names = {row["ImageId"] for row in csv.DictReader(file)}
    assert {name.split("/")[0] for name in names} == {"ccp", "more", "flat", "made"}
    assert not any(is_held_out(*name.split("/")) for name in names)
    assert {"ccp/003.png", "ccp/013.png"} == set(read_annotations(out / "data" / "val_ccp.csv").names.tolist())
    photos = LabelledPhotos(read_annotations(out / "data" / "train.csv"), out / "data")
    shown = {name: photos[number][1] for number, name in enumerate(photos.names)}
    assert shown["made/sample_coffee.jpg"].max() == 0
    assert shown["made/small_0000.jpg"].max() > 0

    trained = Segmenter.load(out / "cloth_segm_u2netp.pth", device="cpu")
    for name, count in (("ccp", 2), ("flat", 2)):
        figures = json.loads((out / f"figures_{name}.json").read_text())
        assert figures["photos"] == count
    assert (trained.info.step, trained.info.size) == (2, (192, 192))
    assert trained.info.mean_iou_clothes == json.loads((out / "figures_ccp.json").read_text())["mean_iou_clothes"]
    assert (out / "evaluation" / "gallery.png").exists()
    assert not (copy / "trained_checkpoint").exists()


def test_without_folders_it_says_what_it_needs() -> None:
    done = run("bash", SCRIPT)
    assert done.returncode == 2
    assert "SHARED    folder with ccp/" in done.stderr
    assert "glibc" not in done.stderr  # comments further down


def test_the_wider_side_beside_people_is_street() -> None:
    photo, taken = Image.new("RGB", (100, 50)), np.zeros((50, 100), bool)
    taken[10:, 60:80] = True
    strip = strip_beside(photo, taken, least=40)
    assert strip is not None
    assert strip.size == (56, 50)  # less a margin of 4
    assert strip_beside(photo, taken, least=57) is None
    assert strip_beside(photo, np.zeros_like(taken), least=1) is None  # what it shows is not known


def test_what_is_pasted_beyond_the_ground_is_cut_off() -> None:
    photo, labels = Image.new("RGB", (10, 10), (200, 0, 0)), np.full((10, 10), 3, np.uint8)
    opacity = np.ones((10, 10), np.float32)
    opacity[:, 5:] = 0
    picture, found = paste(photo, opacity, labels, Image.new("RGB", (20, 8)), (12, 4))
    assert np.asarray(picture)[:, :, 0].astype(bool)[4:, 12:17].all()
    assert np.asarray(picture)[:, :, 0].sum() == 200 * 4 * 5
    assert (found[4:, 12:17] == 3).all()
    assert (found > 0).sum() == 4 * 5
