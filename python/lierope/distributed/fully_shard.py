"""FSDP2 for encodings: shards of their own, gathered in full precision whatever the model's."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from lierope.encodings import Encoding

_METHODS = ("rotate", "basis")  # what attention calls besides forward


def fully_shard_encodings(model: nn.Module, **options: Any) -> None:
    """Apply `fully_shard` to every encoding by itself, so that mixed precision passes it by.

    For example::

        half = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
        lierope.distributed.fully_shard_encodings(model, mesh=mesh)
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=half)
        fully_shard(model, mesh=mesh, mp_policy=half)

    Call it before the blocks are sharded. Without a parameter type in `mp_policy` there is no need
    for it: an encoding then goes with its block. An angle is a position times a frequency, so that
    frequencies gathered in bfloat16 would turn far tokens by wrong angles; that is an error.

    Args:
        model: A model with encodings, on any device, meta included.
        **options: Of `fully_shard`, but for `mp_policy`.

    Raises:
        ValueError: The model has no encoding with parameters, or `mp_policy` is given.
    """
    if "mp_policy" in options:
        raise ValueError(
            "fully_shard_encodings: mp_policy must be left out: encodings are computed in their "
            "own type"
        )
    own = [m for m in model.modules() if isinstance(m, Encoding) and list(m.parameters())]
    if not own:
        raise ValueError(
            "fully_shard_encodings: model must have encodings with parameters, "
            f"got {type(model).__name__}"
        )
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    # Kept whole from forward to backward: they are small, and each is used by several calls.
    for encoding in own:
        fully_shard(encoding, mp_policy=policy, **{"reshard_after_forward": False, **options})
        for method in _METHODS:
            if hasattr(encoding, method):
                register_fsdp_forward_method(encoding, method)
