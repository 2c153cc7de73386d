"""Every setting that decides the outcome of one run, and what each data set starts from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from lierope.train.errors import InputError, check, check_name

SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly", "wsd", "rsqrt", "constant")
SHARES = ("none", "heads", "layers", "all")
DEFAULT_ENCODINGS = ("none", "absolute", "mixed", "liere:8", "cayley", "circulant")


@dataclass(frozen=True)
class Settings:
    """One run: data, model, encoding and recipe. Two runs with equal settings are the same run.

    Units: `image_size` and `eval_sizes` in pixels, `epochs` and `warmup_epochs` in passes over the
    training images (for arrows: of `epoch_images` generated images), `batch_size` in images a step
    over all processes, `validation` as a fraction of the training images,
    `train_fraction` of those left that are trained on, the same ones for every seed.
    """

    data: str
    model: str
    encoding: str
    root: str | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    position_std: float | None = None
    share: str = "none"
    positions: str | None = None
    keep_absolute: bool | None = None
    image_size: int = 224
    eval_sizes: tuple[int, ...] = ()
    epochs: int = 30
    epoch_images: int = 12_800
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    clip_grad: float | None = 1.0
    label_smoothing: float = 0.0
    drop_path: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    auto_augment: str | None = None
    validation: float = 0.1
    train_fraction: float = 1.0
    amp: str = "off"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def name(self) -> str:
        """Folder name of the run, e.g. `liere-8-seed0`."""
        safe = "".join(c if c.isalnum() or c in "._" else "-" for c in self.encoding)
        return f"{safe}-seed{self.seed}"

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Settings:
        """The inverse of `to_json`; raises InputError on a missing or unknown setting."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        check(not unknown, f"settings: unknown {', '.join(unknown)}")
        try:
            plain: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**plain)
        except TypeError as error:
            raise InputError(f"settings: {error}") from None

    def differences(self, other: Settings) -> list[str]:
        """One phrase for each setting in which two runs differ."""
        mine, theirs = self.to_json(), other.to_json()
        return [f"{k} {theirs[k]!r} there, {mine[k]!r} here" for k in mine if mine[k] != theirs[k]]


def _check_settings(s: Settings) -> None:
    check_name("data", s.data, PRESETS)
    check_name("amp", s.amp, ("off", "bf16", "fp16"))
    check_name("schedule", s.schedule, SCHEDULES)
    check_name("share", s.share, SHARES)
    for argument in ("epochs", "image_size", "batch_size", "epoch_images"):
        value = getattr(s, argument)
        check(value >= 1, f"{_option(argument)}: must be at least 1, got {value}")
    for size in s.eval_sizes:
        check(size >= 1, f"eval-sizes: must be at least 1, got {size}")
    check(s.lr > 0, f"lr: must be positive, got {s.lr:g}")
    check(s.seed >= 0, f"seeds: must be at least 0, got {s.seed}")
    for argument in ("weight_decay", "warmup_epochs", "mixup", "cutmix"):
        value = getattr(s, argument)
        check(value >= 0, f"{_option(argument)}: must be at least 0, got {value:g}")
    for argument in ("label_smoothing", "drop_path"):
        value = getattr(s, argument)
        check(0 <= value < 1, f"{_option(argument)}: must be in [0, 1), got {value:g}")
    check(0 < s.train_fraction <= 1, f"train-fraction: must be in (0, 1], got {s.train_fraction:g}")
    check(0 < s.validation < 1, f"validation: must be in (0, 1), got {s.validation:g}")
    check(
        s.warmup_epochs < s.epochs,
        f"warmup-epochs: must be less than epochs, got {s.warmup_epochs:g} and {s.epochs}",
    )


def _option(argument: str) -> str:
    return argument.replace("_", "-")


# The digits recipe: a 64-wide, 3-deep ViT over 2x2 patches. Max pooling and standardised pixels
# are what lets it hold on larger canvases; a learned embedding that starts at 0.02 trains slowly.
# With biases on q and k, mixed falls at 16 px from 89 % (2 seeds) to 79 % (3 seeds).
_TINY = {
    "in_chans": 1, "embed_dim": 64, "num_heads": 4, "mlp_ratio": 2, "class_token": False,
    "global_pool": "max", "fc_norm": False, "weight_init": "reset", "qkv_bias": False,
}  # fmt: skip

# DeiT's policy. mmax9: at 10, timm 1.0.31 asks for 0 bits of colour, which Pillow 13 refuses.
_AUGMENT = "rand-m9-mstd0.5-mmax9-inc1"

PRESETS: dict[str, dict[str, Any]] = {
    "digits": {
        "model": "vit_tiny_patch16_224",
        "model_options": {**_TINY, "patch_size": 2, "depth": 3},
        "position_std": 0.5,
        "image_size": 10,
        "eval_sizes": (12, 16),
        "epochs": 30,
        "batch_size": 32,
        "lr": 4e-3,
        "warmup_epochs": 2,
    },
    "arrows": {
        "model": "vit_tiny_patch16_224",
        "model_options": {**_TINY, "patch_size": 12, "depth": 2},
        "position_std": 0.5,
        "image_size": 108,
        "eval_sizes": (132, 168),
        "epochs": 15,
        "batch_size": 128,
        "lr": 1e-3,
        "weight_decay": 0.01,
        "warmup_epochs": 2,
    },
    "cifar10": {
        "model": "vit_tiny_patch16_224",
        "model_options": {"patch_size": 4},
        "image_size": 32,
        "eval_sizes": (48, 64),
        "epochs": 100,
        "warmup_epochs": 5,
        "betas": (0.9, 0.999),
        "auto_augment": _AUGMENT,
    },
    "imagefolder": {
        "model": "vit_tiny_patch16_224",
        "image_size": 224,
        "eval_sizes": (288, 384),
        "epochs": 100,
        "warmup_epochs": 5,
        "betas": (0.9, 0.999),
        "auto_augment": _AUGMENT,
        "validation": 0.02,
    },
}
PRESETS["cifar100"] = dict(PRESETS["cifar10"])

# Overrides that only make sense for the model they were written for.
_SHAPE_OPTIONS = ("embed_dim", "depth", "num_heads", "mlp_ratio", "class_token", "global_pool",
                  "fc_norm", "weight_init", "qkv_bias")  # fmt: skip


def preset(data: str, model: str | None, image_size: int | None) -> dict[str, Any]:
    """The settings a data set starts from, with the model's overrides fitted to the model named.

    The preset's width and depth hold for the preset's own model only; another model keeps its own
    and takes the patch size and the number of channels.
    """
    values = dict(PRESETS[check_name("data", data, PRESETS)])
    options = dict(values.get("model_options", {}))
    if model is not None and model != values["model"]:
        options = {k: v for k, v in options.items() if k not in _SHAPE_OPTIONS}
        values["model"] = model
    if image_size is not None:
        larger = (round(size * image_size / values["image_size"]) for size in values["eval_sizes"])
        values |= {"image_size": image_size, "eval_sizes": tuple(larger)}
    return values | {"model_options": options}
