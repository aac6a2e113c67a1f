"""What the benchmarks share: the machine's name, fair timing, and tables."""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch


def hardware() -> str:
    """One line: CPU model, cores this process may use, GPU, versions of Python and PyTorch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_cpu_model()}, {cores} cores; {gpu}; Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"{torch.get_num_threads()} PyTorch threads"
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Time every way once a round, in turn, so that whatever else the machine does slows all of them alike.

    Args:
        ways: what to time; a way that uses a GPU waits for it itself.
        rounds: timed rounds.
        warmup: rounds before, not timed.

    Returns:
        Seconds of each round, for each way.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-warmup, rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


# The system counts the memory of the process that starts another one as the other's own, so a small one starts it.
_STARTER = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run_measured(*arguments: object) -> tuple[float, float]:
    """(seconds, peak resident memory in MB of 10^6 bytes) of a Python process run to its end.

    Raises:
        RuntimeError: it failed; the message is what it printed.
    """
    command = [sys.executable, "-c", _STARTER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes there, KiB elsewhere


def megabytes(process: int) -> float:
    """Memory of a process, its share of what it has in common with others (PSS), in MB of 10^6 bytes. Linux only."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others, figures, to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
