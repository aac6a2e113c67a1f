"""Networks run by PyTorch, on any device."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloth_segmentation.errors import DeviceError
from cloth_segmentation.weights_info import WeightsInfo
from utils.devices import is_forked

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def network_input(photos: Tensor, mean: float, std: float) -> Tensor:
    """RGB photos (N, H, W, 3) uint8 -> (N, 3, H, W) float32, normalised by mean and std of full intensity."""
    return (photos.permute(0, 3, 1, 2).float() / 255 - mean) / std


def see_to_fork() -> None:
    """Calculate in one thread if this process was forked from one that had imported PyTorch.

    The threads of PyTorch do not come along, and what is handed to them would be waited for without end.
    """
    if is_forked():
        torch.set_num_threads(1)


class TorchEngine:
    """A network and the device it runs on.

    Args:
        network: (N, 3, H, W) -> logit maps, the first of which counts; taken over.
        info: what its weights say about themselves.
        device: where it runs.
        amp: off, bf16 or fp16.
        sha256: of the weights file; None: the network came from none.
    """

    def __init__(
        self, network: nn.Module, info: WeightsInfo, device: torch.device, amp: str = "off", sha256: str | None = None
    ) -> None:
        # Convolutions are faster with the channels side by side, on CPUs and on GPUs.
        self.network = network.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.info, self.device, self.amp, self.sha256 = info, device, amp, sha256
        self.name = f"PyTorch on {device}" + (f" in {amp}" if amp != "off" else "")

    @torch.inference_mode()
    def __call__(self, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB photos (N, H, W, 3) -> logits (N, C, H, W). Raises DeviceError for a GPU in a forked process."""
        see_to_fork()
        if self.device.type == "cuda" and is_forked():
            raise DeviceError(
                "expected a process of its own for a GPU, found one that was forked from one that uses PyTorch; start "
                'processes by multiprocessing.get_context("spawn")'
            )
        batch = network_input(torch.from_numpy(photos).to(self.device), self.info.mean, self.info.std)
        with torch.autocast(self.device.type, DTYPES.get(self.amp), enabled=self.amp != "off"):
            logits = self.network(batch)[0]
        result: NDArray[np.float32] = logits.float().cpu().numpy()
        return result
