"""Colours for classes that name none: told apart by colour-blind people too, and the same every time."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
"""RGB, 0 to 255."""

STEPS = 11
"""Values of each channel among which colours are chosen."""

LEAST_LIGHTNESS, MOST_LIGHTNESS, LEAST_CHROMA = 0.36, 0.93, 0.05
"""Of colours in Oklab: over a photo or a page, grey ones and those that are nearly black or white are lost."""

# From linear RGB to what people see who lack one kind of cone (protanopes, deuteranopes, tritanopes): Machado,
# Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1.0.
DEFICIENCIES = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)

# From linear RGB to LMS and from its cube roots to Oklab, in which distances are differences as people see them:
# Ottosson, "A perceptual color space for image processing", 2020.
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def make_colors(taken: Sequence[Color], count: int) -> list[Color]:
    """``count`` more colours, each as far as can be from all before it, in the eyes that confuse the two most.

    Colours depend on those before them alone, so that a class which is added at the end changes no other's.

    Args:
        taken: colours that are in use already, at least one.
        count: number of colours to make.
    """
    candidates, seen = _candidates()
    distance = np.full(len(candidates), np.inf)
    made: list[Color] = []
    for color in taken:
        distance = np.minimum(distance, _distance(seen, _as_seen(np.array([color]))))
    for _ in range(count):
        best = int(distance.argmax())
        made.append(tuple(candidates[best].tolist()))
        distance = np.minimum(distance, _distance(seen, seen[:, best : best + 1]))
    return made


@lru_cache(maxsize=1)
def _candidates() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Colours (K, 3) to choose from, and how they are seen."""
    values = np.linspace(0, 255, STEPS).round().astype(np.int64)
    colors = np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = _as_seen(colors)
    lightness, *hue = seen[0].T.round(6)
    is_light = (lightness >= LEAST_LIGHTNESS) & (lightness <= MOST_LIGHTNESS)
    is_clear = is_light & (np.hypot(*hue) >= LEAST_CHROMA)
    return colors[is_clear], seen[:, is_clear]


def _as_seen(colors: NDArray[np.int64]) -> NDArray[np.float64]:
    """RGB colours (K, 3) -> Oklab (4, K, 3): in the eyes of most people, and of those who lack one kind of cone."""
    share = colors / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    views = np.stack([linear, *(linear @ matrix.T for matrix in DEFICIENCIES)]).clip(0, 1)
    seen: NDArray[np.float64] = np.cbrt(views @ TO_LMS.T) @ TO_OKLAB.T
    return seen


def _distance(seen: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (K,) of colours to one, in the eyes that see it smallest; (4, K, 3) and (4, 1, 3)."""
    # Rounded, so that the last bits of a processor's sums decide nothing.
    distance: NDArray[np.float64] = np.linalg.norm(seen - other, axis=-1).min(0).round(6)
    return distance
