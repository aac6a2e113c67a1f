"""What a person sees of a training run: progress bar, TensorBoard, messages. Silent in all ranks but the main one."""

import math
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cloth_segmentation.errors import RunError
from utils.distributed import Processes
from utils.event_file import EventFile

SMOOTHING = 0.95
"""Share of the old value in the smoothed loss of the progress bar."""


class RunLog:
    """Log of one run.

    Losses stay on their device until they are shown, so that logging does not make a GPU wait: every ``print_freq``
    steps, and whenever ``flush`` is called, they are averaged over the processes, checked and written.

    Args:
        folder: of the TensorBoard files.
        processes: of the run.
        start: steps that earlier runs have done. Later entries of theirs are hidden.
        steps: of the whole run.
        print_freq: steps between two entries.
        scaled: gradients may overflow, since a gradient scaler leaves out such steps (fp16).
    """

    def __init__(
        self, folder: Path, processes: Processes, *, start: int, steps: int, print_freq: int, scaled: bool = False
    ) -> None:
        self.processes = processes
        self.scaled = scaled
        self.print_freq = print_freq
        self.smoothed = math.nan
        self._start, self._begun = start, time.perf_counter()
        self._validated: dict[str, str] = {}
        self._waiting: list[tuple[int, Tensor, dict[str, float]]] = []
        self._photos = 0
        self.skipped = 0  # photos, by all processes, up to the last entry
        self._skipped = 0
        self._named: set[str] = set()
        self._clock = time.perf_counter()
        self._board = EventFile(folder, start) if processes.is_main else None
        self._bar = tqdm(
            total=steps,
            initial=start,
            unit="step",
            disable=not processes.is_main,
            mininterval=0.2 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
        )

    def step(self, step: int, *, total: Tensor, fused: Tensor, grad_norm: Tensor, lr: float, photos: int) -> None:
        """Note a step.

        Args:
            step: steps done, this one included.
            total: the loss, a scalar.
            fused: the loss of the fused output alone, a scalar.
            grad_norm: before clipping, a scalar.
            lr: learning rate.
            photos: seen in this step by all processes.

        Raises:
            RunError: a loss or a gradient is not finite.
        """
        numbers = torch.stack((total.detach(), fused.detach(), grad_norm.detach()))
        self._waiting.append((step, numbers, {"learning_rate": lr}))
        self._photos += photos
        if step % self.print_freq == 0:
            self.flush()
        self._bar.update()

    def flush(self) -> None:
        """Check and write what is waiting; every process must call it at the same steps. Raises as ``step`` does."""
        if not self._waiting:
            return
        numbers = self.processes.sum(torch.stack([entry[1] for entry in self._waiting])) / self.processes.world_size
        for (step, _, _), (total, fused, grad_norm) in zip(self._waiting, numbers.tolist(), strict=True):
            if not (math.isfinite(total) and math.isfinite(fused) and (self.scaled or math.isfinite(grad_norm))):
                raise RunError(
                    f"step {step}: expected a finite loss and gradient, found total {total}, fused output {fused}, "
                    f"gradient norm {grad_norm}; nothing was saved since. Try a lower --lr, a --warmup, or --amp off"
                )
            self.smoothed = total if math.isnan(self.smoothed) else SMOOTHING * self.smoothed + (1 - SMOOTHING) * total
        self.count_skipped()
        step, _, extra = self._waiting[-1]
        total, fused, grad_norm = numbers.mean(0).tolist()
        now = time.perf_counter()
        speed = self._photos / (now - self._clock)
        scalars = {"loss/total": total, "loss/fused": fused, "optimizer/gradient_norm": grad_norm}
        scalars |= {f"optimizer/{name}": value for name, value in extra.items()} | {"speed/photos_per_second": speed}
        if self.skipped:
            scalars["data/photos_skipped"] = self.skipped
        self.scalars(step, scalars)
        note = f", {self.skipped} skipped" if self.skipped else ""
        self._bar.set_postfix_str(f"loss {self.smoothed:.3f}, {speed:.3g} photos/s{note}", refresh=False)
        self._waiting.clear()
        self.restart_clock()

    def skip(self, problem: str) -> None:
        """Note that a photo could not be used; a photo that comes again is counted again, and named once.

        Every process names its own.
        """
        self._skipped += 1
        if problem not in self._named:
            self._named.add(problem)
            self._bar.write(f"Skipped: {problem}", file=sys.stderr)

    def count_skipped(self) -> None:
        """Sum over all processes, each of which must call it at the same steps."""
        self.skipped = int(self.processes.sum(torch.tensor(self._skipped)))

    def restart_clock(self) -> None:
        """Leave out of the speed what was done since the last entry."""
        self._photos = 0
        self._clock = time.perf_counter()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write curves; nan is left out."""
        if self._board is not None:
            for name, value in values.items():
                if not math.isnan(value):
                    self._board.scalar(step, name, value)

    def validation(self, step: int, summary: dict[str, Any]) -> None:
        """Write what ``metrics.summarise`` gives, and say it in one line."""
        named = {f"validation/iou_{name.replace(' ', '_')}": value for name, value in summary["iou"].items()}
        named |= {f"validation/{name}": summary[name] for name in ("mean_iou_clothes", "mean_iou", "pixel_accuracy")}
        self.scalars(step, {name: math.nan if value is None else value for name, value in named.items()})
        classes = ", ".join(f"{name} {'-' if iou is None else f'{iou:.3f}'}" for name, iou in summary["iou"].items())
        mean = summary["mean_iou_clothes"]
        figures = f"{classes}; clothes {'-' if mean is None else f'{mean:.3f}'}"
        self._validated = {"validation IoU": f"{figures}, at step {step}"}
        self.say(f"step {step}: validation IoU {figures}")

    def conclude(self, done: str, step: int, photos: int, weights: Mapping[str, str]) -> None:
        """Say and write what came of the run; every process must call it.

        Args:
            done: the first line.
            step: steps done, those of earlier processes included.
            photos: seen in all these steps.
            weights: what there is to say of the weights: name -> words.
        """
        self.count_skipped()
        took = timedelta(seconds=round(time.perf_counter() - self._begun))
        skipped = f"; photos were skipped {self.skipped} times" if self.skipped else ""
        facts = {
            "photos seen": str(photos),
            f"since step {self._start}": f"{step - self._start} steps in {took}{skipped}",
        }
        if not math.isnan(self.smoothed):
            facts["smoothed loss"] = f"{self.smoothed:.3f}"
        facts |= {**self._validated, **weights}
        text = "\n".join((done, *(f"  {name:<14}  {words}" for name, words in facts.items())))
        self.say(text)
        self.text("summary", text)

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        """Write a picture, (3, H, W) uint8."""
        if self._board is not None:
            self._board.picture(step, name, picture)

    def text(self, name: str, text: str) -> None:
        """Write a text, as it stands."""
        if self._board is not None:
            self._board.text(name, "```\n" + text + "\n```")

    def say(self, message: str) -> None:
        """Print a line without breaking the progress bar."""
        if self.processes.is_main:
            self._bar.write(message, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        """Write out what is buffered."""
        self._bar.close()
        if self._board is not None:
            self._board.close()
