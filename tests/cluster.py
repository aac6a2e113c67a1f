"""Ray clusters of several nodes on this machine, and its processes. Linux only."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from conftest import ROOT, free_port


def processes() -> dict[int, tuple[int, str]]:
    """{process: (its parent, its title)} of those that live."""
    found = {}
    for path in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(path.name)] = parent, (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def below(process: int) -> dict[int, str]:
    """The processes that a process has started, those that they have started, and so on, with their titles."""
    every, found = processes(), {}
    waiting = [process]
    while waiting:
        parent = waiting.pop()
        children = {number: title for number, (its, title) in every.items() if its == parent}
        found |= children
        waiting += children
    return found


def kill(numbers: list[int]) -> None:
    for number in numbers:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


class Cluster:
    """Ray nodes on this machine: a head, and others that join it; ``cpus``: of each."""

    def __init__(self, cpus: int = 2) -> None:
        self.cpus = cpus
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))  # sockets have short paths
        (self.folder / "token").write_text(secrets.token_hex(32))
        self.env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / "token")}
        self.env |= {"RAY_USAGE_STATS_ENABLED": "0"}
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        self.add("--head", "--port", port, "--temp-dir", str(self.folder), "--include-dashboard=false")

    def add(self, *flags: str) -> "subprocess.Popen[bytes]":
        """Start a node."""
        flags = flags or ("--address", self.address)
        log = self.folder / f"node{len(self.nodes)}.log"
        size = [f"--num-cpus={self.cpus}", "--object-store-memory=100000000"]
        with log.open("wb") as file:
            node = subprocess.Popen(
                [Path(sys.executable).with_name("ray"), "start", "--block", *flags, *size],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | self.env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)
        end = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        return node

    def kill(self, node: "subprocess.Popen[bytes]") -> None:
        """End a node and all its workers as a power failure would."""
        kill([node.pid, *below(node.pid)])
        node.wait()

    def end(self) -> None:
        """End all nodes, and leave no files."""
        for node in reversed(self.nodes):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)
