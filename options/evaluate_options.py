"""Options of evaluate.py."""

from dataclasses import dataclass

from cloth_segmentation.command.base_options import OptionError, option
from cloth_segmentation.command.infer_options import BatchOptions
from options.labels_help import IGNORE_INDEX, LABELS, RESCALE


@dataclass(frozen=True)
class EvaluateOptions(BatchOptions):
    """Measure weights on labelled photos, at the photos' own resolution."""

    image_folder: str = option("../input/train/", "folder of the photos")
    df_path: str = option("../input/train.csv", f"their labels: {LABELS}")
    ignore_index: int | None = option(None, IGNORE_INDEX, least=0, most=255)
    rescale: bool = option(False, RESCALE)
    max_dataset_size: int | None = option(None, "use only the first N photos", least=1)
    pairs: bool = option(False, "put each photo beside the next one: how pictures of two people come out")
    json: str = option("", "also write the figures to this file")
    pictures: str = option("", "draw confusion_matrix.png in this folder [with --gallery: results/evaluation]")
    gallery: int = option(0, "also draw gallery.png: the N worst and N median photos, truth, prediction", least=0)
    record: bool = option(False, "write the mean IoU and --size into the weights file")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.record and (not self.checkpoint or self.checkpoint.endswith((".onnx", ".safetensors"))):
            raise OptionError(
                "--record: expected --checkpoint with the .pth file to write it into, found "
                f"{self.checkpoint or 'none'}"
            )
        special = {
            "--size native": self.size == "native",
            "--flip": self.flip,
            "--no-consistent": not self.consistent,
            "--amp": self.amp != "off",
            "--min_area": self.min_area > 0,
            "--pairs": self.pairs,
            "--classes": bool(self.classes),
            "--max_dataset_size": self.max_dataset_size is not None,
        }
        if self.record and any(special.values()):
            name = next(name for name, used in special.items() if used)
            raise OptionError(f"--record: expected a plain measurement, which compares with others, found {name}")

    @property
    def picture_folder(self) -> str:
        """Where pictures go; "" for none."""
        return self.pictures or ("results/evaluation" if self.gallery else "")
