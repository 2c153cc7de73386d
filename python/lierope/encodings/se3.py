"""SE3Pose: attention between tokens that have poses, in scores no common rigid motion changes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lierope import ops
from lierope.choice import check_choice
from lierope.encodings.arguments import check_forward, check_positive, readable
from lierope.encodings.base import Encoding

_ENTRIES = 12  # of [R | t], row by row
_RIGID = 1e-3  # largest entry of |R R^T - I|: poses in float32 that were multiplied many times
_COMMUTING = ("axial", "mixed", "cayley", "circulant", "dense-string", "comrope-ap", "comrope-ld")


def pose_positions(rotation: Tensor, translation: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3), translations (..., 3) -> positions (..., 12) for `SE3Pose`.

    A position is [R | t] row by row, so that it stands wherever positions (..., C) do.

    Raises:
        ValueError: Another shape.

    Example:
        >>> lierope.pose_positions(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1., 0., 0., 1., 0., 1., 0., 2., 0., 0., 1., 3.])
    """
    fits = rotation.shape[-2:] == (3, 3) and translation.shape[-1:] == (3,)
    if not fits or rotation.dim() != translation.dim() + 1:
        raise ValueError(
            "pose_positions: rotation and translation must have shapes (..., 3, 3) and (..., 3), "
            f"got {tuple(rotation.shape)} and {tuple(translation.shape)}"
        )
    lead = torch.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])
    columns = rotation.expand(*lead, 3, 3), translation.expand(*lead, 3).unsqueeze(-1)
    return torch.cat(columns, -1).flatten(-2)


class SE3Pose(Encoding):
    """Tokens with camera or robot poses g in SE(3): scores see only how they stand to each other.

    q_i -> rho(g_i)^T q_i and k_j -> rho(g_j)^-1 k_j in every block of 4 features, with
    rho(g) = [[R, t / length], [0, 1]], so that a score is q_i^T rho(g_i g_j^-1) k_j. SE(3) does
    not commute and this is exact all the same, because rho is a representation; it is not
    orthogonal, which is why q and k are treated differently (GTA, arXiv 2310.10375; PRoPE, arXiv
    2507.10496). A rigid motion h of the world, g -> g h^-1 for all tokens, changes no score.
    Nothing is learned: W_q and W_k choose what each block carries.

    The attention weights are then invariant; v is left as it is, and so is the output. To bring
    values into the frame of the token that reads them too, call `values_to_world` on v before and
    `values_from_world` on the output after attention: y_i = sum_j a_ij rho(g_i g_j^-1) v_j.

    Positions are poses, (M, 4, 4) or (M, 3, 4), or for each sample (B, M, 4, 4), or the same with
    [R | t] flat, (M, 12) or (B, M, 12), as `pose_positions` makes them from R and t.

    Args:
        ndim: 12, the entries of [R | t].
        convention: "from_world", g takes coordinates of the world into the token's own (a camera's
            extrinsic or view matrix); "to_world", the inverse of g is given (a robot's pose, a
            camera-to-world matrix).
        length: unit that t is divided by; choose it such that t / length is about 1, for float32
            loses |t / length| 1e-7 of a score.
        prefix: what prefix tokens, which have no pose, do with the features of poses. "invariant":
            they have zeros there, so that they score by the other features alone, and there must
            be such features (rotary_dim below head_dim). "origin": they stand at the world's
            origin as in other encodings, and their scores change when the world moves.
        translation: a short name with options, such as "mixed", "cayley", "circulant:16", of an
            exactly relative encoding, for features that turn with the tokens' places in the world
            (length as the unit). Those scores stay the same when the world is shifted but not when
            it is turned. None for none.
        translation_dim: how many features turn with places, the last of rotary_dim; half of them
            when None.

    Other arguments and errors: see `Encoding`. ValueError also where the features left for poses
    are not a multiple of 4, for matrices that are not rigid motions (seen on the CPU in eager mode
    only), and for prefix tokens without features of their own.

    Example:
        >>> encoding = lierope.SE3Pose(head_dim=64, num_heads=3)
        >>> q, k = torch.randn(2, 2, 3, 5, 64).unbind()
        >>> turns = lierope.ops.expm_skew(torch.randn(5, 3, 3))
        >>> q, k = encoding(q, k, lierope.pose_positions(turns, torch.randn(5, 3)))
    """

    short_name = "se3"
    translation: Encoding | None

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        ndim: int = _ENTRIES,
        *,
        convention: str = "from_world",
        length: float = 1.0,
        prefix: str = "invariant",
        translation: str | None = None,
        translation_dim: int | None = None,
        num_kv_heads: int | None = None,
        share: str = "none",
        rotary_dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            head_dim,
            num_heads,
            ndim,
            num_kv_heads=num_kv_heads,
            share=share,
            rotary_dim=rotary_dim,
            device=device,
            dtype=dtype,
        )
        owner = "SE3Pose"
        if ndim != _ENTRIES:
            raise ValueError(
                f"{owner}: ndim must be {_ENTRIES}, the entries of [R | t], got {ndim}"
            )
        check_positive(owner, "length", length)
        self.length = length
        self.convention = check_choice(owner, "convention", convention, ("from_world", "to_world"))
        self.prefix = check_choice(owner, "prefix", prefix, ("invariant", "origin"))
        self.pose_dim = self.rotary_dim - self._translation_features(translation, translation_dim)
        if self.pose_dim < 4 or self.pose_dim % 4:
            raise ValueError(
                f"{owner}: features for poses must be a positive multiple of 4, got {self.pose_dim}"
            )
        self.translation = None if translation is None else self._of_places(translation)

    def reset_parameters(self) -> None:
        """Draws those of the encoding of translations, if there is one."""
        if self.translation is not None:
            self.translation.reset_parameters()

    def forward(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """As `Encoding.forward`, with poses in any of their shapes for positions."""
        flat = _flat(positions)
        check_forward(self, q, k, flat, num_prefix_tokens)
        if readable(positions):
            _check_rigid(positions, flat)
        q, k = self.change_basis(q, k)
        return self.rotate(q, k, flat, num_prefix_tokens)

    def rotate(
        self, q: Tensor, k: Tensor, positions: Tensor, num_prefix_tokens: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Multiplies blocks of q and k by their matrices, and turns the features of places."""
        self._check_prefix(num_prefix_tokens)
        into, back = self._matrices(positions)
        poses = (
            self._multiply(q, into.mT, num_prefix_tokens),
            self._multiply(k, back, num_prefix_tokens),
        )
        if self.translation is None:
            return poses
        inside = slice(self.pose_dim, self.rotary_dim)
        places = back[..., :3, 3]  # of the tokens' own origins, in the world
        turned = self.translation.rotate(q[..., inside], k[..., inside], places, num_prefix_tokens)
        q, k = (self._join(*both, num_prefix_tokens) for both in zip(poses, turned, strict=True))
        return q, k

    def values_to_world(self, v: Tensor, positions: Tensor, num_prefix_tokens: int = 0) -> Tensor:
        """v_j -> rho(g_j)^-1 v_j, (B, H, N, D) for any H: values in the world's coordinates.

        Only the first `pose_dim` features; poses in any of their shapes.
        """
        self._check_prefix(num_prefix_tokens)
        return self._multiply(v, self._matrices(positions)[1], num_prefix_tokens)

    def values_from_world(self, y: Tensor, positions: Tensor, num_prefix_tokens: int = 0) -> Tensor:
        """y_i -> rho(g_i) y_i, (B, H, N, D) for any H: what was gathered, as each token sees it."""
        self._check_prefix(num_prefix_tokens)
        return self._multiply(y, self._matrices(positions)[0], num_prefix_tokens)

    def basis(self) -> Tensor | None:
        """That of the encoding of translations on its features, (H', D, D)."""
        return None if self.translation is None else self._embedded(self.translation.basis())

    def fold_basis(self) -> Tensor | None:
        """As `basis`, with what may be folded besides."""
        basis = None if self.translation is None else self.translation.fold_basis()
        assert not isinstance(basis, tuple)  # of encodings that a translation may have
        return self._embedded(basis)

    def folded(self) -> Encoding:
        """The same poses, with translations folded."""
        if self.translation is None:
            return super().folded()
        twin = copy.deepcopy(self)
        twin.translation = self.translation.folded()
        return twin

    def no_weight_decay(self) -> set[str]:
        """The parameters of the encoding of translations."""
        own = set() if self.translation is None else self.translation.no_weight_decay()
        return {f"translation.{name}" for name in own}

    def extra_repr(self) -> str:
        """Adds convention, unit and what prefix tokens do."""
        return (
            f"{super().extra_repr()}, convention={self.convention!r}, length={self.length}, "
            f"prefix={self.prefix!r}, pose_dim={self.pose_dim}"
        )

    def _translation_features(self, name: str | None, size: int | None) -> int:
        if name is None and size is not None:
            raise ValueError(
                f"SE3Pose: translation_dim must be left out without translation, got {size}"
            )
        if name is None:
            return 0
        return self.rotary_dim // 8 * 4 if size is None else size

    def _of_places(self, name: str) -> Encoding:
        from lierope.encodings.registry import create  # noqa: PLC0415

        check_choice("SE3Pose", "translation", name.partition(":")[0], _COMMUTING)
        return create(
            name,
            self.rotary_dim - self.pose_dim,
            self.num_heads,
            3,
            num_kv_heads=self.num_kv_heads,
            share=self.share,
            **self._factory,
        )

    def _check_prefix(self, num_prefix_tokens: int) -> None:
        if num_prefix_tokens and self.prefix == "invariant" and self.rotary_dim == self.head_dim:
            raise ValueError(
                "SE3Pose: rotary_dim must be below head_dim where prefix tokens are to score "
                f"without a pose (or prefix='origin'), got {self.rotary_dim} and "
                f"{num_prefix_tokens} prefix tokens"
            )

    def _matrices(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Of g, which leads out of the world: rho(g) and its inverse, (..., M, 4, 4)."""
        given = _flat(positions).unflatten(-1, (3, 4))
        rotation, translation = given[..., :3], given[..., 3:] / self.length
        # sums of products, not a matrix product: autocast leaves these in full precision
        back = -(rotation * translation).sum(-2).unsqueeze(-1)
        there = _homogeneous(rotation, translation), _homogeneous(rotation.mT, back)
        return there if self.convention == "from_world" else (there[1], there[0])

    def _multiply(self, x: Tensor, matrices: Tensor, num_prefix_tokens: int) -> Tensor:
        if self.prefix == "invariant" and num_prefix_tokens:
            matrices = torch.nn.functional.pad(matrices, (0, 0, 0, 0, num_prefix_tokens, 0))
            num_prefix_tokens = 0
        blocks = self.pose_dim // 4
        each = matrices.unsqueeze(-3).expand(*matrices.shape[:-2], blocks, 4, 4).unsqueeze(-5)
        return ops.rotate_blocks(x, x[:, :0], each, num_prefix_tokens=num_prefix_tokens)[0]

    def _join(self, poses: Tensor, turned: Tensor, num_prefix_tokens: int) -> Tensor:
        if self.prefix == "invariant" and num_prefix_tokens:
            still = torch.zeros_like(turned[:, :, :num_prefix_tokens])
            turned = torch.cat((still, turned[:, :, num_prefix_tokens:]), 2)
        parts = poses[..., : self.pose_dim], turned, poses[..., self.rotary_dim :]
        return torch.cat(parts, -1)

    def _embedded(self, basis: Tensor | None) -> Tensor | None:
        if basis is None:
            return None
        around = (self.pose_dim, self.head_dim - self.rotary_dim) * 2
        eye = torch.eye(self.head_dim, dtype=basis.dtype, device=basis.device)
        inside = torch.eye(basis.shape[-1], dtype=basis.dtype, device=basis.device)
        pad = torch.nn.functional.pad
        return pad(basis, around) + eye - pad(inside, around)


def _flat(poses: Tensor) -> Tensor:
    """(..., 4, 4) or (..., 3, 4) -> (..., 12); what is flat already stays."""
    if poses.dim() >= 3 and tuple(poses.shape[-2:]) in ((4, 4), (3, 4)):
        return poses[..., :3, :].flatten(-2)
    return poses


def _homogeneous(rotation: Tensor, translation: Tensor) -> Tensor:
    """[[R, t], [0, 1]] of R (..., 3, 3) and t (..., 3, 1)."""
    corner = torch.nn.functional.pad(rotation.new_ones(1, 1), (3, 0, 3, 0))
    top = torch.cat((rotation, translation), -1)
    return torch.nn.functional.pad(top, (0, 0, 0, 1)) + corner


def _check_rigid(poses: Tensor, flat: Tensor) -> None:
    rotation = flat.detach().unflatten(-1, (3, 4))[..., :3].double()
    identity = torch.eye(3, dtype=torch.float64)
    error = (rotation @ rotation.mT - identity).abs().amax().item() if rotation.numel() else 0.0
    if error > _RIGID:
        raise ValueError(
            "SE3Pose: positions must be rigid motions [R | t] with R orthogonal, "
            f"got |R R^T - I| = {error:.2g}"
        )
    if poses is not flat and poses.shape[-2] == 4:
        last = poses.detach()[..., 3, :]
        expected = last.new_tensor([0.0, 0.0, 0.0, 1.0])
        if not torch.equal(last, expected.expand_as(last)):
            worst = last.reshape(-1, 4)[(last != expected).reshape(-1, 4).any(-1)][0].tolist()
            raise ValueError(
                f"SE3Pose: positions must have the last row (0, 0, 0, 1), got {tuple(worst)}"
            )
