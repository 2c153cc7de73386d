"""Plan a whole swap, then carry it out: nothing is changed before everything is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lierope.choice import check_choice
from lierope.encodings import Absolute, Encoding, create, names
from lierope.positions import MODES
from lierope.swap import eva, state, vision_transformer
from lierope.swap.attention import EvaFamilyAttention, SwappedAttention, ViTAttention
from lierope.swap.convert import OwnRotation, interleave, read_rotation, take_over
from lierope.swap.grid import GridPositions
from lierope.swap.in_flight import PositionsInFlight
from lierope.swap.places import Eva, Place, find_models, find_places, select

_SHARES = {"none": (False, "none"), "heads": (False, "heads")}
_SHARES |= {"layers": (True, "none"), "all": (True, "heads")}
_SET_BY_SWAP = ("head_dim", "num_heads", "num_kv_heads", "ndim", "device", "dtype")


@dataclass(frozen=True)
class Wish:
    """The arguments of `lierope.swap`, see there."""

    encoding: str | type[Encoding]
    options: Mapping[str, Any]
    share: str
    positions: str | None
    keep_absolute: bool | None
    convert: bool
    only: str | Sequence[str] | None
    skip: str | Sequence[str] | None
    jitter: Mapping[str, Any] | None


@dataclass(frozen=True)
class _Plan:
    """What will become of one transformer."""

    model: Any
    places: list[Place]
    encodings: list[Encoding]
    positions: GridPositions
    remove_table: bool
    own: OwnRotation | None


def install(model: nn.Module, wish: Wish) -> None:
    """Check everything, build every encoding, and only then change the model."""
    _check_wish(wish)
    models = find_models(model)
    found = {name: find_places(inner, f"{name}." if name else "") for name, inner in models.items()}
    chosen = select([p for places in found.values() for p in places], wish.only, wish.skip)
    plans = []
    for name, inner in models.items():
        kept = [place for place in found[name] if place in chosen]
        if kept:
            plans.append(_plan(inner, name, kept, len(kept) < len(found[name]), wish))
    for plan in plans:
        _carry_out(plan)


def _check_wish(wish: Wish) -> None:
    check_choice("swap", "share", wish.share, _SHARES)
    if wish.positions is not None:
        check_choice("swap", "positions", wish.positions, MODES)
    if isinstance(wish.encoding, str):
        check_choice("swap", "encoding", wish.encoding.partition(":")[0], names())
    elif not (isinstance(wish.encoding, type) and issubclass(wish.encoding, Encoding)):
        raise TypeError(
            f"swap: encoding must be a short name or an Encoding class, got {wish.encoding!r}"
        )
    if wish.convert and wish.positions is not None:
        raise ValueError(
            f"swap: positions must be left out to convert, got {wish.positions!r}: "
            "the model's own coordinates stay"
        )
    for word in _SET_BY_SWAP:
        if word in wish.options:
            raise ValueError(f"swap: {word} is read off the model, got {wish.options[word]!r}")


def _plan(model: Any, name: str, places: list[Place], partial: bool, wish: Wish) -> _Plan:
    label = f"{name}." if name else ""
    if isinstance(model, Eva):
        if partial:
            raise ValueError(
                f"swap: only and skip must cover all blocks of {name or 'the model'}, an Eva, "
                "which gives all its blocks the same positions"
            )
    else:
        vision_transformer.check_patch_drop(model, label)
    encodings = _build_encodings(places, wish)
    own = _take_over(model, label, places, encodings, wish) if wish.convert else None
    keep = _keeps_table(model, label, encodings[0], wish)
    mode = wish.positions or encodings[0].default_positions
    positions = GridPositions(mode, model.patch_embed.grid_size, wish.jitter)
    positions = own.positions if own else positions
    _try_positions(positions, model)
    return _Plan(model, places, encodings, positions, not keep, own)


def _take_over(
    model: Any, label: str, places: list[Place], encodings: list[Encoding], wish: Wish
) -> OwnRotation:
    own = read_rotation(getattr(model, "rope", None), wish.jitter, label)
    if _SHARES[wish.share][0] and own.frequencies.shape[0] > 1:
        raise ValueError(
            f"swap: share must be none or heads to convert {label}rope, got {wish.share!r}"
        )
    for number, (place, encoding) in enumerate(zip(places, encodings, strict=True)):
        take_over(encoding, own.of_layer(number), place.name)
    return own


def _keeps_table(model: Any, label: str, encoding: Encoding, wish: Wish) -> bool:
    wanted = wish.keep_absolute
    if wanted is None and isinstance(encoding, Absolute):
        wanted = encoding.keep
    if wanted and model.pos_embed is None:
        raise ValueError(f"swap: {label}pos_embed must exist to be kept, got None")
    # What is converted stays the same function, with whatever tables it has.
    return wish.convert if wanted is None else wanted


def _try_positions(positions: GridPositions, model: Any) -> None:
    """Let an unknown mode or jitter speak up before the model is touched."""
    grid = model.patch_embed.grid_size or (1, 1)
    rng = torch.get_rng_state()
    positions(grid, device=torch.device("cpu"), dtype=torch.float32, training=True)
    torch.set_rng_state(rng)


def _build_encodings(places: list[Place], wish: Wish) -> list[Encoding]:
    over_layers, share = _SHARES[wish.share]
    built: dict[object, Encoding] = {}
    encodings = []
    for number, place in enumerate(places):
        attention: Any = place.attention
        heads = (attention.head_dim, attention.num_heads, getattr(attention, "num_kv_heads", None))
        key = heads if over_layers else number
        if key not in built:
            built[key] = _build(place, wish, share)
        encodings.append(built[key])
    return encodings


def _build(place: Place, wish: Wish, share: str) -> Encoding:
    attention: Any = place.attention
    weight = attention.proj.weight
    kv_heads = getattr(attention, "num_kv_heads", attention.num_heads)
    options = dict(
        wish.options,
        num_kv_heads=None if kv_heads == attention.num_heads else kv_heads,
        share=share,
        device=weight.device,
        dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32,
    )
    size = (attention.head_dim, attention.num_heads, 2)  # an image has rows and columns
    try:
        if isinstance(wish.encoding, str):
            built = create(wish.encoding, *size, **options)
        else:
            built = wish.encoding(*size, **options)
    except (ValueError, TypeError) as error:
        raise type(error)(f"swap: {place.name}: {error}") from error
    return built.train(attention.training)


def _carry_out(plan: _Plan) -> None:
    model = plan.model
    like = next(model.patch_embed.parameters())
    in_flight = None
    if isinstance(model, Eva):
        eva.install(model, plan.positions, like)
        if plan.remove_table:
            model.pos_embed = None
    else:
        in_flight = PositionsInFlight()
        vision_transformer.install(model, plan.positions, in_flight)
        if plan.remove_table:
            vision_transformer.remove_table(model)
    for place, encoding in zip(plan.places, plan.encodings, strict=True):
        swapped: SwappedAttention
        prefix = int(model.num_prefix_tokens)
        if in_flight is None:
            swapped = EvaFamilyAttention(place.attention, encoding, prefix)
        else:
            swapped = ViTAttention(place.attention, encoding, prefix, in_flight)
        if plan.own and plan.own.half:
            interleave(swapped)
        place.put(swapped)
    state.install(model, converted=plan.own is not None)
