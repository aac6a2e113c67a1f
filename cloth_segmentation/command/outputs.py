"""The files that the command writes for a photo: their names, and where they go."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cloth_segmentation.colors import Color
from cloth_segmentation.errors import DataError
from cloth_segmentation.pictures import encode_picture
from cloth_segmentation.segmentation import Segmentation

OUTPUTS = ("mask", "overlay", "cutout", "classes", "json")
"""What can be written for a photo."""

NAMES = {"mask": "masks", "overlay": "overlays", "cutout": "cut-outs", "classes": "class masks", "json": "JSON files"}
"""The plural of each output, for messages."""

ONE = {"mask": ".png", "overlay": "_overlay.jpg", "json": ".json"}
"""Outputs that are one file, and the ending of its name."""

EACH_CLASS = {"cutout": "_cutout_", "classes": "_mask_"}
"""Outputs that are a file for each class, and what its name has between the photo's name and the class's."""


def other_endings(classes: Sequence[str]) -> tuple[str, ...]:
    """Endings of all files of a photo but its mask, which ends in .png; ``classes``: short names of all classes."""
    return (
        *(ending for name, ending in ONE.items() if name != "mask"),
        *(f"{kind}{name}.png" for kind in EACH_CLASS.values() for name in classes),
    )


CUTOUT = "cut-out by cloth segmentation"
"""Note that is written into each cut-out. Files without it are never deleted."""

NOTES = {"cutout": CUTOUT}
"""The note of each output that has one."""


@dataclass(frozen=True)
class Drawing:
    """How outputs are to be drawn."""

    only: tuple[str, ...] = ()
    """Classes to draw; none: all."""

    grow: int = 0
    """Pixels by which clothes reach further into the background."""

    shrink: int = 0
    """Pixels by which each class reaches less far."""

    crop: bool = False
    """Crop cut-outs to what is not transparent."""

    background: Color | None = None
    """RGB behind cut-outs; None: they are transparent there."""

    def of(self, one: Segmentation) -> Segmentation:
        """What a photo shows, as far as it is wanted."""
        if self.only:
            one = one.only(*self.only)
        if self.grow:
            one = one.grown(self.grow)
        return one.shrunk(self.shrink) if self.shrink else one


def pictures(one: Segmentation, outputs: Collection[str], drawing: Drawing) -> Iterator[tuple[str, str, Image.Image]]:
    """Draw the pictures among the outputs: (output, short name of the class or "", picture).

    A class that the photo does not have has no cut-out.

    Args:
        one: what the photo shows, as far as it is wanted.
        outputs: what was asked for; what is no picture is passed over.
        drawing: how to draw cut-outs.

    Raises:
        DataError: the photo, which some pictures show, can no longer be read, or has changed.
        OSError: it can no longer be opened.
    """
    short = one.class_set.short_name
    if "cutout" in outputs:
        for name in one.found:
            yield "cutout", short(name), one.cutout(name, crop=drawing.crop, background=drawing.background)
    if "classes" in outputs:
        for name in one.classes:
            yield "classes", short(name), one.class_mask(name)
    if "overlay" in outputs:
        yield "overlay", "", one.overlay()
    if "mask" in outputs:
        yield "mask", "", one.mask()


def encoded(picture: Image.Image, output: str, ending: str) -> bytes:
    """A picture as the content of its file, whose name ends in ``ending``."""
    file = BytesIO()
    encode_picture(picture, file, ending, NOTES.get(output, ""))
    return file.getvalue()


class Job(NamedTuple):
    """A photo and the path of its mask. The other outputs go into the mask's folder."""

    photo: Path
    mask: Path

    def path(self, output: str, name: str = "") -> Path:
        """Path of an output; for an output with a file for each class, that of the class of this short name."""
        ending = f"{EACH_CLASS[output]}{name}.png" if output in EACH_CLASS else ONE[output]
        return self.mask.with_name(self.mask.stem + ending)

    def paths(self, output: str, classes: Sequence[str]) -> list[Path]:
        """All files of an output; ``classes``: short names."""
        return [self.path(output, name) for name in (classes if output in EACH_CLASS else ("",))]


def mask_paths(files: Sequence[Path], folder: Path, output: Path, endings: tuple[str, ...] = ()) -> list[Path]:
    """Path of the mask of each file of a folder: the same sub-folder and name, ending in .png.

    Names that would meet keep the ending of the photo, as in a.jpg.png. Names meet where two photos differ in their
    ending only (a.jpg, a.webp), where a mask would be called like a sub-folder, and where the mask of one photo
    (a_cutout_upper.jpg) would be called like another output of a second photo (a.jpg).

    Args:
        files: the photos.
        folder: the folder that holds them all.
        output: the folder for the masks.
        endings: endings of the other outputs of a photo.

    Raises:
        DataError: files without an ending would still meet.
    """

    def whole(number: int) -> Path:
        path = files[number]
        return output / path.relative_to(folder).with_name(path.name + ".png")

    masks = [output / path.relative_to(folder).with_suffix(".png") for path in files]
    folders = {mask.parent for mask in masks}
    folders = folders.union(*(folder.parents for folder in folders))
    while True:
        # Some file systems take A.png and a.png for one.
        count = Counter(str(path).lower() for path in chain(masks, folders))
        several = {name for name, times in count.items() if times > 1}
        for name, made_of in _made(count, endings):
            several |= {name, made_of}
        del count
        meet = (
            [number for number, mask in enumerate(masks) if str(mask).lower() in several and mask != whole(number)]
            if several
            else []
        )
        if not meet:
            break
        for number in meet:
            masks[number] = whole(number)
    for one, other in _made(dict.fromkeys(map(str, masks)), endings) if several else ():
        raise DataError(
            f"expected photos whose files have names of their own, found {Path(one).stem} and {Path(other).stem} in "
            f"{folder}; rename one"
        )
    return masks


def _made(names: Collection[str], endings: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Pairs of names of masks: the first is also the name of another output of the photo of the second."""
    for name in names:
        if name.endswith(endings):
            made_of = next(name.removesuffix(ending) + ".png" for ending in endings if name.endswith(ending))
            if made_of in names:
                yield name, made_of
