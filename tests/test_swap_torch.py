"""swap on nn.MultiheadAttention, alone and in nn.TransformerEncoder: masks, paths, positions."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lierope.encodings import LieRE, MixedRoPE
from lierope.swap import Coordinates, encodings_of, fold, swap

DIM, HEADS = 48, 4
GRID = (4, 4)


class Holder(nn.Module):
    """The least model that holds an attention."""

    def __init__(self, **words: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(DIM, HEADS, **{"batch_first": True, **words})
        nn.init.normal_(self.attention.in_proj_weight, std=DIM**-0.5)
        if self.attention.in_proj_bias is not None:
            nn.init.normal_(self.attention.in_proj_bias, std=0.5)

    def forward(self, x: Tensor, **words: Any) -> tuple[Tensor, Tensor | None]:
        found: tuple[Tensor, Tensor | None] = self.attention(x, x, x, **words)
        return found


def encoder(depth: int = 2, norm_first: bool = False, **words: Any) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    words = {"batch_first": True, "dropout": 0.0, **words}
    layer = nn.TransformerEncoderLayer(DIM, HEADS, 64, norm_first=norm_first, **words)
    model = nn.TransformerEncoder(layer, depth, enable_nested_tensor=not norm_first)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=DIM**-0.5 if parameter.ndim > 1 else 0.5)
    return model.eval()


def tokens(batch: int = 2, length: int = 16) -> Tensor:
    return torch.randn(batch, length, DIM, generator=torch.Generator().manual_seed(1))


def points(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2)) * 4


def close(a: Tensor, b: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


MASKS: dict[str, Callable[[], dict[str, Any]]] = {
    "none": dict,
    "boolean": lambda: {"attn_mask": torch.ones(16, 16).triu(1) > 0},
    "additive": lambda: {"attn_mask": torch.randn(16, 16)},
    "for each head": lambda: {"attn_mask": torch.randn(2 * HEADS, 16, 16)},
    "causal": lambda: {"attn_mask": torch.ones(16, 16).triu(1) > 0, "is_causal": True},
    "padding": lambda: {"key_padding_mask": torch.arange(16).expand(2, -1) > 12},
    "padding, additive": lambda: {
        "key_padding_mask": torch.zeros(2, 16).masked_fill(torch.arange(16) > 12, -torch.inf),
        "attn_mask": torch.randn(16, 16),
    },
}


@pytest.mark.parametrize("weights", ["none", "mean", "each"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_it_is_multihead_attention_but_for_the_rotation(
    mask: Callable[[], dict[str, Any]], weights: str
) -> None:
    torch.manual_seed(3)
    words = {**mask(), "need_weights": weights != "none", "average_attn_weights": weights == "mean"}
    model, x = Holder(), tokens()
    swapped = swap(copy.deepcopy(model), "none", coordinates=GRID)
    (y, w), (y0, w0) = swapped(x, **words), model(x, **words)
    close(y, y0)
    assert (w is None) is (w0 is None)
    if w is not None and w0 is not None:
        close(w, w0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", ["batch first", "sequence first", "unbatched"])
def test_layouts(layout: str, bias: bool) -> None:
    model = Holder(batch_first=layout == "batch first", bias=bias)
    x = tokens()[0] if layout == "unbatched" else tokens()
    x = x.transpose(0, 1) if layout == "sequence first" else x
    expected = model(x)
    found = swap(copy.deepcopy(model), "none", coordinates=GRID)(x)
    close(found[0], expected[0])
    close(found[1], expected[1])
    turned = swap(model, "mixed", coordinates=GRID)
    assert not torch.allclose(turned(x)[0], expected[0], atol=1e-3)


def test_dropout_is_torchs() -> None:
    model = Holder(dropout=0.5).train()
    outputs = []
    for each in (model, swap(copy.deepcopy(model), "none", coordinates=GRID)):
        torch.manual_seed(5)
        outputs.append(each(tokens())[1])
    close(*outputs)


def test_scores_see_the_positions_that_are_set() -> None:
    """Against the encoding applied by hand, for shared and per-sample positions in 3-D."""
    where = Coordinates(ndim=3)
    model = swap(Holder(), "liere:4", coordinates=where, num_prefix_tokens=2)
    x, attention = tokens(), model.attention
    q, k, _ = (
        nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        .unflatten(-1, (3, HEADS, -1))
        .permute(2, 0, 3, 1, 4)
    )
    for p in (points(14, 3), points(2, 14, 3)):
        where.set(p.requires_grad_())
        a, b = attention.encoding(q, k, p, 2)
        expected = (a @ b.mT * (DIM // HEADS) ** -0.5).softmax(-1)
        found = model(x, average_attn_weights=False)[1]
        close(found, expected, 1e-5)
        (gradient,) = torch.autograd.grad(found.square().sum(), p)
        assert float(gradient.abs().max()) > 0
        close(model(x, positions=p)[0], model(x)[0], 0)


def test_a_grid_is_its_positions() -> None:
    p = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    model = swap(Holder(), "mixed", coordinates=GRID)
    close(model(tokens())[0], model(tokens(), positions=p)[0], 0)
    double = copy.deepcopy(model).double()
    assert double(tokens().double())[0].dtype == torch.float64
    for encoding in encodings_of(swap(encoder(), "liere:4", coordinates=(2, 2, 4))).values():
        assert encoding.ndim == 3


def test_precision() -> None:
    where = Coordinates(ndim=2)
    model, x = swap(encoder(), "cayley", coordinates=where), tokens()
    where.set(points(16, 2))
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        close(model(x).float(), exact, 0.1)
    half = copy.deepcopy(model).bfloat16()
    close(half(x.bfloat16()).float(), exact, 0.2)
    assert all(e.frequencies.dtype == torch.float32 for e in encodings_of(half).values())


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_for_each_sample() -> None:
    model, x = swap(Holder(), "mixed", coordinates=GRID), tokens()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        found = torch.func.functional_call(model, parameters, (one[None],), {"need_weights": False})
        return found[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    alone = torch.func.grad(loss)(parameters, x[1])
    for name, gradient in alone.items():
        close(each[name][1], gradient, 1e-4)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_fused_path_of_evaluation_does_not_pass_the_rotation_by(
    padded: bool, norm_first: bool
) -> None:
    """In eval mode without gradients torch would take the weights and run its own attention."""
    model = swap(encoder(norm_first=norm_first), "mixed", coordinates=GRID)
    mask = torch.arange(16).expand(2, -1) > 12 if padded else None
    x = tokens()
    slow = model(x, src_key_padding_mask=mask).detach()
    with torch.no_grad():
        fast = model(x, src_key_padding_mask=mask)
    with torch.inference_mode():
        inference = model(x, src_key_padding_mask=mask)
    seen = slice(0, 13) if padded else slice(None)
    close(fast[:, seen], slow[:, seen], 1e-5)
    close(inference[:, seen], slow[:, seen], 1e-5)
    plain = encoder(norm_first=norm_first)
    assert not torch.allclose(
        plain(x, src_key_padding_mask=mask)[:, seen], slow[:, seen], atol=1e-3
    )
    same = swap(plain, "none", coordinates=GRID)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        expected = encoder(norm_first=norm_first)(x, src_key_padding_mask=mask)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    close(same(x, src_key_padding_mask=mask), expected, 1e-5)


def test_an_encoder_made_of_a_swapped_layer() -> None:
    """The constructor of nn.TransformerEncoder asks the layer's attention about itself."""
    layer = nn.TransformerEncoderLayer(DIM, HEADS, 64, batch_first=True)
    swap(layer, "mixed", coordinates=GRID)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    assert len(encodings_of(model)) == 2
    with torch.no_grad():
        assert model(tokens()).shape == (2, 16, DIM)


def test_keys_gradients_and_copies() -> None:
    model = encoder()
    original = copy.deepcopy(model.state_dict())
    swap(model, "cayley", coordinates=GRID)
    new = set(model.state_dict()) - set(original)
    assert new == {
        f"layers.{i}.self_attn.encoding.{w}" for i in (0, 1) for w in ("skew", "frequencies")
    }
    assert set(original) <= set(model.state_dict())
    model.load_state_dict(original, strict=True)
    model(tokens()).square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in model.parameters())
    assert new <= model.no_weight_decay()
    twin = copy.deepcopy(model)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for other in (twin, torch.load(stored, weights_only=False)):
        assert torch.equal(other(tokens()), model(tokens()))


def test_fold() -> None:
    for make in (Holder, lambda: Holder(bias=False)):
        model = swap(make(), "cayley", coordinates=GRID)
        nn.init.normal_(model.attention.encoding.skew, std=0.5)
        before = model(tokens())[0]
        close(fold(model)(tokens())[0], before, 1e-5)
        assert isinstance(model.attention.encoding, MixedRoPE)


def test_share_block_sizes_and_selection() -> None:
    model = swap(encoder(3), "liere", block_size=[2, 4, 6], coordinates=GRID)
    assert [e.block_size for e in encodings_of(model).values() if isinstance(e, LieRE)] == [2, 4, 6]
    model = swap(encoder(3), "mixed", share="layers", coordinates=GRID, skip="layers.1")
    assert list(encodings_of(model)) == [f"layers.{i}.self_attn.encoding" for i in (0, 2)]
    assert len({id(e) for e in encodings_of(model).values()}) == 1


def two_passes(model: nn.Module, where: Coordinates, again: bool) -> Tensor:
    """Two forward passes with positions of their own before one backward pass."""
    losses = []
    for number in (1, 2):
        where.set(points(2, 16, 2) * number)
        x = tokens() + number
        for layer in model.layers:
            x = checkpoint(layer, x, use_reentrant=False) if again else layer(x)
        losses.append(x.square().sum())
    return losses[0] + losses[1]


def test_checkpointed_layers_get_the_positions_of_their_own_pass() -> None:
    where = Coordinates(ndim=2)
    model = swap(encoder(), "mixed", coordinates=where).train()
    gradients = []
    for again in (False, True):
        model.zero_grad()
        two_passes(model, where, again).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        close(a, b, 1e-4)


def test_checkpointed_attention_outside_of_such_layers_is_an_error() -> None:
    where = Coordinates(ndim=2)
    model = swap(Holder(), "mixed", coordinates=where).train()
    where.set(points(16, 2))
    x = tokens().requires_grad_()
    loss = checkpoint(lambda y: model(y)[0], x, use_reentrant=False).sum()
    with pytest.raises(
        RuntimeError, match=r"^swap: attention is recomputed in the backward pass, "
    ):
        loss.backward()
    p = points(16, 2)
    checkpoint(lambda y: model(y, positions=p)[0], x, use_reentrant=False).sum().backward()


def test_coordinates_set_once_keep_no_list_of_every_pass() -> None:
    where = Coordinates(ndim=2)
    model = swap(encoder(2), "mixed", coordinates=where)
    where.set(points(4, 2))
    for _ in range(200):
        with torch.no_grad():
            model(tokens(1, 4))
    assert len(where._seen) <= 257


def test_copies_hear_the_same_caller() -> None:
    where = Coordinates(ndim=2)
    layer = nn.TransformerEncoderLayer(DIM, HEADS, 64, batch_first=True, norm_first=True)
    swap(layer, "mixed", coordinates=where)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    where.set(points(16, 2))
    before = model(tokens())
    assert torch.equal(copy.deepcopy(model)(tokens()), before)
    where.set(points(16, 2) * 2)
    assert not torch.allclose(model(tokens()), before)


def test_a_decoder_layer() -> None:
    """Its attention to itself; what it attends to besides stays as it is."""
    where = Coordinates(ndim=2)
    model = nn.TransformerDecoderLayer(DIM, HEADS, 64, batch_first=True, dropout=0.0)
    swap(model, "mixed", coordinates=where, skip="multihead_attn")
    where.set(points(16, 2))
    x, memory = tokens().requires_grad_(), tokens(2, 5)
    plain = torch.autograd.grad(model(x, memory).square().sum(), x)
    again = checkpoint(model, x, memory, use_reentrant=False).square().sum()
    where.set(points(16, 2) * 2)
    close(torch.autograd.grad(again, x)[0], plain[0], 1e-5)


def test_one_input_with_two_positions_cannot_be_recomputed() -> None:
    where = Coordinates(ndim=2)
    model = swap(encoder(1), "mixed", coordinates=where).train()
    x, losses = tokens().requires_grad_(), []
    for number in (1, 2):
        where.set(points(16, 2) * number)
        losses.append(checkpoint(model.layers[0], x, use_reentrant=False).sum())
    with pytest.raises(
        RuntimeError, match=r"^swap: TransformerEncoderLayer is recomputed .* sever"
    ):
        (losses[0] + losses[1]).backward()


def test_replicas_in_threads_are_refused() -> None:
    where = Coordinates(ndim=2)
    model = swap(encoder(1), "mixed", coordinates=where)
    where.set(points(16, 2))
    replica = model.layers[0]._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match=r"^swap: torch.nn.DataParallel cannot run this model"):
        replica(tokens())


def test_compile() -> None:
    torch._dynamo.reset()
    where = Coordinates(ndim=2)
    model = swap(encoder(norm_first=True), "mixed", coordinates=where).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for p in (points(16, 2), points(16, 2) * 2):
        where.set(p)
        close(compiled(tokens()), model(tokens()), 1e-5)


def refused(model: nn.Module, text: str, kind: type = ValueError, **words: Any) -> None:
    modules = dict(model.named_modules())
    with pytest.raises(kind, match=text):
        swap(model, "mixed", **{"coordinates": GRID, **words})
    assert dict(model.named_modules()) == modules


def test_refusals() -> None:
    class Mine(nn.MultiheadAttention):
        pass

    model = Holder()
    model.attention = Mine(DIM, HEADS)
    refused(model, r"^swap: attention is a Mine, which is unknown; known is MultiheadAttention$")
    refused(Holder(add_zero_attn=True), r"^swap: attention adds keys of its own \(add_bias_kv, add")
    refused(Holder(add_bias_kv=True), r"^swap: attention adds keys of its own")
    model = Holder()
    model.attention = nn.MultiheadAttention(DIM, HEADS, kdim=32)
    refused(model, r"^swap: attention takes keys of another width than queries; skip it$")
    refused(nn.MultiheadAttention(DIM, HEADS), r"^swap: model must hold its MultiheadAttention, go")
    refused(nn.Linear(2, 2), r"^swap: model must hold a torch.nn.MultiheadAttention, got Linear wi")
    decoder = nn.TransformerDecoderLayer(DIM, HEADS, 64)
    refused(decoder, r"^swap: multihead_attn attends to another sequence, whose positions .*; skip")
    assert list(encodings_of(swap(decoder, "mixed", coordinates=GRID, skip="multihead_attn"))) == [
        "self_attn.encoding"
    ]
    refused(
        encoder(),
        r"^swap: coordinates must be a grid's shape or a lierope.Coordinates, got 4$",
        coordinates=4,
    )
    refused(encoder(), r"^swap: coordinates must be a grid's .*, got \(4, 0\)$", coordinates=(4, 0))
    refused(encoder(), r"^swap: num_prefix_tokens must be 0 or more, got -1$", num_prefix_tokens=-1)
    refused(
        encoder(),
        r"^swap: jitter must be left out where coordinates are given",
        jitter={"shift": 1.0},
    )
    refused(
        encoder(), r"^swap: convert needs a rotary embedding, but the model has none$", convert=True
    )
    refused(
        encoder(),
        r"^swap: positions must be left out where the caller sets Coordinates, got 'unit'$",
        coordinates=Coordinates(2),
        positions="unit",
    )
    refused(
        encoder(3),
        r"^swap: block_size must have one size for each of 3 layers, got 2$",
        block_size=[2, 4],
    )
    refused(
        encoder(),
        r"^swap: block_size must be one number where layers share, got \(2, 4\)$",
        block_size=[2, 4],
        share="all",
    )


def test_calls_that_cannot_be() -> None:
    model, x = swap(Holder(), "mixed", coordinates=GRID), tokens()
    with pytest.raises(ValueError, match=r"^swap: attention must get one sequence as query, key a"):
        model.attention(x, x, x.clone())
    with pytest.raises(ValueError, match=r"^swap: attention: is_causal must come with its attn_ma"):
        model(x, is_causal=True)
    with pytest.raises(
        ValueError, match=r"^MixedRoPE: positions must have shape \(9, 2\) or \(2, "
    ):
        model(x[:, :9])
    nested = torch.nested.nested_tensor([x[0], x[1, :9]], layout=torch.jagged)
    with pytest.raises(ValueError, match=r"^swap: attention takes no nested tensors, pad instead$"):
        model(nested)
    with pytest.raises(ValueError, match=r"^Coordinates: ndim must be positive, got 0$"):
        Coordinates(0)
    where = Coordinates(3)
    with pytest.raises(ValueError, match=r"^Coordinates: positions must have shape \(M, 3\) or \("):
        where.set(points(16, 2))
    model = swap(Holder(), "mixed", coordinates=where)
    with pytest.raises(
        RuntimeError, match=r"^swap: attention has no positions yet, .* Coordinates$"
    ):
        model(x)
    with pytest.raises(
        NotImplementedError, match=r"^swap: torch.jit.script cannot compile a swapp"
    ):
        torch.jit.script(model)
