import json
from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path

import pytest

from cloth_segmentation.batch.options import InferBatchOptions
from cloth_segmentation.command.base_options import BaseOptions, option
from options import (
    EvaluateOptions,
    InferOptions,
    LabelsOptions,
    OptionError,
    SetupOptions,
    TrainOptions,
    describe,
    parse,
    save,
)

ALL = (TrainOptions, InferOptions, InferBatchOptions, EvaluateOptions, SetupOptions, LabelsOptions)


def complaint(capsys: pytest.CaptureFixture[str], cls: type, *argv: str) -> str:
    with pytest.raises(SystemExit) as leaving:
        parse(cls, argv)
    assert leaving.value.code == 2
    return capsys.readouterr().err


def test_the_original_s_options_keep_their_names_and_values() -> None:
    opt = TrainOptions()
    assert (opt.fine_width, opt.fine_height, opt.mean, opt.std) == (768, 768, 0.5, 0.5)
    assert (opt.batchSize, opt.nThreads, opt.iter, opt.lr, opt.clip_grad) == (2, 2, 100_000, 1e-3, 5)
    assert (opt.save_freq, opt.print_freq, opt.image_log_freq) == (1000, 10, 100)
    assert {
        "name", "image_folder", "df_path", "distributed", "max_dataset_size", "serial_batches", "continue_train",
        "unet_checkpoint", "logs_dir", "save_dir",
    } <= {item.name for item in fields(TrainOptions)}  # fmt: skip
    switches = (opt.amp, opt.ema, opt.lr_schedule, opt.warmup, opt.accumulate, opt.weight_decay, opt.val_fraction)
    assert switches == ("off", 0, "constant", 0, 1, 0, 0)
    assert not any(getattr(opt, item.name) for item in fields(opt) if item.name.startswith("augment_"))


@pytest.mark.parametrize("cls", ALL)
def test_every_field_is_a_flag_with_help(cls: type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse(cls, ["--help"])
    assert leaving.value.code == 0
    shown = "".join(capsys.readouterr().out.split())
    for item in fields(cls):
        assert f"--{item.name}" in shown
        assert "".join(item.metadata["help"].split()) in shown


@pytest.mark.parametrize("cls", ALL)
def test_defaults_pass_their_own_checks_and_are_frozen(cls: type) -> None:
    opt = parse(cls, [])
    assert opt == cls()
    with pytest.raises(FrozenInstanceError):
        opt.device = "cpu"


def test_flags_are_read() -> None:
    opt = parse(TrainOptions, ["--lr", "2e-4", "--batchSize=7", "--serial_batches", "--no-distributed", "--name", "x"])
    assert (opt.lr, opt.batchSize, opt.serial_batches, opt.distributed, opt.name) == (2e-4, 7, True, False, "x")
    assert parse(TrainOptions, ["--max_dataset_size", "5"]).max_dataset_size == 5


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--lr", "fast"], "--lr: expected a number above 0, found 'fast'"),
        (["--lr", "-1"], "--lr: expected a number above 0, found -1.0"),
        (["--lr", "nan"], "--lr: expected a number above 0, found nan"),
        (["--iter", "1.5"], "--iter: expected a whole number of at least 1, found '1.5'"),
        (["--ema", "1"], "--ema: expected a number of at least 0 and below 1, found 1.0"),
        (["--arch", "unet"], "--arch: expected one of u2net, u2netp, found 'unet'"),
        (["--fine_width", "8"], "--fine_width: expected a whole number of at least 64, found 8"),
        (["--batchsize", "4"], "--batchsize: unknown option; did you mean --batchSize?"),
        (["--bogus=3"], "--bogus: unknown option"),
        (["--local-rank=0"], "--use_env"),
        (["stray"], "'stray': expected options that begin with --"),
        (["--lr"], "--lr: expected one argument"),
        (["--device", "gpu"], "--device: expected auto, cpu, cuda, cuda:N or mps, found 'gpu'"),
        (
            ["--val_fraction", "0.1", "--val_df_path", "v.csv"],
            "--val_fraction and --val_df_path: expected one of the two",
        ),
        (["--val_image_folder", "v"], "--val_image_folder: expected with --val_df_path"),
        (["--amp", "fp16", "--device", "cpu"], "--amp fp16: expected a CUDA device, found --device cpu"),
        (["--iter", "5", "--warmup", "5"], "--warmup: expected fewer steps than --iter 5, found 5"),
        (["--name", "a/b"], "--name: expected the name of a folder of at most 200 letters, found 'a/b'"),
    ],
)
def test_mistakes_name_flag_expectation_and_finding(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = complaint(capsys, TrainOptions, *flags)
    assert expected in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("cls", "flags", "expected"),
    [
        (InferOptions, ["--size", "big"], "--size: expected auto, native, N or WxH"),
        (InferOptions, ["--size", "16"], "--size"),
        (InferOptions, ["--engine", "onnx", "--size", "500"], "--size 500: expected weights that PyTorch runs"),
        (InferOptions, ["--engine", "onnx", "--size", "native"], "--size native: expected weights that PyTorch runs"),
        (InferOptions, ["--engine", "onnx", "--amp", "bf16"], "--amp bf16: expected weights that PyTorch runs"),
        (InferOptions, ["--engine", "onnx", "--device", "mps"], "--device mps: expected weights that PyTorch runs"),
        (InferOptions, ["--checkpoint", "a.onnx", "--engine", "torch"], "found --checkpoint a.onnx"),
        (InferOptions, ["--engine", "onxx"], "--engine: expected one of auto, torch, onnx, found 'onxx'"),
        (InferOptions, ["--workers", "0"], "--workers: expected a whole number of at least 1, found 0"),
        (EvaluateOptions, ["--record", "--checkpoint", "w.onnx"], "--record: expected --checkpoint with the .pth file"),
        (
            EvaluateOptions,
            ["--record", "--checkpoint", "w.pth", "--amp", "bf16"],
            "a plain measurement, which compares",
        ),
        (InferOptions, ["--save", "mask,video"], "--save: expected some of mask,overlay,cutout,classes,json, with com"),
        (
            InferOptions,
            ["--save", ""],
            "--save: expected some of mask,overlay,cutout,classes,json, with commas, found ''",
        ),
        (InferOptions, ["--crop"], "--crop: expected cutout in --save, found 'mask'"),
        (InferOptions, ["--background", "#ffffff"], "--background #ffffff: expected cutout in --save, found 'mask'"),
        (
            InferOptions,
            ["--save", "cutout", "--background", "white"],
            "--background: expected transparent or a colour as #rrggbb, such as #ffffff, found 'white'",
        ),
        (InferOptions, ["--grow", "3", "--shrink", "3"], "--grow 3: expected it without --shrink, found both"),
        (InferOptions, ["--shrink", "-3"], "--shrink: expected a whole number of at least 0"),
        (
            InferOptions,
            ["--save", "cutout", "--skip_existing"],
            "--skip_existing: expected json beside cutout in --save",
        ),
        (SetupOptions, ["--average", "a.pth", "--output", "b.pth"], "--average: expected two files or more"),
        (SetupOptions, ["--average", "a.pth,b.pth"], "--average: expected two files or more and --output"),
        (SetupOptions, ["--average", "a.pth,b.pth", "--source", "c.pth"], "--average: expected without"),
        (EvaluateOptions, ["--record"], "--record: expected --checkpoint"),
        (EvaluateOptions, ["--record", "--checkpoint", "w.pth", "--flip"], "a plain measurement, which compares with"),
        (EvaluateOptions, ["--min_area", "1"], "--min_area: expected a number of at least 0 and below 1"),
        (InferOptions, ["--size", "native", "--batch_size", "2"], "--size native: expected --batch_size 1"),
        (SetupOptions, ["--released", "--source", "f"], "--released and --source"),
        (SetupOptions, ["--released", "--arch", "u2netp"], "--released: expected --arch u2net"),
        (SetupOptions, ["--released", "--labels", "garments"], "--classes garments: expected without --released"),
        (SetupOptions, ["--classes", "garments"], "--classes garments: expected --output"),
        (TrainOptions, ["--mixup", "0.3", "--batchSize", "1"], "--mixup: expected a --batchSize of at least 2"),
        (
            TrainOptions,
            ["--ignore_index", "256"],
            "--ignore_index: expected a whole number of at least 0 ",
        ),
        (EvaluateOptions, ["--batch_size", "0"], "--batch_size: expected a whole number of at least 1, found 0"),
        (InferBatchOptions, ["--save", "json"], "--save: expected some of mask,overlay,cutout,classes, with commas"),
        (InferBatchOptions, ["--crop"], "--crop: expected cutout in --save, found ''"),
        (InferBatchOptions, ["--input", ""], "--input: expected a path or an address, found an empty text"),
        (InferBatchOptions, ["--size", "native"], "--size native: expected one size for all photos"),
        (InferBatchOptions, ["--device", "cuda"], "--device cuda: expected --gpus"),
        (InferBatchOptions, ["--amp", "bf16"], "--amp bf16: expected --gpus above 0, found 0"),
        (InferBatchOptions, ["--gpus", "1.5"], "--gpus: expected a share of one GPU, or whole ones, found 1.5"),
        (InferBatchOptions, ["--pack", "zip"], "--pack: expected one of tree, tar, found 'zip'"),
        (InferBatchOptions, ["--rows", "0"], "--rows: expected a whole number of at least 1, found 0"),
        (InferBatchOptions, ["--memory", "0"], "--memory: expected a number above 0, found 0.0"),
        (InferBatchOptions, ["--report", "failed.csv"], "--report: unknown option"),
    ],
)
def test_mistakes_of_other_scripts(
    cls: type, flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in complaint(capsys, cls, *flags)


def test_defaults_edited_in_the_file_are_checked_too() -> None:
    for changed in ({"batchSize": 0}, {"lr": "1e-3"}, {"serial_batches": "yes"}, {"batchSize": True}, {"arch": "x"}):
        with pytest.raises(OptionError, match=f"--{next(iter(changed))}: expected"):
            TrainOptions(**changed)


def test_size_of_inference() -> None:
    assert InferOptions().network_size == "auto"
    assert InferOptions(size="native").network_size == "native"
    assert InferOptions(size="320").network_size == (320, 320)
    assert InferOptions(size="320x480").network_size == (320, 480)


def test_initial_weights_follow_the_architecture() -> None:
    assert TrainOptions().initial_weights == "prev_checkpoints/cloth_segm_unet_surgery.pth"
    assert TrainOptions(arch="u2netp").initial_weights == "prev_checkpoints/cloth_segm_u2netp_surgery.pth"
    assert parse(TrainOptions, ["--unet_checkpoint", ""]).initial_weights == ""


def test_what_is_not_default_is_marked() -> None:
    lines = describe(TrainOptions(lr=0.5)).splitlines()
    assert [line for line in lines if line.startswith("*")] == [line for line in lines if line[2:].startswith("lr ")]
    assert any("0.5   (default: 0.001)" in line for line in lines)


def test_options_are_saved_as_json(tmp_path: Path) -> None:
    save(TrainOptions(lr=0.5), tmp_path / "options.json")
    content = json.loads((tmp_path / "options.json").read_text())
    assert TrainOptions(**content) == TrainOptions(lr=0.5)


def test_a_percent_sign_in_a_help_line_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Strange(BaseOptions):
        """Strange."""

        share: float = option(0.5, "share of 50% (%d)")

    with pytest.raises(SystemExit):
        parse(Strange, ["--help"])
    assert "50% (%d)" in capsys.readouterr().out
