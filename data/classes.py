"""What the network can tell apart, its colours, and which garment category belongs to which class."""

CLASSES = ("background", "upper body", "lower body", "full body")
"""Class names; the position is the value in a label map."""

PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
"""RGB colour of each class, 0 to 255, in masks and pictures."""

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
