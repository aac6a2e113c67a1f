"""Squares that are kept on disk."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, PhotoFolder, TrainFlags, python, start
from PIL import Image

import train
from cloth_segmentation.classes import ClassSet
from cloth_segmentation.errors import DataError
from cloth_segmentation.files import atomic_path
from data.annotations import Annotations
from data.categories import SHIPPED
from data.dataset import Draw, LabelledPhotos, TrainingSquares
from data.labels import read_annotations, scan
from data.loader import Batches, EndlessSampler, OneEpochSampler, make_loader
from data.prepared import PreparedPhotos
from data.transforms import Augmentation
from options import OptionError, TrainOptions
from utils.weights_files import read_file

SIZE = (48, 32)


def prepared(folder: PhotoFolder, kept: Path, classes: str = "clothes") -> PreparedPhotos:
    index = read_annotations(folder.csv, SHIPPED[classes])
    return PreparedPhotos(index, folder.images, folder=kept, writer=atomic_path)


def files(kept: Path) -> list[Path]:
    return sorted(path for path in kept.rglob("*") if path.is_file())


def photos_opened(action: Callable[[], object]) -> int:
    """How many times the process opens a photo meanwhile."""
    count = 0
    counting = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        count += counting and event == "open" and str(arguments[0]).endswith(".png")

    sys.addaudithook(hook)  # it stays for good, so it is told when to stop counting
    action()
    counting = False
    return count


def test_squares_are_the_same_and_photos_are_opened_once(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    change = Augmentation(flip=0.5, rotate=10, color=0.3, recolor=0.5)
    plain = TrainingSquares(LabelledPhotos(read_annotations(photo_folder.csv), photo_folder.images), SIZE, change)
    kept = TrainingSquares(prepared(photo_folder, tmp_path / "kept"), SIZE, change)

    def epoch(number: int) -> None:
        for index in range(len(plain)):
            draw = Draw(index, 100 * number + index)
            for wanted, found in zip(plain[draw], kept[draw], strict=True):
                assert wanted.dtype == found.dtype == torch.uint8
                assert torch.equal(wanted, found)

    assert photos_opened(lambda: epoch(1)) == 2 * len(plain)
    assert photos_opened(lambda: epoch(2)) == len(plain)  # the plain ones
    again = prepared(photo_folder, tmp_path / "kept")  # as another run has it
    assert photos_opened(lambda: [again.squashed(index, SIZE) for index in range(len(plain))]) == 0
    assert len(files(tmp_path / "kept")) == len(plain)


@pytest.mark.parametrize("permuted", ["cab", "cba", "bac"])
def test_another_order_of_instances_and_classes_makes_other_squares(permuted: str, tmp_path: Path) -> None:
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    for folder in (photos, labels):
        folder.mkdir()
    Image.new("RGB", (40, 30)).save(photos / "a.png")
    corners = {"a": [[0, 0], [20, 0], [20, 20]], "b": [[15, 0], [39, 0], [39, 25]], "c": [[0, 10], [30, 28], [0, 28]]}

    def index(order: str) -> Annotations:
        """With shapes in this order, and classes too."""
        shapes = [{"label": name, "points": corners[name], "shape_type": "polygon"} for name in order]
        stated = {"shapes": shapes, "imagePath": "a.png", "imageWidth": 40, "imageHeight": 30}
        (labels / "a.json").write_text(json.dumps(stated))
        return scan(labels, ClassSet.of_names(["background", *order])).photos

    for order in ("abc", permuted):
        found = index(order)
        wanted = LabelledPhotos(found, photos).squashed(0, SIZE)[1]
        kept = PreparedPhotos(found, photos, folder=tmp_path / "kept", writer=atomic_path).squashed(0, SIZE)[1]
        assert np.array_equal(kept, wanted), order
    assert len(files(tmp_path / "kept")) == 2


def test_batches_do_not_depend_on_the_number_of_workers(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    def two_epochs(workers: int) -> list[torch.Tensor]:
        squares = TrainingSquares(prepared(photo_folder, tmp_path / f"kept{workers}"), SIZE)
        loader = make_loader(squares, EndlessSampler(8, seed=0), batch_size=4, workers=workers, pin_memory=False)
        stream = Batches(loader)
        return [part for _ in range(4) for part in next(stream)]

    for one, other in zip(two_epochs(0), two_epochs(2), strict=True):
        assert torch.equal(one, other)


def test_what_has_changed_is_made_anew(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    labels = prepared(photo_folder, kept).squashed(1, SIZE)[1]
    assert set(np.unique(labels)) == {0, 1, 2}

    # Another label set, another size.
    assert set(np.unique(prepared(photo_folder, kept, "garments").squashed(1, SIZE)[1])) == {0, 2, 7}
    assert prepared(photo_folder, kept).squashed(1, SIZE[::-1])[1].shape == SIZE
    assert len(files(kept)) == 3

    # The photo: in the first case its length stays, in the second its time.
    photo = photo_folder.images / "001.png"
    before = photo.stat()
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    prepared(photo_folder, kept).squashed(1, SIZE)
    assert len(files(kept)) == 4
    Image.new("RGB", (60, 80), "navy").save(photo)
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (prepared(photo_folder, kept).squashed(1, SIZE)[0] == (0, 0, 128)).all()

    # A mask, and the order, which decides between instances of one size.
    text = photo_folder.csv.read_text()
    rows = text.splitlines()
    number = next(number for number, row in enumerate(rows) if row.startswith("001.png"))
    rows[number] = "001.png,1 2400,80,60,1"
    photo_folder.csv.write_text("\n".join(rows))
    assert (prepared(photo_folder, kept).squashed(1, SIZE)[1][:, : SIZE[0] // 2] > 0).all()
    assert len(files(kept)) == 6


@pytest.mark.parametrize("damage", ["cut", "cut in the header", "empty", "other bytes", "broken header", "other shape"])
def test_a_file_that_is_not_whole_is_written_anew(photo_folder: PhotoFolder, tmp_path: Path, damage: str) -> None:
    photos = prepared(photo_folder, tmp_path / "kept")
    wanted = photos.squashed(1, SIZE)
    [path] = files(tmp_path / "kept")
    content = path.read_bytes()
    if damage == "other shape":
        np.save(path, np.zeros((*SIZE, 4), np.uint8))
    else:
        path.write_bytes(
            {
                "cut": content[:-1],
                "cut in the header": content[:60],
                "empty": b"",
                "other bytes": b"no square" * 100,
                "broken header": content[:10] + b"(" * 118 + content[128:],
            }[damage]
        )
    for _ in range(2):
        for one, other in zip(wanted, photos.squashed(1, SIZE), strict=True):
            np.testing.assert_array_equal(one, other)
    assert path.read_bytes() == content


FILL = """
import sys
from pathlib import Path
from data.labels import read_annotations
from data.prepared import PreparedPhotos
from cloth_segmentation.files import atomic_path
images, csv, kept = map(Path, sys.argv[1:])
photos = PreparedPhotos(read_annotations(csv), images, folder=kept, writer=atomic_path)
for _ in range(3):
    for index in range(len(photos)):
        photo, labels = photos.squashed(index, (48, 32))
        assert labels.any() and photo.shape == (32, 48, 3)
"""


@pytest.mark.long
def test_two_processes_fill_one_folder_at_once(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    kept, script = tmp_path / "kept", tmp_path / "fill.py"
    script.write_text(FILL)
    arguments = (sys.executable, script, photo_folder.images, photo_folder.csv, kept)
    processes = [start(*arguments, env={"PYTHONPATH": str(ROOT)}) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    squares = files(kept)
    assert len(squares) == 8
    assert all(np.load(path).shape == (32, 48, 4) for path in squares)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_cannot_be_written_is_named(photo_folder: PhotoFolder, tmp_path: Path, workers: int) -> None:
    (tmp_path / "kept").write_text("a file")
    squares = TrainingSquares(prepared(photo_folder, tmp_path / "kept"), SIZE)
    loader = make_loader(squares, OneEpochSampler(8), batch_size=8, workers=workers, pin_memory=False)
    with pytest.raises(DataError) as error:
        list(Batches(loader))
    assert str(error.value).startswith(f"{tmp_path / 'kept'}: expected a folder that prepared squares can be written")
    assert "\n" not in str(error.value)


LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (16000, 16000))  # bytes; a square of 64 x 64 takes more
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_full_disk_is_said_and_leaves_no_halves(train_flags: TrainFlags, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    script = f"import sys\nsys.argv = {['train.py', *train_flags('--iter=1', f'--prepared_dir={kept}')]!r}\n{LIMITED}"
    done = python("-c", script)
    assert done.returncode == 1
    assert f"train.py: {kept}: expected a folder that prepared squares can be written to, found none" in done.stderr
    assert not files(kept)


def test_a_photo_that_is_gone_is_named(photo_folder: PhotoFolder, tmp_path: Path) -> None:
    photos = prepared(photo_folder, tmp_path / "kept")
    photos.squashed(4, SIZE)
    (photo_folder.images / "004.png").unlink()
    with pytest.raises(DataError, match=r"004.png: expected a photo, found none that can be opened \(No such file"):
        photos.squashed(4, SIZE)


def test_a_run_is_the_same_with_and_without(train_flags: TrainFlags, tmp_path: Path) -> None:
    settings = ["--iter=4", "--augment_flip=0.5", "--val_fraction=0.25"]
    kept = f"--prepared_dir={tmp_path / 'kept'}"
    for name, more in (("plain", []), ("first", [kept]), ("later", [kept])):
        assert train.main(train_flags(f"--name={name}", *settings, *more)) == 0
    sums = [
        read_file(tmp_path / "results" / name / "training_state.pth")["weights_sha256"]
        for name in ("plain", "first", "later")
    ]
    assert sums[0] == sums[1] == sums[2]
    assert len(files(tmp_path / "kept")) == 8  # those of validation too


@pytest.mark.parametrize("name", ["pair", "portrait", "crop"])
def test_what_needs_whole_photos_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"--prepared_dir and --augment_{name}: expected one of the two, found both"):
        TrainOptions(prepared_dir="kept", **{f"augment_{name}": 0.5})
    TrainOptions(prepared_dir="kept", augment_flip=0.5)
