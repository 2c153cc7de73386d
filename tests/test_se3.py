"""SE3Pose: scores and outputs that a common rigid motion leaves alone, its options and errors."""

import math

import pytest
import torch
from torch import Tensor, nn

import lierope
from lierope import reference
from lierope.encodings import create

WORLD = {"from_world": -1, "to_world": 1}
Words = dict[str, object]


def motions(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    """Random rigid motions (..., 4, 4) in float64, translations N(0, size^2)."""
    generator = torch.Generator().manual_seed(seed)
    frames, _ = torch.linalg.qr(torch.randn(*shape, 3, 3, dtype=torch.float64, generator=generator))
    frames = frames * torch.linalg.det(frames)[..., None, None]
    poses = torch.eye(4, dtype=torch.float64).repeat(*shape, 1, 1)
    poses[..., :3, :3] = frames
    translation = torch.randn(*shape, 3, dtype=torch.float64, generator=generator)
    poses[..., :3, 3] = size * translation
    return poses


def moved(poses: Tensor, motion: Tensor, convention: str) -> Tensor:
    """The poses after the world's motion h: g h^-1 for g from the world, h g for g to it."""
    return motion @ poses if convention == "to_world" else poses @ torch.linalg.inv(motion)


def tokens(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def weights(q: Tensor, k: Tensor) -> Tensor:
    """Scores over sqrt(D), before the softmax."""
    return q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT / math.sqrt(q.shape[-1])


@pytest.mark.parametrize("words", [{}, {"rotary_dim": 12}], ids=str)
@pytest.mark.parametrize("convention", WORLD)
@torch.no_grad()
def test_it_is_the_representation_and_its_inverse(convention: str, words: Words) -> None:
    encoding = lierope.SE3Pose(16, 4, convention=convention, num_kv_heads=2, length=2.0, **words)
    q, k, poses = tokens(2, 4, 5, 16), tokens(2, 2, 5, 16, seed=1), motions(2, 5)
    group = poses.clone()
    group[..., :3, 3] /= 2
    if convention == "to_world":
        group = torch.linalg.inv(group)
    size = encoding.rotary_dim
    expected = reference.rotate_poses(q[..., :size], k[..., :size], group)
    for ours, theirs, before in zip(encoding(q, k, poses), expected, (q, k), strict=True):
        torch.testing.assert_close(ours[..., :size], theirs, rtol=1e-12, atol=1e-12)
        assert torch.equal(ours[..., size:], before[..., size:])


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("convention", WORLD)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@torch.no_grad()
def test_scores_do_not_see_a_rigid_motion_of_the_world(
    dtype: torch.dtype, bound: float, convention: str, per_sample: bool, kv_heads: int
) -> None:
    words = {"rotary_dim": 24, "num_kv_heads": kv_heads}
    encoding = lierope.SE3Pose(32, 4, convention=convention, dtype=dtype, **words)
    q, k = tokens(2, 4, 9, 32).to(dtype), tokens(2, kv_heads, 9, 32, seed=1).to(dtype)
    lead = (2,) if per_sample else ()
    poses, motion = motions(*lead, 7), motions(*lead, 1, seed=9)
    both = [
        weights(*encoding(q, k, p.to(dtype), 2)) for p in (poses, moved(poses, motion, convention))
    ]
    assert (both[0] - both[1]).abs().max() < bound
    others = weights(*encoding(q, k, motions(*lead, 7, seed=5).to(dtype), 2))
    assert (both[0] - others).abs().max() > 0.1  # other relative poses do change them


@torch.no_grad()
def test_prefix_tokens_score_by_the_features_without_a_pose() -> None:
    encoding = lierope.SE3Pose(16, 1, rotary_dim=8, dtype=torch.float64)
    q, k, poses = tokens(1, 1, 5, 16), tokens(1, 1, 5, 16, seed=1), motions(3)
    turned = encoding(q, k, poses, 2)
    free = weights(q[..., 8:], k[..., 8:]) * math.sqrt(8 / 16)
    score = weights(*turned)
    torch.testing.assert_close(score[:, :, :2], free[:, :, :2])
    torch.testing.assert_close(score[:, :, :, :2], free[:, :, :, :2])
    at_origin = lierope.SE3Pose(16, 1, prefix="origin", dtype=torch.float64)
    padded = torch.cat((torch.eye(4, dtype=torch.float64).expand(2, 4, 4), poses))
    for ours, theirs in zip(at_origin(q, k, poses, 2), at_origin(q, k, padded), strict=True):
        torch.testing.assert_close(ours, theirs)
    motion = motions(1, seed=9)
    both = [weights(*at_origin(q, k, p, 2)) for p in (poses, moved(poses, motion, "from_world"))]
    assert (both[0] - both[1])[:, :, 2:, 2:].abs().max() < 1e-13
    assert (both[0] - both[1]).abs().max() > 0.1


@pytest.mark.parametrize("name", ["mixed", "axial", "cayley", "circulant", "comrope-ld:4"])
@pytest.mark.parametrize("convention", WORLD)
@torch.no_grad()
def test_features_of_places_see_turns_of_the_world_but_no_shifts(
    convention: str, name: str
) -> None:
    torch.manual_seed(0)
    words = {"translation": name, "rotary_dim": 24, "convention": convention}
    encoding = lierope.SE3Pose(32, 2, dtype=torch.float64, **words)
    for parameter in encoding.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    assert encoding.pose_dim == 12
    q, k, poses = tokens(2, 2, 7, 32), tokens(2, 2, 7, 32, seed=1), motions(2, 5)
    motion = motions(1, seed=9)
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = motion[0, :3, 3]
    here, shifted, turned = (
        encoding(q, k, p, 2)
        for p in (poses, moved(poses, shift, convention), moved(poses, motion, convention))
    )
    difference = (weights(*here) - weights(*shifted)).abs().max()
    assert difference < 1e-12
    inside = slice(12, 24)
    only = [weights(a[..., inside], b[..., inside]) for a, b in (here, shifted, turned)]
    assert (only[0] - only[1]).abs().max() < 1e-12
    assert (only[0] - only[2]).abs().max() > 0.1
    outside = [weights(a[..., :12], b[..., :12]) for a, b in (here, turned)]
    assert (outside[0] - outside[1]).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["cayley", "circulant", "comrope-ap:4"])
@torch.no_grad()
def test_the_basis_of_places_folds(name: str) -> None:
    torch.manual_seed(0)
    encoding = lierope.SE3Pose(40, 2, translation=name, rotary_dim=32, dtype=torch.float64)
    for parameter in encoding.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    q, k, poses = tokens(2, 2, 7, 40), tokens(2, 2, 7, 40, seed=1), motions(2, 5)
    whole = weights(*encoding(q, k, poses, 2))
    basis, folded = encoding.fold_basis(), encoding.folded()
    assert basis is not None
    torch.testing.assert_close(
        basis @ basis.mT, torch.eye(40, dtype=torch.float64).expand_as(basis)
    )
    assert isinstance(folded, lierope.SE3Pose)
    assert isinstance(folded.translation, lierope.MixedRoPE)
    q, k = q @ basis.mT, k @ basis.mT
    torch.testing.assert_close(weights(*folded(q, k, poses, 2)), whole, rtol=1e-10, atol=1e-10)
    assert encoding.no_weight_decay() == {
        f"translation.{key}" for key, _ in encoding.translation.named_parameters()
    }


@pytest.mark.parametrize("convention", WORLD)
@torch.no_grad()
def test_values_arrive_in_the_frame_of_the_token_that_reads_them(convention: str) -> None:
    encoding = lierope.SE3Pose(16, 4, convention=convention, rotary_dim=12, num_kv_heads=2)
    v, poses, motion = tokens(2, 2, 7, 16), motions(2, 5), motions(1, seed=9)
    attention = tokens(2, 2, 7, 7, seed=2).softmax(-1)

    def gathered(poses: Tensor) -> Tensor:
        return encoding.values_from_world(
            attention @ encoding.values_to_world(v, poses, 2), poses, 2
        )

    torch.testing.assert_close(gathered(poses), gathered(moved(poses, motion, convention)))
    group = torch.linalg.inv(poses) if convention == "to_world" else poses
    between = group.unsqueeze(2) @ torch.linalg.inv(group).unsqueeze(1)
    blocks = v[:, :, 2:, :12].unflatten(-1, (3, 4))
    expected = torch.einsum("bhij,bijxy,bhjgy->bhigx", attention[:, :, 2:, 2:], between, blocks)
    torch.testing.assert_close(gathered(poses)[:, :, 2:, :12], expected.flatten(-2))
    torch.testing.assert_close(gathered(poses)[..., 12:], (attention @ v)[..., 12:])


@torch.no_grad()
def test_poses_in_every_shape_are_the_same() -> None:
    encoding = lierope.SE3Pose(16, 2, dtype=torch.float64)
    q, k, poses = tokens(2, 2, 5, 16), tokens(2, 2, 5, 16, seed=1), motions(2, 5)
    rotation, translation = poses[..., :3, :3], poses[..., :3, 3]
    flat = lierope.pose_positions(rotation, translation)
    assert flat.shape == (2, 5, 12)
    expected = encoding(q, k, poses)
    for same in (poses[..., :3, :], flat):
        assert all(torch.equal(a, b) for a, b in zip(encoding(q, k, same), expected, strict=True))
    one = lierope.pose_positions(rotation[:, :1], translation)  # a camera that only moves
    assert torch.equal(one[:, 4].unflatten(-1, (3, 4))[..., :3], rotation[:, 0])


def test_gradients_reach_poses_tokens_and_parameters() -> None:
    torch.manual_seed(0)
    encoding = lierope.SE3Pose(
        12, 2, rotary_dim=10, translation="mixed", translation_dim=6, dtype=torch.float64
    )
    poses = motions(3)[:, :3].flatten(-2).requires_grad_()
    q, k = tokens(1, 2, 4, 12).requires_grad_(), tokens(1, 2, 4, 12, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: tuple(encoding(*x, 1)), (q, k, poses))
    sum(x.pow(3).sum() for x in encoding(q, k, poses, 1)).backward()
    assert encoding.get_parameter("translation.frequencies").grad.abs().max() > 0


def test_half_types_autocast_transforms_and_compilation() -> None:
    torch.manual_seed(0)
    encoding = lierope.SE3Pose(16, 2, rotary_dim=12, translation="cayley", translation_dim=4)
    q, k = tokens(3, 2, 5, 16).float(), tokens(3, 2, 5, 16, seed=1).float()
    poses = motions(3, 4).float()
    plain = encoding(q, k, poses, 1)
    half = encoding.bfloat16()(q.bfloat16(), k.bfloat16(), poses, 1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = encoding(q.bfloat16(), k.bfloat16(), poses, 1)
    compiled = torch.compile(encoding, fullgraph=True, backend="aot_eager")(q, k, poses, 1)
    mapped = torch.func.vmap(lambda q, k, p: encoding(q[None], k[None], p, 1))(q, k, poses)
    for number, expected in enumerate(plain):
        assert half[number].dtype == torch.bfloat16
        assert (half[number].float() - expected).abs().max() < 0.03 * expected.abs().max()
        assert torch.equal(half[number], inside[number])
        torch.testing.assert_close(compiled[number], expected)
        torch.testing.assert_close(mapped[number][:, 0], expected)


def test_a_model_that_is_given_poses() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True).eval()
    where = lierope.Coordinates(ndim=12)
    lierope.swap(model, "se3", coordinates=where, rotary_dim=8, num_prefix_tokens=1)
    x, poses, motion = tokens(2, 6, 24).float(), motions(2, 5), motions(1, seed=9)
    outputs = []
    for given in (poses, moved(poses, motion, "from_world"), motions(2, 5, seed=3)):
        where.set(given[..., :3, :].flatten(-2).float())
        outputs.append(model(x))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)
    assert (outputs[0] - outputs[2]).abs().max() > 1e-3


def test_a_model_that_is_given_poses_folds_what_its_places_learned() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True).eval()
    where = lierope.Coordinates(ndim=12)
    lierope.swap(model, "se3", coordinates=where, translation="cayley", translation_dim=4)
    (encoding,) = lierope.encodings_of(model).values()
    nn.init.normal_(encoding.get_parameter("translation.skew"))
    where.set(motions(2, 5)[..., :3, :].flatten(-2).float())
    x = tokens(2, 5, 24).float()
    before = model(x)
    lierope.fold(model)
    (folded,) = lierope.encodings_of(model).values()
    assert isinstance(folded.get_submodule("translation"), lierope.MixedRoPE)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_meta_device_and_empty_batches() -> None:
    encoding = lierope.SE3Pose(16, 2, translation="cayley", device="meta")
    assert all(p.is_meta for p in encoding.parameters())
    encoding = encoding.to_empty(device="cpu")
    encoding.reset_parameters()
    q = torch.randn(2, 2, 4, 16)
    assert torch.isfinite(encoding(q, q, motions(4).float())[0]).all()
    assert encoding(q[:0], q[:0], motions(4).float())[0].shape == (0, 2, 4, 16)
    assert encoding(q[:, :, :0], q[:, :, :0], motions(0).float())[0].shape == (2, 2, 0, 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ndim": 2}, r"^SE3Pose: ndim must be 12, the entries of \[R \| t\], got 2$"),
        ({"convention": "world"}, "^SE3Pose: convention must be one of from_world, to_world, got"),
        ({"length": 0.0}, "^SE3Pose: length must be a positive number, got 0.0$"),
        ({"prefix": "none"}, "^SE3Pose: prefix must be one of invariant, origin, got 'none'"),
        ({"rotary_dim": 6}, "^SE3Pose: features for poses must be a positive multiple of 4, got 6"),
        ({"translation_dim": 4}, "^SE3Pose: translation_dim must be left out without translation"),
        ({"translation": "liere"}, "^SE3Pose: translation must be one of axial, mixed, .* got 'li"),
        ({"translation": "mixed", "translation_dim": 16}, "features for poses must be .* got 0$"),
    ],
)
def test_bad_construction(words: Words, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lierope.SE3Pose(16, 2, **words)  # type: ignore[arg-type]


def test_bad_poses() -> None:
    encoding = create("se3", 16, 2, 12)
    q, poses = torch.randn(2, 2, 4, 16), motions(4).float()
    bent, low = poses.clone(), poses.clone()
    bent[2, 0, 0] += 1.0
    low[1, 3, 0] = 2.0
    for given, prefix, message in (
        (bent, 0, r"^SE3Pose: positions must be rigid motions .* got \|R R\^T - I\| = "),
        (2 * poses, 0, "^SE3Pose: positions must be rigid motions"),
        (low, 0, r"^SE3Pose: positions must have the last row \(0, 0, 0, 1\), got \(2.0, 0.0, 0"),
        (poses[:3], 0, r"^SE3Pose: positions must have shape \(4, 12\) or \(2, 4, 12\)"),
        (poses[:, :3, :3], 0, r"^SE3Pose: positions must have shape .* got \(4, 3, 3\)$"),
        (poses[1:], 1, "^SE3Pose: rotary_dim must be below head_dim where prefix tokens are to"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            encoding(q, q, given, prefix)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^SE3Pose: rotary_dim must be below head_dim"):
        encoding.values_to_world(q, poses[1:], 1)
    with pytest.raises(ValueError, match="folded must be called on an encoding with a basis"):
        encoding.folded()
    with pytest.raises(ValueError, match=r"^pose_positions: rotation and translation must have"):
        lierope.pose_positions(poses, poses[..., :3, 3])
