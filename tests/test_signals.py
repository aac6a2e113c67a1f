"""Stop signals: the first one is a request, the second one an order."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, start

from utils.stop_request import StopRequest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX does it")


def test_signals_are_noted_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop()
        assert stop.name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_wait_and_nothing_after_it(number: signal.Signals) -> None:
    def wait() -> None:
        with suppress(Exception):  # as code that reads photos takes what it meets for a broken one
            signal.raise_signal(number)
        pytest.fail("a wait went on")

    with StopRequest() as stop:
        assert stop.interruptible(lambda: 7) == 7
        assert stop.interruptible(wait) is None
        signal.raise_signal(number)
        assert stop.interruptible(lambda: pytest.fail("a wait began")) is None


BUSY = """
import ctypes, multiprocessing, signal, time
from cloth_segmentation.command.script import run_script

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

def main():
    child = multiprocessing.get_context("fork").Process(target=stubborn, daemon=True)
    child.start()
    print(child.pid, flush=True)
    lock, system = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    while True:
        system.pthread_mutex_lock(lock)  # the second time, for ever, and outside Python

run_script(main)
"""


def busy(env: dict[str, str] | None = None) -> tuple["subprocess.Popen[str]", int]:
    """A process that waits outside Python, as for a disk that does not answer, and its child."""
    process = start(sys.executable, "-c", BUSY, env={"RANK": ""} | (env or {}))
    assert process.stdout is not None
    child = int(process.stdout.readline())
    time.sleep(0.1)
    return process, child


def assert_lives(process: "subprocess.Popen[str]") -> None:
    time.sleep(0.6)
    assert process.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="of a lock as Linux has it")
@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGHUP), (signal.SIGHUP, signal.SIGINT)],
)
def test_a_second_signal_ends_it_at_once_whatever_it_waits_for(first: signal.Signals, second: signal.Signals) -> None:
    process, child = busy()
    process.send_signal(first)
    assert_lives(process)
    process.send_signal(second)
    _, errors = process.communicate(timeout=10)  # ends when the child has closed them, too
    assert process.returncode == 1
    assert f"ended at once by a second signal, {second.name}\n" in errors
    assert "Traceback" not in errors
    for _ in range(100):  # its files are closed a moment before it is gone
        if not is_running(child):
            break
        time.sleep(0.05)
    assert not is_running(child)


def is_running(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="of a lock as Linux has it")
@pytest.mark.parametrize(("launcher", "apart"), [({}, 0.0), ({"RANK": "0"}, 0.6)])
def test_one_request_may_come_twice(launcher: dict[str, str], apart: float) -> None:
    """From timeout(1) or a terminal at the same time, by a launcher a little later."""
    process, _ = busy(launcher)
    process.send_signal(signal.SIGINT)
    time.sleep(apart)
    process.send_signal(signal.SIGTERM)
    assert_lives(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


STOPPED_IN_A_FORK = """
import multiprocessing, os, signal, time
from utils.stop_request import StopRequest

os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))

def wait():
    multiprocessing.get_context("fork").Process(target=print).start()
    time.sleep(20)

with StopRequest() as stop:
    began = time.monotonic()
    print(stop.interruptible(wait), stop.name, time.monotonic() - began < 5)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_signal_while_a_process_starts_ends_the_wait_once_it_has() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_IN_A_FORK], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    assert "None SIGTERM True" in done.stdout
