"""The base class of every encoding: constructor words, checks, basis and rotation."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lierope.choice import check_choice
from lierope.encodings.arguments import check_forward, check_options, check_sizes
from lierope.encodings.sharded import on_whole_parameters
from lierope.full_precision import FullPrecision, parameter_dtype, without_autocast


class Encoding(FullPrecision):
    """Rotates q and k by R(p), an orthogonal matrix for each head and each token's position p.

    Letters: B batch, H heads, N tokens, D = head_dim, C = ndim, H' heads that have parameters of
    their own: num_kv_heads (the q heads of a group must rotate as their k head does), or 1 when
    share="heads".

    Args:
        head_dim: D.
        num_heads: heads of q.
        ndim: C, position dimensions, 1 or more.
        num_kv_heads: heads of k, a divisor of num_heads; num_heads when None.
        share: "none", or "heads" for one set of parameters for all heads.
        rotary_dim: rotate only that many features, the first ones; all when None.
        device: where parameters are made.
        dtype: float32 or float64; torch's default type when None. It stays under .half().

    Raises:
        ValueError: a size that is not positive or does not divide, an unknown share.
        TypeError: dtype is a half or integer type.

    Example:
        >>> class Still(lierope.Encoding):
        ...     short_name = "still"
        ...     def rotate(self, q, k, positions, num_prefix_tokens=0):
        ...         return q, k
        >>> still = Still(head_dim=64, num_heads=3)
        >>> q, k = still(torch.randn(2, 3, 9, 64), torch.randn(2, 3, 9, 64), torch.rand(9, 2))
    """

    short_name: ClassVar[str]
    """The name that `create`, `swap` and the command line know it by."""
    default_positions: str = "index"
    """The mode of `grid_positions` whose units the initial frequencies are meant for."""

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        num_kv_heads: int | None = None,
        share: str = "none",
        rotary_dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        check_sizes(
            owner, head_dim, num_heads, ndim, num_kv_heads=num_kv_heads, rotary_dim=rotary_dim
        )
        self.head_dim = head_dim
        self.num_heads = num_heads
        self.ndim = ndim
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.share = check_choice(owner, "share", share, ("none", "heads"))
        self.rotary_dim = head_dim if rotary_dim is None else rotary_dim
        self.parameter_heads = 1 if share == "heads" else self.num_kv_heads
        self._factory: dict[str, Any] = {"device": device, "dtype": parameter_dtype(owner, dtype)}

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        if "reset_parameters" in cls.__dict__:
            reset: Any = on_whole_parameters(cls.__dict__["reset_parameters"])
            cls.reset_parameters = reset  # type: ignore[method-assign]

    @classmethod
    def parse_options(cls, text: str) -> dict[str, Any]:
        """Constructor options from what follows the colon of a name: "block_size=8,init=small".

        Raises:
            ValueError: an option that the class does not have.
        """
        return check_options(cls, text)

    def reset_parameters(self) -> None:
        """Draws every parameter anew; after `to_empty` it makes a module built on meta usable."""

    def basis(self) -> Tensor | None:
        """The factor of R(p) that does not depend on p and may be moved into W_q and W_k.

        Returns:
            Orthogonal matrices (H', D, D), or None where R(p) has no such factor. Scores of
            `rotate(basis q, basis k)` equal the scores of `forward(q, k)`.
        """
        return None

    def fold_basis(self) -> Tensor | tuple[Tensor, Tensor] | None:
        """The basis that `lierope.fold` moves into the weights; `folded()` is what is left.

        `basis()`, or one that only the present values of the parameters have, or one for q and
        another for k.
        """
        return self.basis()

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The factor of R(p) that depends on p; arguments as of `forward`, not checked here."""
        raise NotImplementedError

    def forward(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """y_n = R(p_n) x_n for every head and token of q and k.

        Args:
            q: (B, num_heads, N, D); float32, bfloat16 or float16, or float64 with float64
                parameters.
            k: (B, num_kv_heads, N, D), q's type and device.
            positions: (M, C) or, for each sample, (B, M, C), M = N - num_prefix_tokens; the
                encoding's type. Gradients reach them.
            num_prefix_tokens: that many first tokens (cls, registers) are not rotated: they sit
                at the origin.

        Returns:
            The rotated q and k, of q's type.

        Raises:
            ValueError: a wrong shape or head count, positions that are not finite (seen on the CPU
                in eager mode only: elsewhere looking would stall the device).
            TypeError: a wrong type.
        """
        check_forward(self, q, k, positions, num_prefix_tokens)
        q, k = self.change_basis(q, k)
        return self.rotate(q, k, positions, num_prefix_tokens)

    def change_basis(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Multiplies every token of q and k by `basis()`, in the encoding's precision."""
        basis = self.basis()
        if basis is None:
            return q, k
        return multiply_heads(q, basis), multiply_heads(k, basis)

    def folded(self) -> "Encoding":
        """An encoding without basis that rotates as this one does, with parameters of its own.

        Raises:
            ValueError: the encoding has no basis to fold away.
        """
        raise ValueError(
            f"{type(self).__name__}: folded must be called on an encoding with a basis "
            "(cayley, circulant, dense-string), got one without"
        )

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would pull towards no rotation: all."""
        return {name for name, _ in self.named_parameters(recurse=False)}

    def extra_repr(self) -> str:
        """The sizes and, where they are not the usual ones, sharing and partial rotation."""
        words = [f"head_dim={self.head_dim}, num_heads={self.num_heads}, ndim={self.ndim}"]
        if self.num_kv_heads != self.num_heads:
            words.append(f"num_kv_heads={self.num_kv_heads}")
        if self.share != "none":
            words.append(f"share={self.share!r}")
        if self.rotary_dim != self.head_dim:
            words.append(f"rotary_dim={self.rotary_dim}")
        return ", ".join(words)

    def _parameter(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(shape, **self._factory))


def per_head(matrices: Tensor, heads: int) -> Tensor:
    """(H', D, D) -> (heads or 1, D, D): head h takes matrix h H' // heads."""
    own = matrices.shape[0]
    return matrices if own in (1, heads) else matrices.repeat_interleave(heads // own, 0)


def multiply_heads(x: Tensor, matrices: Tensor) -> Tensor:
    """y_n = P_h x_n, in the type of P: autocast would round an orthogonal P to 8 bits."""
    with without_autocast(x):
        y = x.to(matrices.dtype) @ per_head(matrices, x.shape[1]).mT
    return y.to(x.dtype)
