"""Which device a run uses."""

import os
import platform
import re
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING

from cloth_segmentation.errors import DeviceError

if TYPE_CHECKING:
    import torch


_forked = False


def _note_fork() -> None:
    global _forked
    _forked = _forked or "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def is_forked() -> bool:
    """Whether this process was forked from one that had imported PyTorch, whose threads did not come along."""
    return _forked


def knows(name: str) -> bool:
    """Whether PyTorch has devices of this kind; all else is another engine's."""
    return re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is not None


def on_cpu(name: str) -> bool:
    """Whether ``pick_device`` will pick the CPU. PyTorch, which takes seconds to import, is only asked if need be."""
    return name == "cpu" or (name == "auto" and (not _may_have_gpu() or pick_device(name).type == "cpu"))


def _may_have_gpu() -> bool:
    """Whether there are signs of a GPU: a driver, or a kind of computer that has one."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    if sys.platform == "win32":
        return find_library("nvcuda") is not None
    # NVIDIA's cards and Jetson boards, AMD, Windows Subsystem for Linux.
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg"))


def check_precision(amp: str, device: str) -> None:
    """Raise DeviceError if the kind of device, such as "cuda", does not know the precision: off, bf16 or fp16."""
    if amp == "fp16" and device != "cuda":
        raise DeviceError(f"--amp fp16: expected a CUDA device, found {device}; take --amp bf16 or off")


def pick_device(name: str, local_rank: int = 0) -> "torch.device":
    """Device for ``name``: auto, cpu, cuda, cuda:N or mps. Plain "cuda" is the local rank's own GPU.

    Raises:
        DeviceError: the device is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda"):
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(name.partition(":")[2] or local_rank)
        if index >= found:
            raise DeviceError(
                f"--device {name}: expected GPU number {index}, found {found} CUDA GPUs; "
                "start as many processes as there are GPUs, or take --device cpu"
            )
        return torch.device("cuda", index)
    if name == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps: expected an Apple GPU, found none; take --device cpu")
    if name not in ("cpu", "mps"):
        raise DeviceError(f"--device: expected auto, cpu, cuda, cuda:N or mps, found {name!r}")
    return torch.device(name)
