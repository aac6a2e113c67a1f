"""The signals that ask a process to stop."""

import signal

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What a person, a scheduler, and a terminal that closes send; Windows has no SIGHUP."""


def heeded_stops() -> list[signal.Signals]:
    """The stop signals that this process has not been told to ignore, as nohup does with SIGHUP."""
    return [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]


def ignore_stops() -> None:
    """Ignore stop signals from here on, so that the last work of this process is finished."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
