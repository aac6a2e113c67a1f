"""The recipe of the bundled weights, a few steps of it, from surgery to evaluation."""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from conftest import ROOT, PhotoFolder, run, write_photos

import train
from networks import U2NETP
from segmenter import Segmenter

SCRIPT = ROOT / "docs" / "train_bundled_weights.sh"


def test_a_few_steps_from_surgery_to_evaluation(tmp_path: Path) -> None:
    data: PhotoFolder = write_photos(tmp_path / "ccp", 14)  # 003.png and 013.png are held out
    source = tmp_path / "u2netp.pth"
    torch.manual_seed(0)
    torch.save(U2NETP(3, 1).state_dict(), source)
    copy = tmp_path / "clone"
    for name in ("docs", "options", "networks", "data", "utils"):
        shutil.copytree(ROOT / name, copy / name)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, copy)

    # As if an earlier start had been killed in its first stage, after one step.
    small = ["--fine_width=64", "--fine_height=64", "--batchSize=2", "--device=cpu"]
    begun = ["--name=1_crops", "--arch=u2netp", "--unet_checkpoint=", "--ema=0.9", "--nThreads=0", "--iter=1"]
    begun += [f"--save_dir={copy / 'results' / 'bundled'}", f"--logs_dir={tmp_path / 'logs'}"]
    begun += [f"--image_folder={data.images}", f"--df_path={data.csv}"]
    assert train.main(begun + small) == 0

    tiny = ["--iter=2", "--warmup=1", "--amp=off", *small]
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run("bash", copy / "docs" / SCRIPT.name, data.csv.parent, source, *tiny, cwd=tmp_path, env={"PATH": scripts})
    assert done.returncode == 0, done.stderr
    assert "784 of 798 tensors carried over" in done.stdout
    assert "784 of 798 tensors carried over from results/bundled/mean.pth" in done.stdout  # to a head for garments
    assert "step 1 of 2" in done.stdout + done.stderr  # the first stage went on
    out = copy / "results" / "bundled"
    figures = json.loads((out / "figures.json").read_text())
    assert figures["photos"] == 2
    trained = Segmenter.load(out / "cloth_segm_u2netp.pth", device="cpu")
    assert (trained.info.step, trained.info.size) == (2, (256, 256))
    assert trained.info.mean_iou_clothes == figures["mean_iou_clothes"]
    assert (out / "evaluation" / "gallery.png").exists()
    assert not (copy / "trained_checkpoint").exists()


def test_without_folders_it_says_what_it_needs() -> None:
    done = run("bash", SCRIPT)
    assert done.returncode == 2
    assert "CCP     folder of Clothing Co-Parsing" in done.stderr
    assert "glibc" not in done.stderr  # comments further down
