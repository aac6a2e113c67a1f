"""Options of setup_model_weights.py."""

from dataclasses import dataclass

from cloth_segmentation.command.base_options import BaseOptions, OptionError, option
from options.labels_help import CLASSES

SURGERY_WEIGHTS = {
    "u2net": "prev_checkpoints/cloth_segm_unet_surgery.pth",
    "u2netp": "prev_checkpoints/cloth_segm_u2netp_surgery.pth",
}
"""Where setup_model_weights.py writes the initial weights of each architecture, and train.py looks for them."""


@dataclass(frozen=True)
class SetupOptions(BaseOptions):
    """Turn the original U2-Net weights into initial weights for clothes, or fetch the released clothes weights."""

    arch: str = option("u2net", "the network: u2net or u2netp", choices=("u2net", "u2netp"))
    classes: str = option("clothes", f"of the new head: {CLASSES}", alias="labels")
    source: str = option(
        "", "weights of this --arch, original or trained, that are already here, instead of a download"
    )
    address: str = option("", "another address (URL) of the file, tried before the known ones")
    output: str = option("", "file to write [prev_checkpoints/, or trained_checkpoint/ with --released]")
    list_tensors: bool = option(False, "name every tensor that carried over and every one that did not")
    released: bool = option(False, "fetch the released clothes weights into trained_checkpoint/ instead")
    average: str = option("", "instead, write the mean of these weights files, separated by commas, to --output")
    seed: int = option(0, "seed of the tensors that start from random numbers", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.released and self.source:
            raise OptionError("--released and --source: expected one of the two, found both")
        if self.released and self.arch != "u2net":
            raise OptionError(f"--released: expected --arch u2net, the only one released, found {self.arch}")
        others = self.classes not in ("clothes", "classes")
        if others and (self.released or self.average):
            raise OptionError(f"--classes {self.classes}: expected without --released and --average, found with one")
        if others and not self.output:
            raise OptionError(f"--classes {self.classes}: expected --output, which is that of clothes, found none")
        if self.average and (self.released or self.source or self.address):
            raise OptionError("--average: expected without --released, --source and --address, found with one")
        if self.average and (len(self.averaged) < 2 or not self.output):
            raise OptionError(f"--average: expected two files or more and --output, found {self.average!r}")
        if self.source and self.address:
            raise OptionError("--source and --address: expected one of the two, found both")

    @property
    def averaged(self) -> tuple[str, ...]:
        """The files of --average."""
        return tuple(name.strip() for name in self.average.split(",") if name.strip())
