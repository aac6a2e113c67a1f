"""How time and memory of infer.py grow with the size of the photos, their number and the batch.

python benchmarks/growth.py
python benchmarks/growth.py --arch u2netp --size 256 --numbers 10 2000
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measure import hardware, run_measured, table  # noqa: E402
from benchmarks.weights import random_weights  # noqa: E402
from export import export  # noqa: E402
from options import ExportOptions  # noqa: E402


def make_photos(folder: Path, megapixels: float, number: int) -> Path:
    """A folder of JPEGs, 3:2, all of them links to a few files."""
    photos = folder / f"{megapixels:g}_{number}"
    photos.mkdir()
    width = round((megapixels * 1e6 * 1.5) ** 0.5)
    with Image.open(ROOT / "input_images" / "grace_hopper.jpg") as image:
        large = image.convert("RGB").resize((width, round(width / 1.5)), Image.Resampling.BICUBIC)
        large.save(photos / "0.jpg", quality=90)
    for count in range(1, number):
        os.link(photos / "0.jpg", photos / f"{count}.jpg")
    return photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="u2net", choices=("u2net", "u2netp"), help="the network [u2net]")
    parser.add_argument("--size", type=int, default=768, help="side at which it sees photos, pixels [768]")
    parser.add_argument("--engines", nargs="+", default=["onnx", "torch"], help="engines [onnx torch]")
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 12, 100], help="photo sizes [1 12 100]")
    parser.add_argument("--numbers", nargs="+", type=int, default=[1, 10, 40], help="photos in the folder [1 10 40]")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2], help="batch sizes [1 2]")
    opt = parser.parse_args()
    first = opt.megapixels[0], opt.numbers[0], opt.batches[0]
    cases = [(megapixels, *first[1:]) for megapixels in opt.megapixels]
    cases += [(first[0], number, first[2]) for number in opt.numbers]
    cases += [(first[0], opt.numbers[-1], batch) for batch in opt.batches]

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = random_weights(folder, opt.arch, opt.size)
        export(ExportOptions(checkpoint=str(weights), photos=str(ROOT / "input_images")))
        for megapixels, number, batch in dict.fromkeys(cases):
            photos = folder / f"{megapixels:g}_{number}"
            if not photos.exists():
                make_photos(folder, megapixels, number)
            figures = []
            for engine in opt.engines:
                flags = [f"--checkpoint={weights}", f"--engine={engine}", f"--batch_size={batch}", "--device=cpu"]
                flags += [f"--input={photos}", f"--output={folder / 'masks'}"]
                seconds, peak = run_measured(ROOT / "infer.py", *flags)
                figures += [f"{seconds:.1f}", f"{peak:.0f}"]
            rows.append([f"{megapixels:g}", str(number), str(batch), *figures])
            print(*rows[-1], file=sys.stderr)
    print(f"\n{hardware()}\ninfer.py, {opt.arch} at {opt.size} x {opt.size}, whole processes\n")
    columns = [f"{engine}, {what}" for engine in opt.engines for what in ("seconds", "peak MB")]
    print(table(["megapixels", "photos", "batch", *columns], rows))


if __name__ == "__main__":
    main()
