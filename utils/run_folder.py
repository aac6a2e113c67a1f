"""Where a training run keeps its results, so that it can go on whatever happens to it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from cloth_segmentation.errors import RunError
from cloth_segmentation.weights_info import WeightsInfo
from utils.weights_files import read_file, save_file, save_weights

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class RunFolder:
    """Where a run keeps its results.

    options.json                        the options it was last started with
    photos.csv                          the photos it was last started with, and which are held out
    training_state.pth                  all that is needed to go on
    training_state_previous.pth         the same of the save before, should the newer file not have survived
    .lock                               held by the process that trains; empty until there is a state
    checkpoints/itr_00001000_u2net.pth  weights after a number of steps
    checkpoints/best_u2net.pth          weights with the best validation IoU so far
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options_path = folder / "options.json"
        self.photos_path = folder / "photos.csv"
        self.lock_path = folder / ".lock"
        self._claim: IO[str] | None = None
        self.state_path = folder / "training_state.pth"
        self.previous_path = folder / "training_state_previous.pth"
        self.weights_folder = folder / "checkpoints"

    def open(self, *, go_on: bool) -> dict[str, Any] | None:
        """Claim the folder, and give the state to go on from; None for a run that begins.

        What a killed run has left half-written is removed. Where the newest state is damaged it is put aside, the one
        before is taken, and that is printed.

        Raises:
            RunError: the run would overwrite another's results, there is nothing to go on from, or another process
                trains in the folder.
        """
        has_state = self.state_path.exists() or self.previous_path.exists()
        has_weights = any(self.weights_folder.glob("*.pth"))
        if go_on and not self.folder.exists():
            raise RunError(f"--continue_train: expected the run {self.folder}, found none; is --name right?")
        if go_on and not has_state and self._had_state():
            raise RunError(
                f"{self.state_path}: expected a state to go on from, found none; a new run, under another --name, can "
                f"start from the weights in {self.weights_folder}, by --unet_checkpoint"
            )
        if not go_on and (has_state or has_weights):
            raise RunError(
                f"{self.folder} holds the results of a run, which this one would overwrite; "
                "go on with it by --continue_train, or give this one another --name"
            )
        if self.folder.exists():
            self.claim()
            for unfinished in self.folder.glob("**/.*.part"):
                unfinished.unlink(missing_ok=True)
        return self._newest_state() if has_state else None

    def claim(self) -> None:
        """Keep other processes from training here for as long as this one lives. Makes the folders; once is enough.

        Raises:
            RunError: another process does.
            OSError: they cannot be written.
        """
        if self._claim is not None:
            return
        self.weights_folder.mkdir(parents=True, exist_ok=True)
        claim = self.lock_path.open("a")
        try:
            if fcntl is not None:
                fcntl.lockf(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)  # processes that it forks do not inherit it
        except (BlockingIOError, PermissionError):
            raise RunError(
                f"{self.folder}: expected no other process to train in it, found one; wait for it, end it, or give "
                "this run another --name"
            ) from None
        except OSError:
            pass  # a file system without locks
        self._claim = claim

    def _had_state(self) -> bool:
        """Whether a state was ever saved. Weights do not tell: a run may be killed between them and its first state."""
        return self.lock_path.exists() and self.lock_path.stat().st_size > 0

    def _check_there(self) -> None:
        """Raise RunError if the folder has vanished: a new one of its name may be on another disk, and be lost."""
        if self._claim is None:
            return
        try:
            there = os.path.samestat(os.fstat(self._claim.fileno()), self.lock_path.stat())
        except OSError:
            there = False
        if not there:
            raise RunError(
                f"{self.folder}: expected the folder that this run began in, found none or another one of its name; is "
                "its disk still there? Once it is back, --continue_train goes on from what was saved in it"
            )

    def _newest_state(self) -> dict[str, Any]:
        try:
            return _read_state(self.state_path)
        except RunError as newest:
            try:
                state = _read_state(self.previous_path)
            except RunError as older:
                raise RunError(
                    f"{newest}; {older}; there is no other state to go on from. A new run can start from the weights "
                    f"in {self.weights_folder}, by --unet_checkpoint"
                ) from older
            aside = ""
            if self.state_path.exists():
                # Or it would take the place of the good one at the next save.
                damaged = self.folder / "training_state_damaged.pth"
                self.state_path.replace(damaged)
                aside = f", which is now {damaged.name}"
            print(
                f"Left out: {newest}{aside}. Going on from {self.previous_path}, of the save before.", file=sys.stderr
            )
            return state

    def save_step(self, state: Mapping[str, Tensor], info: WeightsInfo, *, keep: int) -> Path:
        """Write the weights after a step; keep the last ``keep`` such files (0: all)."""
        self._check_there()
        path = self.weights_folder / f"itr_{info.step:08d}_{info.arch}.pth"
        save_weights(path, state, info)
        if keep:
            for old in sorted(self.weights_folder.glob("itr_*.pth"))[:-keep]:
                old.unlink()
        return path

    def save_best(self, state: Mapping[str, Tensor], info: WeightsInfo) -> None:
        """Write the weights with the best validation IoU so far."""
        self._check_there()
        save_weights(self.weights_folder / f"best_{info.arch}.pth", state, info)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write all that is needed to go on; keep the state before. Raises RunError if it cannot be written."""
        self._check_there()
        save_file(state, self.state_path, self.previous_path)
        if self._claim is not None and not self._had_state():
            self._claim.write("a state was saved\n")
            self._claim.flush()


STATE = {"arch": str, "step": int, "draws": int, "best": float, "random": list, "parts": dict}
"""What a training state holds at least."""


def _read_state(path: Path) -> dict[str, Any]:
    state = read_file(path)
    wrong = [name for name, kind in STATE.items() if not isinstance(state.get(name), kind)]
    if wrong:
        raise RunError(f"{path}: expected a training state, found a file with no {wrong[0]} that would do")
    return state
