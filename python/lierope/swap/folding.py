"""Put the learned bases of the STRING encodings into W_q and W_k for good."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lierope.encodings import Encoding
from lierope.swap.attention import SwappedAttention
from lierope.swap.rows import multiply_rows


def fold_bases(model: nn.Module) -> nn.Module:
    """Fold every basis into the projections, so that inference costs what RoPE costs.

    Scores (P q)ᵀ R (P k) do not change when P moves into the weights: W_q ← P W_q, W_k ← P W_k,
    biases alike (STRING, arXiv 2502.02562, section 3). Each encoding with a basis is replaced by
    its `folded()`, a `MixedRoPE` with the same frequencies; encodings without one stay. LieRE has
    one when its generators commute, as in one dimension they do; ComRoPE always. HARoPE has one for
    W_q and another for W_k.

    Args:
        model: A swapped model.

    Returns:
        The same model, changed in place; its outputs are the same up to rounding.

    Raises:
        ValueError: No encoding has a basis, a norm or an adapter stands between projection and
            rotation. Nothing is changed then.
    """
    found = {n: m for n, m in model.named_modules() if isinstance(m, SwappedAttention)}
    if not found:
        raise ValueError("fold: model must have been swapped, got no swapped attention")
    with torch.no_grad():
        bases = {name: module.encoding.fold_basis() for name, module in found.items()}
    todo = {name: basis for name, basis in bases.items() if basis is not None}
    if not todo:
        kinds = ", ".join(sorted({type(module.encoding).__name__ for module in found.values()}))
        raise ValueError(
            "fold: encodings must have a basis (the STRINGs have, LieRE when its generators "
            f"commute), got {kinds}"
        )
    for name in todo:
        check_weights("fold", name, found[name])
    folded: dict[Encoding, Encoding] = {}
    for name, basis in todo.items():
        module = found[name]
        move_into_weights(module, basis)
        if module.encoding not in folded:
            folded[module.encoding] = module.encoding.folded().train(module.training)
        module.encoding = folded[module.encoding]
    return model


def check_weights(owner: str, name: str, module: SwappedAttention) -> None:
    """Raise ValueError, in the name of owner, where no basis can go into the weights."""
    if module.has_qk_norm():
        raise ValueError(
            f"{owner}: {name} has a norm between projection and rotation, which no basis passes"
        )
    if not module.takes_basis():
        kinds = ", ".join(type(layer).__name__ for layer in module.projections())
        raise ValueError(f"{owner}: {name} must project by torch.nn.Linear, got {kinds}")


@torch.no_grad()
def move_into_weights(module: SwappedAttention, basis: Tensor | tuple[Tensor, Tensor]) -> None:
    """W_q <- P W_q and W_k <- P W_k for a basis P (H', D, D), or one for each; biases alike."""
    pair = basis if isinstance(basis, tuple) else (basis, basis)
    wide = [each.double() for each in pair]  # once and for all: no reason to round twice
    if module.qkv is not None:
        rows = module.num_heads * module.head_dim
        for packed in (module.qkv.weight, module.qkv.bias):
            if packed is not None:
                for own, part in zip(wide, (packed[:rows], packed[rows : 2 * rows]), strict=True):
                    part.copy_(multiply_rows(own, part, module.num_heads))
        for own, bias in zip(wide, (module.q_bias, module.k_bias), strict=True):
            if bias is not None:
                bias.copy_(multiply_rows(own, bias, module.num_heads))
        return
    heads = (module.num_heads, module.num_kv_heads)
    for own, layer, count in zip(wide, module.projections(), heads, strict=True):
        assert isinstance(layer, nn.Linear)
        for rows_of in (layer.weight, layer.bias):
            if rows_of is not None:
                rows_of.copy_(multiply_rows(own, rows_of, count))
