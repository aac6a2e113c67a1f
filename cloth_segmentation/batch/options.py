"""Options of infer_batch.py."""

from dataclasses import dataclass

from cloth_segmentation.command.base_options import OptionError, option
from cloth_segmentation.command.infer_options import DrawOptions, words
from cloth_segmentation.command.outputs import OUTPUTS

PACKS = ("tree", "tar")
"""How pictures are written: each as a file, or many in an archive."""

PICTURES = tuple(name for name in OUTPUTS if name != "json")
"""What can be written beside the table."""


@dataclass(frozen=True)
class InferBatchOptions(DrawOptions):
    """Find the clothes in very many photos, on one machine or a Ray cluster: a Parquet table, masks, cut-outs."""

    device: str = option("auto", "auto alone: --gpus says whether there are GPUs")
    size: str = option(
        "auto",
        "size at which the network sees a photo: auto (what the weights file says), N or WxH (multiples of 32, unless "
        "PyTorch runs it)",
    )

    input: str = option(
        "input_images",
        "a folder of photos, an address (s3://, gs://, az:// and what fsspec knows), a Parquet file of photos or of "
        "their addresses (relative ones begin at its folder), tars of photos (WebDataset), or a folder of such files",
        word=True,
    )
    output: str = option("output_table", "folder or address for the Parquet files and pictures", word=True)
    column: str = option("", "column of a Parquet file that holds the photos or their addresses [the only one]")
    key_column: str = option("", "column of a Parquet file that holds a name for each photo [file and row, or address]")
    save: str = option(
        "",
        "pictures to write beside the table, separated by commas: mask, overlay, cutout, classes, as infer.py has them "
        "[none]",
    )
    pack: str = option(
        "tree", "how pictures are written: tree (a file each) or tar (a tar for each Parquet file)", choices=PACKS
    )
    resume: bool = option(False, "go on with an output that is there: leave out photos that it has")
    rows: int = option(1000, "photos in a Parquet file", least=1)

    address: str = option(
        "", "a Ray cluster, such as head:6379, or auto: that of this machine [a new one on this machine]"
    )
    networks: int = option(0, "most workers that run the network at once; the pool grows to it [what fits]", least=0)
    threads: int = option(1, "CPU threads of each worker that runs the network on a CPU", least=1)
    gpus: float = option(
        0.0, "GPUs for each worker that runs the network, such as 1 or 0.5; 0: it runs on CPUs", least=0, most=64
    )
    readers: int = option(0, "most workers that read photos at once [what fits]", least=0)
    writers: int = option(0, "most workers that draw and write at once [what fits]", least=0)
    unit: int = option(32, "photos that a worker takes at once", least=1)
    memory: float = option(
        1.0, "GB of photos and logits that may wait between the stages, on all machines together", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("input", "output"):
            if not getattr(self, name):
                raise OptionError(f"--{name}: expected a path or an address, found an empty text")
        if not set(self.outputs) <= set(PICTURES):
            also = "; the table has what JSON files say" if "json" in self.outputs else ""
            raise OptionError(f"--save: expected some of {','.join(PICTURES)}, with commas, found {self.save!r}{also}")
        if self.size == "native":
            raise OptionError("--size native: expected one size for all photos, which share batches, found native")
        if self.device != "auto":
            raise OptionError(
                f"--device {self.device}: expected --gpus, which gives each worker its share of a GPU, found a device"
            )
        if self.amp != "off" and not self.gpus:
            raise OptionError(f"--amp {self.amp}: expected --gpus above 0, found {self.gpus:g}")
        if 1 < self.gpus != int(self.gpus):
            raise OptionError(f"--gpus: expected a share of one GPU, or whole ones, found {self.gpus:g}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of --save, as a tuple."""
        return words(self.save) if self.save else ()
