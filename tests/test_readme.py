"""What the README tells people to type."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

from cloth_segmentation.batch.options import InferBatchOptions
from options import (
    AppOptions,
    EvaluateOptions,
    ExportOptions,
    InferOptions,
    LabelsOptions,
    SetupOptions,
    TrainOptions,
    parse,
)

README = (ROOT / "README.md").read_text()
PAGES = README + "".join((ROOT / "docs" / name).read_text() for name in ("training.md", "classes.md", "scale.md"))
BLOCKS = [
    *re.findall(r"```bash\n(.*?)```", PAGES, re.DOTALL),
    *re.findall(r"^ +```bash\n(.*?) +```", PAGES, re.DOTALL | re.M),
]
LINES = sorted({line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()})
OPTIONS = {
    "train.py": TrainOptions,
    "infer.py": InferOptions,
    "cloth-segmentation": InferOptions,
    "infer_batch.py": InferBatchOptions,
    "cloth-segmentation batch": InferBatchOptions,
    "evaluate.py": EvaluateOptions,
    "export.py": ExportOptions,
    "labels.py": LabelsOptions,
    "setup_model_weights.py": SetupOptions,
    "app.py": AppOptions,
}


def test_every_script_is_shown() -> None:
    for script in OPTIONS:
        assert any(script in line for line in LINES)


@pytest.mark.parametrize("line", [line for line in LINES if any(script in line for script in OPTIONS)])
def test_flags_exist(line: str) -> None:
    for command in line.split("&&"):
        words = shlex.split(command)
        for number in [number for number, word in enumerate(words) if word == "batch"]:
            words[number - 1 : number + 1] = [f"{words[number - 1]} batch"]
        scripts = [number for number, word in enumerate(words) if word in OPTIONS]
        for number in scripts:
            parse(OPTIONS[words[number]], words[number + 1 :])


def test_the_first_command_works_in_a_fresh_copy(tmp_path: Path) -> None:
    first = next(line for line in LINES if line.startswith("pip install -r requirements.txt"))
    command = first.split("&&")[1].split()
    assert command == ["python", "infer.py"]
    folders = ("cloth_segmentation", "options", "networks", "data", "utils", "trained_checkpoint", "input_images")
    for name in ("infer.py", *folders):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    done = run(sys.executable, "infer.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    masks = sorted(path.name for path in (tmp_path / "output_images").iterdir())
    assert masks == ["astronaut.png", "dress.png", "grace_hopper.png", "skirt.png", "t_shirt.png"]

    # And so do the examples in Python.
    first, usage, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)  # the third: tests/test_infer_batch.py
    [reading] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "outputs.md").read_text(), re.DOTALL)
    written = 'open("output_images/a.json", "w").write(one.to_json())'
    code = "\n".join((first, usage, written, reading, "assert (labels == one.labels).all()"))
    done = run(sys.executable, "-W", "ignore", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "top.png").exists()


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def test_the_tree_is_complete() -> None:
    library = [ROOT / "cloth_segmentation" / name for name in ("", "command", "batch")]
    folders = [ROOT, *library, *(ROOT / name for name in ("networks", "data", "utils"))]
    for path in [path for folder in folders for path in folder.glob("[a-z]*.py")]:
        assert path.name in README, path
