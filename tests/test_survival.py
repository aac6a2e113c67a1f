"""What happens to a training run that lasts days: kills, full disks, disks that vanish, processes that die."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Fork, TrainFlags, assert_equal, fork, start, state_of, two_ranks, wait_until

from utils.weights_files import read_file

SETTINGS = ["--iter=3", "--save_freq=1", "--batchSize=1", "--augment_flip=0.5", "--augment_color=0.2"]
SETTINGS += ["--keep_checkpoints=2", "--val_fraction=0.25", "--val_freq=2", "--print_freq=1"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 30 MB, which holds one save and a part of the next."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root, on Linux")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


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


@pytest.mark.long
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(train_flags: TrainFlags, tmp_path: Path) -> None:
    began = time.monotonic()
    whole = fork("train.py", *train_flags(*SETTINGS, "--name=whole"), folder=tmp_path / "printed")
    duration = time.monotonic() - began
    assert whole.returncode == 0, whole.stderr

    number = random.randrange(2**32)
    print(f"moments by seed {number}")  # shown if the test fails
    chance = random.Random(number)
    while_saving = 0
    for trial in range(20):
        name = f"parts{trial}"
        results = tmp_path / "results" / name
        process = Fork("train.py", *train_flags(*SETTINGS, f"--name={name}"), folder=tmp_path / "printed")
        if trial % 2:
            time.sleep(chance.uniform(0, duration))
        else:  # one of the files of one of the saves: options, photos, 3 weights, 3 states, 2 best weights
            seen: set[Path] = set()
            nth = chance.randint(1, 10)

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


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_whose_partner_is_killed_ends_by_itself(killed: int, train_flags: TrainFlags, tmp_path: Path) -> None:
    ranks = two_ranks(train_flags("--iter=100000", "--save_freq=2"), tmp_path)
    wait_until(lambda: (tmp_path / "results" / "run" / "training_state.pth").exists(), ranks[0])
    ranks[killed].kill()
    left = ranks[1 - killed].wait(timeout=60)
    assert left.returncode == 1
    assert f"train.py [rank {1 - killed}]: expected all processes of the run to live" in left.stderr
    assert "Traceback" not in left.stderr
    assert state_of(tmp_path)["step"] >= 2


def child_of(launcher: int, rank: int) -> int:
    """Process number of a rank that a launcher started."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise LookupError(rank)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="child processes are found in Linux's /proc")
def test_a_launcher_brings_a_run_back(train_flags: TrainFlags, tmp_path: Path) -> None:
    flags = train_flags("--iter=16", "--save_freq=2", "--augment_flip=0.5")
    whole = [rank.wait() for rank in two_ranks([*flags, "--name=whole"], tmp_path)]
    assert [rank.returncode for rank in whole] == [0, 0], whole

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max_restarts=1"]
    process = start(*torchrun, "train.py", *flags, "--name=parts")
    state = tmp_path / "results" / "parts" / "training_state.pth"
    while process.poll() is None and not state.exists():
        time.sleep(0.001)
    os.kill(child_of(process.pid, rank=1), signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    first, second = re.findall(r"step (\d+) of 16", output)
    assert first == "0"
    assert int(second) in range(2, 16, 2)
    assert_same_results(tmp_path, "whole", "parts")


def test_a_launcher_never_goes_on_with_another_run(train_flags: TrainFlags, tmp_path: Path) -> None:
    """It starts a refused run again as it does a killed one; only the same options go on."""
    assert fork("train.py", *train_flags("--iter=2"), folder=tmp_path / "printed").returncode == 0
    again = {"TORCHELASTIC_RESTART_COUNT": "1"}
    other = fork("train.py", *train_flags("--iter=2", "--lr=0.5"), folder=tmp_path / "printed", env=again)
    assert other.returncode == 1
    assert "holds the results of a run, which this one would overwrite" in other.stderr
    same = fork("train.py", *train_flags("--iter=2"), folder=tmp_path / "printed", env=again)
    assert same.returncode == 0, same.stderr
    assert "step 2 of 2" in same.stdout


def test_a_full_disk_ends_a_run_that_goes_on_later(train_flags: TrainFlags, tmp_path: Path, small_disk: Path) -> None:
    whole = fork("train.py", *train_flags(*SETTINGS, "--name=whole"), folder=tmp_path / "printed")
    assert whole.returncode == 0, whole.stderr
    flags = train_flags(*SETTINGS, f"--save_dir={small_disk}", "--name=parts")
    full = fork("train.py", *flags, folder=tmp_path / "printed")
    assert full.returncode == 1
    assert "could not be written (No space left on device); what was saved before is whole" in full.stderr
    assert "Traceback" not in full.stderr
    assert not unfinished(small_disk / "parts")
    shutil.copytree(small_disk / "parts", tmp_path / "results" / "parts")  # a larger disk
    resumed = fork("train.py", *train_flags(*SETTINGS, "--name=parts", "--continue_train"), folder=tmp_path / "printed")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_results(tmp_path, "whole", "parts")


@pytest.mark.long
def test_a_disk_of_logs_that_is_full_costs_the_logs_only(
    train_flags: TrainFlags, tmp_path: Path, small_disk: Path
) -> None:
    (small_disk / "full").write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    flags = train_flags("--iter=30", "--print_freq=1", "--image_log_freq=1", f"--logs_dir={small_disk / 'logs'}")
    done = fork("train.py", *flags, folder=tmp_path / "printed")
    assert done.returncode == 0, done.stderr
    assert "expected room and leave to write TensorBoard's file, found none (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
    assert state_of(tmp_path)["step"] == 30


@pytest.mark.long
@pytest.mark.parametrize("replaced", [True, False])
def test_a_results_folder_that_vanishes_ends_a_run_that_goes_on_later(
    replaced: bool, train_flags: TrainFlags, tmp_path: Path
) -> None:
    whole = fork(
        "train.py", *train_flags(*SETTINGS, "--iter=6", "--save_freq=3", "--name=whole"), folder=tmp_path / "printed"
    )
    assert whole.returncode == 0, whole.stderr
    process = Fork(
        "train.py", *train_flags(*SETTINGS, "--iter=6", "--save_freq=3", "--name=parts"), folder=tmp_path / "printed"
    )
    results = tmp_path / "results"
    wait_until((results / "parts" / "training_state.pth").exists, process)
    results.rename(tmp_path / "away")
    if replaced:
        results.write_text("no folder")
    lost = process.wait()
    assert lost.returncode == 1
    assert "Traceback" not in lost.stderr
    assert f"{results / 'parts'}: expected the folder that this run began in, found none" in lost.stderr
    assert results.exists() == replaced  # no new one was made, on whatever disk is there then
    results.unlink(missing_ok=True)
    (tmp_path / "away").rename(results)
    resumed = fork(
        "train.py",
        *train_flags(*SETTINGS, "--iter=6", "--save_freq=3", "--name=parts", "--continue_train"),
        folder=tmp_path / "printed",
    )
    assert resumed.returncode == 0, resumed.stderr
    assert_same_results(tmp_path, "whole", "parts")


def test_two_processes_never_train_in_one_folder(train_flags: TrainFlags, tmp_path: Path) -> None:
    flags = train_flags("--iter=100000", "--save_freq=1")
    process = Fork("train.py", *flags, folder=tmp_path / "first")
    wait_until((tmp_path / "results" / "run" / "training_state.pth").exists, process)
    second = fork("train.py", *flags, "--continue_train", folder=tmp_path / "second")
    assert second.returncode == 1
    assert "expected no other process to train in it, found one" in second.stderr
    process.kill()
    third = fork("train.py", *train_flags("--iter=1000", "--save_freq=1"), folder=tmp_path / "third")
    assert "holds the results of a run" in third.stderr
    step = state_of(tmp_path)["step"]
    last = fork("train.py", *flags, "--continue_train", f"--iter={step + 1}", folder=tmp_path / "last")
    assert last.returncode == 0, last.stderr


def test_a_folder_may_be_called_anything(train_flags: TrainFlags, tmp_path: Path) -> None:
    """gloo's errors are known by its name in them."""
    assert fork("train.py", *train_flags("--iter=1", "--name=igloo"), folder=tmp_path / "printed").returncode == 0
    ranks = [rank.wait() for rank in two_ranks(train_flags("--iter=1", "--name=igloo"), tmp_path)]
    assert "igloo holds the results of a run" in ranks[0].stderr
    assert "expected all processes" not in ranks[0].stderr


@pytest.mark.skipif(sys.platform != "linux", reason="child processes are found in Linux's /proc")
def test_a_process_that_loads_photos_and_is_killed_is_said(train_flags: TrainFlags, tmp_path: Path) -> None:
    process = Fork(
        "train.py", *train_flags("--iter=100000", "--save_freq=1", "--nThreads=1"), folder=tmp_path / "printed"
    )
    wait_until((tmp_path / "results" / "run" / "training_state.pth").exists, process)
    number = process.process.pid
    [worker] = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    done = process.wait(60)
    assert done.returncode == 1
    assert "train.py: expected the processes that load photos to live, found one dead" in done.stderr
    assert "Traceback" not in done.stderr
    assert state_of(tmp_path)["step"] >= 1


def workers_of(process: Fork) -> list[int]:
    number = process.process.pid
    return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="child processes are found in Linux's /proc")
@pytest.mark.parametrize(
    ("number", "more"),
    [
        (signal.SIGTERM, ["--accumulate=3", "--nThreads=1"]),
        pytest.param(signal.SIGINT, ["--nThreads=2"], marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, ["--val_fraction=0.5", "--val_freq=1", "--nThreads=1"], marks=pytest.mark.long),
    ],
)
def test_a_signal_during_a_wait_for_photos_saves_then_leaves(
    number: signal.Signals, more: list[str], train_flags: TrainFlags, tmp_path: Path
) -> None:
    process = Fork("train.py", *train_flags("--iter=100000", "--save_freq=1", *more), folder=tmp_path / "printed")
    wait_until((tmp_path / "results" / "run" / "training_state.pth").exists, process)
    workers = workers_of(process)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # as a disk that does not answer
    time.sleep(0.5)
    os.kill(process.process.pid, number)
    done = process.wait(30)
    assert done.returncode == 1
    assert f"Stopped by {number.name} after step" in done.stdout
    assert "Traceback" not in done.stderr
    step = state_of(tmp_path)["step"]
    assert step >= 1
    assert f"after step {step}, all saved" in done.stdout
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="child processes are found in Linux's /proc")
def test_several_processes_save_though_one_waits_for_photos(train_flags: TrainFlags, tmp_path: Path) -> None:
    ranks = two_ranks(train_flags("--iter=100000", "--save_freq=1", "--nThreads=1"), tmp_path)
    wait_until((tmp_path / "results" / "run" / "training_state.pth").exists, ranks[0])
    for worker in workers_of(ranks[1]):
        os.kill(worker, signal.SIGSTOP)
    time.sleep(2)
    for rank in ranks:
        os.kill(rank.process.pid, signal.SIGTERM)
    ended = [rank.wait(30) for rank in ranks]
    assert [done.returncode for done in ended] == [1, 1]
    assert f"after step {state_of(tmp_path)['step']}, all saved" in ended[0].stdout


def test_a_signal_ends_a_wait_for_processes_that_do_not_come(train_flags: TrainFlags, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    alone = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": address[0], "MASTER_PORT": str(address[1])}
    process = Fork("train.py", *train_flags("--iter=1"), folder=tmp_path / "printed", env=alone)

    def waits() -> bool:
        with socket.socket() as other:
            return other.connect_ex(address) == 0

    wait_until(waits, process)
    time.sleep(0.2)
    os.kill(process.process.pid, signal.SIGTERM)
    assert process.wait(10).returncode == -signal.SIGTERM


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("unshare"), reason="a /dev/shm of its own can only be had on Linux")
@pytest.mark.parametrize("full", [False, True], ids=["small", "full"])
def test_little_shared_memory_is_enough_and_none_is_said(full: bool, train_flags: TrainFlags, tmp_path: Path) -> None:
    """As in a Docker container, in small."""
    settings = ["--iter=3", "--nThreads=2", "--batchSize=4", "--val_fraction=0.5", "--val_freq=3"]
    fill = "head -c 1M /dev/zero > /dev/shm/full 2> /dev/null;" if full else ""
    shell = f'mount -t tmpfs -o size=256k tmpfs /dev/shm || exit 77; {fill} exec "$@"'
    command = ["unshare", "-m", "sh", "-c", shell, "sh", sys.executable, "train.py", *train_flags(*settings)]
    process = start(*command)
    try:
        printed, errors = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 77 or "unshare failed" in errors:
        pytest.skip("a small /dev/shm can only be mounted by root")
    assert "Traceback" not in errors
    if full:
        assert process.returncode == 1
        assert re.search(r"train.py: expected to start .* \(No space .*/dev/shm .*--shm-size.* --nThreads 0", errors)
    else:
        assert process.returncode == 0, errors
        assert state_of(tmp_path)["step"] == 3
        assert re.search(r"/dev/shm has 0 MB: batches .* --shm-size=1g .* --nThreads 0", printed)
