"""Train the network: one process on a GPU or the CPU, or every process that a launcher starts.

python train.py
torchrun --nproc_per_node=4 train.py
"""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.command.script import blame, run_script
from cloth_segmentation.errors import DataError, RunError
from cloth_segmentation.files import atomic_path
from cloth_segmentation.launcher import restarts
from cloth_segmentation.segmenter import Engine
from cloth_segmentation.weights_info import WeightsInfo
from data.annotations import Annotations
from data.checks import read_checked
from data.class_sets import find_class_set
from data.dataset import LabelledPhotos, TrainingSquares
from data.label_map import ignored_label
from data.loader import (
    Batches,
    EndlessSampler,
    OneEpochSampler,
    Sample,
    little_shared_memory,
    make_loader,
    workers_expected,
)
from data.prepared import PreparedPhotos
from data.sides import Sides, choose_sides, write_sides
from data.transforms import Augmentation, normalise
from infer import Segmenter
from networks import ARCHITECTURES, U2NET, DeepSupervisionLoss
from options import TrainOptions, describe, parse, save
from utils.comparison import comparison
from utils.devices import check_precision
from utils.distributed import Processes
from utils.ema import ExponentialMovingAverage
from utils.metrics import confusion_matrix, summarise
from utils.run_folder import RunFolder
from utils.run_log import RunLog
from utils.schedule import learning_rate
from utils.stop_request import StopRequest
from utils.weights_files import (
    Stateful,
    digest,
    listed,
    load_network,
    random_state,
    read_file,
    restore_random_state,
)

PICTURES = 4
"""Photos in a logged picture."""


class Photos(NamedTuple):
    """What a run learns from and is measured on.

    Training photos that may not be used stay in the index, and so do the order and the share of validation: a run
    goes on as it was although a photo was lost, or found.
    """

    train: Annotations
    usable: NDArray[np.int64]  # numbers of the training photos that may be used
    held_out: Annotations | None
    all: Annotations  # of --df_path
    sides: Sides  # of all


class Training:
    """All that a run consists of, so that the loop below reads as what it does."""

    def __init__(self, opt: TrainOptions, processes: Processes, stop: StopRequest | None = None) -> None:
        self.opt, self.processes, self.stop = opt, processes, stop or StopRequest()
        self.device = processes.device
        check_precision(opt.amp, self.device.type)
        self.folder = RunFolder(Path(opt.save_dir) / opt.name)
        go_on = opt.continue_train or restarted(opt, self.folder.options_path)
        resumed = processes.on_main(lambda: self.folder.open(go_on=go_on))
        with blame("--classes", DataError):
            self.classes = find_class_set(opt.classes)
        self.class_changes = self._compare_classes(resumed) if resumed is not None else []
        record = self.folder.photos_path if resumed is not None else None
        photos = read_photos(opt, self.classes, processes, record)

        torch.manual_seed(opt.seed)
        torch.backends.cudnn.benchmark = True  # batches have one size, for which the fastest kernels are found
        self.network = self._network(resumed is not None).to(self.device)
        if opt.freeze == "encoder":
            self.network.freeze_encoder()
        if opt.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.ema = ExponentialMovingAverage(self.network, opt.ema) if opt.ema else None
        ignored = ignored_label(len(self.classes))
        self.loss = DeepSupervisionLoss(len(self.classes), region_weight=opt.region_loss, ignored=ignored)
        self.loss.to(self.device)
        self.teacher = self._teacher()
        self.optimizer = self._optimizer()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=opt.amp == "fp16")
        self.parts = self._parts()
        torch.manual_seed(opt.seed + processes.rank)  # all ranks have the same weights, and draw for themselves now

        self.step = self.draws = 0
        self.best = -1.0  # below any IoU, so that the first validation leaves weights
        self.best_step: int | None = None  # None: best is that of an earlier process
        self.latest_iou: float | None = None
        if resumed is not None:
            self._restore(resumed)
        self.parallel = self._parallel()

        self.loader = self._training_loader(photos)
        self.val_loader = self._validation_loader(photos)
        self.log = self._log()
        self.batches = Batches(self.loader, self.log.skip)
        self.loaded: list[tuple[Tensor, Tensor]] = []  # of the next step
        self._begin(photos, resumed is not None)

    def _begin(self, photos: Photos, resumed: bool) -> None:
        """Write options and photos into the run's folder, and say what begins."""
        changed = self.class_changes + self.processes.on_main(lambda: self._claim(photos))
        self.log.say(describe(self.opt))
        self.log.text("options", describe(self.opt))
        if resumed and changed:
            self.log.say(f"Changed since this run was last started: {', '.join(changed)}")
        if photos.sides.said:
            self.log.say(photos.sides.said)
        if self.opt.nThreads and (note := little_shared_memory()):
            self.log.say(note)
        held_out = len(photos.held_out) if photos.held_out else "none"
        self.log.say(
            f"{len(photos.usable)} photos for training, {held_out} for validation; {self.processes.world_size} "
            f"process(es) on {self.device.type}; step {self.step} of {self.opt.iter}"
        )

    def _claim(self, photos: Photos) -> list[str]:
        """Write options and photos into the run's folder; give the options that have changed: "lr 0.001 -> 0.01"."""
        with blame(f"--save_dir {self.opt.save_dir}: expected a folder that can be written", OSError):
            self.folder.claim()
            before, now = begun_with(self.folder.options_path), asdict(self.opt)
            with atomic_path(self.folder.options_path) as part:
                save(self.opt, part)
            write_sides(self.folder.photos_path, photos.all, photos.sides)
        for name in ("continue_train", "device", "distributed", "nThreads"):
            del now[name]  # nothing that a run learns depends on them
        return [f"{name} {before[name]} -> {now[name]}" for name in now if before.get(name, now[name]) != now[name]]

    def _network(self, resumed: bool) -> U2NET:
        opt = self.opt
        network = ARCHITECTURES[opt.arch](3, len(self.classes))
        if resumed or not opt.initial_weights:
            return network
        path = Path(opt.initial_weights)
        if not path.exists():
            raise RunError(
                f"{path}: expected initial weights, found none; make them by python setup_model_weights.py "
                f"--arch {opt.arch} --classes {shlex.quote(opt.classes)} --output {path}, name others by "
                '--unet_checkpoint, or give --unet_checkpoint "" for random ones'
            )
        network.load_state_dict(load_network(path, ARCHITECTURES, self.classes, arch=opt.arch)[0].state_dict())
        return network

    def _optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.network.parameters(),
            lr=self.opt.lr,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=self.opt.weight_decay,
            fused=True if self.device.type == "cuda" else None,
        )

    def _parts(self) -> dict[str, Stateful]:
        """What a state holds, by its name there."""
        parts: dict[str, Stateful] = {"network": self.network, "optimizer": self.optimizer}
        if self.scaler.is_enabled():
            parts["scaler"] = self.scaler
        if self.ema is not None:
            parts["ema"] = self.ema
        return parts

    def _parallel(self) -> nn.Module:
        """The network as all processes train it. What is saved, averaged and validated stays ``self.network``."""
        parallel = self.processes.wrap(self.network)
        return torch.compile(parallel) if self.opt.compile else parallel  # type: ignore[return-value]

    def _training_loader(self, photos: Photos) -> DataLoader[Sample]:
        squares = self._squares(photos.train, self.opt.image_folder, photos.usable)
        sampler = EndlessSampler(
            len(squares),
            seed=self.opt.seed,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            start=self.draws,
            shuffle=not self.opt.serial_batches,
        )
        return self._loader(squares, sampler, "replace")

    def _validation_loader(self, photos: Photos) -> DataLoader[Sample] | None:
        if photos.held_out is None:
            return None
        squares = self._squares(photos.held_out, self.opt.val_image_folder or self.opt.image_folder)
        share = OneEpochSampler(len(squares), rank=self.processes.rank, world_size=self.processes.world_size)
        return self._loader(squares, share, "leave_out")

    def _log(self) -> RunLog:
        return RunLog(
            Path(self.opt.logs_dir) / self.opt.name,
            self.processes,
            start=self.step,
            steps=self.opt.iter,
            print_freq=self.opt.print_freq,
            scaled=self.scaler.is_enabled(),
        )

    def _teacher(self) -> Engine | None:
        """What runs the network to learn from; None: labels alone teach."""
        if not self.opt.teacher:
            return None
        with blame("--teacher", RunError):
            teacher = Segmenter.open(Path(self.opt.teacher), str(self.device), "auto", self.opt.amp)[1]
            if teacher.info.classes.names != self.classes.names:
                raise RunError(
                    f"{self.opt.teacher}: expected weights for the classes of --classes {self.opt.classes}, found "
                    f"them for {', '.join(teacher.info.classes.names)}"
                )
            return teacher

    def _squares(
        self, index: Annotations, image_folder: str, usable: NDArray[np.int64] | None = None
    ) -> TrainingSquares:
        """Training squares if ``usable`` is given, squares to measure on if not."""
        opt = self.opt
        augmentation = Augmentation(
            pair=opt.augment_pair,
            portrait=opt.augment_portrait,
            crop=opt.augment_crop,
            flip=opt.augment_flip,
            scale=opt.augment_scale,
            rotate=opt.augment_rotate,
            shift=opt.augment_shift,
            color=opt.augment_color,
            recolor=opt.augment_recolor,
            ignored=ignored_label(len(self.classes)),
        )
        size = (opt.fine_width, opt.fine_height)
        return TrainingSquares(
            self._photos(index, Path(image_folder)), size, None if usable is None else augmentation, usable=usable
        )

    def _photos(self, index: Annotations, image_folder: Path) -> LabelledPhotos:
        rescale = self.opt.rescale
        if not self.opt.prepared_dir:
            return LabelledPhotos(index, image_folder, rescale=rescale)
        folder = Path(self.opt.prepared_dir)
        return PreparedPhotos(index, image_folder, folder=folder, writer=atomic_path, rescale=rescale)

    def _loader(
        self, squares: TrainingSquares, sampler: EndlessSampler | OneEpochSampler, on_bad_sample: str
    ) -> DataLoader[Sample]:
        return make_loader(
            squares,
            sampler,
            batch_size=self.opt.batchSize,
            workers=self.opt.nThreads,
            pin_memory=self.device.type == "cuda",
            on_bad_sample=on_bad_sample if self.opt.on_bad_sample == "skip" else "stop",
            at_once=self.opt.accumulate,
        )

    def _restore(self, state: dict[str, Any]) -> None:
        if state["arch"] != self.opt.arch or set(state["parts"]) != set(self.parts):
            raise RunError(
                f"{self.folder.state_path}: expected {self.opt.arch} with {', '.join(self.parts)}, found "
                f"{state['arch']} with {', '.join(state['parts'])}; give its own --arch, --ema and --amp"
            )
        if state["step"] > self.opt.iter:
            raise RunError(f"--iter {self.opt.iter}: expected more than the {state['step']} steps done, found fewer")
        # Options hold, also where they have changed, and so does what fits this device.
        for own, group in zip(self.optimizer.param_groups, state["parts"]["optimizer"]["param_groups"], strict=True):
            group |= {name: own[name] for name in ("weight_decay", "fused")}
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunError(
                f"{self.folder.state_path}: expected the state of this run, found one that does not fit ({error})"
            ) from error
        self.step, self.draws, self.best = state["step"], state["draws"], state["best"]
        if self.processes.rank < len(state["random"]):
            restore_random_state(state["random"][self.processes.rank])

    def _compare_classes(self, state: dict[str, Any]) -> list[str]:
        """What has changed in the classes since a state was saved. Raises RunError if they are others."""
        found = len(state["parts"]["network"]["outconv.bias"])
        before = self._classes_before(state, found)
        if found != len(self.classes) or before.names != self.classes.names:
            raise RunError(
                f"{self.folder.state_path}: expected a network for the {len(self.classes)} classes of --classes "
                f"{self.opt.classes} ({listed(self.classes.names)}), found one for {found}"
                + (f" ({listed(before.names)})" if before.names != self.classes.names else "")
                + "; give its own --classes"
            )
        return self.classes.changes_since(before)

    def _classes_before(self, state: dict[str, Any], count: int) -> ClassSet:
        """The classes of a state. Where it names none, they are those of clothes, or not known."""
        if "class_set" not in state:
            return CLOTHES if count == len(CLOTHES) else self.classes
        try:
            return ClassSet.read(state["class_set"])
        except ValueError as error:
            raise RunError(f"{self.folder.state_path}: {error}; the file is damaged") from error

    def to_device(self, photos: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Bring a batch of bytes to the network's device, and only there make of it what the network takes.

        Args:
            photos: (N, 3, H, W) uint8.
            labels: (N, H, W) uint8.

        Returns:
            Photos (N, 3, H, W) float32, normalised, and label maps (N, H, W) int64.
        """
        layout = torch.channels_last if self.opt.channels_last else torch.contiguous_format
        photos = photos.to(self.device, non_blocking=True, memory_format=layout)
        labels = labels.to(self.device, non_blocking=True)
        return normalise(photos, self.opt.mean, self.opt.std), labels.long()

    def forward(self, network: nn.Module, photos: Tensor) -> tuple[Tensor, ...]:
        """Seven logit maps, in the precision that was asked for."""
        dtype = torch.float16 if self.opt.amp == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.opt.amp != "off"):
            outputs: tuple[Tensor, ...] = network(photos)
        return outputs

    def taught(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """What to learn of a batch: its labels, or probabilities that lie between them and what the teacher sees.

        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531). The teacher sees
        each photo changed as the network does (Beyer et al., "Knowledge distillation: A good teacher is patient and
        consistent", CVPR 2022). It counts as far as it is right: by the share of the pixels to which it or the labels
        give clothes that both give the same class.

        Args:
            pixels: photos (N, 3, H, W), uint8.
            labels: label maps (N, H, W), int64.

        Returns:
            The labels, or (N, C, H, W) float32.
        """
        if self.teacher is None:
            return labels
        seen = self.teacher(np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy()))
        probabilities = torch.from_numpy(seen).to(self.device).softmax(1)
        said = probabilities.argmax(1)
        clothes = ((said > 0) | (labels > 0)) & (labels < len(self.classes))
        right = (clothes & (said == labels)).sum((1, 2)) / clothes.sum((1, 2)).clamp(min=1)
        counted = labels < len(self.classes)
        truth = nn.functional.one_hot(labels * counted, len(self.classes)).permute(0, 3, 1, 2)
        mixed = truth.float().lerp(probabilities, self.opt.teacher_share * right.view(-1, 1, 1, 1))
        return mixed * counted.unsqueeze(1)

    def blend(self, photos: Tensor, target: Tensor) -> tuple[Tensor, list[tuple[float, Tensor]]]:
        """Photos of a batch, each blended with the one before if so asked, and targets with their shares.

        Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018 (arXiv 1710.09412).
        """
        if not self.opt.mixup:
            return photos, [(1.0, target)]
        share = torch.distributions.Beta(self.opt.mixup, self.opt.mixup).sample().item()
        share = max(share, 1 - share)  # the logged labels are those of the photo that is seen best
        return photos.lerp(photos.roll(1, 0), 1 - share), [(share, target), (1 - share, target.roll(1, 0))]

    def losses(self, outputs: tuple[Tensor, ...], targets: list[tuple[float, Tensor]]) -> tuple[Tensor, Tensor]:
        """(total, d0's own) loss, by the targets' shares."""
        total, fused = torch.zeros(2, device=self.device)
        for share, target in targets:
            own = self.loss(outputs, target)
            total, fused = total + share * own[0], fused + share * own[1]
        return total, fused

    def load_step(self) -> bool:
        """Wait for the photos of the next step, if there is one; whether any process has been asked to stop.

        Nothing of the step has begun then, so that a run that waits in vain can be saved as it is.
        """
        if self.step < self.opt.iter:
            self.loaded = self.stop.interruptible(lambda: list(islice(self.batches, self.opt.accumulate))) or []
        return self.processes.any(self.stop())

    def run_step(self) -> None:
        """One step of the optimizer, on the ``accumulate`` batches that ``load_step`` has loaded."""
        opt = self.opt
        lr = learning_rate(
            self.step, steps=opt.iter, peak=opt.lr, shape=opt.lr_schedule, warmup=opt.warmup, power=opt.lr_power
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        total, fused = torch.zeros(2, device=self.device)
        for batch, (pixels, values) in enumerate(self.loaded):
            photos, labels = self.to_device(pixels, values)
            target = self.taught(pixels, labels)
            last = batch == opt.accumulate - 1
            # Gradients need to be exchanged only once a step.
            exchange = nullcontext() if last or self.processes.world_size == 1 else self.parallel.no_sync()  # type: ignore[operator]
            with exchange:
                photos, targets = self.blend(photos, target)
                outputs = self.forward(self.parallel, photos)
                losses = self.losses(outputs, targets)
                torch.autograd.backward(self.scaler.scale(losses[0] / opt.accumulate))
            total, fused = total + losses[0].detach() / opt.accumulate, fused + losses[1].detach() / opt.accumulate
        self.scaler.unscale_(self.optimizer)
        grad_norm = nn.utils.clip_grad_norm_(self.network.parameters(), opt.clip_grad or torch.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.network)

        self.step += 1
        self.latest_iou = None
        seen = opt.batchSize * opt.accumulate * self.processes.world_size
        self.draws += seen
        self.log.step(self.step, total=total, fused=fused, grad_norm=grad_norm, lr=lr, photos=seen)
        if self.step % opt.image_log_freq == 0:
            self.log_picture("training", photos, labels, outputs[0])

    def log_picture(self, name: str, photos: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Photos, truth and prediction."""
        shown = photos[:PICTURES].detach(), labels[:PICTURES], logits[:PICTURES].detach().argmax(1)
        self.log.picture(self.step, name, comparison(*shown, self.classes, self.opt.mean, self.opt.std))

    def result(self) -> nn.Module:
        """The network to use: the averaged one where there is one."""
        return self.network if self.ema is None else self.ema.module

    def share_buffers(self) -> None:
        """Give all processes the main one's batch-norm statistics, which it saves."""
        self.processes.share_buffers(self.network)
        if self.ema is not None:
            self.processes.share_buffers(self.ema.module)

    @torch.no_grad()
    def confusion(self, network: nn.Module, loader: DataLoader[Sample]) -> Tensor:
        """Confusion matrix of the photos that a loader gives this process, at training size."""
        classes = len(self.classes)
        confusion = torch.zeros(classes, classes, dtype=torch.int64, device=self.device)
        self.val_batches = Batches(loader, self.log.skip)  # kept, as the end of its processes must not delay a save
        main = self.processes.is_main
        progress = tqdm(self.val_batches, "validation", total=len(loader), leave=False, disable=not main)
        for number, batch in enumerate(progress):
            photos, labels = self.to_device(*batch)
            logits = self.forward(network, photos)[0]
            confusion += confusion_matrix(labels, logits.argmax(1), classes)
            if number == 0:
                self.log_picture("validation", photos, labels, logits)
        return confusion

    def validate(self, loader: DataLoader[Sample]) -> None:
        """Measure IoU on the validation photos, and keep the best weights; a stop signal breaks it off."""
        self.log.flush()
        self.share_buffers()
        network = self.result().eval()
        confusion = self.stop.interruptible(lambda: self.confusion(network, loader))
        self.network.train()
        if self.processes.any(confusion is None) or confusion is None:
            return
        summary = summarise(self.processes.sum(confusion), self.classes.names)
        self.log.validation(self.step, summary)
        self.latest_iou = summary["mean_iou_clothes"]
        if self.latest_iou is not None and self.latest_iou > self.best:
            self.best, self.best_step = self.latest_iou, self.step
            self.processes.on_main(lambda: self.folder.save_best(self.result().state_dict(), self.info()))
        self.log.restart_clock()

    def info(self) -> WeightsInfo:
        """What the weights of this step say about themselves."""
        opt = self.opt
        size = (opt.fine_width, opt.fine_height)
        return WeightsInfo(opt.arch, self.classes, size, opt.mean, opt.std, self.step, self.latest_iou)

    def save(self) -> None:
        """Write the weights and the state to go on from."""
        self.log.flush()  # a loss that is not finite must not be saved
        self.share_buffers()
        weights = self.processes.gather(digest(self.network.state_dict()))
        if len(set(weights)) > 1:
            raise RunError(f"step {self.step}: expected equal weights in all processes, found different ones")
        state = {
            "arch": self.opt.arch,
            "step": self.step,
            "draws": self.draws,
            "best": self.best,
            "weights_sha256": weights,
            "random": self.processes.gather(random_state()),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "class_set": self.classes.to_dict(),
        }
        self.processes.on_main(lambda: self._write(state))
        self.log.restart_clock()

    def _write(self, state: dict[str, Any]) -> None:
        self.folder.save_step(self.result().state_dict(), self.info(), keep=self.opt.keep_checkpoints)
        self.folder.save_state(state)

    def conclude(self) -> None:
        """Say what came of the run, and how to use it."""
        folder, arch = self.folder.weights_folder, self.opt.arch
        to_use, best = folder / f"itr_{self.step:08d}_{arch}.pth", folder / f"best_{arch}.pth"
        weights = {"last weights": str(to_use)}
        if self.best >= 0 and self.best_step is None:
            with suppress(RunError, OSError, ValueError):  # it may have been moved since
                self.best_step = WeightsInfo.read(read_file(best)).step
        if self.best_step is not None:
            weights["best weights"] = f"{best}, clothes IoU {self.best:.3f} at step {self.best_step}"
            to_use = best
        weights["to use them"] = f"python infer.py --checkpoint {shlex.quote(str(to_use))}"
        self.log.conclude(f"Done: {self.step} steps, weights in {folder}", self.step, self.draws, weights)


def read_photos(opt: TrainOptions, classes: ClassSet, processes: Processes, record: Path | None = None) -> Photos:
    """The photos of a run, looked at; ``record``: of a run that goes on. Raises RunError or DataError."""
    if opt.prepared_dir:
        with blame(f"--prepared_dir {opt.prepared_dir}: expected a folder that can be written", OSError):
            Path(opt.prepared_dir).mkdir(parents=True, exist_ok=True)
    folder = "--image_folder", opt.image_folder
    photos, bad = checked(opt, classes, processes, ("--df_path", opt.df_path), folder, opt.max_dataset_size)
    sides = processes.on_main(lambda: choose_sides(photos, opt.val_fraction, opt.seed, record))
    train = photos.select(np.flatnonzero(~sides.held_out))
    usable = train.without(bad)
    if opt.val_df_path:
        if opt.val_image_folder:
            folder = "--val_image_folder", opt.val_image_folder
        held_out, bad = checked(opt, classes, processes, ("--val_df_path", opt.val_df_path), folder)
    elif opt.val_fraction or sides.held_out.any():
        held_out = photos.select(np.flatnonzero(sides.held_out))
    else:
        return Photos(train, usable, None, photos, sides)
    held_out = held_out.select(held_out.without(bad))
    if not len(usable) or not len(held_out):
        raise RunError(
            f"--val_fraction {opt.val_fraction}: expected photos on both sides, found {len(usable)} for training and "
            f"{len(held_out)} for validation; a photo's name and --seed decide, so with few photos another --seed may "
            "help (a run that goes on keeps the sides it had)"
        )
    return Photos(train, usable, held_out, photos, sides)


def checked(
    opt: TrainOptions,
    classes: ClassSet,
    processes: Processes,
    labels: tuple[str, str],
    folder: tuple[str, str],
    most: int | None = None,
) -> tuple[Annotations, set[str]]:
    """(labelled photos, names of bad ones). Faults are told, or end the run, as --on_bad_sample says.

    Arguments are those of ``read_checked``. Raises RunError.
    """
    found = read_checked(
        labels, folder, classes, most, ignored=opt.ignore_index, rescale=opt.rescale, once=processes.on_main
    )
    if found.notes and processes.is_main:
        print(found.notes, file=sys.stderr)
    left = len(found.photos.without(found.bad))
    if found.faults and (opt.on_bad_sample == "stop" or not left):
        remedy = f"--on_bad_sample skip goes on with the {left} photos that are left." if left else "No photo is left."
        raise RunError(f"{found.report}\n{remedy}")
    if found.faults and processes.is_main:
        print(f"{found.report}\nGoing on with {left} of {len(found.photos)} photos.", file=sys.stderr)
    return found.photos, found.bad


def restarted(opt: TrainOptions, begun: Path) -> bool:
    """Whether a launcher starts this very run again because one of its processes died (torchrun --max_restarts).

    Args:
        opt: of this process.
        begun: where the run wrote its options when it began. They are compared, so that a name that belongs to
            another run is refused in a restart as it was before.

    Raises:
        RunError: the launcher's count is no number.
    """
    return restarts() > 0 and begun_with(begun) == asdict(opt)


def begun_with(path: Path) -> dict[str, Any]:
    """The options that a run was last started with; empty if they cannot be read."""
    try:
        options = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


@contextmanager
def blame_compiler(compiled: bool) -> Iterator[None]:
    """Say in a sentence that a network cannot be compiled here."""
    try:
        yield
    except RuntimeError as error:
        if not compiled or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().split("\n")[0]
        raise RunError(
            "--compile: expected a compiler that PyTorch can use (C++ for a CPU, Triton for a GPU), found none that "
            f"works ({reason}); leave --compile out"
        ) from error


def train(opt: TrainOptions, processes: Processes) -> int:
    """Run to the last step, or to a request to stop; returns the exit code."""
    with StopRequest() as stop, workers_expected():
        run = Training(opt, processes, stop)
        try:
            stopping = run.load_step()
            while run.step < opt.iter and not stopping:
                with blame_compiler(opt.compile):
                    run.run_step()
                validation_due = run.step % opt.val_freq == 0 or run.step == opt.iter
                if run.val_loader is not None and validation_due and not processes.any(stop()):
                    run.validate(run.val_loader)
                stopping = run.load_step()
                if run.step % opt.save_freq == 0 or run.step == opt.iter or stopping:
                    run.save()
            if run.step < opt.iter:
                run.log.say(
                    f"Stopped by {stop.name or 'another process'} after step {run.step}, all saved in "
                    f"{run.folder.folder}; --continue_train goes on from here."
                )
                return 1
            run.conclude()
            return 0
        finally:
            run.log.close()


def main(argv: Sequence[str] | None = None) -> int:
    opt = parse(TrainOptions, argv)
    processes = Processes.start(opt.device, opt.distributed)
    with processes.others_expected():
        code = train(opt, processes)
    processes.stop()  # not after an error: the others may be waiting for this process, which has to say why it fails
    return code


if __name__ == "__main__":
    run_script(main, RunError, DataError)
