"""Prepare weights: original ones with a new head for clothes, the released clothes weights, or a mean of several.

python setup_model_weights.py
python setup_model_weights.py --arch u2netp --source u2netp.pth
python setup_model_weights.py --labels garments --output prev_checkpoints/garments.pth
python setup_model_weights.py --released
python setup_model_weights.py --average first.pth,second.pth --output mean.pth
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cloth_segmentation.classes import CLASSES
from cloth_segmentation.command.script import run_script
from cloth_segmentation.errors import RunError
from cloth_segmentation.weights_info import WeightsInfo
from data.categories import LABEL_SETS
from networks import ARCHITECTURES
from options import SetupOptions, parse
from options.setup_options import SURGERY_WEIGHTS
from utils.downloads import ORIGINAL_WEIGHTS, RELEASED_WEIGHTS, Download, NoAddressError, fetch
from utils.weights_files import load_network, mean_state, read_file, save_weights, state_dict_of, transplant


def check_kept(sources: Sequence[Path], output: Path) -> None:
    """Raise RunError if the output would replace one of the weights that it is made of."""
    for source in sources:
        if source.exists() and output.exists() and output.samefile(source):
            raise RunError(f"--output {output}: expected another file than {source}, which it would replace")


def operate(opt: SetupOptions) -> None:
    """Model surgery: the original weights' body, a head for --labels that starts from random numbers."""
    output = Path(opt.output or SURGERY_WEIGHTS[opt.arch])
    source = Path(opt.source)
    if not opt.source:
        source = output.parent / ORIGINAL_WEIGHTS[opt.arch].file_name
        _fetch(ORIGINAL_WEIGHTS[opt.arch], source, opt.address, "--source FILE takes one that is elsewhere, ")
    check_kept([source], output)
    torch.manual_seed(opt.seed)
    names = LABEL_SETS[opt.labels].names
    network = ARCHITECTURES[opt.arch](3, len(names))
    carried, stayed = transplant(state_dict_of(read_file(source), source), network, source)
    save_weights(output, network.state_dict(), WeightsInfo(opt.arch, names, step=0))
    if opt.list_tensors:
        print("\n".join([f"carried over  {name}" for name in carried] + [f"random        {name}" for name in stayed]))
    total = len(carried) + len(stayed)
    print(
        f"{output}: {len(carried)} of {total} tensors carried over from {source}, {len(stayed)} of the head are random"
    )


def fetch_released(opt: SetupOptions) -> None:
    """Download the clothes weights of the original system and see that they load."""
    output = Path(opt.output or f"trained_checkpoint/{RELEASED_WEIGHTS.file_name}")
    _fetch(RELEASED_WEIGHTS, output, opt.address)
    _, info = load_network(output, ARCHITECTURES, CLASSES)
    print(f"{output}: {info.arch} for {', '.join(info.classes)}")


def average(opt: SetupOptions) -> None:
    """Write the mean of several weights files of one architecture; it says of itself what the last one says."""
    paths = [Path(name) for name in opt.averaged]
    check_kept(paths, Path(opt.output))
    loaded = [load_network(path, ARCHITECTURES, CLASSES) for path in paths]
    first, last = loaded[0][1], loaded[-1][1]
    for path, (_, info) in zip(paths, loaded, strict=True):
        if (info.arch, info.mean, info.std) != (first.arch, first.mean, first.std):
            raise RunError(
                f"--average: expected weights of one architecture and normalisation, found {paths[0]} ({first.arch}, "
                f"mean {first.mean}, std {first.std}) and {path} ({info.arch}, mean {info.mean}, std {info.std})"
            )
    state = mean_state([network.state_dict() for network, _ in loaded])
    save_weights(Path(opt.output), state, replace(last, mean_iou_clothes=None))
    print(f"{opt.output}: the mean of {len(paths)} files")


def _fetch(download: Download, path: Path, address: str, more: str = "") -> None:
    try:
        fetch(download, path, first=address)
    except NoAddressError as error:
        raise RunError(f"{error}\n{more}--address URL tries another address.") from error
    except RunError as error:
        raise RunError(f"{error} (--output FILE)") from error


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(SetupOptions, argv)
    if opt.output and Path(opt.output).is_dir():  # before a long download
        raise RunError(f"--output {opt.output}: expected the name of a file to write, found a folder")
    if opt.average:
        average(opt)
    elif opt.released:
        fetch_released(opt)
    else:
        operate(opt)
    return 0


if __name__ == "__main__":
    run_script(main, RunError)
