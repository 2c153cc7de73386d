"""What an encoding really does, measured on its rotations: the numbers of `lierope inspect`."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lierope.encodings import Encoding, SE3Pose

__all__ = [
    "ANGLE_LIMIT",
    "Report",
    "Spread",
    "generator_matrices",
    "inspect",
    "inspect_model",
    "relativity_violation",
    "rotation_matrices",
]

ANGLE_LIMIT = 1e-5 * 2**24
"""Radians beyond which float32 no longer gives a rotation to 1e-5: it rounds angles by 2^-24."""
_SMALL = 1e-3  # of a parameter's largest entry


@dataclasses.dataclass(frozen=True)
class Spread:
    """Least, median and largest of a set of numbers."""

    least: float
    median: float
    largest: float


@dataclasses.dataclass(frozen=True)
class Report:
    """Measurements of one encoding. Norms of matrices are spectral unless said otherwise.

    Attributes:
        encoding: The class's name and options.
        parameters: Number of parameters.
        shapes: Shape of each parameter.
        generator_norms: For each position axis, over heads: the largest frequency of A_c, in
            radians per unit of position.
        frequencies: For each position axis, over heads and planes: the frequencies (the sizes of
            the eigenvalues) of A_c. Features that never turn count as 0.
        largest_angle: Largest ||sum_c p_c A_c|| over heads and positions, in radians: what float32
            rounds, see `ANGLE_LIMIT`.
        rounding_error: Largest entry of |R - R64|, R64 being R in float64.
        sparsity: For each parameter, the part of its entries that are at most 1e-3 of its largest.
        commutator: Largest ||A_c A_d - A_d A_c||_F / (2 ||A_c||_F ||A_d||_F) over heads and pairs
            of axes: 0 for families that commute, at most 1/sqrt(2).
        orthogonality_error: Largest entry of |R^T R - I|, as computed in the encoding's own type.
        relativity_violation: ||R(a)^T R(b) - R(0)^T R(b - a)||_F / sqrt(D) over heads and random
            pairs of positions: 0 where scores depend on b - a alone, sqrt(2) for unrelated
            rotations.
        basis_distance: Largest ||P - I||_F / sqrt(D) over heads, at most 2; None without a basis.
    """

    encoding: str
    parameters: int
    shapes: dict[str, tuple[int, ...]]
    generator_norms: list[Spread]
    frequencies: list[Spread]
    largest_angle: float
    rounding_error: float
    sparsity: dict[str, float]
    commutator: float
    orthogonality_error: float
    relativity_violation: Spread
    basis_distance: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for JSON."""
        return dataclasses.asdict(self)


@torch.no_grad()
def inspect(
    encoding: Encoding, extent: float | None = None, samples: int = 32, seed: int = 0
) -> Report:
    """Measures an encoding on random positions in a cube of side extent.

    Args:
        encoding: On any device; it is left as it is.
        extent: Side of the cube [0, extent]^C the positions are drawn from: the length of the
            training grid in the encoding's units. None is 1 for encodings meant for positions in
            [0, 1] and 14, the patches of a 224-pixel image, for those meant for indices.
        samples: Pairs of positions to draw.
        seed: Of the draw.

    Raises:
        ValueError: extent or samples is not positive, or the encoding is SE3Pose, whose positions
            are no points.

    Example:
        >>> report = lierope.diagnostics.inspect(lierope.MixedRoPE(head_dim=16, num_heads=2))
        >>> report.relativity_violation.largest < 1e-5
        True
    """
    if isinstance(encoding, SE3Pose):
        raise ValueError("inspect: encoding must turn with coordinates, got SE3Pose (poses)")
    if extent is None:
        extent = default_extent(encoding)
    if extent <= 0 or samples < 1:
        raise ValueError(
            f"inspect: extent and samples must be positive, got {extent} and {samples}"
        )
    exact = copy.deepcopy(encoding).double()
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, samples, encoding.ndim, generator=generator, dtype=torch.float64) * extent
    generators = generator_matrices(exact)
    frequencies = [_frequencies(axis) for axis in generators]
    return Report(
        encoding=f"{type(encoding).__name__}({encoding.extra_repr()})",
        parameters=sum(p.numel() for p in encoding.parameters()),
        shapes={name: tuple(p.shape) for name, p in encoding.named_parameters()},
        generator_norms=[_spread(axis.amax(-1)) for axis in frequencies],
        frequencies=[_spread(axis) for axis in frequencies],
        largest_angle=largest_angle(generators, torch.cat((a, b))),
        rounding_error=_rounding_error(encoding, exact, a),
        sparsity={name: _sparsity(p) for name, p in encoding.named_parameters()},
        commutator=_commutator(generators),
        orthogonality_error=_orthogonality_error(encoding, a),
        relativity_violation=_spread(relativity_violation(exact, a, b)),
        basis_distance=_basis_distance(exact),
    )


def inspect_model(model: nn.Module, extent: float | None = None) -> dict[str, Report]:
    """A report for every encoding in a model, by the module's name; see `inspect`.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> reports = lierope.diagnostics.inspect_model(lierope.swap(model, "cayley"))
        >>> list(reports)
        ['blocks.0.attn.encoding', 'blocks.1.attn.encoding']
    """
    return {
        name: inspect(module, extent)
        for name, module in model.named_modules()
        if isinstance(module, Encoding)
    }


def rotation_matrices(encoding: Encoding, positions: Tensor) -> Tensor:
    """R(p), (H, M, D, D) for positions (M, C), read off what `forward` does to the unit vectors.

    Example:
        >>> encoding = lierope.LieRE(head_dim=16, num_heads=2)
        >>> lierope.diagnostics.rotation_matrices(encoding, torch.rand(9, 2)).shape
        torch.Size([2, 9, 16, 16])
    """
    own = next(encoding.parameters(), positions)
    size, heads, count = encoding.head_dim, encoding.num_heads, positions.shape[0]
    units = torch.eye(size, dtype=own.dtype, device=own.device)
    units = units[:, None, None, :].expand(size, heads, count, size)
    columns, _ = encoding(units, units[:, : encoding.num_kv_heads], positions.to(own))
    matrices: Tensor = columns.permute(1, 2, 3, 0)
    return matrices


def generator_matrices(encoding: Encoding) -> Tensor:
    """A_c = dR/dp_c(0) R(0)^-1, (C, H, D, D), by forward-mode differentiation of `forward`.

    Example:
        >>> A = lierope.diagnostics.generator_matrices(lierope.LieRE(head_dim=16, num_heads=2))
        >>> A.shape
        torch.Size([2, 2, 16, 16])
    """
    own = next(encoding.parameters(), torch.zeros((), dtype=torch.float64))
    origin = torch.zeros(1, encoding.ndim, dtype=own.dtype, device=own.device)

    def rotation(positions: Tensor) -> Tensor:
        return rotation_matrices(encoding, positions).squeeze(1)

    generators = []
    for axis in torch.eye(encoding.ndim, dtype=own.dtype, device=own.device):
        at_origin, derivative = _derivative(rotation, origin, axis.unsqueeze(0))
        generators.append(torch.linalg.solve(at_origin, derivative, left=False))
    return torch.stack(generators)


def relativity_violation(encoding: Encoding, a: Tensor, b: Tensor) -> Tensor:
    """||R(a)^T R(b) - R(0)^T R(b - a)||_F / sqrt(D), (H, M), for positions a, b (M, C).

    R(0) is I for all but the STRINGs with a basis, where it is P.

    Example:
        >>> encoding = lierope.CirculantSTRING(head_dim=16, num_heads=2)
        >>> a, b = torch.rand(2, 9, 2)
        >>> bool(lierope.diagnostics.relativity_violation(encoding, a, b).max() < 1e-5)
        True
    """
    at_a, at_b, between, origin = (
        rotation_matrices(encoding, p) for p in (a, b, b - a, torch.zeros_like(a))
    )
    difference = at_a.mT @ at_b - origin.mT @ between
    violation: Tensor = torch.linalg.matrix_norm(difference) / encoding.head_dim**0.5
    return violation


def default_extent(encoding: Encoding) -> float:
    """Side of the cube an encoding is meant for: [0, 1], or the patches of a 224-pixel image."""
    return 1.0 if encoding.default_positions in ("proportional", "unit") else 14.0


def _derivative(
    function: Callable[[Tensor], Tensor], point: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    value, derivative, *_ = torch.func.jvp(function, (point,), (direction,))
    return value, derivative


def _orthogonality_error(encoding: Encoding, positions: Tensor) -> float:
    own = next(encoding.parameters(), torch.empty(0, dtype=torch.float32))
    rotations = rotation_matrices(encoding, positions.to(own)).double()
    identity = torch.eye(encoding.head_dim, dtype=torch.float64, device=rotations.device)
    return float((rotations.mT @ rotations - identity).abs().max())


def largest_angle(generators: Tensor, positions: Tensor) -> float:
    sums = torch.einsum("mc,chij->hmij", positions.to(generators), generators)
    return float(torch.linalg.matrix_norm(sums, 2).max())


def _rounding_error(encoding: Encoding, exact: Encoding, positions: Tensor) -> float:
    own = next(encoding.parameters(), torch.empty(0, dtype=torch.float32))
    rounded = positions.to(own)
    difference = rotation_matrices(encoding, rounded) - rotation_matrices(exact, rounded.double())
    return float(difference.abs().max())


def _sparsity(parameter: Tensor) -> float:
    sizes = parameter.abs()
    return float((sizes <= _SMALL * sizes.max()).double().mean()) if sizes.numel() else 0.0


def _commutator(generators: Tensor) -> float:
    largest = 0.0
    norms = torch.linalg.matrix_norm(generators)
    for c in range(len(generators)):
        for d in range(c):
            product = generators[c] @ generators[d]
            commutator = torch.linalg.matrix_norm(product - product.mT)  # (A B)^T = B A when skew
            scale = (2 * norms[c] * norms[d]).clamp_min(torch.finfo(norms.dtype).tiny)
            largest = max(largest, float((commutator / scale).max()))
    return largest


def _basis_distance(encoding: Encoding) -> float | None:
    basis = encoding.basis()
    if basis is None:
        return None
    identity = torch.eye(encoding.head_dim, dtype=basis.dtype, device=basis.device)
    distance = torch.linalg.matrix_norm(basis - identity) / encoding.head_dim**0.5
    return float(distance.max())


def _frequencies(generators: Tensor) -> Tensor:
    """Sizes of the eigenvalues of skew (H, D, D), each conjugate pair once: (H, ceil(D/2))."""
    sizes: Tensor = torch.linalg.svdvals(generators)
    return sizes[..., ::2]


def _spread(numbers: Tensor) -> Spread:
    return Spread(float(numbers.min()), float(numbers.median()), float(numbers.max()))
