"""Take over the rotary embedding that a model has: its frequencies and its coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lierope.encodings import AxialRoPE, Encoding, LieRE
from lierope.swap.attention import SwappedAttention
from lierope.swap.grid import GridPositions


@dataclass(frozen=True)
class OwnRotation:
    """What a rotary embedding does: angle = Σ_c p_c ω_c for each layer, head and pair."""

    frequencies: Tensor
    """(layers or 1, 2, heads or 1, pairs), radians per unit of `positions`."""
    half: bool
    """Whether feature i pairs with i + D/2 (else with its neighbour)."""
    positions: GridPositions

    def of_layer(self, number: int) -> Tensor:
        """Frequencies (2, heads or 1, pairs) of one layer."""
        return self.frequencies[min(number, self.frequencies.shape[0] - 1)]


def axial_frequencies(bands: Tensor) -> Tensor:
    """Bands (n,) of either axis, pairs of the first axis first: (1, 2, 1, 2 n)."""
    none = torch.zeros_like(bands)
    return torch.stack([torch.cat([bands, none]), torch.cat([none, bands])]).reshape(1, 2, 1, -1)


@torch.no_grad()
def take_over(encoding: Encoding, own: Tensor, name: str) -> None:
    """Set an encoding's rotation to frequencies (2, heads or 1, pairs).

    Raises:
        ValueError: the encoding cannot express them.
    """
    heads, pairs = own.shape[1:]
    if pairs != encoding.rotary_dim // 2:
        raise ValueError(
            f"swap: {name}: convert needs {pairs} pairs a head, got {encoding.rotary_dim // 2}"
        )
    if heads > 1 and encoding.parameter_heads != heads:
        raise ValueError(
            f"swap: {name}: convert needs parameters for {heads} heads, "
            f"got {encoding.parameter_heads}"
        )
    if isinstance(encoding, AxialRoPE):
        _take_over_axial(encoding, own, name)
    elif isinstance(encoding, LieRE) and encoding.block_size % 2 == 0:
        b = encoding.block_size
        planes = own.reshape(*own.shape[:2], -1, b // 2)
        # The packed triangle's entry (2i, 2i + 1); a plus above the diagonal turns against RoPE.
        first = [row * (2 * b - row - 1) // 2 for row in range(0, b, 2)]
        encoding.generators.zero_()
        encoding.generators[..., first] = -planes.to(encoding.generators)
    elif isinstance(getattr(encoding, "frequencies", None), nn.Parameter):
        parameter: Any = encoding.frequencies
        parameter.copy_(own.expand_as(parameter))
    else:
        raise ValueError(
            f"swap: {name}: convert needs an encoding that starts from RoPE's frequencies, "
            f"got {type(encoding).__name__}"
        )


def _take_over_axial(encoding: AxialRoPE, own: Tensor, name: str) -> None:
    n = encoding.pairs_per_axis
    axial = torch.stack([own[0, :, :n], own[1, :, n : 2 * n]])
    stray = own.abs().sum() - axial.abs().sum()
    if own.shape[-1] != 2 * n or float(stray) > 0:
        raise ValueError(f"swap: {name}: convert to AxialRoPE needs frequencies bound to axes")
    if encoding.learned:
        encoding.frequencies.copy_(axial.expand_as(encoding.frequencies))
        return
    if n > 1:
        encoding.theta = float((axial[0, 0, 0] / axial[0, 0, 1]).double() ** n)
    if not torch.allclose(axial, encoding.axis_frequencies(axial), rtol=1e-4):
        raise ValueError(
            f"swap: {name}: convert to AxialRoPE needs learned=True where "
            "frequencies are not theta^(-j/n)"
        )


@torch.no_grad()
def interleave(module: SwappedAttention) -> None:
    """Reorder the features of q and k from pairs (i, i + D/2) to pairs (2i, 2i + 1).

    Scores are the same: W_q, W_k, their biases and the norms behind them are reordered alike.
    """
    D = module.head_dim
    order = torch.arange(D).reshape(2, D // 2).T.flatten()
    if module.qkv is not None:
        for packed in (module.qkv.weight, module.qkv.bias):
            for part in () if packed is None else packed.chunk(3)[:2]:
                _reorder(part, order)
    for name in ("q_proj", "k_proj"):
        layer = getattr(module, name)
        for parameter in () if layer is None else (layer.weight, layer.bias):
            _reorder(parameter, order)
    for bias in (module.q_bias, module.k_bias):
        _reorder(bias, order)
    for norm in (module.q_norm, module.k_norm):
        for parameter in () if norm is None else norm.parameters():
            _reorder(parameter, order)


def _reorder(rows: Tensor | None, order: Tensor) -> None:
    if rows is not None:
        heads = rows.reshape(-1, len(order), *rows.shape[1:])
        rows.copy_(heads[:, order.to(rows.device)].reshape(rows.shape))
