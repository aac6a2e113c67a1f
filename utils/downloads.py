"""Downloads whose addresses die and whose contents are checked."""

import errno
import re
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gdown
from gdown.exceptions import DownloadError, FileURLRetrievalError

from cloth_segmentation.errors import RunError
from cloth_segmentation.files import atomic_path, sha256

TRIES = 3
"""How often an address is tried before it is given up."""

STEP = 2**20
"""Bytes by which a try must get farther than all before it not to count."""

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""What ends a download from any address."""


class NoAddressError(RunError):
    """No address gives the file; the message says what each gave and how to get it by hand."""


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


def fetch(download: Download, path: Path, *, first: str = "", timeout: float = 30, pause: float = 2) -> None:
    """Download to ``path``, from the first address that gives the right file. A file that is right is kept as it is.

    Args:
        download: what to fetch.
        path: where it goes; only a file with the right sum ever gets this name.
        first: another address to try before the others.
        timeout: seconds that a server may be silent.
        pause: seconds before an address is tried again.

    Raises:
        NoAddressError: no address gave the file.
        RunError: it cannot be written.
    """
    try:
        if path.is_dir():
            raise RunError(f"{path}: expected the name of a file to write, found a folder")
        if path.is_file() and sha256(path) == download.sha256:
            print(f"{path} is already here and its sum is right.")
            return
        with atomic_path(path) as whole:
            free = shutil.disk_usage(path.parent).free
            if free < download.size:
                raise RunError(
                    f"{path}: expected {download.size / 1e6:.1f} MB of room on its disk, found {free / 1e6:.1f} MB; "
                    "make room, or write it elsewhere"
                )
            # In a folder of its own, since gdown leaves parts of files beside the one it is to write.
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
                addresses = [address for address in (first, *download.addresses) if address]
                _from_any(addresses, download, Path(folder), path, timeout, pause).replace(whole)
    except OSError as error:
        raise RunError(
            f"{path}: expected room and leave to write it, found none ({error.strerror}); make room, or write it "
            "elsewhere"
        ) from error


def _from_any(
    addresses: Sequence[str], download: Download, folder: Path, path: Path, timeout: float, pause: float
) -> Path:
    """The right file, in ``folder``. Raises NoAddressError if no address gives it, OSError if it cannot be written."""
    failures = []
    for address in addresses:
        print(f"Downloading {download.file_name} ({download.size / 1e6:.0f} MB) from {address}", flush=True)
        try:
            return _from(address, download, folder, timeout, pause)
        # An address can fail in any of requests' and gdown's ways, and the next one is tried after all of them.
        except Exception as error:
            if _is_disk(error):
                raise
            failures.append(f"{address}\n    {_reason(error, download, _size(folder), timeout)}")
            _clear(folder)
    raise NoAddressError(
        "\n  ".join((f"{download.file_name} could not be downloaded from", *failures))
        + f"\nBy hand: open an address in a browser, save the file as {path} "
        f"({download.size:,} bytes, sha256 {download.sha256}) and run the same command again."
    )


def _from(address: str, download: Download, folder: Path, timeout: float, pause: float) -> Path:
    """The right file from one address, gone on with where the connection broke. Raises whatever ended the last try."""
    arrived = farthest = failures = 0
    while True:
        try:
            return _try(address, download, folder, timeout)
        except Exception as error:
            before, arrived = arrived, _size(folder)
            if before and type(error) is DownloadError and not error.__cause__:
                # No connection broke: gdown was refused the rest alone. It begins again, which is no failure.
                _clear(folder)
                arrived = 0
                continue
            failures = 1 if arrived >= farthest + STEP else failures + 1
            farthest = max(farthest, arrived)
            if failures == TRIES or _is_disk(error) or not _may_pass(error):
                raise
        time.sleep(pause)


def _try(address: str, download: Download, folder: Path, timeout: float) -> Path:
    """The right file, begun or gone on with. RunError says how what came differs, others how the connection failed."""

    def stop_early(arrived: int, announced: int | None) -> None:
        if announced is None and arrived > download.size:
            raise RunError(f"expected {download.size:,} bytes, found more")
        if announced not in (None, download.size):
            raise RunError(f"expected {download.size:,} bytes, found {announced:,}")

    file = folder / "file"
    try:
        gdown.download(
            url=address,
            output=str(file),
            quiet=not sys.stderr.isatty(),
            resume=True,  # from the part that the last try left in this folder
            progress=stop_early,
            timeout=timeout,
        )
        found = sha256(file)
        if found != download.sha256:
            raise RunError(f"expected sha256 {download.sha256}, found {found} in {file.stat().st_size:,} bytes")
    except RunError as error:
        (came,) = folder.iterdir()
        raise RunError(_web_page(came) or str(error)) from error
    return file


def _web_page(path: Path) -> str:
    """Says that a file is a web page, with its title; empty if it is none."""
    with path.open("rb") as file:
        text = file.read(2**16).decode(errors="replace").strip()
    if not re.match(r"<(!doctype\s+html|html|head|\?xml|!--)", text, re.IGNORECASE):
        return ""
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return "expected a file, found a web page" + (f" ({_short(title[1], 80)})" if title else "")


def _may_pass(error: Exception) -> bool:
    """Whether another try may go better: not where the server has given a clear answer."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code >= 500 or response.status_code in (408, 429)
    return not isinstance(error, RunError | ValueError | FileURLRetrievalError)  # requests' bad URLs are ValueErrors


def _is_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in DISK_ERRORS  # requests' errors are OSErrors without a number


def _reason(error: Exception, download: Download, arrived: int, timeout: float) -> str:
    """One short line; gdown's and requests' own ones hold objects, and advice on parts that are removed here."""
    if isinstance(error, RunError):
        return str(error)
    chain = list(_chain(error))
    system = [link.strerror for link in chain if isinstance(link, OSError) and link.strerror]
    if any(isinstance(link, TimeoutError) for link in chain):
        reason = f"expected an answer within {timeout:g} s, found none"
    elif type(error) is DownloadError:
        reason = "the connection broke off"
    elif system:
        reason = f"no connection ({system[-1]})"
    else:
        reason = _short(str(error), 200) or type(error).__name__
    return reason + (f", after {arrived:,} of {download.size:,} bytes" if arrived else "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it. urllib3 hands some on as arguments only."""
    while error:
        yield error
        given = (argument for argument in error.args if isinstance(argument, BaseException))
        error = error.__cause__ or error.__context__ or next(given, None)


def _short(text: str, length: int) -> str:
    return textwrap.shorten(text, length, placeholder="...")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _clear(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
