"""Weights files and the state of a training run: the one place that knows their formats.

A weights file is what ``torch.save`` makes of a plain dictionary: the tensors under "state_dict", beside them what
they are (architecture, classes, size, normalisation). Files of other programs, a bare state dict with or
without the "module." that DistributedDataParallel puts before each key, are read as well. Nothing but tensors and
plain values is ever unpickled.
"""

import copy
import hashlib
import mmap
import pickletools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from cloth_segmentation.classes import CLOTHES, MOST_CLASSES, ClassSet
from cloth_segmentation.errors import RunError
from cloth_segmentation.files import atomic_path, known_kind
from cloth_segmentation.weights_info import WeightsInfo

StateDict = dict[str, Tensor]
Architectures = Mapping[str, Callable[[int, int], nn.Module]]
"""{name: constructor that takes the channels of the photo and the number of classes}."""

FORMAT = "cloth-segmentation weights 1"

KNOWN_NAMES = {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("Bool", "Byte", "Char", "Short", "Int", "Long")),
    *(f"torch {kind}Storage" for kind in ("Half", "BFloat16", "Float", "Double")),
}
"""What pickled tensors ask for. PyTorch allows more, some of which takes any amount of memory."""


OLDER_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What files of PyTorch before 1.6 begin with: a number, pickled."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32)
"""Types of numbers in weights files."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Names under which files hold the tensors, beside other things."""

DEEPEST = 5
"""Dictionaries within one another that are opened; a pickled one may hold itself."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What stands before all keys where the network was a part of something: DistributedDataParallel, torch.compile, ..."""


def save_weights(path: Path, state: Mapping[str, Tensor], info: WeightsInfo) -> None:
    """Write a weights file. Raises RunError if it cannot be written; the file of that name stays as it was."""
    save_file(
        {"format": FORMAT, **info.to_dict(), "state_dict": {key: value.cpu() for key, value in state.items()}}, path
    )


def save_file(content: Mapping[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write what ``read_file`` reads; ``previous`` is as in ``files.atomic_path``.

    Raises:
        RunError: it cannot be written.
    """
    try:
        with atomic_path(path, previous) as part, part.open("wb") as file:
            torch.save(dict(content), file)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer raises an error of its own while it handles the system's.
        reason = error if isinstance(error, OSError) else error.__context__
        if not isinstance(reason, OSError):
            raise
        raise RunError(
            f"{path} could not be written ({reason.strerror}); what was saved before is whole. See to room and rights, "
            "then go on"
        ) from error


def load_network(
    path: Path, architectures: Architectures, classes: ClassSet | None = None, *, arch: str | None = None
) -> tuple[nn.Module, WeightsInfo]:
    """Read a weights file and build its network.

    Args:
        path: the file.
        architectures: the networks it may hold.
        classes: those that it should tell apart; None: any that it names, or the four of clothes.
        arch: the network it should hold; None: any of them.

    Raises:
        RunError: the file is missing, no weights file, or holds something else.
    """
    try:
        content = read_file(path)
    except PermissionError:
        raise RunError(f"{path}: expected a weights file, found one that may not be read") from None
    state = state_dict_of(content, path)
    found_arch, found_classes = _recognise(state, architectures, path)
    if arch not in (None, found_arch):
        raise RunError(f"{path}: expected {arch}, found {found_arch}; give --arch {found_arch} or another file")
    info = read_info(content, found_arch, found_classes, path)
    named = info.classes if info else None
    wanted = classes or named or CLOTHES
    if found_classes != len(wanted) or (named or wanted).names != wanted.names:
        found = f"{found_classes}: {listed(named.names)}" if named else f"{found_classes}, which it does not name"
        raise RunError(
            f"{path}: expected {found_arch} for {len(wanted)} classes ({listed(wanted.names)}), found it for {found}; "
            "original U2-Net weights, and those for other classes, need a new head "
            f"(setup_model_weights.py --arch {found_arch} --source {path} --classes ...) and training"
        )
    _check_finite(state, path)
    network = architectures[found_arch](3, found_classes)
    network.load_state_dict(state)
    return network, info or WeightsInfo(found_arch, wanted)


def read_info(content: Mapping[str, Any], arch: str, classes: int, path: Path) -> WeightsInfo | None:
    """What a weights file says about itself. Of one that says nothing, nothing is known, unless it has four classes.

    These are the original's, whose files say nothing.

    Args:
        content: of the file, as ``read_file`` gives it.
        arch: architecture of its tensors.
        classes: number of their classes.
        path: the file, for errors.

    Raises:
        RunError: what it says cannot be.
    """
    if not str(content.get("format")).startswith("cloth-segmentation "):
        return WeightsInfo(arch, CLOTHES) if classes == len(CLOTHES) else None
    if content["format"] != FORMAT:
        raise RunError(f"{path}: expected {FORMAT!r}, found {content['format']!r}; it needs another version of this")
    try:
        return WeightsInfo.read(content)
    except ValueError as error:
        raise RunError(f"{path}: {error}; the file is damaged, or no weights file of ours") from error


def read_file(path: Path) -> dict[str, Any]:
    """Content of a file that ``torch.save`` or safetensors wrote: a dictionary of tensors and plain values.

    Raises:
        RunError: the file is missing, damaged, or holds anything else.
    """
    if path.is_dir():
        raise RunError(f"{path}: expected a weights file, found a folder")
    try:
        with path.open("rb") as file:
            begin = file.read(512)
    except FileNotFoundError:
        raise RunError(f"{path}: expected a weights file, found none") from None
    is_zip = begin.startswith(b"PK\x03\x04")  # as PyTorch tells its own format from the one before
    try:
        if is_zip:
            _check_zip(path)
        if _is_safetensors(begin):
            return dict(load_safetensors(path))
        strange = _strange_names(path, is_zip)
        if any(name.startswith("torch.nn.") for name in strange):
            raise RunError(
                f"{path}: expected a file of tensors, found a whole pickled model, which cannot be read without "
                f"running code ({strange[0]}); where it was made, torch.save(network.state_dict(), ...) saves its "
                "weights alone"
            )
        if strange:
            raise RunError(
                f"{path}: expected a file of tensors that torch.save wrote, found one that cannot be read safely, "
                f"since it asks for {strange[0]}; if it is yours, save network.state_dict() instead"
            )
        # Mapped, a tensor that claims more than the file holds is refused; otherwise PyTorch 2.9 reads on in memory
        # (2.14 does not). The copy lets go of the file.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        if is_zip:
            content = copy.deepcopy(content)
    except (PermissionError, MemoryError, RunError):
        raise
    except Exception as error:  # a broken file makes the unpickler raise nearly anything
        raise RunError(
            f"{path}: expected a file of tensors that torch.save wrote, found {_name_kind(path, begin, error)}"
        ) from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a dictionary of tensors, found {type(content).__name__}")
    return content


def _is_safetensors(begin: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header in 8 bytes, and the header."""
    return begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < 2**27


def _check_zip(path: Path) -> None:
    """Raise BadZipFile if a part is damaged, which PyTorch does not see, or unpacks to more than is there."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        twice = len(parts) - len({part.filename for part in parts})
        if twice or unpacked > path.stat().st_size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise zipfile.BadZipFile("parts are compressed, overlap or share a name")
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)


def _strange_names(path: Path, is_zip: bool) -> list[str]:
    """Functions and classes that a file asks for and tensors do not need; nothing is unpickled to tell."""
    if not is_zip:
        # Mapped, since a file would make room for as many bytes as a pickle claims, before it reads them.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found: list[str] = []
            try:
                for _ in range(5):  # one after another, before the numbers
                    found += _names(cast(IO[bytes], content))
            except ValueError:  # it is cut off, or torch.save did not write it
                if not found:
                    raise
            return found
    with zipfile.ZipFile(path) as archive:
        return [
            name for part in archive.namelist() if part.endswith("/data.pkl") for name in _names(archive.open(part))
        ]


def _names(pickled: IO[bytes]) -> list[str]:
    """Those of one pickle."""
    asked = [
        argument for code, argument, _ in pickletools.genops(pickled) if code.name in ("GLOBAL", "INST", "STACK_GLOBAL")
    ]
    return [str(name or "names that only running it tells") for name in asked if name not in KNOWN_NAMES]


def _name_kind(path: Path, begin: bytes, error: Exception) -> str:
    """What a file that cannot be read seems to be, and what to do."""
    again = "copy or download it again"
    if known := known_kind(begin):
        return known if begin else f"{known}; {again}"
    if path.suffix == ".onnx" or begin.startswith(b"\x08"):  # its first field, the version
        return "an ONNX file, or what looks like one; the names of ONNX files end in .onnx"
    names: list[str] = []
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # a damaged one provokes nearly anything
        names = archive.namelist()
    if names and not any(name.endswith("data.pkl") for name in names):
        return f"an archive of {_shorten(names)}; unpack it and name the weights in it"
    began = begin.startswith((b"PK", OLDER_FORMAT)) or OLDER_FORMAT.startswith(begin) or not begin.strip(b"\0")
    if began or isinstance(error, SafetensorError) or path.suffix == ".safetensors":
        return f"one that is cut off or damaged; {again}"
    return "one of another kind; name one that torch.save or safetensors wrote"


def state_dict_of(content: Mapping[str, Any], path: Path) -> StateDict:
    """The tensors of a file's content, without what DistributedDataParallel and others put before every key.

    Raises:
        RunError: it is no state dict, or has tensors that claim more numbers than the file holds.
    """
    state: Any = content
    for _ in range(DEEPEST):
        state = _wrapped(state) or state
    if not _is_state_dict(state):
        if isinstance(content.get("parts"), dict) and "step" in content:
            raise RunError(
                f"{path}: expected weights, found the state of a run; the run's weights are beside it, in checkpoints/"
            )
        raise RunError(
            f"{path}: expected a state dict of tensors, found {_shorten(list(content))}; where it was made, "
            "torch.save(network.state_dict(), ...) saves one"
        )
    hollow = [key for key, value in state.items() if value.nbytes > value.untyped_storage().nbytes()]
    if hollow:
        raise RunError(f"{path}: expected dense tensors, found that one number stands for many in {hollow[0]}")
    prefixes = list(PREFIXES)
    while common := next((prefix for prefix in prefixes if all(key.startswith(prefix) for key in state)), None):
        state = {key.removeprefix(common): value for key, value in state.items()}
        prefixes.remove(common)
    return dict(state)


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _wrapped(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """What holds the tensors in a dictionary that holds other things too: by its name, or as the only one to do so."""
    for name in WRAPPERS:
        if isinstance(content.get(name), dict) and content[name]:
            return cast(dict[str, Any], content[name])
    found = [value for value in content.values() if _is_state_dict(value)]
    return found[0] if len(found) == 1 else None


def _check_finite(state: StateDict, path: Path) -> None:
    """Raise RunError if a number is NaN or infinite; the shapes must have been checked."""
    strange = [key for key, value in state.items() if value.dtype not in DTYPES]
    if strange:
        raise RunError(
            f"{path}: expected numbers in 16 to 64 bits, found {state[strange[0]].dtype} in {strange[0]}; save the "
            "weights in float32"
        )
    bad = [key for key, value in state.items() if not value.isfinite().all()]
    if bad:
        raise RunError(
            f"{path}: expected finite numbers, found NaN or infinity in {len(bad)} of {len(state)} tensors, {bad[0]} "
            "for one; the training that made them failed, or the file is damaged"
        )


def class_count(state: Mapping[str, Tensor]) -> int:
    """Number of classes of a state dict; 0 if it does not tell."""
    bias = state.get("outconv.bias")
    return len(bias) if bias is not None and bias.ndim == 1 and len(bias) <= MOST_CLASSES else 0


def _recognise(state: StateDict, architectures: Architectures, path: Path) -> tuple[str, int]:
    """(architecture, number of classes) of a state dict, by its keys and shapes."""
    classes = class_count(state)
    problems: list[str] = []
    known: set[str] = set()
    for name, build in architectures.items():
        with torch.device("meta"):
            expected = build(3, classes or 1).state_dict()
        known |= expected.keys()
        missing = [key for key in expected if key not in state]
        extra = [key for key in state if key not in expected]
        shapes = [key for key in expected if key in state and state[key].shape != expected[key].shape]
        if not (missing or extra or shapes):
            return name, classes
        problem = f"{name}: {len(missing)} tensors missing, {len(extra)} too many, {len(shapes)} of another shape"
        example = (missing or extra or shapes)[0]
        problems.append(f"{problem}, {example} for one")
    expectation = f"{path}: expected the weights of {' or '.join(architectures)}, found"
    if not known & state.keys():
        count = f"{len(state)} tensor" + "s" * (len(state) != 1)
        raise RunError(f"{expectation} {count} of another network ({_shorten(list(state), 2)}); name another file")
    raise RunError(f"{expectation} {len(state)} tensors that fit neither ({'; '.join(problems)})")


def listed(names: Sequence[str]) -> str:
    """Names of classes in a message."""
    return _shorten(names, 8)


def is_head(key: str) -> bool:
    """Whether a tensor belongs to the layers whose shape depends on the number of classes."""
    return key.startswith(("side", "outconv"))


def transplant(
    source: StateDict, network: nn.Module, path: Path, kept: Mapping[int, int] | None = None
) -> tuple[list[str], list[str]]:
    """Model surgery: give a network every tensor of the source but the head's, of which it gets some channels.

    Args:
        source: weights of the same architecture with any number of classes.
        network: changed in place.
        path: the source's file, for errors.
        kept: {class of the network: class of the source that it continues}; the head's other channels stay.

    Returns:
        Names of the tensors that (carried over, are of the head).

    Raises:
        RunError: anything but the head is missing, left over, of another shape or not finite.
    """
    target = network.state_dict()
    carried = [key for key in target if not is_head(key)]
    missing = [key for key in carried if key not in source]
    extra = [key for key in source if key not in target]
    shapes = [key for key in carried if key in source and source[key].shape != target[key].shape]
    if missing or extra or shapes:
        key = (missing or extra or shapes)[0]
        raise RunError(
            f"{path}: expected {len(carried)} tensors of {type(network).__name__} and its head, found {len(source)}: "
            f"{len(missing)} missing, {len(extra)} left over, {len(shapes)} of another shape, {key} for one; "
            "is it the other architecture (--arch)?"
        )
    head = [key for key in target if key not in carried]
    _check_finite({key: source[key] for key in (*carried, *(head if kept else ())) if key in source}, path)
    try:
        grafted = {key: _graft(source[key], target[key], kept) if kept else target[key] for key in head}
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: expected a head whose classes are those it names, found another ({error})") from error
    network.load_state_dict({key: grafted[key] if key in grafted else source[key] for key in target})
    return carried, head


def _graft(source: Tensor, target: Tensor, kept: Mapping[int, int]) -> Tensor:
    """A tensor of the head with the source's channels of the classes that are kept.

    The last layer fuses side outputs: its input channels are the classes of each, one side after another.
    """
    result = target.clone()
    new, old = (torch.tensor(list(numbers)) for numbers in (kept.keys(), kept.values()))
    fuses = target.ndim == 4 and target.shape[2:] == (1, 1)
    sides = target.shape[1] // len(target) if fuses else 0
    wanted = (len(source), sides * len(source), 1, 1) if fuses else (len(source), *target.shape[1:])
    if source.shape != wanted or len(source) <= max(kept.values()):
        raise ValueError(f"expected a tensor of {wanted}, found one of {tuple(source.shape)}")
    if not fuses:
        result[new] = source[old].to(target.dtype)
        return result
    after = result.view(len(target), sides, len(target))
    before = source.to(target.dtype).view(len(source), sides, len(source))
    after[new[:, None], :, new[None]] = before[old[:, None], :, old[None]]
    return result


def mean_state(states: Sequence[Mapping[str, Tensor]]) -> StateDict:
    """Mean of several state dicts with the same keys and shapes; counts, which are integers, are the last one's.

    Weights that were trained further from the same ones lie in one valley of the loss, and their mean generalises
    better than each (Wortsman et al., "Model soups", ICML 2022, arXiv 2203.05482).
    """
    return {
        key: torch.stack([state[key] for state in states]).mean(0) if last.is_floating_point() else last
        for key, last in states[-1].items()
    }


class Stateful(Protocol):
    """Whatever has a state dict: a network, an optimizer, a gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over all tensors of a state dict, to tell whether two are equal bit for bit."""
    total = hashlib.sha256()
    for tensor in state.values():
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def random_state() -> dict[str, Any]:
    """State of this process's random numbers, on the CPU and its GPU."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of ``random_state``."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _shorten(names: Sequence[object], limit: int = 5) -> str:
    shown = ", ".join(str(name) for name in names[:limit])
    return f"{shown}, ..." if len(names) > limit else shown or "nothing"
