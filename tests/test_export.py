"""export.py and the ONNX files it writes."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, python, write_photos
from PIL import Image

import evaluate
import export
from cloth_segmentation.classes import CLASSES, CLOTHES, PALETTE
from cloth_segmentation.errors import RunError
from cloth_segmentation.onnx_engine import OnnxEngine
from cloth_segmentation.weights_info import WeightsInfo
from infer import Segmenter
from utils.weights_files import read_file, save_weights

SCENE = np.random.default_rng(3).integers(0, 255, (96, 64, 3)).astype(np.uint8)


new_enough = pytest.mark.skipif(not export.can_export(), reason="this PyTorch is too old for export.py")


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small weights with an ONNX file beside it."""
    if not export.can_export():
        pytest.skip("this PyTorch is too old for export.py")
    folder = tmp_path_factory.mktemp("exported")
    path = folder / "small.pth"
    shutil.copy(weights, path)
    assert export.main([f"--checkpoint={path}"]) == 0
    return path


@pytest.fixture(scope="module")
def in_eight_bits(exported: Path) -> Path:
    """The same with a second ONNX file, in 8 bits."""
    assert export.main([f"--checkpoint={exported}", "--int8"]) == 0
    return exported


@pytest.mark.long
def test_the_file_says_what_it_holds(exported: Path) -> None:
    """Read as another program would, which knows of nothing but ONNX Runtime."""
    session = onnxruntime.InferenceSession(exported.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    stated = session.get_modelmeta().custom_metadata_map
    info = json.loads(stated["info"])
    assert tuple(info["classes"]) == CLASSES
    assert info["size"] == [64, 64]
    assert json.loads(stated["palette"]) == [list(rgb) for rgb in PALETTE]
    assert [(item.name, item.type) for item in session.get_inputs()] == [("photos", "tensor(uint8)")]
    assert [(item.name, item.type) for item in session.get_outputs()] == [("logits", "tensor(float)")]


@pytest.mark.long
def test_no_paths_of_the_computer_that_made_it(in_eight_bits: Path) -> None:
    for name in ("small.onnx", "small_int8.onnx"):
        content = (in_eight_bits.parent / name).read_bytes()
        assert b"u2net.py" not in content
        assert str(ROOT).encode() not in content


@pytest.mark.long
@pytest.mark.parametrize(("number", "size"), [(1, (64, 64)), (3, (96, 160)), (2, (32, 64))])
def test_any_number_and_any_sides_of_multiples_of_32(exported: Path, number: int, size: tuple[int, int]) -> None:
    photos = [Image.fromarray(np.roll(SCENE, shift, 0)) for shift in range(number)]
    by_torch = Segmenter.load(exported, device="cpu", engine="torch", size=size)(photos, batch_size=number)
    by_onnx = Segmenter.load(exported, device="cpu", engine="onnx", size=size)(photos, batch_size=number)
    for first, second in zip(by_torch, by_onnx, strict=True):
        assert (first.labels == second.labels).mean() > 0.999


@pytest.mark.long
def test_other_sides_are_refused_in_words(exported: Path) -> None:
    segment = Segmenter.load(exported, device="cpu", engine="onnx", size=(64, 72))
    with pytest.raises(RunError, match=r"multiples of 32 pixels, found 64 x 72; give another --size"):
        segment([Image.fromarray(SCENE)])


@pytest.mark.long
def test_eight_bits_are_smaller_and_stay_close(in_eight_bits: Path) -> None:
    plain, small = in_eight_bits.with_suffix(".onnx"), in_eight_bits.with_name("small_int8.onnx")
    assert small.stat().st_size < 0.5 * plain.stat().st_size
    assert OnnxEngine(small).eight_bit
    assert not OnnxEngine(plain).eight_bit
    square = np.asarray(Image.open(ROOT / "input_images" / "astronaut.png").convert("RGB").resize((64, 64)))[None]
    first, second = OnnxEngine(plain)(square), OnnxEngine(small)(square)
    assert np.abs(first - second).mean() < 0.1 * np.abs(first).mean()
    assert (first != second).any()


@pytest.mark.long
def test_auto_takes_the_exported_file_but_never_8_bits(in_eight_bits: Path, tmp_path: Path) -> None:
    assert Segmenter.load(in_eight_bits, device="cpu").path.name == "small.onnx"
    assert Segmenter.load(in_eight_bits, device="cpu", engine="torch").path.name == "small.pth"
    assert Segmenter.load(in_eight_bits, device="cpu", size="native").path.name == "small.pth"
    assert Segmenter.load(in_eight_bits, device="cpu", amp="bf16").path.name == "small.pth"
    assert Segmenter.best_of(in_eight_bits.parent, "cpu", "auto", "off")[0].name == "small.onnx"
    in_eight_bits.with_suffix(".onnx").rename(tmp_path / "away.onnx")
    try:
        assert Segmenter.best_of(in_eight_bits.parent, "cpu", "auto", "off")[0].name == "small.pth"
        with pytest.raises(
            RunError,
            match=r"small.onnx: expected a network in an ONNX file, found no file; .*export.py --checkpoint .*l.pth",
        ):
            Segmenter.load(in_eight_bits, device="cpu", engine="onnx")
    finally:
        (tmp_path / "away.onnx").rename(in_eight_bits.with_suffix(".onnx"))


@pytest.mark.long
def test_figures_are_recorded_in_the_weights_which_the_file_then_lacks(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("small.pth", "small.onnx"):
        shutil.copy(exported.with_name(name), tmp_path / name)
    photos = write_photos(tmp_path, 2)
    flags = [f"--checkpoint={tmp_path / 'small.pth'}", f"--image_folder={photos.images}", f"--df_path={photos.csv}"]
    assert evaluate.main([*flags, "--record", "--device=cpu"]) == 0
    assert "small.onnx does not have them: python export.py" in capsys.readouterr().out
    recorded = Segmenter.load(tmp_path / "small.pth", device="cpu")
    assert recorded.path.name == "small.pth"
    assert recorded.info.mean_iou_clothes is not None


@pytest.mark.long
def test_a_file_made_from_other_weights_is_not_taken(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth", tmp_path / "w.pth")
    shutil.copy(exported.with_suffix(".onnx"), tmp_path / "w.onnx")
    assert Segmenter.load(tmp_path / "w.pth", device="cpu").path.name == "w.pth"
    assert "made from other weights; python export.py" in caplog.text
    with pytest.raises(RunError, match="made from other weights"):
        Segmenter.load(tmp_path / "w.pth", device="cpu", engine="onnx")


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.onnx").write_text("<html>")
    with pytest.raises(RunError, match=r"page.onnx: expected an ONNX file"):
        Segmenter.load(tmp_path / "page.onnx", device="cpu")
    identity = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([identity], "other", [x], [y])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "other.onnx",
    )
    with pytest.raises(
        RunError, match=r"other.onnx: expected 'cloth-segmentation onnx 1', found a file of another pro"
    ):
        Segmenter.load(tmp_path / "other.onnx", device="cpu")
    with pytest.raises(RunError, match=r"other.onnx: expected weights for PyTorch"):
        Segmenter.load(tmp_path / "other.onnx", device="cpu", engine="torch")


@pytest.mark.long
def test_an_onnx_file_runs_on_the_cpu_whatever_else_there_is(in_eight_bits: Path) -> None:
    assert Segmenter.load(in_eight_bits.with_name("small_int8.onnx")).describe().endswith("on the CPU, in 8 bits")
    with pytest.raises(RunError, match=r"small_int8.onnx: expected weights for PyTorch .*; it runs on the CPU"):
        Segmenter.load(in_eight_bits.with_name("small_int8.onnx"), device="cpu", amp="bf16")


@new_enough
def test_weights_of_other_sides_are_refused_at_once(weights: Path, tmp_path: Path) -> None:
    content = read_file(weights)
    save_weights(tmp_path / "w.pth", content["state_dict"], WeightsInfo("u2netp", CLOTHES, (64, 72), step=1))
    with pytest.raises(RunError, match=r"w.pth: expected weights .* multiples of 32 pixels, found 64 x 72"):
        export.main([f"--checkpoint={tmp_path / 'w.pth'}"])


def test_photos_are_spread_over_the_folder(weights: Path, tmp_path: Path) -> None:
    for number in range(10):
        Image.new("RGB", (8 + number, 8)).save(tmp_path / f"{number}.png")
    segment = Segmenter.load(weights, device="cpu")
    found = [seen.size[0] - 8 for seen in export.read_photos(segment, tmp_path, 4)]
    assert found == [0, 3, 6, 9]
    assert len(export.read_photos(segment, tmp_path, 64)) == 10


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the broken library is found by PYTHONPATH")
def test_without_onnx_runtime_pytorch_takes_over(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('DLL load failed')")
    Image.fromarray(SCENE).save(tmp_path / "a.png")
    flags = [f"--input={tmp_path / 'a.png'}", f"--output={tmp_path / 'out'}", "--device=cpu"]
    found = {"PYTHONPATH": str(tmp_path)}
    done = python("infer.py", *flags, f"--checkpoint={exported}", env=found)
    assert done.returncode == 0, done.stderr
    assert "Left out: " in done.stderr
    assert "DLL load failed" in done.stderr
    assert "by PyTorch on cpu" in done.stdout
    done = python("infer.py", *flags, f"--checkpoint={exported}", "--engine=onnx", env=found)
    assert done.returncode == 1
    assert "expected ONNX Runtime, found none that can be loaded (DLL load failed)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_nothing_is_imported_that_the_job_does_not_need(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(SCENE).save(tmp_path / "in" / "a.png")
    code = (
        "import sys, infer; code = infer.main(sys.argv[1:]); "
        "print('imported', *sorted({name.split('.')[0] for name in sys.modules})); sys.exit(code)"
    )
    done = python(
        "-c",
        code,
        f"--checkpoint={exported}",
        "--device=cpu",
        "--no-consistent",  # noise is torn everywhere; regions need scipy
        f"--input={tmp_path / 'in'}",
        f"--output={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    imported = next(line for line in done.stdout.splitlines() if line.startswith("imported")).split()
    assert "onnxruntime" in imported
    assert not {"torch", "torchvision", "pandas", "scipy", "onnx", "tensorboardX", "gdown"} & set(imported)
    assert (tmp_path / "out" / "a.png").exists()


@new_enough
def test_nothing_is_written_where_there_are_no_photos(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("none")
    with pytest.raises(RunError, match=r"--photos .*: expected photos to check the file on, found none"):
        export.main([f"--checkpoint={weights}", f"--photos={tmp_path / 'photos'}", f"--output={tmp_path / 'o.onnx'}"])
    assert not list(tmp_path.glob("*onnx*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint=a.onnx"], "--checkpoint: expected a .pth file"),
        (["--output=a.pth"], "--output: expected a name that ends in .onnx"),
    ],
)
def test_wrong_usage(flags: list[str], message: str) -> None:
    done = python("export.py", *flags)
    assert done.returncode == 2
    assert message in done.stderr


@new_enough
def test_a_missing_checkpoint_is_a_sentence() -> None:
    done = python("export.py", "--checkpoint=absent.pth")
    assert done.returncode == 1
    assert "absent.pth: expected a weights file, found none" in done.stderr
    assert "Traceback" not in done.stderr
