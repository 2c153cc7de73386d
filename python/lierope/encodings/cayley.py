"""Cayley-STRING and its dense sibling: RoPE after a learned orthogonal change of basis."""

import math
from typing import Any

import torch
from torch import Tensor

from lierope import ops
from lierope.choice import check_choice
from lierope.encodings.arguments import check_options
from lierope.encodings.base import per_head
from lierope.encodings.mixed import Mixed, MixedRoPE, rope_of


class _LearnedBasis(Mixed):
    """R(p) = RoPE(p) P with P an orthogonal function of a learned skew matrix S, at first 0."""

    skew: torch.nn.Parameter

    def skew_entries(self) -> Tensor:
        """Where the packed parameter sits: indices (m,) into S (D x D) flattened row by row."""
        size = self.rotary_dim
        row, column = torch.triu_indices(size, size, 1, device=self.skew.device).unbind(0)
        return row * self.head_dim + column

    def skew_matrix(self) -> Tensor:
        """(H', D, D) with the learned entries in the strict upper triangle and 0 elsewhere."""
        heads, size = self.skew.shape[0], self.head_dim
        entries = self.skew_entries().expand(heads, -1)
        flat = torch.zeros(heads, size * size, dtype=self.skew.dtype, device=self.skew.device)
        return flat.scatter(-1, entries, self.skew).view(heads, size, size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """S = 0, so that P = I; frequencies as `init` says."""
        super().reset_parameters()
        if not self.skew.is_meta:
            self.skew.zero_()

    def folded(self) -> MixedRoPE:
        """A MixedRoPE with this encoding's frequencies: what is left once P is in W_q and W_k."""
        return rope_of(self, self.frequencies)


class CayleySTRING(_LearnedBasis):
    """Cayley-STRING (arXiv 2502.02562, section 3): R(p) = RoPE(p) P, P = (I - S)(I + S)^-1.

    S is skew. By the paper's theorem 3.4 every encoding with R(a)^T R(b) = R(0)^T R(b - a) has
    this form up to a factor that scores don't see. Learned: `skew` (H', m), the entries of S above
    the diagonal, and `frequencies` (C, H', D / 2). It starts at S = 0, P = I, where it equals
    MixedRoPE bit for bit. Prefix tokens sit at the origin: multiplied by P, not rotated.

    Args:
        structure: "dense"; "banded", S_ij = 0 for |i - j| > bandwidth; "sparse", a random fraction
            `density` of the entries, drawn once and kept in the buffer `entries`.
        bandwidth: for "banded", from 1 to D - 1.
        density: for "sparse", above 0 and at most 1.
        theta, init: of the frequencies, see `MixedRoPE`.

    Other arguments and errors: see `Encoding`. ValueError also for an odd head_dim, an unknown
    structure, or a bandwidth or density out of range or without its structure.

    Example:
        >>> encoding = lierope.CayleySTRING(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "cayley"
    entries: Tensor

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        structure: str = "dense",
        bandwidth: int | None = None,
        density: float | None = None,
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
        choices = ("dense", "banded", "sparse")
        self.structure = check_choice("CayleySTRING", "structure", structure, choices)
        self.bandwidth, self.density = bandwidth, density
        self._check_structure()
        count = self._entry_count()
        self.skew = self._parameter(self.parameter_heads, count)
        if structure == "sparse":
            self.register_buffer(
                "entries", torch.empty(count, dtype=torch.long, device=self.skew.device)
            )
        self.reset_parameters()

    @classmethod
    def parse_options(cls, text: str) -> dict[str, Any]:
        """As the base class does, and "banded=4" and "sparse=0.1" for structure with its number."""
        short = {"banded": "bandwidth", "sparse": "density"}
        name, _, value = text.partition("=")
        if name in short:
            return {"structure": name} | check_options(cls, f"{short[name]}={value}")
        return super().parse_options(text)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """S = 0, frequencies as `init` says, and for "sparse" another draw of the entries."""
        super().reset_parameters()
        if self.structure == "sparse" and not self.entries.is_meta:
            every = super().skew_entries().cpu()
            chosen = torch.randperm(len(every), device="cpu")[: len(self.entries)]
            self.entries.copy_(every[chosen.sort().values])

    def skew_entries(self) -> Tensor:
        """All entries row by row, those of the band diagonal by diagonal, or those of the draw."""
        if self.structure == "sparse":
            return self.entries
        if self.bandwidth is None:
            return super().skew_entries()
        rows = torch.arange(self.rotary_dim, device=self.skew.device) * (self.head_dim + 1)
        return torch.cat([rows[:-offset] + offset for offset in range(1, self.bandwidth + 1)])

    def basis(self) -> Tensor:
        """P (H', D, D)."""
        return ops.cayley(self.skew_matrix())

    def change_basis(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """P q and P k; by a banded solve, O(D bandwidth) a token, where S has a band."""
        if self.bandwidth is None:
            return super().change_basis(q, k)
        s = self.skew_matrix()
        return (
            ops.cayley_rotate(q, per_head(s, q.shape[1]), bandwidth=self.bandwidth),
            ops.cayley_rotate(k, per_head(s, k.shape[1]), bandwidth=self.bandwidth),
        )

    def extra_repr(self) -> str:
        """Adds the structure of S."""
        number = {"banded": self.bandwidth, "sparse": self.density}.get(self.structure)
        structure = self.structure if number is None else f"{self.structure}={number}"
        return f"{super().extra_repr()}, structure={structure}"

    def _check_structure(self) -> None:
        numbers = {"bandwidth": ("banded", self.bandwidth), "density": ("sparse", self.density)}
        for name, (structure, number) in numbers.items():
            if (number is None) == (self.structure == structure):
                rule = "given" if number is None else "left out"
                raise ValueError(
                    f"CayleySTRING: {name} must be {rule} for structure {self.structure!r}, "
                    f"got {number}"
                )
        if self.bandwidth is not None and not 1 <= self.bandwidth < self.rotary_dim:
            raise ValueError(
                f"CayleySTRING: bandwidth must be between 1 and {self.rotary_dim - 1}, "
                f"got {self.bandwidth}"
            )
        if self.density is not None and not 0 < self.density <= 1:
            raise ValueError(
                f"CayleySTRING: density must be above 0 and at most 1, got {self.density}"
            )

    def _entry_count(self) -> int:
        size = self.rotary_dim
        if self.bandwidth is not None:
            return sum(size - offset for offset in range(1, self.bandwidth + 1))
        every = math.comb(size, 2)
        return every if self.density is None else max(1, round(self.density * every))


class DenseSTRING(_LearnedBasis):
    """STRING with P = exp(S): R(p) = RoPE(p) P (arXiv 2502.02562, theorem 3.4).

    As `CayleySTRING` with dense S, but P reaches every rotation matrix, eigenvalues -1 included,
    and is periodic in S. Learned: `skew` (H', D (D - 1) / 2), 0 at first, and `frequencies`
    (C, H', D / 2).

    Args:
        theta, init: of the frequencies, see `MixedRoPE`.

    Other arguments and errors: see `Encoding`. ValueError also for an odd head_dim.

    Example:
        >>> encoding = lierope.DenseSTRING(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "dense-string"

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
        self.skew = self._parameter(self.parameter_heads, math.comb(self.rotary_dim, 2))
        self.reset_parameters()

    def basis(self) -> Tensor:
        """P (H', D, D)."""
        return ops.expm_skew(self.skew_matrix())
