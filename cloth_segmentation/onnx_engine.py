"""Networks in ONNX files, run by ONNX Runtime on the CPU. PyTorch is not imported, which saves seconds and memory."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cloth_segmentation.errors import RunError
from cloth_segmentation.memory import return_free_memory, return_large_blocks
from cloth_segmentation.weights_info import ONNX_SIDES, WeightsInfo

FORMAT = "cloth-segmentation onnx 1"

INPUT, OUTPUT = "photos", "logits"
"""Names of the graph's input, (N, H, W, 3) uint8 in RGB, and output, (N, C, H, W) float32."""


class OnnxEngine:
    """A network in a file that export.py wrote.

    Attributes:
        name: what runs it, for people.
        info: what the weights say about themselves.
        source: SHA-256 of the weights file that it was made from.
        eight_bit: whether it calculates with 8-bit integers.
    """

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            RunError: it is missing, or none that export.py wrote.
        """
        if not path.is_file():
            raise RunError(
                f"{path}: expected a network in an ONNX file, found no file; "
                f"python export.py --checkpoint {path.with_suffix('.pth')} makes one"
            )
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4  # what fails is raised as well, and said in a sentence
        # A planned layout of all tensors of a size takes 1.1 GB more at 768 x 768 than tensors that come and go.
        settings.enable_mem_pattern = False
        settings.intra_op_num_threads = cpu_threads()
        return_large_blocks()
        try:
            self.session = onnxruntime.InferenceSession(
                path, settings, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            stated = self.session.get_modelmeta().custom_metadata_map
        except Exception as error:  # its errors have no common class
            raise RunError(
                f"{path}: expected an ONNX file, found one that ONNX Runtime cannot read; "
                "python export.py --checkpoint WEIGHTS.pth makes one"
            ) from error
        return_free_memory()  # glibc keeps as much as the weights take
        if stated.get("format") != FORMAT:
            raise RunError(
                f"{path}: expected {FORMAT!r}, found {stated.get('format') or 'a file of another program'}; "
                "python export.py --checkpoint WEIGHTS.pth makes one"
            )
        self.path = path
        try:
            self.source, self.eight_bit = stated["source_sha256"], stated["eight_bit"] == "yes"
            self.info = WeightsInfo.read(json.loads(stated["info"]))
            found = [[value.name, value.type] for value in (*self.session.get_inputs(), *self.session.get_outputs())]
            if found != [[INPUT, "tensor(uint8)"], [OUTPUT, "tensor(float)"]]:
                raise ValueError(f"found a network from and to {found}")
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path}: expected a file as export.py writes it, found one that was changed since ({error})"
            ) from error
        self.name = "ONNX Runtime on the CPU" + (", in 8 bits" if self.eight_bit else "")

    def __call__(self, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB photos (N, H, W, 3) -> logits (N, C, H, W).

        Raises:
            RunError: the sides are no multiples of 32, or the network fails.
            MemoryError: there is too little.
        """
        height, width = photos.shape[1:3]
        if height % ONNX_SIDES or width % ONNX_SIDES:
            raise RunError(
                f"{self.path}: expected photos whose sides are multiples of {ONNX_SIDES} pixels, found {width} x "
                f"{height}; give another --size, or take --engine torch"
            )
        try:
            logits: NDArray[np.float32] = self.session.run([OUTPUT], {INPUT: photos})[0]
        except Exception as error:
            if "allocate" in str(error):
                raise MemoryError(str(error)) from error
            raise RunError(
                f"{self.path}: expected a network as export.py writes it, found one that fails ({error})"
            ) from error
        return logits


def metadata(
    info: WeightsInfo, palette: tuple[tuple[int, int, int], ...], source: str, *, eight_bit: bool
) -> dict[str, str]:
    """What a file says about itself: texts under names, as ONNX keeps them.

    Args:
        info: of the weights.
        palette: RGB colour of each class, for programs that draw masks.
        source: SHA-256 of the weights file.
        eight_bit: whether weights and activations are 8-bit integers.
    """
    return {
        "format": FORMAT,
        "info": json.dumps(asdict(info)),
        "palette": json.dumps(palette),
        "source_sha256": source,
        "eight_bit": "yes" if eight_bit else "no",
    }


def cpu_threads() -> int:
    """Threads for the network on a CPU; 0: as many as the library that runs it finds right.

    Launchers set OMP_NUM_THREADS to 1 for several processes, however many cores there are.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if processes > 1:
        return max(1, (os.cpu_count() or 1) // processes)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else 0
