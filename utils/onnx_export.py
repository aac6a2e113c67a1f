"""From a network of PyTorch to an ONNX graph, in float32 or in 8-bit integers."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from cloth_segmentation.onnx_engine import INPUT, OUTPUT
from cloth_segmentation.weights_info import ONNX_SIDES
from utils.torch_engine import network_input


class _WithNormalisation(nn.Module):
    """The network as the file holds it: pixels in, the fused logits out."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def forward(self, photos: Tensor) -> Tensor:
        logits: Tensor = self.network(network_input(photos, self.mean, self.std))[0]
        return logits


def to_onnx(network: nn.Module, mean: float, std: float) -> onnx.ModelProto:
    """Graph of a network that takes photos (N, H, W, 3) uint8 of any number and any sides that are multiples of 32.

    Args:
        network: (N, 3, H, W) float32 -> logit maps, the first of which counts; in evaluation mode.
        mean: of the normalisation, which becomes a part of the graph.
        std: of the normalisation.
    """
    number, rows, columns = (torch.export.Dim(name) for name in ("number", "rows", "columns"))
    program = torch.onnx.export(
        _WithNormalisation(network, mean, std).eval(),
        (torch.zeros(2, 4 * ONNX_SIDES, 6 * ONNX_SIDES, 3, dtype=torch.uint8),),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: number, 1: ONNX_SIDES * rows, 2: ONNX_SIDES * columns},),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model_proto
    for node in model.graph.node:
        # Traces of the exporter: source paths of this computer, and a tenth of a small file.
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    return model


class _Squares(CalibrationDataReader):  # type: ignore[misc]  # the library is untyped
    def __init__(self, squares: Sequence[NDArray[np.uint8]]) -> None:
        self.squares: Iterator[NDArray[np.uint8]] = iter(squares)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        square = next(self.squares, None)
        return None if square is None else {INPUT: square[None]}


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The library advises, again and again, to simplify the graph first, which folding and the exporter have done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def to_eight_bits(model: onnx.ModelProto, squares: Sequence[NDArray[np.uint8]]) -> onnx.ModelProto:
    """The graph with 8-bit weights, one scale a channel, and 8-bit activations, whose ranges are those on the photos.

    Args:
        model: as ``to_onnx`` made it.
        squares: photos (H, W, 3) as the network sees them; dozens of the kind that it is meant for.
    """
    with tempfile.TemporaryDirectory() as folder, _without_warnings():
        output = Path(folder) / "eight_bits.onnx"
        quantize_static(
            model,
            output,
            _Squares(squares),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(output)


def write(model: onnx.ModelProto, path: Path, metadata: dict[str, str]) -> None:
    """Write a graph and what it says about itself."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
