"""Time of one photo, from JPEG to mask file, by everything that can run the network.

python benchmarks/inference.py
python benchmarks/inference.py --device cuda --arch u2netp --size 320
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measure import hardware, interleaved, table  # noqa: E402
from benchmarks.weights import random_weights  # noqa: E402
from cloth_segmentation.classes import PALETTE  # noqa: E402
from cloth_segmentation.pictures import mask_picture, save_picture  # noqa: E402
from export import export  # noqa: E402
from infer import Segmenter, load  # noqa: E402
from options import ExportOptions  # noqa: E402
from utils.devices import pick_device  # noqa: E402

PLAIN, REFERENCE = "PyTorch, plain", "ONNX Runtime, its defaults"


def plain_pytorch(path: Path, device: torch.device) -> Callable[[Path, Path], None]:
    """As the original system does it, except that it keeps gradients, which takes longer still and 6 GB."""
    network, info = load(path)
    network.eval().to(device)

    def segment(photo: Path, mask: Path) -> None:
        image = Image.open(photo).convert("RGB")
        square = image.resize(info.size, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            logits = network(((pixels - info.mean) / info.std)[None].to(device))[0]
            labels = torch.log_softmax(logits, 1).argmax(1)[0].to(torch.uint8).cpu().numpy()
        save_picture(mask_picture(np.asarray(Image.fromarray(labels).resize(image.size)), PALETTE), mask)

    return segment


def default_session(path: Path, size: int) -> Callable[[Path, Path], None]:
    """As rembg does it: a session as it comes, pixels by Lanczos, the mask resized."""
    import onnxruntime  # which machines with a GPU may lack

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def segment(photo: Path, mask: Path) -> None:
        image = Image.open(photo).convert("RGB")
        square = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
        labels = session.run(None, {"photos": square[None]})[0][0].argmax(0).astype(np.uint8)
        save_picture(mask_picture(np.asarray(Image.fromarray(labels).resize(image.size)), PALETTE), mask)

    return segment


def ours(segment: Segmenter) -> Callable[[Path, Path], None]:
    def run(photo: Path, mask: Path) -> None:
        save_picture(segment(photo).mask(), mask)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="u2net", choices=("u2net", "u2netp"), help="the network [u2net]")
    parser.add_argument("--size", type=int, default=768, help="side at which it sees photos, pixels [768]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; ONNX Runtime is timed on the CPU only [cpu]")
    parser.add_argument("--photo", default="1200x800", help="width and height of the photo, pixels [1200x800]")
    parser.add_argument("--rounds", type=int, default=7, help="times each way runs [7]")
    opt = parser.parse_args()
    device = pick_device(opt.device)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = folder / "photo.jpg"
        width, height = map(int, opt.photo.split("x"))
        with Image.open(ROOT / "input_images" / "grace_hopper.jpg") as image:
            image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(photo, quality=90)
        weights = random_weights(folder, opt.arch, opt.size)
        ways = {PLAIN: plain_pytorch(weights, device)}
        photos = str(ROOT / "input_images")
        if device.type == "cpu":
            exported = export(ExportOptions(checkpoint=str(weights), photos=photos))
            eight_bit = export(ExportOptions(checkpoint=str(weights), photos=photos, int8=True))
            ways[REFERENCE] = default_session(exported, opt.size)
            ways["ours, onnx"] = ours(Segmenter.load(weights, device="cpu", engine="onnx"))
            ways["ours, onnx, 8 bits"] = ours(Segmenter.load(eight_bit, device="cpu"))
        ways["ours, torch"] = ours(Segmenter.load(weights, device=opt.device, engine="torch"))
        ways["ours, torch, bf16"] = ours(Segmenter.load(weights, device=opt.device, engine="torch", amp="bf16"))
        mask = folder / "mask.png"
        calls = {name: lambda way=way: way(photo, mask) for name, way in ways.items()}
        medians = {name: median(seconds) for name, seconds in interleaved(calls, opt.rounds).items()}

    print(f"\n{hardware()}\n{opt.arch} at {opt.size} x {opt.size}, a JPEG of {width} x {height}, {opt.rounds} rounds\n")
    references = [name for name in (PLAIN, REFERENCE) if name in medians]
    rows = []
    for name, seconds in medians.items():
        ratios = [f"{seconds / medians[reference]:.2f}" for reference in references]
        rows.append([name, f"{seconds * 1000:.0f}", *ratios])
    print(table(["way", "ms, median", *(f"/ {name}" for name in references)], rows))


if __name__ == "__main__":
    main()
