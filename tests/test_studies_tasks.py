"""The studies' tasks: labels are right, only what is asked tells them, bad files are named."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("lierope.timm", exc_type=ImportError)

from benchmarks.studies import frequencies, highdim, pointcloud, video
from benchmarks.studies.random_orthogonal import RandomRotations
from benchmarks.studies.resolution import WAYS, OtherPositions
from benchmarks.studies.shuffle import shuffled
from benchmarks.studies.tasks import (
    clouds,
    grammar,
    moving_digits,
    places,
    shapes,
    table_scenes,
    text_folders,
    views,
)

import lierope
from lierope.encodings import create
from lierope.swap.grid import GridPositions
from lierope.train.errors import InputError


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Sequences.


@pytest.mark.parametrize("task", ["absolute", "relative"])
def test_the_label_is_the_mark_at_its_place(task: str) -> None:
    tokens, labels = places.draw(task, 500, 24, random())
    rows = torch.arange(500)
    key = (tokens == places.KEY).nonzero()[:, 1]
    answer = key + places.DISTANCE if task == "relative" else torch.full((500,), places.PLACE)
    assert torch.equal(tokens[rows, answer], labels)
    assert torch.equal((tokens == places.KEY).sum(1), torch.ones(500, dtype=torch.long))
    assert torch.equal((tokens < places.MARKS).sum(1), torch.full((500,), 7))


def test_the_ceiling_without_places_is_what_the_commonest_mark_gives() -> None:
    tokens, labels = places.draw("absolute", 20_000, 24, random())
    counts = torch.stack([(tokens == mark).sum(1) for mark in range(places.MARKS)], 1)
    noise = 1e-3 * torch.rand(counts.shape, generator=random(1))  # ties are broken by chance
    guessed = (counts + noise).argmax(1)
    share = float((guessed == labels).double().mean())
    assert share == pytest.approx(places.ceiling(), abs=3 * 0.5 / 20_000**0.5)


def test_grammar_closes_brackets_agrees_and_repeats_names() -> None:
    text = grammar.text(20_000, "test")
    assert len(text) == 20_000
    assert text == grammar.text(20_000, "test") != grammar.text(20_000, "other")
    for line in text.splitlines()[:-1]:
        name, rest = line.split(": ", 1)
        assert rest.endswith(f"said {name}.")
        open_: list[str] = []
        for character in rest:
            if character in "([{":
                open_.append({"(": ")", "[": "]", "{": "}"}[character])
            elif character in ")]}":
                assert open_.pop() == character
        assert open_ == []
        words = rest.split()
        plural = words[1].endswith("s")
        verb = words[words.index("the", 2) - 1]
        assert verb.endswith("s") != plural


def test_texts_on_disk_are_split_and_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.txt").write_text(f"{name}{number}")
    names, train, held, test = text_folders.load(str(tmp_path), 5)
    assert names == ["a", "b"]
    assert [len(part.labels) for part in (train, held, test)] == [16, 2, 2]
    rows = torch.cat([part.tokens for part in (train, held, test)])
    assert len({tuple(row) for row in rows.tolist()}) == 20
    labels = torch.cat([part.labels for part in (train, held, test)])
    assert torch.equal(rows[:, 0], ord("a") + labels)


# Images.


def test_moving_digits_move_their_way() -> None:
    digits = torch.rand(8, 8, 8, generator=random()) + 0.1
    numbers = torch.arange(8)
    clips, labels = moving_digits.draw(digits, numbers, random())
    assert torch.equal(labels // 4, numbers)
    lit = clips > clips.amin()
    frames, rows, columns = (torch.arange(n).double() for n in clips.shape[1:])
    middle = torch.stack([
        (lit.double() * at.view(shape)).sum((2, 3)) / lit.sum((2, 3))
        for at, shape in ((rows, (-1, 1)), (columns, (1, -1)))
    ], -1)  # fmt: skip
    way = torch.tensor(moving_digits.WAYS)[labels % 4].double()
    assert torch.allclose(middle.diff(dim=1), way[:, None].expand(-1, len(frames) - 1, -1))
    again = moving_digits.shuffled_frames(clips)
    assert torch.allclose(again.sum(1), clips.sum(1), atol=1e-5)
    assert not torch.equal(again, clips)


def test_shuffled_patches_are_the_same_patches() -> None:
    images = torch.rand(3, 2, 8, 12, generator=random())
    other = shuffled(images, 4, random())
    for image, moved in zip(images, other, strict=True):
        before, after = (
            Counter(tuple(patch.flatten().tolist()) for patch in
                    x.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 0, 3, 4).flatten(0, 1))
            for x in (image, moved)
        )  # fmt: skip
        assert before == after
    assert not torch.equal(images, other)


def test_scenes_of_shapes_light_their_objects() -> None:
    patches, centres, kinds = shapes.draw(300, 6, random())
    index = (centres * 6).round().long()
    cell = index[..., 0] * 6 + index[..., 1]
    for slot in range(shapes.MOST):
        there = (kinds[:, slot] != shapes.NOTHING).nonzero()[:, 0]
        own = patches[there, cell[there, slot], kinds[there, slot]]
        beside = patches[there, cell[there, slot] + 1, shapes.KINDS + kinds[there, slot]]
        assert own.mean() == pytest.approx(2, abs=0.1)
        assert beside.mean() == pytest.approx(2, abs=0.1)
    shown = kinds != shapes.NOTHING
    assert shown[:, 0].all()
    assert all(len(set(c[s].tolist())) == int(s.sum()) for c, s in zip(cell, shown, strict=True))


def _scene(way: int, middle: tuple[float, float]) -> table_scenes.Objects:
    """Ball and box 7 apart, at the same middle of the image."""
    apart = 7.0 * table_scenes.WAYS[way].double()
    centre = torch.tensor([middle[0], middle[1] / 0.5**0.5 - 8, 8.0], dtype=torch.double)
    centres = torch.stack((centre - apart / 2, centre + apart / 2))[None].float()
    colours = torch.tensor([[[0.9, 0.2, 0.2], [0.2, 0.3, 0.9]]])
    return table_scenes.Objects(centres, colours, torch.tensor([[True, False]]))


@pytest.mark.parametrize(("back", "up"), [(2, 4), (3, 5)])
def test_back_and_up_look_alike_and_are_not_equally_far(back: int, up: int) -> None:
    light = torch.ones(1, 1, 1)
    one, other = (table_scenes.render(_scene(way, (1.0, -2.0)), light) for way in (back, up))
    assert torch.allclose(one[0], other[0], atol=1e-5)
    assert torch.allclose(one[2], other[2], atol=1e-5)
    assert (one[1] - other[1]).abs().max() > 3


def test_a_camera_farther_away_changes_depths_alone() -> None:
    near, far = (table_scenes.draw(8, random(), camera=c, noise=0.0) for c in (0.0, 10.0))
    assert torch.equal(near.images, far.images)
    assert torch.equal(near.labels, far.labels)
    assert torch.allclose(far.depths - near.depths, torch.tensor(10.0), atol=1e-4)
    assert torch.allclose(near.normals.norm(dim=1), torch.tensor(1.0), atol=1e-5)
    assert float(near.depths.min()) > 0


def test_the_box_stands_the_labels_way_from_the_ball() -> None:
    labels = torch.arange(6).repeat(50)
    objects = table_scenes.place(labels, 2, random())
    apart = objects.centres[:, 1] - objects.centres[:, 0]
    assert torch.equal((apart @ table_scenes.WAYS.float().T).argmax(1), labels)


# Clouds, cameras and molecules.


def test_patches_of_a_cloud_are_its_nearest_points() -> None:
    cloud = clouds.draw(torch.arange(len(clouds.CLASSES)), 64, random())
    assert torch.allclose(cloud.norm(dim=2).amax(1), torch.ones(len(cloud)), atol=1e-5)
    assert cloud.mean(1).abs().max() < 1e-5
    centres, offsets = clouds.patches(cloud, 8, 5)
    assert len({tuple(row) for row in centres[3].tolist()}) == 8
    assert torch.equal(offsets[:, :, 0], torch.zeros_like(centres))
    distances = torch.cdist(centres, cloud).sort(dim=-1).values[..., :5]
    assert torch.allclose(offsets.norm(dim=-1), distances, atol=1e-3)


def test_a_moved_cloud_has_the_same_patches_elsewhere() -> None:
    cloud = clouds.draw(torch.arange(3), 64, random()).double()
    centres, offsets = clouds.patches(cloud, 8, 5)
    shift = torch.tensor([3.0, -1.0, 2.0], dtype=torch.double)
    moved_centres, moved_offsets = clouds.patches(cloud + shift, 8, 5)
    assert torch.allclose(moved_centres, centres + shift)
    assert torch.allclose(moved_offsets, offsets)


def test_clouds_turn_about_the_vertical() -> None:
    centres, offsets = (torch.randn(4, 8, *rest, generator=random(1)) for rest in ((3,), (5, 3)))
    turned, around = clouds.turned(centres, offsets, 0.0, random())
    for one, other in ((centres, turned), (offsets, around)):
        assert torch.allclose(one[..., 2], other[..., 2])
        assert torch.allclose(one.norm(dim=-1), other.norm(dim=-1), atol=1e-5)
    whole, after = (
        (c[:, :, None] + o).flatten(1, 2) for c, o in ((centres, offsets), (turned, around))
    )
    apart = [(x[:, None] - x[:, :, None]).norm(dim=-1) for x in (whole, after)]
    assert torch.allclose(*apart, atol=1e-5)


def test_meshes_and_clouds_on_disk_are_read(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    for name, shape in (("ball", trimesh.creation.icosphere()), ("box", trimesh.creation.box())):
        for part in ("train", "test"):
            (tmp_path / name / part).mkdir(parents=True)
            shape.export(tmp_path / name / part / "one.off")
            trimesh.PointCloud(shape.sample(200)).export(tmp_path / name / part / "two.ply")
    names, files = clouds.files(str(tmp_path))
    assert names == ["ball", "box"]
    assert [len(rows) for rows in files.values()] == [4, 4]
    for path, _ in files["train"]:
        cloud = clouds.read(path, 100, 7)
        assert cloud.shape == (100, 3)
        assert torch.equal(cloud, clouds.read(path, 100, 7))
        assert float(cloud.norm(dim=1).max()) == pytest.approx(1, abs=1e-5)
    sides = clouds.read(files["train"][0][0], 100, 7).norm(dim=1)
    assert sides.min() > 0.75  # a ball's points lie all as far from its middle, about
    path = files["train"][1][0]
    with pytest.raises(InputError, match=r"two.ply cannot be read \(200 points where 300 are"):
        clouds.read(path, 300, 7)
    path.write_text("ply nothing")
    with pytest.raises(InputError, match=r"root: .*two.ply cannot be read"):
        clouds.read(path, 100, 7)


def _relative(scene: views.Views) -> Tensor:
    """g_i g_j^-1 for all i, j, (B, N, N, 4, 4)."""
    poses = torch.eye(4).repeat(*scene.seen.shape[:2], 1, 1)
    poses[..., :3, :3], poses[..., :3, 3] = scene.rotations, scene.translations
    return poses[:, :, None] @ torch.linalg.inv(poses)[:, None]


def test_one_other_camera_sees_the_first_ones_object() -> None:
    scene = views.draw(50, 6, random())
    world = (scene.rotations.mT @ (scene.seen - scene.translations)[..., None])[..., 0]
    away = (world - world[:, :1]).norm(dim=-1)[:, 1:]
    nearest = 1 + away.argmin(1)
    assert torch.equal(scene.colours[torch.arange(50), nearest], scene.labels)
    assert away.min(1).values.max() < 0.3
    assert away.sort(1).values[:, 1].min() > 1.5
    assert bool((scene.colours[:, 0] == views.COLOURS).all())


def test_moving_the_world_changes_no_relative_pose() -> None:
    scene = views.draw(20, 6, random())
    turn = views.any_rotations(20, random(1))
    assert torch.allclose(turn @ turn.mT, torch.eye(3).expand(20, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(turn), torch.ones(20), atol=1e-5)
    moved = views.moved(scene, turn, torch.randn(20, 3, generator=random(2)))
    assert torch.allclose(_relative(moved), _relative(scene), atol=1e-4)
    assert (moved.translations - scene.translations).abs().max() > 0.1
    for name in ("seen", "colours", "labels"):
        assert torch.equal(getattr(moved, name), getattr(scene, name))


def test_uniform_rotations_have_no_preferred_axis() -> None:
    turns = views.any_rotations(4000, random())
    assert turns.mean(0).abs().max() < 5 / math.sqrt(3 * 4000)
    trace = turns.diagonal(dim1=-2, dim2=-1).sum(-1)  # 1 + 2 cos(angle): 0 on average, variance 1
    assert float(trace.mean()) == pytest.approx(0, abs=5 / math.sqrt(4000))
    assert float(trace.var()) == pytest.approx(1, abs=0.15)


def test_positions_are_those_that_a_start_is_for() -> None:
    # U(0, 2 pi) is meant for a grid [0, 1]: in patches it would turn neighbours by whole turns.
    sizes = {"width": 48, "depth": 1, "heads": 2}
    by_patches = video.ClipModel("mixed", 40, **sizes)
    by_cube = video.ClipModel("mixed:init=uniform", 40, **sizes)
    assert float(by_patches.get_buffer("positions").max()) > 1
    assert float(by_cube.get_buffer("positions").max()) == 1
    assert pointcloud.CloudModel("liere:8", "rotation", 13, **sizes).unit == 0.5
    liere = "liere:block_size=8,init=rope"
    assert pointcloud.CloudModel(liere, "rotation", 13, **sizes).unit == 4


def test_spectra_are_in_radians_a_patch() -> None:
    class Model(torch.nn.Module):
        def __init__(self, init: str, value: float) -> None:
            super().__init__()
            self.encoding = create("mixed", 16, 1, 2, init=init)
            self.encoding.get_parameter("frequencies").data.fill_(value)
            self.patch_embed = torch.nn.Identity()
            self.patch_embed.grid_size = (5, 5)  # type: ignore[assignment]

    for init, value in (("naver", 0.5), ("uniform", 2.0)):  # 4 patches make up [0, 1]
        assert frequencies.spectrum(Model(init, value)).tolist() == pytest.approx(16 * [0.5])


def test_targets_of_molecules_do_not_change_with_order_or_place() -> None:
    positions, carried, wanted = highdim.molecules(4, 9, 5, random())
    sigma = highdim._REACH * 5**0.5
    squared = (positions[:, :, None] - positions[:, None]).square().sum(-1)
    weight = torch.exp(-squared / (2 * sigma**2))
    expected = (weight * carried[:, None]).sum(-1) / weight.sum(-1)
    assert torch.allclose(wanted, expected, atol=1e-4)


# Encodings and positions of studies.


@pytest.mark.parametrize("b", [2, 8])
def test_random_rotations_are_rotations(b: int) -> None:
    like = create("liere:8", 16, 3)
    rotations = RandomRotations(like, 10, b, random()).rotations
    assert isinstance(rotations, Tensor)
    assert rotations.shape == (3, 10, 16 // b, b, b)
    assert torch.allclose(rotations.mT @ rotations, torch.eye(b).expand_as(rotations), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(3, 10, 16 // b), atol=1e-5)


@pytest.mark.parametrize(("mode", "like"), [("index", "extended"), ("unit", "fixed")])
def test_a_larger_grids_positions_are_those_of_the_librarys_modes(mode: str, like: str) -> None:
    trained = GridPositions(mode, (4, 5))
    options = {"device": torch.device("cpu"), "dtype": torch.float32}
    larger = {way: OtherPositions(trained, (4, 5), way)._build((8, 10), **options) for way in WAYS}
    assert torch.allclose(larger[like], lierope.grid_positions((8, 10), mode, (4, 5)))
    moved = larger["extended"] - larger["centred"]
    assert torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-6)
    middle = lierope.grid_positions((4, 5), mode).mean(0)
    assert torch.allclose(larger["centred"].mean(0), middle, atol=1e-5)


# Bad files.


@pytest.mark.parametrize(
    ("load", "files", "message"),
    [
        ("texts", [], "root: must be a folder of folders of texts, got"),
        ("texts", ["a/1.txt"], "root: must hold a folder for each of two or more classes"),
        ("texts", ["a/1.txt", "b/1.md"], r"root: .*b must hold .txt files"),
        ("texts", ["a/1.txt", "b/1.txt"], "root: must hold 10 texts or more, got 2"),
        ("clips", ["train/a/1.npy"], "root: must hold train and val, got"),
        ("clips", ["train/a/1.npy", "train/b/1.npy", "val/a/1.npy"], "the same two or more"),
        ("clouds", [], "root: must be a folder of folders of clouds, got"),
        ("clouds", ["a/train/1.off"], "root: must hold a folder for each of two or more"),
        ("clouds", ["a/train/1.off", "b/train/1.off"], r"a/test must hold .off or .ply files"),
    ],
)  # fmt: skip
def test_bad_folders_are_one_line(
    load: str, files: list[str], message: str, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    readers = {
        "texts": lambda: text_folders.load(str(root), 8),
        "clips": lambda: moving_digits.load_clips(str(root)),
        "clouds": lambda: clouds.files(str(root)),
    }
    with pytest.raises(InputError, match=message) as caught:
        readers[load]()
    assert "\n" not in str(caught.value)


def test_a_damaged_clip_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"x")
    with pytest.raises(InputError, match=r"root: .*bad.npy cannot be read"):
        moving_digits.read_clip(tmp_path / "bad.npy")
    numpy.save(tmp_path / "flat.npy", numpy.zeros(3))
    with pytest.raises(InputError, match=r"flat.npy must be \(frames, rows, columns\)"):
        moving_digits.read_clip(tmp_path / "flat.npy")
    numpy.save(tmp_path / "good.npy", numpy.random.default_rng(0).random((4, 20, 10)))
    clip = moving_digits.read_clip(tmp_path / "good.npy")
    assert clip.shape == (moving_digits.FRAMES, moving_digits.CANVAS, moving_digits.CANVAS)
    assert float(clip.mean()) == pytest.approx(0, abs=1e-5)
