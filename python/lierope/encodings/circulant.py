"""Circulant-STRING: rotations by exponentials of skew circulant matrices."""

import math

import torch
from torch import Tensor

from lierope import ops
from lierope.choice import check_choice
from lierope.encodings import frequencies
from lierope.encodings.arguments import check_block, check_forward, check_full, check_positive
from lierope.encodings.base import Encoding
from lierope.encodings.mixed import MixedRoPE, rope_of


class CirculantSTRING(Encoding):
    """Circulant-STRING (arXiv 2502.02562, theorem 3.5): R(p) = exp(sum_c p_c (C_c - C_c^T)).

    In every block of b features C_c is the circulant matrix with first column c_0 .. c_{b-1}. All
    circulants commute, so R(a)^T R(b) = R(b - a). Learned: `coefficients` (C, H', D / b, b), of
    which only the odd part acts: (b - 1) // 2 free frequencies a block. The mean of a block and,
    for even b, its alternating sum never turn.

    In the basis of the real discrete Fourier transform R(p) is a RoPE with frequencies
    2 Im(rfft c): `basis` and `rotate` are that form, `forward` is R(p) itself by FFT. Their scores
    are the same.

    Args:
        block_size: b, from 3 to D, a divisor of D; D when None. The paper found about 16 best.
        init: "rope", coefficients whose frequencies are those of a fresh MixedRoPE; "small",
            N(0, 0.02^2).
        theta: of init="rope", see `MixedRoPE`.

    Other arguments and errors: see `Encoding`. ValueError also for a block_size below 3 or one that
    does not divide D.

    Example:
        >>> encoding = lierope.CirculantSTRING(head_dim=64, num_heads=3, block_size=16)
        >>> q, k = torch.randn(2, 2, 3, 196, 64).unbind()
        >>> q, k = encoding(q, k, lierope.grid_positions((14, 14), encoding.default_positions))
    """

    short_name = "circulant"

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = 2,
        *,
        block_size: int | None = None,
        init: str = "rope",
        theta: float = 10.0,
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
        block_size = self.rotary_dim if block_size is None else block_size
        check_block(owner, block_size, self.rotary_dim, head_dim, least=3)
        check_positive(owner, "theta", theta)
        self.block_size = block_size
        self.init = check_choice(owner, "init", init, ("rope", "small"))
        self.theta = theta
        blocks = self.rotary_dim // block_size
        self.coefficients = self._parameter(ndim, self.parameter_heads, blocks, block_size)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the coefficients as `init` says."""
        if self.coefficients.is_meta:
            return
        if self.init == "small":
            self.coefficients.normal_(0, 0.02)
            return
        ndim, heads, blocks, b = self.coefficients.shape
        planes = (b - 1) // 2
        start = frequencies.mixed(ndim, heads, blocks * planes, self.theta)
        # rfft(c)_m = i w_m / 2 gives t = w; the zeros are the mean and the alternating sum
        start = start.view(ndim, heads, blocks, planes)
        start = torch.nn.functional.pad(start, (1, b // 2 - planes)) / 2
        self.coefficients.copy_(torch.fft.irfft(torch.complex(torch.zeros_like(start), start), n=b))

    def angles(self, positions: Tensor) -> Tensor:
        """Angles (..., H', M, D / b (b - 1) // 2), block after block, at positions (..., M, C)."""
        check_full(self, self.coefficients)
        return ops.circulant_angles(self.coefficients, positions)

    def basis(self) -> Tensor:
        """The real orthonormal Fourier transform of every block, (H', D, D), equal for all heads.

        Its first rows are the planes that turn, cosine and minus sine in turn, block after block;
        then come the rows that don't: mean and alternating sum of each block, leftover features.
        """
        sizes = (self.head_dim, self.rotary_dim, self.block_size)
        return _kept_basis(sizes, self.coefficients).expand(self.parameter_heads, -1, -1)

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Turns the planes of `basis`, which are interleaved pairs."""
        return ops.rotate_pairs(q, k, self.angles(positions), num_prefix_tokens=num_prefix_tokens)

    def forward(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """R(p) itself, by FFT; arguments and errors as of `Encoding.forward`."""
        check_forward(self, q, k, positions, num_prefix_tokens)
        angles = self.angles(positions)
        return ops.rotate_circulant(
            q, k, angles, self.block_size, num_prefix_tokens=num_prefix_tokens
        )

    def folded(self) -> MixedRoPE:
        """A MixedRoPE of the turning planes, with the present frequencies 2 Im(rfft c)."""
        axes = torch.eye(self.ndim, dtype=self.coefficients.dtype, device=self.coefficients.device)
        with torch.no_grad():
            learned = self.angles(axes).movedim(-2, 0)
        return rope_of(self, learned)

    def extra_repr(self) -> str:
        """Adds block size and start."""
        return f"{super().extra_repr()}, block_size={self.block_size}, init={self.init!r}"


_KEPT: dict[tuple[object, ...], Tensor] = {}


def _kept_basis(sizes: tuple[int, int, int], like: Tensor) -> Tensor:
    """`_fourier_basis`, made once on the CPU: no parameter changes it."""
    # On a GPU another stream could be ahead of the one that made it; tracers have other tensors.
    if not like.is_cpu or type(like) is not torch.nn.Parameter or torch.compiler.is_compiling():
        return _fourier_basis(*sizes, like)
    key = (*sizes, like.dtype)
    if key not in _KEPT:
        with torch.inference_mode(False):
            made = _fourier_basis(*sizes, like)
        if type(made) is not Tensor:
            return made
        _KEPT[key] = made
    return _KEPT[key]


def _fourier_basis(head_dim: int, rotary_dim: int, block_size: int, like: Tensor) -> Tensor:
    """(head_dim, head_dim): see `CirculantSTRING.basis`."""
    blocks = rotary_dim // block_size
    turning, still = _fourier(block_size, like)
    repeat = torch.eye(blocks, dtype=turning.dtype, device=turning.device)
    rotary = torch.cat((torch.kron(repeat, turning), torch.kron(repeat, still)))
    basis = torch.eye(head_dim, dtype=turning.dtype, device=turning.device)
    basis[:rotary_dim, :rotary_dim] = rotary
    return basis


def _fourier(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the real orthonormal DFT of one block: planes that turn, rows that don't."""
    planes = (size - 1) // 2
    j = torch.arange(size, device=like.device)
    # reduced before the cosine, so that a large block costs no accuracy
    turns = (torch.arange(1, planes + 1, device=like.device).unsqueeze(-1) * j) % size
    phase = turns.double() * (2 * math.pi / size)
    turning = math.sqrt(2 / size) * torch.stack((phase.cos(), -phase.sin()), 1).flatten(0, 1)
    still = [torch.ones_like(j)] if size % 2 else [torch.ones_like(j), 1 - 2 * (j % 2)]
    return turning.to(like.dtype), torch.stack(still).to(like.dtype) / math.sqrt(size)
