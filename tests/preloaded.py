"""What a server of forks imports once, so that each of its processes starts at once."""

import gdown
import scipy.ndimage
import tensorboardX
import torch

import cloth_segmentation.onnx_engine
import evaluate
import infer
import setup_model_weights
import train
import utils.torch_engine

__all__ = [
    "cloth_segmentation",
    "evaluate",
    "gdown",
    "infer",
    "scipy",
    "setup_model_weights",
    "tensorboardX",
    "torch",
    "train",
    "utils",
]
