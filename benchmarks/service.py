"""The service under load by Locust, beside the bare library: throughput, waits, memory.

python benchmarks/service.py
python benchmarks/service.py --clients 4 16 --seconds 20
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if "locust" in sys.modules:  # it reads this file for the clients
    from locust import FastHttpUser, task

    class Visitor(FastHttpUser):
        """A client that sends a photo as soon as it has the answer to the one before."""

        photo = Path(os.environ["PHOTO"]).read_bytes()

        @task
        def segment(self) -> None:
            """A photo, for JSON."""
            self.client.post("/v1/segment", data=self.photo)  # type: ignore[arg-type]  # it takes bytes too


WEIGHTS = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"

BARE = """
import sys, time
from pathlib import Path
from cloth_segmentation import Segmenter
segment = Segmenter.load(sys.argv[1], size=int(sys.argv[2]))
photo = Path(sys.argv[3]).read_bytes()
segment(photo).to_json()
began, count = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[4]):
    segment(photo).to_json()
    count += 1
print(count / (time.perf_counter() - began))
"""


def bare(photo: Path, size: int, seconds: float) -> float:
    """Photos a second of the library alone, one after the other."""
    command = [sys.executable, "-c", BARE, str(WEIGHTS), str(size), str(photo), str(seconds)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@contextmanager
def serving(size: int, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The service, ready."""
    command = [ROOT / "serve.py", f"--checkpoint={WEIGHTS}", f"--size={size}", f"--port={port}"]
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"{command}: exit code {process.returncode}") from None
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def load(url: str, photo: Path, clients: int, seconds: float, folder: Path) -> dict[str, str]:
    """What Locust counts of so many clients: a row of its table."""
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        __file__,
        "--headless",
        "--only-summary",
        "-u",
        clients,
        "-r",
        clients,
    ]
    command += ["-t", f"{seconds:g}s", "--host", url, "--csv", folder / str(clients), "--exit-code-on-error", "0"]
    subprocess.run(list(map(str, command)), env=os.environ | {"PHOTO": str(photo)}, check=True, capture_output=True)
    with (folder / f"{clients}_stats.csv").open(newline="") as file:
        return list(csv.DictReader(file))[-1]


def main() -> None:
    from benchmarks.growth import make_photos
    from benchmarks.measure import hardware, megabytes, table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4, 16, 64], help="clients at once [1 4 16 64]")
    parser.add_argument("--seconds", type=float, default=120, help="time of each of them [120]")
    parser.add_argument("--size", type=int, default=256, help="side at which the network sees photos, pixels [256]")
    parser.add_argument("--port", type=int, default=8765, help="of the service [8765]")
    opt = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = make_photos(folder, 1, 1) / "0.jpg"
        print(f"\n{hardware()}\nu2netp at {opt.size} x {opt.size}, a JPEG of 1 megapixel\n")
        rows = []
        with serving(opt.size, opt.port) as process:
            for clients in opt.clients:
                # On both sides, since the machine is not as fast all the time; meanwhile the service waits.
                rates = [bare(photo, opt.size, opt.seconds / 8)]
                row = load(f"http://127.0.0.1:{opt.port}", photo, clients, opt.seconds, folder)
                rates.append(bare(photo, opt.size, opt.seconds / 8))
                alone = sum(rates) / 2
                rate = float(row["Requests/s"])
                waits = [f"{float(row[share]):.0f}" for share in ("50%", "95%", "99%")]
                memory = f"{megabytes(process.pid):.0f}"
                figures = (f"{rate:.2f}", f"{alone:.2f}", f"{rate / alone:.0%}", *waits, row["Failure Count"], memory)
                rows.append([str(clients), *figures])
                print(*rows[-1], file=sys.stderr)
        header = [
            "clients",
            "photos/s",
            "library",
            "share",
            "p50, ms",
            "p95, ms",
            "p99, ms",
            "failed",
            "memory after, MB",
        ]
        print(table(header, rows))


if __name__ == "__main__":
    main()
