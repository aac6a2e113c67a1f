"""The networks and the loss. Needs torch only."""

from networks.losses import DeepSupervisionLoss, grouped_logits
from networks.u2net import ARCHITECTURES, U2NET, U2NETP, Outputs

__all__ = ["ARCHITECTURES", "U2NET", "U2NETP", "DeepSupervisionLoss", "Outputs", "grouped_logits"]
