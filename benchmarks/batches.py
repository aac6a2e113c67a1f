"""What Ray costs: infer_batch.py beside infer.py on the same photos, and its memory over many.

python benchmarks/batches.py
python benchmarks/batches.py --photos 100 --small 2000
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.growth import make_photos  # noqa: E402
from benchmarks.measure import hardware, megabytes, run_measured, table  # noqa: E402

WEIGHTS = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"
"""Not random ones: masks of noise take longer to write."""

FEW = 10
"""Photos of a run that is mostly start-up."""


def speed(photos: Path, few: Path, output: Path, size: int) -> list[list[str]]:
    """Rows of the table of speed: each way, on few photos, which gives the start-up, and on all."""
    cores = os.cpu_count() or 1
    counts = [len(list(folder.iterdir())) for folder in (few, photos)]
    batch = [ROOT / "infer_batch.py", f"--checkpoint={WEIGHTS}", f"--size={size}"]
    ways = {
        "`infer.py`": [ROOT / "infer.py", *batch[1:], "--device=cpu", "--save=json"],
        f"`infer_batch.py`, 1 worker of {cores} threads": [*batch, "--networks=1", f"--threads={cores}"],
        **{
            f"`infer_batch.py`, {workers} worker{'s' * (workers > 1)} of 1 thread": [*batch, f"--networks={workers}"]
            for workers in sorted({1, cores})
        },
    }
    rows: list[list[str]] = []
    plain = 0.0
    for way, words in ways.items():
        seconds = []
        for number, folder in enumerate((few, photos)):
            place = output / f"{len(rows)}_{number}"
            seconds.append(run_measured(*words, f"--input={folder}", f"--output={place}")[0])
        bare = (counts[1] - counts[0]) / (seconds[1] - seconds[0])
        plain = plain or bare
        start = seconds[0] - counts[0] / bare
        figures = (f"{seconds[1]:.1f}", f"{start:.1f}", f"{bare:.2f}", f"{counts[1] / seconds[1]:.2f}")
        rows.append([way, *figures, f"{plain / bare:.2f}"])
        print(*rows[-1], file=sys.stderr)
    return rows


def memory(photos: Path, output: Path, size: int, every: int) -> list[list[str]]:
    """Rows of the table of memory: the most that a run takes, over each ``every`` photos."""
    command = [ROOT / "infer_batch.py", f"--checkpoint={WEIGHTS}", f"--size={size}"]
    command += [f"--input={photos}", f"--output={output}"]
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    done = [0]
    reader = Thread(target=_follow, args=(process, done))
    reader.start()
    most: dict[int, tuple[float, float, int]] = {}
    while process.poll() is None:
        sizes = [megabytes(number) for number in _family(process.pid)]
        step = max(done[0] - 1, 0) // every
        before = most.get(step, (0.0, 0.0, 0))
        most[step] = max(before[0], sizes[0]), max(before[1], sum(sizes)), max(before[2], len(sizes))
        print(done[0], f"{sizes[0]:.0f} {sum(sizes):.0f} MB, {len(sizes)} processes", file=sys.stderr)
        time.sleep(1)
    reader.join()
    if process.returncode:
        raise RuntimeError(f"{command}: exit code {process.returncode}")
    return [
        [f"{step * every:,} to {(step + 1) * every:,}", f"{driver:.0f}", f"{whole:.0f}", str(number)]
        for step, (driver, whole, number) in sorted(most.items())
    ]


def _follow(process: subprocess.Popen[bytes], done: list[int]) -> None:
    """Keep how many photos the bar of a process says are done."""
    assert process.stderr is not None
    while text := os.read(process.stderr.fileno(), 4096):
        if found := re.findall(rb"(\d+)/\d+ \[", text):
            done[0] = int(found[-1])


def _family(process: int) -> Iterator[int]:
    """A process and all that it has started, itself or through others. Linux only."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.name))
    waiting = [process]
    while waiting:
        waiting += parents.get(waiting[0], [])
        yield waiting.pop(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000, help="photos of 1 megapixel to time [1000]")
    parser.add_argument("--small", type=int, default=10_000, help="photos of 0.05 megapixels, for memory [10000]")
    parser.add_argument("--every", type=int, default=1000, help="photos of a row of the table of memory [1000]")
    parser.add_argument("--size", type=int, default=256, help="side at which the network sees photos, pixels [256]")
    opt = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"\n{hardware()}\nu2netp at {opt.size} x {opt.size}\n")
        if opt.photos:
            rows = speed(make_photos(folder, 1, opt.photos), make_photos(folder, 1, FEW), folder, opt.size)
            print(f"{opt.photos} JPEGs of 1 megapixel, rows or JSON files only\n")
            header = ["way", "seconds", "start-up", "photos/s without it", "photos/s in all", "seconds / `infer.py`"]
            print(table(header, rows), "\n")
        if opt.small:
            rows = memory(make_photos(folder, 0.05, opt.small), folder / "table", opt.size, opt.every)
            print(f"{opt.small:,} JPEGs of 0.05 megapixels, by infer_batch.py\n")
            print(table(["photos", "driver, MB", "all processes, MB", "processes"], rows))


if __name__ == "__main__":
    main()
