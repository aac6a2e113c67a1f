"""Options of infer.py, and those that evaluate.py and app.py share with it."""

import re
from dataclasses import dataclass
from typing import Any

from cloth_segmentation.colors import Color
from cloth_segmentation.command.base_options import BaseOptions, OptionError, option
from cloth_segmentation.command.outputs import OUTPUTS, Drawing
from cloth_segmentation.segmenter import ENGINES, PRECISIONS, SIDES

FURTHEST = 10_000
"""Pixels by which clothes can grow or shrink."""

CLEAR = "transparent"
"""What names no colour."""


@dataclass(frozen=True)
class SegmentOptions(BaseOptions):
    """Options of every script that draws label maps."""

    device: str = option(
        "auto",
        "auto (CUDA, else MPS, else the CPU; without PyTorch the CPU), cpu, cuda, cuda:N, mps, coreml, directml or "
        "the name of an execution provider of ONNX Runtime",
    )
    checkpoint: str = option(
        "", "weights file: ONNX, or, with PyTorch, .pth or safetensors [the best ones that are found]"
    )
    engine: str = option(
        "auto",
        "what runs the network: torch (PyTorch, in a clone), onnx (ONNX Runtime, from a file of export.py), or auto: "
        "onnx on a CPU where there is such a file",
        choices=ENGINES,
    )
    amp: str = option(
        "off",
        "precision of PyTorch: off, bf16 or fp16 (CUDA only); faster, and edges may differ by a pixel",
        choices=PRECISIONS,
    )
    classes: str = option(
        "",
        "class set to tell apart: that of the weights, or a coarser one in which it lies, such as clothes of weights "
        "for garments [that of the weights]",
    )
    size: str = option(
        "auto",
        "size at which the network sees a photo: auto (what the weights file says), N or WxH (multiples of 32, unless "
        "PyTorch runs it), or native (the photo's own; PyTorch)",
    )
    flip: bool = option(False, "average with the mirrored photo: a little better, twice the time")
    consistent: bool = option(
        True,
        "give one class to a garment that is torn between upper and full body, if one of them has under 30 % of it",
    )
    min_area: float = option(
        0.0, "give regions of clothes under this share of the photo the class around them", least=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|cpu|mps|coreml|directml|cuda(:\d+)?|\w+ExecutionProvider", self.device):
            raise OptionError(
                "--device: expected auto, cpu, cuda, cuda:N, mps, coreml, directml or the name of an execution "
                f"provider of ONNX Runtime, found {self.device!r}"
            )
        size = re.fullmatch(r"auto|native|([1-9]\d*)(?:x([1-9]\d*))?", self.size)
        if not size or not all(SIDES[0] <= int(side) <= SIDES[1] for side in size.groups("32")):
            raise OptionError(
                f"--size: expected auto, native, N or WxH of at least {SIDES[0]} and at most {SIDES[1]} pixels, found "
                f"{self.size!r}"
            )

        named = self.checkpoint.lower().endswith(".onnx")
        sides = () if isinstance(self.network_size, str) else self.network_size
        for_pytorch = {
            "--engine torch": named and self.engine == "torch",
            "--device mps": self.device == "mps",
            f"--amp {self.amp}": self.amp != "off",
            f"--size {self.size}": self.size == "native" or any(side % 32 for side in sides),
        }
        if (named or self.engine == "onnx") and any(for_pytorch.values()):
            flag = next(flag for flag, given in for_pytorch.items() if given)
            found = f"--checkpoint {self.checkpoint}" if named else "--engine onnx"
            raise OptionError(
                f"{flag}: expected weights that PyTorch runs (.pth, --engine auto or torch), found {found}"
            )

    @property
    def network_size(self) -> tuple[int, int] | str:
        """(width, height) in pixels, "auto" or "native"."""
        if self.size in ("auto", "native"):
            return self.size
        width, _, height = self.size.partition("x")
        return int(width), int(height or width)

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of ``Segmenter.load``."""
        return {
            "checkpoint": self.checkpoint or None,
            "device": self.device,
            "engine": self.engine,
            "amp": self.amp,
            "classes": self.classes,
            "size": self.network_size,
            "flip": self.flip,
            "consistent": self.consistent,
            "min_area": self.min_area,
        }


@dataclass(frozen=True)
class BatchOptions(SegmentOptions):
    """Options of scripts that draw many label maps."""

    batch_size: int = option(1, "photos that go through the network at once", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size == "native" and self.batch_size > 1:
            raise OptionError(
                f"--size native: expected --batch_size 1, since photos differ in size, found {self.batch_size}"
            )


@dataclass(frozen=True)
class DrawOptions(BatchOptions):
    """Options of scripts that draw pictures of many photos."""

    only: str = option(
        "",
        "classes to draw, separated by commas, by their first words, such as upper,lower; others are background [all]",
    )
    grow: int = option(0, "pixels by which clothes reach further into the background", least=0, most=FURTHEST)
    shrink: int = option(0, "pixels by which each class reaches less far", least=0, most=FURTHEST)
    crop: bool = option(False, "crop cut-outs to what is not transparent")
    background: str = option(CLEAR, "what is behind cut-outs: transparent, or a colour as #rrggbb")

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, given in (("--crop", self.crop), (f"--background {self.background}", self.background != CLEAR)):
            if given and "cutout" not in self.outputs:
                raise OptionError(f"{flag}: expected cutout in --save, found {','.join(self.outputs)!r}")
        if self.grow and self.shrink:
            raise OptionError(f"--grow {self.grow}: expected it without --shrink, found both")
        try:
            read_color(self.background)
        except ValueError as error:
            raise OptionError(f"--background: {error}") from error

    @property
    def outputs(self) -> tuple[str, ...]:
        """What is drawn."""
        raise NotImplementedError

    @property
    def kept(self) -> tuple[str, ...]:
        """The classes of --only, as a tuple; empty for all."""
        return words(self.only) if self.only else ()

    @property
    def drawing(self) -> Drawing:
        """How to draw."""
        return Drawing(self.kept, self.grow, self.shrink, self.crop, read_color(self.background))


@dataclass(frozen=True)
class InferOptions(DrawOptions):
    """Find the clothes in every photo of a folder: masks, overlays, cut-outs, numbers."""

    input: str = option("input_images", "a folder of photos, sub-folders included, or one photo", word=True)
    output: str = option(
        "output_images", "folder for what is written; it keeps the names and sub-folders of the photos", word=True
    )
    workers: int = option(2, "threads that read photos, and as many that write masks, beside the network", least=1)
    save: str = option(
        "mask",
        "what to write, separated by commas: mask (NAME.png, all classes), overlay (NAME_overlay.jpg), cutout "
        "(NAME_cutout_upper.png, ...: a class, all else transparent), classes (NAME_mask_upper.png, ...: a class in "
        "black and white), json (NAME.json: shares, boxes, run-length encodings)",
    )
    skip_existing: bool = option(False, "leave photos alone whose outputs are there already: go on with a stopped run")
    report: str = option("", "CSV file for the names of photos that failed, and why [none]")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("input", "output"):
            if not getattr(self, name):
                raise OptionError(f"--{name}: expected a path, found an empty text")
        if not set(self.outputs) <= set(OUTPUTS):
            raise OptionError(f"--save: expected some of {','.join(OUTPUTS)}, with commas, found {self.save!r}")
        if self.skip_existing and "cutout" in self.outputs and "json" not in self.outputs:
            raise OptionError(
                "--skip_existing: expected json beside cutout in --save, since the JSON file tells of which classes a "
                f"photo has cut-outs, found {self.save!r}"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of --save, as a tuple."""
        return words(self.save)


def words(text: str) -> tuple[str, ...]:
    """Words between commas, each once."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",")))


def read_color(text: str) -> Color | None:
    """#rrggbb -> RGB, 0 to 255; transparent -> None. Raises ValueError for anything else."""
    if text == CLEAR:
        return None
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError(f"expected {CLEAR} or a colour as #rrggbb, such as #ffffff, found {text!r}")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
