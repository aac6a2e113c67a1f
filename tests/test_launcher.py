"""Environment variables of launchers that are empty, half set or wrong."""

import re
from pathlib import Path

import pytest
from conftest import PhotoFolder, TrainFlags, fork
from PIL import Image

from cloth_segmentation.errors import DeviceError
from cloth_segmentation.launcher import Launch, check_meeting_point, launch, speaks_for_all, whole_number

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
HERE = {"MASTER_ADDR": "127.0.0.1"}
TWO = {"RANK": "0", "WORLD_SIZE": "2"}

ALONE: list[dict[str, str]] = [
    {},
    dict.fromkeys(NAMES, ""),
    {"WORLD_SIZE": " "},
    {"WORLD_SIZE": "1"},
    {"RANK": "", "WORLD_SIZE": "1", "LOCAL_RANK": ""},
]

WRONG: dict[str, tuple[dict[str, str], str]] = {
    "a word": ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE: expected a whole number of at least 1, found 'two'"),
    "a fraction": ({"RANK": "0.5", "WORLD_SIZE": "2"}, "RANK: expected a whole number of at least 0, found '0.5'"),
    "no process": ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: expected a whole number of at least 1, found '0'"),
    "a negative rank": ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK: expected a whole number of at least 0, found '-1'"),
    "a rank beyond": ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK: expected less than WORLD_SIZE \(2\), found 2"),
    "no world size": ({"RANK": "0"}, "RANK: expected WORLD_SIZE beside it, found none"),
    "an empty world size": ({"RANK": "1", "WORLD_SIZE": ""}, "RANK: expected WORLD_SIZE beside it, found none"),
    "no rank": ({"WORLD_SIZE": "2"}, "WORLD_SIZE: expected RANK beside it, found none"),
    "a local word": (TWO | {"LOCAL_RANK": "gpu1"}, "LOCAL_RANK: expected a whole number of at least 0, found 'gpu1'"),
    "a local rank beyond": (
        {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"},
        r"LOCAL_RANK: expected less than LOCAL_WORLD_SIZE \(2\), found 2",
    ),
    "no address": (TWO | {"MASTER_PORT": "29500"}, "MASTER_ADDR: expected the address of the process of rank 0"),
    "no port": (TWO | HERE, "MASTER_PORT: expected a free port of the machine of rank 0, found none"),
    "an empty port": (TWO | HERE | {"MASTER_PORT": ""}, "MASTER_PORT: expected a free port .*, found none"),
    "a port that is a word": (TWO | HERE | {"MASTER_PORT": "http"}, "MASTER_PORT: .* from 1 to 65535, found 'http'"),
    "a port beyond": (TWO | HERE | {"MASTER_PORT": "65536"}, "MASTER_PORT: .* from 1 to 65535, found '65536'"),
}


@pytest.fixture
def set_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("environment", ALONE)
def test_a_process_is_on_its_own(environment: dict[str, str], set_variables: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        set_variables.setenv(name, value)
    assert launch() == Launch(launched=False, rank=0, world_size=1, local_rank=0)
    assert speaks_for_all()


def test_a_process_is_one_of_several(set_variables: pytest.MonkeyPatch) -> None:
    for name, value in (HERE | {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_PORT": "29500"}).items():
        set_variables.setenv(name, value)
    assert launch() == Launch(launched=True, rank=1, world_size=4, local_rank=1)
    assert not speaks_for_all()
    check_meeting_point()


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_named(kind: str, set_variables: pytest.MonkeyPatch) -> None:
    environment, words = WRONG[kind]
    for name, value in environment.items():
        set_variables.setenv(name, value)
    with pytest.raises(DeviceError, match=words):
        _ = launch(), check_meeting_point()


def test_a_wrong_number_of_threads_is_named(set_variables: pytest.MonkeyPatch) -> None:
    set_variables.setenv("OMP_NUM_THREADS", "all")
    with pytest.raises(DeviceError, match="OMP_NUM_THREADS: expected a whole number of at least 0, found 'all'"):
        whole_number("OMP_NUM_THREADS")


INFER = ["infer.py", "--input={images}", "--output={out}", "--checkpoint={weights}", "--device=cpu"]
SCRIPTS = {
    "infer.py": INFER,
    "infer.py --engine torch": [*INFER, "--engine=torch"],
    "train.py": ["train.py", "{train}", "--iter=1"],
    "evaluate.py": ["evaluate.py", "--image_folder={images}", "--df_path={csv}", "--device=cpu", "--engine=torch"],
    "export.py": ["export.py", "--output={out}/w.onnx", "--photos={images}"],
    "the command": ["cloth_segmentation/__main__.py", "--input={images}", "--output={out}"],
}


@pytest.mark.parametrize(
    ("script", "environment", "words"),
    [
        ("infer.py", TWO, "MASTER_ADDR: expected"),
        ("infer.py", {"WORLD_SIZE": "two"}, "WORLD_SIZE: expected"),
        ("infer.py", {"OMP_NUM_THREADS": "all"}, "OMP_NUM_THREADS: expected"),
        ("infer.py --engine torch", {"LOCAL_RANK": "first"}, "LOCAL_RANK: expected"),
        ("train.py", TWO | HERE | {"MASTER_PORT": "x"}, "MASTER_PORT: expected"),
        ("train.py", {"WORLD_SIZE": "2"}, "WORLD_SIZE: expected RANK beside it"),
        ("train.py", {"TORCHELASTIC_RESTART_COUNT": "often"}, "TORCHELASTIC_RESTART_COUNT: expected"),
        ("evaluate.py", {"LOCAL_WORLD_SIZE": "half"}, "LOCAL_WORLD_SIZE: expected"),
        ("export.py", {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK: expected less than"),
        ("the command", {"RANK": "3", "WORLD_SIZE": "2"}, "RANK: expected less than WORLD_SIZE"),
        ("the command", {"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE: expected"),
    ],
)
def test_a_script_says_it_in_a_sentence(
    script: str,
    environment: dict[str, str],
    words: str,
    photo_folder: PhotoFolder,
    train_flags: TrainFlags,
    weights: Path,
    tmp_path: Path,
) -> None:
    flags = words_of(script, photo_folder, train_flags, weights, tmp_path)
    done = fork(*flags, folder=tmp_path / "printed", env=environment)
    assert done.returncode == 1
    assert re.search(rf"^[\w. -]+( \[rank \d\])?: {words}", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    assert "Left out" not in done.stderr  # of the weights, which are not to blame


@pytest.mark.parametrize("script", ["infer.py --engine torch", "train.py", "the command"])
def test_a_script_takes_empty_ones_as_unset(
    script: str, photo_folder: PhotoFolder, train_flags: TrainFlags, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "one" / "a.png")
    flags = words_of(script, photo_folder._replace(images=tmp_path / "one"), train_flags, weights, tmp_path)
    empty = dict.fromkeys(NAMES, "") | {"TORCHELASTIC_RESTART_COUNT": ""}
    done = fork(*flags, folder=tmp_path / "printed", env=empty)
    assert done.returncode == 0, done.stderr


def test_usage_is_said_whatever_the_rank(tmp_path: Path) -> None:
    for rank in ("", "two"):
        wrong = fork("infer.py", "--colour=red", folder=tmp_path / f"printed{rank}", env={"RANK": rank})
        assert wrong.returncode == 2
        assert "--colour: unknown option" in wrong.stderr


def words_of(script: str, photos: PhotoFolder, train_flags: TrainFlags, weights: Path, folder: Path) -> list[str]:
    names = {"images": photos.images, "csv": photos.csv, "out": folder / "out", "weights": weights}
    return [
        flag for word in SCRIPTS[script] for flag in (train_flags() if word == "{train}" else [word.format(**names)])
    ]
