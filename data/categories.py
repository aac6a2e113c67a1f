"""Which garment category belongs to which class."""

from collections.abc import Callable
from typing import NamedTuple

from cloth_segmentation.classes import CLASSES

# The 46 categories of iMaterialist (Fashion) 2019, in order of their id. The position is the id.
CATEGORIES = (
    "shirt, blouse",
    "top, t-shirt, sweatshirt",
    "sweater",
    "cardigan",
    "jacket",
    "vest",
    "pants",
    "shorts",
    "skirt",
    "coat",
    "dress",
    "jumpsuit",
    "cape",
    "glasses",
    "hat",
    "headband, head covering, hair accessory",
    "tie",
    "glove",
    "watch",
    "belt",
    "leg warmer",
    "tights, stockings",
    "sock",
    "shoe",
    "bag, wallet",
    "scarf",
    "umbrella",
    "hood",
    "collar",
    "lapel",
    "epaulette",
    "sleeve",
    "pocket",
    "neckline",
    "buckle",
    "zipper",
    "applique",
    "bead",
    "bow",
    "flower",
    "fringe",
    "ribbon",
    "rivet",
    "ruffle",
    "sequin",
    "tassel",
)

_FIRST_LOWER, _FIRST_FULL, _FIRST_OTHER = 6, 9, 13


def class_of(category: int) -> int:
    """Class of an iMaterialist category id, 0 to 45; everything that is no main garment is background (0)."""
    if not 0 <= category < len(CATEGORIES):
        raise ValueError(f"expected a category id from 0 to {len(CATEGORIES) - 1}, found {category}")
    if category < _FIRST_LOWER:
        return 1
    if category < _FIRST_FULL:
        return 2
    return 3 if category < _FIRST_OTHER else 0


def garment_of(category: int) -> int:
    """Label of a category id where garments are told apart: one label a category, 0 where its class is background."""
    return category + 1 if class_of(category) else 0


class LabelSet(NamedTuple):
    """What a network learns to tell apart."""

    names: tuple[str, ...]  # the position is the value in a label map
    label_of: Callable[[int], int]  # label of an iMaterialist category id
    classes: tuple[int, ...]  # class of each label


LABEL_SETS = {
    "classes": LabelSet(CLASSES, class_of, tuple(range(len(CLASSES)))),
    "garments": LabelSet(
        ("background", *CATEGORIES[:_FIRST_OTHER]), garment_of, (0, *map(class_of, range(_FIRST_OTHER)))
    ),
}
"""The classes, and the garment categories that make them up, which are harder to tell apart and teach more."""
