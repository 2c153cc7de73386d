"""Self-attention in place of transformers' classes, through its table of attention functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import transformers.modeling_utils
from torch import Tensor, nn

from lierope.encodings import Encoding
from lierope.swap.attention import Heads, SwappedAttention


class TransformersAttention(SwappedAttention):
    """An attention of transformers with a rotation of q and k.

    What runs is what the configuration names (eager, sdpa, flash, flex or a registered one). Each
    object is also an instance of the class it replaces, by which transformers finds what
    `output_attentions` collects.
    """

    config: Any
    replaced: type[nn.Module]

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of tokens (B, N, dim); position_embeddings: positions of those rotated."""
        if position_embeddings is None:
            raise ValueError(
                "swap: position_embeddings must hold the token positions, got None: "
                "call the model, which hands them to its layers"
            )
        q, k, v = self.rotated(hidden_states, position_embeddings, check=False)
        table: Any = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS
        eager = sys.modules[self.replaced.__module__].eager_attention_forward
        attend: Callable[..., tuple[Tensor, Tensor | None]] = table.get_interface(
            self.config._attn_implementation, eager
        )
        p = float(_either(self, "attention_dropout", "dropout")) if self.training else 0.0
        scaling = _either(self, "scaling", "scale")
        y, weights = attend(self, q, k, v, attention_mask, dropout=p, scaling=scaling, **kwargs)
        y = y.reshape(*hidden_states.shape[:-1], -1).contiguous()
        out: Tensor = _either(self, "o_proj", "out_proj")(y)
        return out, weights

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, (self.replaced,), self.__dict__


def attention_like(
    attention: nn.Module, encoding: Encoding, heads: Heads, num_prefix_tokens: int
) -> SwappedAttention:
    """A swapped attention that is an instance of the replaced one's class as well."""
    made: SwappedAttention = _class_for(type(attention))(
        attention, encoding, heads, num_prefix_tokens
    )
    return made


_CLASSES: dict[type, Any] = {}


def _class_for(replaced: type[nn.Module]) -> Any:
    if replaced not in _CLASSES:
        name = f"Swapped{replaced.__name__}"
        made = type(name, (TransformersAttention, replaced), {"replaced": replaced})
        _CLASSES[replaced] = made
    return _CLASSES[replaced]


def _empty(replaced: type[nn.Module]) -> nn.Module:
    cls = _class_for(replaced)
    empty: nn.Module = cls.__new__(cls)
    return empty


def _either(module: nn.Module, name: str, other: str) -> Any:
    return getattr(module, name) if hasattr(module, name) else getattr(module, other)
