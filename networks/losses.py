"""The training loss."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeepSupervisionLoss(nn.Module):
    """Weighted cross-entropy on the fused map and on every side output (U2-Net paper, section 3.3).

    total = fused_weight * CE(d0) + CE(d1) + ... + CE(d6). Each CE is the mean over pixels weighted by the
    weight of the pixel's true class, as ``torch.nn.functional.cross_entropy`` defines it.

    Args:
        class_weights: one weight a class, background first.
        fused_weight: weight of d0.
    """

    class_weights: Tensor

    def __init__(self, class_weights: Sequence[float] = (1.0, 1.5, 1.5, 1.5), fused_weight: float = 1.5) -> None:
        super().__init__()
        self.fused_weight = fused_weight
        self.register_buffer("class_weights", torch.tensor(class_weights, dtype=torch.float32))

    def forward(self, outputs: Sequence[Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
        """Return (total, d0's own loss), both scalars.

        Args:
            outputs: logits (d0, d1, ..., d6), each (N, C, H, W). Half precision is computed in float32.
            target: label map (N, H, W), int64, values 0 to C - 1.
        """
        fused, *sides = (F.cross_entropy(logits.float(), target, self.class_weights) for logits in outputs)
        return self.fused_weight * fused + torch.stack(sides).sum(), fused
