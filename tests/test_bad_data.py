"""Training data that is not what it should be: each kind of fault, and what train.py says of it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Fork, PhotoFolder, TrainFlags, assert_equal, fork, state_of, two_ranks, wait_until, write_photos
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cloth_segmentation.errors import DataError
from data.checks import check_photos
from data.faults import summary
from data.labels import read_annotations

HEADER = "ImageId,EncodedPixels,Height,Width,ClassId"


def row(
    name: str = "001.png", mask: str = "1 2 9 3", height: object = 80, width: object = 60, category: object = 0
) -> str:
    return f"{name},{mask},{height},{width},{category}"


def whole_file(content: bytes) -> Callable[[PhotoFolder], None]:
    return lambda folder: folder.csv.write_bytes(content) and None


def one_more(line: str | bytes) -> Callable[[PhotoFolder], None]:
    """Add a row; the file has 14 lines before."""
    content = line.encode() if isinstance(line, str) else line
    return lambda folder: folder.csv.write_bytes(folder.csv.read_bytes() + content + b"\n") and None


def instead_of_a_photo(content: bytes | None, name: str = "002.png") -> Callable[[PhotoFolder], None]:
    def edit(folder: PhotoFolder) -> None:
        (folder.images / name).unlink()
        if content is not None:
            (folder.images / name).write_bytes(content)

    return edit


def resized(size: tuple[int, int]) -> Callable[[PhotoFolder], None]:
    return lambda folder: Image.new("RGB", size).save(folder.images / "002.png")


def a_folder(folder: PhotoFolder) -> None:
    (folder.images / "002.png").unlink()
    (folder.images / "002.png").mkdir()


def no_csv(folder: PhotoFolder) -> None:
    folder.csv.unlink()
    folder.csv.mkdir()


def loops(folder: PhotoFolder) -> None:
    (folder.images / "002.png").unlink()
    (folder.images / "002.png").symlink_to(folder.images / "002.png")


MATRIX = {
    # The file
    "csv is a folder": (no_csv, r"--df_path: .*train.csv: expected a CSV .* found a folder of other files"),
    "csv is empty": (whole_file(b""), r"expected labels as CSV or JSON, in plain text, found an empty file"),
    "csv is a web page": (whole_file(b"<!DOCTYPE html><html>sign in</html>"), r"in plain text, found a web page"),
    "csv is a picture": (whole_file(bytes(range(256)) * 9), r"expected the columns"),
    "csv is a zip": (whole_file(b"PK\x03\x04" + bytes(60)), r"found a zip archive; unpack it \(unzip .*train.csv\)"),
    "csv has UTF-16": (whole_file((HEADER + "\n" + row()).encode("utf-16")), r"found text in UTF-16; turn it"),
    "column missing": (whole_file(b"ImageId,EncodedPixels,Height,Width\na.png,1 2,4,4\n"), r"ClassId missing"),
    "semicolons": (whole_file(HEADER.replace(",", ";").encode()), r"found columns separated by semicolons"),
    "header only": (whole_file(HEADER.encode()), r"expected one row for each instance, found only a header"),
    "no row that will do": (whole_file(f"{HEADER}\n{row(height=0)}\n".encode()), r"rows that can be used, found none"),
    # Rows
    "field missing": (one_more("001.png,1 2,80,60"), r"1 rows with another .* line 15: expected 5 fields, found 4"),
    "comma in the mask": (one_more("001.png,1,2,80,60,0"), r"line 15: expected 5 fields, found 6"),
    "quote open": (one_more('"001.png,1 2,80,60,0'), r"line 15: expected 5 fields, found 1"),
    "no name": (one_more(row(name="")), r"rows without ImageId: line 15"),
    "NaN for a name": (one_more(row(name="nan")), r"rows without ImageId: line 15: found 'nan'"),
    "NUL in a name": (one_more(row(name="0\0.png")), r"rows without ImageId: line 15"),
    "endless name": (one_more(row(name="x" * 100_000)), r"rows without ImageId: line 15"),
    "name with a file for a folder": (one_more(row(name="000.png/x.png")), r"1 photos that are not there: '000.png/x"),
    "NaN for Height": (one_more(row(height="nan")), r"wrong Height: line 15: .* from 1 to .* found 'nan'"),
    "infinite Width": (one_more(row(width="inf")), r"wrong Width: line 15: .*found 'inf'"),
    "zero Height": (one_more(row(height=0)), r"wrong Height: line 15: .*found '0'"),
    "negative Width": (one_more(row(width=-60)), r"wrong Width: line 15: .*found '-60'"),
    "half a Width": (one_more(row(width=60.5)), r"wrong Width: line 15: .*found '60.5'"),
    "huge Height": (one_more(row(height=10**30)), r"wrong Height: line 15: "),
    "Height as a word": (one_more(row(height="tall")), r"wrong Height: line 15: .*found 'tall'"),
    "id outside the table": (one_more(row(category=46)), r"wrong ClassId: line 15: .* 0 to 45, .*, found '46'"),
    "negative id": (one_more(row(category=-1)), r"wrong ClassId: line 15: .*found '-1'"),
    "id with a fraction": (one_more(row(category="1.5")), r"wrong ClassId: line 15: .*found '1.5'"),
    "NaN for an id": (one_more(row(category="")), r"wrong ClassId: line 15: .*found ''"),
    "two sizes of a photo": (one_more(row(height=81)), r"another Height .*line 15 .*: found 81, and 80 before"),
    "row twice": (one_more(row() + "\n" + row()), r"1 rows that repeat another: line 16 \(001.png\)"),
    # Masks
    "odd count": (one_more(row(mask="1 2 9")), r"masks that .*: line 15 .*: expected pairs .* found 3 numbers"),
    "letters": (one_more(row(mask="1 x")), r"line 15 \(001.png\): expected 'start .* in whole numbers, found '1 x'"),
    "no mask": (one_more(row(mask="")), r"1 masks that are empty: line 15 \(001.png\)"),
    "NaN for a mask": (one_more(row(mask="nan")), r"line 15 \(001.png\): expected 'start .*found 'nan'"),
    "no ASCII digits": (one_more(row(mask="\uff11 \uff12")), r"line 15 \(001.png\): expected 'start length"),
    "empty run": (one_more(row(mask="1 2 9 0")), r"line 15 .*: expected runs of at least one .* start 9, length 0"),
    "negative run": (one_more(row(mask="1 -2")), r"line 15 \(001.png\): expected 'start length"),
    "start at zero": (one_more(row(mask="0 2")), r"line 15 .*: expected runs .* within 1 to 4800 .* start 0, length 2"),
    "past the end": (one_more(row(mask="4800 2")), r"line 15 .* within 1 to 4800 .* found start 4800, length 2"),
    "runs over one another": (one_more(row(mask="1 5 3 2")), r"line 15 .* over one another, found .* at 1 and 3"),
    "beyond 64 bits": (one_more(row(mask=f"1 {10**30}")), r"line 15 .* within 1 to 4800"),
    # Photos
    "photo missing": (instead_of_a_photo(None), r"1 photos that are not there: '002.png'"),
    "photo empty": (instead_of_a_photo(b""), r"1 photos that cannot be opened: .*002.png: expected a picture"),
    "photo is a text": (instead_of_a_photo(b"hello"), r"1 photos that cannot be opened: .*002.png: expected a picture"),
    "photo is a folder": (a_folder, r"1 photos that are not there: '002.png'"),
    "photo is a link to itself": (loops, r"1 photos that are not there: '002.png'"),
    "photo of another size": (resized((61, 80)), r"002.png: expected 60 x 80 \(Width x Height\), found 61 x 80"),
    "Height and Width swapped": (resized((80, 60)), r"002.png: .*found 80 x 60, Height and Width swapped"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MATRIX)
def test_each_fault_is_named_before_the_first_step(
    kind: str, photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    edit, words = MATRIX[kind]
    edit(photo_folder)
    done = fork("train.py", *train_flags("--on_bad_sample=stop", "--iter=1"), folder=tmp_path / "printed")
    assert done.returncode == 1
    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "logs").exists()


def test_all_faults_are_counted_and_the_good_photos_trained_on(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    for edit, _ in MATRIX.values():
        if edit.__qualname__.startswith("one_more"):  # others spoil the whole file, or a photo that is taken below
            edit(photo_folder)
    for name in ("002.png", "003.png", "004.png"):
        (photo_folder.images / name).unlink()
    done = fork("train.py", *train_flags("--iter=2"), folder=tmp_path / "printed")
    assert done.returncode == 0, done.stderr
    for words in (
        r"4 photos that are not there: '002.png'; '003.png'; '004.png'; \.\.\.\n",
        r"4 rows with a wrong ClassId: line \d+: .*; line \d+: .*; line \d+: .*; \.\.\.\n",
        r"10 masks that cannot be read: .*; \.\.\.",
        r"Going on with 4 of 9 photos\.",
    ):
        assert re.search(words, done.stderr), (words, done.stderr)
    assert "4 photos for training" in done.stdout
    assert state_of(tmp_path)["step"] == 2


def break_when_decoded(path: Path) -> None:
    """The header is whole, so only decoding fails."""
    with Image.open(path) as photo:
        photo.save(path.with_suffix(".tmp"), format="PNG")
    content = path.with_suffix(".tmp").read_bytes()
    path.with_suffix(".tmp").unlink()
    path.write_bytes(content[:300])


def test_a_photo_that_breaks_later_is_skipped_named_and_counted(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    break_when_decoded(photo_folder.images / "001.png")
    assert check_photos(read_annotations(photo_folder.csv), photo_folder.images).faults == []
    for workers in (0, 2):
        flags = train_flags("--iter=4", "--print_freq=2", f"--nThreads={workers}", f"--name=run{workers}")
        done = fork("train.py", *flags, "--val_fraction=0.4", "--val_freq=4", folder=tmp_path / "printed")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("Skipped: ") == 1
        assert re.search(r"Skipped: .*001.png: expected a picture, found one that cannot be decoded", done.stderr)
        assert re.search(r"; photos were skipped \d times\n", done.stdout)
    assert_equal(state_of(tmp_path, "run0"), state_of(tmp_path, "run2"))
    events = EventAccumulator(str(tmp_path / "logs" / "run0")).Reload()
    assert events.Scalars("data/photos_skipped")[-1].value >= 2

    stopped = fork(
        "train.py", *train_flags("--iter=8", "--on_bad_sample=stop", "--name=stop"), folder=tmp_path / "printed"
    )
    assert stopped.returncode == 1
    assert re.search(r"train.py: .*001.png: expected a picture", stopped.stderr)
    assert "Traceback" not in stopped.stderr


@pytest.mark.long
def test_all_processes_do_the_same_steps_whatever_is_skipped(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    (photo_folder.images / "000.png").unlink()
    break_when_decoded(photo_folder.images / "001.png")
    flags = train_flags("--iter=4", "--print_freq=4", "--val_fraction=0.4", "--val_freq=2")
    ranks = [rank.wait() for rank in two_ranks(flags, tmp_path)]
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    assert "1 photos that are not there: '000.png'" in ranks[0].stderr
    assert "1 photos that are not there" not in ranks[1].stderr  # one looks and speaks for both
    assert any(re.search(r"Skipped: .*001.png: expected a picture", rank.stderr) for rank in ranks)
    state = state_of(tmp_path)
    assert (state["step"], state["draws"]) == (4, 16)
    assert len(set(state["weights_sha256"])) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_of_photos_that_vanishes_ends_the_run(
    workers: int, photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    flags = train_flags("--iter=100000", "--save_freq=1", f"--nThreads={workers}")
    process = Fork("train.py", *flags, folder=tmp_path / "printed")
    wait_until((tmp_path / "results" / "run" / "training_state.pth").exists, process)
    photo_folder.images.rename(tmp_path / "away")
    done = process.wait(60)
    assert done.returncode == 1
    assert "expected photos that can be used, found 100 in a row that cannot" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_skipped_changes_neither_order_nor_held_out_photos(photo_folder: PhotoFolder) -> None:
    index = read_annotations(photo_folder.csv)
    assert index.without({"002.png", "005.png"}).tolist() == [0, 1, 3, 4, 6, 7]
    assert index.without(set()).tolist() == list(range(8))


def test_names_may_hold_any_bytes(tmp_path: Path) -> None:
    name = b"caf\xe9 \xf0\x9f\x91\x97.png"
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(os.fsencode(tmp_path) + b"/" + name, format="PNG")
    (tmp_path / "train.csv").write_bytes(HEADER.encode() + b"\n" + name + b",1 2,4,4,0\n")
    index = read_annotations(tmp_path / "train.csv")
    assert os.fsencode(index[0].name) == name
    assert check_photos(index, tmp_path).faults == []


def test_a_missing_folder_is_said(photo_folder: PhotoFolder) -> None:
    with pytest.raises(DataError, match="absent: expected the folder of the photos, found none"):
        check_photos(read_annotations(photo_folder.csv), Path("absent"))


def test_the_first_faults_of_each_kind_are_named(photo_folder: PhotoFolder) -> None:
    for number in range(5):
        (photo_folder.images / f"{number:03d}.png").unlink()
    faults = check_photos(read_annotations(photo_folder.csv), photo_folder.images).faults
    assert summary(faults) == "  5 photos that are not there: '000.png'; '001.png'; '002.png'; ..."


def test_photos_skipped_in_the_last_validation_count_too(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    held_out = write_photos(tmp_path / "val", 3)
    break_when_decoded(held_out.images / "001.png")
    flags = train_flags("--iter=1", f"--val_df_path={held_out.csv}", f"--val_image_folder={held_out.images}")
    done = fork("train.py", *flags, folder=tmp_path / "printed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("; photos were skipped 1 times\n") == 1


def test_what_lies_beyond_the_first_photos_is_not_asked_for(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path
) -> None:
    (photo_folder.images / "007.png").unlink()
    one_more(row(name="006.png", category=99))(photo_folder)
    flags = train_flags("--iter=1", "--on_bad_sample=stop", "--max_dataset_size=6")
    done = fork("train.py", *flags, folder=tmp_path / "printed")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("harmless", [True, False])
def test_measuring_takes_all_photos_or_none(
    harmless: bool, photo_folder: PhotoFolder, weights: Path, tmp_path: Path
) -> None:
    one_more(row() + "\n" + row() if harmless else row(category=99))(photo_folder)
    flags = [f"--image_folder={photo_folder.images}", f"--df_path={photo_folder.csv}", f"--checkpoint={weights}"]
    done = fork("evaluate.py", *flags, "--device=cpu", folder=tmp_path / "printed")
    assert done.returncode == (0 if harmless else 1)
    assert ("1 rows that repeat another" if harmless else "1 rows with a wrong ClassId") in done.stderr
    assert ("mean IoU" in done.stdout) == harmless


def test_figures_replace_nothing_else(photo_folder: PhotoFolder, weights: Path, tmp_path: Path) -> None:
    before = photo_folder.csv.read_bytes()
    flags = [f"--image_folder={photo_folder.images}", f"--df_path={photo_folder.csv}", f"--checkpoint={weights}"]
    for flag in (f"--json={photo_folder.csv}", f"--pictures={photo_folder.csv}"):
        done = fork("evaluate.py", *flags, "--device=cpu", flag, folder=tmp_path / "printed")
        assert done.returncode == 1
        assert f"evaluate.py: {flag.replace('=', ' ')}: expected a f" in done.stderr
        assert "mean IoU" not in done.stdout  # said before the work
    assert photo_folder.csv.read_bytes() == before
