"""From the command to the first mask of the bundled weights: seconds and memory of a whole process.

python benchmarks/startup.py
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measure import hardware, run_measured, table  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="times each way runs [7]")
    opt = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        infer = [ROOT / "infer.py", f"--input={ROOT / 'input_images' / 'astronaut.png'}", f"--output={folder}"]
        infer += [f"--checkpoint={ROOT / 'trained_checkpoint' / 'cloth_segm_u2netp.pth'}", "--device=cpu"]
        ways: dict[str, list[object]] = {
            "Python alone": ["-c", ""],
            "import torch": ["-c", "import torch"],
            "infer.py, onnx": [*infer, "--engine=onnx"],
            "infer.py, torch": [*infer, "--engine=torch"],
        }
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(-1, opt.rounds):  # the first round fills the disk cache
            for name, arguments in ways.items():
                result = run_measured(*arguments)
                if number >= 0:
                    measured[name].append(result)
    print(f"{hardware()}\nbundled weights, one photo, {opt.rounds} rounds\n")
    rows = [
        [name, f"{median(seconds for seconds, _ in runs):.2f}", f"{max(peak for _, peak in runs):.0f}"]
        for name, runs in measured.items()
    ]
    print(table(["process", "seconds, median", "peak memory, MB"], rows))


if __name__ == "__main__":
    main()
