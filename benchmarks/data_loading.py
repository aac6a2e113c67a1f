"""Time to make a training square of a photo and its masks, beside the least and the most that it could take.

python benchmarks/data_loading.py
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measure import hardware, interleaved, table  # noqa: E402
from benchmarks.photos import MASKS, add_sizes, make_photos  # noqa: E402
from cloth_segmentation.files import atomic_path  # noqa: E402
from data import rle  # noqa: E402
from data.annotations import Annotations  # noqa: E402
from data.dataset import Draw, LabelledPhotos, TrainingSquares  # noqa: E402
from data.labels import read_annotations  # noqa: E402
from data.loader import Batches, EndlessSampler, make_loader  # noqa: E402
from data.prepared import PreparedPhotos  # noqa: E402

BARE, OURS, FULL, ORIGINAL, FIRST, LATER = "bare", "ours", "full", "original", "first", "later"


def bare(path: Path, side: int) -> Image.Image:
    """The photo alone, by the fastest way that Pillow has."""
    with Image.open(path) as image:
        image.draft("RGB", (side, side))
        square: Image.Image = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return square


def full(index: Annotations, number: int, images: Path, side: int) -> tuple[Image.Image, Image.Image]:
    """With the same tools, but all of the photo and the label map at full size first, and then both resized."""
    photo = index[number]
    with Image.open(images / photo.name) as image:
        square = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    labels = np.zeros((photo.height, photo.width), dtype=np.uint8)
    for instance in index.instances(number):
        labels[rle.decode(instance.content.decode(), labels.shape)] = instance.label
    return square, Image.fromarray(labels).resize((side, side), Image.Resampling.NEAREST)


def original(index: Annotations, number: int, images: Path, side: int) -> list[Image.Image]:
    """As the original system does it: all of the photo, each mask at full size, each resized as a photo is."""
    photo = index[number]
    with Image.open(images / photo.name) as image:
        pictures = [image.convert("RGB")]
    masks = [rle.decode(instance.content.decode(), index.size(number)[::-1]) for instance in index.instances(number)]
    pictures += [Image.fromarray(mask.astype(np.uint8)) for mask in masks]
    return [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]


def seconds(folder: Path, side: int, rounds: int) -> dict[str, float]:
    """Median seconds of each way for the photos of a folder."""
    index, images, kept = read_annotations(folder / "train.csv"), folder / "train", folder / "kept"
    square, numbers, folders = (side, side), range(len(index)), count()

    def prepared(name: str) -> TrainingSquares:
        photos = PreparedPhotos(index, images, folder=kept / name, writer=atomic_path)
        return TrainingSquares(photos, square)

    def each(way: Callable[[int], object]) -> Callable[[], object]:
        """A way that takes the next photo each time."""
        turn = cycle(numbers)
        return lambda: way(next(turn))

    ours, later = TrainingSquares(LabelledPhotos(index, images), square), prepared("later")
    for number in numbers:
        later[Draw(number, 0)]
    times = interleaved(
        {
            BARE: each(lambda number: bare(images / str(index.names[number]), side)),
            OURS: each(lambda number: ours[Draw(number, 0)]),
            FULL: each(lambda number: full(index, number, images, side)),
            ORIGINAL: each(lambda number: original(index, number, images, side)),
            FIRST: each(lambda number: prepared(str(next(folders)))[Draw(number, 0)]),
            LATER: each(lambda number: later[Draw(number, 0)]),
        },
        rounds,
    )
    found = {name: median(values) for name, values in times.items()}
    found["workers"] = 1 / loaded(ours)
    found["workers, later"] = 1 / loaded(later)
    return found


def loaded(squares: TrainingSquares, workers: int = 2, batch: int = 2, warmup: int = 8, timed: int = 24) -> float:
    """Seconds a photo in batches that worker processes load."""
    sampler = EndlessSampler(len(squares), seed=0)
    stream = Batches(make_loader(squares, sampler, batch_size=batch, workers=workers, pin_memory=False))
    for _ in range(warmup):  # what was loaded while the workers started is used up
        next(stream)
    start = time.perf_counter()
    for _ in range(timed):
        next(stream)
    return (time.perf_counter() - start) / (timed * batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_sizes(parser)
    parser.add_argument("--square", type=int, default=768, help="side of the squares, pixels [768]")
    parser.add_argument("--photos", type=int, default=4, help="different photos of each size [4]")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds [20]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_photos(folder, [size], given.photos)
            found = seconds(folder, given.square, given.rounds)
        rows.append(
            [
                f"{size[0]} x {size[1]}",
                *(f"{1000 * found[name]:.1f}" for name in (BARE, OURS, FULL, ORIGINAL, FIRST, LATER)),
                f"{found[OURS] / found[BARE]:.2f}",
                f"{found[OURS] / found[FULL]:.2f}",
                f"{found[OURS] / found[ORIGINAL]:.2f}",
                f"{found[LATER] / found[FIRST]:.2f}",
                f"{found['workers']:.0f}",
                f"{found['workers, later']:.0f}",
            ]
        )
    print(hardware())
    print(f"Squares of {given.square} px, {MASKS} masks a photo; ms a photo, one thread, median of {given.rounds}.\n")
    header = ["photo", BARE, OURS, FULL, ORIGINAL, f"prepared, {FIRST}", f"prepared, {LATER}"]
    header += [f"{OURS} / {BARE}", f"{OURS} / {FULL}", f"{OURS} / {ORIGINAL}", f"{LATER} / {FIRST}"]
    header += ["photos/s, 2 workers", "photos/s, 2 workers, prepared"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
