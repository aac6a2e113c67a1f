"""demo.ipynb, from its first cell to its last."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import types
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock
from zipfile import ZipFile

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from cloth_segmentation.classes import CLASSES
from infer import Segmentation, Segmenter

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
transform = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager().transform_cell

pytestmark = pytest.mark.long

COMMITTED = json.loads((ROOT / "demo.ipynb").read_text(encoding="utf-8"))
SOURCES = {cell["id"]: "".join(cell["source"]) for cell in COMMITTED["cells"]}
PHOTOS = ["input_images/astronaut.png", "input_images/grace_hopper.jpg"]
NEEDED = (
    "demo.ipynb", "requirements.txt", "infer.py", "cloth_segmentation", "options", "networks", "data",
    "utils", "trained_checkpoint", "input_images",
)  # fmt: skip


def copy_project(folder: Path) -> None:
    """What someone has who has cloned the project, as far as the notebook needs it."""
    folder.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def expected() -> dict[str, Segmentation]:
    """What the Python interface says of the bundled photos; rounding differs between numbers of threads."""
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=""):
        segment = Segmenter.load(ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth", device="cpu")
        return {path: segment(ROOT / path) for path in PHOTOS}


class Ran:
    """The notebook after it has run."""

    def __init__(self, folder: Path, notebook: Any) -> None:
        self.folder = folder
        self.outputs = {cell.id: cell.get("outputs", []) for cell in notebook.cells}

    def text(self, cell: str) -> str:
        """What a cell printed."""
        return "".join(output.text for output in self.outputs[cell] if output.output_type == "stream")

    def pictures(self, cell: str) -> list[np.ndarray]:
        """Pictures that a cell showed, (H, W, 3)."""
        shown = [output.data["image/png"] for output in self.outputs[cell] if "image/png" in output.get("data", {})]
        return [np.asarray(Image.open(BytesIO(base64.b64decode(each))).convert("RGB")) for each in shown]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run all cells in a copy of the project, by this Python, whatever kernels and settings the machine has."""
    folder = tmp_path_factory.mktemp("notebook")
    kernel = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(
        json.dumps(
            {
                "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "Python 3",
                "language": "python",
            }
        )
    )
    settings = {
        "JUPYTER_PATH": folder / "jupyter",  # looked at before all other places
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "JUPYTER_CONFIG_DIR": folder / "config",
        "IPYTHONDIR": folder / "ipython",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_NO_INDEX": "1",  # nothing is to be installed, and nothing fetched if it were
    }
    copy_project(folder / "project")
    notebook = nbformat.read(folder / "project" / "demo.ipynb", as_version=4)
    where = {"metadata": {"path": str(folder / "project")}}
    with mock.patch.dict(os.environ, {name: str(value) for name, value in settings.items()}):
        nbclient.NotebookClient(notebook, timeout=240, resources=where).execute()  # raises if a cell fails
    return Ran(folder / "project", notebook)


def test_no_cell_complains(ran: Ran) -> None:
    for outputs in ran.outputs.values():
        for output in outputs:
            assert output.output_type != "error"
            if output.get("name") == "stderr":
                assert "Error" not in output.text
                assert "Warning" not in output.text
    assert not ran.outputs["installation"]  # all is here
    assert ran.text("network").startswith(str(Path("trained_checkpoint/cloth_segm_u2netp.onnx: u2netp, ")))


def test_pictures_come_out(ran: Ran, expected: dict[str, Segmentation]) -> None:
    found = {path: one.found for path, one in expected.items()}
    assert all(found.values())
    assert len(ran.pictures("masks")) == len(PHOTOS)
    assert len(ran.pictures("cutouts")) == sum(map(len, found.values()))
    assert len(ran.pictures("mine")) == 1 + len(found[PHOTOS[1]])
    for path, classes in found.items():
        assert f"{path}: {' and '.join(classes)}\n" in ran.text("photos")
    assert ran.text("cutouts").split("\n")[:-1] == [name for classes in found.values() for name in classes]


def parts_of(sheet: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The three pictures of a sheet, each of this size (width, height) and in the middle of its column, framed."""
    (width, height), step = size, sheet.shape[1] // 3
    lefts = [number * step + step // 2 - (width + 2) // 2 + 1 for number in range(3)]
    assert (sheet[0, lefts] == 192).all()  # the frame
    assert sheet.shape[0] == height + 2 + 30
    assert (sheet[height + 2 :] < 128).any()  # captions
    return [sheet[1 : height + 1, left : left + width].astype(int) for left in lefts]


def fitted(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((360, 360))
    return small


def test_pictures_show_photo_mask_and_overlay(ran: Ran, expected: dict[str, Segmentation]) -> None:
    for sheet, one in zip(ran.pictures("masks"), expected.values(), strict=True):
        pictures = [fitted(picture) for picture in (one.photo, one.mask().convert("RGB"), one.overlay())]
        for part, picture in zip(parts_of(sheet, pictures[0].size), pictures, strict=True):
            np.testing.assert_array_equal(part, np.asarray(picture))


def test_cutouts_stand_before_white_black_and_chequers(ran: Ran, expected: dict[str, Segmentation]) -> None:
    cutouts = [fitted(one.cutout(name, crop=True)) for one in expected.values() for name in one.found]
    for sheet, cutout in zip(ran.pictures("cutouts"), cutouts, strict=True):
        white, black, chequered = parts_of(sheet, cutout.size)
        pixels = np.asarray(cutout)
        clear, opaque = pixels[..., 3] == 0, pixels[..., 3] == 255
        assert clear.any()
        assert opaque.any()
        assert (white[clear] == 255).all()
        assert (black[clear] == 0).all()
        assert set(np.unique(chequered[clear])) == {205, 245}
        for part in (white, black, chequered):
            np.testing.assert_array_equal(part[opaque], pixels[opaque, :3])


def test_numbers_are_those_of_the_python_interface(ran: Ran, expected: dict[str, Segmentation]) -> None:
    (table,) = ran.outputs["shares"]
    assert "<table" in table.data["text/html"]
    for path, one in expected.items():
        shares = [each["share"] for each in one.to_dict()["classes"]]
        (row,) = (line for line in table.data["text/plain"].splitlines() if line.startswith(path))
        assert row.split()[1:] == [f"{share:.1%}" for share in shares]
    for name in CLASSES[1:]:
        assert name in table.data["text/plain"]

    facts = expected[PHOTOS[0]].to_dict() | {"photo": str(Path(PHOTOS[0]))}
    del facts["classes"][1:]
    encoding = facts["classes"][0]["segmentation"]
    encoding["counts"] = encoding["counts"][:20] + "..."
    assert json.loads(ran.text("json")) == facts


def check_saved(folder: Path, stem: str, one: Segmentation, photo: str) -> None:
    """The files that the notebook saves of a photo are what the Python interface gives."""
    np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{stem}.png")), one.labels)
    with Image.open(folder / f"{stem}_overlay.jpg") as picture:
        assert np.abs(np.asarray(picture).astype(int) - np.asarray(one.overlay())).mean() < 5
    for name in one.found:
        cutout = Image.open(folder / f"{stem}_cutout_{name.split()[0]}.png")
        np.testing.assert_array_equal(np.asarray(cutout), np.asarray(one.cutout(name)))
    assert json.loads((folder / f"{stem}.json").read_text()) == one.to_dict() | {"photo": photo}


def test_saved_files_are_those_of_the_python_interface(ran: Ran, expected: dict[str, Segmentation]) -> None:
    one, folder = expected[PHOTOS[1]], ran.folder / "output_images" / "demo"
    check_saved(folder, "grace_hopper", one, str(Path(PHOTOS[1])))
    told = [ran.folder / line for line in ran.text("save").splitlines()]
    assert sorted(told) == sorted(path for path in folder.iterdir() if path.is_file())


def test_the_command_line_writes_the_same(ran: Ran, expected: dict[str, Segmentation]) -> None:
    folder = ran.folder / "output_images" / "demo" / "all"
    for path, one in expected.items():
        mask, facts = (folder / f"{Path(path).stem}{ending}" for ending in (".png", ".json"))
        np.testing.assert_array_equal(np.asarray(Image.open(mask)), one.labels)
        assert json.loads(facts.read_text())["classes"] == one.to_dict()["classes"]
    for path in folder.iterdir():
        assert str(path.relative_to(ran.folder)) in ran.text("command")


def test_on_colab_it_asks_for_a_photo_and_offers_what_it_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, Segmentation]
) -> None:
    """The cells between the bundled photos and the command line, with what Colab has in place of a browser."""
    monkeypatch.chdir(tmp_path)
    downloads = []

    def upload() -> dict[str, bytes]:
        content = (ROOT / PHOTOS[0]).read_bytes()
        Path("my top.png").write_bytes(content)
        return {"my top.png": content}

    files = types.ModuleType("google.colab.files")
    files.upload, files.download = upload, downloads.append
    colab = types.ModuleType("google.colab")
    colab.files = files
    for name, module in {"google": types.ModuleType("google"), "google.colab": colab}.items():
        monkeypatch.setitem(sys.modules, name, module)

    cells: dict[str, Any] = {
        "display": lambda sheet: None, "segment": expected[PHOTOS[0]].segmenter, "PHOTOS": PHOTOS, "Path": Path,
        "sys": sys,
    }  # fmt: skip
    defined = SOURCES["cutouts"].partition("\n\n\nfor one in results")[0]  # its functions
    for source in (SOURCES["show"], defined, SOURCES["mine"], SOURCES["save"]):
        exec(source, cells)

    assert downloads == [str(Path("output_images/demo/my top.zip"))]
    with ZipFile(downloads[0]) as archive:
        archive.extractall("downloaded")
    check_saved(Path("downloaded"), "my top", expected[PHOTOS[0]], "my top.png")


def test_without_the_project_and_its_address_the_first_cell_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=r"^REPOSITORY: expected the address .*, found none\. Put it between the "):
        exec(SOURCES["project"], {})
    assert not list(tmp_path.iterdir())


def test_without_the_project_the_first_cells_clone_it_and_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, colab = tmp_path / "project", tmp_path / "colab"
    project.mkdir()
    colab.mkdir()
    (project / "infer.py").write_text("")
    (project / "requirements.txt").write_text("numpy>=1.26\nsurely-not-here>=1\n")
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for words in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "-m", "First"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    monkeypatch.chdir(colab)
    monkeypatch.setattr(sys, "path", sys.path[:])
    first = SOURCES["project"].replace('REPOSITORY = ""', f"REPOSITORY = {project.as_uri()!r}")

    shell = mock.Mock()
    cells: dict[str, Any] = {"get_ipython": lambda: shell}
    exec(first, cells)
    assert Path.cwd() == colab / "cloth-segmentation"
    assert sys.path[0] == str(Path.cwd())
    exec(transform(SOURCES["installation"]), cells)
    shell.run_line_magic.assert_called_once_with("pip", "install --quiet --requirement requirements.txt")

    exec(first, {})  # a second time: all is there
    assert Path.cwd() == colab / "cloth-segmentation"
    os.chdir(colab)
    exec(first, {})  # after a restart
    assert Path.cwd() == colab / "cloth-segmentation"

    shell.reset_mock()
    Path("requirements.txt").write_text("numpy>=1.26\n")
    exec(transform(SOURCES["installation"]), cells)
    shell.run_line_magic.assert_not_called()
    Path("requirements.txt").write_text("numpy>=1000\n")  # too old
    exec(transform(SOURCES["installation"]), cells)
    shell.run_line_magic.assert_called_once()


def test_it_is_committed_as_nobody_has_run_it() -> None:
    assert (COMMITTED["nbformat"], COMMITTED["nbformat_minor"]) == (4, 5)
    assert COMMITTED["metadata"]["kernelspec"]["name"] == "python3"
    nbformat.validate(COMMITTED)
    for cell in COMMITTED["cells"]:
        assert not cell["metadata"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    text = json.dumps(COMMITTED, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    assert (ROOT / "demo.ipynb").read_text(encoding="utf-8") == text  # so that differences stay small


def test_it_names_no_place_of_one_machine_and_no_file_that_is_not_here() -> None:
    text = "\n".join(SOURCES.values())
    assert str(ROOT) not in text
    assert not re.search(r"(?<![\w./])(?:/|~/|[A-Za-z]:[\\/])\w", text)
    for name in re.findall(r"[\w/-]+\.(?:py|md|txt)\b", text):
        assert (ROOT / name).is_file(), name
