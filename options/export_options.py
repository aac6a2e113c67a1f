"""Options of export.py."""

from dataclasses import dataclass

from cloth_segmentation.command.base_options import BaseOptions, OptionError, option


@dataclass(frozen=True)
class ExportOptions(BaseOptions):
    """Write weights as an ONNX file, which is faster than PyTorch on a CPU, and three times as fast again in 8 bits."""

    checkpoint: str = option("", "weights file (.pth) [the best one in trained_checkpoint/]")
    output: str = option("", "file to write [beside the weights file: NAME.onnx, or NAME_int8.onnx with --int8]")
    int8: bool = option(False, "8-bit weights and activations: faster still, and masks differ a little")
    photos: str = option("input_images", "folder of photos: the file is checked on them, and 8 bits are fitted to them")
    max_photos: int = option(64, "how many of them to use at most", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint.endswith(".onnx"):
            raise OptionError(f"--checkpoint: expected a .pth file, found {self.checkpoint!r}")
        if self.output and not self.output.endswith(".onnx"):
            raise OptionError(f"--output: expected a name that ends in .onnx, found {self.output!r}")
