"""Options of evaluate.py."""

from dataclasses import dataclass

from options.base_options import NetworkOptions, option


@dataclass(frozen=True)
class EvaluateOptions(NetworkOptions):
    """Measure IoU per class on labelled photos, at the photos' own resolution."""

    checkpoint: str = option("", "weights file [the best one in trained_checkpoint/]")
    image_folder: str = option("../input/train/", "folder of the photos")
    df_path: str = option("../input/train.csv", "their annotations, in the format of iMaterialist 2019")
    max_dataset_size: int | None = option(None, "use only the first N photos", least=1)
    batch_size: int = option(1, "photos that go through the network at once", least=1)
    json: str = option("", "also write the figures to this file")
