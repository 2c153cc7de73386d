"""LieRE: dense skew-symmetric generators in blocks of any size."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from lierope import ops
from lierope.choice import check_choice
from lierope.encodings import frequencies
from lierope.encodings.arguments import check_block, check_full
from lierope.encodings.base import Encoding
from lierope.encodings.commuting import common_planes
from lierope.encodings.mixed import MixedRoPE, rope_of
from lierope.encodings.rotation_cache import RotationCache, may_keep
from lierope.full_precision import without_autocast


class LieRE(Encoding):
    """Lie rotational encoding (arXiv 2406.10322, section 4): R(p) = exp(sum_c p_c A_c).

    The A_c are skew and block-diagonal, with blocks b x b that need not commute: for b > 2 (and
    C > 1) R(a)^T R(b) = R(b - a) holds only near a = b. Learned: `generators`
    (C, H', D / b, b (b - 1) / 2), the strict upper triangle of each block row by row (+ above the
    diagonal), so that skew-symmetry can't be lost. b = 2 is RoPE-Mixed.

    Args:
        block_size: b, from 2 to D, a divisor of D.
        init: "uniform", U(0, 2 pi), the paper's; "rope", the rotations of a fresh MixedRoPE of
            theta 10; "small", N(0, 0.02^2), near the identity. "uniform" is meant for positions in
            [0, 1] (the default, "proportional"), "rope" for positions in patches ("index").
        reorthogonalize: form the rotations and correct them twice by R (3 I - R^T R) / 2, so that
            they keep lengths where generators have grown so large (a norm of 1e3 and more) that
            float32's exponential does not; no rotation is known more closely for it. Costs the
            memory of the rotations.

    In eval mode, where no gradient is wanted, the rotations of positions that all samples share are
    kept from one call to the next, until generators or positions change; see `RotationCache`.

    Other arguments and errors: see `Encoding`. ValueError also for a block_size below 2 or one that
    does not divide D.

    Example:
        >>> encoding = lierope.LieRE(head_dim=64, num_heads=3, block_size=8)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "liere"
    default_positions = "proportional"
    kept_bytes: ClassVar[int] = 2**26
    """Rotations that take more memory are not kept; 0 keeps none."""

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        block_size: int = 8,
        init: str = "uniform",
        reorthogonalize: bool = False,
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
            num_kv_heads=num_kv_heads,
            share=share,
            rotary_dim=rotary_dim,
            device=device,
            dtype=dtype,
        )
        owner = type(self).__name__
        check_block(owner, block_size, self.rotary_dim, head_dim, least=2)
        self.block_size = block_size
        self.reorthogonalize = reorthogonalize
        self.init = check_choice(owner, "init", init, ("uniform", "rope", "small"))
        if init == "rope":
            self.default_positions = "index"
        blocks, entries = self.rotary_dim // block_size, math.comb(block_size, 2)
        self.generators = self._parameter(ndim, self.parameter_heads, blocks, entries)
        self._kept = RotationCache()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the generators as `init` says."""
        if self.generators.is_meta:
            return
        if self.init == "uniform":
            self.generators.uniform_(0, 2 * math.pi)
        elif self.init == "small":
            self.generators.normal_(0, 0.02)
        else:
            self._start_as_rope()

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Multiplies every block of features by its exponential."""
        check_full(self, self.generators)
        keeps = self._keeps(positions)
        if not keeps and not self.reorthogonalize:
            return ops.lie_rotate(
                q, k, self.generators, positions, num_prefix_tokens=num_prefix_tokens
            )
        form = _orthogonal_rotations if self.reorthogonalize else ops.lie_rotations
        if keeps:
            rotations = self._kept.get(self.generators, positions, form)
        else:
            rotations = form(self.generators, positions)
        return ops.rotate_blocks(q, k, rotations, num_prefix_tokens=num_prefix_tokens)

    @torch.no_grad()
    def fold_basis(self) -> Tensor | None:
        """The planes of generators that commute, (H', D, D); None where some do not.

        In one dimension they always do. Rows are ordered as `CirculantSTRING.basis` has them: the
        planes of all blocks, then what never turns.
        """
        planes = self._planes()
        if planes is None:
            return None
        basis = torch.eye(self.head_dim, dtype=torch.float64, device=self.generators.device)
        basis = basis.repeat(self.parameter_heads, 1, 1)
        b, pairs = self.block_size, self.block_size // 2
        still = self.rotary_dim // b * 2 * pairs  # an odd block's last feature
        for head, blocks in enumerate(planes):
            basis[head, : self.rotary_dim, : self.rotary_dim] = 0
            for block, (rows, _) in enumerate(blocks):
                own = slice(block * b, (block + 1) * b)
                basis[head, block * 2 * pairs : (block + 1) * 2 * pairs, own] = rows[: 2 * pairs]
                if b % 2:
                    basis[head, still + block, own] = rows[-1]
        return basis

    @torch.no_grad()
    def folded(self) -> MixedRoPE:
        """A MixedRoPE of the planes that the generators share.

        Raises:
            ValueError: the generators do not commute: rotations of more than one axis then have no
                basis in common.
        """
        planes = self._planes()
        if planes is None:
            raise ValueError(
                "LieRE: folded must be called on generators that commute, got such that do not"
            )
        each = [torch.cat([own for _, own in blocks], -1) for blocks in planes]
        return rope_of(self, torch.stack(each, 1).to(self.generators))

    def _planes(self) -> "list[list[tuple[Tensor, Tensor]]] | None":
        """Basis and frequencies of each head's blocks, or None."""
        b = self.block_size
        row, column = torch.triu_indices(b, b, 1)
        upper = self.generators.detach().double()
        matrices = upper.new_zeros(*upper.shape[:-1], b, b)
        matrices[..., row, column] = upper
        matrices = matrices - matrices.mT
        found = [[common_planes(block) for block in head.unbind(1)] for head in matrices.unbind(1)]
        shared = [[pair for pair in blocks if pair is not None] for blocks in found]
        return shared if all(len(s) == len(f) for s, f in zip(shared, found, strict=True)) else None

    def rotations(self, positions: Tensor) -> Tensor:
        """The rotations themselves, (..., H', M, D / b, b, b), at positions (..., M, C)."""
        form = _orthogonal_rotations if self.reorthogonalize else ops.lie_rotations
        return form(self.generators, positions)

    def train(self, mode: bool = True) -> "LieRE":
        """As every module's; also empties what was kept for evaluation."""
        self._kept.clear()
        return super().train(mode)

    def _keeps(self, positions: Tensor) -> bool:
        if self.training or positions.dim() != 2:
            return False
        _, heads, blocks, _ = self.generators.shape
        size = heads * positions.shape[0] * blocks * self.block_size**2 * positions.element_size()
        return size <= self.kept_bytes and may_keep(self.generators, positions)

    def extra_repr(self) -> str:
        """Adds block size and start."""
        words = f"{super().extra_repr()}, block_size={self.block_size}, init={self.init!r}"
        return f"{words}, reorthogonalize=True" if self.reorthogonalize else words

    def _start_as_rope(self) -> None:
        """Pairs (2i, 2i + 1) of each block turn as MixedRoPE's do; an odd last feature stays."""
        ndim, heads, blocks, _ = self.generators.shape
        planes = self.block_size // 2
        start = frequencies.mixed(ndim, heads, blocks * planes, theta=10.0)
        # row 2i of the packed triangle starts after the rows above it; its first entry is
        # (2i, 2i + 1). A plus above the diagonal turns against RoPE's sense.
        first = [row * (2 * self.block_size - row - 1) // 2 for row in range(0, 2 * planes, 2)]
        self.generators.zero_()
        start = start.reshape(ndim, heads, blocks, planes).to(self.generators)
        self.generators[..., first] = -start


def _orthogonal_rotations(generators: Tensor, positions: Tensor) -> Tensor:
    """Rotations whose error of orthogonality e has become 3/4 e^2, twice (Higham 2008, ch. 8)."""
    rotations = ops.lie_rotations(generators, positions)
    with without_autocast(rotations):
        for _ in range(2):
            rotations = 1.5 * rotations - 0.5 * rotations @ (rotations.mT @ rotations)
    return rotations
