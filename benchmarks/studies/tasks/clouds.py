"""Clouds of 3-D points in thirteen classes, some of which differ only by where their parts are."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from lierope.train.errors import InputError, check, one_line

CLASSES = (
    "sphere", "cube", "cylinder", "cone up", "cone down", "torus", "bump", "dip",
    "right helix", "left helix", "sphere above cube", "sphere below cube", "sphere beside cube",
)  # fmt: skip
_SUFFIXES = (".off", ".ply")


def draw(labels: Tensor, points: int, random: torch.Generator) -> Tensor:
    """Clouds (B, points, 3) on surfaces that fit into the ball of radius 1, without noise."""
    clouds = [_SHAPES[int(label)](points, random) for label in labels]
    return torch.stack([normalised(cloud) for cloud in clouds])


def normalised(cloud: Tensor) -> Tensor:
    """Centred, with its farthest point at a distance of 1."""
    cloud = cloud - cloud.mean(0)
    radius: Tensor = cloud.norm(dim=1).max()
    return cloud / radius.clamp(min=1e-6)


def farthest_points(clouds: Tensor, count: int) -> Tensor:
    """Indices (B, count): each next point is the one farthest from those before; from point 0."""
    B = len(clouds)
    chosen = torch.zeros(B, count, dtype=torch.long)
    nearest = torch.full(clouds.shape[:2], torch.inf)
    rows = torch.arange(B)
    for step in range(1, count):
        last = clouds[rows, chosen[:, step - 1]]
        nearest = torch.minimum(nearest, (clouds - last[:, None]).square().sum(-1))
        chosen[:, step] = nearest.argmax(1)
    return chosen


def patches(clouds: Tensor, centres: int, neighbours: int) -> tuple[Tensor, Tensor]:
    """Centres (B, centres, 3), and the offsets of their nearest points (B, centres, neighbours, 3).

    Offsets stay as they are when the cloud moves; only the centres tell where it is.
    """
    at = farthest_points(clouds, centres)
    middle = clouds.gather(1, at[..., None].expand(-1, -1, 3))
    near = torch.cdist(middle, clouds).topk(neighbours, largest=False).indices
    found = clouds[torch.arange(len(clouds))[:, None, None], near]
    return middle, found - middle[:, :, None]


def turned(
    centres: Tensor, offsets: Tensor, jitter: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Each cloud about the vertical by its own angle; points moved by noise of that deviation."""
    B = len(centres)
    angle = 2 * math.pi * torch.rand(B, generator=random)
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros(B), torch.ones(B)
    turn = torch.stack((c, -s, zero, s, c, zero, zero, zero, one), 1).view(B, 3, 3)
    noise = [jitter * torch.randn(x.shape, generator=random) for x in (centres, offsets)]
    around = (offsets.flatten(1, 2) @ turn.mT).view_as(offsets)
    return centres @ turn.mT + noise[0], around + noise[1]


def moved(centres: Tensor, size: float, random: torch.Generator) -> Tensor:
    """Each cloud shifted as a whole, uniformly in [-size, size]^3."""
    return centres + size * (2 * torch.rand(len(centres), 1, 3, generator=random) - 1)


def files(root: str) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
    """Meshes and clouds on disk as ModelNet40 lays them out: root/CLASS/{train,test}/*.off|ply.

    Raises:
        InputError: no such folder, fewer than two classes, or a class without files.
    """
    folder = Path(root)
    check(folder.is_dir(), f"root: must be a folder of folders of clouds, got {root}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    check(len(names) > 1, f"root: must hold a folder for each of two or more classes, got {root}")
    found: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    for label, name in enumerate(names):
        for part, rows in found.items():
            where = folder / name / part
            here = sorted(p for p in where.glob("*") if p.suffix.lower() in _SUFFIXES)
            check(bool(here), f"root: {where} must hold .off or .ply files")
            rows += [(path, label) for path in here]
    return names, found


def read(path: Path, points: int, seed: int) -> Tensor:
    """A cloud (points, 3), drawn from a mesh's surface by area or from the points themselves.

    Raises:
        InputError: a file that cannot be read, or one without enough points.
    """
    try:
        import trimesh  # noqa: PLC0415 (only files need it)
    except ImportError:
        raise InputError(
            'root: reading clouds needs trimesh: pip install "lierope[train]"'
        ) from None
    try:
        shape: Any = trimesh.load(path, process=False)
        if getattr(shape, "faces", None) is not None and len(shape.faces):
            drawn = numpy.asarray(trimesh.sample.sample_surface(shape, points, seed=seed)[0])
        else:
            vertices = numpy.asarray(shape.vertices)
            if len(vertices) < points:
                raise ValueError(f"{len(vertices)} points where {points} are needed")
            chosen = numpy.random.default_rng(seed).permutation(len(vertices))[:points]
            drawn = vertices[chosen]
    except Exception as error:  # readers of files raise whatever a damaged one makes them
        raise InputError(f"root: {path} cannot be read ({one_line(error)})") from None
    check(bool(numpy.isfinite(drawn).all()), f"root: {path} must hold finite points")
    return normalised(torch.from_numpy(drawn.astype("float32")))


def _uniform(count: int, random: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=random)


def _sphere(count: int, random: torch.Generator) -> Tensor:
    x = torch.randn(count, 3, generator=random)
    return torch.nn.functional.normalize(x, dim=1)


def _cube(count: int, random: torch.Generator) -> Tensor:
    x = 2 * torch.rand(count, 3, generator=random) - 1
    face = torch.randint(6, (count,), generator=random)
    x[torch.arange(count), face % 3] = 1.0 - 2.0 * (face // 3)
    return x


def _cylinder(count: int, random: torch.Generator) -> Tensor:
    angle = _uniform(count, random, high=2 * math.pi)
    return torch.stack((angle.cos(), angle.sin(), _uniform(count, random, -1.2, 1.2)), 1)


def _cone(count: int, random: torch.Generator) -> Tensor:
    angle, radius = _uniform(count, random, high=2 * math.pi), _uniform(count, random).sqrt()
    return torch.stack((radius * angle.cos(), radius * angle.sin(), 2 * (1 - radius)), 1)


def _torus(count: int, random: torch.Generator) -> Tensor:
    round_, tube = (_uniform(count, random, high=2 * math.pi) for _ in range(2))
    radius = 1 + 0.35 * tube.cos()
    return torch.stack((radius * round_.cos(), radius * round_.sin(), 0.35 * tube.sin()), 1)


def _bump(count: int, random: torch.Generator) -> Tensor:
    x, y = (_uniform(count, random, -1, 1) for _ in range(2))
    return torch.stack((x, y, 0.9 * torch.exp(-5 * (x * x + y * y))), 1)


def _helix(count: int, random: torch.Generator) -> Tensor:
    t = _uniform(count, random, high=4 * math.pi)
    return torch.stack((t.cos(), t.sin(), t / (2 * math.pi) - 1), 1)


def _sphere_and_cube(offset: tuple[float, float]) -> Callable[[int, torch.Generator], Tensor]:
    where = torch.tensor([offset[0], 0.0, offset[1]])

    def made(count: int, random: torch.Generator) -> Tensor:
        half = count // 2
        return torch.cat((_cube(count - half, random), 0.9 * _sphere(half, random) + where))

    return made


def _mirrored(
    shape: Callable[[int, torch.Generator], Tensor], axis: int
) -> Callable[[int, torch.Generator], Tensor]:
    flip = torch.ones(3)
    flip[axis] = -1
    return lambda count, random: shape(count, random) * flip


_SHAPES = (
    _sphere, _cube, _cylinder, _cone, _mirrored(_cone, 2), _torus, _bump, _mirrored(_bump, 2),
    _helix, _mirrored(_helix, 0), _sphere_and_cube((0.0, 2.0)), _sphere_and_cube((0.0, -2.0)),
    _sphere_and_cube((2.0, 0.0)),
)  # fmt: skip
