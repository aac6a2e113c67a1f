"""Options of train.py."""

import re
from dataclasses import dataclass

from cloth_segmentation.command.base_options import BaseOptions, OptionError, option
from options.labels_help import CLASSES, IGNORE_INDEX, LABELS, RESCALE
from options.setup_options import SURGERY_WEIGHTS


@dataclass(frozen=True)
class TrainOptions(BaseOptions):
    """Train U2NET or U2NETP on labelled photos.

    The defaults are the original system's recipe.
    """

    # The run and its data
    name: str = option("training_cloth_segm_u2net_exp1", "name of the run; its folders are called so")
    image_folder: str = option("../input/train/", "folder of the training photos")
    df_path: str = option("../input/train.csv", f"their labels: {LABELS}")
    ignore_index: int | None = option(None, IGNORE_INDEX, least=0, most=255)
    rescale: bool = option(False, RESCALE)
    max_dataset_size: int | None = option(None, "use only the first N photos", least=1)
    serial_batches: bool = option(False, "take the photos in the order of the file, not in random order")
    on_bad_sample: str = option(
        "skip",
        "photos or masks that cannot be used, found at the start or later: skip (name and count them, take others) or "
        "stop",
        choices=("skip", "stop"),
    )
    nThreads: int = option(2, "worker processes that load data, for each process; 0: none", least=0)
    prepared_dir: str = option(
        "", "keep each photo's training square in this folder, and read it from there in later epochs and runs"
    )
    save_dir: str = option("results", "checkpoints and options of a run go to a folder of its name in here")
    logs_dir: str = option("logs", "TensorBoard files of a run go to a folder of its name in here")

    # Network and input
    arch: str = option(
        "u2net", "the network: u2net (44 million parameters) or u2netp (1.1)", choices=("u2net", "u2netp")
    )
    classes: str = option("clothes", CLASSES, alias="labels")
    fine_width: int = option(768, "training width, pixels", least=64)
    fine_height: int = option(768, "training height, pixels", least=64)
    mean: float = option(0.5, "mean of the normalisation")
    std: float = option(0.5, "standard deviation of the normalisation", above=0)
    unet_checkpoint: str | None = option(
        None, 'initial weights; "" for random ones [the file setup_model_weights.py writes for --arch]'
    )

    # Device and processes
    device: str = option("auto", "auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps")
    distributed: bool | None = option(None, "train on several processes [found out from the launcher]")

    # Optimisation
    iter: int = option(100_000, "training steps in all", least=1)
    batchSize: int = option(2, "photos in a batch, for each process", least=1)
    freeze: str = option(
        "none",
        "part of the network that stays as it is: none, or encoder, for fine-tuning on a handful of photos",
        choices=("none", "encoder"),
    )
    accumulate: int = option(1, "batches whose gradients are summed up in a step", least=1)
    lr: float = option(1e-3, "learning rate of Adam", above=0)
    weight_decay: float = option(0.0, "decoupled weight decay (AdamW)", least=0)
    region_loss: float = option(0.0, "weight of the Lovász-Softmax loss of the fused map; 0: none", least=0)
    teacher: str = option(
        "", "trained weights (.pth or .onnx) whose probabilities are learned beside the labels: distillation"
    )
    teacher_share: float = option(
        0.5, "share of the teacher in what is learned of a photo on which it is right", above=0, most=1
    )
    clip_grad: float = option(5.0, "greatest norm of the gradient; 0: not clipped", least=0)
    lr_schedule: str = option(
        "constant",
        "learning rate over the run: constant, cosine or polynomial",
        choices=("constant", "cosine", "polynomial"),
    )
    lr_power: float = option(0.9, "exponent of the polynomial schedule", above=0)
    warmup: int = option(0, "first steps in which the learning rate grows from 0", least=0)
    amp: str = option("off", "mixed precision: off, bf16 or fp16 (CUDA only)", choices=("off", "bf16", "fp16"))
    channels_last: bool = option(False, "keep pictures as NHWC in memory; faster with amp, results differ by rounding")
    compile: bool = option(
        False, "compile the network first: minutes at the start, faster steps, results differ by rounding"
    )
    ema: float = option(
        0.0, "decay of an exponential moving average of the weights, such as 0.999; 0: none", least=0, below=1
    )
    seed: int = option(0, "seed of weights, order, augmentation and held-out share", least=0)

    # Augmentation, all off at 0
    augment_pair: float = option(0.0, "probability of a second photo put beside, for two people", least=0, most=1)
    augment_portrait: float = option(
        0.0, "probability of a close-up of head and shoulders, down to the waist or so", least=0, most=1
    )
    augment_crop: float = option(0.0, "close-ups: keep a share of 1 - X to 1 of the sides", least=0, below=1)
    augment_flip: float = option(0.0, "probability of a mirror image", least=0, most=1)
    augment_scale: float = option(0.0, "enlarge or shrink by a factor of 1 - X to 1 + X", least=0, below=1)
    augment_rotate: float = option(0.0, "rotate by up to X degrees", least=0, most=180)
    augment_shift: float = option(0.0, "shift by up to a share of X of the side", least=0, most=1)
    augment_color: float = option(0.0, "change brightness, contrast and saturation by up to X", least=0, most=1)
    augment_recolor: float = option(
        0.0, "probability, for each label in the photo, that its cloth takes another colour", least=0, most=1
    )
    mixup: float = option(
        0.0, "blend photos of a batch, and their losses, by shares from the distribution Beta(X, X)", least=0
    )

    # Validation
    val_fraction: float = option(
        0.0,
        "hold out about this share of the photos for validation; the name of a photo decides, so it stays held out "
        "when others are added",
        least=0,
        below=1,
    )
    val_df_path: str = option("", "annotations of the validation photos, instead of --val_fraction")
    val_image_folder: str = option("", "folder of the photos of --val_df_path [that of --image_folder]")
    val_freq: int = option(1000, "validate every N steps", least=1)

    # Watching and saving
    print_freq: int = option(10, "log losses every N steps", least=1)
    image_log_freq: int = option(100, "log pictures every N steps", least=1)
    save_freq: int = option(1000, "save every N steps", least=1)
    keep_checkpoints: int = option(0, "keep the last N weights files beside the best one; 0: all", least=0)
    continue_train: bool = option(False, "go on from the last save of this run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise OptionError(f"--device: expected auto, cpu, cuda, cuda:N or mps, found {self.device!r}")
        if self.name in (".", "..") or not re.fullmatch(r"[^/\\\x00-\x1f]{1,200}", self.name):
            raise OptionError(f"--name: expected the name of a folder of at most 200 letters, found {self.name!r}")
        if self.val_fraction and self.val_df_path:
            raise OptionError("--val_fraction and --val_df_path: expected one of the two, found both")
        if self.val_image_folder and not self.val_df_path:
            raise OptionError("--val_image_folder: expected with --val_df_path, found without")
        closer = [name for name in ("pair", "portrait", "crop") if getattr(self, f"augment_{name}")]
        if self.prepared_dir and closer:
            raise OptionError(
                f"--prepared_dir and --augment_{closer[0]}: expected one of the two, found both; "
                "the latter needs each photo at its own size"
            )
        if self.amp == "fp16" and self.device in ("cpu", "mps"):
            raise OptionError(f"--amp fp16: expected a CUDA device, found --device {self.device}; take bf16 or off")
        if self.mixup and self.batchSize < 2:
            raise OptionError(f"--mixup: expected a --batchSize of at least 2 to blend, found {self.batchSize}")
        if self.freeze == "encoder" and not self.initial_weights:
            raise OptionError("--freeze encoder: expected trained weights in --unet_checkpoint, found none")
        if self.warmup >= self.iter:
            raise OptionError(f"--warmup: expected fewer steps than --iter {self.iter}, found {self.warmup}")

    @property
    def initial_weights(self) -> str:
        """File of the initial weights; "" for random ones."""
        return SURGERY_WEIGHTS[self.arch] if self.unet_checkpoint is None else self.unet_checkpoint
