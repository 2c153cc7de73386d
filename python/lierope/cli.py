"""The command line: lierope train | bench | study | inspect. Heavy libraries load when needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lierope.train.errors import InputError
from lierope.train.options import EPILOG, add_arguments

USAGE_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """argparse, with a bad argument told in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 2 bad input, 130 interrupted."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except InputError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"lierope {args.command}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        hint = "; add --resume to go on" if args.command == "train" else ""
        print(f"lierope {args.command}: interrupted{hint}", file=sys.stderr)
        return 130
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
        help="rerun an experiment of the papers (none yet)",
        description="Rerun an experiment of the papers. There are no studies yet.",
    )
    study.add_argument("name", help="which study")
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
    raise InputError(f"name: there are no studies yet, got {args.name}")
