"""Networks in ONNX files, run by ONNX Runtime. PyTorch is not imported, which saves seconds and memory."""

import ctypes
import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from weakref import WeakSet

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cloth_segmentation.classes import CLOTHES
from cloth_segmentation.errors import DeviceError, RunError
from cloth_segmentation.files import known_kind, sha256
from cloth_segmentation.resources import cpu_threads, return_free_memory, return_large_blocks
from cloth_segmentation.weights_info import ONNX_SIDES, WeightsInfo

FORMAT = "cloth-segmentation onnx 1"

INPUT, OUTPUT = "photos", "logits"
"""Names of the graph's input, (N, H, W, 3) uint8 in RGB, and output, (N, C, H, W) float32."""


PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""Execution providers of ONNX Runtime by the short names of devices. Others are named in full."""


def find_provider(device: str) -> tuple[str, dict[str, str]]:
    """The execution provider for a device, and its settings.

    Args:
        device: auto (the CPU) or one of ``PROVIDERS``; cuda:N is GPU number N; or a provider's own name.

    Raises:
        DeviceError: this ONNX Runtime does not have it.
    """
    name, colon, number = device.partition(":")
    if colon and not (name in ("cuda", "directml") and number.isdecimal()):
        name = device  # no device that is known
    available = onnxruntime.get_available_providers()
    provider = PROVIDERS.get("cpu" if name == "auto" else name, name)
    if provider in available:
        return provider, {"device_id": number} if number else {}
    if not provider.endswith("ExecutionProvider"):
        raise DeviceError(
            f"device: expected auto, {', '.join(PROVIDERS)}, cuda:N or an execution provider of ONNX Runtime "
            f"({', '.join(available)}), found {device!r}"
        )
    package = {"CUDAExecutionProvider": "onnxruntime-gpu", "DmlExecutionProvider": "onnxruntime-directml"}
    raise DeviceError(
        f"device {device}: expected an ONNX Runtime that has {provider}, found one that has {', '.join(available)}; "
        f"install {package.get(provider, 'one')} instead of onnxruntime, or take device cpu"
    )


_engines: "WeakSet[OnnxEngine]" = WeakSet()
_opening = Lock()


def _leave_sessions_alone() -> None:
    """In a forked process: let go of all sessions, without their end, which would wait for threads that are not here.

    An engine opens its file again when it first runs here.
    """
    global _opening
    _opening = Lock()
    for engine in _engines:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine._session))
        engine._session = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_sessions_alone)


class OnnxEngine:
    """A network in a file that export.py wrote, or in the form in which other tools export U2NET for clothes.

    Forked processes and threads may share one.

    Attributes:
        name: what runs it, for people.
        info: what the weights say about themselves.
        source: SHA-256 of the weights file that it was made from; None: not known.
        eight_bit: whether it calculates with 8-bit integers.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Read a file.

        Args:
            path: the file.
            device: see ``find_provider``.

        Raises:
            RunError: it is missing, or holds no network for clothes.
            DeviceError: the device is not here, or the number of threads that the environment asks for is none.
        """
        if not path.is_file():
            weights = path.with_suffix(".pth")
            remedy = f"; in a clone, python export.py --checkpoint {weights} makes one" if weights.is_file() else ""
            raise RunError(f"{path}: expected a network in an ONNX file, found no file{remedy}")
        self.path, self.device = path.absolute(), device
        self.sha256 = sha256(path)
        self._session = self._open()
        _engines.add(self)
        return_free_memory()  # glibc keeps as much as the weights take
        try:
            stated = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise RunError(f"{path}: expected metadata in UTF-8, found others; the file is damaged") from error
        self.source: str | None = None
        self.eight_bit = False
        self._foreign = _as_exported_elsewhere(self._session, path) if "format" not in stated else None
        if self._foreign:
            self.info = self._foreign
            self._fixed = all(isinstance(side, int) for side in self._session.get_inputs()[0].shape[2:])
        elif stated.get("format") != FORMAT:
            raise RunError(
                f"{path}: expected {FORMAT!r}, found {stated.get('format') or 'a file of another program'}; "
                "in a clone, python export.py --checkpoint WEIGHTS.pth makes one"
            )
        else:
            self._read_own(stated)
        where = "the CPU" if self._provider == PROVIDERS["cpu"] else device
        self.name = f"ONNX Runtime on {where}" + (", in 8 bits" if self.eight_bit else "")

    def _open(self) -> onnxruntime.InferenceSession:
        """Open the file in this process. Raises RunError."""
        self._provider, extra = find_provider(self.device)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4  # what fails is raised as well, and said in a sentence
        # A planned layout of all tensors of a size takes 1.1 GB more at 768 x 768 than tensors that come and go.
        settings.enable_mem_pattern = False
        settings.intra_op_num_threads = cpu_threads()
        if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":  # OpenMP's word for threads that give way
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return_large_blocks()
        try:
            session = onnxruntime.InferenceSession(
                self.path, settings, providers=[(self._provider, extra)], enable_fallback=0
            )
        except Exception as error:  # its errors have no common class
            with self.path.open("rb") as file:
                begin = file.read(512)
            known = known_kind(begin)
            began = begin.startswith(b"\x08") or not begin.strip(b"\0")
            if not known and began and "INVALID_PROTOBUF" in str(error):
                known = "one that is cut off or damaged; copy or download it again"
            reason = str(error).strip().split("\n")[0][:200]
            if not known and self._provider != PROVIDERS["cpu"]:
                raise DeviceError(
                    f"device {self.device}: expected {self._provider} to run {self.path.name}, found that it cannot "
                    f"({reason}); take device cpu"
                ) from error
            raise RunError(
                f"{self.path}: expected an ONNX file, found "
                f"{known or f'one that ONNX Runtime cannot read ({reason})'}; "
                "in a clone, python export.py --checkpoint WEIGHTS.pth makes one"
            ) from error
        used = session.get_providers()[0]
        if used != self._provider:  # a library of it is missing, which ONNX Runtime passes over
            raise DeviceError(
                f"device {self.device}: expected {self._provider} to start, found {used} in its place; see to its "
                "driver and libraries, or take device cpu"
            )
        return session

    def _open_again(self) -> onnxruntime.InferenceSession:
        """Open the file in a forked process, if it is still the same. Raises RunError."""
        with _opening:
            if self._session is None:
                if not self.path.is_file() or sha256(self.path) != self.sha256:
                    raise RunError(f"{self.path}: expected the weights that were loaded before, found others or none")
                self._session = self._open()
        return self._session

    def _read_own(self, stated: Mapping[str, str]) -> None:
        """Take in what a file that export.py wrote says about itself. Raises RunError."""
        try:
            self.source, self.eight_bit = stated["source_sha256"], stated["eight_bit"] == "yes"
            self.info = WeightsInfo.read(json.loads(stated["info"]))
            found = _ends(self._session)
            if found != [(INPUT, "tensor(uint8)"), (OUTPUT, "tensor(float)")]:
                raise ValueError(f"found a network from and to {found}")
            if (channels := self._session.get_outputs()[0].shape[1]) != len(self.info.classes):
                raise ValueError(f"found {channels} classes in the network, and the names of {len(self.info.classes)}")
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{self.path}: expected a file as export.py writes it, found one that was changed since ({error})"
            ) from error

    def __call__(self, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB photos (N, H, W, 3) -> logits (N, C, H, W).

        Raises:
            RunError: the sides are no multiples of 32, or not those that the file asks for, or the network fails.
            MemoryError: there is too little.
        """
        session = self._session or self._open_again()
        try:
            return self._run_foreign(session, photos) if self._foreign else self._run_own(session, photos)
        except RunError:
            raise
        except Exception as error:
            if "allocate" in str(error):
                raise MemoryError(str(error)) from error
            raise RunError(
                f"{self.path}: expected a network as export.py writes it, found one that fails ({error})"
            ) from error

    def _run_own(self, session: onnxruntime.InferenceSession, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = photos.shape[1:3]
        if height % ONNX_SIDES or width % ONNX_SIDES:
            raise RunError(
                f"{self.path}: expected photos whose sides are multiples of {ONNX_SIDES} pixels, found {width} x "
                f"{height}; give another --size, or take --engine torch"
            )
        logits: NDArray[np.float32] = session.run([OUTPUT], {INPUT: photos})[0]
        return logits

    def _run_foreign(self, session: onnxruntime.InferenceSession, photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One photo at a time, which is all that these files take."""
        height, width = photos.shape[1:3]
        if self._fixed and (width, height) != self.info.size:
            raise RunError(
                f"{self.path}: expected photos of {self.info.size[0]} x {self.info.size[1]} pixels, the only size that "
                f"this network takes, found {width} x {height}; leave out --size"
            )
        (name, _), (fused, _) = _ends(session)[:2]
        results = []
        for photo in photos:
            square = (photo.astype(np.float32) / 255 - self.info.mean) / self.info.std
            square = np.ascontiguousarray(square.transpose(2, 0, 1)[None], dtype=np.float32)
            results.append(session.run([fused], {name: square})[0])
        logits: NDArray[np.float32] = np.concatenate(results)
        return logits


def _ends(session: onnxruntime.InferenceSession) -> list[tuple[str, str]]:
    """(name, type) of the inputs and outputs of a network."""
    return [(value.name, value.type) for value in (*session.get_inputs(), *session.get_outputs())]


def _as_exported_elsewhere(session: onnxruntime.InferenceSession, path: Path) -> WeightsInfo | None:
    """What is known of a U2NET for our classes that another tool exported; None: it is none.

    Its graph tells: one input (1, 3, H, W) and seven outputs (1, 4, H, W), the fused one first, all float32. It was
    trained with mean and standard deviation 0.5, as the original system does.

    Raises:
        RunError: it tells another number of classes apart.
    """
    ends = [*session.get_inputs(), *session.get_outputs()]
    shapes = [list(end.shape) for end in ends]
    if len(ends) != 8 or any(end.type != "tensor(float)" or len(end.shape) != 4 for end in ends):
        return None
    batch, channels, *sides = shapes[0]
    classes = {shape[1] for shape in shapes[1:]}
    # Names stand for dimensions that may vary.
    same_sides = all(
        isinstance(own, str) or isinstance(side, str) or own == side
        for shape in shapes[1:]
        for own, side in zip(shape[2:], sides, strict=True)
    )
    if channels != 3 or len(classes) != 1 or not same_sides or (isinstance(batch, int) and batch != 1):
        return None
    if classes != {len(CLOTHES)}:
        raise RunError(
            f"{path}: expected a U2NET for {len(CLOTHES)} classes ({', '.join(CLOTHES.names)}), found one for "
            f"{classes.pop()}, which it does not name"
        )
    height, width = (side if isinstance(side, int) else 768 for side in sides)  # that of the original
    return WeightsInfo("u2net", CLOTHES, (width, height))


def metadata(info: WeightsInfo, source: str, *, eight_bit: bool) -> dict[str, str]:
    """The metadata of an ONNX file: names and texts.

    Args:
        info: of the weights.
        source: SHA-256 of the weights file.
        eight_bit: whether weights and activations are 8-bit integers.
    """
    return {
        "format": FORMAT,
        "info": json.dumps(info.to_dict()),
        "palette": json.dumps(info.classes.palette),  # for other programs, which draw masks
        "source_sha256": source,
        "eight_bit": "yes" if eight_bit else "no",
    }
