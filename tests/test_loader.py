import json
import multiprocessing
import shutil
import time
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PhotoFolder
from PIL import Image

from cloth_segmentation.errors import DataError
from data import loader as loading
from data.checks import check_photos
from data.dataset import Draw, LabelledPhotos, TrainingSquares
from data.labels import read_annotations, scan
from data.loader import Batches, EndlessSampler, OneEpochSampler, make_loader, workers_expected
from data.transforms import Augmentation


def take(count: int, photos: int = 10, **settings: int | bool) -> list[tuple[int, int]]:
    return list(islice(EndlessSampler(photos, **({"seed": 0} | settings)), count))


def order(count: int, photos: int = 10, **settings: int | bool) -> list[int]:
    return [draw.photo for draw in take(count, photos, **settings)]


def test_each_epoch_shows_every_photo_once_in_an_order_of_its_own() -> None:
    stream = order(40)
    epochs = [stream[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_seed_fixes_the_order() -> None:
    assert take(30, seed=3) == take(30, seed=3)
    assert order(10, seed=3) != order(10, seed=4)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_an_epoch_without_overlap(world_size: int) -> None:
    count = 60 // world_size  # six epochs in all, though 10 is no multiple of 3 or 4
    shares = [take(count, rank=rank, world_size=world_size) for rank in range(world_size)]
    together = [draw for step in zip(*shares, strict=True) for draw in step]
    assert together == take(60)
    assert len({draw.seed for draw in together}) == 60  # no two draws, and so no two ranks, share a seed


def test_it_can_start_in_the_middle() -> None:
    assert take(20, start=17) == take(37)[17:]
    halves = [take(6, rank=rank, world_size=2, start=8) for rank in range(2)]
    assert [draw for step in zip(*halves, strict=True) for draw in step] == take(20)[8:]


def test_order_of_the_file() -> None:
    assert order(25, shuffle=False) == [*range(10), *range(10), *range(5)]


def test_validation_shows_each_photo_once_over_all_ranks() -> None:
    shares = [[draw.photo for draw in OneEpochSampler(7, rank=rank, world_size=3)] for rank in range(3)]
    assert sorted(chain.from_iterable(shares)) == list(range(7))


def squares_of(folder: PhotoFolder) -> TrainingSquares:
    photos = LabelledPhotos(read_annotations(folder.csv), folder.images)
    return TrainingSquares(photos, (64, 64), Augmentation(crop=0.5, flip=0.5, rotate=10, color=0.3))


def test_batches_do_not_depend_on_the_number_of_workers(photo_folder: PhotoFolder) -> None:
    def first(workers: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        sampler = EndlessSampler(8, seed=0)
        loader = make_loader(squares_of(photo_folder), sampler, batch_size=3, workers=workers, pin_memory=False)
        return list(islice(Batches(loader), 4))

    for (photos, labels), (other_photos, other_labels) in zip(first(0), first(2), strict=True):
        assert photos.shape == (3, 3, 64, 64)
        assert labels.shape == (3, 64, 64)
        assert photos.dtype == labels.dtype == torch.uint8
        assert torch.equal(photos, other_photos)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", ["no photo", None])
def test_a_photo_that_cannot_be_read_is_named_without_a_trace(
    photo_folder: PhotoFolder, workers: int, content: str | None
) -> None:
    squares = squares_of(photo_folder)
    if content is None:
        (photo_folder.images / "004.png").unlink()
    else:
        (photo_folder.images / "004.png").write_text(content)
    loader = make_loader(squares, OneEpochSampler(8), batch_size=8, workers=workers, pin_memory=False)
    with pytest.raises(DataError) as error:
        list(Batches(loader))
    assert str(error.value).startswith(str(photo_folder.images / "004.png"))
    assert "\n" not in str(error.value)


def test_other_errors_in_a_worker_stay_what_they_are(photo_folder: PhotoFolder) -> None:
    class Wrong(TrainingSquares):
        def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
            raise RuntimeError("a mistake of ours")

    squares = Wrong(LabelledPhotos(read_annotations(photo_folder.csv), photo_folder.images), (64, 64))
    loader = make_loader(squares, OneEpochSampler(8), batch_size=2, workers=1, pin_memory=False)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(Batches(loader))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_photo_is_replaced_and_no_other_draw_changes(photo_folder: PhotoFolder, workers: int) -> None:
    squares = squares_of(photo_folder)

    def load(on_bad_sample: str) -> tuple[list[torch.Tensor], list[str]]:
        problems: list[str] = []
        loader = make_loader(
            squares,
            EndlessSampler(8, seed=0),
            batch_size=3,
            workers=workers,
            pin_memory=False,
            on_bad_sample=on_bad_sample,
        )
        return [photo for photos, _ in islice(Batches(loader, problems.append), 5) for photo in photos], problems

    before, problems = load("stop")
    assert problems == []
    for name in ("003.png", "005.png"):
        (photo_folder.images / name).write_text("no photo")
    after, problems = load("replace")
    assert len(after) == len(before) == 15
    drawn = order(15, photos=8, seed=0)
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [n not in (3, 5) for n in drawn]
    assert {Path(problem.split(":")[0]).name for problem in problems} == {"003.png", "005.png"}
    assert len(problems) >= sum(n in (3, 5) for n in drawn)  # what comes instead may be bad as well


def test_a_bad_photo_can_be_left_out(photo_folder: PhotoFolder) -> None:
    for name in ("002.png", "003.png", "005.png"):
        (photo_folder.images / name).write_text("no photo")
    problems: list[str] = []
    loader = make_loader(
        squares_of(photo_folder),
        OneEpochSampler(8),
        batch_size=2,
        workers=0,
        pin_memory=False,
        on_bad_sample="leave_out",
    )
    assert [len(photos) for photos, _ in Batches(loader, problems.append)] == [2, 1, 2]
    assert len(problems) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_annotations_that_vanish_are_no_bad_photo(photo_folder: PhotoFolder, workers: int) -> None:
    squares = squares_of(photo_folder)
    photo_folder.csv.unlink()
    loader = make_loader(
        squares, OneEpochSampler(8), batch_size=2, workers=workers, pin_memory=False, on_bad_sample="replace"
    )
    with pytest.raises(DataError, match=r"train.csv: expected the labels that were there at the start"):
        list(Batches(loader))


@pytest.mark.parametrize("kind", ["png", "labelme"])
def test_labels_of_one_photo_that_vanish_are_a_bad_photo(kind: str, photo_folder: PhotoFolder, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for number in range(8):
        shapes = [{"label": "dress", "points": [[5, 5], [50, 5], [50, 50]]}]
        stated = {"shapes": shapes, "imagePath": f"{number:03d}.png", "imageWidth": 60, "imageHeight": 80}
        if kind == "png":
            Image.new("L", (60, 80), 1).save(labels / f"{number:03d}.png")
        else:
            (labels / f"{number:03d}.json").write_text(json.dumps(stated))
    index = scan(labels).photos
    index = index.renamed({name: f"{Path(name).stem}.png" for name in index.names.tolist()})

    def batches(problems: list[str]) -> list[int]:
        squares = TrainingSquares(LabelledPhotos(index, photo_folder.images), (64, 64))
        loader = make_loader(
            squares, OneEpochSampler(8), batch_size=2, workers=0, pin_memory=False, on_bad_sample="leave_out"
        )
        return [len(photos) for photos, _ in Batches(loader, problems.append)]

    files = sorted(labels.iterdir())
    files[1].unlink()
    files[4].unlink()
    files[4].symlink_to(files[4])
    problems: list[str] = []
    assert batches(problems) == [1, 2, 1, 2]
    assert f"{files[1].name}: expected the file that was there at the start (No such file or directory)" in problems[0]
    assert files[4].name in problems[1]
    if kind == "labelme":  # whose masks are looked at once they are indexed
        faults = check_photos(index, photo_folder.images).faults
        assert [(fault.kind, fault.photo) for fault in faults] == [
            ("masks that cannot be read", f"{number:03d}.png") for number in (1, 4)
        ]
    shutil.rmtree(labels)
    with pytest.raises(DataError, match="expected the labels that were there at the start"):
        batches([])


@pytest.mark.parametrize("hangs_from", [pytest.param(0, marks=pytest.mark.long), 4])
def test_processes_that_do_not_answer_are_given_up(
    hangs_from: int, photo_folder: PhotoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(TrainingSquares):
        """Photos of a disk that stalls."""

        def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
            if draw.photo >= hangs_from:
                time.sleep(600)
            return super().__getitem__(draw)

    monkeypatch.setattr(loading, "LOOK_UP", 0.2)
    monkeypatch.setattr(loading, "PATIENCE", 1)
    squares = Hanging(LabelledPhotos(read_annotations(photo_folder.csv), photo_folder.images), (64, 64))
    loader = make_loader(squares, OneEpochSampler(8), batch_size=2, workers=2, pin_memory=False)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    with pytest.raises(DataError, match="photos to give some within 1 s, found none"), workers_expected():
        found += Batches(loader)
    assert not multiprocessing.active_children()


def test_a_slow_disk_is_waited_for(photo_folder: PhotoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(TrainingSquares):
        def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
            time.sleep(0.15)
            return super().__getitem__(draw)

    monkeypatch.setattr(loading, "LOOK_UP", 0.1)
    squares = Slow(LabelledPhotos(read_annotations(photo_folder.csv), photo_folder.images), (64, 64))
    loader = make_loader(squares, OneEpochSampler(4), batch_size=2, workers=1, pin_memory=False)
    order = [photo for photos, _ in Batches(loader) for photo in photos]
    assert all(np.array_equal(photo, squares[Draw(number, 0)][0]) for number, photo in enumerate(order))
    assert len(order) == 4
