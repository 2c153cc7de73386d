"""The command line: lierope train | bench | study | inspect. Heavy libraries load when needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lierope.train.errors import Ended, InputError
from lierope.train.options import EPILOG, add_arguments

USAGE_ERROR = 2
INTERRUPTED, ENDED = 130, 143  # 128 + SIGINT, 128 + SIGTERM, as shells have it


class _Parser(argparse.ArgumentParser):
    """argparse, with a bad argument told in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 done, 2 bad input, 130 interrupted, 143 ended."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except InputError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"lierope {args.command}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except (KeyboardInterrupt, Ended) as signal:
        hints = {"train": "; add --resume to go on", "study": "; start it again to go on"}
        hint = hints.get(args.command, "")
        interrupted = isinstance(signal, KeyboardInterrupt)
        how = "interrupted" if interrupted else "ended by SIGTERM"
        if os.environ.get("RANK", "0") == "0":
            print(f"lierope {args.command}: {how}{hint}", file=sys.stderr)
        return INTERRUPTED if interrupted else ENDED
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lierope",
        description="Rotary position encodings from Lie groups (STRING, LieRE, RoPE) in vision "
        "transformers: train and compare them, look inside, measure speed.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_inspect(commands)
    _add_bench(commands)
    _add_study(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction[_Parser]) -> None:
    train = commands.add_parser(
        "train",
        help="train a timm ViT with one or many encodings and compare them",
        description="Train a timm vision transformer once per encoding and seed, test it on the "
        "training image size\nand on larger ones, and write a table, pictures and checkpoints.",
        usage="lierope train [options]",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(train)
    train.set_defaults(run=_train)


def _add_inspect(commands: argparse._SubParsersAction[_Parser]) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="show what an encoding does, and what it has learned",
        description="Show, layer by layer, the encodings of a checkpoint or of a fresh model: "
        "frequencies, angles against the limit of float32, how exactly rotations are orthogonal, "
        "how relative scores are, sparsity, and how far the basis has moved.",
    )
    inspect.add_argument(
        "target",
        metavar="CHECKPOINT|MODEL",
        help="a .safetensors file, a run's folder, or a model of timm",
    )
    inspect.add_argument("--encoding", metavar="NAME", help="put into the model first")
    inspect.add_argument(
        "--plot",
        type=Path,
        metavar="PNG",
        help="draw the frequencies here, the rest in …-layers.png beside it",
    )
    inspect.add_argument("--heads", action="store_true", help="also a row for every head")
    inspect.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    inspect.set_defaults(run=_inspect)


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="time the operators beside plain torch on this machine",
        description="Time the operators beside the same mathematics in plain torch, forward and "
        "backward, in alternation on this machine, and show the medians.",
    )
    bench.add_argument("--quick", action="store_true", help="small shapes, a few seconds")
    bench.add_argument(
        "--shape",
        metavar="B,H,N,D",
        help="batch, heads, tokens (a square number) and head dim of q and k "
        "(default: 8,12,196,64)",
    )
    bench.add_argument("--threads", type=int, metavar="N", help="default: torch's choice")
    bench.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    bench.set_defaults(run=_bench)


def _add_study(commands: argparse._SubParsersAction[_Parser]) -> None:
    study = commands.add_parser(
        "study",
        help="rerun an experiment of the papers, or an open question",
        description="Train every arm of a study with every seed, and write its table, pictures and "
        "verdict. Finished runs are kept: called again, it goes on. `lierope study list` says what "
        "there is, what it costs and what it found. Needs a checkout of the project.",
    )
    study.add_argument("name", help="which study, or `list`")
    study.add_argument("--quick", action="store_true", help="a small form, at most two minutes")
    study.add_argument("--arms", nargs="+", metavar="NAME", help="only these (default: all)")
    study.add_argument("--seeds", type=int, metavar="N", help="how many (default: the study's)")
    study.add_argument("--preset", metavar="NAME", help="settings for larger data, e.g. cifar100")
    study.add_argument("--root", type=Path, metavar="DIR", help="where the data lie on disk")
    study.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="change a setting; may be repeated"
    )
    study.add_argument(
        "--show-settings", action="store_true", help="print the settings as JSON and stop"
    )
    study.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="default: benchmarks/results/studies; with --quick runs/studies/quick",
    )
    study.add_argument("--overwrite", action="store_true", help="compute finished runs again")
    study.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    study.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: all cores)")
    study.add_argument("--threads", type=int, metavar="N", help="threads a run (default: 1)")
    study.add_argument(
        "--publish", action="store_true", help="also write the result into docs/studies.md"
    )
    study.set_defaults(run=_study)


def _train(args: argparse.Namespace) -> int:
    from lierope.train.command import train  # noqa: PLC0415

    return train(args)


def _inspect(args: argparse.Namespace) -> int:
    from lierope.train.inspect import inspect  # noqa: PLC0415

    return inspect(args.target, args.encoding, args.plot, args.heads, args.json)


def _bench(args: argparse.Namespace) -> int:
    from lierope.train.bench import bench  # noqa: PLC0415

    return bench(args.quick, args.shape, args.threads, args.json)


def _study(args: argparse.Namespace) -> int:
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "studies").is_dir():
        raise InputError("name: studies come with a checkout of the project, not with the package")
    sys.path.insert(0, str(root))
    from benchmarks.studies.harness.command import study  # noqa: PLC0415

    return study(args)
