"""Downloads whose addresses die and whose contents are checked."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gdown

from utils import RunError
from utils.files import sha256


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


def fetch(download: Download, path: Path, *, first: str = "") -> None:
    """Download to ``path``, from the first address that gives the right file. A file that is right is kept as it is.

    Args:
        download: what to fetch.
        path: where it goes; only a file with the right sum ever gets this name.
        first: another address to try before the others.

    Raises:
        RunError: no address gave the file; the message says what each gave and how to do it by hand.
    """
    if path.is_file() and sha256(path) == download.sha256:
        print(f"{path} is already here and its sum is right.")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for address in filter(None, (first, *download.addresses)):
        print(f"Downloading {download.file_name} ({download.size / 1e6:.0f} MB) from {address}", flush=True)
        try:
            # In a folder of its own, since gdown leaves parts of files beside the one it is to write.
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
                part = Path(folder) / path.name
                gdown.download(url=address, output=str(part), quiet=not sys.stderr.isatty(), timeout=30)
                found = sha256(part)
                if found != download.sha256:
                    raise RunError(f"expected sha256 {download.sha256}, found {found} in {part.stat().st_size:,} bytes")
                part.replace(path)
            return
        # An address can fail in any of requests' and gdown's ways, and the next one is tried after all of them.
        except Exception as error:
            failures.append(f"{address}\n    {' '.join(str(error).split()) or type(error).__name__}")
    raise RunError(
        "\n  ".join((f"{download.file_name} could not be downloaded from", *failures))
        + f"\nBy hand: open an address in a browser, save the file as {path} "
        f"({download.size:,} bytes, sha256 {download.sha256}) and run the same command again."
    )
