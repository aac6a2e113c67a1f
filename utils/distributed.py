"""Several processes that train one network or share a folder; with one process everything here does nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from cloth_segmentation.command.signals import stopped_at_once
from cloth_segmentation.errors import RunError
from cloth_segmentation.launcher import check_meeting_point, launch, restarts
from utils.devices import pick_device

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them. Start with ``start``, end with ``stop``."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    # Small facts travel over gloo, so that agreeing on them does not wait for the GPU.
    control: Any = None  # a ProcessGroup

    @classmethod
    def start(cls, device: str, distributed: bool | None = None, *, train: bool = True) -> "Processes":
        """Join the processes that a launcher started; on its own, a process is rank 0 of 1.

        Args:
            device: auto, cpu, cuda, cuda:N or mps.
            distributed: None: found out from the launcher's environment.
            train: gradients will be exchanged; False: small facts only, by processes that may end days apart.

        Raises:
            RunError: ``distributed`` and the environment contradict each other, what a launcher set is wrong, or the
                device is not there.
        """
        launched, rank, world_size, local_rank = launch()
        if distributed and not launched:
            raise RunError(
                "--distributed: expected to be started by a launcher, found no RANK and WORLD_SIZE in the environment; "
                "start with: torchrun --nproc_per_node=GPUS train.py"
            )
        if not launched or distributed is False:
            if world_size > 1:
                raise RunError("--no-distributed: expected one process, found a launcher that started several")
            return cls(pick_device(device))
        if ":" in device and world_size > 1:
            raise RunError(f"--device {device}: expected cuda or cpu for several processes, found one GPU for all")
        own = pick_device(device, local_rank)
        if own.type == "cuda":
            torch.cuda.set_device(own)
        if world_size == 1:
            return cls(own)
        check_meeting_point()
        with _others_expected(), stopped_at_once():
            if own.type == "cuda" and train:
                dist.init_process_group("nccl", store=_store(), rank=rank, world_size=world_size, device_id=own)
            elif own.type == "cpu" or not train:
                dist.init_process_group("gloo", store=_store(), rank=rank, world_size=world_size)
            else:
                raise RunError(
                    f"--device {own.type}: expected CUDA or the CPU for several processes; take --device cpu"
                )
            control = dist.new_group(backend="gloo", timeout=timedelta(days=1 if train else 30))
        return cls(own, rank, world_size, control)

    def others_expected(self) -> AbstractContextManager[None]:
        """Say in a sentence, as a RunError, that another process has ended while this one counts on it."""
        return _others_expected() if self.world_size > 1 else nullcontext()

    def stop(self) -> None:
        """Leave the others."""
        if self.control is not None:
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """Make gradients the mean over all processes; on GPUs, batch normalisation sees all processes' photos."""
        if self.world_size == 1:
            return network
        gpu = None
        if self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            gpu = [self.device.index]
        return nn.parallel.DistributedDataParallel(
            network,
            device_ids=gpu,
            broadcast_buffers=False,  # share_buffers sees to them; in training, no result depends on them
            gradient_as_bucket_view=True,  # spares a copy of all gradients
        )

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def gather(self, value: Value) -> list[Value]:
        """The value of every process, in order of rank; any value that can be pickled."""
        if self.world_size == 1:
            return [value]
        values: list[Value] = [value] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def on_main(self, action: Callable[[], Value]) -> Value:
        """Do something in rank 0 only and give its result to all; where it fails there, all end."""
        if self.world_size == 1:
            return action()
        outcome: list[Value | None] = [None]
        error: Exception | None = None
        if self.is_main:
            try:
                outcome = [action()]
            except Exception as caught:
                error = caught
        failed = self.any(error is not None)
        if error is not None:
            raise error
        if failed:
            sys.exit(1)  # rank 0 says why
        dist.broadcast_object_list(outcome, src=0, group=self.control)
        return cast(Value, outcome[0])

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, on the CPU."""
        tensor = tensor.detach().cpu()
        if self.world_size > 1:
            dist.all_reduce(tensor, group=self.control)
        return tensor

    def share_buffers(self, network: nn.Module) -> None:
        """Give every process rank 0's buffers: without SyncBN the running statistics drift apart."""
        if self.world_size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)


def _store() -> PrefixStore:
    """Where the processes tell one another their addresses.

    torchrun keeps its store when it starts processes again (--max_restarts), and with it the addresses of those that
    have died; each start finds a part of its own here.
    """
    store, _, _ = next(rendezvous("env://"))
    return PrefixStore(f"start_{restarts()}", store)


@contextmanager
def _others_expected() -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except RuntimeError as error:
        # NCCL's and the store's errors have a class; gloo's have its name in their text.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise RunError(
            "expected all processes of the run to live and be reached, found one that is not; if it ended, its own "
            f"message says why ({str(error).splitlines()[0][:200]})"
        ) from error
