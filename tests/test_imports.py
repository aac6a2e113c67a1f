"""The rules that keep the parts apart."""

import ast
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

LIBRARY = "cloth_segmentation"
PARTS = ("options", "networks", "data", "utils")


def modules(path: Path) -> set[str]:
    """Modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports."""
    return {name.split(".")[0] for name in modules(path)}


def test_the_library_stands_on_its_own() -> None:
    needed = {"numpy", "PIL", "onnxruntime", "scipy", "tqdm"} | {"pillow_heif"}  # an extra
    files = list((ROOT / LIBRARY).rglob("*.py"))
    assert len(files) > 2
    for path in files:
        assert imported(path) <= set(sys.stdlib_module_names) | needed | {LIBRARY}, path


def test_only_the_command_and_scripts_see_options() -> None:
    parts = [path for part in ("networks", "data", "utils") for path in (ROOT / part).glob("*.py")]
    for path in [*parts, *(ROOT / LIBRARY).glob("*.py")]:
        seen = [name for name in modules(path) if re.search(r"command\.(base_options|infer_options|flags)", name)]
        assert not seen, path


@pytest.mark.parametrize("part", PARTS)
def test_parts_do_not_import_one_another(part: str) -> None:
    files = list((ROOT / part).glob("*.py"))
    assert len(files) > 2
    for path in files:
        assert not imported(path) & (set(PARTS) - {part}), path


def test_options_need_the_standard_library_and_the_ground_floor_only() -> None:
    for path in (ROOT / "options").glob("*.py"):
        assert imported(path) <= set(sys.stdlib_module_names) | {"options", LIBRARY}, path


def test_networks_need_torch_only() -> None:
    for path in (ROOT / "networks").glob("*.py"):
        assert imported(path) <= set(sys.stdlib_module_names) | {"networks", "torch"}, path


def test_only_scripts_see_options() -> None:
    seers = {path.name for path in ROOT.glob("*.py") if "options" in imported(path)}
    assert seers == {"app.py", "train.py", "evaluate.py", "export.py", "labels.py", "setup_model_weights.py"}
