"""The data sets: what is drawn, that it depends on seed and epoch alone, and how folders fail."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lierope.timm", exc_type=ImportError)

from PIL import Image

from lierope.train import arrows, digits, glyphs, streams
from lierope.train.config import Settings, preset
from lierope.train.data import Source, split_indices
from lierope.train.distributed import World
from lierope.train.errors import InputError
from lierope.train.sources import open_source


def settings(data: str, **changes: Any) -> Settings:
    return Settings(**({"data": data, "encoding": "none"} | preset(data, None, None) | changes))


def drawn(source: Source, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*source.train_batches(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("data", ["digits", "arrows"])
def test_batches_depend_on_seed_and_epoch_alone(data: str) -> None:
    small = {"epoch_images": 256}
    first, again = (open_source(settings(data, **small), World()) for _ in range(2))
    images, labels = drawn(first, 3)
    torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(drawn(again, 3), (images, labels), strict=True))
    assert not torch.equal(drawn(again, 4)[0], images)
    other = open_source(settings(data, seed=1, **small), World())
    assert not torch.equal(drawn(other, 3)[0], images)


@pytest.mark.parametrize("data", ["digits", "arrows"])
def test_processes_share_one_batch(data: str) -> None:
    s = settings(data, batch_size=32, epoch_images=64)
    whole = next(iter(open_source(s, World()).train_batches(0)))
    parts = [next(iter(open_source(s, World(rank, 2)).train_batches(0))) for rank in range(2)]
    for index in range(2):
        joined = torch.stack([part[index] for part in parts], 1).flatten(0, 1)
        assert torch.equal(joined, whole[index])


def test_a_batch_must_divide_among_processes() -> None:
    with pytest.raises(InputError, match="multiple of the number of processes, got 32 and 3"):
        open_source(settings("digits"), World(0, 3))
    with pytest.raises(InputError, match="at most the 1213 training images, got 2000"):
        open_source(settings("digits", batch_size=2000), World())


def test_splits_are_disjoint_and_whole() -> None:
    train, held = split_indices(100, 0.1, "x")
    assert sorted(train + held) == list(range(100))
    assert len(held) == 10
    assert split_indices(100, 0.1, "x") == (train, held)
    assert split_indices(2, 0.9, "x")[0]


def test_digits_never_share_an_image_between_splits() -> None:
    source = open_source(settings("digits"), World())
    assert isinstance(source, digits.Digits)
    parts = [source._train[0], source._held[0], source._test[0]]
    assert [len(part) for part in parts] == [1213, 135, 449]
    assert sum(len(part) for part in parts) == 1797


def test_a_placed_digit_is_the_digit() -> None:
    image = digits.bundled()[0][:16]
    placed = digits.place(image, 13, streams.stream("t"), augment=False) * 0.4 + 0.3
    assert placed.shape == (16, 1, 13, 13)
    windows = placed.unfold(2, 8, 1).unfold(3, 8, 1)  # (16, 1, 6, 6, 8, 8)
    errors = (windows - image[:, :, None, None]).abs().amax((-1, -2)).flatten(1)
    assert errors.amin(1).max() < 1e-5
    torch.testing.assert_close(placed.sum((1, 2, 3)), image.sum((1, 2, 3)))


def test_augmentation_moves_little() -> None:
    image = digits.bundled()[0][:64]
    plain, turned = (digits.place(image, 8, streams.stream("t"), augment=a) for a in (False, True))
    difference = (plain - turned).abs().mean()
    assert 0.01 < difference < plain.std() / 2


def test_test_batches_reach_every_size_and_process() -> None:
    s = settings("digits", batch_size=33)
    for size in (10, 16):
        whole = list(open_source(s, World()).test_batches(size))
        assert sum(len(labels) for _, labels in whole) == 4 * 449
        assert whole[0][0].shape[1:] == (1, size, size)
        parts = [open_source(s, World(r, 3)).test_batches(size) for r in range(3)]
        assert sum(len(labels) for part in parts for _, labels in part) == 4 * 449


def test_digits_need_room() -> None:
    with pytest.raises(InputError, match="image-size: must be at least 8 for digits, got 6"):
        open_source(settings("digits", image_size=6), World())


# Arrows


def read_label(cells: torch.Tensor) -> tuple[int, int]:
    """Label and number of arrows on the ray, read off a grid by walking from the Y."""
    side = len(cells)
    ((row, column),) = torch.nonzero((cells >= glyphs.YS) & (cells < glyphs.LETTERS)).tolist()
    dy, dx = ((-1, 0), (0, 1), (1, 0), (0, -1))[int(cells[row, column]) - glyphs.YS]
    found = []
    while 0 <= (row := row + dy) < side and 0 <= (column := column + dx) < side:
        if glyphs.ARROWS <= cells[row, column] < glyphs.YS:
            found.append(int(cells[row, column]) - glyphs.ARROWS)
    return found[0], len(found)


@pytest.mark.parametrize("grid", [4, 9, 14])
def test_the_label_is_the_only_arrow_on_the_ray(grid: int) -> None:
    cells, labels = arrows.layout(300, grid, streams.stream("arrows"))
    for one, label in zip(cells.view(-1, grid, grid), labels.tolist(), strict=True):
        assert read_label(one) == (label, 1)
    assert ((cells >= glyphs.ARROWS) & (cells < glyphs.YS)).sum(1).eq(8).all()
    assert all((cells == glyphs.LETTERS + i).sum(1).eq(1).all() for i in range(5))
    assert labels.bincount(minlength=4).min() > 40


def test_a_bag_of_arrows_reaches_the_line_in_the_plot() -> None:
    cells, labels = arrows.layout(20_000, 9, streams.stream("bag"))
    counts = torch.stack([(cells == glyphs.ARROWS + d).sum(1) for d in range(4)], 1)
    accuracy = (counts.argmax(1) == labels).double().mean()
    assert abs(accuracy - arrows.BAG_OF_ARROWS) < 0.015


def test_arrow_images_show_their_glyphs() -> None:
    images, _ = arrows.draw(64, 9, streams.stream("draw"))
    cells, _ = arrows.layout(64, 9, streams.stream("draw"))
    assert images.shape == (64, 1, 108, 108)
    patches = images.unfold(2, 12, 12).unfold(3, 12, 12).flatten(1, 3)  # (64, 81, 12, 12)
    shown = glyphs.bitmaps()[cells]
    noise = patches - shown
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 0.5) < 0.01


def test_glyphs_differ_and_turn() -> None:
    bitmaps = glyphs.bitmaps()
    assert bitmaps.shape == (glyphs.COUNT, 12, 12)
    assert len({tuple(b.flatten().tolist()) for b in bitmaps}) == glyphs.COUNT
    up, right = bitmaps[glyphs.ARROWS], bitmaps[glyphs.ARROWS + 1]
    assert up[:6].sum() > up[6:].sum()  # the head holds more ink than the shaft
    assert right[:, 6:].sum() > right[:, :6].sum()
    down_y = bitmaps[glyphs.YS + 2]
    assert down_y[:6].sum() > down_y[6:].sum()  # two arms up, one base down


def test_held_out_arrows_are_the_same_every_time_and_fit_any_size() -> None:
    source = open_source(settings("arrows", image_size=48, eval_sizes=(60,)), World())
    once, again = (list(source.validation_batches()) for _ in range(2))
    assert sum(len(labels) for _, labels in once) == 1024
    for (images, labels), (others, also) in zip(once, again, strict=True):
        assert images.shape[1:] == (1, 48, 48)
        assert torch.equal(images, others)
        assert torch.equal(labels, also)
    tested = list(source.test_batches(60))
    assert sum(len(labels) for _, labels in tested) == 4096
    assert tested[0][0].shape[1:] == (1, 60, 60)
    held = next(iter(source.test_batches(48)))[0]
    assert not torch.equal(held[: len(once[0][0])], once[0][0][: len(held)])


def test_arrow_images_come_in_cells() -> None:
    with pytest.raises(InputError, match=r"image-size: must be a multiple of 12 from 48 up .* 100"):
        open_source(settings("arrows", image_size=100), World())


# Folders and CIFAR


def draw_folder(root: Path, part: str, classes: str, count: int = 6) -> None:
    for index, name in enumerate(classes):
        folder = root / part / name
        folder.mkdir(parents=True)
        for number in range(count):
            colour = (80 * index, 20 * number, 50)
            Image.new("RGB", (40, 32), colour).save(folder / f"{number}.png")


def test_image_folders_are_read(tmp_path: Path) -> None:
    draw_folder(tmp_path, "train", "abc")
    draw_folder(tmp_path, "val", "abc", 2)
    s = settings("imagefolder", root=str(tmp_path), image_size=32, batch_size=4, validation=0.2)
    source = open_source(s, World())
    assert (source.num_classes, source.in_chans, source.train_images) == (3, 3, 14)
    images, _ = drawn(source, 0)
    assert images.shape == (12, 3, 32, 32)
    tested = list(source.test_batches(64))
    assert sum(len(labels) for _, labels in tested) == 6
    assert tested[0][0].shape[1:] == (3, 64, 64)
    assert sum(len(labels) for _, labels in source.validation_batches()) == 4


def test_image_folders_fail_in_one_line(tmp_path: Path) -> None:
    def fails(message: str, root: Path | None) -> None:
        text = None if root is None else str(root)
        with pytest.raises(InputError, match=message) as error:
            open_source(settings("imagefolder", root=text), World())
        assert "\n" not in str(error.value)

    fails("root: must name a folder with train and val", None)
    fails(r"root: must be a folder with train and val, got .*nowhere", tmp_path / "nowhere")
    fails(r"root: must hold train/CLASS/\*.jpg and val/CLASS/\*.jpg", tmp_path)
    (tmp_path / "train").mkdir()
    fails(r"root: must hold train/CLASS.* without val", tmp_path)
    (tmp_path / "val").mkdir()
    fails("root: cannot read .*train: Found 0 images", tmp_path)
    draw_folder(tmp_path / "other", "train", "ab")
    draw_folder(tmp_path / "other", "val", "abz")
    fails("holds classes that .* lacks: z", tmp_path / "other")


def fake_cifar(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = torch.randint(0, 256, (8, 3072), dtype=torch.uint8).numpy()
        with (folder / name).open("wb") as file:
            pickle.dump({"data": pixels, "labels": list(range(8))}, file)
    with (folder / "batches.meta").open("wb") as file:
        pickle.dump({"label_names": [str(i) for i in range(10)]}, file)


def test_cifar_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    fake_cifar(tmp_path)
    s = settings("cifar10", root=str(tmp_path), batch_size=12)
    source = open_source(s, World())
    assert (source.num_classes, source.train_images) == (10, 36)
    images, _ = drawn(source, 0)
    assert images.shape == (36, 3, 32, 32)
    assert next(iter(source.test_batches(48)))[0].shape == (8, 3, 48, 48)
    larger = open_source(settings("cifar10", root=str(tmp_path), image_size=40, batch_size=4),
                         World())  # fmt: skip
    assert next(iter(larger.train_batches(0)))[0].shape == (4, 3, 40, 40)


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._mark,))


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_no_foreign_pickle_is_opened_as_cifar(name: str, tmp_path: Path) -> None:
    """CIFAR's files are pickles: one that is not the published one, by its sum, is not read."""
    fake_cifar(tmp_path)
    mark = tmp_path / "ran"
    with (tmp_path / "cifar-10-batches-py" / name).open("wb") as file:
        pickle.dump(Trap(mark), file)
    with pytest.raises(InputError, match=r"root: cannot read .*not found or corrupted"):
        open_source(settings("cifar10", root=str(tmp_path)), World())
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))  # it would have been seen
    assert mark.exists()


def test_cifar_says_what_is_expected_where(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder that holds cifar-10-batches-py for cifar10"):
        open_source(settings("cifar10"), World())
    with pytest.raises(InputError, match="root: must hold cifar-100-python with train and test"):
        open_source(settings("cifar100", root=str(tmp_path)), World())
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(InputError, match=r"root: cannot read .*not found or corrupted"):
        open_source(settings("cifar10", root=str(tmp_path)), World())
