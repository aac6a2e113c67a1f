"""Join networks into one that gives the mean of their probabilities, an ONNX file that train.py --teacher takes.

python recipe/ensemble.py --weights a.pth b.pth --state teacher.state.pth --output ensemble.onnx

Networks that err in different ways are better together than the best of them (Hansen, Salamon, "Neural Network
Ensembles", IEEE PAMI 12, 1990).
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cloth_segmentation.classes import CLASSES, PALETTE  # noqa: E402
from cloth_segmentation.files import atomic_path, sha256  # noqa: E402
from cloth_segmentation.onnx_engine import metadata  # noqa: E402
from cloth_segmentation.weights_info import WeightsInfo  # noqa: E402
from infer import load  # noqa: E402
from networks import fold_batch_norm  # noqa: E402
from recipe.teacher import BACKBONE, read_teacher  # noqa: E402
from utils.onnx_export import to_onnx, write  # noqa: E402


class Ensemble(nn.Module):
    """The logarithm of the mean of the probabilities that several networks give."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """Photos (N, 3, H, W), normalised -> one map (N, C, H, W), in a tuple as U2NET gives its seven."""
        likely = torch.stack([network(photos)[0].softmax(1) for network in self.networks]).mean(0)
        return (likely.clamp(min=1e-6).log(),)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="trained weights, .pth")
    parser.add_argument("--state", type=Path, help="the state that recipe/teacher.py left, to take that teacher in too")
    parser.add_argument("--backbone", default=BACKBONE, help=f"of that teacher, its name in timm [{BACKBONE}]")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file")
    opt = parser.parse_args()
    networks = [load(path)[0] for path in opt.weights]
    for network in networks:
        fold_batch_norm(network)
    if opt.state:
        networks.append(read_teacher(opt.state, opt.backbone))
    info = WeightsInfo("ensemble", CLASSES, (256, 256), step=1)
    written = metadata(info, PALETTE, sha256(opt.weights[0]), eight_bit=False)
    model = to_onnx(Ensemble(networks).eval(), info.mean, info.std)
    with atomic_path(opt.output) as part:
        write(model, part, written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
