"""Weights files and training states that are not what they should be, and what the scripts say of them."""

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from conftest import ROOT, PhotoFolder, TrainFlags, fork
from PIL import Image

from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.onnx_engine import metadata
from cloth_segmentation.weights_info import WeightsInfo
from infer import Segmenter
from networks import U2NETP
from utils.weights_files import read_file

BUNDLED = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"

Edit = Callable[[Path], None]
"""Makes of a good weights file a bad one."""


def written(content: bytes) -> Edit:
    return lambda path: path.write_bytes(content) and None


def changed(edit: Callable[[dict[str, Any]], object]) -> Edit:
    """Change the content of the file, in place."""

    def change(path: Path) -> None:
        content = read_file(path)
        edit(content)
        torch.save(content, path)

    return change


def stated(**fields: object) -> Edit:
    return changed(lambda content: content.update(fields))


def tensor(key: str, edit: Callable[[torch.Tensor], object]) -> Edit:
    return changed(lambda content: content["state_dict"].update({key: edit(content["state_dict"][key])}))


def rewritten(edit: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_STORED) -> Edit:
    """Change the parts of the zip file, whose sums are right again after that."""

    def rewrite(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        edit(parts)
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, part in parts.items():
                archive.writestr(name, part)

    return rewrite


def beyond_the_file(parts: dict[str, bytes]) -> None:
    """A tensor whose storage is much larger than the bytes that are there."""
    content = io.BytesIO()
    torch.save({"state_dict": {"x": torch.zeros(100)}}, content)
    with zipfile.ZipFile(content) as archive:
        good = {name: archive.read(name) for name in archive.namelist()}
    [name] = [name for name in good if name.endswith("data.pkl")]
    assert good[name].count(b"Kd") >= 2  # 100, as pickle writes it
    parts.clear()
    parts.update(good | {name: good[name].replace(b"Kd", b"J" + struct.pack("<i", 2**30))})


class Huge:
    """Unpickles to gigabytes by what PyTorch holds for safe."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return (bytearray, (2**36,))


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def older(share: float) -> Edit:
    """The first part of the same weights in PyTorch's format before 1.6."""

    def change(path: Path) -> None:
        torch.save(read_file(path), path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        path.write_bytes(content[: round(share * len(content))])

    return change


def holding_itself(path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, path)


def archived(path: Path) -> None:
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.pth", content)
        archive.writestr("license.txt", "MIT")


def zeroed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100_000:104_096] = bytes(4096)
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def not_there(path: Path) -> None:
    path.unlink()


def bare(state: Callable[[], object]) -> Edit:
    return lambda path: torch.save(state(), path)


def safetensors_file(edit: Callable[[bytes], bytes]) -> Edit:
    """The same weights as safetensors, changed."""

    def change(path: Path) -> None:
        content = safetensors.torch.save(read_file(path)["state_dict"])
        path.write_bytes(edit(content))

    return change


def onnx_file(edit: Callable[[Any], object]) -> Edit:
    def change(path: Path) -> None:
        model = onnx.load(BUNDLED)
        edit(model)
        onnx.save(model, path)

    return change


def metadata_without(model: Any, name: str) -> None:
    kept = [entry for entry in model.metadata_props if entry.key != name]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def metadata_with(model: Any, name: str, value: str) -> None:
    metadata_without(model, name)
    model.metadata_props.add(key=name, value=value)


def info_with(**fields: object) -> str:
    return json.dumps(WeightsInfo("u2netp", CLOTHES, (64, 64), step=1).to_dict() | fields)


def other_network(model: Any) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    other = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", value[:1], value[1:]),
        ir_version=8,
        opset_imports=[onnx.helper.make_opsetid("", 17)],
    )
    onnx.helper.set_model_props(other, metadata(WeightsInfo("u2netp", CLOTHES, (64, 64), step=1), "0", eight_bit=False))
    model.CopyFrom(other)


KEY = "stage1.rebnconvin.bn_s1.bias"
UNREADABLE = r"expected a file of tensors that torch.save wrote, found "
MATRIX: dict[str, tuple[Edit, str]] = {
    "not there": (not_there, r"w.pth: expected a weights file, found none"),
    "a folder": (a_folder, r"w.pth: expected a weights file, found a folder"),
    "empty": (written(b""), UNREADABLE + "an empty file"),
    "a web page": (written(b"\n<!DOCTYPE html><title>Quota exceeded</title>"), UNREADABLE + "a web page"),
    "a text": (written(b"weights of 2019"), UNREADABLE + "one of another kind; name one that torch.save"),
    "zeros": (written(bytes(5000)), UNREADABLE + "one that is cut off or damaged; copy or download it again"),
    "a Git LFS pointer": (written(b"version https://git-lfs.github.com/spec/v1"), "a Git LFS pointer, .*git lfs pull"),
    "cut off": (cut, UNREADABLE + "one that is cut off or damaged"),
    "a page of zeros within": (zeroed, UNREADABLE + "one that is cut off or damaged"),
    "only the first bytes of a zip": (written(b"PK\x03\x04"), UNREADABLE + "one that is cut off or damaged"),
    "fewer of them": (written(b"PK"), UNREADABLE + "one that is cut off or damaged"),
    "the older format, cut off": (older(0.5), UNREADABLE + "one that is cut off or damaged"),
    "the older format, cut off within its names": (older(0.001), UNREADABLE + "one that is cut off or damaged"),
    "a pickle of plain values": (written(pickle.dumps({"a": 1})), UNREADABLE + "one of another kind"),
    "a pickle of arrays": (written(pickle.dumps({"a": np.zeros(1)})), "cannot be read safely, since it asks for"),
    "a zip of which little is right": (
        lambda path: path.write_bytes(
            path.read_bytes().replace(b"PK\x03\x04", b"QK\x03\x04").replace(b"PK\x01\x02", b"QK")
        ),
        UNREADABLE + "one of another kind",
    ),
    "an archive of it": (archived, UNREADABLE + "an archive of w.pth, license.txt; unpack it"),
    "the state of a training run": (
        changed(lambda content: content.update(parts={"network": content.pop("state_dict")}, step=1)),
        "expected weights, found the state of a run; the run's weights are beside it, in checkpoints/",
    ),
    "a part that is there twice": (twice, UNREADABLE + "one that is cut off or damaged"),
    "an ONNX file": (lambda path: path.write_bytes(BUNDLED.read_bytes()), UNREADABLE + "an ONNX file"),
    "a whole network": (
        bare(lambda: torch.nn.Linear(2, 2)),
        r"found a whole pickled model, .*torch.nn.* Linear\); .*state_dict",
    ),
    "what takes any amount of memory": (bare(lambda: {"x": Huge()}), "since it asks for .* bytearray"),
    "a zip of something else": (rewritten(lambda parts: parts.clear()), UNREADABLE),
    "parts that unpack": (rewritten(lambda parts: None, zipfile.ZIP_DEFLATED), UNREADABLE + "one that is cut off"),
    "a tensor beyond the file": (rewritten(beyond_the_file), UNREADABLE),
    "safetensors that are cut off": (
        safetensors_file(lambda content: content[:-1000]),
        UNREADABLE + "one that is cut off",
    ),
    "safetensors of which the length is there": (
        safetensors_file(lambda content: content[:7]),
        UNREADABLE + "one of another kind",  # its name does not tell
    ),
    "safetensors of something else": (
        safetensors_file(lambda content: content.replace(b"side1.bias", b"side1.bisa")),
        "1 tensors missing",
    ),
    "a list": (bare(lambda: [1, 2]), r"expected a dictionary of tensors, found list"),
    "a dictionary that holds itself": (holding_itself, r"expected a state dict of tensors, found model"),
    "several state dicts": (
        changed(lambda content: content.update(net=content.pop("state_dict"), ema={"x": torch.zeros(1)})),
        r"expected a state dict of tensors, found format, .*; where it was made, torch.save\(network.state_dict\(\)",
    ),
    "no tensors": (bare(lambda: {"a": 1}), r"expected a state dict of tensors, found a"),
    "numbered keys": (bare(lambda: {1: torch.zeros(1)}), r"expected a state dict of tensors, found 1"),
    "sparse tensors": (tensor(KEY, torch.Tensor.to_sparse), r"since it asks for torch._utils _rebuild_sparse_tensor"),
    "complex tensors": (tensor(KEY, lambda value: value + 1j), r"since it asks for torch ComplexFloatStorage"),
    "a number that stands for many": (
        tensor(KEY, lambda value: torch.ones(1).expand(len(value))),
        r"expected dense tensors",
    ),
    "tensors without content": (tensor(KEY, lambda value: value.to("meta")), r"since it asks for .* _rebuild_meta"),
    "a tensor of an absurd size": (
        tensor("outconv.bias", lambda value: torch.zeros(1).expand(2**40)),
        r"expected dense tensors, found that one number stands for many in outconv.bias",
    ),
    "another network": (
        bare(lambda: torch.nn.Linear(2, 2).state_dict()),
        r"expected the weights of u2net or u2netp, found 2 tensors of another network \(weight, bias\); name",
    ),
    "a tensor missing": (changed(lambda content: content["state_dict"].pop(KEY)), r"1 tensors missing"),
    "one class": (
        bare(lambda: U2NETP(3, 1).state_dict()),
        r"found it for 1, which it does not name; .* need a new head",
    ),
    "two classes": (
        bare(lambda: U2NETP(3, 2).state_dict()),
        r"found it for 2, which .* need a new head",
    ),
    "grey photos": (bare(lambda: U2NETP(1, 4).state_dict()), r"u2netp: .* 1 of another shape, stage1.rebnconvin.conv"),
    "NaN": (tensor(KEY, lambda value: value * torch.nan), rf"expected finite numbers, found NaN .* in 1 of .*, {KEY}"),
    "infinity": (tensor("outconv.bias", lambda value: value + torch.inf), r"expected finite numbers"),
    "a later format": (stated(format="cloth-segmentation weights 2"), r"it needs another version of this"),
    "classes without background": (
        stated(classes=("a", "b", "c", "d")),
        r"expected background and 1 to 255 other classes, found 4, a, b, c",
    ),
    "names of too few classes": (
        stated(classes=("background", "hat", "shoe")),
        r"expected u2netp for 3 classes \(background, hat, shoe\), found it for 4",
    ),
    "a class set that is a text": (
        stated(class_set="mine"),
        r"expected a class set, found str",
    ),
    "a class set of other names": (
        stated(class_set=ClassSet.of_names(("background", "hat")).to_dict()),
        r"expected a class set of background, .*, found background, hat; the file is damaged",
    ),
    "classes that are no texts": (stated(classes=(1, 2, 3, 4)), r"expected classes as .* found '\(1, 2, 3, 4\)'"),
    "a size that is a text": (stated(size="big"), r"expected size as .* found 'big'"),
    "no size": (changed(lambda content: content.pop("size")), r"expected size as .* found 'None'"),
    "a size of nothing": (stated(size=(0, 64)), r"expected size as .* found '\(0, 64\)'"),
    "a deviation of zero": (stated(std=0.0), r"expected std as .* found '0.0'"),
    "a mean that is NaN": (stated(mean=float("nan")), r"expected mean as .* found 'nan'"),
    "a mean without end": (stated(mean=10**400), r"expected mean as .* found '1000"),
    "a size without end": (stated(size=(2**40, 64)), r"expected size as .* found '\(1099511627776, 64\)'"),
    "steps as a text": (stated(step="many"), r"expected step as .* found 'many'"),
    "an IoU above one": (stated(mean_iou_clothes=7.0), r"expected mean_iou_clothes as .* found '7.0'"),
    "weights that are not trained": (stated(step=0), r"expected trained weights, found initial ones"),
}

ONNX_MATRIX: dict[str, tuple[Edit, str]] = {
    "not there": (not_there, r"w.onnx: expected a network in an ONNX file, found no file"),
    "empty": (written(b""), r"expected an ONNX file, found an empty file"),
    "a Git LFS pointer": (written(b"version https://git-lfs.github.com/spec/v1"), "a Git LFS pointer, .*lfs pull"),
    "a web page": (written(b"<html>"), r"expected an ONNX file, found a web page"),
    "cut off": (written(BUNDLED.read_bytes()[:-9000]), r"found one that is cut off or damaged; copy or download"),
    "only the first bytes": (written(BUNDLED.read_bytes()[:100]), r"found one that is cut off or damaged; copy"),
    "zeros": (written(bytes(5000)), r"found one that is cut off or damaged; copy or download it again"),
    "a text": (written(b"weights of 2019"), r"expected an ONNX file, found one that ONNX Runtime cannot read"),
    "of another program": (onnx_file(lambda model: metadata_without(model, "format")), r"a file of another program"),
    "no sum": (onnx_file(lambda model: metadata_without(model, "source_sha256")), r"changed since \('source_sha256'\)"),
    "broken JSON": (onnx_file(lambda model: metadata_with(model, "info", "{")), r"changed since \(Expecting"),
    "JSON without end": (onnx_file(lambda model: metadata_with(model, "info", "[" * 100_000)), r"changed since"),
    "a mean without end": (
        onnx_file(lambda model: metadata_with(model, "info", info_with(mean=10**400))),
        r"expected mean as",
    ),
    "no fields": (onnx_file(lambda model: metadata_with(model, "info", "[]")), r"changed since"),
    "a wrong size": (onnx_file(lambda model: metadata_with(model, "info", info_with(size=[5]))), r"expected size as"),
    "other classes": (
        onnx_file(lambda model: metadata_with(model, "info", info_with(classes=["a"]))),
        r"expected background and 1 to 255 other classes, found 1, a",
    ),
    "names of too few classes": (
        onnx_file(lambda model: metadata_with(model, "info", info_with(classes=["background", "hat"]))),
        r"found 4 classes in the network, and the names of 2",
    ),
    "another network": (onnx_file(other_network), r"changed since \(found a network from and to \[\('x', 'tensor"),
}  # fmt: skip


def segment(weights: Path, folder: Path) -> Any:
    (folder / "in").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "in" / "a.png")
    flags = [f"--input={folder / 'in'}", f"--output={folder / 'out'}", "--device=cpu", f"--checkpoint={weights}"]
    return fork("infer.py", *flags, folder=folder / "printed")


def assert_refused(done: Any, words: str, folder: Path) -> None:
    assert done.returncode == 1
    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert list((folder / "out").glob("*")) == []


@pytest.mark.parametrize("kind", MATRIX)
def test_bad_weights_are_named(kind: str, weights: Path, tmp_path: Path) -> None:
    edit, words = MATRIX[kind]
    path = tmp_path / "w.pth"
    path.write_bytes(weights.read_bytes())
    edit(path)
    assert_refused(segment(path, tmp_path), words, tmp_path)


@pytest.mark.parametrize("kind", ONNX_MATRIX)
def test_bad_onnx_files_are_named(kind: str, tmp_path: Path) -> None:
    edit, words = ONNX_MATRIX[kind]
    path = tmp_path / "w.onnx"
    path.touch()
    edit(path)
    assert_refused(segment(path, tmp_path), words, tmp_path)


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


def plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


PLACES = {
    "infer.py --checkpoint": ["infer.py", "--checkpoint={bad}", "--input={images}", "--output={out}"],
    "infer.py --engine onnx": ["infer.py", "--checkpoint={onnx}", "--input={images}", "--output={out}"],
    "evaluate.py --checkpoint": ["evaluate.py", "--checkpoint={bad}", "--image_folder={images}", "--df_path={csv}"],
    "export.py --checkpoint": ["export.py", "--checkpoint={bad}", "--output={out}/w.onnx", "--photos={images}"],
    "train.py --unet_checkpoint": ["train.py", "{train}", "--iter=1", "--unet_checkpoint={bad}"],
    "train.py --continue_train": ["train.py", "{train}", "--iter=1", "--continue_train", "--name=stopped"],
    "setup_model_weights.py --source": ["setup_model_weights.py", "--source={bad}", "--output={out}/w.pth"],
    "setup_model_weights.py --average": ["setup_model_weights.py", "--average={bad},{bad}", "--output={out}/w.pth"],
}


@pytest.mark.parametrize("write", [torch.save, legacy, plain_pickle])
@pytest.mark.parametrize("place", PLACES)
def test_code_in_a_file_never_runs(
    place: str,
    write: Callable[[object, Path], None],
    photo_folder: PhotoFolder,
    train_flags: TrainFlags,
    tmp_path: Path,
) -> None:
    trap = tmp_path / "it_ran"
    stopped = tmp_path / "results" / "stopped"
    stopped.mkdir(parents=True)
    bad = {"bad": tmp_path / "bad.pth", "onnx": tmp_path / "bad.onnx", "state": stopped / "training_state.pth"}
    for path in bad.values():
        write({"state_dict": {"x": Malicious(trap)}, "arch": Malicious(trap)}, path)
    names = bad | {"images": photo_folder.images, "csv": photo_folder.csv, "out": tmp_path / "out"}
    words = [
        flag for word in PLACES[place] for flag in (train_flags() if word == "{train}" else [word.format(**names)])
    ]
    done = fork(*words, folder=tmp_path / "printed")
    assert done.returncode == 1
    assert re.search(r"(bad.pth|bad.onnx|training_state.pth): expected", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not trap.exists()
    assert list((tmp_path / "out").glob("*")) == []


@pytest.mark.parametrize("ending", ["pth", "safetensors", "onnx"])
@pytest.mark.parametrize("place", PLACES)
def test_a_git_lfs_pointer_is_named_wherever_weights_are_read(
    place: str, ending: str, photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    stopped = tmp_path / "results" / "stopped"
    stopped.mkdir(parents=True)
    bad = tmp_path / f"bad.{ending}"
    for path in (bad, stopped / "training_state.pth"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:3f2a1b\nsize 176625341\n")
    names = {"bad": bad, "onnx": bad, "images": photo_folder.images, "csv": photo_folder.csv, "out": tmp_path / "out"}
    words = [
        flag for word in PLACES[place] for flag in (train_flags() if word == "{train}" else [word.format(**names)])
    ]
    done = fork(*words, folder=tmp_path / "printed")
    if place == "export.py --checkpoint" and ending == "onnx":
        assert "--checkpoint: expected a .pth file" in done.stderr  # whatever it holds
    else:
        assert done.returncode == 1
        assert "found a Git LFS pointer, which stands for the file; git lfs pull fetches it" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_trap_works(tmp_path: Path) -> None:
    """What the tests above show not to happen would be seen."""
    torch.save(Malicious(tmp_path / "it_ran"), tmp_path / "bad.pth")
    torch.load(tmp_path / "bad.pth", weights_only=False)
    assert (tmp_path / "it_ran").exists()


def test_code_among_weights_that_are_looked_for_never_runs(tmp_path: Path, weights: Path) -> None:
    torch.save({"state_dict": {"x": Malicious(tmp_path / "it_ran")}}, tmp_path / "bad.pth")
    (tmp_path / "good.pth").write_bytes(weights.read_bytes())
    assert Segmenter.best_of(tmp_path, "cpu", "auto", "off")[0].name == "good.pth"
    assert not (tmp_path / "it_ran").exists()


def test_code_in_a_prepared_square_never_runs(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    flags = train_flags("--iter=4", f"--prepared_dir={tmp_path / 'squares'}")
    assert fork("train.py", *flags, folder=tmp_path / "printed").returncode == 0
    squares = sorted((tmp_path / "squares").rglob("*.npy"))
    assert len(squares) == 8
    for path in squares:
        np.save(path, np.array([Malicious(tmp_path / "it_ran")], dtype=object))
    again = fork("train.py", *flags, "--name=again", folder=tmp_path / "printed")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "it_ran").exists()
    states = [read_file(tmp_path / "results" / name / "training_state.pth") for name in ("run", "again")]
    assert states[0]["weights_sha256"] == states[1]["weights_sha256"]  # squares were made anew
