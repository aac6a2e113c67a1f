"""Downloads whose addresses die and whose contents are checked."""

import errno
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gdown
from gdown.exceptions import DownloadError

from utils import RunError
from utils.files import atomic_path, sha256

TRIES = 3
"""How often a file is fetched from the beginning, and how often a connection to go on from where it broke."""

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""What ends a download from any address."""


@dataclass(frozen=True)
class Download:
    """A file that can be had from several places."""

    file_name: str
    size: int  # bytes
    sha256: str
    addresses: tuple[str, ...]  # URLs, Google Drive's among them


def _drive(file_id: str) -> str:
    return f"https://drive.google.com/uc?id={file_id}"


ORIGINAL_WEIGHTS = {
    "u2net": Download(
        "u2net.pth",
        176_290_937,
        "10025a17f49cd3208afc342b589890e402ee63123d6f2d289a4a0903695cce58",
        (_drive("1ao1ovG1Qtx4b7EoskHXmi2E9rp5CHLcZ"),),
    ),
    "u2netp": Download(
        "u2netp.pth",
        4_683_258,
        "e7567cde013fb64813973ce6e1ecc25a80c05c3ca7adbc5a54f3c3d90991b854",
        (_drive("1rbSTGKAE-MTxBYHd-51l2hMOQPT_7EPy"),),
    ),
}
"""Weights for salient objects that the authors of U2-Net published, by architecture."""

RELEASED_WEIGHTS = Download(
    "cloth_segm_u2net_latest.pth",
    176_625_341,
    "f71fad2bc11789a996acc507d1a5a1602ae0edefc2b9aba1cd198be5cc9c1a44",
    (
        "https://huggingface.co/maiti/cloth-segmentation/resolve/main/cloth_segm_u2net_latest.pth",
        _drive("1mhF3yqd7R-Uje092eypktNl-RoZNuiCJ"),
    ),
)
"""The clothes weights that the original system released. Hugging Face first: the other one is often over quota."""


def fetch(download: Download, path: Path, *, first: str = "", timeout: float = 30) -> None:
    """Download to ``path``, from the first address that gives the right file. A file that is right is kept as it is.

    Args:
        download: what to fetch.
        path: where it goes; only a file with the right sum ever gets this name.
        first: another address to try before the others.
        timeout: seconds that a server may be silent.

    Raises:
        RunError: no address gave the file, and the message says what each gave and how to do it by hand; or it cannot
            be written.
    """
    if path.is_dir():
        raise RunError(f"{path}: expected the name of a file to write, found a folder")
    try:
        if path.is_file() and sha256(path) == download.sha256:
            print(f"{path} is already here and its sum is right.")
            return
        with atomic_path(path) as part:
            free = shutil.disk_usage(path.parent).free
            if free < download.size:
                raise RunError(
                    f"{path}: expected {download.size / 1e6:.1f} MB of room on its disk, found {free / 1e6:.1f} MB"
                )
            # In a folder of its own, since gdown leaves parts of files beside the one it is to write.
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
                addresses = [address for address in (first, *download.addresses) if address]
                _from_first_that_works(download, addresses, Path(folder), path, timeout).replace(part)
    except OSError as error:
        raise RunError(f"{path}: expected room and leave to write it, found none ({error.strerror})") from error


def _from_first_that_works(
    download: Download, addresses: Sequence[str], folder: Path, path: Path, timeout: float
) -> Path:
    """The right file, in ``folder``. Raises RunError if no address gives it, OSError if it cannot be written."""
    failures = []
    for address in addresses:
        print(f"Downloading {download.file_name} ({download.size / 1e6:.0f} MB) from {address}", flush=True)
        try:
            return _from(address, download, folder, timeout)
        # An address can fail in any of requests' and gdown's ways, and the next one is tried after all of them.
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            failures.append(f"{address}\n    {textwrap.shorten(str(error), 300) or type(error).__name__}")
    raise RunError(
        "\n  ".join((f"{download.file_name} could not be downloaded from", *failures))
        + f"\nBy hand: open an address in a browser, save the file as {path} "
        f"({download.size:,} bytes, sha256 {download.sha256}) and run the same command again."
    )


def _from(address: str, download: Download, folder: Path, timeout: float) -> Path:
    """The right file from one address. Raises whatever went wrong."""

    def stop_early(received: int, _: int | None) -> None:
        if received > download.size:  # nobody knows when it would end
            raise RunError(f"expected {download.size:,} bytes, found more")

    part = folder / "file"
    for tries_left in reversed(range(TRIES)):
        for leftover in folder.iterdir():
            leftover.unlink()
        try:
            gdown.download(
                url=address,
                output=str(part),
                quiet=not sys.stderr.isatty(),
                timeout=timeout,
                retries=TRIES - 1,
                progress=stop_early,
            )
            break
        except Exception as error:
            if tries_left and _may_pass(error):
                time.sleep(TRIES - tries_left)
                continue
            if type(error) is DownloadError:  # its further lines tell how to use a part that is removed here
                received = sum(leftover.stat().st_size for leftover in folder.iterdir())
                reason = f"found that it breaks off at {received:,}" if received else str(error).split("\n")[0]
                raise RunError(f"expected {download.size:,} bytes, {reason}") from error
            raise
    found = sha256(part)
    if found != download.sha256:
        with part.open("rb") as file:
            is_page = file.read(512).lstrip().startswith(b"<")
        what = "a web page, which a browser may get past" if is_page else f"sha256 {found}"
        raise RunError(f"expected sha256 {download.sha256}, found {what}, in {part.stat().st_size:,} bytes")
    return part


def _may_pass(error: Exception) -> bool:
    """Whether all may go well from the beginning: the server is busy, or cannot go on from the middle of a file."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status == 429 or status >= 500 or (type(error) is DownloadError and not error.__cause__)
