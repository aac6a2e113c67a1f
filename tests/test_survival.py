"""What happens to a training run that lasts days: kills, full disks, disks that vanish, processes that die."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from conftest import Fork, TrainFlags, assert_equal, fork, state_of

from utils.checkpoints import read_file

SETTINGS = ["--iter=4", "--save_freq=1", "--batchSize=2", "--ema=0.9", "--augment_flip=0.5", "--keep_checkpoints=2"]
SETTINGS += ["--val_fraction=0.25", "--val_freq=2", "--print_freq=1"]


def assert_same_results(folder: Path, first: str, second: str) -> None:
    """Equal states and weights files, to the last bit."""
    assert_equal(state_of(folder, first), state_of(folder, second))
    names = [
        sorted(path.name for path in (folder / "results" / run / "checkpoints").iterdir()) for run in (first, second)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        weights = [read_file(folder / "results" / run / "checkpoints" / name) for run in (first, second)]
        assert_equal(*weights)


def unfinished(folder: Path) -> set[Path]:
    """Files that are being written."""
    return set(folder.glob(".*.part")) | set(folder.glob("checkpoints/.*.part"))


def wait_until(happened: Callable[[], bool], process: Fork) -> None:
    """Wait, as long as the process lives."""
    while process.process.is_alive() and not happened():
        time.sleep(0.001)


def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(train_flags: TrainFlags, tmp_path: Path) -> None:
    began = time.monotonic()
    whole = fork("train.py", *train_flags(*SETTINGS, "--name=whole"), folder=tmp_path / "printed")
    duration = time.monotonic() - began
    assert whole.returncode == 0, whole.stderr

    chance = random.Random()
    while_saving = 0
    for trial in range(20):
        name = f"parts{trial}"
        results = tmp_path / "results" / name
        process = Fork("train.py", *train_flags(*SETTINGS, f"--name={name}"), folder=tmp_path / "printed")
        if trial % 2:
            time.sleep(chance.uniform(0, duration))
        else:  # one of the files of one of the saves: options, 4 weights, 4 states, 2 best weights
            seen: set[Path] = set()
            nth = chance.randint(1, 11)

            def is_writing(seen: set[Path] = seen, nth: int = nth, results: Path = results) -> bool:
                now = unfinished(results)
                seen |= now
                return bool(now) and len(seen) >= nth

            wait_until(is_writing, process)
            time.sleep(chance.choice((0, 0.002, 0.01)))
        process.kill()
        while_saving += bool(unfinished(results))

        more = ["--continue_train"] if results.exists() else []
        resumed = fork("train.py", *train_flags(*SETTINGS, f"--name={name}", *more), folder=tmp_path / "printed")
        assert resumed.returncode == 0, resumed.stderr
        assert_same_results(tmp_path, "whole", name)
        assert not unfinished(results)
        shutil.rmtree(results)
    assert while_saving >= 3
