"""Where tokens are: grids in several units, jitter for training, depth as a third coordinate."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lierope.choice import check_choice
from lierope.full_precision import FullPrecision, parameter_dtype

MODES = ("proportional", "unit", "index", "centered")


def grid_positions(
    shape: Sequence[int],
    mode: str = "proportional",
    train_shape: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Coordinates of the cells of a grid, (prod(shape), C), row-major: the first axis is slowest.

    Cell i of n along an axis lies, by mode, at:

    - "proportional": linspace(0, n / n_train, n), in lengths of the training grid (LieRE, section
      5.6)
    - "unit": linspace(0, 1, n), in lengths of this grid
    - "index": i, in cells
    - "centered": i - (n - 1) / 2, in cells

    Args:
        shape: cells along each axis, such as (rows, columns) or (frames, rows, columns).
        mode: one of those.
        train_shape: the grid of training, for "proportional"; shape itself when None.
        device: where the result is made.
        dtype: float32 or float64.

    Raises:
        ValueError: an empty shape or an axis without cells, an unknown mode, or a train_shape of
            another length.
        TypeError: dtype is a half or integer type.

    Example:
        >>> lierope.grid_positions((2, 3), "index").tolist()
        [[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]
        >>> lierope.grid_positions((3,), "unit").flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    owner = "grid_positions"
    check_choice(owner, "mode", mode, MODES)
    parameter_dtype(owner, dtype)
    trained = shape if train_shape is None else train_shape
    for name, sizes in (("shape", shape), ("train_shape", trained)):
        if len(sizes) == 0 or any(size < 1 for size in sizes):
            raise ValueError(
                f"{owner}: {name} must have one positive size for each axis, got {tuple(sizes)}"
            )
    if len(trained) != len(shape):
        raise ValueError(
            f"{owner}: train_shape must have as many axes as shape, "
            f"got {tuple(trained)} and {tuple(shape)}"
        )
    axes = [
        _axis(size, mode, train, device, dtype) for size, train in zip(shape, trained, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def _axis(
    size: int, mode: str, train: int, device: torch.device | str | None, dtype: torch.dtype
) -> Tensor:
    if mode in ("index", "centered"):
        index = torch.arange(size, device=device, dtype=dtype)
        return index if mode == "index" else index - (size - 1) / 2
    end = size / train if mode == "proportional" else 1.0
    # linspace(0, end, size), but for a compiler, which would tie that to one size
    index = torch.arange(size, device=device, dtype=torch.float64)
    return (index * (end / max(size - 1, 1))).to(dtype)


def jitter_positions(
    positions: Tensor,
    *,
    subsample: float | None = None,
    shift: float | None = None,
    jitter: float | None = None,
    rescale: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """p_c -> (p_c + s_c) j_c r at random, for training only (DINOv3's augmentation of coordinates).

    One draw for positions (M, C), one for each sample of positions (B, M, C). The origin is the
    fixed point of the scalings: give centred positions to scale about the middle. Before all else,
    `subsample` spreads the coordinates over a longer range, in their order, so that a model meets
    far tokens without long inputs (randomised positions, arXiv 2305.16843).

    Args:
        positions: (M, C) or (B, M, C), floating.
        subsample: how many times longer that range is; 1 or more. On each axis the spare length,
            (subsample - 1) times what the coordinates span, is dealt at random, uniformly, to the
            gaps between different coordinates and to both ends: the continuous form of drawing n
            of subsample n cells. Tokens of one row or column stay in one, and none come closer.
        shift: s_c uniform in [-shift, shift], one for each axis; 0 or more.
        jitter: j_c log-uniform in [1 / jitter, jitter], one for each axis; 1 or more.
        rescale: r log-uniform in [1 / rescale, rescale], one for all axes; 1 or more.
        generator: of random numbers, on positions' device; torch's own when None.

    Raises:
        ValueError: positions of another rank, or a number below its least value.
        TypeError: positions are not floating.

    Example:
        >>> grid = lierope.grid_positions((14, 14), "index")
        >>> moved = lierope.jitter_positions(grid, shift=2.0, jitter=1.2)
        >>> moved.shape
        torch.Size([196, 2])
    """
    _check_jitter(positions, subsample, shift, jitter, rescale)
    lead = (*positions.shape[:-2], 1)
    ndim = positions.shape[-1]

    def uniform(width: float, axes: int) -> Tensor:
        draw = torch.rand(
            (*lead, axes), generator=generator, device=positions.device, dtype=positions.dtype
        )
        return (2 * draw - 1) * width

    if subsample is not None and positions.shape[-2] > 0:
        positions = _spread(positions, subsample, generator)
    if shift is not None:
        positions = positions + uniform(shift, ndim)
    if jitter is not None:
        positions = positions * uniform(math.log(jitter), ndim).exp()
    if rescale is not None:
        positions = positions * uniform(math.log(rescale), 1).exp()
    return positions


def _spread(positions: Tensor, longer: float, generator: torch.Generator | None) -> Tensor:
    """Coordinates at random places of a range `longer` times as long, in their order."""
    ordered, order = positions.sort(-2)
    first, last = ordered[..., :1, :], ordered[..., -1:, :]
    gaps = ordered.diff(dim=-2)
    # shares of the ends and of every gap that is one: uniform on the simplex
    shape = (*gaps.shape[:-2], gaps.shape[-2] + 2, gaps.shape[-1])
    draw = torch.rand(shape, generator=generator, device=positions.device, dtype=positions.dtype)
    shares = -torch.log1p(-draw)
    inner = shares[..., 2:, :] * (gaps > 0)
    every = shares[..., :2, :].sum(-2, True) + inner.sum(-2, True)
    spare = (longer - 1) * (last - first) / every.clamp_min(torch.finfo(every.dtype).tiny)
    before = torch.cat((shares[..., :1, :], inner), -2).cumsum(-2) * spare
    return torch.zeros_like(positions).scatter(-2, order, ordered + before)


def _check_jitter(
    positions: Tensor,
    subsample: float | None,
    shift: float | None,
    jitter: float | None,
    rescale: float | None,
) -> None:
    owner = "jitter_positions"
    if positions.dim() not in (2, 3):
        raise ValueError(
            f"{owner}: positions must have shape (M, C) or (B, M, C), got {tuple(positions.shape)}"
        )
    if not positions.is_floating_point():
        raise TypeError(f"{owner}: positions must be a floating type, got {positions.dtype}")
    numbers = {
        "subsample": (subsample, 1.0),
        "shift": (shift, 0.0),
        "jitter": (jitter, 1.0),
        "rescale": (rescale, 1.0),
    }
    for name, (number, least) in numbers.items():
        if number is not None and not least <= number < math.inf:
            raise ValueError(f"{owner}: {name} must be a number of at least {least}, got {number}")


def lift_depth(
    depth: Tensor,
    positions: Tensor,
    patch_size: int | tuple[int, int],
    weight: Tensor | float = 1.0,
    bias: Tensor | float = 0.0,
) -> Tensor:
    """Adds a coordinate weight * (mean depth of the patch) + bias: STRING, section 4.4 (RGB-D).

    Args:
        depth: (B, H, W) or (B, 1, H, W), floating, in the caller's unit of length; pixels without
            a measurement must be filled before.
        positions: (M, C) or (B, M, C), the patches' own coordinates, M = (H / ph) (W / pw),
            row-major.
        patch_size: side of a patch in pixels, or (ph, pw); must divide H and W.
        weight: slope of the linear map; see `LiftDepth` for a learned one.
        bias: its value at depth 0.

    Returns:
        (B, M, C + 1), of positions' type.

    Raises:
        ValueError: a wrong shape, or a patch size that does not divide.

    Example:
        >>> depth = torch.ones(5, 32, 32)
        >>> positions = lierope.lift_depth(depth, lierope.grid_positions((2, 2), "index"), 16)
        >>> positions[0].tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
    """
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    _check_depth(depth, positions, height, width)
    pixels = depth.reshape(depth.shape[0], *depth.shape[-2:]).to(positions.dtype)
    rows, columns = pixels.shape[1] // height, pixels.shape[2] // width
    mean = pixels.reshape(-1, rows, height, columns, width).mean((2, 4)).reshape(-1, rows * columns)
    lifted = mean * weight + bias
    own = positions.expand(lifted.shape[0], -1, -1)
    return torch.cat((own, lifted.unsqueeze(-1).to(positions.dtype)), -1)


def _check_depth(depth: Tensor, positions: Tensor, height: int, width: int) -> None:
    owner, shape = "lift_depth", tuple(depth.shape)
    if not (depth.dim() == 3 or (depth.dim() == 4 and shape[1] == 1)):
        raise ValueError(f"{owner}: depth must have shape (B, H, W) or (B, 1, H, W), got {shape}")
    if height < 1 or width < 1 or shape[-2] % height or shape[-1] % width:
        raise ValueError(
            f"{owner}: patch_size must divide the depth's {shape[-2]} x {shape[-1]} pixels, "
            f"got {height} x {width}"
        )
    patches = (shape[-2] // height) * (shape[-1] // width)
    fits = positions.dim() in (2, 3) and positions.shape[-2] == patches
    if not fits or (positions.dim() == 3 and positions.shape[0] != shape[0]):
        raise ValueError(
            f"{owner}: positions must have shape ({patches}, C) or ({shape[0]}, {patches}, C), "
            f"got {tuple(positions.shape)}"
        )


class LiftDepth(FullPrecision):
    """`lift_depth` with a learned linear map, which starts as the depth itself.

    Args:
        patch_size: side of a patch in pixels, or (rows, columns).
        device: where the two parameters, `weight` and `bias`, are made.
        dtype: float32 or float64; it stays under .half().

    Raises:
        TypeError: dtype is a half or integer type.

    Example:
        >>> lift = lierope.LiftDepth(patch_size=16)
        >>> lift(torch.rand(5, 224, 224), lierope.grid_positions((14, 14), "index")).shape
        torch.Size([5, 196, 3])
    """

    def __init__(
        self,
        patch_size: int | tuple[int, int],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dtype = parameter_dtype("LiftDepth", dtype)
        self.patch_size = patch_size
        self.weight = nn.Parameter(torch.empty((), device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty((), device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The third coordinate is the mean depth."""
        self.weight.fill_(1.0)
        self.bias.fill_(0.0)

    def forward(self, depth: Tensor, positions: Tensor) -> Tensor:
        """(B, H, W) or (B, 1, H, W), (M, C) or (B, M, C) -> (B, M, C + 1); see `lift_depth`."""
        return lift_depth(depth, positions, self.patch_size, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The patch size."""
        return f"patch_size={self.patch_size}"
