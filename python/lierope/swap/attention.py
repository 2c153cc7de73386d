"""The core of every swapped attention: projections, basis and rotation, whatever the library."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lierope.encodings import Encoding
from lierope.encodings.arguments import check_forward
from lierope.swap.rows import multiply_rows
from lierope.swap.turned_linear import linear_dtype, turned_linear

_OPTIONAL = (
    *("qkv", "q_proj", "k_proj", "v_proj", "q_bias", "k_bias", "v_bias"),
    *("q_norm", "k_norm", "gate"),
)


@dataclass(frozen=True)
class Heads:
    """How an attention splits its features."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class PackedProjection:
    """Weight (3·H·D, dim) and bias of q, k and v where they are bare parameters, not a layer."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """What a linear layer would give."""
        return linear(x, self.weight, self.bias)


class SwappedAttention(nn.Module):
    """Self-attention with a rotation of q and k: the part that is the same in every library.

    softmax((R(p) q)ᵀ (R(p') k) / √D) v, where R is the encoding's. It takes over the children,
    parameters, buffers, hooks and attributes of the module it replaces under their names, so that
    the keys of the state dict stay, and adds `encoding`. An orthogonal factor of R that does not
    depend on the position (`encoding.basis()`) multiplies the rows of W_q and W_k once a forward
    pass, because scores do not see it; only where a norm stands between projection and rotation
    are tokens transformed. What a library's attention does with q, k and v is its subclass's.

    Args:
        attention: The module to stand in for.
        encoding: Rotates q (B, H, N, D) and k (B, H_k, N, D).
        heads: How many heads, and how large.
        num_prefix_tokens: Tokens at the front (class, registers) that are not rotated.
    """

    qkv: nn.Linear | PackedProjection | None
    q_proj: nn.Linear | None
    k_proj: nn.Linear | None
    v_proj: nn.Linear | None
    q_bias: Tensor | None
    k_bias: Tensor | None
    v_bias: Tensor | None
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    gate: nn.Module | None

    def __init__(
        self, attention: nn.Module, encoding: Encoding, heads: Heads, num_prefix_tokens: int
    ) -> None:
        nn.Module.__init__(self)  # a subclass may have the replaced class among its bases
        _take_over(self, attention)
        for name in _OPTIONAL:
            if not hasattr(self, name):
                setattr(self, name, None)
        self.encoding = encoding
        self.num_heads = heads.num_heads
        self.num_kv_heads = heads.num_kv_heads
        self.head_dim = heads.head_dim
        self.num_prefix_tokens = num_prefix_tokens

    def projections(self) -> tuple[nn.Module | PackedProjection, ...]:
        """The layers that make q and k: (qkv,) or (q_proj, k_proj)."""
        made = (self.qkv,) if self.qkv is not None else (self.q_proj, self.k_proj)
        return tuple(layer for layer in made if layer is not None)

    def has_qk_norm(self) -> bool:
        """Whether a norm stands between the projection and the rotation."""
        norms = (self.q_norm, self.k_norm)
        return not all(norm is None or isinstance(norm, nn.Identity) for norm in norms)

    def takes_basis(self) -> bool:
        """Whether a basis may multiply the weights: plain linear layers, no norm after them."""
        # Adapters (LoRA) and parametrised layers are other classes: their weight is not the map.
        plain = all(type(layer) in (nn.Linear, PackedProjection) for layer in self.projections())
        return plain and not self.has_qk_norm()

    def rotated(
        self, x: Tensor, positions: Tensor, *, check: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """R(p) q, R(p) k and v of tokens x (B, N, dim) at positions (N - P, C) or (B, N - P, C).

        Args:
            x: Tokens, the prefix in front.
            positions: Float32 (float64 for a float64 model), of the tokens after the prefix.
            check: Look at the positions' shape, type and values; not needed for those of a grid.

        Returns:
            q (B, H, N, D), k and v (B, H_k, N, D), of one type.

        Raises:
            ValueError: Positions of another shape, or not finite.
            TypeError: Positions of another type.
        """
        in_weights = self.takes_basis()
        basis = self.encoding.basis() if in_weights else None
        q, k, v = self._project(x, basis)
        q = q if self.q_norm is None else self.q_norm(q)
        k = k if self.k_norm is None else self.k_norm(k)
        if check:
            check_forward(self.encoding, q, k, positions, self.num_prefix_tokens)
        turn = self.encoding.rotate if in_weights else self.encoding
        rotated_q, rotated_k = turn(q, k, positions, self.num_prefix_tokens)
        copied = rotated_q is not q and not self.has_qk_norm()
        packed = self.qkv is not None and basis is None
        if packed and v.requires_grad and copied:
            # A view would keep the whole packed projection: the backward wants q and k rotated.
            v = v.clone()
        return rotated_q.type_as(v), rotated_k.type_as(v), v  # a norm under autocast gives float32

    def _project(self, x: Tensor, basis: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if self.qkv is None:
            return self._project_apart(x, basis)
        (B, N, _), heads, D = x.shape, self.num_heads, self.head_dim
        if basis is None:
            packed = self._packed(x).reshape(B, N, 3, heads, D)
            q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        rows, bias = (2 * heads * D, heads * D), self._packed_bias()
        qk_weight, v_weight = self.qkv.weight.split(rows)
        qk_bias, v_bias = (None, None) if bias is None else bias.split(rows)
        if qk_bias is not None:
            # One by one: a product with both would copy the basis for each, and keep the copies.
            parts = qk_bias.split(heads * D)
            qk_bias = torch.cat([multiply_rows(basis, part, heads) for part in parts])
        x = x.to(linear_dtype(x))  # once: under autocast both products would keep their own
        turned = partial(turned_linear, basis=basis, num_heads=heads)
        qk = self._linear(x, qk_weight, qk_bias, turned).reshape(B, N, 2, heads, D)
        q, k = qk.permute(2, 0, 3, 1, 4).unbind(0)
        v = self._linear(x, v_weight, v_bias).reshape(B, N, heads, D)
        return q, k, v.transpose(1, 2)

    def _project_apart(self, x: Tensor, basis: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        (B, N, _), made = x.shape, []
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
                y = turned_linear(x, layer.weight, bias, basis=basis, num_heads=heads)
            made.append(y.reshape(B, N, heads, self.head_dim).transpose(1, 2))
        return made[0], made[1], made[2]

    def _packed(self, x: Tensor) -> Tensor:
        assert self.qkv is not None
        if self.q_bias is None:
            packed: Tensor = self.qkv(x)
            return packed
        return self._linear(x, self.qkv.weight, self._packed_bias())

    def _linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        product: Callable[..., Tensor] = linear,
    ) -> Tensor:
        if getattr(self, "qkv_bias_separate", False) and bias is not None:
            return product(x, weight) + bias
        return product(x, weight, bias)

    def _packed_bias(self) -> Tensor | None:
        assert self.qkv is not None
        if self.q_bias is None:
            return self.qkv.bias
        assert self.k_bias is not None
        assert self.v_bias is not None
        return torch.cat((self.q_bias, self.k_bias, self.v_bias))

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script asks for first; without it the error would speak of its parser."""
        raise NotImplementedError(
            "swap: torch.jit.script cannot compile a swapped model; "
            "use torch.jit.trace, torch.export or torch.compile"
        )


def _take_over(module: nn.Module, attention: nn.Module) -> None:
    for name, value in vars(attention).items():
        if name == "_compiled_call_impl":
            continue
        # Hooks stay the same objects, so that handles to them still remove them.
        own: Any = isinstance(value, (dict, set)) and name.startswith("_") and "hook" not in name
        vars(module)[name] = copy.copy(value) if own else value
