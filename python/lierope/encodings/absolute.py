"""No rotation: the baselines with and without a model's own position embedding."""

from typing import Any

from torch import Tensor

from lierope.encodings.base import Encoding


class Absolute(Encoding):
    """Rotates nothing, R(p) = I: the model's absolute embedding does the work, or nothing does.

    Args:
        keep: whether `swap` leaves the model its own position embedding. keep=False is the
            encoding "none": attention then sees a set of patches.

    Other arguments and errors: see `Encoding`.

    Example:
        >>> encoding = lierope.Absolute(head_dim=64, num_heads=3)
        >>> q = torch.randn(2, 3, 196, 64)
        >>> torch.equal(encoding(q, q, torch.rand(196, 2))[0], q)
        True
    """

    short_name = "absolute"

    def __init__(
        self, head_dim: int, num_heads: int, ndim: int = 2, *, keep: bool = True, **words: Any
    ) -> None:
        super().__init__(head_dim, num_heads, ndim, **words)
        self.keep = keep

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The identity: q and k themselves."""
        return q, k

    def extra_repr(self) -> str:
        """Adds whether the model's embedding is kept."""
        return f"{super().extra_repr()}, keep={self.keep}"
