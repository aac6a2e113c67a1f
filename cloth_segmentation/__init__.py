"""Photos of people in, label maps of their clothes out, and all that is made of them.

from cloth_segmentation import Segmenter

segment = Segmenter.load()
segment("photo.jpg").cutout("upper").save("top.png")
"""

import os

# From 1.29 on, ONNX Runtime tells its makers which networks run, unless this is said before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from cloth_segmentation.classes import CLASSES, PALETTE, ClassSet
from cloth_segmentation.errors import DataError, DeviceError, Error, RunError
from cloth_segmentation.segmentation import Segmentation
from cloth_segmentation.segmenter import PhotoLike, Segmenter

__version__ = "1.0.0"

__all__ = [
    "CLASSES",
    "PALETTE",
    "ClassSet",
    "DataError",
    "DeviceError",
    "Error",
    "PhotoLike",
    "RunError",
    "Segmentation",
    "Segmenter",
    "__version__",
]
