"""What the network can tell apart, and its colours."""

CLASSES = ("background", "upper body", "lower body", "full body")
"""Class names; the position is the value in a label map."""

PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
"""RGB colour of each class, 0 to 255, in masks and pictures."""


ONE_GARMENT = 1, 3
"""Upper body and full body: no garment is both, and networks tear one into both most often."""


def short_name(name: str) -> str:
    """What people call a class, and files are called: "upper" for "upper body"."""
    return name.split()[0]


def class_number(name: str) -> int:
    """Number of a class that is named in full, "upper body", or by its first word, "upper".

    Raises:
        ValueError: there is no such class.
    """
    for number, known in enumerate(CLASSES):
        if name in (known, short_name(known)):
            return number
    raise ValueError(
        f"expected a class ({', '.join(CLASSES)}), found {name!r}; the first word is enough: upper, lower, full"
    )
