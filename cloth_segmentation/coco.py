"""COCO's compressed run-length encoding."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode_coco(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Mask (H, W), bool -> COCO's compressed run-length encoding, which pycocotools.mask reads.

    "size" is [height, width]. "counts" holds the lengths of runs of 0 and 1 in turn, of 0 first, down the columns; each
    from the fourth on as its difference from the one two before, in digits of 5 bits, the lowest first, as in LEB128,
    each as a character from "0" on. (Format: cocodataset/cocoapi, common/maskApi.c, rleToString.)
    """
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
