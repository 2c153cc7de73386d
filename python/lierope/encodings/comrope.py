"""ComRoPE: skew blocks that commute because each is a multiple of one matrix."""

import math

import torch
from torch import Tensor, nn

from lierope import ops
from lierope.choice import check_choice
from lierope.encodings.arguments import check_block, check_full
from lierope.encodings.base import Encoding
from lierope.encodings.liere import LieRE
from lierope.encodings.mixed import MixedRoPE


class ComRoPE(Encoding):
    """What `ComRoPEAP` and `ComRoPELD` share (arXiv 2506.03737): R(p) = exp(sum_c p_c A_c).

    Every block of A_c is m_c B, a multiple of a skew b x b matrix B that all axes have in common.
    Multiples of one matrix commute, so R(a)^T R(b) = R(b - a).
    Learned: `generators` (1, H', D / b, b (b - 1) / 2), the strict upper triangles of the B's row
    by row (+ above the diagonal); what the multiples m are, the subclasses say.

    `lierope.fold` turns it into a MixedRoPE in the planes of each B: inference costs what RoPE
    costs.

    Args:
        block_size: b, from 2 to D, a divisor of D. None: 8 as in the paper, or the largest of 4
            and 2 that fits.
        init: "normal", the paper's, B = F - F^T with standard normal F; "small", entries of B
            N(0, 0.02^2), near the identity. Meant for positions in [0, 1] ("proportional"). The
            paper puts patch i of n at (i + 1/2) / n, which scores see as a change of unit, and the
            class token at the centre, where here prefix tokens sit at the origin.

    Other arguments and errors: see `Encoding`. ValueError also for a block_size below 2 or one that
    does not divide D.

    Example:
        >>> encoding = lierope.ComRoPELD(head_dim=64, num_heads=3)
        >>> isinstance(encoding, lierope.ComRoPE)
        True
    """

    default_positions = "proportional"

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        block_size: int | None = None,
        init: str = "normal",
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
        if block_size is None:
            block_size = self._usual_block_size()
        check_block(owner, block_size, self.rotary_dim, head_dim, least=2)
        self.block_size = block_size
        self.init = check_choice(owner, "init", init, ("normal", "small"))
        self.blocks = self.rotary_dim // block_size
        entries = math.comb(block_size, 2)
        self.generators = self._parameter(1, self.parameter_heads, self.blocks, entries)
        self._prepare_multiples()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the blocks as `init` says."""
        if not self.generators.is_meta:
            # F - F^T of standard normal F has variance 2
            self.generators.normal_(0, math.sqrt(2) if self.init == "normal" else 0.02)

    def multiples(self) -> Tensor:
        """m, (C, H' or 1, D / b): block g of A_c is m_cg B_g."""
        raise NotImplementedError

    def axis_generators(self) -> Tensor:
        """The A_c, (C, H', D / b, b (b - 1) / 2), packed as LieRE's generators are."""
        check_full(self, self.generators)
        return self.multiples().unsqueeze(-1) * self.generators

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Multiplies every block of features by its exponential."""
        generators = self.axis_generators()
        return ops.lie_rotate(q, k, generators, positions, num_prefix_tokens=num_prefix_tokens)

    def rotations(self, positions: Tensor) -> Tensor:
        """The rotations themselves, (..., H', M, D / b, b, b), at positions (..., M, C)."""
        return ops.lie_rotations(self.axis_generators(), positions)

    def fold_basis(self) -> Tensor | None:
        """The planes of the B's, (H', D, D), as `LieRE.fold_basis` orders them."""
        return self.as_liere().fold_basis()

    def folded(self) -> MixedRoPE:
        """A MixedRoPE of those planes."""
        return self.as_liere().folded()

    @torch.no_grad()
    def as_liere(self) -> LieRE:
        """A LieRE with these rotations and generators of its own, free to stop commuting."""
        liere = LieRE(
            self.head_dim,
            self.num_heads,
            self.ndim,
            block_size=self.block_size,
            num_kv_heads=self.num_kv_heads,
            share=self.share,
            rotary_dim=self.rotary_dim,
            device="meta",  # draws no random numbers
        )
        liere.generators = nn.Parameter(self.axis_generators(), self.generators.requires_grad)
        return liere.train(self.training)

    def extra_repr(self) -> str:
        """Adds block size and start."""
        return f"{super().extra_repr()}, block_size={self.block_size}, init={self.init!r}"

    def _prepare_multiples(self) -> None:
        """Makes the parameters of the multiples, or checks that there can be any."""

    def _usual_block_size(self) -> int:
        fits = (b for b in (8, 4) if self.rotary_dim % b == 0)
        return next((b for b in fits if self.rotary_dim // b >= self._least_blocks()), 2)

    def _least_blocks(self) -> int:
        return 1


class ComRoPEAP(ComRoPE):
    """ComRoPE by axial partition (arXiv 2506.03737): block g turns with axis g mod C alone.

    m_cg = 1 for c = g mod C, else 0: R(p) has the blocks exp(p_c B_g). Parameters: `generators`,
    that is H' D (b - 1) / 2. See `ComRoPE` for arguments and errors; ValueError also where there
    are fewer blocks than axes.

    Example:
        >>> encoding = lierope.ComRoPEAP(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "comrope-ap"

    def multiples(self) -> Tensor:
        """The partition, (C, 1, D / b), zeros and ones."""
        device = self.generators.device
        axis = torch.arange(self.blocks, device=device) % self.ndim
        own = axis == torch.arange(self.ndim, device=device).unsqueeze(-1)
        return own.to(self.generators.dtype).unsqueeze(1)

    def _prepare_multiples(self) -> None:
        if self.blocks < self.ndim:
            raise ValueError(
                f"ComRoPEAP: block_size must leave a block for each of {self.ndim} axes, "
                f"got {self.block_size} for {self.rotary_dim} features"
            )

    def _least_blocks(self) -> int:
        return self.ndim


class ComRoPELD(ComRoPE):
    """ComRoPE by linear dependence (arXiv 2506.03737): block g of A_c is theta_cg B_g.

    Each block turns with sum_c p_c theta_c, a learned mixture of the axes. Learned besides
    `generators`: `multipliers` theta (C, H', D / b), at first standard normal. (The theta of the
    authors' code are common to all heads; the paper counts them for each head, as here.) See
    `ComRoPE` for arguments and errors.

    Example:
        >>> encoding = lierope.ComRoPELD(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "comrope-ld"
    multipliers: nn.Parameter

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the blocks as `init` says, and the multipliers."""
        super().reset_parameters()
        if not self.multipliers.is_meta:
            self.multipliers.normal_()

    def multiples(self) -> Tensor:
        """The learned multipliers."""
        check_full(self, self.multipliers)
        return self.multipliers

    def _prepare_multiples(self) -> None:
        self.multipliers = self._parameter(self.ndim, self.parameter_heads, self.blocks)
