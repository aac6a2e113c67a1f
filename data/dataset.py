"""Photos with their label maps, at the photos' own size or squashed for training."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cloth_segmentation.errors import DataError
from cloth_segmentation.photos import Size, read_photo, squash_photo
from data import BadSampleError
from data.annotations import Annotations
from data.label_map import merge
from data.transforms import Augmentation, LabelledPhoto, beside, squash_labels

Square = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Pixels (H, W, 3), RGB, and label map (H, W) of a photo squashed to one size."""


class Draw(NamedTuple):
    """One use of a photo in training: which photo, and the seed of its random changes."""

    photo: int
    seed: int


class LabelledPhotos(Dataset[LabelledPhoto]):
    """(RGB photo, label map (H, W) uint8) at the photo's own resolution.

    Items raise ``BadSampleError`` where a photo or its masks cannot be used; ``checks.check_photos`` finds most such
    photos beforehand.

    Args:
        annotations: the index.
        image_folder: holds the photos under the names in the index.
        rescale: take photos of another size than the labels', if it is the same picture: labels are scaled.
    """

    def __init__(self, annotations: Annotations, image_folder: Path, *, rescale: bool = False) -> None:
        self.annotations = annotations
        self.image_folder = image_folder
        self.rescale = rescale

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def names(self) -> list[str]:
        """File names of the photos."""
        names: list[str] = self.annotations.names.tolist()
        return names

    def __getitem__(self, index: int) -> LabelledPhoto:
        return self._load(index, None)

    def squashed(self, index: int, size: Size) -> Square:
        """Photo ``index`` squashed to ``size``, (width, height) in pixels, decoded no larger than that takes."""
        photo, labels = self._load(index, size)
        return np.asarray(squash_photo(photo, size)), labels

    def _load(self, index: int, size: Size | None) -> LabelledPhoto:
        """The photo, at least as large as ``size`` if it has that, and its label map at ``size``; None: its own."""
        path, wanted = self.path(index), self.annotations.size(index)
        try:
            # Some tools ignore EXIF orientation, and masks drawn with them fit the photo as it is stored.
            photo = read_photo(path, size, upright=self.annotations.upright)
            if not fits(photo.size, wanted, self.rescale):
                photo = read_photo(path, size, upright=not self.annotations.upright)
        except OSError as error:
            raise unopened(path, error) from error
        except DataError as error:
            raise BadSampleError(str(error)) from error
        if not fits(photo.size, wanted, self.rescale):
            raise BadSampleError(
                f"{path}: expected {wanted[0]} x {wanted[1]} pixels (width x height) "
                f"as {self.annotations.path} says, found {photo.size[0]} x {photo.size[1]}"
            )
        try:
            masks = self.annotations[index].masks
        except DataError:
            raise
        except ValueError as error:
            name = self.annotations.names[index]
            raise BadSampleError(f"{self.annotations.path}: a mask of {name} cannot be read: {error}") from error
        other = None if photo.size == wanted else photo.size
        drop_small = self.annotations.format.drops_small
        return photo.picture, merge(masks, wanted[::-1], size or other, drop_small=drop_small)

    def path(self, index: int) -> Path:
        """Where photo ``index`` is."""
        return self.image_folder / str(self.annotations.names[index])


def fits(size: Size, wanted: Size, rescale: bool) -> bool:
    """Whether a photo of a size may be used with labels of another; ``rescale`` is as in ``LabelledPhotos``."""
    return size == wanted or (rescale and same_shape(size, wanted))


def same_shape(size: Size, other: Size) -> bool:
    """Whether two sizes differ by scale alone, up to rounding to whole pixels."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(sum(size), sum(other)) / 2


def unopened(path: Path, error: OSError) -> BadSampleError:
    """What to say of a photo that the system does not open."""
    return BadSampleError(f"{path}: expected a photo, found none that can be opened ({error.strerror})")


class PhotoPairs(Dataset[LabelledPhoto]):
    """Each photo beside the next, the last one beside the first: pictures of two people, to measure on."""

    def __init__(self, photos: LabelledPhotos) -> None:
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def names(self) -> list[str]:
        """File names of both photos of each pair."""
        names = self.photos.names
        return [f"{left} + {right}" for left, right in zip(names, names[1:] + names[:1], strict=True)]

    def __getitem__(self, index: int) -> LabelledPhoto:
        return beside(self.photos[index], self.photos[(index + 1) % len(self.photos)])


class TrainingSquares(Dataset[tuple[Tensor, Tensor]]):
    """(photo (3, H, W), label map (H, W)), both uint8, of one size; an item is a ``Draw``.

    Bytes are what the network's device is sent: normalised photos and int64 labels would be five times as many.

    Args:
        photos: where they come from.
        size: (width, height) in pixels.
        augmentation: random changes; none by default.
        usable: numbers of the photos that may be used; None: all. In the place of the others come some of these,
            so what other draws show does not depend on them.
    """

    def __init__(
        self,
        photos: LabelledPhotos,
        size: Size,
        augmentation: Augmentation | None = None,
        *,
        usable: NDArray[np.int64] | None = None,
    ) -> None:
        self.photos = photos
        self.size = size
        self.augmentation = augmentation or Augmentation()
        self.usable = np.arange(len(photos)) if usable is None else usable
        self._is_usable = np.isin(np.arange(len(photos)), self.usable)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        pixels, labels = self._square(draw)
        return self.augmentation(torch.tensor(pixels).permute(2, 0, 1), torch.tensor(labels), draw.seed)

    def another(self, draw: Draw) -> Draw:
        """What to take instead of a draw; it depends on the draw alone."""
        seed = int(np.random.SeedSequence((draw.seed, 1)).generate_state(1)[0])
        return Draw(int(self.usable[seed % len(self.usable)]), seed)

    def _usable(self, number: int, seed: int) -> int:
        """This photo if it may be used, else another one."""
        return number if self._is_usable[number] else self.another(Draw(number, seed)).photo

    def _square(self, draw: Draw) -> Square:
        number, partner = self._usable(draw.photo, draw.seed), self.augmentation.partner(len(self.photos), draw.seed)
        if partner is None and not self.augmentation.crops(draw.seed):
            return self.photos.squashed(number, self.size)
        photo, labels = self.photos[number]
        if partner is not None:
            photo, labels = self.augmentation.beside(
                (photo, labels), self.photos[self._usable(partner, draw.seed + 1)], draw.seed
            )
        box = self.augmentation.crop_box(labels, draw.seed)
        if box is not None:
            photo, labels = photo.crop(box), labels[box[1] : box[3], box[0] : box[2]]
        return np.asarray(squash_photo(photo, self.size)), squash_labels(labels, self.size)
