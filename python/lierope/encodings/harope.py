"""HARoPE: RoPE in coordinates that each head learns, by a singular value decomposition."""

import math

import torch
from torch import Tensor

from lierope import ops
from lierope.encodings.arguments import check_full
from lierope.encodings.base import multiply_heads
from lierope.encodings.mixed import Mixed, MixedRoPE, rope_of


class HARoPE(Mixed):
    """Head-wise adaptive RoPE (arXiv 2510.10489): q -> RoPE(p) M q, k -> RoPE(p) M^-T k.

    M = U diag(s) V^T for each head, U = exp(A_u) and V = exp(A_v) with A_u, A_v skew, s > 0. A
    score is q^T M^T RoPE(b - a) M^-T k: it depends on b - a alone and, where b = a, is q^T k. (So
    the authors' code; M is not orthogonal, and therefore q and k are treated differently.) Learned:
    `skew_u` and `skew_v` (H', D (D - 1) / 2), the strict upper triangles row by row, `log_scales`
    (H', D), s = exp of them (the authors': softplus), and, as the paper's are not, `frequencies`
    (C, H', D / 2). It starts at M = I, where it equals MixedRoPE bit for bit. Prefix tokens sit at
    the origin: multiplied, not rotated.

    There is no factor for q and k alike (`basis` is None), so every token is multiplied, until
    `lierope.fold` puts M into W_q and M^-T into W_k.

    Args:
        theta, init: of the frequencies, see `MixedRoPE`; the paper's are init="axial", theta=1e4.

    Other arguments and errors: see `Encoding`. ValueError also for an odd head_dim.

    Example:
        >>> encoding = lierope.HARoPE(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "harope"

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        theta: float = 10.0,
        init: str = "naver",
        num_kv_heads: int | None = None,
        share: str = "none",
        rotary_dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            head_dim,
            num_heads,
            ndim,
            theta=theta,
            init=init,
            num_kv_heads=num_kv_heads,
            share=share,
            rotary_dim=rotary_dim,
            device=device,
            dtype=dtype,
        )
        entries = math.comb(self.rotary_dim, 2)
        self.skew_u = self._parameter(self.parameter_heads, entries)
        self.skew_v = self._parameter(self.parameter_heads, entries)
        self.log_scales = self._parameter(self.parameter_heads, self.rotary_dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """M = I; frequencies as `init` says."""
        super().reset_parameters()
        for parameter in (self.skew_u, self.skew_v, self.log_scales):
            if not parameter.is_meta:
                parameter.zero_()

    def transforms(self) -> tuple[Tensor, Tensor]:
        """M and M^-T, (H', D, D) each; the identity on features that are not rotated."""
        check_full(self, self.log_scales)
        u, v = ops.expm_skew(self._upper(self.skew_u)), ops.expm_skew(self._upper(self.skew_v))
        scales = self.log_scales.exp().unsqueeze(-2)
        return self._product(u, scales, v), self._product(u, 1 / scales, v)

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Multiplies every token by M or M^-T, then turns interleaved pairs by `angles`."""
        of_q, of_k = self.transforms()
        q, k = multiply_heads(q, of_q), multiply_heads(k, of_k)
        return super().rotate(q, k, positions, num_prefix_tokens)

    @torch.no_grad()
    def fold_basis(self) -> tuple[Tensor, Tensor]:
        """M for W_q and M^-T for W_k."""
        return self.transforms()

    def folded(self) -> MixedRoPE:
        """A MixedRoPE with this encoding's frequencies: what is left once M is in the weights."""
        return rope_of(self, self.frequencies)

    def _upper(self, packed: Tensor) -> Tensor:
        """(H', m) -> (H', n, n) with the entries in the strict upper triangle."""
        heads, size = packed.shape[0], self.rotary_dim
        row, column = torch.triu_indices(size, size, 1, device=packed.device).unbind(0)
        flat = torch.zeros(heads, size * size, dtype=packed.dtype, device=packed.device)
        entries = (row * size + column).expand(heads, -1)
        return flat.scatter(-1, entries, packed).view(heads, size, size)

    def _product(self, u: Tensor, scales: Tensor, v: Tensor) -> Tensor:
        """U diag(s) V^T, never autocast, and I for the features after it."""
        matrix = multiply_heads((v * scales).unsqueeze(0), u).squeeze(0).mT
        rest = self.head_dim - self.rotary_dim
        if not rest:
            return matrix
        one = torch.eye(self.head_dim, dtype=u.dtype, device=u.device)
        one = one * (torch.arange(self.head_dim, device=u.device) >= self.rotary_dim)
        return torch.nn.functional.pad(matrix, (0, rest, 0, rest)) + one
