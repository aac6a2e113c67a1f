"""Memory and threads of this process."""

import ctypes
import os
import sys
from typing import Any

from cloth_segmentation.launcher import whole_number

_M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""

LARGE = 4 * 2**20
"""Bytes from which a block is given back as soon as it is free."""


def return_large_blocks() -> None:
    """From now on, give large blocks back to the system when they are freed.

    glibc, the C library of most Linux systems, keeps them in the memory of the thread that read a large photo;
    elsewhere nothing is done. Who sets MALLOC_MMAP_THRESHOLD_ has decided otherwise.
    """
    library = _glibc()
    if library is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        library.mallopt(_M_MMAP_THRESHOLD, LARGE)


def return_free_memory() -> None:
    """Give the system back what is free now, where glibc keeps it."""
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


def cpu_threads() -> int:
    """Number of threads for the network on a CPU; 0 lets PyTorch or ONNX Runtime choose.

    Launchers set OMP_NUM_THREADS to 1 for several processes, however many cores there are.

    Raises:
        DeviceError: LOCAL_WORLD_SIZE or OMP_NUM_THREADS is no such number.
    """
    processes = whole_number("LOCAL_WORLD_SIZE", least=1) or 1
    if processes > 1:
        return max(1, (os.cpu_count() or 1) // processes)
    if "," in os.environ.get("OMP_NUM_THREADS", ""):  # a number for each level of threads that start threads
        return 0
    return whole_number("OMP_NUM_THREADS") or 0
