"""Put a rotary encoding into a model that exists: `swap`, `fold`, `encodings_of`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from lierope.encodings import Encoding
from lierope.swap.coordinates import Coordinates

__all__ = ["Coordinates", "encodings_of", "fold", "swap"]

Model = TypeVar("Model", bound=nn.Module)


def swap(
    model: Model,
    encoding: str | type[Encoding],
    *,
    block_size: int | Sequence[int] | None = None,
    share: str = "none",
    positions: str | None = None,
    coordinates: Sequence[int] | Coordinates | None = None,
    num_prefix_tokens: int = 0,
    keep_absolute: bool | None = None,
    convert: bool = False,
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    jitter: Mapping[str, Any] | None = None,
    **options: Any,
) -> Model:
    """Let every self-attention of a model rotate q and k by an encoding of its own.

    For the vision transformers of timm (`VisionTransformer`, `Eva`, `NaFlexVit`), transformers 5
    (ViT, DeiT, DINOv2, DINOv3, the vision half of CLIP and SigLIP) and torchvision, alone or inside
    other modules; with `coordinates`, for `nn.MultiheadAttention` in any model. docs/models.md
    lists what works with what. Image sizes may change, patches may be dropped, blocks may be
    checkpointed or compiled. Attention pooling is left alone. The keys of the original state dict
    stay, and it still loads strictly; what is new has keys `….encoding.*`.

    Args:
        model: The model, changed in place.
        encoding: A short name (`lierope.encodings.names()`, "liere:8" for a block size) or a class.
        block_size: Block size for encodings that have one, or one for each swapped layer.
        share: "none": own parameters for every layer and head; "heads": heads share;
            "layers": layers share; "all": both share.
        positions: Mode of `lierope.grid_positions`; by default what the encoding's paper uses.
            "proportional" counts in units of the grid that the model has now.
        coordinates: For `nn.MultiheadAttention`: the shape of the grid that the tokens are, or a
            `Coordinates` by which the caller sets positions.
        num_prefix_tokens: With coordinates: tokens at the front that are not rotated.
        keep_absolute: Whether the model's learned position embedding stays. By default it goes
            (position comes from the rotation alone, as both papers train), except for "absolute".
            Keep it to fine-tune pretrained weights, which have learned to rely on it.
        convert: Take over the frequencies of the model's own rotary embedding.
        only: Patterns of module names to swap ("blocks.[0-5]"); by default all.
        skip: Patterns of module names to leave as they are.
        jitter: Coordinate jitter in training: keyword arguments of
            `lierope.positions.jitter_positions` ("subsample", "shift", "jitter", "rescale").
        **options: For the encoding (`init=`, `theta=`, ...).

    Returns:
        The same model.

    Raises:
        TypeError: model is not a module.
        ValueError: Something cannot be placed; the text names the module. Nothing is changed then.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "liere", block_size=8)
        >>> model(torch.randn(2, 3, 224, 224)).shape
        torch.Size([2, 10])
    """
    from lierope.swap.install import Wish, install  # noqa: PLC0415

    wish = Wish(
        encoding=encoding,
        options={**options, **({"block_size": block_size} if isinstance(block_size, int) else {})},
        block_sizes=None if isinstance(block_size, int) else block_size,
        share=share,
        positions=positions,
        coordinates=coordinates,
        num_prefix_tokens=num_prefix_tokens,
        keep_absolute=keep_absolute,
        convert=convert,
        only=only,
        skip=skip,
        jitter=jitter,
    )
    install(model, wish)
    return model


def fold(model: Model) -> Model:
    """Fold the learned bases of STRING encodings into W_q and W_k; see `lierope.swap.folding`.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> model = lierope.swap(model, "cayley").eval()
        >>> images = torch.randn(2, 3, 224, 224)
        >>> before = model(images)
        >>> torch.allclose(lierope.fold(model)(images), before, atol=1e-4)
        True
    """
    from lierope.swap.folding import fold_bases  # noqa: PLC0415

    fold_bases(model)
    return model


def encodings_of(model: nn.Module) -> dict[str, Encoding]:
    """The encodings of a swapped model by module name ("blocks.0.attn.encoding").

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
        >>> list(lierope.encodings_of(lierope.swap(model, "mixed")))
        ['blocks.0.attn.encoding', 'blocks.1.attn.encoding']
    """
    from lierope.swap.state import encodings_of as find  # noqa: PLC0415

    return find(model)
