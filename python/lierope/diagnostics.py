"""What an encoding really does, measured on its rotations: the numbers of `lierope inspect`."""

import copy
import dataclasses
import itertools
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from lierope.encodings import Encoding, LieRE, SE3Pose

ANGLE_LIMIT = 1e-5 * 2**24
"""Radians beyond which float32 no longer gives a rotation to 1e-5: it rounds angles by 2^-24."""
_WARNED: WeakSet[nn.Module] = WeakSet()
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
        extent = _extent(encoding)
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
        largest_angle=_largest_angle(generators, torch.cat((a, b))),
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


@torch.no_grad()
def warn_of_large_angles(model: nn.Module, extent: float | None = None) -> dict[str, float]:
    """Warns, once for each model, of angles that its float32 encodings no longer hold.

    The angle ||sum_c p_c A_c|| is largest in a corner of the cube of positions: that is looked at.
    Waits for the device; meant for the end of an epoch.

    Args:
        model: Anything with encodings in it, or an encoding.
        extent: Side of the cube [0, extent]^C of positions; see `inspect`.

    Returns:
        The largest angle of each encoding that learns, in radians, by the module's name.

    Warns:
        UserWarning: a float32 encoding turns by more than `ANGLE_LIMIT`, or by NaN.

    Example:
        >>> encoding = lierope.LieRE(head_dim=16, num_heads=2)
        >>> angles = lierope.diagnostics.warn_of_large_angles(encoding)
        >>> angles[""] < lierope.diagnostics.ANGLE_LIMIT
        True
    """
    angles, worst = {}, (0.0, "")
    for name, module in model.named_modules():
        own = next(module.parameters(), None)
        if not isinstance(module, Encoding) or isinstance(module, SE3Pose) or own is None:
            continue
        angles[name] = _largest_corner(module, extent)
        past = not angles[name] <= ANGLE_LIMIT  # of NaN too
        if past and own.dtype != torch.float64 and not angles[name] <= worst[0]:
            worst = (angles[name], f"{type(module).__name__}{f' {name}' if name else ''}")
    if worst[1] and model not in _WARNED:
        _WARNED.add(model)
        warnings.warn(
            f"{worst[1]}: angles must stay below {ANGLE_LIMIT:.0f} radians for float32 to hold "
            f"rotations to 1e-5, got {worst[0]:.3g}; a lower learning rate for encodings, smaller "
            "positions or float64 parameters help",
            stacklevel=3,
        )
    return angles


def _largest_corner(encoding: Encoding, extent: float | None) -> float:
    side = _extent(encoding) if extent is None else extent
    own = next(encoding.parameters())
    corners = torch.tensor(list(itertools.product((0.0, side), repeat=encoding.ndim))).to(own)
    of_planes = getattr(encoding, "angles", None)
    if of_planes is not None:
        return float(of_planes(corners).abs().max())
    if not isinstance(encoding, LieRE):
        return _largest_angle(generator_matrices(copy.deepcopy(encoding).double()), corners)
    b = encoding.block_size
    row, column = torch.triu_indices(b, b, 1, device=own.device)
    sums = torch.einsum("mc,chgt->mhgt", corners, encoding.generators)
    upper = sums.new_zeros(*sums.shape[:-1], b, b)
    upper[..., row, column] = sums
    finite = bool(torch.isfinite(upper).all())
    return float(torch.linalg.matrix_norm(upper - upper.mT, 2).max()) if finite else float("nan")


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


def _extent(encoding: Encoding) -> float:
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


def _largest_angle(generators: Tensor, positions: Tensor) -> float:
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
