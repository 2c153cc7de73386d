"""Self-attention in place of `torch.nn.MultiheadAttention`, with its words and its masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from lierope.encodings import Encoding
from lierope.swap.attention import Heads, PackedProjection, SwappedAttention
from lierope.swap.grid import GridPositions
from lierope.swap.in_flight import PositionsInFlight, running_backward


class FixedGrid:
    """Positions of one grid, for models that know no other."""

    def __init__(self, positions: GridPositions, shape: tuple[int, ...]) -> None:
        self.positions = positions
        self.shape = shape

    def read(self, x: Tensor) -> Tensor:
        """The positions, of x's device and precision."""
        return self.positions(self.shape, device=x.device, dtype=x.dtype, training=False)


class SwappedMultiheadAttention(SwappedAttention):
    """`nn.MultiheadAttention` on one sequence, rotated; weights and keys stay where they were.

    It says of itself that q, k and v are not one matrix (`_qkv_same_embed_dim`), because
    `nn.TransformerEncoderLayer` would otherwise take the weights past it in eval mode: its fused
    path knows no rotation.

    Args:
        attention: The module to stand in for.
        encoding: Rotates q and k.
        heads: How many heads, and how large.
        num_prefix_tokens: Tokens at the front that are not rotated.
        source: Where positions come from, unless the call gives them.
        name: The module's name, for errors.
        watched: Whether a hook on the layer around it restores positions for recomputation.
    """

    in_proj_weight: Tensor
    in_proj_bias: Tensor | None
    out_proj: nn.Module
    batch_first: bool
    dropout: float

    def __init__(
        self,
        attention: nn.Module,
        encoding: Encoding,
        heads: Heads,
        num_prefix_tokens: int,
        source: FixedGrid | PositionsInFlight,
        name: str,
        watched: bool,
    ) -> None:
        super().__init__(attention, encoding, heads, num_prefix_tokens)
        self._qkv_same_embed_dim = False
        self.source = source
        self.name = name
        self.watched = watched

    @property
    def qkv(self) -> PackedProjection:  # type: ignore[override]
        """The packed projection, as other libraries have it."""
        return PackedProjection(self.in_proj_weight, self.in_proj_bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`, key and value being query itself.

        Args:
            query: (B, N, dim), (N, B, dim) without batch_first, or (N, dim).
            key: query.
            value: query.
            key_padding_mask: (B, N), True (or -inf) for keys to leave out.
            need_weights: Return the weights too.
            attn_mask: (N, N) or (B·H, N, N), True (or -inf) for pairs to leave out.
            average_attn_weights: Return the mean of the weights over heads.
            is_causal: A hint that attn_mask is causal, as in torch.
            positions: (M, C) or (B, M, C), instead of what the source says.

        Raises:
            ValueError: Cross-attention, nested tensors, a causal hint without its mask.
        """
        self._check(query, key, value, attn_mask, is_causal)
        batched = query.ndim == 3
        x = query if batched else query.unsqueeze(0)
        turned = batched and not self.batch_first
        x = x.transpose(0, 1) if turned else x
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        q, k, v = self.rotated(x, self._positions(x) if positions is None else positions)
        mask = self._mask(attn_mask, key_padding_mask, q)
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q * self.head_dim**-0.5 @ k.transpose(-2, -1)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = dropout(weights, p)
            y = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            y = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        y = y.transpose(0, 1) if turned else y
        return (y if batched else y.squeeze(0)), weights

    def _positions(self, x: Tensor) -> Tensor:
        if isinstance(self.source, FixedGrid):
            return self.source.read(x)
        compiling = torch.compiler.is_compiling()
        if not (self.watched or compiling) and running_backward() != -1:
            raise RuntimeError(
                f"swap: {self.name} is recomputed in the backward pass, where its positions "
                "are unknown; give them to the attention by keyword, positions=..."
            )
        return self.source.read()

    def _check(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool
    ) -> None:
        if key is not query or value is not query:
            raise ValueError(
                f"swap: {self.name} must get one sequence as query, key and value; "
                "cross-attention has positions of two, skip it"
            )
        if query.is_nested:
            raise ValueError(f"swap: {self.name} takes no nested tensors, pad instead")
        if is_causal and attn_mask is None:
            raise ValueError(f"swap: {self.name}: is_causal must come with its attn_mask, got None")

    def _mask(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor
    ) -> Tensor | None:
        """One additive mask of q's type that broadcasts to (B, H, N, N)."""
        B, _, N, _ = q.shape
        parts = []
        if attn_mask is not None:
            mask = _additive(attn_mask, q.dtype)
            parts.append(mask if mask.ndim == 2 else mask.reshape(B, self.num_heads, N, N))
        if key_padding_mask is not None:
            parts.append(_additive(key_padding_mask, q.dtype)[:, None, None, :])
        return sum(parts[1:], parts[0]) if parts else None


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))
