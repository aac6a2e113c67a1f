"""What a run can be told: one frozen dataclass for each script. Needs the standard library only."""

from cloth_segmentation.command.base_options import OptionError
from cloth_segmentation.command.flags import describe, parse, save
from cloth_segmentation.command.infer_options import InferOptions, SegmentOptions
from options.app_options import AppOptions
from options.evaluate_options import EvaluateOptions
from options.export_options import ExportOptions
from options.labels_options import LabelsOptions
from options.setup_options import SetupOptions
from options.train_options import TrainOptions

__all__ = [
    "AppOptions",
    "EvaluateOptions",
    "ExportOptions",
    "InferOptions",
    "LabelsOptions",
    "OptionError",
    "SegmentOptions",
    "SetupOptions",
    "TrainOptions",
    "describe",
    "parse",
    "save",
]
