"""The networks and the loss. Needs torch only."""

from networks.losses import DeepSupervisionLoss
from networks.u2net import ARCHITECTURES, U2NET, U2NETP, Outputs, fold_batch_norm

__all__ = ["ARCHITECTURES", "U2NET", "U2NETP", "DeepSupervisionLoss", "Outputs", "fold_batch_norm"]
