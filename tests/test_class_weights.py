"""Classes travel with the weights: everything reads them from there."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PhotoFolder, python
from PIL import Image

import evaluate
import infer
from cloth_segmentation import CLASSES, RunError
from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.weights_info import WeightsInfo
from data.categories import SHIPPED
from networks import ARCHITECTURES, U2NETP
from utils.weights_files import load_network, read_file, save_weights


def random_weights(path: Path, classes: ClassSet, **facts: object) -> Path:
    torch.manual_seed(0)
    network = U2NETP(3, len(classes))
    for name, value in network.named_parameters():
        if name.startswith(("side", "outconv")):  # so that many classes are seen
            value.data *= 20
    save_weights(path, network.state_dict(), WeightsInfo("u2netp", classes, (64, 64), step=1, **facts))
    return path


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("fashion") / "fashion.pth", SHIPPED["fashion"])


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "noise.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3)).astype(np.uint8)).save(path)
    return path


def test_files_of_the_four_classes_say_no_more_than_they_did(tmp_path: Path) -> None:
    content = read_file(random_weights(tmp_path / "w.pth", CLOTHES))
    stated = {key: value for key, value in content.items() if key != "state_dict"}
    assert stated == {
        "format": "cloth-segmentation weights 1",
        "arch": "u2netp",
        "classes": CLASSES,
        "size": (64, 64),
        "mean": 0.5,
        "std": 0.5,
        "step": 1,
        "mean_iou_clothes": None,
    }
    assert list(content) == [*stated, "state_dict"]


def test_files_that_name_other_classes_alone_are_read(tmp_path: Path) -> None:
    path = random_weights(tmp_path / "w.pth", CLOTHES)
    content = read_file(path)
    torch.save(content | {"classes": ("background", "hat", "long coat", "long dress")}, path)  # as they were before
    classes = load_network(path, ARCHITECTURES)[1].classes
    assert classes == ClassSet.of_names(("background", "hat", "long coat", "long dress"))
    assert classes.number_of("Hat") == 1


def test_masks_cutouts_numbers_and_names_of_many_classes(fashion: Path, noise: Path, tmp_path: Path) -> None:
    flags = [noise.parent, tmp_path / "out", f"--checkpoint={fashion}", "--device=cpu"]
    done = python("infer.py", *flags, "--save=mask,classes,cutout,json")
    assert done.returncode == 0, done.stderr
    classes = SHIPPED["fashion"]
    labels = np.asarray(mask := Image.open(tmp_path / "out" / "noise.png"))
    assert mask.getpalette() == [value for color in classes.palette for value in color]
    entries = json.loads((tmp_path / "out" / "noise.json").read_text())["classes"]
    assert [entry["name"] for entry in entries] == list(classes.clothes)
    assert sum(entry["pixels"] > 0 for entry in entries) > 3
    for number, (entry, short) in enumerate(zip(entries, classes.short_names[1:], strict=True), start=1):
        one = np.asarray(Image.open(tmp_path / "out" / f"noise_mask_{short}.png"))
        np.testing.assert_array_equal(one > 0, labels == number)
        assert entry["id"] == number
        assert (tmp_path / "out" / f"noise_cutout_{short}.png").exists() == (entry["pixels"] > 0)

    short = classes.short_names[next(entry["id"] for entry in entries if entry["pixels"])]
    again = python("infer.py", noise.parent, tmp_path / "only", *flags[2:], f"--only={short}")
    assert again.returncode == 0, again.stderr
    assert len(np.unique(Image.open(tmp_path / "only" / "noise.png"))) == 2


def test_a_class_that_the_weights_do_not_have_is_wrong_usage(fashion: Path, noise: Path, tmp_path: Path) -> None:
    flags = ["--device=cpu", f"--checkpoint={fashion}", "--only=upper"]
    done = python("infer.py", noise, tmp_path / "out", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("infer.py: --only: expected some of shirt,top,sweater,")
    assert done.stderr.endswith(", with commas, found 'upper'\n")
    assert not (tmp_path / "out").exists()


def test_coarser_classes_are_sums(fashion: Path, noise: Path, tmp_path: Path) -> None:
    fine = infer.Segmenter.load(fashion, device="cpu", consistent=False)(noise)
    segment = infer.Segmenter.load(fashion, device="cpu", classes="clothes", consistent=False)
    assert (segment.classes, segment.info.classes) == (CLOTHES, SHIPPED["fashion"])
    coarse = segment(noise)
    within = np.array(SHIPPED["fashion"].within)
    probabilities = np.exp(fine.logits - fine.logits.max(0))
    probabilities /= probabilities.sum(0)
    sums = np.stack([probabilities[within == number].sum(0) for number in range(4)])
    given = np.exp(coarse.logits - coarse.logits.max(0))
    np.testing.assert_allclose(given / given.sum(0), sums, atol=1e-5)
    assert coarse.class_set == CLOTHES
    assert set(coarse.classes) == set(CLOTHES.clothes)
    assert pickle.loads(pickle.dumps(segment))(noise).labels.tolist() == coarse.labels.tolist()

    done = python("infer.py", noise, tmp_path / "out", "--device=cpu", f"--checkpoint={fashion}", "--classes=clothes")
    assert done.returncode == 0, done.stderr
    palette = Image.open(tmp_path / "out" / "noise.png").getpalette()
    assert palette == [value for color in CLOTHES.palette for value in color]
    with pytest.raises(RunError, match=r"--classes garments: expected .* tells apart \(fashion or clothes\), found"):
        infer.Segmenter.load(fashion, device="cpu", classes="garments")


def test_measuring_in_the_weights_classes_or_coarser_ones(
    fashion: Path, photo_folder: PhotoFolder, tmp_path: Path
) -> None:
    flags = [f"--image_folder={photo_folder.images}", f"--df_path={photo_folder.csv}", "--device=cpu"]
    flags += [f"--checkpoint={fashion}", f"--json={tmp_path / 'f.json'}"]
    counts = {}
    for classes in ("fashion", "clothes"):
        assert evaluate.main([*flags, f"--classes={classes}"]) == 0
        counts[classes] = np.array(json.loads((tmp_path / "f.json").read_text())["confusion"]).sum(1)
        assert len(counts[classes]) == len(SHIPPED[classes])
    within = np.array(SHIPPED["fashion"].within)
    assert [counts["fashion"][within == number].sum() for number in range(4)] == counts["clothes"].tolist()
    assert (counts["clothes"] > 0).all()


def test_weights_of_other_classes_are_used_where_they_are_asked_for(tmp_path: Path, weights: Path, noise: Path) -> None:
    folder = tmp_path / "trained_checkpoint"
    folder.mkdir()
    random_weights(folder / "garments.pth", SHIPPED["garments"], mean_iou_clothes=0.9)
    (folder / "clothes.pth").write_bytes(weights.read_bytes())
    opening = "cpu", "torch", "off"
    best = infer.Segmenter.best_of
    assert best(folder, *opening)[0].name == "clothes.pth"
    assert best(folder, *opening, "clothes")[0].name == "garments.pth"  # can tell these apart, too, and is better
    assert best(folder, *opening, "shoes") is None


def test_label_maps_of_256_classes(tmp_path: Path, noise: Path) -> None:
    classes = ClassSet.of_names(("background", *(f"class {number}" for number in range(1, 256))), "many")
    segment = infer.Segmenter.load(random_weights(tmp_path / "w.pth", classes), device="cpu")
    one = segment(noise)
    best = one.probabilities().argmax(0)
    assert (one.labels == best).mean() > 0.999  # ties aside
    assert len(one.to_dict()["classes"]) == 255
    assert one.mask().getpalette()[-3:] == list(classes.palette[255])
