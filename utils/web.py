"""What keeps a page to this machine: nothing is sent elsewhere, and nothing is kept for ever."""

import os
import socket
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

from cloth_segmentation.errors import RunError


def free_address(host: str, port: int) -> set[str]:
    """Make sure that a server can listen there.

    Returns:
        The host, and the addresses that it stands for.

    Raises:
        RunError: it cannot.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.socket(found[0][0]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")  # as servers do
            probe.bind(found[0][4])
    except OSError as error:
        raise RunError(
            f"--host {host} --port {port}: expected an address of this machine that is free, found one that is not "
            f"({error.strerror}); name another one"
        ) from error
    return {host, *(str(each[4][0]) for each in found)}


class StayHere:
    """Audit hook (``sys.addaudithook``) that refuses connections to other machines, whatever asks for them.

    Args:
        own: names and addresses of this machine, beside the loopback ones.
    """

    def __init__(self, own: set[str]) -> None:
        self.own = own

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise PermissionError for a connection, a datagram or a question for a name that would leave the machine."""
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = arguments[1]
            host = address[0] if isinstance(address, tuple) else None  # others are no network's
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            host = arguments[0]
        elif event == "socket.getnameinfo":
            host = arguments[0][0]
        else:
            return
        if host is not None and not self._is_here(host.decode(errors="replace") if isinstance(host, bytes) else host):
            raise PermissionError(f"expected a connection to this machine, found one to {host}")

    def _is_here(self, host: str) -> bool:
        with suppress(ValueError):
            address = ip_address(host)
            if address.is_loopback or address.is_unspecified:
                return True
        return host in ("localhost", "") or host in self.own


def sweep(folder: Path, age: float) -> None:
    """Delete what is in a folder and was written more than ``age`` seconds ago, and sub-folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        with suppress(OSError):  # one that is gone since, is not empty, or in use where that forbids it
            if time.time() - path.stat().st_mtime > age:
                path.rmdir() if path.is_dir() else path.unlink()


def keep_swept(folder: Path, age: float) -> NoReturn:
    """``sweep`` again and again, until a signal ends it."""
    while True:
        time.sleep(age / 10)
        sweep(folder, age)
