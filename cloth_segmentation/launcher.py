"""What a launcher such as torchrun tells each process that it starts: the one place that reads its variables."""

import os
from typing import NamedTuple

from cloth_segmentation.errors import DeviceError


class Launch(NamedTuple):
    """The place of a process among those that were started together; on its own, it is rank 0 of 1."""

    launched: bool  # by a launcher
    rank: int
    world_size: int
    local_rank: int  # on its machine


def whole_number(name: str, least: int = 0, most: int | None = None) -> int | None:
    """An environment variable that holds a whole number; None: it is not set, or empty.

    Raises:
        DeviceError: it holds something else.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise DeviceError(f"{name}: expected a whole number {limits}, found {text!r}; correct or unset this variable")
    return value


def launch() -> Launch:
    """How this process was launched.

    Raises:
        DeviceError: variables of the launcher are wrong, contradict each other, or one comes without the other.
    """
    rank, world_size = whole_number("RANK"), whole_number("WORLD_SIZE", least=1)
    local_rank, local_world_size = whole_number("LOCAL_RANK"), whole_number("LOCAL_WORLD_SIZE", least=1)
    if local_rank is not None and local_world_size is not None and local_rank >= local_world_size:
        raise DeviceError(
            f"LOCAL_RANK: expected less than LOCAL_WORLD_SIZE ({local_world_size}), found {local_rank}; let a launcher "
            "such as torchrun set both, or unset both"
        )
    if rank is None and world_size in (None, 1):
        return Launch(False, 0, 1, local_rank or 0)
    if rank is None or world_size is None:
        there, missing = ("WORLD_SIZE", "RANK") if rank is None else ("RANK", "WORLD_SIZE")
        raise DeviceError(
            f"{there}: expected {missing} beside it, found none; let a launcher such as torchrun set both, or unset "
            "both"
        )
    if rank >= world_size:
        raise DeviceError(
            f"RANK: expected less than WORLD_SIZE ({world_size}), found {rank}; ranks are counted from 0, so let a "
            "launcher such as torchrun set both"
        )
    return Launch(True, rank, world_size, local_rank or 0)


def check_meeting_point() -> None:
    """Raise DeviceError if it is not said where the processes find one another."""
    if not os.environ.get("MASTER_ADDR", "").strip():
        raise DeviceError(
            "MASTER_ADDR: expected the address of the process of rank 0, found none; let a launcher such as torchrun "
            "set it, or take 127.0.0.1 if all processes are on this machine"
        )
    if whole_number("MASTER_PORT", least=1, most=65535) is None:
        raise DeviceError(
            "MASTER_PORT: expected a free port of the machine of rank 0, found none; let a launcher such as torchrun "
            "set it, or take one such as 29500"
        )


def restarts() -> int:
    """How often the launcher has started this run again (torchrun --max_restarts). Raises DeviceError."""
    return whole_number("TORCHELASTIC_RESTART_COUNT") or 0


def rank_as_set() -> str:
    """The rank, for messages, which must be said whatever it holds; "" if no launcher set it."""
    return os.environ.get("RANK", "").strip()


def speaks_for_all() -> bool:
    """Whether this process says what all find alike: no launcher set its rank, or it is the first, or it is wrong."""
    try:
        return not whole_number("RANK")
    except DeviceError:
        return True
