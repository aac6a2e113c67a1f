"""Exponential moving average of weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def make_ema(network: nn.Module, decay: float) -> AveragedModel:
    """Average weights and batch-norm statistics: after each step, average = decay * average + (1 - decay) * new.

    In the first steps the decay is (1 + n) / (10 + n) after n updates, where that is less, so that the average does
    not hang on to the initial weights (as in TensorFlow's ExponentialMovingAverage).
    """

    def update(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not torch.is_floating_point(average):
            return current
        limited = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return torch.lerp(current, average, limited)

    return AveragedModel(network, avg_fn=update, use_buffers=True)
