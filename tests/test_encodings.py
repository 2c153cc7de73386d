"""Encodings as modules: names, parameters, starts, types, devices, transforms, and every error."""

import copy
import math

import pytest
import torch
from torch import Tensor

import lierope
from lierope.encodings import create, names

NAMES = [name for name in names() if name != "se3"]  # whose positions are poses: test_se3.py
EVERY = [*NAMES, "axial:learned=True", "liere:2", "circulant:8", "cayley:banded=3"]
EVERY += ["cayley:sparse=0.2", "mixed:init=uniform", "mixed:init=axial", "liere:4,init=rope"]


def tokens(
    heads: int = 2, count: int = 5, size: int = 16, seed: int = 0, dtype: torch.dtype | None = None
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, heads, count, size, generator=generator).to(dtype)


POINTS = lierope.grid_positions((2, 2), "unit")


def test_names_make_their_classes() -> None:
    for name in NAMES:
        encoding = create(name, 16, 2, 3)
        assert name in (encoding.short_name, "none")
        assert (encoding.head_dim, encoding.num_heads, encoding.ndim) == (16, 2, 3)
        assert encoding.default_positions in ("index", "proportional")
    keep = [create(name, 16, 2).keep for name in ("none", "absolute")]
    assert keep == [False, True]


def test_options_in_a_name() -> None:
    assert create("liere:4", 16, 2).block_size == 4
    assert create("liere:4", 16, 2, block_size=2).block_size == 2
    assert create("circulant", 16, 2).block_size == 16
    assert create("cayley:banded=3", 16, 2).bandwidth == 3
    assert create("cayley:sparse=0.5", 16, 2).density == 0.5
    mixed = create("mixed:init=uniform, theta=50", 16, 2)
    assert (mixed.init, mixed.theta) == ("uniform", 50)


SHAPES = {
    "axial": {},
    "axial:learned=True": {"frequencies": (3, 2, 2)},
    "visionllama": {},
    "none": {},
    "mixed": {"frequencies": (3, 2, 8)},
    "liere": {"generators": (3, 2, 2, 28)},
    "liere:16": {"generators": (3, 2, 1, 120)},
    "liere:2": {"generators": (3, 2, 8, 1)},
    "cayley": {"frequencies": (3, 2, 8), "skew": (2, 120)},
    "cayley:banded=2": {"frequencies": (3, 2, 8), "skew": (2, 29)},
    "cayley:sparse=0.1": {"frequencies": (3, 2, 8), "skew": (2, 12)},
    "dense-string": {"frequencies": (3, 2, 8), "skew": (2, 120)},
    "circulant": {"coefficients": (3, 2, 1, 16)},
    "circulant:4": {"coefficients": (3, 2, 4, 4)},
    "harope": {
        "frequencies": (3, 2, 8),
        "skew_u": (2, 120),
        "skew_v": (2, 120),
        "log_scales": (2, 16),
    },
    "comrope-ap": {"generators": (1, 2, 4, 6)},
    "comrope-ap:2": {"generators": (1, 2, 8, 1)},
    "comrope-ld": {"generators": (1, 2, 2, 28), "multipliers": (3, 2, 2)},
}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters(name: str) -> None:
    encoding = create(name, 16, 4, 3, num_kv_heads=2)
    shapes = {key: tuple(p.shape) for key, p in encoding.named_parameters()}
    assert shapes == SHAPES[name]
    assert encoding.no_weight_decay() == set(shapes)
    assert {p.dtype for p in encoding.parameters()} <= {torch.float32}
    buffers = {"entries"} if "sparse" in name else set()
    assert set(encoding.state_dict()) == set(shapes) | buffers
    shared = create(name, 16, 4, 3, share="heads")
    heads_at = dict.fromkeys(("skew", "skew_u", "skew_v", "log_scales"), 0)
    for key, p in shared.named_parameters():
        assert p.shape[heads_at.get(key, 1)] == 1


def test_liere_of_vit_base_has_the_papers_number_of_parameters() -> None:
    counts = {
        block: 12 * sum(p.numel() for p in lierope.LieRE(64, 12, block_size=block).parameters())
        for block in (2, 4, 8, 16, 32, 64)
    }
    table_10 = {2: 9216, 4: 27_648, 8: 64_512, 16: 138_240, 32: 285_696, 64: 580_608}
    assert counts == table_10


def test_axial_spectrum_is_navers_and_visionllamas_is_lieres() -> None:
    p = torch.tensor([[1.0, 10.0]])
    axial = lierope.AxialRoPE(16, 2).angles(p).flatten()
    frequency = 100 ** -(torch.arange(4) / 4)
    assert torch.allclose(axial, torch.cat((frequency, 10 * frequency)))
    learned = lierope.AxialRoPE(16, 2, learned=True)
    assert torch.equal(learned.angles(p)[0].flatten(), axial)
    llama = lierope.VisionLLaMA(20, 2, 3).angles(torch.tensor([[1.0, 0.0, 2.0]])).flatten()
    phase = torch.exp(-4 * torch.linspace(0, 1, 3))
    assert torch.allclose(llama, torch.cat((phase, 0 * phase, 2 * phase)))
    even = lierope.VisionLLaMA(20, 2, 1, init="even").angles(torch.ones(1, 1)).flatten()
    assert torch.allclose(even, torch.linspace(0, 1, 10))


def test_mixed_starts_as_navers_does() -> None:
    frequencies = lierope.MixedRoPE(16, 64).frequencies.detach()
    magnitude = 10 ** -(torch.arange(4) / 4)
    assert torch.allclose(frequencies.norm(dim=0), magnitude.repeat(2).expand(64, 8))
    x, y = frequencies
    turn = torch.atan2(y, x)
    assert torch.allclose(turn[:, :4], turn[:, :1].expand(-1, 4), atol=1e-5)
    quarter = (turn[:, 4:] - turn[:, :4]) % (2 * math.pi)
    assert torch.allclose(quarter, torch.full_like(quarter, math.pi / 2), atol=1e-5)
    assert turn[:, 0].std() > 1  # uniform over the circle: 1.8
    one = lierope.MixedRoPE(16, 2, 1, theta=10000.0).frequencies
    assert torch.allclose(one, 10000 ** -(torch.arange(0, 16, 2) / 16))
    for ndim in (3, 4, 6):
        many = lierope.MixedRoPE(24, 8, ndim).frequencies.detach()
        groups = many[..., :: 12 // ndim]  # the fastest pair of each axis of the frame
        identity = torch.eye(ndim).expand(8, -1, -1)
        assert torch.allclose(
            groups.permute(1, 2, 0) @ groups.permute(1, 0, 2), identity, atol=1e-5
        )


def test_liere_starts() -> None:
    uniform = lierope.LieRE(64, 8).generators
    assert 0 <= uniform.min() < 0.05
    assert 6.2 < uniform.max() < 2 * math.pi
    assert lierope.LieRE(64, 8, init="small").generators.abs().max() < 0.2
    assert lierope.LieRE(64, 8).default_positions == "proportional"


def test_comrope_starts() -> None:
    for name in ("comrope-ap", "comrope-ld"):
        assert create(name, 64, 8).block_size == 8
        usual, small = create(name, 64, 8), create(f"{name}:init=small", 64, 8)
        assert abs(usual.get_parameter("generators").std().item() - math.sqrt(2)) < 0.1
        assert small.get_parameter("generators").abs().max() < 0.2
        assert usual.default_positions == "proportional"
    assert create("comrope-ap", 64, 2, 9).block_size == 4
    assert abs(lierope.ComRoPELD(64, 64).multipliers.std().item() - 1) < 0.1


def test_comrope_has_the_papers_numbers_of_parameters() -> None:
    """LDb for AP and LD(b + N/b) for LD, with whole blocks stored where triangles are here."""
    width, heads, block, axes = 768, 12, 8, 2
    triangle = (block - 1) / (2 * block)  # of a block, what is stored here
    count = {
        name: sum(p.numel() for p in create(name, width // heads, heads, axes).parameters())
        for name in ("comrope-ap", "comrope-ld")
    }
    assert count["comrope-ap"] == width * block * triangle
    assert count["comrope-ld"] == width * (block * triangle + axes / block)


@pytest.mark.parametrize("name", EVERY)
def test_meta_device_then_to_empty_then_reset(name: str, device: str) -> None:
    encoding = create(name, 16, 2, device="meta")
    assert all(t.is_meta for t in encoding.state_dict().values())
    with torch.device("meta"):
        assert all(t.is_meta for t in create(name, 16, 2).state_dict().values())
    encoding = encoding.to_empty(device=device)
    torch.manual_seed(5)
    encoding.reset_parameters()
    torch.manual_seed(5)
    usual = create(name, 16, 2)
    usual.reset_parameters()
    q, k = tokens().to(device), tokens(seed=1).to(device)
    encoding(q, k, POINTS.to(device), 1)
    assert encoding.state_dict().keys() == usual.state_dict().keys()
    for key, tensor in encoding.state_dict().items():
        assert torch.isfinite(tensor).all()
        assert tensor.shape == usual.state_dict()[key].shape


@pytest.mark.parametrize("name", EVERY)
def test_seed_decides_the_start_and_state_carries_it(name: str) -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(create(name, 16, 2))
    q, k = tokens(), tokens(seed=1)
    first, second = (encoding(q, k, POINTS, 1)[0] for encoding in made[:2])
    assert torch.equal(first, second)
    made[2].load_state_dict(made[0].state_dict())
    assert torch.equal(made[2](q, k, POINTS, 1)[0], first)
    assert torch.equal(copy.deepcopy(made[0])(q, k, POINTS, 1)[0], first)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_types_keep_parameters_and_angles_in_float32(
    name: str, half: torch.dtype, device: str
) -> None:
    encoding = create(name, 16, 2, device=device)
    before = {key: t.clone() for key, t in encoding.state_dict().items()}
    for narrowed in (
        torch.nn.Sequential(encoding).to(half)[0],
        encoding.to(device=device, dtype=half),
        encoding.bfloat16(),
        encoding.half(),
    ):
        after = narrowed.state_dict()
        assert all(
            torch.equal(after[key], t) and after[key].dtype == t.dtype for key, t in before.items()
        )
    q, k = tokens(dtype=half).to(device), tokens(seed=1, dtype=half).to(device)
    rotated = encoding(q, k, POINTS.to(device), 1)
    exact = encoding(q.float(), k.float(), POINTS.to(device), 1)
    for ours, full in zip(rotated, exact, strict=True):
        assert ours.dtype == half
        assert (ours.float() - full).abs().max() <= 2 * torch.finfo(half).eps * full.abs().max()
    assert {t.dtype for t in encoding.double().parameters()} <= {torch.float64}
    assert {t.dtype for t in encoding.float().parameters()} <= {torch.float32}


@pytest.mark.parametrize("name", EVERY)
def test_autocast_changes_neither_angles_nor_basis(name: str, device: str) -> None:
    encoding = create(name, 16, 2, device=device)
    for p in encoding.parameters():
        torch.nn.init.normal_(p)
    points = 100 * POINTS.to(device)
    q, k = (tokens(seed=seed, dtype=torch.bfloat16).to(device) for seed in (0, 1))
    plain = encoding(q, k, points, 1)
    with torch.autocast(device, torch.bfloat16):
        inside = encoding(q, k, points, 1)
        in_basis = encoding.change_basis(q, k)
        assert encoding.basis() is None or encoding.basis().dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(in_basis, encoding.change_basis(q, k), strict=True)
    )


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_positions_tokens_and_every_parameter(name: str, device: str) -> None:
    torch.manual_seed(0)
    encoding = create(name, 8, 2, rotary_dim=8, dtype=torch.float64, device=device)
    generator = torch.Generator().manual_seed(0)
    for p in encoding.parameters():
        torch.nn.init.normal_(p, std=0.5)
    q, k = (torch.randn(1, 2, 3, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    points = torch.rand(2, 2, dtype=torch.float64, generator=generator)
    q, k, points = q.to(device), k.to(device), points.to(device)
    inputs = [q, k, points, *encoding.parameters()]
    own = [key for key, _ in encoding.named_parameters()]

    def rotated(q: Tensor, k: Tensor, points: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(own, parameters, strict=True))
        result = torch.func.functional_call(encoding, named, (q, k, points, 1))
        return tuple(result)

    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(rotated, inputs, atol=1e-6)
    grads = torch.autograd.grad(
        sum((x**3).sum() for x in rotated(*inputs)), inputs, allow_unused=True
    )
    if name not in ("none", "absolute"):
        assert all(g is not None and g.abs().max() > 0 for g in grads)


@pytest.mark.parametrize(
    "name", ["axial", "mixed", "liere:4", "cayley", "circulant", "dense-string"]
)
def test_function_transforms_see_through_the_checks(name: str) -> None:
    torch.manual_seed(0)
    encoding = create(name, 8, 2)
    q, k, points = torch.randn(3, 2, 2, 4, 8), torch.randn(3, 2, 2, 4, 8), torch.rand(3, 4, 2)
    mapped = torch.func.vmap(encoding)(q, k, points)
    for i in range(3):
        alone = encoding(q[i], k[i], points[i])
        assert torch.allclose(mapped[0][i], alone[0], atol=1e-5)
    tangent = torch.func.jvp(lambda p: encoding(q[0], k[0], p)[0], (points[0],), (points[0],))[1]
    assert tangent.abs().max() > 0


@pytest.mark.parametrize("name", EVERY)
def test_compiles_as_one_graph(name: str, device: str) -> None:
    torch.manual_seed(0)
    encoding, points = create(name, 8, 2, device=device), POINTS.to(device)
    q, k = tokens(size=8).to(device), tokens(size=8, seed=1).to(device)
    torch._dynamo.reset()
    compiled = torch.compile(encoding, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(compiled(q, k, points, 1), encoding(q, k, points, 1), strict=True):
        assert torch.allclose(ours, eager, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_strided_and_empty_inputs(name: str, device: str) -> None:
    encoding, points = create(name, 16, 2, device=device), POINTS.to(device)
    packed = torch.randn(2, 5, 3, 2, 16, device=device).permute(2, 0, 3, 1, 4)
    strided = encoding(packed[0], packed[1], points, 1)
    whole = encoding(packed[0].contiguous(), packed[1].contiguous(), points, 1)
    assert all(torch.equal(a, b) for a, b in zip(strided, whole, strict=True))
    assert encoding(packed[0][:0], packed[1][:0], points, 1)[0].shape == (0, 2, 5, 16)
    nothing = encoding(packed[0][:, :, :0], packed[1][:, :, :0], points[:0])
    assert nothing[0].shape == (2, 2, 0, 16)


def test_sparse_entries_are_drawn_once_and_lie_above_the_diagonal() -> None:
    encoding = lierope.CayleySTRING(16, 3, structure="sparse", density=0.25)
    entries = encoding.entries
    assert len(entries.unique()) == len(entries) == 30
    assert (entries // 16 < entries % 16).all()
    torch.nn.init.ones_(encoding.skew)
    s = encoding.skew_matrix()
    assert s.sum() == 90
    assert torch.equal(s[0], s[2])
    band = lierope.CayleySTRING(8, 1, structure="banded", bandwidth=2)
    torch.nn.init.ones_(band.skew)
    expected = torch.ones(8, 8).triu(1) - torch.ones(8, 8).triu(3)
    assert torch.equal(band.skew_matrix()[0], expected)


CONSTRUCTION = [
    ("mixed", {"head_dim": 7}, "MixedRoPE: head_dim must be even, got 7"),
    ("mixed", {"rotary_dim": 5}, "MixedRoPE: rotary_dim must be even, got 5"),
    ("cayley", {"head_dim": 7}, "CayleySTRING: head_dim must be even, got 7"),
    ("liere:6", {}, "LieRE: block_size must divide head_dim, got 6 and 16"),
    ("liere:1", {}, "LieRE: block_size must be an integer of at least 2, got 1"),
    ("circulant:5", {}, "CirculantSTRING: block_size must divide head_dim, got 5 and 16"),
    ("circulant:2", {}, "CirculantSTRING: block_size must be an integer of at least 3, got 2"),
    ("mixed", {"head_dim": 0}, "MixedRoPE: head_dim must be a positive integer, got 0"),
    ("mixed", {"num_heads": 1.5}, "MixedRoPE: num_heads must be a positive integer, got 1.5"),
    ("mixed", {"ndim": 0}, "MixedRoPE: ndim must be a positive integer, got 0"),
    ("mixed", {"num_kv_heads": 3}, "num_kv_heads must divide num_heads, got 3 and 4"),
    ("mixed", {"rotary_dim": 18}, "rotary_dim must be at most head_dim, got 18 and 16"),
    ("mixed", {"share": "head"}, "share must be one of none, heads, got 'head' .did you mean 'hea"),
    ("mixed", {"init": "navr"}, "MixedRoPE: init must be one of .* got 'navr' .did you mean 'nav"),
    ("mixed", {"theta": -1.0}, "MixedRoPE: theta must be a positive number, got -1.0"),
    ("axial", {"ndim": 9}, "AxialRoPE: head_dim must be at least 2 ndim = 18, got 16"),
    ("liere", {"init": "zero"}, "LieRE: init must be one of uniform, rope, small, got 'zero'"),
    ("lire", {}, "create: name must be one of .* got 'lire' .did you mean 'liere'"),
    ("liere", {"blok_size": 4}, "liere: option must be .* got 'blok_size' .did you mean 'block_s"),
    ("liere:big", {}, "liere: options must be written name=value, got 'big'"),
    ("mixed:8", {}, "mixed: option must be one of .* got 'block_size'"),
    (
        "comrope-ap:8",
        {"ndim": 3},
        "ComRoPEAP: block_size must leave a block for each of 3 axes",
    ),
    ("comrope-ap", {"head_dim": 7}, "ComRoPEAP: block_size must divide head_dim, got 2 and 7"),
    ("comrope-ld:5", {}, "ComRoPELD: block_size must divide head_dim, got 5 and 16"),
    ("comrope-ld", {"init": "unit"}, "ComRoPELD: init must be one of normal, small, got 'unit'"),
    ("cayley", {"structure": "band"}, "structure must be one of .* .did you mean 'banded'"),
    ("cayley", {"structure": "banded"}, "bandwidth must be given for structure 'banded', got None"),
    ("cayley", {"density": 0.5}, "density must be left out for structure 'dense', got 0.5"),
    ("cayley:banded=16", {}, "CayleySTRING: bandwidth must be between 1 and 15, got 16"),
    ("cayley:sparse=1.5", {}, "CayleySTRING: density must be above 0 and at most 1, got 1.5"),
]


@pytest.mark.parametrize(("name", "words", "message"), CONSTRUCTION)
def test_bad_construction(name: str, words: dict[str, object], message: str) -> None:
    sizes = {"head_dim": 16, "num_heads": 4}
    with pytest.raises(ValueError, match=message):
        create(name, **(sizes | words))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64])
def test_bad_parameter_type(dtype: torch.dtype) -> None:
    with pytest.raises(
        TypeError, match=r"LieRE: dtype must be torch.float32 or torch.float64, got"
    ):
        lierope.LieRE(16, 2, dtype=dtype)


GOOD = {"q": tokens(4), "k": tokens(2), "positions": POINTS, "num_prefix_tokens": 1}
NAN = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [0.0, 0.0], [0.0, 0.0]])
FORWARD = [
    ({"q": tokens(3)}, ValueError, r"LieRE: q must have shape \(B, 4, N, 16\), got \(2, 3, 5, 16"),
    ({"q": tokens(4)[0]}, ValueError, r"LieRE: q must have shape \(B, 4, N, 16\), got \(4, 5, 16"),
    ({"q": tokens(4, size=8)}, ValueError, r"q must have shape .* got \(2, 4, 5, 8\)"),
    ({"k": tokens(3)}, ValueError, r"LieRE: k must have shape \(B, 2, N, 16\), got \(2, 3, 5, 16"),
    ({"k": tokens(2, 6)}, ValueError, "LieRE: k must have q's batch and tokens, got"),
    ({"positions": POINTS[:3]}, ValueError, r"positions must have shape \(4, 2\) or \(2, 4, 2\)"),
    ({"positions": POINTS[:, :1]}, ValueError, r"one for each token after the prefix, got \(4, 1"),
    ({"positions": POINTS.expand(3, -1, -1)}, ValueError, r"got \(3, 4, 2\)"),
    ({"num_prefix_tokens": 6}, ValueError, "num_prefix_tokens must be between 0 and N = 5, got 6"),
    ({"num_prefix_tokens": -1}, ValueError, "num_prefix_tokens must be between 0 and N = 5"),
    ({"positions": NAN}, ValueError, "LieRE: positions must be finite, got nan"),
    ({"positions": -NAN.nan_to_num(math.inf)}, ValueError, "positions must be finite, got -inf"),
    ({"q": tokens(4).double()}, TypeError, "q must be of a type that torch.float32 parameters"),
    ({"q": tokens(4).long()}, TypeError, "LieRE: q must be a floating type, got torch.int64"),
    ({"k": tokens(2).bfloat16()}, TypeError, "k must have q's type torch.float32, got torch.bf"),
    ({"positions": POINTS.double()}, TypeError, "positions must be torch.float32 for q of torch"),
    ({"positions": POINTS.long()}, TypeError, "LieRE: positions must be torch.float32 .*int64"),
    ({"k": tokens(2).to("meta")}, ValueError, "LieRE: k must be on q's device cpu, got meta"),
    ({"positions": POINTS.to("meta")}, ValueError, "positions must be on q's device cpu, got meta"),
]


@pytest.mark.parametrize(("changed", "error", "message"), FORWARD)
def test_bad_input(changed: dict[str, object], error: type[Exception], message: str) -> None:
    encoding = create("liere", 16, 4, num_kv_heads=2)
    encoding(**GOOD)
    with pytest.raises(error, match=message) as caught:
        encoding(**(GOOD | changed))
    assert "\n" not in str(caught.value)


def test_encoding_on_another_device_or_without_basis_says_so() -> None:
    q = tokens(2)
    with pytest.raises(ValueError, match="MixedRoPE: the encoding must be on q's device cpu, got"):
        create("mixed", 16, 2, device="meta")(q, q, POINTS, 1)
    for name in ("mixed", "axial", "none"):
        with pytest.raises(ValueError, match="folded must be called on an encoding with a basis"):
            create(name, 16, 2).folded()


@pytest.mark.parametrize("name", EVERY)
def test_every_class_checks_its_input(name: str) -> None:
    q = tokens(2)
    with pytest.raises(ValueError, match=r": positions must have shape \(5, 2\) or"):
        create(name, 16, 2)(q, q, POINTS)
