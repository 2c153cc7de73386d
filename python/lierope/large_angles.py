"""A warning, once a model, of angles that have grown past what float32 holds."""

import copy
import itertools
import warnings
from weakref import WeakSet

import torch
from torch import nn

from lierope.diagnostics import ANGLE_LIMIT, default_extent, generator_matrices, largest_angle
from lierope.encodings import Encoding, LieRE, SE3Pose

_WARNED: WeakSet[nn.Module] = WeakSet()


@torch.no_grad()
def warn_of_large_angles(model: nn.Module, extent: float | None = None) -> dict[str, float]:
    """Warns, once for each model, of angles that its float32 encodings no longer hold.

    The angle ||sum_c p_c A_c|| is largest in a corner of the cube of positions: that is looked at.
    Waits for the device; meant for the end of an epoch.

    Args:
        model: Anything with encodings in it, or an encoding.
        extent: Side of the cube [0, extent]^C of positions; see `lierope.diagnostics.inspect`.

    Returns:
        The largest angle of each encoding that learns, in radians, by the module's name.

    Warns:
        UserWarning: a float32 encoding turns by more than `ANGLE_LIMIT`, or by NaN.

    Example:
        >>> encoding = lierope.LieRE(head_dim=16, num_heads=2)
        >>> angles = lierope.large_angles.warn_of_large_angles(encoding)
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
    side = default_extent(encoding) if extent is None else extent
    own = next(encoding.parameters())
    corners = torch.tensor(list(itertools.product((0.0, side), repeat=encoding.ndim))).to(own)
    of_planes = getattr(encoding, "angles", None)
    if of_planes is not None:
        return float(of_planes(corners).abs().max())
    if not isinstance(encoding, LieRE):
        return largest_angle(generator_matrices(copy.deepcopy(encoding).double()), corners)
    b = encoding.block_size
    row, column = torch.triu_indices(b, b, 1, device=own.device)
    sums = torch.einsum("mc,chgt->mhgt", corners, encoding.generators)
    upper = sums.new_zeros(*sums.shape[:-1], b, b)
    upper[..., row, column] = sums
    finite = bool(torch.isfinite(upper).all())
    return float(torch.linalg.matrix_norm(upper - upper.mT, 2).max()) if finite else float("nan")
