"""The library as people install it: one package, that needs no clone and no PyTorch."""

import re
import shutil
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from PIL import Image

import cloth_segmentation

PHOTO = ROOT / "input_images" / "grace_hopper.jpg"

HOSTILE = "raise ImportError('a module of the working folder was imported')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    done = run(*command, "--wheel-dir", folder, ROOT)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return path


def requirements(name: str) -> list[str]:
    """Names of the distributions that one asks for, of those without extras, and of those that they ask for."""
    found: list[str] = []
    for line in distribution(name).requires or []:
        if "extra ==" not in line and "python_version" not in line and "platform" not in line:
            needed = re.split(r"[^\w.-]", line)[0]
            found += [needed, *requirements(needed)]
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a virtual environment that has the wheel and what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    done = run(sys.executable, "-m", "pip", f"--python={folder}", "install", "--no-deps", "--no-index", "-q", wheel)
    assert done.returncode == 0, done.stderr
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        asked = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*; extra)", archive.read(metadata).decode(), re.MULTILINE)
    assert sorted(asked) == ["numpy", "onnxruntime", "pillow", "scipy", "tqdm"]
    needed = {*asked, *(each for name in asked for each in requirements(name))}
    for name in needed:
        top = {path.parts[0] for path in distribution(name).files or [] if path.parts[0] != ".."}
        for part in top - {"__pycache__"}:
            if not (packages / part).exists():
                (packages / part).symlink_to(Path(str(distribution(name).locate_file(part))))
    return python.parent


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working folder whose modules have the names of ours."""
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text(HOSTILE)
    for name in ("data", "options", "networks", "infer"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    (tmp_path / "photos").mkdir()
    shutil.copy(PHOTO, tmp_path / "photos" / "hopper.jpg")
    return tmp_path


def test_the_wheel_is_one_package_with_the_weights_inside(wheel: Path) -> None:
    assert wheel.stat().st_size < 8e6
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"cloth_segmentation"}
    for name in ("py.typed", "weights/cloth_segm_u2netp.onnx", "command/main.py"):
        assert f"cloth_segmentation/{name}" in names
    assert any(name.endswith("LICENSE") and "trained_checkpoint" in name for name in names)


def test_it_works_beside_other_programs_without_pytorch(installed: Path, hostile: Path) -> None:
    code = (
        "import sys; from cloth_segmentation import Segmenter; "
        "one = Segmenter.load()('photos/hopper.jpg'); "
        "one.cutout('upper').save('top.png'); one.mask().save('mask.png'); "
        "assert not {'torch', 'pandas', 'utils', 'data', 'options'} & set(sys.modules); "
        "import importlib.util; assert importlib.util.find_spec('torch') is None"
    )
    done = run(installed / "python", "-c", code, cwd=hostile)
    assert done.returncode == 0, done.stderr
    with Image.open(hostile / "top.png") as cutout, Image.open(hostile / "mask.png") as mask:
        assert cutout.mode == "RGBA"
        here = cloth_segmentation.Segmenter.load(ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx", device="cpu")
        np.testing.assert_array_equal(mask, here(PHOTO).labels)


@pytest.mark.parametrize("command", [["cloth-segmentation"], ["python", "-m", "cloth_segmentation"]])
def test_the_command_comes_along(installed: Path, hostile: Path, command: list[str]) -> None:
    program, *words = command
    done = run(installed / program, *words, "photos/", "masks/", "--save", "cutout,json", cwd=hostile)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (hostile / "masks").iterdir()} >= {"hopper.json", "hopper_cutout_upper.png"}

    done = run(installed / program, *words, "--sav=mask", cwd=hostile)
    assert done.returncode == 2
    name = " ".join(command)
    assert done.stderr == f"{name}: --sav: unknown option; did you mean --save?\nSee {name} --help.\n"

    for arguments, message in (
        (["", "masks"], "--input: expected a path, found an empty text"),
        (["a", "b", "c"], "'c': expected input and output, each once, and other options with --, found another word"),
        (["photos", "masks", "--input=b"], "'masks': expected input and output, each once"),
        (["--input=photos", "--outptu", "masks"], "--outptu: unknown option; did you mean --output?"),
    ):
        done = run(installed / program, *words, *arguments, cwd=hostile)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{name}: {message}")
    (hostile / "photos").rename(hostile / "-photos")
    for arguments in (["--", "-photos", "again"], ["--input=-photos", "again"]):
        done = run(installed / program, *words, *arguments, cwd=hostile)
        assert done.returncode == 0, done.stderr
        assert (hostile / "again" / "hopper.png").exists()
    (hostile / "-photos").rename(hostile / "photos")
    done = run(installed / program, *words, "https://example.org/a.jpg", cwd=hostile)
    assert done.returncode == 1
    assert "--input https://example.org/a.jpg: expected photos on this machine, found an address" in done.stderr
    done = run(installed / program, *words, "--version", cwd=hostile)
    assert done.stdout == f"{name} {cloth_segmentation.__version__}\n"

    (hostile / "photos").rename(hostile / "batch")
    done = run(installed / program, *words, "./batch", "masks_of_batch", cwd=hostile)
    assert done.returncode == 0, done.stderr
    (hostile / "batch").rename(hostile / "photos")

    done = run(installed / program, *words, "photos/", "masks/", "--engine=torch", cwd=hostile)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: expected PyTorch for engine torch, ")
    assert "a clone of the project has PyTorch" in done.stderr


@pytest.mark.parametrize("command", [["cloth-segmentation"], ["python", "-m", "cloth_segmentation"]])
def test_its_words_for_batches_and_for_the_service_come_along(
    installed: Path, hostile: Path, command: list[str]
) -> None:
    program, *words = command
    name = " ".join([*command, "batch"])
    for arguments, code, said in (
        (["--version"], 0, f"{name} {cloth_segmentation.__version__}\n"),
        (["--outptu=x"], 2, f"{name}: --outptu: unknown option; did you mean --output?\nSee {name} --help.\n"),
        (["a", "b", "c"], 2, f"{name}: 'c': expected input and output, each once, and other options with --"),
        (["--input", "photos", "--output", "table"], 1, f"{name}: expected Ray Data, found none that can be loaded ("),
        (["photos", "table"], 1, "pip install '.[ray]'"),
    ):
        done = run(installed / program, *words, "batch", *arguments, cwd=hostile)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    done = run(installed / program, *words, "serve", cwd=hostile)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{' '.join(command)} serve: expected FastAPI and uvicorn, found none that can be lo")
    assert "pip install '.[serve]'" in done.stderr
    done = run(installed / program, *words, "batch", "--help", cwd=hostile)
    assert done.stdout.startswith(f"usage: {name} [options] [INPUT] [OUTPUT]\n")


def test_without_weights_all_places_are_named(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("weights", "__pycache__")
    shutil.copytree(ROOT / "cloth_segmentation", tmp_path / "cloth_segmentation", ignore=ignored)
    done = run(sys.executable, "-m", "cloth_segmentation", "--input", PHOTO, "--output=masks", cwd=tmp_path)
    assert done.returncode == 1
    assert "expected weights in trained_checkpoint, " in done.stderr
    assert "setup_model_weights.py --released" in done.stderr


def test_weights_of_the_working_folder_come_first_then_those_of_the_clone(tmp_path: Path) -> None:
    """The same file in all places: its own name, or the bundled one, tells which was taken."""
    bundled = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"
    clone, folder = tmp_path / "clone", tmp_path / "folder"
    shutil.copytree(ROOT / "cloth_segmentation", clone / "cloth_segmentation")
    (clone / "infer.py").touch()
    for place, name in ((clone / "cloth_segmentation" / "weights", "package"), (clone / "trained_checkpoint", "clone")):
        place.mkdir()
        shutil.copy(bundled, place / f"{name}.onnx")
    (folder / "trained_checkpoint").mkdir(parents=True)
    shutil.copy(bundled, folder / "trained_checkpoint" / "working.onnx")

    def used() -> str:
        code = "from cloth_segmentation import Segmenter; print(Segmenter.load().path.stem)"
        done = run(sys.executable, "-c", code, cwd=folder, env={"PYTHONPATH": str(clone)})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert used() == "working"
    (folder / "trained_checkpoint" / "working.onnx").write_bytes(b"broken")
    assert used() == "clone"
    (clone / "infer.py").unlink()  # and it is none
    assert used() == "package"


def test_the_promise_is_kept() -> None:
    assert all(hasattr(cloth_segmentation, name) for name in cloth_segmentation.__all__)
    for error in (cloth_segmentation.DataError, cloth_segmentation.RunError, cloth_segmentation.DeviceError):
        assert issubclass(error, cloth_segmentation.Error)


def test_what_the_library_needs_is_what_a_clone_needs_too() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    [needed] = re.findall(r"^dependencies = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for requirement in re.findall(r'"([^"]+)"', needed):
        assert requirement in lines
