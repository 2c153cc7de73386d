"""The passes that are timed, how to make them, and why one cannot be made."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.cases import BenchCase

Function = Callable[..., Any]
Pass = Callable[[], tuple[Tensor, ...] | None]
"""One timed pass; returns its outputs where they are to equal those of the other forms."""
Maker = Callable[[], Pass]
Builder = Callable[[BenchCase, torch.device], dict[str, Maker]]


class SkipError(Exception):
    """A form that cannot run here, and why."""


def one_pass(
    function: Function, leaves: tuple[Tensor, ...], backward: bool, comparable: bool = True
) -> Pass:
    """Forward, or forward and backward to those leaves that require a gradient."""
    if not backward:

        @torch.no_grad()
        def forward() -> tuple[Tensor, ...] | None:
            outputs = _as_tuple(function(*leaves))
            return outputs if comparable else None

        return forward

    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    with torch.no_grad():
        seed = torch.Generator(leaves[0].device).manual_seed(1)
        shapes = [(y.shape, y.dtype) for y in _as_tuple(function(*leaves))]
        grads = [
            torch.randn(s, dtype=t, device=leaves[0].device, generator=seed) for s, t in shapes
        ]

    def forward_and_backward() -> tuple[Tensor, ...] | None:
        outputs = _as_tuple(function(*leaves))
        torch.autograd.grad(outputs, wanted, grads)
        return tuple(y.detach() for y in outputs) if comparable else None

    return forward_and_backward


def compiled(function: Function) -> Function:
    """The function through torch.compile, for the threads and shapes at hand.

    Raises:
        SkipError: There is no C++ compiler.
    """
    if not (shutil.which("g++") or shutil.which("clang++")):
        raise SkipError("torch.compile needs a C++ compiler")
    config: Any = importlib.import_module("torch._inductor.config")
    # Inductor writes the number of threads into the code: named, 1 and 2 stay apart in its cache.
    config.cpp.threads = torch.get_num_threads()
    result: Function = torch.compile(function, dynamic=False)
    return result


def compile_model(model: torch.nn.Module) -> None:
    """Let a model run through torch.compile, for the shapes at hand."""
    model.compile(dynamic=False)


def optional(module: str) -> Any:
    """A module that a peer needs.

    Raises:
        SkipError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SkipError(f"{module.partition('.')[0]} is not installed") from error


def skew_of_norm(shape: tuple[int, ...], norm: float, device: torch.device) -> Tensor:
    """Random skew matrices (count, n, n), each of that spectral norm; 256 of them, repeated."""
    generator = torch.Generator().manual_seed(0)
    count, n, _ = shape
    upper = torch.randn(min(count, 256), n, n, generator=generator).triu(1)
    skew = upper - upper.mT
    skew = skew * (norm / torch.linalg.matrix_norm(skew, 2)).view(-1, 1, 1)
    repeats = -(-count // len(skew))
    every: Tensor = skew.repeat(repeats, 1, 1)[:count]
    return every.contiguous().to(device)


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
