"""Draw a coloured clothes mask for every photo of a folder, and cut garments out.

python infer.py
python infer.py --input holiday/ --output masks/ --device cuda --batch_size 8
python infer.py --input shop/ --output cutouts/ --save cutout,json --only upper --crop
python infer.py --input holiday/ --output masks/ --skip_existing --report failed.csv
torchrun --nproc_per_node=4 infer.py --input holiday/

It is the command of the library, cloth_segmentation/command/, with PyTorch as a second engine and several processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cloth_segmentation
from cloth_segmentation import DeviceError, Error, RunError, Segmentation
from cloth_segmentation.command.main import main as segment_folder
from cloth_segmentation.command.processes import OneProcess, Processes
from cloth_segmentation.command.script import run_script
from cloth_segmentation.files import sha256
from cloth_segmentation.launcher import launch
from cloth_segmentation.resources import cpu_threads
from cloth_segmentation.segmenter import Engine, log, onnx_path, open_onnx
from cloth_segmentation.weights_info import ONNX_SIDES, WeightsInfo
from utils.devices import check_precision, is_forked, knows, on_cpu, pick_device

# PyTorch takes seconds and half a gigabyte to import, and ONNX Runtime does without it. So what needs PyTorch is
# imported where it is needed.
if TYPE_CHECKING:
    from torch import nn

__all__ = ["Segmentation", "Segmenter"]


class Segmenter(cloth_segmentation.Segmenter):
    """Photos in, segmentations out, also from weights that PyTorch runs (.pth), on any device, in bf16 and fp16."""

    has_pytorch = True

    @classmethod
    def open(cls, path: Path, device: str, engine: str, amp: str) -> tuple[Path, Engine]:
        """The file to use for a weights file, and what runs it: the ONNX file beside it if that is asked for or best.

        Arguments and errors are those of ``load``.
        """
        exported = onnx_path(path)
        if engine == "torch" and path == exported:
            raise RunError(
                f"{path}: expected weights for PyTorch (.pth), found an ONNX file; it runs on the CPU and on other "
                "devices that ONNX Runtime has, in its own precision, on photos whose sides are multiples of "
                f"{ONNX_SIDES} pixels"
            )
        if path == exported or engine == "onnx" or (engine == "auto" and not knows(device)):
            return exported, open_onnx(exported, path, device)
        if engine == "auto" and exported.is_file() and on_cpu(device):
            try:
                return exported, open_onnx(exported, path, device)
            except DeviceError:
                raise
            except RunError as error:
                log.warning("Left out: %s", error)
        return path, open_torch(path, device, amp)


def open_torch(path: Path, device: str, amp: str) -> Engine:
    """Weights run by PyTorch. Raises RunError."""
    import torch

    from networks import fold_batch_norm
    from utils.torch_engine import TorchEngine, see_to_fork

    see_to_fork()
    where = pick_device(device, launch().local_rank)
    check_precision(amp, where.type)
    if where.type == "cpu" and cpu_threads() and not is_forked():
        torch.set_num_threads(cpu_threads())
    digest = sha256(path) if path.is_file() else None  # before it is read: training may put others in its place
    network, info = load(path)
    fold_batch_norm(network)
    return TorchEngine(network, info, where, amp, digest)


def load(path: Path) -> tuple["nn.Module", WeightsInfo]:
    """Read trained weights. Raises RunError."""
    from networks import ARCHITECTURES
    from utils.weights_files import load_network

    network, info = load_network(path, ARCHITECTURES)
    if info.step == 0:
        raise RunError(f"{path}: expected trained weights, found initial ones, whose head is random; train them first")
    return network, info


def join(device: str) -> Processes:
    """The processes that share the folder: this one, or all that a launcher started. Raises RunError."""
    if launch().world_size == 1:
        return OneProcess()
    from utils import distributed

    return distributed.Processes.start(device, train=False)


def main(argv: Sequence[str] | None = None) -> int:
    return segment_folder(argv, Segmenter, join)


if __name__ == "__main__":
    run_script(main, Error)
