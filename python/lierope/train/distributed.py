"""The processes of one run: rank, size, device, and the few collectives the loop needs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from lierope.train.errors import InputError, check_name, one_line


@dataclass(frozen=True)
class World:
    """Who this process is among those that train one model together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.size > 1:
            dist.barrier()


def launched_by_torchrun() -> bool:
    """Whether torchrun (or another launcher that sets its variables) started this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:1` as a device that exists here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    check_name("device", name.split(":")[0], ("cpu", "cuda"))
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("device: cuda is not available in this torch; use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {one_line(error)}") from None


def join(device: torch.device) -> World:
    """Joins the process group torchrun prepared; alone, a world of one."""
    if not launched_by_torchrun():
        return World(device=device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), device)


def leave() -> None:
    """Ends the process group if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
