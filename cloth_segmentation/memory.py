"""Give memory that is free back to the system. glibc, the C library of most Linux systems, keeps much of it.

Elsewhere nothing is done.
"""

import ctypes
import os
import sys
from typing import Any

_M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""

LARGE = 4 * 2**20
"""Bytes from which a block is given back as soon as it is free."""


def return_large_blocks() -> None:
    """From now on, give large blocks back when they are freed.

    Otherwise what one large photo took stays with the process, in the memory of the thread that read it. Who sets
    MALLOC_MMAP_THRESHOLD_ has decided otherwise.
    """
    library = _glibc()
    if library is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        library.mallopt(_M_MMAP_THRESHOLD, LARGE)


def return_free_memory() -> None:
    """Give back what is free now."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that there was too little memory."""
    # PyTorch's exception for GPUs, and what its CPU and ONNX Runtime say; neither is imported for this.
    words = ("out of memory", "can't allocate memory", "Failed to allocate memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in words)
