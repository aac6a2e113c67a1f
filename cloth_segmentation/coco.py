"""COCO's compressed run-length encoding.

"size" is [height, width]. "counts" holds the lengths of runs of 0 and 1 in turn, of 0 first, down the columns; each
from the fourth on as its difference from the one two before, in digits of 5 bits, the lowest first, as in LEB128, each
as a character from "0" on. (Format: cocodataset/cocoapi, common/maskApi.c, rleToString.)
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHARACTERS = re.compile("[0-o]*")  # 48 to 111

MOST_DIGITS = 7
"""Of a count below 2**32, or of a difference of two such counts."""


def encode_coco(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Mask (H, W), bool -> COCO's compressed run-length encoding, which pycocotools.mask reads."""
    flat = np.concatenate(([False], mask.ravel(order="F")))
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(edges, prepend=0, append=mask.size)
    lengths[3:] -= lengths[1:-2].copy()
    text = []
    for number in lengths.tolist():
        more = True
        while more:
            digit, number = number & 31, number >> 5
            # The fifth bit of the last digit is the sign.
            more = number != (-1 if digit & 16 else 0)
            text.append(chr(48 + digit + 32 * more))
    return {"size": list(mask.shape), "counts": "".join(text)}


def decode_coco(counts: str) -> NDArray[np.int64]:
    """Compressed counts -> lengths (N,) of runs of 0 and 1 in turn, of 0 first, down the columns.

    The content is not to be trusted: lengths may be negative, and may not fit the mask.

    Raises:
        ValueError: this is no such text.
    """
    if not _CHARACTERS.fullmatch(counts):
        raise ValueError(f"expected compressed counts, characters from '0' to 'o', found {counts[:40]!r}")
    digits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    lasts = np.flatnonzero(digits < 32)
    if not len(digits):
        return lasts
    if digits[-1] >= 32:
        raise ValueError(f"expected compressed counts, found some that are cut off: they end in {counts[-8:]!r}")
    firsts = np.concatenate(([0], lasts[:-1] + 1))
    lengths = lasts + 1 - firsts
    if lengths.max() > MOST_DIGITS:
        raise ValueError(f"expected counts of at most {MOST_DIGITS} digits, found one of {lengths.max():,}")
    shifts = 5 * (np.arange(len(digits)) - np.repeat(firsts, lengths))
    numbers: NDArray[np.int64] = np.add.reduceat((digits & 31) << shifts, firsts)
    numbers -= np.where(digits[lasts] & 16, np.int64(1) << 5 * lengths, 0)
    for start in (1, 2):
        numbers[start::2] = np.cumsum(numbers[start::2])
    return numbers
