"""Self-attention that rotates q and k by an encoding, in place of timm's attention classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from lierope.encodings import Encoding
from lierope.swap.in_flight import PositionsInFlight
from lierope.swap.rows import multiply_rows
from lierope.timm import timm

_OPTIONAL = ("qkv", "q_proj", "k_proj", "v_proj", "q_bias", "k_bias", "v_bias", "gate")


class SwappedAttention(nn.Module):
    """timm's `Attention`, `AttentionRope` or `EvaAttention` with a rotation of q and k.

    softmax((R(p) q)ᵀ (R(p') k) / √D) v, where R is the encoding's. It takes over the children,
    parameters and buffers of the module it replaces under their names, so that the keys of the
    state dict stay, and adds `encoding`. Fused (`scaled_dot_product_attention`) exactly when the
    replaced module was. An orthogonal factor of R that does not depend on the position
    (`encoding.basis()`) multiplies the rows of W_q and W_k once a forward pass, because scores do
    not see it; only where a norm stands between projection and rotation are tokens transformed.

    Args:
        attention: The timm module to stand in for.
        encoding: Rotates q (B, H, N, D) and k (B, H_k, N, D).
        num_prefix_tokens: Tokens at the front (class, registers) that are not rotated.
    """

    qkv: nn.Linear | None
    q_proj: nn.Linear | None
    k_proj: nn.Linear | None
    v_proj: nn.Linear | None
    q_bias: Tensor | None
    k_bias: Tensor | None
    v_bias: Tensor | None
    gate: nn.Module | None
    q_norm: nn.Module
    k_norm: nn.Module
    attn_drop: nn.Dropout
    norm: nn.Module
    proj: nn.Module
    proj_drop: nn.Module

    def __init__(self, attention: nn.Module, encoding: Encoding, num_prefix_tokens: int) -> None:
        super().__init__()
        old: Any = attention  # timm has no types
        volatile = attention._non_persistent_buffers_set
        for name, child in attention._modules.items():
            self.add_module(name, child)
        for name, parameter in attention._parameters.items():
            self.register_parameter(name, parameter)
        for name, buffer in attention._buffers.items():
            self.register_buffer(name, buffer, persistent=name not in volatile)
        for name in _OPTIONAL:
            if not hasattr(self, name):
                setattr(self, name, None)
        self.encoding = encoding
        self.num_heads = int(old.num_heads)
        self.num_kv_heads = int(getattr(old, "num_kv_heads", self.num_heads))
        self.head_dim = int(old.head_dim)
        self.attn_dim = self.num_heads * self.head_dim
        self.scale = old.scale
        self.fused_attn = bool(old.fused_attn)
        self.qkv_bias_separate = bool(getattr(attention, "qkv_bias_separate", False))
        self.num_prefix_tokens = num_prefix_tokens
        self.train(attention.training)

    def projections(self) -> tuple[nn.Module, ...]:
        """The layers that make q and k: (qkv,) or (q_proj, k_proj)."""
        made = (self.qkv,) if self.qkv is not None else (self.q_proj, self.k_proj)
        return tuple(layer for layer in made if layer is not None)

    def has_qk_norm(self) -> bool:
        """Whether a norm stands between the projection and the rotation."""
        return not (isinstance(self.q_norm, nn.Identity) and isinstance(self.k_norm, nn.Identity))

    def takes_basis(self) -> bool:
        """Whether a basis may multiply the weights: plain linear layers, no norm after them."""
        # Adapters (LoRA) and parametrised layers are other classes: their weight is not the map.
        plain = all(type(layer) is nn.Linear for layer in self.projections())
        return plain and not self.has_qk_norm()

    def attend(
        self, x: Tensor, positions: Tensor, attn_mask: Tensor | None, is_causal: bool
    ) -> Tensor:
        """Attention of tokens x (B, N, dim) at positions (N - P, C) or (B, N - P, C)."""
        B, N, _ = x.shape
        gate = self.gate(x).sigmoid() if self.gate is not None else None
        in_weights = self.takes_basis()
        basis = self.encoding.basis() if in_weights else None
        q, k, v = self._project(x, basis)
        q, k = self.q_norm(q), self.k_norm(k)
        turn = self.encoding.rotate if in_weights else self.encoding
        q, k = turn(q, k, positions, self.num_prefix_tokens)
        q, k = q.type_as(v), k.type_as(v)  # a norm under autocast leaves float32
        groups = self.num_heads // self.num_kv_heads
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = self._mix(q, k, v, attn_mask, is_causal)
        y = self.norm(y.transpose(1, 2).reshape(B, N, self.attn_dim))
        y = y if gate is None else y * gate
        out: Tensor = self.proj_drop(self.proj(y))
        return out

    def _project(self, x: Tensor, basis: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        B, N, _ = x.shape
        if self.qkv is not None:
            packed = self._packed(x, basis).reshape(B, N, 3, self.num_heads, self.head_dim)
            q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        made = []
        for layer, heads, rotated in (
            (self.q_proj, self.num_heads, True),
            (self.k_proj, self.num_kv_heads, True),
            (self.v_proj, self.num_kv_heads, False),
        ):
            assert layer is not None
            if basis is None or not rotated:
                y = layer(x)
            else:
                bias = None if layer.bias is None else multiply_rows(basis, layer.bias, heads)
                y = linear(x, multiply_rows(basis, layer.weight, heads), bias)
            made.append(y.reshape(B, N, heads, self.head_dim).transpose(1, 2))
        return made[0], made[1], made[2]

    def _packed(self, x: Tensor, basis: Tensor | None) -> Tensor:
        assert self.qkv is not None
        if basis is None and self.q_bias is None:
            packed: Tensor = self.qkv(x)
            return packed
        bias = self.qkv.bias if self.q_bias is None else self._separate_bias()
        weight = self.qkv.weight
        if basis is not None:
            weight = self._turn_packed(basis, weight)
            bias = None if bias is None else self._turn_packed(basis, bias)
        if self.qkv_bias_separate and bias is not None:
            return linear(x, weight) + bias
        return linear(x, weight, bias)

    def _separate_bias(self) -> Tensor:
        assert self.q_bias is not None
        assert self.k_bias is not None
        assert self.v_bias is not None
        return torch.cat((self.q_bias, self.k_bias, self.v_bias))

    def _turn_packed(self, basis: Tensor, packed: Tensor) -> Tensor:
        """Basis times the q and the k rows of a packed weight (3·H·D, dim) or bias (3·H·D,)."""
        q, k, v = packed.chunk(3)
        turned = (multiply_rows(basis, rows, self.num_heads) for rows in (q, k))
        return torch.cat((*turned, v))

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool
    ) -> Tensor:
        if self.fused_attn:
            p = self.attn_drop.p if self.training else 0.0
            return scaled_dot_product_attention(
                q, k, v, attn_mask=attn_mask, dropout_p=p, is_causal=is_causal
            )
        scores = (q * self.scale) @ k.transpose(-2, -1)
        mask = timm.layers.resolve_self_attn_mask(q.shape[-2], scores, attn_mask, is_causal)
        scores = timm.layers.maybe_add_mask(scores, mask)
        out: Tensor = self.attn_drop(scores.softmax(dim=-1)) @ v
        return out

    def reset_parameters(self) -> None:
        """EvaAttention's own initial values: zero biases."""
        for bias in (self.q_bias, self.v_bias):
            if bias is not None:
                nn.init.zeros_(bias)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Fill what no checkpoint holds; timm calls it after a model left the meta device."""
        if self.k_bias is not None:
            self.k_bias.zero_()


@timm.layers.register_notrace_module
class ViTAttention(SwappedAttention):
    """Swapped attention whose positions come by a side channel: timm's plain ViT blocks."""

    def __init__(
        self,
        attention: nn.Module,
        encoding: Encoding,
        num_prefix_tokens: int,
        in_flight: PositionsInFlight,
    ) -> None:
        super().__init__(attention, encoding, num_prefix_tokens)
        self.in_flight = in_flight

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attention of tokens x (B, N, dim)."""
        return self.attend(x, self.in_flight.read(), attn_mask, is_causal)


@timm.layers.register_notrace_module
class EvaFamilyAttention(SwappedAttention):
    """Swapped attention that gets positions where timm passes rotary tables: Eva's blocks."""

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attention of tokens x (B, N, dim); rope: positions (N - P, C) or (B, 1, N - P, C)."""
        if rope is None:
            raise ValueError("swap: rope must hold the token positions, got None")
        # Patch dropout in timm adds the batch and an axis for the heads.
        positions = rope.squeeze(1) if rope.ndim == 4 else rope
        return self.attend(x, positions, attn_mask, is_causal)
