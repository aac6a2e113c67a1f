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
        classes: number of classes, C, background first.
        background_weight: weight of background in the cross-entropy.
        clothes_weight: weight of every other class.
        fused_weight: weight of d0.
        region_weight: weight of the Lovász-Softmax loss of d0, which is added to the total; 0: none.
        ignored: label of pixels that do not count.
    """

    class_weights: Tensor

    def __init__(
        self,
        classes: int = 4,
        background_weight: float = 1.0,
        clothes_weight: float = 1.5,
        fused_weight: float = 1.5,
        region_weight: float = 0.0,
        ignored: int = -100,
    ) -> None:
        super().__init__()
        self.ignored = ignored
        self.fused_weight = fused_weight
        self.region_weight = region_weight
        self.register_buffer("class_weights", torch.tensor([background_weight] + [clothes_weight] * (classes - 1)))

    def forward(self, outputs: Sequence[Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
        """Return (total, d0's own loss), both scalars; 0 where no pixel counts.

        Args:
            outputs: logits (d0, d1, ..., d6), each (N, C, H, W). Half precision is computed in float32.
            target: label map (N, H, W), int64, values 0 to C - 1, and ``ignored`` where a pixel does not count; or the
                probability of each class (N, C, H, W), float32, such as a teacher's, all 0 where a pixel does not
                count. The Lovász-Softmax loss is for the most probable class.
        """
        fused, *sides = (self._cross_entropy(logits.float(), target) for logits in outputs)
        total = self.fused_weight * fused + torch.stack(sides).sum()
        if self.region_weight:
            labels = target
            if target.is_floating_point():
                labels = target.argmax(1).where(target.sum(1) > 0, self.ignored)
            total = total + self.region_weight * lovasz_softmax(outputs[0], labels, self.ignored)
        return total, fused

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        if not target.is_floating_point():
            loss = F.cross_entropy(logits, target, self.class_weights, ignore_index=self.ignored)
            # Where no pixel counts, its mean is 0 / 0.
            return loss.where((target != self.ignored).any(), 0)
        # PyTorch divides by the number of pixels here; by their weights, it is the same as for certain labels.
        weighted = target * self.class_weights.view(-1, 1, 1)
        total = weighted.sum()
        return -(weighted * logits.log_softmax(1)).sum() / total.where(total > 0, 1)


def lovasz_softmax(logits: Tensor, target: Tensor, ignored: int = -100) -> Tensor:
    """Surrogate of 1 - mean IoU over the classes in ``target``, over the pixels of the whole batch, 0 to 1.

    Berman, Triki, Blaschko, "The Lovász-Softmax loss", CVPR 2018 (arXiv 1705.08790), section 3: the errors of a class
    are weighed by how much each, sorted from the greatest, lowers the class's IoU.

    Args:
        logits: (N, C, H, W).
        target: label map (N, H, W), int64, values 0 to C - 1.
        ignored: label of pixels that do not count.
    """
    probabilities = logits.float().softmax(1).transpose(0, 1).flatten(1)
    labels = target.flatten()
    if (labels == ignored).any():
        counted = labels != ignored
        probabilities, labels = probabilities[:, counted], labels[counted]
    losses, sizes = [], []
    for value, probability in enumerate(probabilities):
        truth = (labels == value).float()
        errors, order = (truth - probability).abs().sort(descending=True)
        truth = truth[order]
        size = truth.sum()
        # IoU when the pixels up to each one are wrong: what is left of the class, over all that was called it.
        iou = (size - truth.cumsum(0)) / (size + (1 - truth).cumsum(0))
        losses.append(errors @ -iou.diff(prepend=iou.new_ones(1)))
        sizes.append(size)
    present = torch.stack(sizes) > 0  # a mask, not an index: the CPU need not wait for a GPU
    return (torch.stack(losses) * present).sum() / present.sum().clamp(min=1)
