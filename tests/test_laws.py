"""Laws of the rotations: orthogonal, relative where they commute, equal where theory says so."""

import math

import pytest
import torch
from torch import Tensor, nn

import lierope
from lierope import reference
from lierope.diagnostics import relativity_violation, rotation_matrices
from lierope.encodings import create
from lierope.encodings.base import multiply_heads

EVERY = [
    "none",
    "absolute",
    "axial",
    "axial:learned=True",
    "visionllama",
    "mixed",
    "liere:2",
    "liere:4",
    "liere:8",
    "liere:16",
    "cayley",
    "cayley:banded=3",
    "cayley:sparse=0.2",
    "circulant",
    "circulant:8",
    "dense-string",
    "comrope-ap",
    "comrope-ap:2",
    "comrope-ld",
    "comrope-ld:4",
]
RELATIVE = [name for name in EVERY if name not in ("liere:4", "liere:8", "liere:16")]


def made(name: str, ndim: int = 2, heads: int = 2, size: int = 16) -> lierope.Encoding:
    """A float64 encoding whose S, 0 at first, is random."""
    torch.manual_seed(0)
    encoding = create(name, size, heads, ndim, dtype=torch.float64)
    if "skew" in dict(encoding.named_parameters()):
        nn.init.normal_(encoding.get_parameter("skew"), std=0.3)
    return encoding


def points(ndim: int, count: int = 5, seed: int = 0) -> Tensor:
    """Positions in [-1, 2]."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.rand(count, ndim, dtype=torch.float64, generator=generator) - 1


def tokens(*shape: int, seed: int = 0) -> Tensor:
    """Reproducible normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """Attention scores; a q head uses the k head of its group."""
    return q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    """Whether the largest difference is within tolerance."""
    return bool((a - b).abs().max() <= tolerance)


@pytest.mark.parametrize("ndim", range(1, 7))
@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_rotations_are_orthogonal_with_determinant_one(name: str, ndim: int) -> None:
    rotations = rotation_matrices(made(name, ndim), points(ndim))
    assert close(rotations.mT @ rotations, torch.eye(16, dtype=torch.float64))
    assert close(torch.linalg.det(rotations), torch.ones(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("ndim", range(1, 7))
@pytest.mark.parametrize("name", RELATIVE)
@torch.no_grad()
def test_commuting_families_are_relative(name: str, ndim: int) -> None:
    violation = relativity_violation(made(name, ndim), points(ndim), points(ndim, seed=1))
    assert violation.max() < 1e-12


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_one_dimension_is_always_relative(name: str) -> None:
    assert relativity_violation(made(name, 1), points(1), points(1, seed=1)).max() < 1e-12


@torch.no_grad()
def test_liere_violates_relativity_more_for_larger_blocks() -> None:
    a, b = (torch.rand(64, 2, dtype=torch.float64) for _ in range(2))
    median = [
        relativity_violation(made(f"liere:{block}"), a, b).median().item()
        for block in (2, 4, 8, 16)
    ]
    assert median[0] < 1e-12
    assert 0.01 < median[1] < median[2] < median[3] < math.sqrt(2) + 0.1


@torch.no_grad()
def test_liere_is_nearly_relative_nearby() -> None:
    encoding, a = made("liere:8"), points(2)
    near = relativity_violation(encoding, a, a + 1e-5).max()
    far = relativity_violation(encoding, a, a + 1e-1).max()
    assert near < 1e-3 < far


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("init", ["uniform", "rope", "small"])
@pytest.mark.parametrize("block", [2, 4, 8, 64])
@torch.no_grad()
def test_liere_rotations_are_orthogonal_over_inits_and_norms(
    block: int, init: str, scale: float
) -> None:
    """The LieRE paper's first experiment, in float32: the error grows as 6e-8 times the norm."""
    torch.manual_seed(0)
    encoding = lierope.LieRE(64, 1, block_size=block, init=init)
    encoding.generators.mul_(scale)
    positions = torch.rand(4, 2)
    rotations = rotation_matrices(encoding, positions).double()
    skew = torch.einsum("chgij,mc->mhgij", reference.unpack_skew(encoding.generators), positions)
    norm = torch.linalg.matrix_norm(skew, 2).max().item()
    error = rotations.mT @ rotations - torch.eye(64, dtype=torch.float64)
    assert torch.linalg.matrix_norm(error, 2).max() < 5e-7 * (1 + norm)
    if scale == 0:
        assert error.abs().max() == 0


@pytest.mark.parametrize("block", [2, 4, 8, 16])
@torch.no_grad()
def test_liere_in_one_dimension_is_rope_in_its_eigenbasis(block: int) -> None:
    liere = made(f"liere:{block}", ndim=1, heads=1)
    assert isinstance(liere, lierope.LieRE)
    skew = reference.unpack_skew(liere.generators[0, 0])
    # A w = -i m w with w = (x + i y) / sqrt(2): A turns x towards y at the rate m
    eigenvalues, vectors = torch.linalg.eigh(1j * skew)
    positive = vectors[..., block // 2 :] * math.sqrt(2)
    planes = torch.stack((positive.real, positive.imag), -1).flatten(-2).mT
    basis = torch.block_diag(*planes)
    rope = lierope.MixedRoPE(16, 1, 1, dtype=torch.float64)
    rope.frequencies.copy_(eigenvalues[..., block // 2 :].flatten())
    p = points(1)
    in_basis = basis @ rotation_matrices(liere, p) @ basis.mT
    assert close(in_basis, rotation_matrices(rope, p))


@pytest.mark.parametrize("block", [2, 4, 8])
@torch.no_grad()
def test_liere_that_starts_as_rope_is_mixed_rope(block: int) -> None:
    liere, mixed = made(f"liere:{block},init=rope"), made("mixed")
    assert close(rotation_matrices(liere, points(2)), rotation_matrices(mixed, points(2)), 1e-6)


@pytest.mark.parametrize("ndim", [1, 2, 5])
@pytest.mark.parametrize("block", [2, 3, 5])
@pytest.mark.parametrize("name", ["comrope-ap", "comrope-ld"])
@torch.no_grad()
def test_comrope_is_the_exponential_of_multiples_of_one_matrix(
    name: str, block: int, ndim: int
) -> None:
    torch.manual_seed(0)
    blocks = 7
    encoding = create(f"{name}:{block}", blocks * block, 2, ndim, dtype=torch.float64)
    skew = reference.unpack_skew(encoding.get_parameter("generators")[0])
    if name == "comrope-ap":
        of_axis = nn.functional.one_hot(torch.arange(blocks) % ndim, ndim).mT.double()
        of_axis = of_axis.unsqueeze(1).expand(-1, 2, -1)
    else:
        of_axis = encoding.get_parameter("multipliers")
    p = points(ndim)
    skew = torch.einsum("chg,hgij,mc->hmgij", of_axis, skew, p)
    expected = reference.expm_skew_oracle(skew)
    rotations = rotation_matrices(encoding, p)
    for g in range(blocks):
        inside = slice(g * block, (g + 1) * block)
        assert close(rotations[..., inside, inside], expected[:, :, g], 1e-11)
        rotations[..., inside, inside] = 0
    assert rotations.abs().max() == 0


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("share", ["none", "heads"])
@pytest.mark.parametrize("name", ["comrope-ap:3", "comrope-ap:8", "comrope-ld:3", "comrope-ld:8"])
@torch.no_grad()
def test_comrope_is_rope_in_the_planes_of_its_blocks(name: str, share: str, kv_heads: int) -> None:
    torch.manual_seed(0)
    encoding = create(name, 24, 4, 3, num_kv_heads=kv_heads, share=share, dtype=torch.float64)
    q, k, p = tokens(2, 4, 7, 24), tokens(2, kv_heads, 7, 24, seed=1), points(3)
    basis, rope = encoding.fold_basis(), encoding.folded()
    assert isinstance(rope, lierope.MixedRoPE)
    assert basis is not None
    in_basis = multiply_heads(q, basis), multiply_heads(k, basis)
    assert close(scores(*rope(*in_basis, p, 2)), scores(*encoding(q, k, p, 2)), 1e-10)


@pytest.mark.parametrize("block", [4, 7, 8, 16, 32, 63])
@pytest.mark.parametrize("ndim", [1, 3])
@torch.no_grad()
def test_circulant_is_the_exponential_of_its_generator_and_commutes_with_shifts(
    block: int, ndim: int
) -> None:
    blocks = 2
    encoding = lierope.CirculantSTRING(
        blocks * block, 2, ndim, block_size=block, init="small", dtype=torch.float64
    )
    c, p = encoding.coefficients.normal_(), points(ndim)
    circulant = torch.stack([c.roll(j, -1) for j in range(block)], -1)
    skew = torch.einsum("chgij,mc->hmgij", circulant - circulant.mT, p)
    expected = reference.expm_skew_oracle(skew)
    rotations = rotation_matrices(encoding, p)
    for g in range(blocks):
        inside = slice(g * block, (g + 1) * block)
        assert close(rotations[..., inside, inside], expected[:, :, g], 1e-11)
        assert close(
            rotations[..., inside, inside].roll((1, 1), (-2, -1)),
            rotations[..., inside, inside],
        )
        rotations[..., inside, inside] = 0
    assert rotations.abs().max() == 0


@torch.no_grad()
def test_circulant_starts_with_the_frequencies_of_mixed_rope() -> None:
    torch.manual_seed(3)
    circulant = lierope.CirculantSTRING(18, 4, block_size=9, dtype=torch.float64)
    torch.manual_seed(3)
    mixed = lierope.MixedRoPE(16, 4, dtype=torch.float64)
    assert close(circulant.folded().frequencies, mixed.frequencies)


@pytest.mark.parametrize(
    "name", ["cayley", "cayley:banded=2", "cayley:sparse=0.3", "dense-string", "harope"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_string_at_zero_is_mixed_rope_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    own = torch.float64 if dtype == torch.float64 else torch.float32
    string = create(name, 32, 4, num_kv_heads=2, dtype=own)
    mixed = lierope.MixedRoPE(32, 4, num_kv_heads=2, dtype=own)
    mixed.frequencies.copy_(string.get_parameter("frequencies"))
    q, k, p = tokens(2, 4, 7, 32).to(dtype), tokens(2, 2, 7, 32).to(dtype), points(2).to(own)
    for ours, theirs in zip(string(q, k, p, 2), mixed(q, k, p, 2), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("share", ["none", "heads"])
@pytest.mark.parametrize("rotary_dim", [12, 16])
@torch.no_grad()
def test_harope_scores_are_rope_between_a_matrix_and_its_inverse(
    rotary_dim: int, share: str, kv_heads: int
) -> None:
    torch.manual_seed(0)
    words = {"num_kv_heads": kv_heads, "share": share, "rotary_dim": rotary_dim}
    encoding = create("harope", 16, 4, 2, dtype=torch.float64, **words)
    for parameter in encoding.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    size = encoding.rotary_dim
    u, v = (
        reference.expm_skew(_unpacked(encoding.get_parameter(name), size))
        for name in ("skew_u", "skew_v")
    )
    matrix = torch.eye(16, dtype=torch.float64).repeat(len(u), 1, 1)
    matrix[:, :size, :size] = (
        u @ torch.diag_embed(encoding.get_parameter("log_scales").exp()) @ v.mT
    )
    q, k, p = tokens(2, 4, 7, 16), tokens(2, kv_heads, 7, 16, seed=1), points(2)
    rope = lierope.MixedRoPE(16, 4, dtype=torch.float64, **words)
    rope.frequencies.copy_(encoding.get_parameter("frequencies"))
    expected = rope(multiply_heads(q, matrix), multiply_heads(k, torch.linalg.inv(matrix).mT), p, 2)
    score = scores(*encoding(q, k, p, 2))
    assert close(score, scores(*expected), 1e-11)
    shifted = torch.cat((torch.zeros(2, 2, dtype=torch.float64), p)) + 0.7  # the prefix too
    assert close(scores(*encoding(q, k, shifted)), score, 1e-11)
    same = p[:1].expand(7, -1)
    assert close(scores(*encoding(q, k, same)), scores(q, k), 1e-11)


def _unpacked(upper: Tensor, size: int) -> Tensor:
    """Strict upper triangles row by row -> matrices with nothing below."""
    row, column = torch.triu_indices(size, size, 1)
    matrices = upper.new_zeros(len(upper), size, size)
    matrices[:, row, column] = upper
    return matrices


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("share", ["none", "heads"])
@pytest.mark.parametrize(
    "name", ["cayley", "cayley:banded=3", "circulant", "circulant:4", "circulant:5", "dense-string"]
)
@torch.no_grad()
def test_scores_do_not_see_the_common_basis(name: str, share: str, kv_heads: int) -> None:
    torch.manual_seed(0)
    encoding = create(name, 20, 4, num_kv_heads=kv_heads, share=share, dtype=torch.float64)
    for parameter in encoding.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    q, k, p = tokens(2, 4, 7, 20), tokens(2, kv_heads, 7, 20, seed=1), points(2)
    basis = encoding.basis()
    assert basis is not None
    assert basis.shape == (encoding.parameter_heads, 20, 20)
    assert close(basis @ basis.mT, torch.eye(20, dtype=torch.float64))
    in_basis = encoding.change_basis(q, k)
    whole = scores(*encoding(q, k, p, 2))
    assert close(scores(*encoding.rotate(*in_basis, p, 2)), whole, 1e-11)
    folded = encoding.folded()
    assert isinstance(folded, lierope.MixedRoPE)
    assert close(scores(*folded(*in_basis, p, 2)), whole, 1e-11)


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_prefix_tokens_sit_at_the_origin(name: str) -> None:
    encoding, p = made(name), points(2)
    q, k = tokens(2, 2, 7, 16), tokens(2, 2, 7, 16, seed=1)
    padded = torch.cat((torch.zeros(2, 2, dtype=torch.float64), p))
    for ours, at_origin in zip(encoding(q, k, p, 2), encoding(q, k, padded), strict=True):
        assert close(ours, at_origin)
    if encoding.basis() is None:
        assert torch.equal(encoding(q, k, p, 2)[0][:, :, :2], q[:, :, :2])
    everything = encoding(q, k, p[:0], 7)
    if encoding.basis() is None:
        assert torch.equal(everything[1], k)


@pytest.mark.parametrize("name", [n for n in EVERY if n not in ("none", "absolute", "liere:16")])
@torch.no_grad()
def test_partial_rotation_leaves_the_other_features(name: str) -> None:
    torch.manual_seed(0)
    encoding = create(name, 12, 2, rotary_dim=8, dtype=torch.float64)
    if "skew" in dict(encoding.named_parameters()):
        nn.init.normal_(encoding.get_parameter("skew"), std=0.3)
    q, k, p = tokens(1, 2, 5, 12), tokens(1, 2, 5, 12, seed=1), points(2)
    rotated = encoding(q, k, p)
    assert close(rotated[0][..., 8:], q[..., 8:])
    assert not close(rotated[0][..., :8], q[..., :8], 1e-3)
    in_basis = encoding.rotate(*encoding.change_basis(q, k), p)
    assert close(scores(*in_basis), scores(*rotated))


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_grouped_heads_rotate_as_their_key_head_does(name: str) -> None:
    torch.manual_seed(0)
    grouped = create(name, 16, 4, num_kv_heads=2, dtype=torch.float64)
    q, k, p = tokens(2, 4, 5, 16), tokens(2, 2, 5, 16, seed=1), points(2)
    rotated = grouped(q, k, p)
    single = create(name, 16, 2, dtype=torch.float64)
    single.load_state_dict(grouped.state_dict())
    for member in range(2):
        alone = single(q[:, member::2], k, p)
        assert close(rotated[0][:, member::2], alone[0])
        assert close(rotated[1], alone[1])


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_per_sample_positions_equal_each_sample_alone(name: str) -> None:
    encoding, p = made(name, ndim=3), tokens(3, 5, 3)
    q, k = tokens(3, 2, 6, 16), tokens(3, 2, 6, 16, seed=1)
    together = encoding(q, k, p, 1)
    for i in range(3):
        one = slice(i, i + 1)
        alone = encoding(q[one], k[one], p[i], 1)
        assert close(together[0][one], alone[0])
        assert close(together[1][one], alone[1])
    shared = encoding(q, k, p[0], 1)
    repeated = encoding(q, k, p[:1].expand(3, -1, -1), 1)
    assert close(shared[0], repeated[0])


class _Recall(nn.Module):
    """One causal attention layer that must say which symbol stood three places before."""

    def __init__(self, encoding: lierope.Encoding, symbols: int = 8, width: int = 32) -> None:
        super().__init__()
        self.encoding = encoding
        self.embedding = nn.Embedding(symbols, width)
        self.projection = nn.Linear(width, 3 * width)
        self.readout = nn.Linear(width, symbols)

    def forward(self, symbols: Tensor) -> Tensor:
        batch, length = symbols.shape
        packed = self.projection(self.embedding(symbols))
        q, k, v = packed.view(batch, length, 3, 2, -1).permute(2, 0, 3, 1, 4)
        positions = torch.arange(length, dtype=torch.float32).unsqueeze(-1)
        q, k = self.encoding(q, k, positions)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.readout(y.transpose(1, 2).flatten(2))


def _losses(encoding: lierope.Encoding, steps: int) -> list[float]:
    torch.manual_seed(1)
    model = _Recall(encoding)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        symbols = torch.randint(8, (32, 24))
        guess = model(symbols)[:, 3:].flatten(0, 1)
        loss = nn.functional.cross_entropy(guess, symbols[:, :-3].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_cayley_with_identity_basis_trains_exactly_as_rope_on_a_sequence_task() -> None:
    """The STRING paper's first experiment: with P = I, every loss of training is the same bit."""
    rope = lierope.MixedRoPE(16, 2, ndim=1, theta=100.0)
    cayley = lierope.CayleySTRING(16, 2, ndim=1, theta=100.0)
    assert torch.equal(rope.frequencies, cayley.frequencies)
    cayley.skew.requires_grad_(False)
    ours, theirs = _losses(cayley, 60), _losses(rope, 60)
    assert ours == theirs
    assert ours[-1] < 0.5 * ours[0]
