"""What weights say about themselves, whatever the format of their file."""

from dataclasses import dataclass

ONNX_SIDES = 32
"""The network halves a photo five times; in an ONNX file, the sides of what it sees are multiples of this."""


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself; the defaults hold for files that say nothing."""

    arch: str
    classes: tuple[str, ...]  # names, background first
    size: tuple[int, int] = (768, 768)  # (width, height) at which photos are seen, pixels; that of training at first
    mean: float = 0.5  # normalisation
    std: float = 0.5
    step: int | None = None  # training steps done; None: not known
    mean_iou_clothes: float | None = None  # on validation photos, 0 to 1: in training, or as evaluate.py recorded it
