"""What 8 bits gain in time and cost in IoU.

python benchmarks/eight_bits.py --image_folder $CCP/train --df_path val.csv

The 8 bits are fitted to photos of the folder that are not measured on.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measure import hardware, interleaved, table  # noqa: E402
from benchmarks.weights import random_weights  # noqa: E402
from cloth_segmentation.classes import CLASSES  # noqa: E402
from cloth_segmentation.onnx_engine import OnnxEngine  # noqa: E402
from data.checks import read_checked  # noqa: E402
from data.dataset import LabelledPhotos  # noqa: E402
from evaluate import evaluate  # noqa: E402
from export import export  # noqa: E402
from infer import Segmenter  # noqa: E402
from options import ExportOptions  # noqa: E402


def time_ratio(folder: Path, size: int, rounds: int) -> str:
    """U2NET in 8 bits against ONNX Runtime's float32, the network alone."""
    weights = random_weights(folder, "u2net", size)
    photos = str(ROOT / "input_images")
    exported = export(ExportOptions(checkpoint=str(weights), photos=photos))
    eight_bits = OnnxEngine(export(ExportOptions(checkpoint=str(weights), photos=photos, int8=True)))
    import onnxruntime  # after utils, which keeps it from telling of its use

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    photo = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    ways = {
        "ONNX Runtime, float32": lambda: session.run(None, {"photos": photo}),
        "ours, 8 bits": lambda: eight_bits(photo),
    }
    medians = {name: median(seconds) for name, seconds in interleaved(ways, rounds).items()}
    reference = next(iter(medians.values()))
    rows = [[name, f"{seconds * 1000:.0f}", f"{seconds / reference:.2f}"] for name, seconds in medians.items()]
    return table([f"U2NET at {size} x {size}", "ms, median", "ratio"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_folder", required=True, help="folder of labelled photos")
    parser.add_argument("--df_path", required=True, help="annotations of those to measure on, as for evaluate.py")
    parser.add_argument("--checkpoint", default=str(ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"))
    parser.add_argument("--photos", type=int, default=64, help="photos that the 8 bits are fitted to [64]")
    parser.add_argument("--size", type=int, default=768, help="side at which U2NET is timed, pixels [768]")
    parser.add_argument("--rounds", type=int, default=7, help="times each way runs [7]")
    opt = parser.parse_args()

    checked = read_checked(("--df_path", opt.df_path), ("--image_folder", opt.image_folder))
    if checked.faults:
        parser.error(checked.report)
    measured = LabelledPhotos(checked.photos, Path(opt.image_folder))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fitted = folder / "photos"
        fitted.mkdir()
        for path in Path(opt.image_folder).iterdir():
            if path.name not in measured.names:
                (fitted / path.name).symlink_to(path.resolve())
        common = {"checkpoint": opt.checkpoint, "photos": str(fitted), "max_photos": opt.photos}
        rows = []
        for title, int8 in (("float32", False), ("8 bits", True)):
            path = export(ExportOptions(output=str(folder / f"{title[0]}.onnx"), int8=int8, **common))
            figures = evaluate(Segmenter.load(path, device="cpu"), measured)
            iou = [f"{figures['iou'][name]:.4f}" for name in CLASSES[1:]]
            rows.append([title, *iou, f"{figures['mean_iou_clothes']:.4f}", f"{path.stat().st_size / 1e6:.1f}"])
        times = time_ratio(folder, opt.size, opt.rounds)
    print(f"\n{hardware()}\n{opt.checkpoint} on {len(measured)} photos\n")
    print(table(["IoU", *CLASSES[1:], "mean, clothes", "MB"], rows))
    print(f"\n{times}")


if __name__ == "__main__":
    main()
