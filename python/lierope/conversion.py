"""Other projects' layouts of what rotations learn, into ours and back.

Ours: one tensor an encoding, `generators` (C, H', G, b(b-1)/2) or `frequencies` (C, H', pairs), the
first axis of positions being rows. A timm or transformers model with a rotation of its own needs
none of this: `lierope.swap(model, ..., convert=True)` reads it off the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lierope.encodings import Encoding, LieRE
from lierope.encodings.mixed import Mixed


def from_liere(raw: Tensor, head_dim: int = 64) -> list[Tensor]:
    """Generators of LieRE's published checkpoints (`generator_raw_params`), one tensor a layer.

    Args:
        raw: (C, L, H'·G, b, b), of which the strict upper triangle counts; the position encoder's
            parameter in StanfordMIMI/LieRE. L is 1 where layers share, H' where heads do.
        head_dim: Of the model, to tell heads from blocks; that code has 64 everywhere.

    Returns:
        L tensors (C, H', G, b(b-1)/2), for `LieRE(block_size=b, rotary_dim=G·b)`.

    Raises:
        ValueError: A shape that is not of that layout.

    Example:
        >>> layers = [torch.randn(2, 3, 8, 28) for _ in range(4)]
        >>> raw = lierope.conversion.to_liere(layers)
        >>> back = lierope.conversion.from_liere(raw)
        >>> all(torch.equal(a, b) for a, b in zip(layers, back))
        True
    """
    if raw.dim() != 5 or raw.shape[-1] != raw.shape[-2]:
        raise ValueError(
            f"from_liere: raw must have shape (C, L, H*G, b, b), got {tuple(raw.shape)}"
        )
    b = raw.shape[-1]
    blocks = head_dim // b
    if blocks == 0 or raw.shape[2] % blocks:
        raise ValueError(
            f"from_liere: raw must hold {blocks} blocks of {b} for each head of {head_dim}, "
            f"got {raw.shape[2]}"
        )
    row, column = torch.triu_indices(b, b, 1)
    packed = raw.detach()[..., row, column].unflatten(2, (-1, blocks))
    return [layer.contiguous() for layer in packed.unbind(1)]


def to_liere(generators: Sequence[Tensor]) -> Tensor:
    """The other way: raw (C, L, H'·G, b, b) of each layer's generators, zero below the diagonal.

    Example:
        >>> layers = [torch.randn(2, 3, 8, 28) for _ in range(4)]
        >>> raw = lierope.conversion.to_liere(layers)
        >>> back = lierope.conversion.from_liere(raw)
        >>> all(torch.equal(a, b) for a, b in zip(layers, back))
        True
    """
    _alike("to_liere", "generators", generators)
    packed = torch.stack([layer.detach() for layer in generators], 1).flatten(2, 3)
    b = (1 + math.isqrt(1 + 8 * packed.shape[-1])) // 2
    raw = packed.new_zeros(*packed.shape[:-1], b, b)
    row, column = torch.triu_indices(b, b, 1)
    raw[..., row, column] = packed
    return raw


def load_liere(model: nn.Module, raw: Tensor, *, first_layer_everywhere: bool = False) -> None:
    """Puts `generator_raw_params` into a model swapped with LieRE, layer after layer.

    Args:
        model: Its `LieRE` encodings, in the order of its modules, are the layers.
        raw: See `from_liere`. One layer's generators go to every layer.
        first_layer_everywhere: Give all layers those of the first. The published code does so
            whatever it stores (its layer loop overwrites the rotations), so this is the function
            that its checkpoints were trained to be.

    Raises:
        ValueError: Layers or shapes that do not fit. Nothing is changed then.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "liere", block_size=8)
        >>> lierope.conversion.load_liere(model, torch.randn(2, 2, 3 * 8, 8, 8))
    """
    encodings = _encodings("load_liere", model, LieRE)
    layers = from_liere(raw, encodings[0].head_dim)
    if first_layer_everywhere:
        layers = layers[:1]
    _put("load_liere", [encoding.get_parameter("generators") for encoding in encodings], layers)


def from_naver(freqs: Tensor, num_heads: int) -> list[Tensor]:
    """Frequencies of RoPE-Mixed by naver-ai/rope-vit or timm (`freqs`, `rope.freqs`), by layer.

    Args:
        freqs: (2, L, H·D/2) or (2, L, H, D/2), columns first ("xy"), radians per patch.
        num_heads: H.

    Returns:
        L tensors (2, H, D/2), rows first, for `MixedRoPE` at positions "index".

    Raises:
        ValueError: A shape that is not of that layout.

    Example:
        >>> freqs = torch.randn(2, 12, 6 * 32)
        >>> layers = lierope.conversion.from_naver(freqs, num_heads=6)
        >>> torch.equal(lierope.conversion.to_naver(layers), freqs)
        True
    """
    whole = freqs.detach().flatten(2) if freqs.dim() == 4 else freqs.detach()
    if whole.dim() != 3 or whole.shape[0] != 2 or whole.shape[2] % num_heads:
        raise ValueError(
            f"from_naver: freqs must have shape (2, L, {num_heads} * pairs) or "
            f"(2, L, {num_heads}, pairs), got {tuple(freqs.shape)}"
        )
    rows_first = whole.flip(0).unflatten(2, (num_heads, -1))
    return [layer.contiguous() for layer in rows_first.unbind(1)]


def to_naver(frequencies: Sequence[Tensor], *, by_head: bool = False) -> Tensor:
    """The other way: (2, L, H·D/2), or timm's (2, L, H, D/2) with `by_head`, columns first.

    Example:
        >>> freqs = torch.randn(2, 12, 6 * 32)
        >>> layers = lierope.conversion.from_naver(freqs, num_heads=6)
        >>> torch.equal(lierope.conversion.to_naver(layers), freqs)
        True
    """
    _alike("to_naver", "frequencies", frequencies)
    freqs = torch.stack([layer.detach() for layer in frequencies], 1).flip(0)
    return freqs if by_head else freqs.flatten(2)


def load_naver(model: nn.Module, freqs: Tensor) -> None:
    """Puts `freqs` into a model swapped with MixedRoPE (or a STRING that starts from it).

    Raises:
        ValueError: Layers or shapes that do not fit. Nothing is changed then.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "mixed")
        >>> lierope.conversion.load_naver(model, torch.randn(2, 2, 3 * 32))
    """
    encodings = _encodings("load_naver", model, Mixed)
    layers = from_naver(freqs, encodings[0].parameter_heads)
    _put("load_naver", [encoding.get_parameter("frequencies") for encoding in encodings], layers)


def from_dinov3(periods: Tensor) -> Tensor:
    """Frequencies of DINOv3's buffer `rope_embed.periods` (D/4,): 2π / period, (2, 1, D/4).

    For `AxialRoPE(learned=True)` at `dinov3_positions`, with the rows of W_q and W_k by
    `pairs_from_halves`. Periods stored in bfloat16 are taken as the numbers they are.

    Example:
        >>> periods = 100 ** torch.linspace(0, 1, 16)
        >>> frequencies = lierope.conversion.from_dinov3(periods)
        >>> torch.allclose(lierope.conversion.to_dinov3(frequencies), periods)
        True
    """
    if periods.dim() != 1:
        raise ValueError(f"from_dinov3: periods must have shape (D/4,), got {tuple(periods.shape)}")
    wide = periods.detach().to(torch.promote_types(periods.dtype, torch.float32))
    return (2 * math.pi / wide).expand(2, 1, -1).clone()


def to_dinov3(frequencies: Tensor) -> Tensor:
    """The other way: periods (D/4,) of frequencies (2, H', D/4).

    Raises:
        ValueError: Axes or heads with frequencies of their own, which DINOv3 has no room for.

    Example:
        >>> periods = 100 ** torch.linspace(0, 1, 16)
        >>> frequencies = lierope.conversion.from_dinov3(periods)
        >>> torch.allclose(lierope.conversion.to_dinov3(frequencies), periods)
        True
    """
    first = frequencies.detach()[0, 0]
    if frequencies.dim() != 3 or not bool((frequencies == first).all()):
        raise ValueError("to_dinov3: frequencies must be the same for both axes and all heads")
    return 2 * math.pi / first


def dinov3_positions(rows: int, columns: int) -> Tensor:
    """DINOv3's coordinates, (rows·columns, 2): cell centres over (-1, 1) along each axis.

    Example:
        >>> lierope.conversion.dinov3_positions(2, 2).tolist()
        [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    """
    axes = [(2 * torch.arange(n, dtype=torch.float32) + 1) / n - 1 for n in (rows, columns)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def pairs_from_halves(rows: Tensor, num_heads: int) -> Tensor:
    """Rows of W_q or W_k (H·D, …), or a bias, from pairs (i, i + D/2) to pairs (2i, 2i + 1).

    Llama, DINOv3 and transformers rotate halves, RoPE's paper and ours neighbours. The rotations
    are the same once q and k are reordered alike; v and what follows stay.

    Example:
        >>> rows = torch.arange(8)
        >>> pairs = lierope.conversion.pairs_from_halves(rows, num_heads=1)
        >>> pairs.tolist(), torch.equal(lierope.conversion.halves_from_pairs(pairs, 1), rows)
        ([0, 4, 1, 5, 2, 6, 3, 7], True)
    """
    return _reordered("pairs_from_halves", rows, num_heads, (2, -1))


def halves_from_pairs(rows: Tensor, num_heads: int) -> Tensor:
    """The other way.

    Example:
        >>> rows = torch.arange(8)
        >>> pairs = lierope.conversion.pairs_from_halves(rows, num_heads=1)
        >>> pairs.tolist(), torch.equal(lierope.conversion.halves_from_pairs(pairs, 1), rows)
        ([0, 4, 1, 5, 2, 6, 3, 7], True)
    """
    return _reordered("halves_from_pairs", rows, num_heads, (-1, 2))


def _reordered(owner: str, rows: Tensor, num_heads: int, shape: tuple[int, int]) -> Tensor:
    if num_heads < 1 or rows.shape[0] % (2 * num_heads):
        raise ValueError(
            f"{owner}: rows must be an even number for each of {num_heads} heads, "
            f"got {rows.shape[0]}"
        )
    by_head: Tensor = rows.unflatten(0, (num_heads, *shape))
    return by_head.transpose(1, 2).flatten(0, 2)


def _encodings(owner: str, model: nn.Module, kind: type[Encoding]) -> list[Encoding]:
    found = [module for module in model.modules() if isinstance(module, kind)]
    if not found:
        raise ValueError(f"{owner}: model must have {kind.__name__} encodings, got none")
    return found


@torch.no_grad()
def _put(owner: str, parameters: Sequence[Tensor], layers: Sequence[Tensor]) -> None:
    if len(layers) not in (1, len(parameters)):
        raise ValueError(
            f"{owner}: layers must be 1 or the model's {len(parameters)}, got {len(layers)}"
        )
    each = list(layers) * (len(parameters) // len(layers))
    for parameter, layer in zip(parameters, each, strict=True):
        if parameter.shape != layer.shape:
            raise ValueError(
                f"{owner}: a layer must have shape {tuple(parameter.shape)}, "
                f"got {tuple(layer.shape)}"
            )
    for parameter, layer in zip(parameters, each, strict=True):
        parameter.copy_(layer)


def _alike(owner: str, what: str, layers: Sequence[Tensor]) -> None:
    shapes = {tuple(layer.shape) for layer in layers}
    if len(shapes) != 1:
        listed = ", ".join(map(str, sorted(shapes))) or "none"
        raise ValueError(f"{owner}: {what} must have one shape in all layers, got {listed}")
