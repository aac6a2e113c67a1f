"""Options of labels.py."""

from dataclasses import dataclass

from cloth_segmentation.command.base_options import BaseOptions, OptionError, option
from options.labels_help import CLASSES, IGNORE_INDEX, LABELS, RESCALE

SHEET = "results/labels.jpg"


@dataclass(frozen=True)
class LabelsOptions(BaseOptions):
    """Look at labels before training: count what they hold, draw some of them, write them as CSV."""

    df_path: str = option("../input/train.csv", f"the labels: {LABELS}")
    image_folder: str = option("../input/train/", "folder of the photos")
    classes: str = option("clothes", CLASSES)
    ignore_index: int | None = option(None, IGNORE_INDEX, least=0, most=255)
    rescale: bool = option(False, RESCALE)
    look: int = option(0, "draw N photos, taken at random, beside their labels", least=0, most=200)
    seed: int = option(0, "seed of their choice", least=0)
    output: str = option(SHEET, "with --look: the picture to write, .jpg or .png")
    csv: str = option(
        "",
        "also write the labels to this file as the CSV of iMaterialist: categories, or the classes of label PNGs",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.output.endswith((".jpg", ".png")):
            raise OptionError(f"--output: expected a name that ends in .jpg or .png, found {self.output!r}")
        if self.output != SHEET and not self.look:
            raise OptionError(f"--output {self.output}: expected --look N with it, found none")
        if self.csv and not self.csv.endswith(".csv"):
            raise OptionError(f"--csv: expected a name that ends in .csv, found {self.csv!r}")
