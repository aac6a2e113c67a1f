"""Photos whose files are called otherwise than their rows say."""

import os
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PhotoFolder, TrainFlags, fork, state_of, two_ranks
from PIL import Image

import train
from data.checks import Checked, read_checked
from data.dataset import LabelledPhotos

NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def checked(folder: PhotoFolder) -> Checked:
    return read_checked(("--df_path", str(folder.csv)), ("--image_folder", str(folder.images)))


def respell(folder: PhotoFolder, written: str, file: str, photo: str = "001.png") -> None:
    """Call a photo ``written`` in the CSV, and ``file`` in the folder."""
    folder.csv.write_text(folder.csv.read_text().replace(f"\n{photo},", f"\n{written},"))
    (folder.images / photo).rename(folder.images / file)


SPELLINGS = [
    ("001", "001.png"),
    ("001", "001.PNG"),
    ("001.png", "001.PNG"),
    ("001.JPG", "001.jpg"),
    ("001.jpg", "001.jpeg"),
    ("001.jpeg", "001.JPG"),
    ("001.tif", "001.TIFF"),
    ("IMG_1.png", "img_1.png"),
    (f"{NFC}.png", f"{NFD}.png"),
    (f"{NFD}.PNG", f"{NFC}.png"),
    (f"{NFD}", f"{NFC}.png"),
    ("photo.v1.5", "photo.v1.5.png"),
    ("train/001.png", "001.png"),
    ("input/train/001", "001.png"),
    ("/kaggle/input/train/001.jpg", "001.JPG"),
    ("train\\001.png", "001.png"),
    ("002.d/001", "002.d/001.png"),
]


@pytest.mark.parametrize(("written", "file"), SPELLINGS)
def test_the_one_file_that_is_meant_is_found(written: str, file: str, photo_folder: PhotoFolder) -> None:
    (photo_folder.images / "002.d").mkdir()
    (photo_folder.images / "001.txt").touch()
    respell(photo_folder, written, file)
    found = checked(photo_folder)
    assert found.faults == []
    assert found.photos.names.tolist()[:3] == ["000.png", file, "002.png"]
    assert f"1 photos whose files are called otherwise than in the labels: {written} -> {file}" in found.notes
    photo, labels = LabelledPhotos(found.photos, photo_folder.images)[1]
    assert photo.size == labels.shape[::-1]


@pytest.mark.parametrize(
    ("written", "files", "hint"),
    [
        ("001", ["001.png", "001.jpg"], r"'001' \(is it 001.jpg or 001.png\?\)"),
        ("001.Png", ["001.png", "001.PNG"], r"'001.Png' \(is it 001.PNG or 001.png\?\)"),
        ("x/001.jpg", ["001.jpeg", "001.JPG"], r"'x/001.jpg' \(is it 001.JPG or 001.jpeg\?\)"),
        ("001.jpg", ["001.png"], r"'001.jpg'$"),  # perhaps its mask
        ("001", ["0010.png", "001"], r"'001'$"),
        ("train/000.png", ["001.png"], r"'train/000.png' \(is it 000.png\?\)"),  # another row's
        ("000", ["001.png"], r"'000' \(is it 000.png\?\)"),
    ],
)
def test_where_it_is_not_plain_which_is_meant_files_are_named(
    written: str, files: list[str], hint: str, photo_folder: PhotoFolder
) -> None:
    content = (photo_folder.images / "001.png").read_bytes()
    respell(photo_folder, written, files[0])
    for file in files[1:]:
        if "." in file:
            (photo_folder.images / file).write_bytes(content)
        else:
            (photo_folder.images / file).mkdir()
    found = checked(photo_folder)
    [fault] = found.faults
    assert (fault.kind, fault.photo) == ("photos that are not there", written)
    assert re.search(hint, fault.text), fault.text
    assert found.notes == ""


def test_two_rows_that_may_mean_one_file_get_none(photo_folder: PhotoFolder) -> None:
    respell(photo_folder, "a/001", "001.png")
    respell(photo_folder, "b/001", "b.png", photo="002.png")
    assert [fault.text for fault in checked(photo_folder).faults] == [
        "'a/001' (is it 001.png?)",
        "'b/001' (is it 001.png?)",
    ]


def folders_listed(action: Callable[[], object]) -> int:
    """How many times the process lists a folder meanwhile."""
    count = 0
    counting = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        count += counting and event in ("os.scandir", "os.listdir")

    sys.addaudithook(hook)  # it stays for good, so it is told when to stop counting
    action()
    counting = False
    return count


def test_a_folder_is_listed_once_and_only_if_need_be(photo_folder: PhotoFolder) -> None:
    assert folders_listed(lambda: checked(photo_folder)) == 0
    text = photo_folder.csv.read_text()
    for written in (r"\1", r"\1.jpg", r"set\1/\1"):  # each in a folder of its own that is not there
        photo_folder.csv.write_text(re.sub(r"^(\d+)\.png", written, text, flags=re.M))
        assert folders_listed(lambda: checked(photo_folder)) == 1


def test_wrong_rows_of_a_photo_that_was_found_spoil_it(photo_folder: PhotoFolder) -> None:
    respell(photo_folder, "001", "001.png")
    with photo_folder.csv.open("a") as file:
        file.write("001,1 2,80,60,99\n001,1 x,80,60,1\n")
    found = checked(photo_folder)
    assert len(found.faults) == 2
    assert found.bad == {"001.png"}


def without_endings(folder: PhotoFolder) -> None:
    folder.csv.write_text(folder.csv.read_text().replace(".png,", ","))
    for path in list(folder.images.iterdir()):
        path.rename(path.with_suffix(".PNG"))


def test_figures_are_of_the_files(photo_folder: PhotoFolder, weights: Path, tmp_path: Path) -> None:
    flags = [f"--image_folder={photo_folder.images}", f"--df_path={photo_folder.csv}", f"--checkpoint={weights}"]
    before = fork("evaluate.py", *flags, "--device=cpu", folder=tmp_path / "printed")
    without_endings(photo_folder)
    after = fork("evaluate.py", *flags, "--device=cpu", folder=tmp_path / "printed")
    assert after.returncode == 0, after.stderr
    assert after.stdout == before.stdout
    assert (
        "8 photos whose files are called otherwise than in the labels: 000 -> 000.PNG; 001 -> 001.PNG" in after.stderr
    )


@pytest.mark.long
def test_a_run_is_the_same_whatever_spelling_the_rows_have(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    flags = train_flags("--iter=1", "--val_fraction=0.4")
    assert train.main([*flags, "--name=before"]) == 0
    without_endings(photo_folder)
    assert train.main([*flags, "--name=after"]) == 0
    sums = [state_of(tmp_path, name)["weights_sha256"] for name in ("before", "after")]
    assert sums[0] == sums[1]
    ranks = [rank.wait() for rank in two_ranks([*flags, "--name=two"], tmp_path / "printed")]
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    assert ["called otherwise than in the labels" in rank.stderr for rank in ranks] == [True, False]


def test_names_that_are_no_unicode_are_compared_too(photo_folder: PhotoFolder) -> None:
    name = os.fsdecode(b"\xe9.PNG")
    Image.open(photo_folder.images / "001.png").save(photo_folder.images / name, format="PNG")
    content = photo_folder.csv.read_bytes().replace(b"\n001.png,", b"\n\xe9.png,")
    photo_folder.csv.write_bytes(content)
    found = checked(photo_folder)
    assert found.faults == []
    assert found.photos.names.tolist()[1] == name
