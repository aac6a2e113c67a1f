"""Photos a second of a training step: a plain float32 loop, and the step of train.py with all that makes it fast.

python benchmarks/training_step.py
python benchmarks/training_step.py --arch u2netp --size 320 --batch 8 --compile
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from benchmarks.measure import hardware, interleaved, table  # noqa: E402
from benchmarks.photos import make_photos  # noqa: E402
from cloth_segmentation.classes import CLASSES  # noqa: E402
from data.transforms import normalise  # noqa: E402
from networks import ARCHITECTURES, DeepSupervisionLoss  # noqa: E402
from options import TrainOptions  # noqa: E402
from utils.devices import pick_device  # noqa: E402
from utils.distributed import Processes  # noqa: E402

Batch = tuple[Tensor, Tensor]

WARMUP = 3
"""Steps before those that are measured: kernels are chosen in them, or compiled."""


def plain(arch: str, device: torch.device, batch: Batch) -> Callable[[], None]:
    """The original system's step, on float32 photos that workers have normalised."""
    network = ARCHITECTURES[arch](3, len(CLASSES)).to(device).train()
    loss = DeepSupervisionLoss().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    photos, labels = normalise(batch[0], 0.5, 0.5), batch[1].long()

    def step() -> None:
        torch.backends.cudnn.benchmark = False
        optimizer.zero_grad()
        total, _ = loss(network(photos.to(device)), labels.to(device))
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()

    return step


def ours(arch: str, device: torch.device, batch: Batch, compiled: bool) -> Callable[[], None]:
    """train.py's step, on one batch again and again: loading photos is measured by data_loading.py."""
    size = batch[0].shape[-1]
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        folder = Path(name)
        make_photos(folder, [(64, 64)], 1)
        opt = TrainOptions(
            image_folder=str(folder / "train"),
            df_path=str(folder / "train.csv"),
            save_dir=name,
            logs_dir=name,
            device=str(device),
            arch=arch,
            unet_checkpoint="",
            fine_width=size,
            fine_height=size,
            batchSize=len(batch[0]),
            nThreads=0,
            amp="bf16",
            channels_last=True,
            compile=compiled,
            print_freq=10**9,
            image_log_freq=10**9,
        )
        run = train.Training(opt, Processes(device))
    on_gpu = device.type == "cuda"
    run.loaded = [(batch[0].pin_memory(), batch[1].pin_memory()) if on_gpu else batch]

    def step() -> None:
        torch.backends.cudnn.benchmark = on_gpu
        run.run_step()

    return step


def waiting(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The step, and the wait until the device has done it."""

    def whole() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return whole


def prepared(make: Callable[[], Callable[[], None]], device: torch.device) -> tuple[Callable[[], None], int]:
    """(a step that has warmed up, its peak memory on a GPU in bytes, with weights and optimizer, else 0)."""
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    step = waiting(make(), device)
    for _ in range(WARMUP):
        step()
    if device.type != "cuda":
        return step, 0
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return step, torch.cuda.max_memory_allocated(device) - before


def profile(step: Callable[[], None], device: torch.device, path: Path, steps: int = 3) -> None:
    """Write how long each operator takes in a few steps."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    path.write_text(profiler.key_averages().table(sort_by=key, row_limit=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="u2net", help="the network [u2net]")
    parser.add_argument("--size", type=int, default=768, help="side of the squares, pixels [768]")
    parser.add_argument("--batch", type=int, default=2, help="photos in a batch [2]")
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps [auto]"
    )
    parser.add_argument("--rounds", type=int, default=20, help="timed steps [20]")
    parser.add_argument("--compile", action="store_true", help="measure train.py --compile too, which takes minutes")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a table of train.py's operators there")
    given = parser.parse_args()
    device = pick_device(given.device)
    torch.manual_seed(0)
    photos = torch.randint(0, 256, (given.batch, 3, given.size, given.size), dtype=torch.uint8)
    batch = photos, torch.randint(0, len(CLASSES), (given.batch, given.size, given.size), dtype=torch.uint8)

    makers: dict[str, Callable[[], Callable[[], None]]] = {
        "plain float32": lambda: plain(given.arch, device, batch),
        "train.py": lambda: ours(given.arch, device, batch, compiled=False),
    }
    if given.compile:
        makers["train.py --compile"] = lambda: ours(given.arch, device, batch, compiled=True)
    steps, peaks = {}, {}
    for name, make in makers.items():
        steps[name], peaks[name] = prepared(make, device)
    times = {name: median(values) for name, values in interleaved(steps, given.rounds).items()}
    if given.profile:
        profile(steps[list(steps)[-1]], device, given.profile)

    first = next(iter(times.values()))
    header, rows = ["step", "ms", "photos/s", "times plain"], []
    for name, seconds in times.items():
        rows.append([name, f"{1000 * seconds:.1f}", f"{given.batch / seconds:.2f}", f"{first / seconds:.2f}"])
    if device.type == "cuda":
        header.append("peak memory, GB")
        rows = [[*row, f"{peaks[row[0]] / 1e9:.2f}"] for row in rows]
    print(hardware())
    print(
        f"{given.arch} at {given.size} x {given.size}, batches of {given.batch}, on {device.type}; train.py with "
        f"--amp bf16 --channels_last; median of {given.rounds}.\n"
    )
    print(table(header, rows))


if __name__ == "__main__":
    main()
