import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Fork, fork, python, run
from PIL import Image

import infer
from cloth_segmentation.classes import CLOTHES, PALETTE
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.regions import absorb_small
from cloth_segmentation.weights_info import WeightsInfo
from infer import Segmenter
from networks import U2NETP
from utils.weights_files import save_weights


def photo(path: Path, size: tuple[int, int] = (40, 30), **settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **settings)


def flags(tmp_path: Path, weights: Path, *more: object) -> list[str]:
    common = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", f"--checkpoint={weights}", "--device=cpu"]
    return common + [str(flag) for flag in more]


def masks(tmp_path: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted((tmp_path / "out").rglob("*")):
        if path.is_file():
            with Image.open(path) as mask:
                assert (mask.format, mask.mode) == ("PNG", "P")
                assert mask.getpalette()[:12] == [value for rgb in PALETTE for value in rgb]
                assert np.asarray(mask).max() < 4
                found[str(path.relative_to(tmp_path / "out"))] = mask.size
    return found


def test_folders_names_and_formats(tmp_path: Path, weights: Path) -> None:
    for name in ("a.jpg", "b.jpeg", "c.JPG", "sub/d.webp", "sub/deep/e.bmp", "f.tif", "x.y.png", "no_ending"):
        photo(tmp_path / "in" / name, format=None if "." in name else "PNG")
    photo(tmp_path / "in" / ".hidden.jpg")
    assert infer.main(flags(tmp_path, weights)) == 0
    # The original made b.jpng of b.jpeg.
    expected = ["a.png", "b.png", "c.png", "f.png", "no_ending.png", "sub/d.png", "sub/deep/e.png", "x.y.png"]
    assert masks(tmp_path) == dict.fromkeys(expected, (40, 30))


def test_names_that_would_meet_keep_their_endings(tmp_path: Path, weights: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png"):
        photo(tmp_path / "in" / name)
    assert infer.main(flags(tmp_path, weights)) == 0
    assert list(masks(tmp_path)) == ["a.jpg.png", "a.png.png", "b.png"]


def test_no_two_photos_share_a_mask(tmp_path: Path, weights: Path) -> None:
    for name in ("a.jpg", "a.jpg.png", "a.webp", "A.bmp", "b.jpg"):
        photo(tmp_path / "in" / name)
    assert infer.main(flags(tmp_path, weights)) == 0
    assert list(masks(tmp_path)) == ["A.bmp.png", "a.jpg.png", "a.jpg.png.png", "a.webp.png", "b.png"]


def test_what_cannot_be_read_is_said_and_the_rest_done(tmp_path: Path, weights: Path) -> None:
    for name in ("a.jpg", "z.jpg"):
        photo(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes()[:300])
    (tmp_path / "in" / "notes.webp").write_text("not a photo")
    done = python("infer.py", *flags(tmp_path, weights, "--batch_size=2"))
    assert done.returncode == 1
    assert list(masks(tmp_path)) == ["a.png", "z.png"]
    assert re.search(r"Failed: .*broken.jpg: expected a picture", done.stderr)
    assert re.search(r"Failed: .*notes.webp: expected a picture", done.stderr)
    assert "Masks of 2 photos in" in done.stdout
    assert "2 failed" in done.stdout
    assert "Traceback" not in done.stderr


def test_exif_rotation_is_applied(tmp_path: Path, weights: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "in" / "a.jpg", exif=exif)
    assert infer.main(flags(tmp_path, weights)) == 0
    assert masks(tmp_path) == {"a.png": (30, 40)}


def test_one_file_as_input(tmp_path: Path, weights: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    assert infer.main([*flags(tmp_path, weights), f"--input={tmp_path / 'in' / 'a.jpg'}"]) == 0
    assert list(masks(tmp_path)) == ["a.png"]


def test_the_output_folder_may_lie_in_the_input_folder(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    for _ in range(2):
        assert infer.main([*flags(tmp_path, weights), f"--output={tmp_path / 'in' / 'masks'}"]) == 0
        assert f"{tmp_path / 'in' / 'masks'}: left out of the photos" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "in" / "masks").iterdir()] == ["a.png"]


def test_photos_are_never_overwritten(tmp_path: Path, weights: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    before = (tmp_path / "in" / "a.png").read_bytes()
    with pytest.raises(RunError, match=r"--output .*: expected another folder"):
        infer.main([*flags(tmp_path, weights), f"--output={tmp_path / 'in'}"])
    assert (tmp_path / "in" / "a.png").read_bytes() == before
    photo(tmp_path / "in" / "in" / "a.jpg")  # from in/, in the folder above, this photo's mask would be in/a.png
    with pytest.raises(RunError, match=r"--output .*: expected a folder where masks replace no photos"):
        infer.main([*flags(tmp_path, weights), f"--output={tmp_path}"])
    assert (tmp_path / "in" / "a.png").read_bytes() == before
    photo(tmp_path / "in" / "b_overlay.jpg")
    photo(tmp_path / "in" / "in" / "b.jpg")
    (tmp_path / "in" / "in" / "a.jpg").unlink()
    with pytest.raises(RunError, match=r"--output .*: .* masks replace no photos, found .*b_overlay.jpg"):
        infer.main([*flags(tmp_path, weights, "--save=overlay"), f"--output={tmp_path}"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--input=absent"], "--input absent: expected a folder of photos or one photo"),
        (["--checkpoint=absent.pth"], "absent.pth: expected a weights file, found none"),
        (["--amp=fp16"], "infer.py: --amp fp16: expected a CUDA device, found cpu"),
        (["--checkpoint=", "--device=cuda:99"], "infer.py: --device cuda:99: expected GPU number 99"),
        (["--device=mps" if not torch.backends.mps.is_available() else "--device=cuda:99"], "--device"),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, weights: Path, more: list[str], message: str) -> None:
    photo(tmp_path / "in" / "a.jpg")
    done = python("infer.py", *flags(tmp_path, weights, *more))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_untrained_weights_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", U2NETP(3, 4).state_dict(), WeightsInfo("u2netp", CLOTHES, step=0))
    with pytest.raises(RunError, match=r"w.pth: expected trained weights, found initial ones"):
        Segmenter.load(tmp_path / "w.pth", device="cpu")


def test_an_output_that_is_no_folder_is_said_at_once(tmp_path: Path, weights: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(RunError, match=r"--output .*out: expected a folder that can be written"):
        infer.main(flags(tmp_path, weights))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process's memory this way")
def test_a_photo_that_takes_too_much_memory_is_named(tmp_path: Path, weights: Path) -> None:
    photo(tmp_path / "in" / "a.png", (3000, 3000))
    photo(tmp_path / "in" / "b.png")
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}));"
    script = limit.format(6 * 2**30) + "sys.argv = sys.argv[1:]; runpy.run_path('infer.py', run_name='__main__')"
    done = python("-c", script, "infer.py", *flags(tmp_path, weights, "--size=native"))
    assert done.returncode == 1
    assert (
        f"Failed: {tmp_path / 'in' / 'a.png'}: expected enough memory for this photo, found too little" in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert list(masks(tmp_path)) == ["b.png"]


def test_an_empty_folder_is_an_error(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(RunError, match="expected photos, found an empty folder"):
        infer.main(flags(tmp_path, weights))


def test_no_gradients_and_the_cpu_will_do(weights: Path) -> None:
    segment = Segmenter.load(weights, device="cpu")
    assert not any(parameter.requires_grad for parameter in segment.engine.network.parameters())
    assert not segment.engine.network.training
    seen = []
    segment.engine.network.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    segment([Image.new("RGB", (70, 50))])
    assert seen[0].grad_fn is None
    assert seen[0].is_inference()


def test_size_at_which_the_network_sees_a_photo(weights: Path) -> None:
    portrait = Image.new("RGB", (50, 90), "navy")
    for size, expected in (("auto", (64, 64)), ((96, 128), (128, 96)), ("native", (90, 50))):
        segment = Segmenter.load(weights, device="cpu", size=size)
        seen = []
        segment.engine.network.register_forward_hook(
            lambda module, inputs, outputs, seen=seen: seen.append(inputs[0].shape[2:])
        )
        assert segment(portrait).labels.shape == (90, 50)
        assert tuple(seen[0]) == expected


def test_logits_are_resized_before_the_argmax(weights: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (37, 53, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    segment = Segmenter.load(weights, device="cpu")
    square = torch.from_numpy(np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)).copy()).permute(2, 0, 1)
    with torch.no_grad():
        logits = segment.engine.network((square[None] / 255 - 0.5) / 0.5)[0]
    up = torch.nn.functional.interpolate(logits, (37, 53), mode="bilinear", align_corners=False)
    np.testing.assert_array_equal(segment(image).labels, up.argmax(1)[0].numpy())


def test_batches_give_the_masks_of_single_photos(weights: Path) -> None:
    draw = np.random.default_rng(0)
    photos = [Image.fromarray(draw.integers(0, 255, (30 + n, 50, 3)).astype(np.uint8)) for n in range(4)]
    segment = Segmenter.load(weights, device="cpu")
    for together, alone in zip(segment(photos, batch_size=4), map(segment, photos), strict=True):
        assert (together.labels == alone.labels).mean() > 0.999


def test_the_best_weights_of_a_folder(tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Segmenter.best_of(tmp_path, "cpu", "auto", "off") is None
    for name, iou in (("a", 0.5), ("b", 0.7), ("c", None)):
        info = WeightsInfo("u2netp", CLOTHES, (64, 64), mean_iou_clothes=iou)
        save_weights(tmp_path / f"{name}.pth", U2NETP(3, 4).state_dict(), info)
    (tmp_path / "broken.pth").write_text("no weights")
    assert Segmenter.best_of(tmp_path, "cpu", "auto", "off")[0].name == "b.pth"
    assert "Left out: " in caplog.text


def test_the_bundled_weights_dress_the_bundled_photos(tmp_path: Path) -> None:
    """What a newcomer does first. Where clothes must and must not be, read off the photos by eye."""
    shutil.copytree(ROOT / "input_images", tmp_path / "in")
    bundled = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"
    assert infer.main(flags(tmp_path, bundled)) == 0
    labels = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out").iterdir()}
    astronaut, hopper = labels["astronaut"], labels["grace_hopper"]
    assert (astronaut[380:, 70:270] > 0).mean() > 0.8  # chest and arm of the space suit, left of the helmet
    assert (astronaut[450:, 320:420] == 0).mean() > 0.9  # helmet
    assert (astronaut[60:190, 190:270] == 0).mean() > 0.9  # face
    assert (hopper[450:, 100:400] == 1).mean() > 0.8  # jacket: upper body
    assert (hopper[160:300, 200:310] == 0).mean() > 0.9  # face
    assert (hopper[40:130, 180:360] == 0).mean() > 0.8  # cap
    assert (hopper[:300, :130] == 0).mean() > 0.9  # flag
    for suit in (astronaut, hopper):  # each one class
        assert np.bincount(suit[suit > 0]).max() > 0.97 * (suit > 0).sum()
    skirt, shirt, dress = labels["skirt"], labels["t_shirt"], labels["dress"]
    assert (skirt[130:380, 60:340] == 2).mean() > 0.95
    assert (skirt[430:] == 0).mean() > 0.95  # floor
    assert (shirt[60:340, 110:300] == 1).mean() > 0.95
    assert (dress[90:440, 100:260] == 3).mean() > 0.95
    for garment in (skirt, shirt, dress):  # each one class too
        assert np.bincount(garment[garment > 0]).max() > 0.97 * (garment > 0).sum()


@pytest.fixture
def dressed(tmp_path: Path) -> tuple[Path, list[str]]:
    """The output folder, and flags, of a run on a photo of an upper body, by the bundled weights."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    shutil.copy(ROOT / "input_images" / "grace_hopper.jpg", tmp_path / "in" / "sub" / "a.jpg")
    bundled = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"
    return tmp_path / "out" / "sub", flags(tmp_path, bundled, "--min_area=0.05")  # jacket, and no specks


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_output_on_request(dressed: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    out, common = dressed
    assert infer.main([*common, "--save=mask,overlay,cutout,classes,json"]) == 0
    assert "Masks, overlays, cut-outs, class masks and JSON files of 1 photo in" in capsys.readouterr().out
    assert names(out) == [
        "a.json", "a.png", "a_cutout_upper.png", "a_mask_full.png", "a_mask_lower.png", "a_mask_upper.png",
        "a_overlay.jpg",
    ]  # fmt: skip
    kinds = {"a.png": "P", "a_cutout_upper.png": "RGBA", "a_mask_upper.png": "L", "a_overlay.jpg": "RGB"}
    for name, mode in kinds.items():
        with Image.open(out / name) as picture:
            assert (picture.mode, picture.size) == (mode, (512, 600)), name
    labels = np.asarray(Image.open(out / "a.png"))
    for number, name in enumerate(("upper", "lower", "full"), start=1):
        pixels = np.asarray(Image.open(out / f"a_mask_{name}.png"))
        np.testing.assert_array_equal(pixels, np.where(labels == number, 255, 0))
    content = json.loads((out / "a.json").read_text())
    assert [entry["pixels"] > 0 for entry in content["classes"]] == [True, False, False]


def test_one_class_cropped(dressed: tuple[Path, list[str]]) -> None:
    out, common = dressed
    assert infer.main([*common, "--save=cutout,mask,json", "--only=upper,full", "--crop"]) == 0
    assert names(out) == ["a.json", "a.png", "a_cutout_upper.png"]
    content = json.loads((out / "a.json").read_text())
    assert [entry["name"] for entry in content["classes"]] == ["upper body", "full body"]
    with Image.open(out / "a_cutout_upper.png") as cutout:
        box = content["classes"][0]["box"]
        assert np.abs(np.array(cutout.size) - box[2:]).max() <= 4  # and soft edges around
        assert cutout.getchannel("A").getbbox() == (0, 0, *cutout.size)
    assert infer.main([*common, "--save=cutout,classes", "--only=lower"]) == 0
    assert names(out) == ["a.json", "a.png", "a_cutout_upper.png", "a_mask_lower.png"]  # no lower body to be cut out
    assert not np.asarray(Image.open(out / "a_mask_lower.png")).any()


def test_a_grown_class_on_a_background(dressed: tuple[Path, list[str]]) -> None:
    out, common = dressed
    assert infer.main([*common, "--save=mask", "--only=upper"]) == 0
    with Image.open(out / "a.png") as mask:
        before = int((np.asarray(mask) == 1).sum())
    flags = ["--save=mask,cutout,json", "--only=upper", "--grow=6", "--background=#fe0102"]
    assert infer.main([*common, *flags]) == 0
    labels = np.asarray(Image.open(out / "a.png"))
    assert json.loads((out / "a.json").read_text())["classes"][0]["pixels"] == (labels == 1).sum() > before
    with Image.open(out / "a_cutout_upper.png") as cutout:
        assert cutout.mode == "RGB"
        assert (np.asarray(cutout)[labels == 0] == (254, 1, 2)).mean() > 0.95  # edges are soft
    assert infer.main([*common, "--save=mask", "--only=upper", "--shrink=6"]) == 0
    with Image.open(out / "a.png") as mask:
        assert 0 < (np.asarray(mask) == 1).sum() < before


def test_cutouts_that_no_longer_hold_go_and_nothing_else(dressed: tuple[Path, list[str]]) -> None:
    out, common = dressed
    assert infer.main([*common, "--save=cutout", "--only=upper"]) == 0
    shutil.copy(out / "a_cutout_upper.png", out / "a_cutout_lower.png")  # as if by other weights
    photo(out / "a_cutout_full.png")  # someone's own
    assert infer.main([*common, "--save=cutout"]) == 0
    assert names(out) == ["a_cutout_full.png", "a_cutout_upper.png"]


def test_cutouts_are_done_when_all_are_there(
    dressed: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, common = dressed
    again = [*common, "--save=cutout,json", "--skip_existing"]
    for missing in ("a.json", "a_cutout_upper.png", None):
        capsys.readouterr()
        assert infer.main(again) == 0
        done = " 1 photo done before" in capsys.readouterr().out
        assert done == (missing is None)
        if missing:
            (out / missing).unlink()
            if missing == "a_cutout_upper.png":
                assert infer.main(again) == 0
    only_upper = json.dumps({"classes": [{"name": "upper body", "pixels": 5}]}, indent=2) + "\n"
    for text in (only_upper, "[]\n", "{", '{"classes": [{}]}\n}\n', "[" * 100_000):
        (out / "a.json").write_text(text)
        assert infer.main(again) == 0
        assert "0 photos done before" in capsys.readouterr().out
        assert json.loads((out / "a.json").read_text())["width"] == 512


def test_no_photo_is_called_as_another_ones_output(tmp_path: Path, weights: Path) -> None:
    for name in ("a.jpg", "a_mask_upper.png", "b_mask_upper.png", "c.png", "C_CUTOUT_FULL.jpg"):
        photo(tmp_path / "in" / name)
    for save in ("mask", "mask,classes"):  # so that names are the same, whatever is saved
        assert infer.main(flags(tmp_path, weights, f"--save={save}")) == 0
        masks = [name for name in names(tmp_path / "out") if not re.search(r"(jpg|png|b_mask_upper)_mask_", name)]
        assert masks == [
            "C_CUTOUT_FULL.jpg.png", "a.jpg.png", "a_mask_upper.png.png", "b_mask_upper.png", "c.png.png",
        ]  # fmt: skip
    assert len(names(tmp_path / "out")) == 5 * 4


def test_no_output_takes_a_folders_name(tmp_path: Path, weights: Path) -> None:
    for name in ("a.jpg", "a.json/x.jpg", "b.jpg", "b_overlay.jpg/x.jpg", "c.jpg"):
        photo(tmp_path / "in" / name)
    assert infer.main(flags(tmp_path, weights, "--save=mask,overlay,json")) == 0
    found = [name for name in names(tmp_path / "out") if (tmp_path / "out" / name).is_file()]
    assert found == [
        "a.jpg.json", "a.jpg.png", "a.jpg_overlay.jpg", "b.jpg.json", "b.jpg.png", "b.jpg_overlay.jpg",
        "c.json", "c.png", "c_overlay.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("two", [("a", "a_mask_upper"), ("a.jpg", "a.jpg_mask_upper")])
def test_outputs_that_would_replace_one_another_are_refused(
    tmp_path: Path, weights: Path, two: tuple[str, str]
) -> None:
    for name in two:
        photo(tmp_path / "in" / name, format="PNG")
    with pytest.raises(DataError, match=r"expected photos whose files have names of their own, found a.* and a.*; ren"):
        infer.main(flags(tmp_path, weights, "--save=mask,classes"))
    assert names(tmp_path / "out") == []


def test_averaging_with_the_mirrored_photo_makes_the_result_mirror_with_the_photo(weights: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    both = [Image.fromarray(pixels), Image.fromarray(pixels[:, ::-1].copy())]
    plain, mirrored = (one.labels for one in Segmenter.load(weights, device="cpu")(both))
    averaged, averaged_mirrored = (one.labels for one in Segmenter.load(weights, device="cpu", flip=True)(both))
    assert (averaged == averaged_mirrored[:, ::-1]).mean() > 0.999
    assert (plain == mirrored[:, ::-1]).mean() < 0.95


def test_small_regions_go_on_request(weights: Path) -> None:
    pixels = np.random.default_rng(6).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    segment = Segmenter.load(weights, device="cpu")
    plain = segment(pixels).labels
    clean = replace(segment, min_area=0.05)(pixels).labels
    np.testing.assert_array_equal(clean, absorb_small(plain, 0.05))
    assert (clean != plain).any()


def test_sizes_that_do_not_fit_an_onnx_file_run_by_pytorch() -> None:
    bundled = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"
    assert Segmenter.load(bundled, device="cpu", size=(96, 64)).path.suffix == ".onnx"
    assert Segmenter.load(bundled, device="cpu", size=(96, 72)).path.suffix == ".pth"


def test_another_size_than_the_weights_know_is_said(weights: Path) -> None:
    assert "instead of" not in Segmenter.load(weights, device="cpu").describe()
    assert "instead of the 64 x 64" in Segmenter.load(weights, device="cpu", size=(128, 128)).describe()
    assert "instead of the 64 x 64" in Segmenter.load(weights, device="cpu", size="native").describe()


@pytest.mark.long
def test_several_processes_share_a_folder(tmp_path: Path, weights: Path) -> None:
    for number in range(5):
        photo(tmp_path / "in" / f"{number}.jpg", (40 + number, 30))
    (tmp_path / "in" / "notes.webp").write_text("not a photo")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    (tmp_path / "in" / "broken.jpg").write_text("not a photo either")
    report = tmp_path / "report.csv"
    more = [f"--output={tmp_path / 'shared'}", f"--report={report}"]
    done = run(*torchrun, "infer.py", *flags(tmp_path, weights, *more))
    assert done.returncode != 0  # a file is no photo
    assert done.stdout.count("Masks of") == 1
    assert "Masks of 5 photos in" in done.stdout
    assert "2 failed" in done.stdout
    assert done.stderr.count("Failed: ") == 2
    assert failed(report) == {"notes.webp", "broken.jpg"}
    assert infer.main(flags(tmp_path, weights)) == 1
    alone = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "shared").iterdir()} == alone
    assert len(alone) == 5


def test_batches_and_threads_give_the_same_masks_in_a_folder(tmp_path: Path, weights: Path) -> None:
    for number in range(7):
        photo(tmp_path / "in" / f"{number}.png", (30 + 5 * number, 40))
    (tmp_path / "in" / "3_broken.jpg").write_bytes(b"no photo")
    results = []
    for batch, workers in ((1, 1), (3, 2), (16, 4)):
        more = ["--save=mask,overlay", f"--batch_size={batch}", f"--workers={workers}"]
        assert infer.main(flags(tmp_path, weights, *more)) == 1
        results.append({path.name: np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*.png")})
        shutil.rmtree(tmp_path / "out")
    assert sorted(results[0]) == [f"{number}.png" for number in range(7)]
    for other in results[1:]:
        for name, mask in results[0].items():
            assert (other[name] == mask).mean() > 0.999


def test_an_output_that_cannot_be_written_harms_no_other(tmp_path: Path, weights: Path) -> None:
    for number in range(4):
        photo(tmp_path / "in" / f"{number}.png")
    (tmp_path / "out" / "2.png").mkdir(parents=True)  # where a mask is to go
    done = fork("infer.py", *flags(tmp_path, weights), folder=tmp_path / "said")
    assert done.returncode == 1
    assert re.search(r"Failed: \S*2.png: expected to write \S*2.png, found that it cannot be written", done.stderr)
    assert "Traceback" not in done.stderr
    assert list(masks(tmp_path)) == ["0.png", "1.png", "3.png"]
    assert "Masks of 3 photos in" in done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 kB."""
    disk = tmp_path / "out"
    disk.mkdir()
    if sys.platform != "linux" or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", disk]).returncode:
        pytest.skip("a disk of its own takes Linux and its root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_ends_the_run_which_goes_on_when_there_is_room(
    tmp_path: Path, weights: Path, small_disk: Path
) -> None:
    for number in range(30):
        photo(tmp_path / "in" / f"{number}.png", (64, 48))
    (tmp_path / "in" / "0.webp").write_text("not a photo")
    # One report has a place elsewhere, the other has none.
    for report in (tmp_path / "report.csv", small_disk / "report.csv"):
        done = fork("infer.py", *flags(tmp_path, weights, f"--report={report}", "--skip_existing"), folder=tmp_path)
        assert done.returncode == 1
        assert re.search(
            r"infer.py: \S*\.png: expected a disk that can be written, found one that cannot be \(No space left on "
            r"device\); once it can, the same command with --skip_existing goes on from here\n",
            done.stderr,
        )
        assert "Traceback" not in done.stderr
        assert not list(small_disk.glob(".*"))
    assert f"--report {small_disk / 'report.csv'}: expected a file that can be written: [Errno 28]" in done.stderr
    assert failed(tmp_path / "report.csv") == {"0.webp"}
    before = masks(tmp_path)
    assert 0 < len(before) < 30
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    done = fork("infer.py", *flags(tmp_path, weights, "--skip_existing"), folder=tmp_path)
    assert len(masks(tmp_path)) == 30
    assert (
        f"Masks of {30 - len(before)} photos in {tmp_path / 'out'}, {len(before)} photos done before, 1 failed"
        in done.stdout
    )


def failed(report: Path) -> set[str]:
    """Names in a report."""
    with report.open(newline="") as file:
        return {Path(row["photo"]).name for row in csv.DictReader(file)}


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX does it")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on(tmp_path: Path, weights: Path, number: signal.Signals) -> None:
    photo(tmp_path / "a.png", (64, 48))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.webp").write_text("not a photo")
    for name in range(1000, 2000):
        (tmp_path / "in" / f"{name}.png").symlink_to(tmp_path / "a.png")
    more = ["--save=mask,overlay", f"--report={tmp_path / 'report.csv'}"]
    stopped = Fork("infer.py", *flags(tmp_path, weights, *more), folder=tmp_path / "said")
    while not (tmp_path / "out" / "1003.png").exists():
        assert stopped.process.is_alive()
        time.sleep(0.01)
    os.kill(stopped.process.pid, number)
    done = stopped.wait()
    assert done.returncode == 1
    assert done.stderr.endswith("infer.py: interrupted\n")
    assert "Traceback" not in done.stderr
    assert failed(tmp_path / "report.csv") == {"0.webp"}
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(found) < 2000
    assert not [name for name in found if name.startswith(".")]
    assert len(found) == 2 * len([name for name in found if name.endswith("_overlay.jpg")])  # what was begun is whole

    for name in range(1000 + len(found) // 2 + 3, 2000):
        (tmp_path / "in" / f"{name}.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    done = fork("infer.py", *flags(tmp_path, weights, *more, "--skip_existing"), folder=tmp_path / "said")
    assert done.returncode == 1  # for what failed before is tried again
    assert (
        f"Masks and overlays of 3 photos in {tmp_path / 'out'}, {len(before) // 2} photos done before, 1 failed"
        in done.stdout
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX does it")
def test_processes_that_are_stopped_report_together(tmp_path: Path, weights: Path) -> None:
    photo(tmp_path / "a.png", (64, 48))
    (tmp_path / "in").mkdir()
    for name in range(4):
        (tmp_path / "in" / f"000{name}.webp").write_text("not a photo")
    for name in range(1000, 2000):
        (tmp_path / "in" / f"{name}.png").symlink_to(tmp_path / "a.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    arguments = ["infer.py", *flags(tmp_path, weights, f"--report={tmp_path / 'report.csv'}")]
    both = [Fork(*arguments, folder=tmp_path / rank, env=launcher | {"RANK": rank}) for rank in "01"]
    while not {"1004.png", "1005.png"} <= {path.name for path in (tmp_path / "out").glob("*")}:
        assert all(each.process.is_alive() for each in both)
        time.sleep(0.01)
    for each in both:
        os.kill(each.process.pid, signal.SIGTERM)
    for rank, each in enumerate(both):
        done = each.wait()
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert done.stderr.endswith(f"infer.py [rank {rank}]: interrupted\n")
    assert failed(tmp_path / "report.csv") == {"0000.webp", "0001.webp", "0002.webp", "0003.webp"}
    assert not list((tmp_path / "out").glob(".*"))


def test_what_is_there_is_left_alone_on_request(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "a.png", "b.jpg"):
        photo(tmp_path / "in" / name)
    assert infer.main(flags(tmp_path, weights)) == 0
    assert list(masks(tmp_path)) == ["a.jpg.png", "a.png.png", "b.png"]
    mask = (tmp_path / "out" / "a.jpg.png").read_bytes()
    (tmp_path / "out" / "a.jpg.png").write_bytes(b"left alone" + mask[-8:])
    (tmp_path / "out" / "a.png.png").unlink()
    assert infer.main(flags(tmp_path, weights, "--skip_existing")) == 0
    assert "Masks of 1 photo in" in (said := capsys.readouterr().out)
    assert "2 photos done before" in said
    assert (tmp_path / "out" / "a.jpg.png").read_bytes() == b"left alone" + mask[-8:]
    for cut in (b"", mask[:-1]):  # as other programs and full disks leave them
        (tmp_path / "out" / "a.jpg.png").write_bytes(cut)
        assert infer.main(flags(tmp_path, weights, "--skip_existing")) == 0
        assert (tmp_path / "out" / "a.jpg.png").read_bytes() == mask
    capsys.readouterr()
    assert infer.main(flags(tmp_path, weights)) == 0  # not asked for
    assert list(masks(tmp_path)) == ["a.jpg.png", "a.png.png", "b.png"]
    # The names of files follow the classes of the weights, so these are needed though nothing may be left to do.
    with pytest.raises(RunError, match=r"absent.pth: expected a weights file"):
        infer.main(flags(tmp_path, tmp_path / "absent.pth", "--skip_existing", "--save=mask,overlay"))


def test_a_report_that_cannot_be_written_is_said_at_once(tmp_path: Path, weights: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    (tmp_path / "notes.csv").write_text("mine")
    for report in (
        tmp_path,
        tmp_path / "in" / "a.png" / "report.csv",
        tmp_path / "in" / "a.png",
        tmp_path / "notes.csv",
    ):
        with pytest.raises(RunError, match=r"--report .*: expected a file that can be written"):
            infer.main(flags(tmp_path, weights, f"--report={report}"))
    assert masks(tmp_path) == {}
    assert (tmp_path / "notes.csv").read_text() == "mine"
    Image.open(tmp_path / "in" / "a.png").verify()


def test_weights_that_give_nan_are_named(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    # All of them finite, or the file would be refused.
    for found, values in {
        "NaN": {"stage1.rebnconvin.bn_s1.running_var": -1.0},
        "infinity": {"outconv.weight": 1e37} | {f"side{number}.bias": 1e3 for number in range(1, 7)},
    }.items():
        state = U2NETP(3, 4).state_dict()
        for key, value in values.items():
            state[key].fill_(value)
        save_weights(tmp_path / "w.pth", state, WeightsInfo("u2netp", CLOTHES, (64, 64), step=1))
        with pytest.raises(RunError, match=f"w.pth: expected finite logits, found {found}; the weights are damaged"):
            infer.main(flags(tmp_path, tmp_path / "w.pth"))
    assert masks(tmp_path) == {}


def test_names_are_told_where_nothing_but_ascii_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "\N{DRESS}.jpg").write_text("not a photo")
    bundled = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    output = tmp_path / "out \N{DRESS}"
    done = python("infer.py", *flags(tmp_path, bundled, f"--output={output}"), env=ascii_only)
    assert done.returncode == 1
    assert re.search(r"Failed: \S*\\\S*\.jpg: expected a picture", done.stderr)
    assert re.search(r"Masks of 0 photos in \S*out \\\S*, 1 failed", done.stdout)
    assert "Traceback" not in done.stderr


def test_a_mask_takes_no_folders_name(tmp_path: Path, weights: Path) -> None:
    for name in ("a.jpg", "a.png/b.jpg"):
        photo(tmp_path / "in" / name)
    assert infer.main(flags(tmp_path, weights)) == 0
    assert list(masks(tmp_path)) == ["a.jpg.png", "a.png/b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")
def test_memory_grows_by_a_byte_a_pixel_with_a_jpeg(tmp_path: Path) -> None:
    code = (
        "import sys, infer; code = infer.main(sys.argv[1:]); "
        "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')]); sys.exit(code)"
    )
    peaks = []
    for name, size in (("small", (1000, 1000)), ("large", (9000, 9000))):
        (tmp_path / name).mkdir()
        Image.new("RGB", size, "navy").save(tmp_path / name / "a.jpg")
        bundled = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"
        done = python("-c", code, *flags(tmp_path, bundled, f"--input={tmp_path / name}"))
        assert done.returncode == 0, done.stderr
        peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) * 1024)
    assert peaks[1] - peaks[0] < 2 * 9000 * 9000  # decoded whole, the photo alone would take four times its pixels
    assert masks(tmp_path)["a.png"] == (9000, 9000)


def test_a_large_photo_read_small_looks_the_same(tmp_path: Path, weights: Path) -> None:
    photo(tmp_path / "in" / "a.jpg", (2400, 1600))
    segment = Segmenter.load(weights, device="cpu")
    seen = segment.see(tmp_path / "in" / "a.jpg")
    assert (seen.square.shape, seen.size) == ((64, 64, 3), (2400, 1600))
    with Image.open(tmp_path / "in" / "a.jpg") as image:
        full = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(seen.square - full).mean() < 1  # of 255
