"""Leaving in order when a person or a scheduler says so."""

import signal

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What a person, a scheduler, and a terminal that closes send; Windows has no SIGHUP."""


def heeded_stops() -> list[signal.Signals]:
    """Those that this process has not been told to ignore, as nohup does with SIGHUP."""
    return [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]


def ignore_stops() -> None:
    """Let what is being done now, the last thing of this process, be done."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
