"""Smaller blocks for LieRE whose generators have fallen apart: the same outputs, less work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from lierope.encodings import LieRE
from lierope.swap.attention import SwappedAttention
from lierope.swap.folding import check_weights, move_into_weights

Model = TypeVar("Model", bound=nn.Module)
# sizes whose kernels waste no lanes: a block of 9 takes longer than one of 16, measured
_QUICK = (2, 4, 5, 6, 7, 8, 16, 32, 64)
_Sets = list[list[int]]
"""Features of one head, in sets that turn among themselves."""


@dataclass(frozen=True)
class _Plan:
    """What becomes of an encoding: size and number of blocks, each head's features in order."""

    block_size: int
    blocks: int
    orders: _Sets


@torch.no_grad()
def compact(model: Model, *, tolerance: float = 0.0) -> Model:
    """Replace every LieRE whose generators have decomposed by one with smaller blocks.

    Two features of a head belong together when an entry of some axis' generator turns one into the
    other. The sets of features that hang together so (the connected components over all axes) are
    packed into blocks of the smallest size b' that holds them in every head (2, 4 to 8, 16, 32 or
    64, whose kernels are quick, or any up to b / 2), and the permutation T of features that brings
    them there goes into the weights: W_q <- T W_q, W_k <- T W_k, biases alike, A_c <- T A_c T^T.
    Scores do not see it. Features that no generator turns fill blocks up or go after them, where
    they are not rotated. Encodings that cannot get smaller blocks stay.

    Zeros come from `GroupLasso`. Parameters are new tensors: make the optimiser afterwards. Block
    sizes differ from layer to layer then, and a state dict fits only a model that was compacted in
    the same way; keep the one from before, or the whole model.

    Args:
        model: A swapped model, changed in place.
        tolerance: Entries up to that size between two sets count as 0 and are dropped, which
            changes outputs by about as much; at 0 they stay the same up to the order of sums.

    Returns:
        The same model.

    Raises:
        ValueError: Nothing is swapped or no encoding is LieRE; no block can be smaller; a norm or
            an adapter stands between a projection and the rotation; parameters are sharded. The
            text names the module, and nothing is changed then.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "liere", block_size=64)
        >>> upper = torch.triu_indices(64, 64, 1)
        >>> apart = upper[0] // 8 != upper[1] // 8  # features that do not turn into each other
        >>> with torch.no_grad():
        ...     for encoding in lierope.encodings_of(model).values():
        ...         encoding.generators[..., apart] = 0
        >>> model = lierope.compact(model)
        >>> [encoding.block_size for encoding in lierope.encodings_of(model).values()]
        [8, 8]
    """
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"compact: tolerance must be a number of at least 0, got {tolerance!r}")
    found = {n: m for n, m in model.named_modules() if isinstance(m, SwappedAttention)}
    plans = _plans(found, tolerance)
    todo = {name: module for name, module in found.items() if module.encoding in plans}
    for name, module in todo.items():
        check_weights("compact", name, module)
    smaller = {encoding: _smaller(encoding, plan) for encoding, plan in plans.items()}
    for module in todo.values():
        encoding = module.encoding
        assert isinstance(encoding, LieRE)
        move_into_weights(module, _permutations(plans[encoding].orders, encoding.generators))
        module.encoding = smaller[encoding]
    return model


def _plans(found: dict[str, SwappedAttention], tolerance: float) -> dict[LieRE, _Plan]:
    """A plan for every encoding that can get smaller blocks; at least one."""
    if not found:
        raise ValueError("compact: model must have been swapped, got no swapped attention")
    named: dict[LieRE, str] = {}
    for name, module in found.items():
        if isinstance(module.encoding, LieRE):
            named.setdefault(module.encoding, name)
    if not named:
        kinds = ", ".join(sorted({type(module.encoding).__name__ for module in found.values()}))
        raise ValueError(f"compact: encodings must be LieRE, got {kinds}")
    plans, sizes = {}, []
    for encoding, name in named.items():
        if type(encoding.generators) is not nn.Parameter:
            kind = type(encoding.generators).__name__
            raise ValueError(f"compact: {name} must have its generators whole, got {kind}")
        heads = _components(encoding, tolerance)
        largest = max((len(each) for sets in heads for each in sets), default=1)
        sizes.append(f"{name} turns {largest} of {encoding.block_size}")
        plan = _plan(encoding, heads, largest)
        if plan is not None:
            plans[encoding] = plan
    if not plans:
        raise ValueError(
            "compact: generators must have decomposed into smaller blocks, got none that have "
            f"({'; '.join(sizes)} features of a block together)"
        )
    return plans


def _components(encoding: LieRE, tolerance: float) -> list[_Sets]:
    """For each head, the sets of two or more features that turn among themselves."""
    matrices = _matrices(encoding)
    # not "larger than": NaN must count as an entry
    joined = ~(matrices.abs() <= tolerance).all(0)
    size = encoding.block_size
    reach = (joined | torch.eye(size, dtype=torch.bool, device=joined.device)).float()
    for _ in range((size - 1).bit_length()):
        reach = (reach @ reach).clamp_max(1)  # paths of twice the length
    first = reach.argmax(-1).cpu()  # the first feature of each one's set
    heads = []
    for blocks in first.tolist():
        sets = []
        for number, block in enumerate(blocks):
            for root in sorted(set(block)):
                members = [number * size + i for i, own in enumerate(block) if own == root]
                if len(members) > 1:
                    sets.append(members)
        heads.append(sets)
    return heads


def _plan(encoding: LieRE, heads: list[_Sets], largest: int) -> _Plan | None:
    """The smallest blocks that hold every head's sets, or None where they are no smaller."""
    old = encoding.block_size
    others = [size for size in range(2, old // 2 + 1) if size not in _QUICK]
    for size in [*(size for size in _QUICK if size < old), *others]:
        if size < largest:
            continue
        packed = [_pack(sets, size) for sets in heads]
        blocks = max(1, *(len(bins) for bins in packed)) if packed else 1
        if blocks * size <= encoding.head_dim:
            orders = [_order(bins, size, blocks, encoding.head_dim) for bins in packed]
            return _Plan(size, blocks, orders)
    return None


def _pack(sets: _Sets, size: int) -> _Sets:
    """First fit of the larger sets first, in bins of that size."""
    bins: _Sets = []
    for members in sorted(sets, key=len, reverse=True):
        room = next((b for b in bins if len(b) + len(members) <= size), None)
        if room is None:
            bins.append(list(members))
        else:
            room.extend(members)
    return bins


def _order(bins: _Sets, size: int, blocks: int, head_dim: int) -> list[int]:
    """All features of a head: bin after bin, filled up with features that do not turn."""
    used = {feature for members in bins for feature in members}
    still = [feature for feature in range(head_dim) if feature not in used]
    order: list[int] = []
    for members in [*bins, *([] for _ in range(blocks - len(bins)))]:
        missing = size - len(members)
        order += members + still[:missing]
        still = still[missing:]
    return order + still


def _smaller(encoding: LieRE, plan: _Plan) -> LieRE:
    made = LieRE(
        encoding.head_dim,
        encoding.num_heads,
        encoding.ndim,
        block_size=plan.block_size,
        reorthogonalize=encoding.reorthogonalize,
        init=encoding.init,
        num_kv_heads=encoding.num_kv_heads,
        share=encoding.share,
        rotary_dim=plan.blocks * plan.block_size,
        device="meta",  # draws no random numbers
        dtype=encoding.generators.dtype,
    )
    old = _matrices(encoding)
    D, b = encoding.head_dim, encoding.block_size
    whole = old.new_zeros(*old.shape[:2], D, D)
    for block in range(old.shape[2]):
        own = slice(block * b, (block + 1) * b)
        whole[..., own, own] = old[:, :, block]
    orders = torch.tensor(plan.orders, device=whole.device)
    heads = torch.arange(len(orders), device=whole.device)[:, None, None]
    turned = whole[:, heads, orders[:, :, None], orders[:, None, :]]
    row, column = torch.triu_indices(plan.block_size, plan.block_size, 1, device=whole.device)
    starts = torch.arange(plan.blocks, device=whole.device)[:, None] * plan.block_size
    generators = turned[:, :, starts + row, starts + column].contiguous()
    made.generators = nn.Parameter(generators, requires_grad=encoding.generators.requires_grad)
    return made.train(encoding.training)


def _matrices(encoding: LieRE) -> Tensor:
    """The skew blocks, (C, H', G, b, b)."""
    b = encoding.block_size
    packed = encoding.generators.detach()
    row, column = torch.triu_indices(b, b, 1, device=packed.device)
    upper = packed.new_zeros(*packed.shape[:-1], b, b)
    upper[..., row, column] = packed
    return upper - upper.mT


def _permutations(orders: _Sets, like: Tensor) -> Tensor:
    """T (H', D, D): row i of a head is the unit vector of the feature that comes i-th."""
    chosen = torch.tensor(orders, device=like.device)
    return nn.functional.one_hot(chosen, chosen.shape[1]).to(torch.float64)
