"""Training as users run it: processes, folders and event files."""

import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PhotoFolder, TrainFlags, assert_equal, python, run, start, state_of, two_ranks, write_photos
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.errors import DataError, RunError
from data.categories import SHIPPED
from data.dataset import Draw
from data.transforms import Augmentation
from infer import Segmenter
from networks import ARCHITECTURES
from options import OptionError, TrainOptions, parse
from utils.distributed import Processes
from utils.weights_files import load_network, read_file

CLASSES = ("background", "upper body", "lower body", "full body")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
LAUNCH = [sys.executable, "-m", "torch.distributed.launch"]
LAUNCH += ["--nnodes=1", "--node_rank=0", "--nproc_per_node=2", "--use_env"]


def test_a_run_leaves_weights_state_options_and_curves(
    train_flags: TrainFlags, photo_folder: PhotoFolder, tmp_path: Path
) -> None:
    validation = write_photos(tmp_path / "val", 5)
    done = python(
        "train.py",
        *train_flags("--iter=4", "--save_freq=2", "--keep_checkpoints=1", "--print_freq=1", "--image_log_freq=2"),
        *("--val_freq=2", f"--val_df_path={validation.csv}", f"--val_image_folder={validation.images}"),
        *("--lr=0.003", "--lr_schedule=cosine", "--warmup=1", "--ema=0.9", "--accumulate=2", "--nThreads=1"),
        *("--amp=bf16", "--channels_last", "--augment_flip=0.5", "--augment_rotate=5"),
    )
    assert done.returncode == 0, done.stderr
    assert "* lr " in done.stdout
    assert "(default: 0.001)" in done.stdout
    assert "4/4" in done.stderr
    assert "photos/s" in done.stderr

    folder = tmp_path / "results" / "run"
    assert json.loads((folder / "options.json").read_text())["lr"] == 0.003
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["best_u2netp.pth", "itr_00000004_u2netp.pth"]
    _, info = load_network(folder / "checkpoints" / names[-1], ARCHITECTURES, CLOTHES)
    assert (info.step, info.size, info.arch) == (4, (64, 64), "u2netp")
    state = state_of(tmp_path)
    assert (state["step"], state["draws"]) == (4, 16)
    # The original ignored its learning rate option. The last step of a cosine over 4 steps, 1 of them warm-up:
    assert state["parts"]["optimizer"]["param_groups"][0]["lr"] == pytest.approx(
        0.003 * (1 + np.cos(np.pi * 2 / 3)) / 2
    )

    events = EventAccumulator(str(tmp_path / "logs" / "run"), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    assert {
        "loss/total", "loss/fused", "optimizer/learning_rate", "optimizer/gradient_norm", "speed/photos_per_second",
        "validation/mean_iou_clothes", "validation/iou_background", "validation/iou_upper_body", "validation/mean_iou",
    } <= set(tags["scalars"])  # fmt: skip
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2, 3, 4]
    assert [event.value for event in events.Scalars("optimizer/learning_rate")][:2] == pytest.approx([0.0015, 0.003])
    assert {"training", "validation"} <= set(tags["images"])
    grid = events.Images("validation")[0]
    # Photo, truth, prediction of a batch of two; a line of titles, and two with the classes' colours.
    assert (grid.width, grid.height) == (3 * 68 + 4, 2 * 68 + 4 + 3 * 15)
    assert {"options/text_summary", "summary/text_summary"} <= set(tags["tensors"])
    assert f"Done: 4 steps, weights in {folder / 'checkpoints'}\n  photos seen     16\n" in done.stdout
    assert f"to use them     python infer.py --checkpoint {folder / 'checkpoints' / names[0]}\n" in done.stdout


@pytest.mark.long
def test_a_compiled_network_is_saved_as_itself(train_flags: TrainFlags, tmp_path: Path) -> None:
    """All about --compile but the compiler, which takes minutes."""
    for name, more, settings in (("plain", [], {}), ("compiled", ["--compile"], {"TORCH_COMPILE_DISABLE": "1"})):
        flags = train_flags("--iter=2", "--accumulate=2", "--val_fraction=0.25", "--val_freq=2", f"--name={name}")
        done = python("train.py", *flags, *more, env=settings)
        assert done.returncode == 0, done.stderr
    states = [read_file(tmp_path / "results" / name / "training_state.pth") for name in ("plain", "compiled")]
    assert states[0]["weights_sha256"] == states[1]["weights_sha256"]
    assert list(states[0]["parts"]["network"]) == list(states[1]["parts"]["network"])
    assert states[0]["best"] == states[1]["best"]


def test_resuming_after_a_kill_is_exact(train_flags: TrainFlags, tmp_path: Path) -> None:
    settings = ["--iter=6", "--save_freq=3", "--ema=0.9", "--lr_schedule=polynomial", "--accumulate=2"]
    settings += [
        "--augment_crop=0.5",
        "--augment_flip=0.5",
        "--augment_color=0.2",
        "--augment_recolor=0.5",
        "--mixup=0.4",
        "--val_fraction=0.25",
        "--val_freq=3",
    ]
    whole = python("train.py", *train_flags(*settings, "--name=whole"))
    assert whole.returncode == 0, whole.stderr

    process = start(sys.executable, "train.py", *train_flags(*settings, "--name=parts"))
    path = tmp_path / "results" / "parts" / "training_state.pth"
    until = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert state_of(tmp_path, "parts")["step"] == 3

    resumed = python("train.py", *train_flags(*settings, "--name=parts", "--continue_train"))
    assert resumed.returncode == 0, resumed.stderr
    assert "step 3 of 6" in resumed.stdout
    assert_equal(state_of(tmp_path, "whole"), state_of(tmp_path, "parts"))
    for name in ("itr_00000003_u2netp.pth", "itr_00000006_u2netp.pth"):
        one, other = (
            read_file(tmp_path / "results" / run_name / "checkpoints" / name) for run_name in ("whole", "parts")
        )
        assert_equal(one, other)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.long) for n in (signal.SIGINT, signal.SIGHUP))]
)
def test_a_signal_saves_then_leaves(train_flags: TrainFlags, tmp_path: Path, number: signal.Signals) -> None:
    flags = train_flags("--iter=100000", "--print_freq=1", "--save_freq=1", "--nThreads=1")
    process = start(sys.executable, "train.py", *flags)
    events = tmp_path / "logs" / "run"
    state = tmp_path / "results" / "run" / "training_state.pth"
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not state.exists():
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does, and as schedulers do
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert f"Stopped by {number.name} after step" in output
    assert "--continue_train goes on" in output
    assert "Traceback" not in errors
    step = state_of(tmp_path)["step"]
    assert step >= 1
    assert (tmp_path / "results" / "run" / "checkpoints" / f"itr_{step:08d}_u2netp.pth").exists()
    assert list(events.iterdir())


WATCH_OPENED_FILES = """
import os, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".png"):
        line = f"{os.environ.get('RANK', '0')} {os.path.basename(str(arguments[0]))}\\n"
        os.write(log, line.encode())
log = os.open(os.environ["OPENED"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
sys.addaudithook(hook)
"""


@pytest.mark.long
@pytest.mark.parametrize("launcher", [LAUNCH, TORCHRUN], ids=["launch", "torchrun"])
def test_two_processes_share_every_epoch_and_end_with_equal_weights(
    launcher: list[str], train_flags: TrainFlags, photo_folder: PhotoFolder, tmp_path: Path
) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(WATCH_OPENED_FILES)
    opened = tmp_path / "opened.txt"
    env = {"PYTHONPATH": str(tmp_path / "hooks"), "OPENED": str(opened)}
    # 8 photos, 2 processes, batches of 2: two steps an epoch.
    done = run(*launcher, "train.py", *train_flags("--iter=4", "--print_freq=1"), env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 process(es)") == 1  # the main one speaks for both

    lines = [tuple(line.split()) for line in opened.read_text().splitlines()]
    photos = sorted(photo_folder.masks)
    shares = [[name for reader, name in lines if reader == rank] for rank in "01"]
    assert sorted(shares[0][:8]) == photos  # the main one looks at all before the first step
    del shares[0][:8]
    assert [len(share) for share in shares] == [8, 8]
    for epoch in (slice(0, 4), slice(4, 8)):
        assert sorted(shares[0][epoch] + shares[1][epoch]) == photos

    state = state_of(tmp_path)
    assert (state["step"], state["draws"]) == (4, 16)
    # Each process took the sum of its own weights before saving; they differ if gradients were not exchanged.
    assert len(state["weights_sha256"]) == 2
    assert len(set(state["weights_sha256"])) == 1
    assert len(state["random"]) == 2


@pytest.mark.long
def test_two_processes_stop_and_go_on_exactly(train_flags: TrainFlags, tmp_path: Path) -> None:
    settings = ["--iter=8", "--print_freq=1", "--nThreads=1", "--accumulate=2", "--ema=0.9", "--augment_flip=0.5"]
    settings += ["--val_fraction=0.4", "--val_freq=5", "--lr_schedule=cosine"]
    whole = [rank.wait() for rank in two_ranks(train_flags(*settings, "--name=whole"), tmp_path)]
    assert [rank.returncode for rank in whole] == [0, 0], whole

    process = start(*TORCHRUN, "train.py", *train_flags(*settings, "--name=parts"))
    best = tmp_path / "results" / "parts" / "options.json"
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not best.exists():
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on
    output, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Stopped by SIGTERM after step" in output, errors
    assert 0 < state_of(tmp_path, "parts")["step"] < 8

    resumed = [rank.wait() for rank in two_ranks(train_flags(*settings, "--name=parts", "--continue_train"), tmp_path)]
    assert [rank.returncode for rank in resumed] == [0, 0], resumed
    assert_equal(state_of(tmp_path, "whole"), state_of(tmp_path, "parts"))


def test_a_run_goes_on_here_that_began_on_a_gpu(train_flags: TrainFlags, tmp_path: Path) -> None:
    assert train.main(train_flags("--iter=2", "--save_freq=1", "--name=whole")) == 0
    assert train.main(train_flags("--iter=1", "--name=parts")) == 0
    state = state_of(tmp_path, "parts")
    [group] = state["parts"]["optimizer"]["param_groups"]
    group["fused"] = True  # as the optimizer is on GPUs
    torch.save(state, tmp_path / "results" / "parts" / "training_state.pth")
    assert train.main(train_flags("--iter=2", "--name=parts", "--continue_train")) == 0
    assert_equal(state_of(tmp_path, "whole"), state_of(tmp_path, "parts"))


def test_results_are_not_overwritten(train_flags: TrainFlags, tmp_path: Path) -> None:
    assert train.main(train_flags("--iter=1")) == 0
    before = state_of(tmp_path)
    again = python("train.py", *train_flags("--iter=2"))
    assert again.returncode == 1
    assert "--continue_train" in again.stderr
    assert "another --name" in again.stderr
    assert "Traceback" not in again.stderr
    assert_equal(before, state_of(tmp_path))


def test_what_a_run_goes_on_with_otherwise_is_said(train_flags: TrainFlags, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(train_flags("--iter=1")) == 0
    assert train.main(train_flags("--iter=2", "--lr=0.5", "--continue_train")) == 0
    said = capsys.readouterr().out
    assert "Changed since this run was last started: iter 1 -> 2, lr 0.001 -> 0.5" in said


def sides(flags: list[str]) -> tuple[list[str], list[str]]:
    """Names of the photos that a run of these flags trains on, and of those that it is measured on."""
    run = train.Training(parse(TrainOptions, flags), Processes(torch.device("cpu")))
    run.log.close()
    assert run.val_loader is not None
    return tuple(loader.dataset.squares.photos.names for loader in (run.loader, run.val_loader))


def add_photo(photo_folder: PhotoFolder, name: str) -> None:
    """A copy of 001.png, before all others in the CSV."""
    shutil.copy(photo_folder.images / "001.png", photo_folder.images / name)
    header, *rows = photo_folder.csv.read_text().splitlines()
    new = [row.replace("001.png", name) for row in rows if row.startswith("001.png")]
    photo_folder.csv.write_text("\n".join([header, *new, *rows]) + "\n")


def test_held_out_photos_stay_held_out_when_photos_are_added(
    train_flags: TrainFlags, photo_folder: PhotoFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = train_flags("--val_fraction=0.4")
    assert train.main([*flags, "--iter=1"]) == 0
    trained_on, held_out = sides([*flags, "--continue_train"])
    assert "Photos have changed" not in capsys.readouterr().out
    for number in range(6):
        add_photo(photo_folder, f"new{number}.png")
    assert train.main([*flags, "--iter=2", "--continue_train"]) == 0
    assert "\n  6 photos added: new5.png; new4.png; new3.png; ...\n" in capsys.readouterr().out
    found = sides([*flags, "--continue_train"])
    assert [[name for name in side if not name.startswith("new")] for side in found] == [trained_on, held_out]
    assert all(len(now) > len(before) for now, before in zip(found, (trained_on, held_out), strict=True))
    assert sides([*flags, "--name=other"]) == found  # a run that begins now has the same


@pytest.mark.parametrize("more", [["--val_fraction=0"], ["--val_fraction=0.9"], ["--val_fraction=0.4", "--seed=5"]])
def test_held_out_photos_stay_held_out_whatever_share_is_asked_for_later(
    more: list[str], train_flags: TrainFlags, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = train_flags("--val_fraction=0.4")
    assert train.main([*flags, "--iter=1"]) == 0
    before = sides([*flags, "--continue_train"])
    assert sides([*flags, *more, "--continue_train"]) == before
    assert "--val_fraction and --seed as they are now decide for new photos only" in capsys.readouterr().out


def test_held_out_photos_are_not_trained_on_when_others_are_named_for_validation(
    train_flags: TrainFlags, tmp_path: Path
) -> None:
    assert train.main(train_flags("--val_fraction=0.4", "--iter=1")) == 0
    trained_on, _ = sides(train_flags("--val_fraction=0.4", "--continue_train"))
    validation = write_photos(tmp_path / "val", 3)
    named = [f"--val_df_path={validation.csv}", f"--val_image_folder={validation.images}"]
    assert sides(train_flags("--continue_train", *named)) == (trained_on, ["000.png", "001.png", "002.png"])


def test_photos_that_were_trained_on_are_never_held_out(train_flags: TrainFlags) -> None:
    assert train.main(train_flags("--iter=1")) == 0
    with pytest.raises(
        RunError, match=r"--val_fraction 0.4: expected photos on both sides, found 8 for training and 0"
    ):
        train.main(train_flags("--iter=2", "--val_fraction=0.4", "--continue_train"))


@pytest.mark.long
def test_two_processes_agree_on_what_has_changed(
    train_flags: TrainFlags, photo_folder: PhotoFolder, tmp_path: Path
) -> None:
    flags = train_flags("--val_fraction=0.4", "--val_freq=2")
    assert train.main([*flags, "--iter=1"]) == 0
    add_photo(photo_folder, "new.png")
    ranks = [
        rank.wait() for rank in two_ranks([*flags, "--iter=2", "--seed=3", "--continue_train"], tmp_path / "printed")
    ]
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    assert ["1 photos added: new.png" in rank.stdout for rank in ranks] == [True, False]
    assert "5 photos for training, 4 for validation; 2 process(es)" in ranks[0].stdout
    assert len(set(state_of(tmp_path)["weights_sha256"])) == 1


def test_a_run_does_not_go_on_with_fewer_steps_or_other_classes(train_flags: TrainFlags, tmp_path: Path) -> None:
    assert train.main(train_flags("--iter=2")) == 0
    with pytest.raises(RunError, match=r"--iter 1: expected more than the 2 steps done"):
        train.main(train_flags("--iter=1", "--continue_train"))

    own = tmp_path / "own.toml"
    own.write_text("".join(f'[[class]]\nname = "{name}"\n' for name in ("pants", "dress", "shirt")))
    flags = train_flags("--iter=3", "--continue_train", f"--classes={own}")
    others = r"\(background, pants, dress, shirt\), found one for 4 \(background, upper body, "
    with pytest.raises(RunError, match=others):
        train.main(flags)
    state = state_of(tmp_path)
    del state["class_set"]  # as in older ones
    torch.save(state, tmp_path / "results" / "run" / "training_state.pth")
    with pytest.raises(RunError, match=others):
        train.main(flags)


def test_the_best_of_an_earlier_process_is_known(
    train_flags: TrainFlags, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = train_flags("--iter=1", "--val_fraction=0.25")
    assert train.main(flags) == 0
    [line] = re.findall(r"best weights .* clothes IoU 0\.\d{3} at step 1\n", capsys.readouterr().out)
    assert train.main([*flags, "--continue_train"]) == 0
    assert line in capsys.readouterr().out
    best = tmp_path / "results" / "run" / "checkpoints" / "best_u2netp.pth"
    best.rename(tmp_path / "elsewhere.pth")
    assert train.main([*flags, "--continue_train"]) == 0
    said = capsys.readouterr().out
    assert "best weights" not in said
    assert f"--checkpoint {best.with_name('itr_00000001_u2netp.pth')}\n" in said


def test_a_loss_that_is_not_finite_stops_the_run(train_flags: TrainFlags, tmp_path: Path) -> None:
    done = python("train.py", *train_flags("--iter=50", "--lr=1e30", "--print_freq=4", "--clip_grad=0"))
    assert done.returncode == 1
    assert "expected a finite loss and gradient, found total" in done.stderr
    assert "train.py: step " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results" / "run" / "training_state.pth").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--unet_checkpoint=absent.pth", "absent.pth: expected initial weights, found none"),
        ("--continue_train", "--continue_train: expected the run"),
        ("--df_path=absent.csv", "--df_path: absent.csv: expected a CSV of iMaterialist"),
        ("--image_folder=absent", "--image_folder: absent: expected the folder of the photos"),
        ("--val_df_path=absent.csv", "--val_df_path: absent.csv: expected a CSV of iMaterialist"),
        ("--device=cuda:99", "GPU number 99, found"),
        ("--distributed", "torchrun"),
        ("--teacher=absent.pth", "--teacher: absent.pth: expected"),
        ("--val_fraction=0.01", "--val_fraction 0.01: expected photos on both sides"),
    ],
)
def test_mistakes_leave_nothing_behind(flag: str, message: str, train_flags: TrainFlags, tmp_path: Path) -> None:
    with pytest.raises((RunError, DataError), match=re.escape(message)):
        train.main(train_flags("--iter=1", flag))
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "logs").exists()


def test_a_wrong_option_ends_with_code_2(train_flags: TrainFlags) -> None:
    done = python("train.py", *train_flags("--lr=no"))
    assert done.returncode == 2
    assert "--lr: expected a number above 0, found 'no'" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_learns(train_flags: TrainFlags, tmp_path: Path) -> None:
    assert train.main(train_flags("--iter=30", "--print_freq=3", "--lr=0.003")) == 0
    events = EventAccumulator(str(tmp_path / "logs" / "run")).Reload()
    losses = [event.value for event in events.Scalars("loss/total")]
    assert losses[-1] < losses[0] / 2


def test_network_goes_on_from_given_weights(train_flags: TrainFlags, weights: Path, tmp_path: Path) -> None:
    assert train.main(train_flags("--iter=1", "--lr=1e-12", f"--unet_checkpoint={weights}")) == 0
    before, after = read_file(weights)["state_dict"], state_of(tmp_path)["parts"]["network"]
    for key, value in before.items():
        if value.ndim == 4:
            torch.testing.assert_close(value, after[key], rtol=0, atol=1e-9)


def test_augmentation_and_region_loss_are_those_asked_for(train_flags: TrainFlags, photo_folder: PhotoFolder) -> None:
    wanted = Augmentation(
        pair=0.1, portrait=0.2, crop=0.3, flip=0.4, scale=0.5, rotate=6, shift=0.7, color=0.8, recolor=0.9
    )
    asked = {name: value for name, value in asdict(wanted).items() if name != "ignored"}  # which the classes tell
    flags = [f"--augment_{name}={value}" for name, value in asked.items()]
    opt = parse(TrainOptions, train_flags("--region_loss=2.5", *flags))
    run = train.Training(opt, Processes(torch.device("cpu")))
    photos = train.read_photos(opt, run.classes, run.processes)
    assert run._squares(photos.train, opt.image_folder, photos.usable).augmentation == wanted
    assert run._squares(photos.train, opt.image_folder).augmentation == Augmentation()
    assert run.loss.region_weight == 2.5


def test_the_loss_of_a_blend_is_the_blend_of_the_losses(train_flags: TrainFlags) -> None:
    opt = parse(TrainOptions, train_flags("--mixup=0.4", "--batchSize=3"))
    run = train.Training(opt, Processes(torch.device("cpu")))
    photos, labels = torch.randn(3, 3, 8, 8), torch.randint(0, 4, (3, 8, 8))
    outputs = tuple(torch.randn(7, 3, 4, 8, 8))
    shares = []
    for _ in range(20):
        blended, targets = run.blend(photos, labels)
        # Each photo is its own share of the blend and a partner's rest.
        others = photos.roll(1, 0)
        share = ((blended - others).flatten() @ (photos - others).flatten() / (photos - others).pow(2).sum()).item()
        torch.testing.assert_close(blended, share * photos + (1 - share) * others)
        own, partners = (torch.stack(run.loss(outputs, target)) for target in (labels, labels.roll(1, 0)))
        torch.testing.assert_close(torch.stack(run.losses(outputs, targets)), share * own + (1 - share) * partners)
        shares.append(share)
    assert 0.5 <= min(shares) < 0.8
    assert 0.8 < max(shares) <= 1


def test_mixup_reaches_training(train_flags: TrainFlags, tmp_path: Path) -> None:
    for name, more in (("plain", []), ("blended", ["--mixup=5"])):
        assert train.main(train_flags("--iter=1", f"--name={name}", *more)) == 0
    plain, blended = (state_of(tmp_path, name)["weights_sha256"] for name in ("plain", "blended"))
    assert plain != blended


def test_a_teacher_counts_as_far_as_it_is_right(train_flags: TrainFlags, weights: Path) -> None:
    opt = parse(TrainOptions, train_flags(f"--teacher={weights}", "--teacher_share=0.8"))
    run = train.Training(opt, Processes(torch.device("cpu")))
    draw = np.random.default_rng(0)
    photos = [draw.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(3)]
    segment = Segmenter.load(weights, device="cpu")
    probabilities = torch.stack([torch.from_numpy(segment(photo).probabilities()) for photo in photos])
    said = probabilities.argmax(1)
    half = said[2].clone()
    clothes = half.flatten().nonzero()[:, 0]
    assert len(clothes) > 1000
    wrong = clothes[: len(clothes) // 4]
    half.view(-1)[wrong] = half.view(-1)[wrong] % 3 + 1
    labels = torch.stack((said[0], (said[1] % 3) + 1, half))  # right, wrong everywhere, and right on three quarters

    taught = run.taught(torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2), labels)
    truth = torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    for number, share in enumerate((0.8, 0.0, 0.8 * (1 - len(wrong) / len(clothes)))):
        expected = truth[number] + share * (probabilities[number] - truth[number])
        torch.testing.assert_close(taught[number], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(taught.sum(1), torch.ones(3, 64, 64))


def test_a_teacher_reaches_training_and_labels_still_count(
    train_flags: TrainFlags, photo_folder: PhotoFolder, weights: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text(photo_folder.csv.read_text().replace(",10_3_4", ",0"))  # dresses have become blouses
    learned = set()
    for csv, teacher in ((photo_folder.csv, ""), (photo_folder.csv, weights), (other, weights)):
        name = f"{csv.stem}{len(learned)}"
        flags = [f"--teacher={teacher}", "--teacher_share=1", f"--df_path={csv}", f"--name={name}"]
        assert train.main(train_flags("--iter=2", "--mixup=0.3", *flags)) == 0
        learned.add(state_of(tmp_path, name)["weights_sha256"][0])
    assert len(learned) == 3


def test_a_run_on_garments_is_measured_in_garments(
    train_flags: TrainFlags, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = write_photos(tmp_path / "val", 4)
    measured = [f"--val_df_path={validation.csv}", f"--val_image_folder={validation.images}"]
    flags = train_flags("--labels=garments", "--iter=2", "--image_log_freq=2", *measured)
    assert train.main(flags) == 0
    said = capsys.readouterr().out
    best = tmp_path / "results" / "run" / "checkpoints" / "best_u2netp.pth"
    assert f"python infer.py --checkpoint {best}\n" in said
    info = load_network(best, ARCHITECTURES)[1]
    assert info.classes == SHIPPED["garments"]
    assert info.mean_iou_clothes is not None
    assert ClassSet.read(state_of(tmp_path)["class_set"]) == SHIPPED["garments"]
    events = EventAccumulator(str(tmp_path / "logs" / "run"), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("validation/iou_top")]
    assert len(tags) == 1
    assert {"training", "validation"} <= set(events.Tags()["images"])

    run = train.Training(parse(TrainOptions, [*flags, "--name=labels"]), Processes(torch.device("cpu")))
    squares = run._squares(train.read_photos(run.opt, run.classes, run.processes).train, run.opt.image_folder)
    assert [squares[Draw(number, 0)][1].unique().tolist() for number in (0, 1)] == [[0, 11], [0, 2, 7]]

    with pytest.raises(RunError, match=r"expected u2netp for 4 classes .* need a new head .*--arch u2netp"):
        train.main(train_flags("--name=next", "--iter=1", f"--unet_checkpoint={best}"))
    with pytest.raises(
        RunError,
        match=r"for the 4 classes of --classes clothes .* found one for 14 \(background, shirt",
    ):
        train.main(train_flags("--iter=3", "--continue_train"))


def write_classes(path: Path, *classes: tuple[str, str, str]) -> str:
    """A file of classes, (name, category, colour) each; gives the flag for it."""
    text = '[[class]]\nname = "{}"\ncategories = ["{}"]\ncolor = "#{}"\n'
    path.write_text("".join(text.format(*each) for each in classes))
    return f"--classes={path}"


def test_a_class_file_that_was_edited_is_told(
    train_flags: TrainFlags, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top, pants, dress = ("x", "top, t-shirt, sweatshirt", "110000"), ("y", "pants", "001100"), ("z", "dress", "000011")
    path = tmp_path / "mine.toml"
    more = ["--iter=1", write_classes(path, top, pants, dress)]
    assert train.main(train_flags(*more)) == 0
    for classes, told in (
        ((top, pants, dress), None),
        ((("x", "pants", "110000"), ("y", "top, t-shirt, sweatshirt", "001100"), dress), "categories of x, y"),
        ((top, pants, ("z", "dress", "0000ff")), "colours of z"),
    ):
        write_classes(path, *classes)
        capsys.readouterr()
        assert train.main(train_flags(*more, "--continue_train")) == 0
        said = re.findall(r"Changed since this run was last started: (.*)", capsys.readouterr().out)
        assert said == ([told] if told else [])
    write_classes(path, top, pants, ("other", "dress", "000011"))
    with pytest.raises(
        RunError, match=r"x, y, other\), found one for 4 \(background, x, y, z\); give its own --classes"
    ):
        train.main(train_flags(*more, "--continue_train"))


def test_a_frozen_encoder_stays_as_it_is_and_the_rest_learns(
    train_flags: TrainFlags, weights: Path, tmp_path: Path
) -> None:
    flags = train_flags(f"--unet_checkpoint={weights}", "--freeze=encoder", "--weight_decay=0.1", "--ema=0.9")
    assert train.main([*flags, "--iter=1"]) == 0
    assert train.main([*flags, "--iter=3", "--continue_train"]) == 0
    before = read_file(weights)["state_dict"]
    state = state_of(tmp_path)["parts"]
    for after in (
        state["network"],
        read_file(tmp_path / "results/run/checkpoints/itr_00000003_u2netp.pth")["state_dict"],
    ):
        same = {key for key in before if torch.equal(before[key], after[key])}
        encoder = {key for key in before if re.match(r"stage[1-6]\.", key)}
        assert encoder <= same  # statistics for normalisation too
        assert not {key for key in same - encoder if key.endswith("conv_s1.weight")}


def test_a_frozen_encoder_asks_for_trained_weights() -> None:
    with pytest.raises(
        OptionError, match="--freeze encoder: expected trained weights in --unet_checkpoint, found none"
    ):
        TrainOptions(freeze="encoder", unet_checkpoint="")
