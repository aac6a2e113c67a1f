"""What a photo shows: its label map, and all that is made of it."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.coco import encode_coco
from cloth_segmentation.colors import Color
from cloth_segmentation.errors import DataError
from cloth_segmentation.logits import probabilities
from cloth_segmentation.photos import Photo, Size, Stamp, file_stamp, read_photo
from cloth_segmentation.pictures import mask_picture, overlay
from cloth_segmentation.weights_info import WeightsInfo


class Maker(Protocol):
    """What makes segmentations: a ``Segmenter``."""

    @property
    def path(self) -> Path:
        """The weights file."""

    @property
    def info(self) -> WeightsInfo:
        """The facts that it records."""

    def weights(self) -> dict[str, Any]:
        """The weights file, its sum and its figures, as ``to_dict`` reports them."""


JSON_VERSION = 1
"""Of ``Segmentation.to_dict``; it rises when a key changes its meaning or goes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """What a photo shows, at the photo's own size. Made by a ``Segmenter``.

    Classes are named as in ``class_set``, in full or in short: "upper body" or "upper".
    """

    labels: NDArray[np.uint8]
    """Label map (H, W): the class of each pixel; of ``CLOTHES`` 0 background, 1 upper body, 2 lower body, 3 full body.

    Pixels that are wholly transparent in the photo are background.
    """

    class_set: ClassSet = CLOTHES
    """What the labels mean."""

    classes: tuple[str, ...] = ()
    """Names of the classes that were asked for; pixels of others are background."""

    segmenter: Maker
    """What made it."""

    source: Path | bytes | Photo
    """Where the photo is, the content of its file, or the photo itself."""

    stamp: Stamp | None = None
    """What tells whether the file at ``source`` is still the one that was segmented."""

    notes: tuple[str, ...] = ()
    """What is odd about the photo: "expected one picture, found several; ..."."""

    logits: NDArray[np.float32]
    """What the network gave, (C, h, w), at the size at which it saw the photo."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_read"}  # which can be again

    def __repr__(self) -> str:
        width, height = self.size
        return f"<Segmentation of {width} x {height} pixels: {', '.join(self.found) or 'no clothes'}>"

    @property
    def size(self) -> Size:
        """(width, height) in pixels, of the photo and of everything below."""
        return self.labels.shape[1], self.labels.shape[0]

    @property
    def found(self) -> tuple[str, ...]:
        """Names of the classes that the photo has."""
        return tuple(name for name in self.classes if (self.labels == self.class_set.number(name)).any())

    @cached_property
    def _read(self) -> Photo:
        if isinstance(self.source, Photo):
            return self.source
        photo = read_photo(self.source)
        if isinstance(self.source, Path) and file_stamp(self.source) != self.stamp:  # after it was read: no gap is left
            raise DataError(
                f"{self.source}: expected the photo that was segmented, found that its file has changed since; segment "
                "it again"
            )
        return photo

    @property
    def photo(self) -> Image.Image:
        """The photo, upright, RGB, in sRGB; transparency is laid over white.

        If it came as a path, it is read again when it is first asked for: many that wait would fill the memory.

        Raises:
            DataError: it can no longer be read, or its file has changed.
            OSError: it can no longer be opened.
        """
        return self._read.picture

    def only(self, *classes: str) -> "Segmentation":
        """The same for some classes: pixels of the others are background."""
        numbers = sorted(map(self.class_set.number, classes))
        kept = np.where(np.isin(self.labels, numbers), self.labels, np.uint8(0))
        return self._changed(labels=kept, classes=tuple(self.class_set.names[number] for number in numbers if number))

    def grown(self, pixels: int) -> "Segmentation":
        """The same with clothes that reach further into the background, as masks for try-on do.

        After ``only``, a class grows over others, which are background then. Cut-outs have hard edges where it grew.

        Args:
            pixels: of the photo; 0 or more.

        Raises:
            ValueError: pixels is no whole number of at least 0.
        """
        from cloth_segmentation.regions import grow  # scipy takes longer to import than all else that a mask needs

        return self._changed(labels=grow(self.labels, _checked(pixels)))

    def shrunk(self, pixels: int) -> "Segmentation":
        """The same without the pixels of each class that are as near as this to other classes or the background.

        Args and errors are those of ``grown``.
        """
        from cloth_segmentation.regions import shrink

        return self._changed(labels=shrink(self.labels, _checked(pixels)))

    def _changed(self, **changes: Any) -> "Segmentation":
        other = replace(self, **changes)
        if "_read" in vars(self):
            vars(other)["_read"] = self._read  # once is enough
        return other

    def probabilities(self) -> NDArray[np.float32]:
        """Probability of each class at each pixel, (C, H, W), 0 to 1, from the softmax of the logits.

        The class of the highest is the label, unless the pixel is transparent, or ``min_area`` or ``only`` has
        changed it.
        """
        return probabilities(self.logits, self.size)

    def mask(self) -> Image.Image:
        """The label map as a palette picture: the value of a pixel is its class, shown in that class's colour."""
        return mask_picture(self.labels, self.class_set.palette)

    def class_mask(self, name: str) -> Image.Image:
        """One class as a grey picture: 255 where the photo has it, 0 elsewhere."""
        return Image.fromarray((self.labels == self.class_set.number(name)).astype(np.uint8) * np.uint8(255))

    def overlay(self) -> Image.Image:
        """The photo with its clothes tinted and outlined in the colours of their classes, RGB."""
        return overlay(self.photo, self.labels, self.class_set.palette)

    def cutout(self, name: str, *, crop: bool = False, background: Color | None = None) -> Image.Image:
        """The photo with all but one class transparent, and soft edges, RGBA; or on a background, RGB.

        What is transparent in the photo is so here, to the same degree.

        Args:
            name: the class. If the photo does not have it, everything is transparent.
            crop: leave out what is transparent around it, if there is something that is not.
            background: RGB, 0 to 255, of what would be transparent; None: it is.
        """
        # scipy takes longer to import than all else that is needed.
        from cloth_segmentation.cutouts import coverage, cut_out

        number = self.class_set.number(name)
        covered = coverage(self.labels == number, self.logits, number)
        picture = cut_out(self._read.colors, covered, self._read.alpha)
        if crop:
            picture = picture.crop(picture.getchannel("A").getbbox())
        if background is None:
            return picture
        behind = Image.new("RGB", picture.size, background)
        behind.paste(picture, mask=picture.getchannel("A"))
        return behind

    def to_dict(self) -> dict[str, Any]:
        """What was found, in numbers, text and lists: what JSON can hold. docs/outputs.md explains each key."""
        width, height = self.size
        return {
            "version": JSON_VERSION,
            "photo": str(self.source) if isinstance(self.source, Path) else None,
            "width": width,
            "height": height,
            "weights": self.segmenter.weights(),
            "classes": [self._class_to_dict(self.class_set.number(name)) for name in self.classes],
        }

    def _class_to_dict(self, number: int) -> dict[str, Any]:
        mask = self.labels == number
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        pixels = int(mask.sum())
        box = [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1] if pixels else None
        return {
            "id": number,
            "name": self.class_set.names[number],
            "pixels": pixels,
            "share": pixels / mask.size,
            "box": box,
            "segmentation": encode_coco(mask),
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def _checked(pixels: int) -> int:
    if type(pixels) is not int or pixels < 0:
        raise ValueError(f"pixels: expected a whole number of at least 0, found {pixels!r}")
    return pixels
