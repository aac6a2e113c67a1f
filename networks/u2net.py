"""U2-Net: a U of residual U-blocks, and its small version.

Source: Qin, Zhang, Huang, Dehghan, Zaiane, Jagersand, "U2-Net: Going Deeper with Nested U-Structure for
Salient Object Detection", Pattern Recognition 106, 2020 (arXiv 2005.09007). Sections 3.1 (the block),
3.2 (the network) and 3.3 (deep supervision). Module names are those of the published weights, so that
their state dicts load without translation.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Outputs = tuple[Tensor, ...]
"""Seven logit maps (d0, d1, ..., d6), each (N, out_ch, H, W); d0 is the fused prediction."""


class Stage(NamedTuple):
    """One residual U-block of the network. Input widths follow from the stages before."""

    name: str
    depth: int  # L of RSU-L: number of encoder layers
    mid: int  # channels inside the block
    out: int  # channels that leave it
    dilated: bool = False  # RSU-LF: dilation instead of pooling


# Table 1 of the paper: the encoder from fine to coarse, then the decoder from coarse to fine.
U2NET_ENCODER = (
    Stage("stage1", 7, 32, 64),
    Stage("stage2", 6, 32, 128),
    Stage("stage3", 5, 64, 256),
    Stage("stage4", 4, 128, 512),
    Stage("stage5", 4, 256, 512, dilated=True),
    Stage("stage6", 4, 256, 512, dilated=True),
)
U2NET_DECODER = (
    Stage("stage5d", 4, 256, 512, dilated=True),
    Stage("stage4d", 4, 128, 256),
    Stage("stage3d", 5, 64, 128),
    Stage("stage2d", 6, 32, 64),
    Stage("stage1d", 7, 16, 64),
)
U2NETP_ENCODER = tuple(stage._replace(mid=16, out=64) for stage in U2NET_ENCODER)
U2NETP_DECODER = tuple(stage._replace(mid=16, out=64) for stage in U2NET_DECODER)


def resize_like(x: Tensor, target: Tensor) -> Tensor:
    """Bring x (N, C, h, w) to the height and width of target, bilinearly."""
    if x.shape[2:] == target.shape[2:]:
        return x
    return F.interpolate(x, size=target.shape[2:], mode="bilinear", align_corners=False)


def max_pool(x: Tensor) -> Tensor:
    """Halve height and width; an odd row or column at the end keeps a pixel of its own."""
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


class ConvBNReLU(nn.Module):
    """3 x 3 convolution, batch normalisation, ReLU; height and width stay."""

    def __init__(self, in_ch: int, out_ch: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(in_ch, out_ch, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(out_ch)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn_s1(self.conv_s1(x)), inplace=True)


class RSU(nn.ModuleDict):
    """Residual U-block (paper, section 3.1): a small U-Net whose output is added to its input layer.

    RSU-L pools between its L - 1 upper encoder layers; its lowest layer is dilated by 2 instead of pooled.
    RSU-LF (``dilated``) never pools: its layers are dilated by 1, 2, 4, 8, and the decoder mirrors them.
    (N, in_ch, H, W) -> (N, out_ch, H, W).
    """

    def __init__(self, depth: int, in_ch: int, mid: int, out_ch: int, *, dilated: bool = False) -> None:
        super().__init__()
        self.depth, self.dilated = depth, dilated
        dilations = [2**level for level in range(depth)] if dilated else [1] * (depth - 1) + [2]

        self["rebnconvin"] = ConvBNReLU(in_ch, out_ch)
        for level, dilation in enumerate(dilations, start=1):
            self[f"rebnconv{level}"] = ConvBNReLU(out_ch if level == 1 else mid, mid, dilation)
        for level in range(depth - 1, 0, -1):  # two inputs: the layer below and the skip connection
            self[f"rebnconv{level}d"] = ConvBNReLU(2 * mid, out_ch if level == 1 else mid, dilations[level - 1])

    def forward(self, x: Tensor) -> Tensor:
        residual = x = self["rebnconvin"](x)
        skips = []
        for level in range(1, self.depth):
            if level > 1 and not self.dilated:
                x = max_pool(x)
            x = self[f"rebnconv{level}"](x)
            skips.append(x)
        x = self[f"rebnconv{self.depth}"](x)
        for level in range(self.depth - 1, 0, -1):
            skip = skips.pop()
            x = self[f"rebnconv{level}d"](torch.cat((resize_like(x, skip), skip), dim=1))
        return x + residual  # type: ignore[no-any-return]  # modules of a ModuleDict are untyped


class U2NET(nn.Module):
    """The full network: 44,051,452 parameters with ``out_ch=4``.

    Args:
        in_ch: channels of the photo.
        out_ch: classes, background included.
    """

    encoder: tuple[Stage, ...] = U2NET_ENCODER
    decoder: tuple[Stage, ...] = U2NET_DECODER

    def __init__(self, in_ch: int = 3, out_ch: int = 4) -> None:
        super().__init__()
        self.out_ch = out_ch
        self.frozen = False
        skips = []
        width = in_ch
        for stage in self.encoder:
            self.add_stage(stage, width)
            width = stage.out
            skips.append(width)
        sides = [skips.pop()]  # widths of the maps that get a side output, from coarse to fine
        for stage in self.decoder:
            self.add_stage(stage, width + skips.pop())
            width = stage.out
            sides.append(width)
        for level, side in enumerate(reversed(sides), start=1):
            self.add_module(f"side{level}", nn.Conv2d(side, out_ch, 3, padding=1))
        self.outconv = nn.Conv2d(len(sides) * out_ch, out_ch, 1)

    def freeze_encoder(self) -> None:
        """Keep the encoder as it is while the rest is trained: its weights, and its statistics for normalisation."""
        self.frozen = True
        for stage in self.encoder:
            self.get_submodule(stage.name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "U2NET":
        super().train(mode)
        for stage in self.encoder if self.frozen else ():
            self.get_submodule(stage.name).eval()
        return self

    def add_stage(self, stage: Stage, in_ch: int) -> None:
        self.add_module(stage.name, RSU(stage.depth, in_ch, stage.mid, stage.out, dilated=stage.dilated))

    def forward(self, x: Tensor) -> Outputs:
        """Photos (N, in_ch, H, W) in [-1, 1] -> seven logit maps (d0, d1, ..., d6), each (N, out_ch, H, W).

        d1 to d6 are the side outputs from fine to coarse, brought to the photo's size; d0 fuses them.
        """
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = self.get_submodule(stage.name)(x if not skips else max_pool(x))
            skips.append(x)
        features = [skips.pop()]
        for stage in self.decoder:
            skip = skips.pop()
            x = self.get_submodule(stage.name)(torch.cat((resize_like(x, skip), skip), dim=1))
            features.append(x)

        sides: list[Tensor] = []
        for level, feature in enumerate(reversed(features), start=1):
            side = self.get_submodule(f"side{level}")(feature)
            sides.append(resize_like(side, sides[0]) if sides else side)
        return (self.outconv(torch.cat(sides, dim=1)), *sides)


class U2NETP(U2NET):
    """The small network of the same shape, 64 channels between all stages: 1,141,660 parameters with ``out_ch=4``."""

    encoder = U2NETP_ENCODER
    decoder = U2NETP_DECODER


ARCHITECTURES: dict[str, type[U2NET]] = {"u2net": U2NET, "u2netp": U2NETP}


def fold_batch_norm(network: nn.Module) -> None:
    """Work each batch normalisation into the convolution before it, in place: the same function in fewer passes.

    For inference only; the state dict is another one afterwards.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, ConvBNReLU):
            module.conv_s1 = fuse_conv_bn_eval(module.conv_s1, module.bn_s1)
            module.bn_s1 = nn.Identity()  # type: ignore[assignment]
