"""The generator of cluttered digits against twenty lines of numpy (oracle 9; T12, T17)."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from uram_lib import UramError, data
from uram_lib.data import clutter
from uram_lib.data.base import md5
from uram_lib.seeding import stream

SIDE, PIECES, COUNT = 100, 10, 4_000
RARE = 1e-4  # p-value below which a fixed-seed comparison counts as a difference


@pytest.fixture(scope="module")
def bare() -> torch.Tensor:
    return data.load("digits").train.images


@pytest.fixture(scope="module")
def batched(bare):
    own = torch.arange(COUNT) % len(bare)
    images, centres = clutter.compose(bare, own, SIDE, PIECES, stream(0, "test", "clutter"))
    return own, images, centres


def numpy_generator(digits: np.ndarray, own: int, random: np.random.Generator) -> tuple[np.ndarray, tuple]:
    """The protocol of §5 word by word, a loop over pieces, in numpy's own random numbers."""
    canvas = np.zeros((SIDE, SIDE), int)
    x, y = random.integers(0, SIDE - 28, endpoint=True), random.integers(0, SIDE - 28, endpoint=True)
    canvas[y : y + 28, x : x + 28] += digits[own]
    for _ in range(PIECES):
        other = random.integers(len(digits) - 1)
        other += other >= own
        u, v = random.integers(0, 20, 2, endpoint=True)
        px, py = random.integers(0, 92, 2, endpoint=True)
        canvas[py : py + 8, px : px + 8] += digits[other][v : v + 8, u : u + 8]
    return canvas.clip(max=255).astype(np.uint8), (x, y)


@pytest.fixture(scope="module")
def looped(bare):
    random, digits = np.random.default_rng(0), bare[:, 0].numpy()
    return [numpy_generator(digits, i % len(digits), random) for i in range(COUNT)]


def test_brightness_and_lit_fraction_agree_with_numpy(batched, looped):
    ours = batched[1][:, 0].numpy()
    theirs = np.stack([image for image, _ in looped])
    for measure in (lambda x: x.mean((1, 2)), lambda x: (x > 127).mean((1, 2))):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > RARE
    # Where light lies, by columns: the same profile from edge to edge, within five standard errors.
    ours, theirs = ours.mean(1), theirs.mean(1)  # (N, side), an image's mean by column
    error = np.sqrt((ours.var(0) + theirs.var(0)) / COUNT)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 5 * error).all()


def test_T12_offsets_are_uniform_with_both_ends(batched):
    corner = (batched[2] - 14).long()
    for axis in range(2):
        counts = torch.bincount(corner[:, axis], minlength=73)
        assert len(counts) == 73 and counts.min() > 0
        assert stats.chisquare(counts.numpy()).pvalue > RARE


def test_T12_pieces_and_windows_cover_their_whole_range():
    """Digits whose pixels tell where they came from: piece positions reach {0..92} and windows {0..20}, no further."""
    ramp = (torch.arange(28)[:, None] * 9 + 1).expand(28, 28).to(torch.uint8)  # row i has value 9 i + 1
    digits = torch.stack((torch.zeros_like(ramp), ramp))[:, None]  # placing digit 0 leaves clutter of digit 1 alone
    own = torch.zeros(30_000, dtype=torch.long)
    images, _ = clutter.compose(digits, own, SIDE, 1, stream(0, "test", "ramp"))
    lit = images[:, 0] > 0
    top, left = lit.any(2).int().argmax(1), lit.any(1).int().argmax(1)
    window = (images.flatten(1).max(1).values.int() - 1) // 9 - 7  # the piece's last row is 7 below its first
    for values, size in ((top, 93), (left, 93), (window, 21)):
        counts = torch.bincount(values, minlength=size)
        assert len(counts) == size and stats.chisquare(counts.numpy()).pvalue > RARE
    assert (lit.sum((1, 2)) == 64).all()


def test_T17_clutter_never_erases_the_digit(bare, batched):
    own, images, centres = batched
    corner = (centres - 14).long()
    for i in range(0, COUNT, 7):
        x, y = corner[i].tolist()
        assert (images[i, 0, y : y + 28, x : x + 28] >= bare[own[i], 0]).all()


def test_clutter_is_never_cut_from_the_image_s_own_digit():
    digits = torch.stack([torch.full((1, 28, 28), value, dtype=torch.uint8) for value in (0, 10, 200)])
    own = torch.ones(500, dtype=torch.long)
    images, centres = clutter.compose(digits, own, SIDE, 1, stream(0, "test", "own"))
    assert {0, 200} >= set((images[:, 0, 0, 0]).tolist())
    outside = images.flatten(1).int().sum(1) - 28 * 28 * 10
    assert ((outside == 0) | (outside > 64 * 150)).all()  # from digit 0 (nothing) or digit 2, never 64 times 10


@pytest.mark.parametrize("name", [name for name in data.NAMES if name.startswith("digits-clutter")])
def test_fixed_sets_match_their_pinned_checksum_and_another_is_refused(name, monkeypatch):
    loaded = data.load(name)
    test = loaded.load_test()
    content = test.images.numpy().tobytes() + test.labels.numpy().tobytes()
    assert loaded.checksum == "md5:" + hashlib.md5(content).hexdigest()
    assert data.shape_of(name)[0] == loaded.image_shape == tuple(test.images.shape[1:])
    assert not torch.equal(test.images[:200], loaded.validation.images)
    monkeypatch.setitem(clutter.MD5, name.removesuffix("-fixed"), "md5:0")
    with pytest.raises(UramError, match=f"test set of {name} came out with md5:.* expected md5:0"):
        clutter.load(name).load_test()


def test_a_fixed_training_set_shows_the_same_canvases_in_every_epoch(bare, monkeypatch):
    """Independent truth: each canvas holds its own digit at its centre; validation and test are the fresh variant's."""
    fixed, fresh = data.load("digits-clutter100-10-fixed"), data.load("digits-clutter100-10")
    assert torch.equal(fixed.validation.images, fresh.validation.images) and fixed.checksum == fresh.checksum
    index = torch.tensor([3, 1_296, 3, 0])
    fixed, real, asked = clutter.load(fixed.name), clutter.stream, []
    monkeypatch.setattr(clutter, "stream", lambda *names: asked.append(names) or real(*names))
    images, labels, centres = fixed.training_batch(index, stream(0, "one"))
    again, _, _ = fixed.training_batch(index, stream(0, "two"), spread=0.1)
    assert asked == [(0, fixed.name, "train")]  # made when first needed, and once
    assert torch.equal(images, again) and torch.equal(images[0], images[2]) and not torch.equal(images[0], images[3])
    assert torch.equal(labels, fixed.train.labels[index])
    for image, own, (x, y) in zip(images, index, (centres - 14).long().tolist(), strict=True):
        assert (image[0, y : y + 28, x : x + 28] * 255 >= bare[own, 0].float() - 0.5).all()
    images_of_all, labels, _ = fixed.training_batch(torch.arange(1_297), stream(0, "all"))
    assert md5((images_of_all * 255).to(torch.uint8), labels) == "md5:c9a0a6a27cbd641d3e76ddf9ca8e963e"
    moved = fixed.to(torch.device("cpu"))
    assert torch.equal(moved.training_batch(index, stream(0, "one"))[0], images)
    assert data.about("clutter100-10-fixed").title.endswith("pieces, fixed")


def test_T13_clutter_comes_from_the_split_s_own_digits():
    """A training image whose every source digit is replaced by black has no light at all."""
    loaded = data.load("digits-clutter100-10")
    black = dataclasses.replace(loaded.train, images=torch.zeros_like(loaded.train.images))
    dark = dataclasses.replace(loaded, train=black)
    images, *_ = dark.training_batch(torch.arange(64), stream(0, "dark"))
    assert images.sum() == 0


@pytest.mark.parametrize("name", ["clutter100-10", "clutter100-8", "clutter100-4", "clutter60-4"])
def test_mnist_variants_match_their_pinned_checksum(name, mnist):
    assert len(data.load(name).load_test()) == 10_000  # raises where the checksum differs


def test_a_curriculum_draws_offsets_from_the_central_share_of_the_range(bare):
    """Independent truth: the offsets themselves, recovered from the centres; both ends of the share occur."""
    own = torch.zeros(20_000, dtype=torch.int64)
    for spread, low, high in ((1.0, 0, 72), (0.5, 18, 54), (0.3, 25, 47), (0.0, 36, 36)):
        _, centres = clutter.compose(bare, own, SIDE, 0, stream(0, "test", "spread"), spread)
        offsets = (centres - 14).numpy()
        assert (offsets.min(), offsets.max()) == (low, high)
        if high > low:
            counts = [np.bincount(axis.astype(int) - low, minlength=high - low + 1) for axis in offsets.T]
            assert all(stats.chisquare(count).pvalue > RARE for count in counts)
