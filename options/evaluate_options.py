"""Options of evaluate.py."""

from dataclasses import dataclass

from options.base_options import OptionError, option
from options.infer_options import SegmentOptions


@dataclass(frozen=True)
class EvaluateOptions(SegmentOptions):
    """Measure weights on labelled photos, at the photos' own resolution."""

    image_folder: str = option("../input/train/", "folder of the photos")
    df_path: str = option("../input/train.csv", "their annotations, in the format of iMaterialist 2019")
    max_dataset_size: int | None = option(None, "use only the first N photos", least=1)
    pairs: bool = option(False, "put each photo beside the next one: how pictures of two people come out")
    json: str = option("", "also write the figures to this file")
    pictures: str = option("results/evaluation", "folder for confusion_matrix.png and gallery.png")
    gallery: int = option(0, "draw the N worst and the N median photos: photo, truth, prediction", least=0)
    record: bool = option(False, "write the mean IoU and --size into the weights file")

    def __post_init__(self) -> None:
        super().__post_init__()
        special = {
            "size native": self.size == "native",
            "flip": self.flip,
            "min_area": self.min_area > 0,
            "pairs": self.pairs,
            "max_dataset_size": self.max_dataset_size is not None,
        }
        if self.record and any(special.values()):
            name = next(name for name, used in special.items() if used)
            raise OptionError(f"--record: expected without --{name}, which the figure of other weights lacks")
