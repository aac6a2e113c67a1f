"""Photos to measure with: JPEGs of one to twelve megapixels, with masks in the format of iMaterialist 2019.

python benchmarks/photos.py FOLDER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data import rle  # noqa: E402

Size = tuple[int, int]
"""(width, height) in pixels."""

MASKS = 7
"""Masks of a photo: about as many as iMaterialist has, here all of clothes, so that all of them are painted."""

GARMENTS = 13
"""Category ids from 0 to 12 are clothes."""


def make_photos(folder: Path, sizes: Sequence[Size], count: int, seed: int = 0) -> None:
    """Write ``count`` photos of each size to ``folder/train`` and their masks to ``folder/train.csv``.

    A photo is a blurred scene with garments in it, all with grain, so that it takes about as many bytes a pixel as a
    camera's at quality 90.
    """
    draw = np.random.default_rng(seed)
    (folder / "train").mkdir(parents=True, exist_ok=True)
    rows = ["ImageId,EncodedPixels,Height,Width,ClassId"]
    for width, height in sizes:
        for number in range(count):
            name = f"{width}x{height}_{number}.jpg"
            blurred = Image.fromarray(draw.integers(0, 256, (9, 12, 3)).astype(np.uint8))
            scene = np.array(blurred.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
            for _ in range(MASKS):
                mask, folds = _garment(width, height, draw)
                scene[mask] = draw.uniform(0, 255, 3) + folds[mask, None]
                rows.append(f"{name},{rle.encode(mask)},{height},{width},{draw.integers(GARMENTS)}")
            scene += draw.standard_normal((height, width, 1), dtype=np.float32) * 5
            Image.fromarray(scene.clip(0, 255).astype(np.uint8)).save(folder / "train" / name, quality=90)
    (folder / "train.csv").write_text("\n".join(rows) + "\n")


def _garment(width: int, height: int, draw: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """A mask (H, W) with a wavy contour, and the brightness of folds (H, W)."""
    x, y = np.arange(width, dtype=np.float32) / width, np.arange(height, dtype=np.float32)[:, None] / height
    (middle_x, middle_y), (radius_x, radius_y) = draw.uniform(0.3, 0.7, 2), draw.uniform(0.1, 0.35, 2)
    waves = np.sin(x * draw.uniform(20, 60)) * np.sin(y * draw.uniform(20, 60))
    mask = ((x - middle_x) / radius_x) ** 2 + ((y - middle_y) / radius_y) ** 2 < 1 + 0.3 * waves
    folds = 20 * np.sin(x * draw.uniform(50, 200) + y * draw.uniform(50, 200))
    return mask, folds.astype(np.float32)


def size_of(text: str) -> Size:
    """Size from "WIDTHxHEIGHT"."""
    width, height = text.split("x")
    return int(width), int(height)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Let a command be told ``--sizes``."""
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=size_of,
        default=[(1200, 800), (3000, 2000), (4000, 3000)],
        metavar="WxH",
        help="sizes of the photos, pixels [1200x800 3000x2000 4000x3000]",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="for the photos, in train/, and train.csv")
    add_sizes(parser)
    parser.add_argument("--count", type=int, default=4, help="photos of each size [4]")
    parser.add_argument("--seed", type=int, default=0, help="of shapes, colours and grain [0]")
    given = parser.parse_args()
    make_photos(given.folder, given.sizes, given.count, given.seed)


if __name__ == "__main__":
    main()
