"""Put together what the bundled weights learn from: one folder of photos, one CSV.

python recipe/prepare.py --ccp CCP --more MORE --flat FLAT --salient u2netp.pth --output FOLDER

Besides the photos as they are, it makes pictures that teach what the photos alone do not:

- street people before plain, dark and coloured walls, since a street is all the background that they have;
- single garments, made small, before streets and walls, since in their own photos they fill the frame, and a network
  that sees only such photos takes any texture for cloth;
- pictures without clothes: strips of street beside the people, and the sample pictures of scikit-image.

The held-out photos, those that ``is_held_out`` names, get CSVs of their own and appear in nothing that is made.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cloth_segmentation.photos import Size  # noqa: E402
from data import rle  # noqa: E402
from data.annotations import Annotations  # noqa: E402
from data.categories import SHIPPED  # noqa: E402
from data.checks import read_checked  # noqa: E402
from data.csv_labels import COLUMNS  # noqa: E402
from data.dataset import LabelledPhotos  # noqa: E402
from data.transforms import LabelledPhoto, normalise  # noqa: E402
from networks import U2NETP  # noqa: E402
from utils.weights_files import read_file, state_dict_of  # noqa: E402

CATEGORY_OF = {1: 1, 2: 6, 3: 10}
"""A category of each class, for the CSV: top, pants, dress."""

GARMENTS = SHIPPED["garments"]

NO_CLOTHES = 45
"""A category that is background, tassel: a row of it says that the photo has been looked at and shows no clothes."""

SALIENT_SIDE = 320
"""Side of the squares in which U2NETP finds salient objects, pixels: that of its training."""

PICTURES_WITHOUT_CLOTHES = (
    *("brick", "chelsea", "coffee", "color", "grass", "gravel", "horse", "motorcycle_left", "motorcycle_right"),
    *("clock_motion", "coins", "page", "text", "rocket", "hubble_deep_field", "retina", "moon"),
)
"""Sample pictures that come with scikit-image and show no clothes."""


def is_held_out(source: str, name: str) -> bool:
    """Whether a photo is for validation: streets whose number ends in 3, garments with a 7 as second digit."""
    return (source == "ccp" and Path(name).stem.endswith("3")) or (source == "flat" and name[6] == "7")


class Saliency:
    """Where the original U2NETP sees the most striking object of a photo."""

    def __init__(self, weights: Path) -> None:
        self.network = U2NETP(3, 1)
        self.network.load_state_dict(state_dict_of(read_file(weights), weights))
        self.network.eval()

    @torch.inference_mode()
    def __call__(self, photo: Image.Image) -> NDArray[np.float32]:
        """Opacity (H, W), 0 to 1, of the object."""
        square = photo.resize((SALIENT_SIDE, SALIENT_SIDE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
        salient = self.network(normalise(pixels, 0.5, 0.5))[0][0, 0].sigmoid()
        salient = (salient - salient.min()) / (salient.max() - salient.min())
        whole = Image.fromarray(salient.numpy()).resize(photo.size, Image.Resampling.BILINEAR)
        return np.asarray(whole, np.float32)


def wall(size: tuple[int, int], draw: np.random.Generator) -> Image.Image:
    """A plain background of ``size``, (width, height): white, grey, dark or coloured, with a soft change of light."""
    kind = draw.choice(["white", "grey", "dark", "coloured"])
    low, high = {"white": (225, 256), "grey": (70, 225), "dark": (0, 60), "coloured": (0, 256)}[kind]
    colors = draw.uniform(low, high, 3) if kind == "coloured" else draw.uniform(low, high) + draw.uniform(-8, 8, 3)
    light = draw.uniform(0.7, 1.15, (2, 2)).astype(np.float32)  # of the four corners
    if kind == "dark":
        light = draw.uniform(0.3, 3, (2, 2)).astype(np.float32)
    shading = np.asarray(Image.fromarray(light).resize(size, Image.Resampling.BICUBIC))
    noise = draw.normal(0, draw.uniform(0, 5), (size[1], size[0], 1))
    return Image.fromarray(np.clip(colors * shading[..., None] + noise, 0, 255).astype(np.uint8))


def strip_beside(photo: Image.Image, taken: NDArray[np.bool_], least: int) -> Image.Image | None:
    """The wider part of a photo at the left or right of all that is ``taken`` (H, W); None if it is under ``least``."""
    columns = np.flatnonzero(taken.any(0))
    if not len(columns):
        return None
    margin = photo.width // 25
    left, right = columns[0] - margin, photo.width - columns[-1] - 1 - margin
    if max(left, right) < least:
        return None
    box = (0, 0, left, photo.height) if left >= right else (photo.width - right, 0, photo.width, photo.height)
    return photo.crop(tuple(int(edge) for edge in box))  # type: ignore[arg-type]


def paste(
    photo: Image.Image,
    opacity: NDArray[np.float32],
    labels: NDArray[np.uint8],
    ground: Image.Image,
    place: tuple[int, int],
) -> LabelledPhoto:
    """An object laid on a background.

    Args:
        photo: holds the object.
        opacity: of the object's pixels (H, W), 0 to 1.
        labels: label map (H, W).
        ground: what it is laid on.
        place: (left, upper) corner of the photo on the ground, pixels; what is beyond the ground is cut off.
    """
    picture, layer = ground.copy(), Image.fromarray((opacity * 255).round().astype(np.uint8))
    picture.paste(photo, place, layer)
    whole = Image.new("L", ground.size)
    whole.paste(Image.fromarray(np.where(opacity >= 0.5, labels, 0).astype(np.uint8)), place)
    return picture, np.asarray(whole)


def before_walls(photos: LabelledPhotos, salient: Saliency, draw: np.random.Generator) -> Iterator[LabelledPhoto]:
    """People of street photos before walls; none of those whose clothes the cut-out would lose."""
    for number in draw.permutation(len(photos)):
        photo, labels = photos[int(number)]
        opacity = salient(photo)
        clothes = labels > 0
        if not clothes.any() or (opacity[clothes] > 0.8).mean() < 0.97 or opacity.mean() > 0.5:
            continue
        scale = draw.uniform(0.9, 1.3)
        size = round(photo.width * scale), round(photo.height * scale)
        yield paste(
            photo,
            opacity,
            labels,
            wall(size, draw),
            (
                int(draw.integers(0, size[0] - photo.width + 1))
                if size[0] >= photo.width
                else (size[0] - photo.width) // 2,
                max(0, size[1] - photo.height) if draw.random() < 0.5 else (size[1] - photo.height) // 2,
            ),
        )


def made_small(
    photos: LabelledPhotos, grounds: list[Image.Image], draw: np.random.Generator
) -> Iterator[LabelledPhoto]:
    """Single garments, smaller than they were, before walls and strips of street."""
    for number in draw.permutation(len(photos)):
        photo, labels = photos[int(number)]
        rows, columns = np.flatnonzero(labels.any(1)), np.flatnonzero(labels.any(0))
        if not len(rows):
            continue
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        garment, part = photo.crop(box), labels[box[1] : box[3], box[0] : box[2]]
        side = 480
        if draw.random() < 0.5:
            ground = wall((round(side * draw.uniform(0.6, 1.2)), side), draw)
        else:
            chosen = grounds[int(draw.integers(len(grounds)))]
            ground = chosen.resize((round(side * draw.uniform(0.6, 1.2)), side), Image.Resampling.BICUBIC)
        share = draw.uniform(0.3, 0.85)
        scale = share * min(ground.width / garment.width, ground.height / garment.height)
        size = max(1, round(garment.width * scale)), max(1, round(garment.height * scale))
        mask = Image.fromarray(part).resize(size, Image.Resampling.NEAREST)
        soft = Image.fromarray((part > 0).astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
        opacity = np.asarray(soft.filter(ImageFilter.GaussianBlur(0.7)), np.float32) / np.float32(255)
        place = int(draw.integers(0, ground.width - size[0] + 1)), int(draw.integers(0, ground.height - size[1] + 1))
        yield paste(garment.resize(size, Image.Resampling.BICUBIC), opacity, np.asarray(mask), ground, place)


class Table:
    """The CSV of one set, in iMaterialist's format, and the folder that its photos are in."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.file = (folder / name).open("w", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(COLUMNS)

    def add(self, name: str, size: Size, masks: Sequence[tuple[int, str]]) -> None:
        """One photo, by its (category, encoding) of each mask; one without clothes gets a row that says so."""
        for category, mask in masks or [(NO_CLOTHES, "1 1")]:
            self.writer.writerow([name, mask, size[1], size[0], category])

    def add_photos(self, source: str, index: Annotations) -> None:
        """Photos of a source, which is a link in the folder; ``index`` tells garments apart."""
        for number, name in enumerate(index.names.tolist()):
            # Garments are counted from 1, categories from 0.
            masks = [(instance.label - 1, instance.content.decode()) for instance in index.instances(number)]
            self.add(f"{source}/{name}", index.size(number), masks)

    def add_made(self, name: str, picture: LabelledPhoto) -> None:
        """Save a picture that was made, and its row."""
        image, labels = picture
        path = self.folder / "made" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path, quality=92)
        masks = [
            (category, rle.encode(labels == value))
            for value, category in CATEGORY_OF.items()
            if (labels == value).any()
        ]
        self.add(f"made/{path.name}", image.size, masks)


def read(source: str, folder: Path) -> tuple[Annotations, Annotations]:
    """The photos of a source that are held out, and the others; garments are told apart."""
    csv_file, photos = (f"--{source}", str(folder / "train.csv")), (f"--{source}", str(folder / "train"))
    found = read_checked(csv_file, photos, GARMENTS)
    if found.notes:
        print(found.notes, file=sys.stderr)
    held_out = np.array([is_held_out(source, name) for name in found.photos.names.tolist()])
    return found.photos.select(np.flatnonzero(held_out)), found.photos.select(np.flatnonzero(~held_out))


def without_clothes(
    photos: LabelledPhotos, salient: Saliency, strips: int, draw: np.random.Generator
) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures: strips of street, then scikit-image's sample pictures if that is installed."""
    found = 0
    for number in draw.permutation(len(photos)):
        if found == strips:
            break
        street, labels = photos[int(number)]
        strip = strip_beside(street, (labels > 0) | (salient(street) > 0.3), least=110)
        if strip is not None:
            yield f"strip_{found:04d}", strip
            found += 1
    package = find_spec("skimage")
    if package is None or package.origin is None:
        print("Without scikit-image: its sample pictures are left out.", file=sys.stderr)
        return
    for path in sorted((Path(package.origin).parent / "data").iterdir()):
        if path.stem in PICTURES_WITHOUT_CLOTHES:
            yield f"sample_{path.stem}", Image.open(path).convert("RGB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ccp", type=Path, required=True, help="Clothing Co-Parsing: train/ and train.csv")
    parser.add_argument("--more", type=Path, required=True, help="more street photos: train/ and train.csv")
    parser.add_argument("--flat", type=Path, required=True, help="garments alone: train/ and train.csv")
    parser.add_argument("--salient", type=Path, required=True, help="the original U2NETP weights")
    parser.add_argument("--output", type=Path, required=True, help="the folder to make")
    parser.add_argument("--walls", type=int, default=130, help="people before walls [130]")
    parser.add_argument("--flat_photos", type=int, default=500, help="photos of single garments as they are [500]")
    parser.add_argument("--flat_small", type=int, default=110, help="single garments made small [110]")
    parser.add_argument("--strips", type=int, default=50, help="strips of street without clothes [50]")
    return parser.parse_args()


def main() -> int:
    opt = parse()
    draw = np.random.default_rng(0)
    opt.output.mkdir(parents=True, exist_ok=True)
    for source in ("ccp", "more", "flat"):
        link = opt.output / source
        link.unlink(missing_ok=True)
        link.symlink_to((getattr(opt, source) / "train").resolve())
    index = {}
    for source in ("ccp", "more", "flat"):
        held_out, index[source] = read(source, getattr(opt, source))
        if source != "more":  # none of its photos is held out
            validation = Table(opt.output, f"val_{source}.csv")
            validation.add_photos(source, held_out)
            validation.file.close()

    table = Table(opt.output, "train.csv")
    class_of = np.array(GARMENTS.within, dtype=np.uint8)
    photos = {
        source: LabelledPhotos(replace(found, labels=class_of[found.labels]), opt.output / source)
        for source, found in index.items()
    }
    table.add_photos("ccp", index["ccp"])
    table.add_photos("more", index["more"])
    table.add_photos("flat", index["flat"].select(np.sort(draw.permutation(len(index["flat"]))[: opt.flat_photos])))

    salient = Saliency(opt.salient)
    grounds = []
    for name, picture in tqdm(without_clothes(photos["ccp"], salient, opt.strips, draw), "without clothes"):
        table.add_made(name, (picture, np.zeros((picture.height, picture.width), np.uint8)))
        grounds.append(picture)
    people = chain(*(before_walls(photos[source], salient, draw) for source in ("ccp", "more")))
    garments = made_small(photos["flat"], grounds, draw)
    for kind, made, wanted in (("wall", people, opt.walls), ("small", garments, opt.flat_small)):
        for number, labelled in enumerate(tqdm(islice(made, wanted), kind, total=wanted, unit="picture")):
            table.add_made(f"{kind}_{number:04d}", labelled)
    table.file.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
