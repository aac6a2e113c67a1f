"""Several processes that share a folder. The library runs one; ``infer.py`` brings others together by PyTorch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from cloth_segmentation.errors import RunError
from cloth_segmentation.launcher import launch

Value = TypeVar("Value")


class Processes(Protocol):
    """The processes of a run, seen from one of them."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0 on."""

    @property
    def world_size(self) -> int:
        """How many there are."""

    def on_main(self, action: Callable[[], Value]) -> Value:
        """Do something in rank 0 only and give its result to all."""

    def gather(self, value: Value) -> list[Value]:
        """The value of every process, in order of rank."""

    def others_expected(self) -> AbstractContextManager[None]:
        """Say in a RunError that another process has ended while this one counts on it."""

    def stop(self) -> None:
        """Leave the others."""


class OneProcess:
    """A process on its own."""

    rank, world_size = 0, 1

    @classmethod
    def start(cls, device: str) -> "OneProcess":
        """The process, whatever its device. Raises RunError if a launcher has started several."""
        if launch().world_size > 1:
            raise RunError(
                "expected one process, found a launcher that started several; several share a folder by infer.py, in a "
                "clone of the project: torchrun --nproc_per_node=N infer.py"
            )
        return cls()

    def on_main(self, action: Callable[[], Value]) -> Value:
        return action()

    def gather(self, value: Value) -> list[Value]:
        return [value]

    def others_expected(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stop(self) -> None: ...
