"""The garment categories of iMaterialist (Fashion) 2019, and the class sets that are made of them."""

from itertools import chain

from cloth_segmentation.classes import BACKGROUND, CLOTHES, ClassSet, plain

_GARMENTS = tuple(chain.from_iterable(CLOTHES.categories))

CATEGORIES = (
    *_GARMENTS,  # 0 to 12
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
"""Names of all 46; the position is the id."""

_IDS = {plain(name): number for number, name in enumerate(CATEGORIES)}


def category_id(name: str) -> int | None:
    """Id of a category of iMaterialist; None for another name."""
    return _IDS.get(plain(name))


ACCESSORIES = (
    "hat",
    "glasses",
    "tie",
    "glove",
    "watch",
    "belt",
    "tights, stockings",
    "sock",
    "shoe",
    "bag, wallet",
    "scarf",
    "umbrella",
)


def _one_class_each(name: str, categories: tuple[str, ...]) -> ClassSet:
    """A set with a class for each category. It lies within the classes of clothes."""
    plain = ClassSet.of_names((BACKGROUND, *categories), name)
    within = (0, *map(CLOTHES.number_of, categories))
    return ClassSet(name, plain.names, plain.palette, plain.categories, CLOTHES, within)


SHIPPED = {
    classes.name: classes
    for classes in (
        CLOTHES,
        _one_class_each("garments", _GARMENTS),
        _one_class_each("garments_and_accessories", _GARMENTS + ACCESSORIES),
        _one_class_each("fashion", CATEGORIES),
    )
}
"""The class sets that --classes knows by name."""
