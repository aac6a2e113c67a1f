"""From a photo and its label map to what the network takes, and the augmentation of both together."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from cloth_segmentation.photos import Size, squash_photo
from data.label_map import IGNORED

Box = tuple[int, int, int, int]
"""(left, upper, right, lower) in pixels, Pillow's order; right and lower are the first beyond."""

LabelledPhoto = tuple[Image.Image, NDArray[np.uint8]]
"""RGB photo and its label map (H, W)."""


def squash_labels(labels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Label map (H, W) -> (height, width) of ``size``, by nearest neighbour: labels do not mix."""
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def normalise(pixels: Tensor, mean: float, std: float) -> Tensor:
    """(..., 3, H, W) uint8 -> float32, ``(x / 255 - mean) / std``."""
    return (pixels.float() / 255 - mean) / std


def beside(left: LabelledPhoto, right: LabelledPhoto) -> LabelledPhoto:
    """Two photos with their label maps as one picture, of the left one's height; both keep their shape."""
    photo, labels = right
    height = left[0].height
    size = max(1, round(photo.width * height / photo.height)), height
    picture = np.concatenate([np.asarray(left[0]), np.asarray(squash_photo(photo, size))], axis=1)
    return Image.fromarray(picture), np.concatenate([left[1], squash_labels(labels, size)], axis=1)


# A standing adult's head takes about an eighth of the photos of whole people that this was made for.
PORTRAIT_ABOVE = (0.08, 0.18)
"""A portrait begins this share of the photo's height above the highest garment: least and greatest."""

PORTRAIT_BELOW = (0.06, 0.5)
"""A portrait ends this share of the photo's height below the highest garment's upper edge: least and greatest."""

PORTRAIT_SHAPE = (0.7, 1.5)
"""Width of a portrait as a share of its height: least and greatest."""

PAIR_WIDTH = 0.7
"""Of two photos side by side, each keeps from this share of its width to all of it, around its middle."""

CROP_SHAPE = 0.3
"""Width and height of a crop are stretched and shrunk by up to exp(0.3) = 1.35 against each other's share."""

RECOLOR_CONTRAST = (0.7, 1.4)
"""Contrast of recoloured cloth as a share of what it was: least and greatest."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of photo and label map together; each is off at 0.

    Attributes:
        pair: probability that a second photo is put beside this one, so that two people are in the picture, 0 to 1.
        portrait: probability of a close-up of head and shoulders, down to the waist or so, 0 to 1. Unlike ``crop``, it
            shows a face large, which is background, and always a person: cloth without one would teach that any
            cloth, a flag too, is worn.
        crop: close-ups; the part of the photo that is kept has from ``1 - crop`` to 1 of its sides, 0 to below 1.
        flip: probability of a mirror image, 0 to 1.
        scale: the photo is enlarged or shrunk by a factor from ``1 - scale`` to ``1 + scale``, 0 to below 1.
        rotate: greatest angle, degrees.
        shift: greatest shift, as a share of the side.
        color: strength of the change of brightness, contrast and saturation, 0 to 1.
        recolor: probability, for each label in the photo, that its cloth takes another colour, 0 to 1. Which garment
            it is does not depend on that, and a network that saw few photos believes it does.
        ignored: label of pixels that are no cloth and no background; they move with the others.
    """

    pair: float = 0.0
    portrait: float = 0.0
    crop: float = 0.0
    flip: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    color: float = 0.0
    recolor: float = 0.0
    ignored: int = IGNORED

    def partner(self, photos: int, seed: int) -> int | None:
        """Number of the photo, 0 to ``photos - 1``, to put beside this one, any of them; None for none."""
        draw = np.random.default_rng((seed, 2))
        return int(draw.integers(photos)) if draw.random() < self.pair else None

    def beside(self, left: LabelledPhoto, right: LabelledPhoto, seed: int) -> LabelledPhoto:
        """Two photos side by side, each cut to a random part around its middle."""
        draw = np.random.default_rng((seed, 3))
        parts = []
        for photo, labels in (left, right):
            width = max(1, round(photo.width * draw.uniform(PAIR_WIDTH, 1)))
            start = (photo.width - width) // 2
            parts.append((photo.crop((start, 0, start + width, photo.height)), labels[:, start : start + width]))
        return beside(*parts)

    def crops(self, seed: int) -> bool:
        """Whether ``crop_box`` may give a box: only then is more detail of a photo needed than is shown of all of it.

        Args:
            seed: as in ``__call__``.
        """
        return bool(self.crop) or np.random.default_rng((seed, 4)).random() < self.portrait

    def crop_box(self, labels: NDArray[np.uint8], seed: int) -> Box | None:
        """The part of a photo to keep; None keeps all of it.

        Cropping comes before the photo is made small, so that a close-up has the detail of one.

        Args:
            labels: label map of the photo (H, W).
            seed: as in ``__call__``.
        """
        draw = np.random.default_rng((seed, 4))
        if draw.random() < self.portrait and (cloth := (labels > 0) & (labels != self.ignored)).any():
            return _portrait_box(cloth, draw)
        size = labels.shape[1], labels.shape[0]
        if not self.crop:
            return None
        draw = np.random.default_rng((seed, 1))
        share = draw.uniform(1 - self.crop, 1)
        # The shape varies too: the photo is squashed to one shape whatever its own.
        shape = np.exp(draw.uniform(-1, 1) * CROP_SHAPE)
        width, height = (
            max(1, round(side * min(1, part))) for side, part in zip(size, (share * shape, share / shape), strict=True)
        )
        left, upper = int(draw.integers(size[0] - width + 1)), int(draw.integers(size[1] - height + 1))
        return left, upper, left + width, upper + height

    def __call__(self, pixels: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Change both; what leaves the frame is lost, what comes in is grey background.

        Args:
            pixels: photo (3, H, W), uint8.
            labels: label map (H, W), uint8.
            seed: the change depends on this number only, so a resumed run repeats it whatever process draws it.
        """
        if self.recolor:
            cloth = labels * (labels.to(torch.int16) != self.ignored)  # as a byte, -100 would be 156
            pixels = _recolor(pixels, cloth, self.recolor, np.random.default_rng((seed, 5)))
        steps: list[v2.Transform] = []
        if self.flip:
            steps.append(v2.RandomHorizontalFlip(self.flip))
        if self.scale or self.rotate or self.shift:
            steps.append(
                v2.RandomAffine(
                    degrees=self.rotate,
                    translate=(self.shift, self.shift),
                    scale=(1 - self.scale, 1 + self.scale),
                    interpolation=v2.InterpolationMode.BILINEAR,
                    fill={tv_tensors.Image: 128, tv_tensors.Mask: 0},
                )
            )
        if self.color:
            steps.append(v2.ColorJitter(brightness=self.color, contrast=self.color, saturation=self.color))
        if not steps:
            return pixels, labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed = v2.Compose(steps)(tv_tensors.Image(pixels), tv_tensors.Mask(labels[None]))
        return changed[0].as_subclass(Tensor), changed[1].as_subclass(Tensor)[0]


def _recolor(pixels: Tensor, labels: Tensor, probability: float, draw: np.random.Generator) -> Tensor:
    """Move the mean colour of each label's pixels, with ``probability``, towards a random one; folds and patterns stay.

    Args:
        pixels: photo (3, H, W), uint8.
        labels: label map (H, W), uint8.
        probability: 0 to 1.
        draw: source of chance.
    """
    changed = pixels.clone()
    for label in torch.unique(labels).tolist():
        if label == 0 or draw.random() >= probability:
            continue
        cloth = labels == label
        colors = pixels[:, cloth].float()  # (3, pixels of the label)
        mean = colors.mean(1, keepdim=True)
        target = torch.from_numpy(draw.uniform(0, 255, (3, 1))).float()
        moved = mean + (target - mean) * draw.uniform() + (colors - mean) * draw.uniform(*RECOLOR_CONTRAST)
        changed[:, cloth] = moved.round().clamp(0, 255).to(torch.uint8)
    return changed


def _portrait_box(cloth: NDArray[np.bool_], draw: np.random.Generator) -> Box:
    """Head and shoulders of one of the people whose clothes are where a mask (H, W) is."""
    height, width = cloth.shape
    rows = np.flatnonzero(cloth.any(axis=1))
    collar = int(rows[0])
    upper = max(0, round(collar - draw.uniform(*PORTRAIT_ABOVE) * height))
    lower = min(height, round(collar + draw.uniform(*PORTRAIT_BELOW) * height) + 1)
    # Below the head lie the garments of the highest rows; one of their columns picks the person.
    columns = np.nonzero(cloth[collar : collar + round(PORTRAIT_BELOW[0] * height) + 1])[1]
    half = (lower - upper) * draw.uniform(*PORTRAIT_SHAPE) / 2
    middle = draw.choice(columns)
    left, right = max(0, round(middle - half)), min(width, round(middle + half) + 1)
    return left, upper, right, lower
