"""Self-attention in place of timm's classes: fused as theirs, masks, gate, grouped queries."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lierope.encodings import Encoding
from lierope.import_timm import timm
from lierope.swap.attention import Heads, SwappedAttention
from lierope.swap.in_flight import PositionsInFlight


class TimmAttention(SwappedAttention):
    """timm's `Attention`, `AttentionRope` or `EvaAttention` with a rotation of q and k.

    Fused (`scaled_dot_product_attention`) exactly when the replaced module was.
    """

    attn_drop: nn.Dropout
    norm: nn.Module
    proj: nn.Module
    proj_drop: nn.Module
    fused_attn: bool
    scale: float

    def attend(
        self, x: Tensor, positions: Tensor, attn_mask: Tensor | None, is_causal: bool
    ) -> Tensor:
        """Attention of tokens x (B, N, dim) at positions (N - P, C) or (B, N - P, C)."""
        B, N, _ = x.shape
        gate = self.gate(x).sigmoid() if self.gate is not None else None
        q, k, v = self.rotated(x, positions, check=False)
        groups = self.num_heads // self.num_kv_heads
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = self._mix(q, k, v, attn_mask, is_causal)
        y = self.norm(y.transpose(1, 2).reshape(B, N, self.num_heads * self.head_dim))
        y = y if gate is None else y * gate
        out: Tensor = self.proj_drop(self.proj(y))
        return out

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
class SideChannelAttention(TimmAttention):
    """Where blocks pass no positions (plain ViT, NaFlexVit): reads them from the side channel."""

    def __init__(
        self,
        attention: nn.Module,
        encoding: Encoding,
        heads: Heads,
        num_prefix_tokens: int,
        in_flight: PositionsInFlight,
    ) -> None:
        super().__init__(attention, encoding, heads, num_prefix_tokens)
        self.in_flight = in_flight

    def forward(
        self,
        x: Tensor,
        rope: None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attention of tokens x (B, N, dim); rope stands where EvaBlock has an argument for it."""
        if rope is not None:
            raise ValueError("swap: rope must be None, because the model has an encoding instead")
        return self.attend(x, self.in_flight.read(), attn_mask, is_causal)


@timm.layers.register_notrace_module
class EvaFamilyAttention(TimmAttention):
    """Where timm passes rotary tables (Eva's blocks), positions come instead."""

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
