"""Classes and labels of one's own, from the first look to the page, with no code changed."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, fork, run
from PIL import Image
from test_app import DESKTOP, Visit, serve

import infer
from cloth_segmentation import Segmenter
from networks import ARCHITECTURES
from utils.weights_files import load_network

CLASS_FILE = """
[[class]]
name = "blazer"
color = "#cc3311"

[[class]]
name = "kimono robe"

[[class]]
name = "trainers"
color = "#0077bb"
"""
NAMES = ("background", "blazer", "kimono robe", "trainers")


def draw_dataset(folder: Path, count: int) -> tuple[Path, Path]:
    """Photos with a rectangle for each of some classes, and grey label PNGs of the same names."""
    photos, labels = folder / "photos", folder / "labels"
    photos.mkdir(parents=True)
    labels.mkdir()
    draw = np.random.default_rng(0)
    cloth = {1: (220, 40, 40), 2: (60, 200, 60), 3: (60, 60, 230)}
    for number in range(count):
        pixels = draw.integers(90, 160, (96, 80, 3)).astype(np.uint8)
        values = np.zeros((96, 80), dtype=np.uint8)
        for place, value in enumerate(draw.permutation([1, 2, 3])[: 2 + number % 2]):
            top, left = 4 + 30 * place, int(draw.integers(4, 20))
            values[top : top + 26, left : left + 50] = value
        for value, color in cloth.items():
            pixels[values == value] = color
        Image.fromarray(pixels).save(photos / f"{number:02d}.jpg", quality=95)
        Image.fromarray(values).save(labels / f"{number:02d}.png")
    return photos, labels


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Folder, photos, labels."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.toml").write_text(CLASS_FILE)
    return folder, *draw_dataset(folder, 12)


@pytest.mark.long
def test_from_labels_to_the_page(
    dataset: tuple[Path, Path, Path], weights: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, photos, labels = dataset
    data = [f"--image_folder={photos}", f"--df_path={labels}"]
    classes = f"--classes={folder / 'mine.toml'}"

    def script(name: str, *flags: object) -> str:
        script.count += 1
        done = fork(f"{name}.py", *flags, folder=tmp_path / f"said{script.count}")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return str(done.stdout)

    script.count = 0

    said = script("labels", *data, classes, "--look=4", f"--output={tmp_path / 'look.png'}")
    assert "kimono robe" in said
    assert min(Image.open(tmp_path / "look.png").size) > 200

    start = tmp_path / "start.pth"
    said = script("setup_model_weights", "--arch=u2netp", f"--source={weights}", classes, f"--output={start}")
    assert said.endswith("Classes that start from random numbers: blazer, kimono robe, trainers\n")

    train = [*data, classes, "--arch=u2netp", f"--unet_checkpoint={start}", "--device=cpu", "--name=run"]
    train += [
        "--fine_width=64",
        "--fine_height=64",
        "--batchSize=4",
        "--nThreads=0",
        "--lr=0.004",
        "--val_fraction=0.3",
    ]
    train += [f"--save_dir={tmp_path}", f"--logs_dir={tmp_path / 'logs'}", f"--prepared_dir={tmp_path / 'kept'}"]
    script("train", *train, "--iter=2")
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 12
    said = script("train", *train, "--iter=40", "--continue_train", "--val_freq=40")
    best = tmp_path / "run" / "checkpoints" / "best_u2netp.pth"
    assert f"python infer.py --checkpoint {best}" in said
    assert load_network(best, ARCHITECTURES)[1].classes.names == NAMES

    figures = tmp_path / "figures.json"
    script("evaluate", *data, f"--checkpoint={best}", "--device=cpu", f"--json={figures}")
    iou = json.loads(figures.read_text())["iou"]
    assert tuple(iou) == NAMES
    assert np.mean(list(iou.values())) > 0.5

    script("export", f"--checkpoint={best}", f"--photos={photos}", "--max_photos=2")
    exported = best.with_suffix(".onnx")
    command = [
        sys.executable,
        "-m",
        "cloth_segmentation",
        photos / "00.jpg",
        tmp_path / "out",
        "--checkpoint",
        exported,
    ]
    done = run(*command, "--save=mask,classes,cutout,json,overlay", "--only=kimono,blazer", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    named = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"00.png", "00_mask_blazer.png", "00_mask_kimono.png", "00_overlay.jpg", "00.json"} <= named
    assert "00_mask_trainers.png" not in named
    found = json.loads((tmp_path / "out" / "00.json").read_text())["classes"]
    assert [(each["id"], each["name"]) for each in found] == [(1, "blazer"), (2, "kimono robe")]
    mask = Image.open(tmp_path / "out" / "00.png")
    assert mask.getpalette()[:6] == [0, 0, 0, 0xCC, 0x33, 0x11]
    done = run(*command, "--only=shirt", cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.endswith("--only: expected some of blazer,kimono,trainers, with commas, found 'shirt'\n")
    assert done.stderr.count("\n") == 1

    segment = Segmenter.load(exported)
    one = segment(photos / "00.jpg")
    truth = np.asarray(Image.open(labels / "00.png"))
    assert (one.labels == truth).mean() > 0.8
    assert one.cutout("kimono").size == (80, 96)
    assert one.probabilities().shape == (4, 96, 80)
    in_torch = infer.Segmenter.load(best, engine="torch", device="cpu")(photos / "00.jpg")
    assert (in_torch.labels == one.labels).mean() > 0.99

    # The page, in a browser where there is one.
    pytest.importorskip("gradio")
    window = request.getfixturevalue("browser")
    (tmp_path / "server").mkdir()
    with serve(tmp_path / "server", "--checkpoint", exported) as server:
        visit = Visit(window, server.address, DESKTOP)
        visit.show(photos / "00.jpg")
        assert [row[0] for row in visit.shares()] == list(NAMES[1:])
        visit.end()


@pytest.mark.long
def test_a_handful_of_photos_teaches_the_bundled_weights_another_kind_of_photo(tmp_path: Path) -> None:
    photos, labels = draw_dataset(tmp_path, 26)  # 20 to learn from
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    for number in range(6):
        shutil.move(labels / f"{number:02d}.png", held_out)
    bundled = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"

    def clothes_iou(weights: Path) -> float:
        figures = tmp_path / "figures.json"
        flags = [f"--checkpoint={weights}", f"--image_folder={photos}", f"--df_path={held_out}", f"--json={figures}"]
        done = fork(
            "evaluate.py", *flags, "--device=cpu", "--engine=torch", "--size=64", folder=tmp_path / weights.stem
        )
        assert done.returncode == 0, done.stderr
        return float(json.loads(figures.read_text())["mean_iou_clothes"])

    flags = [f"--image_folder={photos}", f"--df_path={labels}", "--arch=u2netp", f"--unet_checkpoint={bundled}"]
    flags += ["--freeze=encoder", "--fine_width=64", "--fine_height=64", "--batchSize=4", "--nThreads=0", "--iter=60"]
    flags += ["--lr=0.003", "--lr_schedule=cosine", "--device=cpu", "--name=run", f"--save_dir={tmp_path}"]
    done = fork("train.py", *flags, f"--logs_dir={tmp_path / 'logs'}", folder=tmp_path / "said")
    assert done.returncode == 0, done.stderr
    before, after = (
        clothes_iou(path) for path in (bundled, tmp_path / "run" / "checkpoints" / "itr_00000060_u2netp.pth")
    )
    assert before < 0.3
    assert after > before + 0.3
