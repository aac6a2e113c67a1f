"""Prepare weights: original ones with a new head for clothes, the released clothes weights, or a mean of several.

python setup_model_weights.py
python setup_model_weights.py --arch u2netp --source u2netp.pth
python setup_model_weights.py --classes garments --output prev_checkpoints/garments.pth
python setup_model_weights.py --source weights.pth --classes my_classes.toml --output prev_checkpoints/mine.pth
python setup_model_weights.py --released
python setup_model_weights.py --average first.pth,second.pth --output mean.pth
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.command.script import blame, run_script
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.weights_info import WeightsInfo
from data.class_sets import find_class_set
from networks import ARCHITECTURES
from options import SetupOptions, parse
from options.setup_options import SURGERY_WEIGHTS
from utils.downloads import ORIGINAL_WEIGHTS, RELEASED_WEIGHTS, Download, NoAddressError, fetch
from utils.weights_files import (
    class_count,
    listed,
    load_network,
    mean_state,
    read_file,
    read_info,
    save_weights,
    state_dict_of,
    transplant,
)


def check_kept(sources: Sequence[Path], output: Path) -> None:
    """Raise RunError if the output would replace one of the weights that it is made of."""
    for source in sources:
        if source.exists() and output.exists() and output.samefile(source):
            raise RunError(f"--output {output}: expected another file than {source}, which it would replace")


def operate(opt: SetupOptions) -> None:
    """Model surgery: the source's body, and a head for --classes.

    The head starts from random numbers, but for the channels of classes that the source has under the same name.
    """
    with blame("--classes", DataError):
        classes = find_class_set(opt.classes)
    output = Path(opt.output or SURGERY_WEIGHTS[opt.arch])
    source = Path(opt.source)
    if not opt.source:
        source = output.parent / ORIGINAL_WEIGHTS[opt.arch].file_name
        _fetch(ORIGINAL_WEIGHTS[opt.arch], source, opt.address, "--source FILE takes one that is elsewhere, ")
    check_kept([source], output)
    torch.manual_seed(opt.seed)
    network = ARCHITECTURES[opt.arch](3, len(classes))
    content = read_file(source)
    state = state_dict_of(content, source)
    info = read_info(content, opt.arch, class_count(state), source)
    before = info.classes.names if info else ()
    seen = info or WeightsInfo(opt.arch, classes)  # the body sees photos as it did in the source
    kept = {number: before.index(name) for number, name in enumerate(classes.names) if name in before}
    carried, head = transplant(state, network, source, kept)
    new = [name for number, name in enumerate(classes.names) if number not in kept]
    # Step 0 says that the head is random, in part at least, and that training is needed.
    step = 0 if new or seen.step == 0 else None
    save_weights(output, network.state_dict(), WeightsInfo(opt.arch, classes, seen.size, seen.mean, seen.std, step))
    if opt.list_tensors:
        word = "by classes" if kept else "random"
        print("\n".join([f"carried over  {name}" for name in carried] + [f"{word:<12}  {name}" for name in head]))
    print(f"{output}: {len(carried)} of {len(carried) + len(head)} tensors carried over from {source}, ", end="")
    if not kept:
        print(f"{len(head)} of the head are random")
        return
    print(f"and of the head the channels of {listed([classes.names[number] for number in kept])}")
    print(f"Classes that start from random numbers: {listed(new)}" if new else "No class starts from random numbers")


def fetch_released(opt: SetupOptions) -> None:
    """Download the clothes weights of the original system and see that they load."""
    output = Path(opt.output or f"trained_checkpoint/{RELEASED_WEIGHTS.file_name}")
    _fetch(RELEASED_WEIGHTS, output, opt.address)
    _, info = load_network(output, ARCHITECTURES, CLOTHES)
    print(f"{output}: {info.arch} for {', '.join(info.classes.names)}")


def average(opt: SetupOptions) -> None:
    """Write the mean of several weights files of one architecture; it says of itself what the last one says."""
    paths = [Path(name) for name in opt.averaged]
    check_kept(paths, Path(opt.output))
    loaded = [load_network(path, ARCHITECTURES) for path in paths]
    first, last = loaded[0][1], loaded[-1][1]
    for path, (_, info) in zip(paths, loaded, strict=True):
        if info.classes.names != first.classes.names:
            raise RunError(f"--average: expected weights for the same classes, found others in {paths[0]} and {path}")
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
