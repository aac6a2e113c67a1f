"""The rules that keep the parts apart."""

import ast
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

LIBRARY = "cloth_segmentation"
PARTS = ("options", "networks", "data", "utils")
OF_BATCHES = {"ray", "pyarrow", "fsspec"}
"""What the extra for very many photos brings."""

OF_THE_SERVICE = {"fastapi", "fastapi_offline", "starlette", "pydantic", "uvicorn", "prometheus_client"}
"""What the extra for the service brings."""


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
        more = {"batch": OF_BATCHES, "serve": OF_THE_SERVICE}.get(path.parent.name, set())
        more = more | {"client.py": {"httpx"}, "on_ray.py": {"ray"}}.get(path.name, set())
        assert imported(path) <= set(sys.stdlib_module_names) | needed | more | {LIBRARY}, path


def test_only_batches_need_ray() -> None:
    """And nothing but their script, and the command's first word, leads to them."""
    files = [path for path in ROOT.glob("*.py") if path.name != "infer_batch.py"]
    files += [path for part in (*PARTS, LIBRARY) for path in (ROOT / part).rglob("*.py") if path.parent.name != "batch"]
    for path in files:
        assert not imported(path) & (OF_BATCHES - ({"ray"} if path.name == "on_ray.py" else set())), path
        assert not any(name.startswith(f"{LIBRARY}.batch") for name in modules(path)), path


def test_only_the_service_needs_a_web_framework() -> None:
    """The page, which stands on Gradio, and its scripts see no more of it than its options and headers."""
    light = {f"{LIBRARY}.serve.options", f"{LIBRARY}.serve.headers"}
    files = [path for path in ROOT.glob("*.py") if path.name not in ("serve.py", "app.py")]
    files += [path for part in (*PARTS, LIBRARY) for path in (ROOT / part).rglob("*.py") if path.parent.name != "serve"]
    for path in files:
        assert not imported(path) & OF_THE_SERVICE, path
        found = {name for name in modules(path) if name.startswith(f"{LIBRARY}.serve.")}
        assert all(any(name.startswith(module) for module in light) for name in found), path
    for module in light:
        path = ROOT / f"{module.replace('.', '/')}.py"
        assert not imported(path) & OF_THE_SERVICE, path


def test_the_command_for_a_folder_loads_nothing_of_batches(tmp_path: Path) -> None:
    code = (
        "import sys; from cloth_segmentation.command import run\n"
        "sys.argv = ['cloth-segmentation', 'nothing', 'masks']\n"
        "try: run()\n"
        "except SystemExit: print([name for name in sys.modules if name.startswith('cloth_segmentation.batch')])\n"
        f"print({OF_BATCHES!r} & set(sys.modules))"
    )
    done = run(sys.executable, "-c", code, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert "expected a folder of photos or one photo, found nothing of that name" in done.stderr
    assert done.stdout.split("\n")[-3:-1] == ["[]", "set()"]


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
