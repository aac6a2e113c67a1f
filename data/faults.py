"""What is wrong with annotations and photos: named and counted, rather than one at a time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SHOWN = 3
"""Faults of a kind that are named; the others are counted."""


class Fault(NamedTuple):
    """One thing that is wrong."""

    kind: str  # in the plural, for counting: "photos that are not there"
    photo: str  # name of the photo that it spoils; "" where only a row is lost
    text: str  # where it is, what was expected, what was found
    harmless: bool = False  # nothing is lost by leaving it out


def summary(faults: Sequence[Fault]) -> str:
    """Number of faults of each kind, with the first ones of each; one kind a line."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault.text)
    return counted(kinds)


def counted(kinds: Mapping[str, Sequence[str]]) -> str:
    """Number of things of each kind, with the first ones; one kind a line, none for a kind that has none."""
    return "\n".join(
        f"  {len(texts):,} {kind}: {'; '.join(texts[:SHOWN])}{'; ...' if len(texts) > SHOWN else ''}"
        for kind, texts in kinds.items()
        if texts
    )
