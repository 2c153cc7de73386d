"""The side channel by which positions reach attention in models that pass none themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef


def running_backward() -> int:
    """Number of the backward pass that this thread is in, -1 outside of one."""
    number: int = torch._C._current_graph_task_id()
    return number


def refuse_replica(module: nn.Module) -> None:
    """Replicas of `nn.DataParallel` run in threads that would share one side channel."""
    if getattr(module, "_is_replica", False):
        raise RuntimeError(
            "swap: torch.nn.DataParallel cannot run this model, whose layers share their "
            "positions; use DistributedDataParallel"
        )


def storage_of(x: object) -> StorageWeakRef | None:
    """A weak reference that stays unique while it is held, None where x owns no memory."""
    if not isinstance(x, Tensor):
        return None  # a proxy: the model is being traced
    try:
        return StorageWeakRef(x.untyped_storage())
    except (NotImplementedError, RuntimeError):
        return None  # a tensor inside torch.func


class PositionsInFlight:
    """Positions of the forward pass under way; one object for a model, seen by each attention.

    `publish` begins a forward pass, `current` is what attention reads. Activation checkpointing
    runs a block again in the backward pass, when `current` may belong to a later forward (another
    size, other dropped patches). So each block remembers which positions came with its input: the
    recomputation gets the same input, or (reentrant) one that shares its memory. A recomputation
    whose input is unknown is an error, never a guess.

    Under torch.compile the blocks only read: the compiler saw which positions belong to which call.
    Blocks that are compiled one by one, and checkpointed from outside, get the positions of the
    last forward pass.
    """

    def __init__(self) -> None:
        self.current: Tensor | None = None
        self._backward = -1
        self._seen: dict[StorageWeakRef, Tensor | None] = {}

    def publish(self, positions: Tensor) -> None:
        """Begin a forward pass with these positions."""
        self.current = positions
        if not torch.compiler.is_compiling():
            self._backward = running_backward()
            self._forget()

    def _forget(self) -> None:
        """Drop inputs that no graph holds any more, so that nobody can recompute from them."""
        self._seen = {key: kept for key, kept in self._seen.items() if not _expired(key)}

    def enter_block(self, block: nn.Module, args: tuple[Any, ...]) -> None:
        """Forward pre-hook of each block: restores the positions that belong to its input."""
        refuse_replica(block)
        if torch.compiler.is_compiling() or not args:
            return
        key = storage_of(args[0])
        backward = running_backward()
        if key in self._seen:
            self.current, self._backward = self._seen[key], backward
        elif self._backward != backward:
            raise RuntimeError(
                f"swap: {type(block).__name__} is recomputed in the backward pass with an input "
                "that no forward pass gave it, so its positions are unknown"
            )
        elif key is not None:
            self._seen[key] = self.current

    def hand_over(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Forward pre-hook of blocks that pass keywords on: positions go with them.

        transformers recomputes a block's forward without its hooks, but with its keywords.
        """
        self.enter_block(block, args)
        return args, {**kwargs, "position_embeddings": self.read()}

    def read(self) -> Tensor:
        """Positions for the attention that runs now."""
        if self.current is None:
            raise RuntimeError(
                "swap: attention has no positions yet, because its block was called on its own; "
                "call the model, which announces them, or set the Coordinates"
            )
        return self.current

    def __getstate__(self) -> dict[str, Any]:
        # A copied or stored model is in the middle of no forward pass.
        return {"current": None, "_backward": -1, "_seen": {}}


def _expired(key: StorageWeakRef) -> bool:
    return bool(key.expired())
