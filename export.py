"""Write weights as an ONNX file, which infer.py runs without PyTorch.

python export.py
python export.py --checkpoint weights.pth --int8 --photos photos/
"""

import sys
from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cloth_segmentation.command.photo_folder import list_photos
from cloth_segmentation.command.script import blame, run_script
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.files import atomic_path, check_output, sha256
from cloth_segmentation.segmenter import Seen
from cloth_segmentation.weights_info import ONNX_SIDES
from infer import Segmenter, load
from networks import fold_batch_norm
from options import ExportOptions, describe, parse
from utils.torch_engine import TorchEngine

LEAST_AGREEMENT = {False: 0.9995, True: 0.9}
"""Share of the photos' pixels that must get the same class as from PyTorch: in float32, and (True) in 8 bits.

Rounding alone moves a few pixels of every edge. In 8 bits a healthy file agrees on 0.99 or so; less than 0.9 is broken.
"""


OLDEST_PYTORCH = 2, 9
"""Its exporter to ONNX is the first that was seen to resize to sizes that vary; 2.6's fails."""


def can_export() -> bool:
    """Whether this PyTorch is new enough; all else runs on older ones."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= OLDEST_PYTORCH


def read_photos(segment: Segmenter, folder: Path, most: int) -> list[Seen]:
    """Up to ``most`` photos, spread over the folder's.

    Raises:
        RunError: there are none.
    """
    if not folder.is_dir():
        raise RunError(f"--photos {folder}: expected a folder of photos, found none of that name")
    files = list_photos(folder).files
    photos = []
    for number in np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int):
        try:
            photos.append(segment.see(files[number]))
        except (DataError, OSError) as error:
            print(f"Skipped: {error}", file=sys.stderr)
    if not photos:
        raise RunError(f"--photos {folder}: expected photos to check the file on, found none; name another folder")
    return photos


def agreement(first: Segmenter, second: Segmenter, photos: Sequence[Seen]) -> float:
    """Share of the pixels of all photos to which both give the same class, 0 to 1."""
    same = pixels = 0
    for seen in tqdm(photos, "check", unit="photo", leave=False, dynamic_ncols=True):
        maps = [segment.segmentation(seen, segment.logits([seen.square])[0]).labels for segment in (first, second)]
        same += int((maps[0] == maps[1]).sum())
        pixels += maps[0].size
    return same / pixels


def export(opt: ExportOptions) -> Path:
    """Write the file, if it does what the weights do; returns where it is.

    Raises:
        RunError: weights or photos cannot be read, or the file would not do.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise RunError(f"expected {', '.join(missing)}, found none; pip install -r requirements.txt")
    if not can_export():
        raise RunError(
            f"expected PyTorch {'.'.join(map(str, OLDEST_PYTORCH))} or newer, found {torch.__version__}; "
            "pip install --upgrade torch torchvision"
        )
    from cloth_segmentation.onnx_engine import OnnxEngine, metadata
    from utils.onnx_export import to_eight_bits, to_onnx, write

    path = Path(opt.checkpoint) if opt.checkpoint else Segmenter.best("cpu", "torch", "off")[0]
    output = Path(opt.output) if opt.output else path.with_name(path.stem + ("_int8" if opt.int8 else "") + ".onnx")
    with blame(f"--output {output}: expected a file that can be written", OSError):
        check_output(output, b"\x08")  # the first field of an ONNX file, its version
    network, info = load(path)
    if info.size[0] % ONNX_SIDES or info.size[1] % ONNX_SIDES:
        raise RunError(
            f"{path}: expected weights that see photos at multiples of {ONNX_SIDES} pixels, found {info.size[0]} x "
            f"{info.size[1]}; they run by PyTorch only, unless evaluate.py --record gives them another size"
        )
    plain = Segmenter(engine=TorchEngine(deepcopy(network), info, torch.device("cpu")), path=path, size=info.size)
    photos = read_photos(plain, Path(opt.photos), opt.max_photos)
    fold_batch_norm(network)
    model = to_onnx(network, info.mean, info.std)
    if opt.int8:
        model = to_eight_bits(model, [seen.square for seen in photos])
    with atomic_path(output) as part:
        write(model, part, metadata(info, sha256(path), eight_bit=opt.int8))
        share = agreement(plain, Segmenter(engine=OnnxEngine(part), path=output, size=info.size), photos)
        if share < LEAST_AGREEMENT[opt.int8]:
            raise RunError(
                f"{output}: expected the classes that PyTorch gives on at least {LEAST_AGREEMENT[opt.int8]:.2%} of the "
                f"pixels, found {share:.2%}; nothing was written"
                + ("; --photos with more photos, like those it is for, helps" if opt.int8 else "")
            )
    megabytes = output.stat().st_size / 1e6
    print(
        f"{output}: {info.arch} in {'8 bits' if opt.int8 else 'float32'}, {megabytes:.1f} MB; the classes that PyTorch "
        f"gives on {share:.3%} of the pixels of {len(photos)} photos"
    )
    return output


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(ExportOptions, argv)
    print(describe(opt))
    export(opt)
    return 0


if __name__ == "__main__":
    run_script(main, RunError, DataError)
