"""Plan a whole swap, then carry it out: nothing is changed before everything is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lierope.choice import check_choice
from lierope.encodings import Absolute, Encoding, create, names
from lierope.positions import MODES
from lierope.swap import state
from lierope.swap.coordinates import Coordinates
from lierope.swap.grid import GridPositions
from lierope.swap.libraries import find_seams
from lierope.swap.own_rotation import OwnRotation, interleave, take_over
from lierope.swap.places import Place, select
from lierope.swap.seam import Seam

_SHARES = {"none": (False, "none"), "heads": (False, "heads")}
_SHARES |= {"layers": (True, "none"), "all": (True, "heads")}
_SET_BY_SWAP = ("head_dim", "num_heads", "num_kv_heads", "ndim", "device", "dtype")


@dataclass(frozen=True)
class Wish:
    """The arguments of `lierope.swap`, see there."""

    encoding: str | type[Encoding]
    options: Mapping[str, Any]
    block_sizes: Sequence[int] | None
    share: str
    positions: str | None
    coordinates: Sequence[int] | Coordinates | None
    num_prefix_tokens: int
    keep_absolute: bool | None
    convert: bool
    only: str | Sequence[str] | None
    skip: str | Sequence[str] | None
    jitter: Mapping[str, Any] | None


@dataclass(frozen=True)
class _Plan:
    """What will become of one transformer."""

    seam: Seam
    places: list[Place]
    encodings: list[Encoding]
    positions: GridPositions
    remove_table: bool
    own: OwnRotation | None


def install(model: nn.Module, wish: Wish) -> None:
    """Check everything, build every encoding, and only then change the model."""
    _check_wish(wish)
    seams = find_seams(model, wish.coordinates, wish.num_prefix_tokens)
    found = [seam.places() for seam in seams]
    chosen = select([place for places in found for place in places], wish.only, wish.skip)
    _check_block_sizes(wish, chosen)
    plans = []
    for seam, places in zip(seams, found, strict=True):
        kept = [place for place in places if place in chosen]
        if kept:
            seam.check(kept, places)
            plans.append(_plan(seam, kept, chosen, wish))
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
    if isinstance(wish.coordinates, Coordinates) and wish.positions is not None:
        raise ValueError(
            "swap: positions must be left out where the caller sets Coordinates, "
            f"got {wish.positions!r}"
        )
    if wish.convert and wish.positions is not None:
        raise ValueError(
            f"swap: positions must be left out to convert, got {wish.positions!r}: "
            "the model's own coordinates stay"
        )
    for word in _SET_BY_SWAP:
        if word in wish.options:
            raise ValueError(f"swap: {word} is read off the model, got {wish.options[word]!r}")


def _check_block_sizes(wish: Wish, chosen: Sequence[Place]) -> None:
    sizes = wish.block_sizes
    if sizes is None:
        return
    if len(sizes) != len(chosen):
        raise ValueError(
            f"swap: block_size must have one size for each of {len(chosen)} layers, "
            f"got {len(sizes)}"
        )
    if _SHARES[wish.share][0]:
        raise ValueError(
            f"swap: block_size must be one number where layers share, got {tuple(sizes)}"
        )


def _plan(seam: Seam, places: list[Place], chosen: Sequence[Place], wish: Wish) -> _Plan:
    encodings = _build_encodings(seam, places, chosen, wish)
    own = _take_over(seam, places, encodings, wish) if wish.convert else None
    keep = _keeps_table(seam, encodings[0], wish)
    mode = wish.positions or encodings[0].default_positions
    positions = seam.positions(mode, wish.jitter, own)
    return _Plan(seam, places, encodings, positions, not keep, own)


def _take_over(
    seam: Seam, places: list[Place], encodings: list[Encoding], wish: Wish
) -> OwnRotation:
    own = seam.own_rotation(wish.jitter)
    if _SHARES[wish.share][0] and own.frequencies.shape[0] > 1:
        raise ValueError(
            f"swap: share must be none or heads to convert {seam.label}rope, got {wish.share!r}"
        )
    for number, (place, encoding) in enumerate(zip(places, encodings, strict=True)):
        take_over(encoding, own.of_layer(number), place.name)
    return own


def _keeps_table(seam: Seam, encoding: Encoding, wish: Wish) -> bool:
    wanted = wish.keep_absolute
    if wanted is None and isinstance(encoding, Absolute):
        wanted = encoding.keep
    if wanted and not seam.has_table():
        raise ValueError(f"swap: {seam.what()} must have a position embedding to keep, got none")
    # What is converted stays the same function, with whatever tables it has.
    return wish.convert if wanted is None else wanted


def _build_encodings(
    seam: Seam, places: list[Place], chosen: Sequence[Place], wish: Wish
) -> list[Encoding]:
    over_layers, share = _SHARES[wish.share]
    built: dict[object, Encoding] = {}
    encodings = []
    for place in places:
        number = chosen.index(place)
        key = place.heads if over_layers else number
        if key not in built:
            size = {} if wish.block_sizes is None else {"block_size": wish.block_sizes[number]}
            built[key] = _build(place, seam.ndim, {**wish.options, **size}, wish.encoding, share)
        encodings.append(built[key])
    return encodings


def _build(
    place: Place,
    ndim: int,
    wanted: Mapping[str, Any],
    encoding: str | type[Encoding],
    share: str,
) -> Encoding:
    heads = place.heads
    grouped = heads.num_kv_heads != heads.num_heads
    options: dict[str, Any] = {
        **wanted,
        "num_kv_heads": heads.num_kv_heads if grouped else None,
        "share": share,
        **place.factory(),
    }
    size = (heads.head_dim, heads.num_heads, ndim)
    try:
        if isinstance(encoding, str):
            built = create(encoding, *size, **options)
        else:
            built = encoding(*size, **options)
    except (ValueError, TypeError) as error:
        raise type(error)(f"swap: {place.name}: {error}") from error
    return built.train(place.attention.training)


def _carry_out(plan: _Plan) -> None:
    attention_for = plan.seam.connect(plan.positions)
    if plan.remove_table:
        plan.seam.remove_table()
    for place, encoding in zip(plan.places, plan.encodings, strict=True):
        swapped = attention_for(place, encoding)
        if plan.own and plan.own.half:
            interleave(swapped)
        place.put(swapped)
    plan.seam.finish(plan.places, plan.encodings)
    lost = plan.seam.lost_keys(plan.remove_table)
    state.install(plan.seam.model, lost, converted=plan.own is not None)
