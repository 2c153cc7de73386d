"""The arguments of `lierope train`: their help, and the runs they describe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lierope.train.config import DEFAULT_ENCODINGS, SCHEDULES, SHARES, Settings, preset
from lierope.train.errors import InputError, check

EPILOG = """\
data:
  digits                       1,797 handwritten digits of scikit-learn, on a canvas (default)
  arrows                       generated: which way points the arrow that the Y faces?
  cifar10, cifar100            --root holds cifar-10-batches-py or cifar-100-python
  imagefolder                  --root holds train/CLASS/*.jpg and val/CLASS/*.jpg

encodings:
  none, absolute               no positions; the model's own learned embedding
  axial, mixed                 RoPE along one axis each; along learned directions
  liere, liere:8, liere:64     LieRE: exponentials of learned generators, block size after the colon
  cayley, dense-string         STRING: RoPE in a learned basis, by Cayley's map or an exponential
  circulant, circulant:16      STRING: learned circulant generators, by FFT
  comrope-ap, comrope-ld       ComRoPE: LieRE's blocks, commuting by construction
  harope                       RoPE in coordinates that each head learns
  visionllama                  axial RoPE of fixed frequencies on [0, 1]

what comes out, in DIR:
  results.json                 everything measured, with versions, processor and the command
  summary.png, curves.png      accuracy by encoding and image size; loss and accuracy by epoch
  ENCODING-seedN/              metrics.csv, result.json, best.safetensors, last.safetensors

examples:
  lierope train --data digits
  lierope train --data digits --encoding mixed liere:8 --seeds 0 1 2 --jobs 2
  lierope train --data arrows --encoding absolute mixed liere:8
  lierope train --data cifar100 --root ~/data --model vit_tiny_patch16_224 --amp bf16 --workers 8
  lierope train --data imagefolder --root ~/imagenet --model vit_small_patch16_224 --encoding cayley
  torchrun --nproc-per-node 4 -m lierope train --data imagefolder --root ~/imagenet

Left out, a recipe setting has the value that suits the data set; `--show-settings` prints them.
For digits and arrows, --model vit_tiny_patch16_224 (the default) is cut down to 64 wide and 3 or 2
deep; any other model keeps its own width and depth and takes their patch size and one channel.
For cifar, models take 4x4 patches. --model-options overrides any of it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares every argument of `lierope train`."""
    _add_task(parser.add_argument_group("what to train"))
    _add_recipe(parser.add_argument_group("recipe (defaults depend on --data)"))
    _add_session(parser.add_argument_group("how to run"))


def _add_task(group: Any) -> None:
    group.add_argument(
        "--data",
        default="digits",
        metavar="NAME",
        help="one of those listed below (default: digits)",
    )
    group.add_argument("--root", metavar="DIR", help="where cifar or the image folders lie on disk")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="any vision transformer of timm (default: vit_tiny_patch16_224)",
    )
    group.add_argument(
        "--model-options",
        type=json.loads,
        metavar="JSON",
        help="keyword arguments for the model, e.g. '{\"depth\": 6}'",
    )
    group.add_argument(
        "--encoding",
        nargs="+",
        default=list(DEFAULT_ENCODINGS),
        metavar="NAME",
        help=f"those to compare (default: {' '.join(DEFAULT_ENCODINGS)})",
    )
    group.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="one run per encoding and seed (default: 0)",
    )
    group.add_argument(
        "--share",
        choices=SHARES,
        default="none",
        help="who shares one encoding: the heads of a layer, all layers, or both (default: none)",
    )
    group.add_argument(
        "--positions",
        choices=("proportional", "unit", "index", "centered"),
        help="coordinates of the patches (default: what suits the encoding)",
    )
    group.add_argument(
        "--keep-absolute",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep the model's learned position embedding beside the encoding "
        "(default: only for the encoding `absolute`)",
    )
    group.add_argument("--image-size", type=int, metavar="PX", help="side of the training images")
    group.add_argument(
        "--eval-sizes",
        nargs="*",
        type=int,
        metavar="PX",
        help="larger sizes to test on, never trained on",
    )


def _add_recipe(group: Any) -> None:
    letters = {int: "N", float: "X", str: "NAME"}
    for name, kind, text in (
        ("epochs", int, "passes over the training images"),
        ("batch-size", int, "images a step, over all processes"),
        ("lr", float, "highest learning rate"),
        ("weight-decay", float, "on matrices only, never on encodings"),
        ("warmup-epochs", float, "epochs of linear warm-up"),
        ("optimizer", str, "any optimiser of timm, e.g. adamw, sgd, lion"),
        ("schedule", str, f"of timm: {', '.join(SCHEDULES)}"),
        ("clip-grad", float, "largest norm of the gradient"),
        ("label-smoothing", float, "in [0, 1)"),
        ("drop-path", float, "stochastic depth, in [0, 1)"),
        ("mixup", float, "alpha of mixup, 0 for none"),
        ("cutmix", float, "alpha of cutmix, 0 for none"),
        ("auto-augment", str, "timm's policy for pictures, e.g. rand-m9-mstd0.5"),
        ("validation", float, "fraction of training images held out to choose the best epoch"),
        ("train-fraction", float, "of the other training images, how many to train on"),
        ("epoch-images", int, "generated images that make an epoch of arrows"),
    ):
        group.add_argument(f"--{name}", type=kind, metavar=letters[kind], help=text)
    group.add_argument("--betas", nargs=2, type=float, metavar="B", help="of Adam and its kin")
    group.add_argument(
        "--amp", choices=("off", "bf16", "fp16"), help="mixed precision by autocast (default: off)"
    )


def _add_session(group: Any) -> None:
    group.add_argument("--output", type=Path, metavar="DIR", help="default: runs/DATA")
    group.add_argument(
        "--resume", action="store_true", help="go on after each run's last finished epoch, exactly"
    )
    group.add_argument("--overwrite", action="store_true", help="start again over earlier runs")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    group.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time (default: one a core for digits and arrows, else 1)",
    )
    group.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads a run (default: 1 for digits and arrows, else all cores)",
    )
    group.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that read pictures, a run (default: 0)",
    )
    group.add_argument(
        "--show-settings",
        action="store_true",
        help="print the settings of the first run as JSON and stop",
    )


def settings_of(args: argparse.Namespace) -> list[Settings]:
    """The runs a command line describes: encodings x seeds, checked.

    Raises:
        InputError: a value that cannot work.
    """
    values = preset(args.data, args.model, args.image_size)
    options = args.model_options or {}
    check(isinstance(options, dict), "model-options: must be a JSON object, got a list or number")
    values["model_options"] = values["model_options"] | options
    for name in (
        "root",
        "share",
        "positions",
        "keep_absolute",
        "eval_sizes",
        "epochs",
        "lr",
        "batch_size",
        "weight_decay",
        "warmup_epochs",
        "optimizer",
        "schedule",
        "betas",
        "clip_grad",
        "label_smoothing",
        "drop_path",
        "mixup",
        "cutmix",
        "auto_augment",
        "validation",
        "train_fraction",
        "epoch_images",
        "amp",
    ):
        given = getattr(args, name)
        if given is not None:
            values[name] = tuple(given) if isinstance(given, list) else given
    if args.warmup_epochs is None and values.get("epochs", 1) >= 1:
        # A short trial run should not spend itself on the preset's warm-up.
        values["warmup_epochs"] = min(values.get("warmup_epochs", 0), values["epochs"] / 4)
    runs = [
        Settings(data=args.data, encoding=encoding, seed=seed, **values)
        for encoding in dict.fromkeys(args.encoding)
        for seed in dict.fromkeys(args.seeds)
    ]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise InputError("encoding: two of the names given would share a folder")
    return runs
