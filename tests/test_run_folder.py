import re
from pathlib import Path

import pytest
import torch

from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.errors import RunError
from cloth_segmentation.files import atomic_path
from cloth_segmentation.weights_info import WeightsInfo
from utils.run_folder import RunFolder

CLASSES = ("background", "upper body", "lower body", "full body")


def test_leftovers_of_a_killed_run_are_no_results(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.weights_folder.mkdir()
    leftover = folder.weights_folder / ".itr_00000010_u2net.pth.x1.part"
    leftover.touch()
    assert folder.open(go_on=False) is None
    assert not leftover.exists()


def test_a_refused_run_leaves_another_one_s_files_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.save_state(state_after(1))
    with atomic_path(folder.state_path) as part:  # as the other run does while it saves
        with pytest.raises(RunError, match="holds the results of a run"):
            RunFolder(tmp_path / "run").open(go_on=False)
        torch.save(state_after(2), part)
    assert RunFolder(tmp_path / "run").open(go_on=True)["step"] == 2


def test_weights_whose_state_is_lost_are_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    folder.save_step({"x": torch.zeros(1)}, WeightsInfo("u2net", CLOTHES, step=1), keep=0)
    assert RunFolder(tmp_path / "run").open(go_on=True) is None  # killed at its first save, so it begins again
    folder.save_state(state_after(1))
    folder.state_path.unlink()
    for go_on, words in ((True, "expected a state to go on from, found none"), (False, "holds the results of a run")):
        with pytest.raises(RunError, match=words):
            RunFolder(tmp_path / "run").open(go_on=go_on)


def test_older_weights_are_pruned_and_the_best_ones_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    state = {"x": torch.zeros(1)}
    folder.save_best(state, WeightsInfo("u2net", CLOTHES, step=1))
    for step in (9, 10, 11):
        folder.save_step(state, WeightsInfo("u2net", CLOTHES, step=step), keep=2)
    names = sorted(path.name for path in folder.weights_folder.iterdir())
    assert names == ["best_u2net.pth", "itr_00000010_u2net.pth", "itr_00000011_u2net.pth"]
    folder.save_step(state, WeightsInfo("u2net", CLOTHES, step=12), keep=0)
    assert len(list(folder.weights_folder.iterdir())) == 4


def state_after(step: int) -> dict[str, object]:
    return {"arch": "u2netp", "step": step, "draws": 0, "best": 0.5, "random": [], "parts": {"x": torch.ones(5000)}}


@pytest.mark.parametrize("damage", ["cut", "empty", "zeroed", "page", "gone", "other content"])
def test_where_the_newest_state_is_damaged_the_one_before_is_taken(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    for step in (1, 2, 3):
        folder.save_state(state_after(step))
    content = bytearray(folder.state_path.read_bytes())
    if damage == "zeroed":  # as a page that had not reached the disk
        content[4096:8192] = bytes(4096)
    torch.save({"step": 3}, tmp_path / "other.pth")
    damaged = {"cut": content[:-100], "empty": b"", "zeroed": content, "page": b"<html>"}
    folder.state_path.write_bytes(damaged.get(damage, (tmp_path / "other.pth").read_bytes()))
    if damage == "gone":
        folder.state_path.unlink()
    assert folder.open(go_on=True)["step"] == 2
    assert re.search(r"Left out: .*training_state.pth: expected .* Going on from .*", capsys.readouterr().err)

    # The damaged one never takes the place of the good one: killed between its two renames, the next save leaves it.
    with pytest.raises(KeyboardInterrupt), atomic_path(folder.state_path, folder.previous_path):
        raise KeyboardInterrupt
    folder.save_state(state_after(4))
    folder.state_path.unlink()
    assert folder.open(go_on=True)["step"] == 2

    for path in (folder.state_path, folder.previous_path):
        path.write_bytes(b"")
    with pytest.raises(RunError, match="there is no other state to go on from"):
        folder.open(go_on=True)


def test_results_are_neither_overwritten_nor_invented(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RunError, match=r"--continue_train: expected the run .*, found none"):
        folder.open(go_on=True)
    assert folder.open(go_on=False) is None
    folder.save_state(state_after(3))
    assert folder.open(go_on=True)["step"] == 3
    with pytest.raises(RunError, match=r"--continue_train, or give this one another --name"):
        folder.open(go_on=False)
