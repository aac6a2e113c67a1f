"""Exponential moving average of weights."""

import copy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ExponentialMovingAverage:
    """Average of a network's weights and batch-norm statistics: average = decay * average + (1 - decay) * new.

    In the first steps the decay is (1 + n) / (10 + n) at update n, where that is less, so that the average does not
    hang on to the initial weights (as in TensorFlow's ExponentialMovingAverage).

    Attributes:
        module: the averaged network.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0  # a plain number: reading a count off a GPU would make the CPU wait for it

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average, current = self.module.state_dict().values(), network.state_dict().values()
        pairs = list(zip(average, current, strict=True))
        numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        average_lists = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average_lists([old for old, _ in numbers], [new for _, new in numbers], None)
        for old, new in pairs:
            if not old.is_floating_point():
                old.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.updates = state["updates"]
        self.module.load_state_dict(state["module"])
