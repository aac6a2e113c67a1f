"""Which device a run uses."""

import torch

from utils import RunError


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """Device for ``name``: auto, cpu, cuda, cuda:N or mps. Plain "cuda" is the local rank's own GPU.

    Raises:
        RunError: the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda"):
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(name.partition(":")[2] or local_rank)
        if index >= found:
            raise RunError(
                f"--device {name}: expected GPU number {index}, found {found} CUDA GPUs; "
                "start as many processes as there are GPUs, or take --device cpu"
            )
        return torch.device("cuda", index)
    if name == "mps" and not torch.backends.mps.is_available():
        raise RunError("--device mps: expected an Apple GPU, found none; take --device cpu")
    return torch.device(name)
