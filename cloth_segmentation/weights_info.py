"""What weights say about themselves, whatever the format of their file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cloth_segmentation.classes import CLOTHES, ClassSet

ONNX_SIDES = 32
"""The network halves a photo five times; in an ONNX file, the sides of what it sees are multiples of this."""


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself; the defaults hold for files that say nothing."""

    arch: str
    classes: ClassSet
    size: tuple[int, int] = (768, 768)  # (width, height) at which photos are seen, pixels; that of training at first
    mean: float = 0.5  # normalisation
    std: float = 0.5
    step: int | None = None  # training steps done; None: not known
    mean_iou_clothes: float | None = None  # on validation photos, 0 to 1: in training, or as evaluate.py recorded it

    @classmethod
    def read(cls, stated: Mapping[str, Any]) -> "WeightsInfo":
        """What a file states, whose content is not to be trusted; names that are not known are passed over.

        Raises:
            ValueError: something is missing, or is not what it should be.
        """
        found = {field.name: stated[field.name] for field in fields(cls) if field.name in stated}
        sides, names, step, iou = (found.get(name) for name in ("size", "classes", "step", "mean_iou_clothes"))
        is_right = {
            "arch": isinstance(found.get("arch"), str),
            "classes": isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) and bool(names),
            "size": isinstance(sides, list | tuple)
            and len(sides) == 2
            and all(_whole(side, 1, 2**15) for side in sides),
            "mean": _number(found.get("mean", 0.5)),
            "std": _number(found.get("std", 0.5)) and found.get("std", 0.5) > 0,
            "step": step is None or _whole(step, 0, 2**62),
            "mean_iou_clothes": iou is None or (_number(iou) and 0 <= iou <= 1),
        }
        for name, right in is_right.items():
            if not right:
                raise ValueError(f"expected {name} as {cls.__name__} has it, found {str(found.get(name))[:40]!r}")
        return cls(**{**found, "classes": _class_set(found["classes"], stated), "size": tuple(found["size"])})

    def to_dict(self) -> dict[str, Any]:
        """What a file states: the inverse of ``read``. Of the classes of clothes, which are known, the names alone."""
        known = {} if self.classes == CLOTHES else {CLASS_SET: self.classes.to_dict()}
        return {**vars(self), "classes": self.classes.names, **known}


CLASS_SET = "class_set"
"""Name under which a file states all that is known of its classes, beside their names."""


def _class_set(names: Sequence[str], stated: Mapping[str, Any]) -> ClassSet:
    """The class set that a file states, or that its names tell. Raises ValueError."""
    if CLASS_SET in stated:
        classes = ClassSet.read(stated[CLASS_SET])
        if classes.names != tuple(names):
            raise ValueError(f"expected a class set of {', '.join(names)}, found {', '.join(classes.names)}"[:200])
        return classes
    return CLOTHES if tuple(names) == CLOTHES.names else ClassSet.of_names(names)


def _number(value: object) -> bool:
    # Compared before anything else: a whole number may be too large to be turned into another kind.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e6 <= value <= 1e6


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
