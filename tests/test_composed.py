"""The composed house numbers: what is drawn is what the labels say, and every split keeps to its own sources."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from uram_lib import UramError, data
from uram_lib.data import cifar10, composed, mnist, numbers
from uram_lib.data.base import Dataset, Split, join, lengths_of, md5
from uram_lib.seeding import stream

RARE = 1e-4  # p-value below which a fixed-seed comparison counts as a difference


TRAINING = composed.sources("digits-composed", "train")


@pytest.fixture(scope="module")
def made() -> Dataset:
    return data.load("digits-composed")


def painted(marks: list[int], lengths: tuple[int, ...], count: int) -> tuple:
    """Labels, layout and cover (N, 64, 64) of numbers of digits that tell themselves apart: digit k is a full-height
    bar of brightness `marks[k]`."""
    images = torch.zeros(10, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 4:24, 8:20] = torch.tensor(marks, dtype=torch.uint8)[:, None, None]
    split = Split(images, torch.arange(10), torch.full((10, 2), 14.0))
    own, labels = composed.draw_numbers(split, lengths, count, stream(0, "numbers"))
    used, digits = labels[:, :5] != data.TERMINAL, split.images[own, 0]
    ink = composed.ink_boxes(digits).double()
    layout = composed.lay_out(ink[..., 2:], used, stream(0, "layout"))
    return labels, layout, composed.paint(digits, ink, used, layout)


def test_the_digits_stand_from_left_to_right_as_the_labels_say():
    """Each digit is painted as a bar of its own brightness; along the line of centres the image shows those bars."""
    marks = [70 + 20 * digit for digit in range(10)]
    labels, layout, cover = painted(marks, (1, 1, 1, 1, 1), 400)
    for label, centres, image in zip(labels.tolist(), layout.centres(), cover, strict=True):
        length = label.index(data.TERMINAL)
        assert (centres[:length, 0].diff() > 0).all() and set(label[length:]) == {data.TERMINAL}
        for digit, (column, row) in zip(label, centres[:length].floor().long().tolist(), strict=False):
            assert round(float(image[row, column]) * 255) == marks[digit]


def test_centres_are_the_middle_of_each_digit_s_ink():
    """Numbers of one digit: the painted bar's centre of mass, measured on the image."""
    _, layout, cover = painted([255] * 10, (1, 0, 0, 0, 0), 200)
    at = torch.arange(64) + 0.5
    moments = torch.stack([(cover * place).sum((1, 2)) for place in (at, at[:, None])], 1)  # x, y
    torch.testing.assert_close(moments / cover.sum((1, 2))[:, None], layout.centres()[:, 0], atol=0.05, rtol=0)


def test_numbers_stay_inside_every_crop_and_large_enough_to_read():
    whole = composed.compose(*TRAINING, (1, 1, 1, 1, 1), 600, stream(0, "inside"))
    there = ~whole.centres.isnan().any(-1)
    centres = whole.centres[there]
    # Any 54 x 54 crop shows [10, 54) of both axes; a digit's centre may come within a hair of that.
    assert centres.min() > 9 and centres.max() < 55
    assert torch.equal(there.sum(1), whole.lengths)


def test_lengths_follow_svhn(made):
    """SVHN's counts by length add up to the images and digits that its authors state, but one of six digits."""
    for part, images, digits in (("train", 33_401, 73_251), ("extra", 202_353, 531_131), ("test", 13_068, 26_032)):
        counts = numbers.LENGTHS[part]
        assert sum(counts) == images and sum((i + 1) * n for i, n in enumerate(counts)) == digits
    for often in composed.OFTEN.values():
        _, labels = composed.draw_numbers(made.train, often, 40_000, stream(0, "lengths"))
        counts = lengths_of(labels).bincount(minlength=6)[1:].numpy()
        expected = np.array(often) / sum(often) * 40_000
        few = expected.cumsum() > 40_000 - 30  # lengths too rare for a chi-square count as one
        merge = lambda x, few=few: np.append(x[~few], x[few].sum())  # noqa: E731
        assert stats.chisquare(merge(counts), merge(expected)).pvalue > RARE


def test_digits_are_uniform_but_for_the_first_that_is_no_zero(made):
    own, labels = composed.draw_numbers(made.train, (0, 0, 0, 0, 1), 40_000, stream(0, "digits"))
    share = made.train.labels.bincount().double()
    first, others = labels[:, 0].bincount(minlength=10), labels[:, 1:5].flatten().bincount(minlength=10)
    assert first[0] == 0
    assert stats.chisquare(others, (share / share.sum() * 160_000).numpy()).pvalue > RARE
    assert stats.chisquare(first[1:], (share[1:] / share[1:].sum() * 40_000).numpy()).pvalue > RARE
    assert torch.equal(made.train.labels[own], labels[:, :5])


@given(seed=st.integers(0, 2**31), count=st.integers(1, 7))
def test_any_batch_has_the_promised_shapes_and_ranges(made, seed, count):
    """T16 too: a batch of one."""
    images, labels, _ = made.training_batch(torch.arange(count), stream(seed))
    assert images.shape == (count, 1, 54, 54) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert labels.shape == (count, 6) and labels.dtype == torch.int64
    lengths = lengths_of(labels)
    assert (1 <= lengths).all() and (lengths <= 5).all() and (labels[:, 0] > 0).all()
    assert ((labels == data.TERMINAL) == (torch.arange(6) >= lengths[:, None])).all()


def test_fixed_sets_do_not_depend_on_the_number_of_threads():
    often = composed.OFTEN["test"]
    whole = lambda: composed.compose(*TRAINING, often, 100, stream(0, "threads"), torch.float64)  # noqa: E731
    one, before = whole(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(whole().images, one.images)
    finally:
        torch.set_num_threads(before)


def test_digits_show_against_their_background(monkeypatch):
    """Painted pixels differ from the unpainted image around them by the contrast drawn, on average."""
    often = composed.OFTEN["train"]
    draw = lambda: composed.compose(*TRAINING, often, 200, stream(0, "show"), torch.float64).images.int()  # noqa: E731
    with_digits = draw()
    monkeypatch.setattr(composed, "paint", lambda *_: torch.zeros(200, 64, 64, dtype=torch.float64))
    change = (with_digits - draw()).abs().flatten(1).amax(1)
    assert (change > 25).all() and change.float().mean() > 80


def test_fixed_sets_match_their_pinned_checksum_and_another_is_refused(made, monkeypatch):
    test = made.load_test()
    assert made.checksum == md5(test.images, test.labels)
    assert len(test) == made.test_size == 300 and len(made.validation) == 200
    monkeypatch.setitem(composed.SOURCES, "digits-composed", ("digits", "gradients", (200, 300), "md5:0"))
    again = composed.load("digits-composed")
    assert torch.equal(again.validation.images, made.validation.images)
    with pytest.raises(UramError, match="test set of digits-composed came out with md5:.* expected md5:0"):
        again.load_test()


def test_T13_each_split_is_made_of_its_own_digits_and_backgrounds(made, monkeypatch):
    """Every maker of numbers is asked which digits and backgrounds it used; no two splits share any."""
    used = {"train": TRAINING}

    def recorded(bare, backgrounds, lengths, count, *names):
        used[names[-1]] = bare, backgrounds
        return made.validation

    monkeypatch.setattr(composed, "fixed", recorded)
    monkeypatch.setitem(composed.SOURCES, "digits-composed", ("digits", "gradients", (200, 300), ""))
    composed.load("digits-composed").load_test()
    assert set(used) == {"train", "validation", "test"}
    for pictures in ([bare.images for bare, _ in used.values()], [backgrounds for _, backgrounds in used.values()]):
        everything = [picture.numpy().tobytes() for of_a_split in pictures for picture in of_a_split]
        assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("corner", [(0, 0), (10, 0), (3, 10)])
def test_crops_move_image_and_centres_together(corner):
    images = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    images[0, 0, 30, 20] = 255  # row 30, column 20: T11
    centres = torch.full((1, 5, 2), torch.nan)
    centres[0, 0] = torch.tensor([20.5, 30.5])
    whole = Split(images, torch.tensor([numbers.encode([7])]), centres)
    cut = numbers.crop(whole, torch.tensor([corner]))
    x, y = cut.centres[0, 0].long()
    assert cut.images[0, 0, y, x] == 255 and cut.images.shape == (1, 1, 54, 54)
    assert cut.centres[0, 1:].isnan().all() and cut.lengths.tolist() == [1]


def test_crops_are_uniform_with_both_ends(made):
    """The offset is read off the centre of a digit at (32, 32)."""
    centres = torch.full((20_000, 5, 2), torch.nan)
    centres[:, 0] = 32.0
    labels = torch.tensor(numbers.encode([7])).expand(20_000, 6)
    whole = Split(torch.zeros(1, 1, 64, 64, dtype=torch.uint8).expand(20_000, 1, 64, 64), labels, centres)
    dataset = Dataset("svhn", whole, whole, None, 0, "", numbers.draw)
    _, short, moved = dataset.training_batch(torch.arange(20_000), stream(0, "corners"), 0.2)
    assert short.tolist()[0] == [7, 10] and short.shape == (20_000, 2)
    for axis in range(2):
        counts = (32 - moved[:, 0, axis]).long().bincount()
        assert len(counts) == 11 and stats.chisquare(counts.numpy()).pvalue > RARE


def test_joining_keeps_the_order_and_moving_what_is_drawn(made):
    parts = made.validation.at(slice(3)), made.validation.at(slice(3, 200))
    assert torch.equal(join(parts).images, made.validation.images)
    here, there = (d.training_batch(torch.arange(5), stream(0)) for d in (made, made.to(torch.device("cpu"))))
    torch.testing.assert_close(here, there, rtol=0, atol=0, equal_nan=True)


def test_grey_is_the_luma_that_pillow_computes():
    colours = torch.randint(256, (50, 3, 8, 8), generator=stream(0, "grey"), dtype=torch.uint8)
    ours = composed.grey(colours)
    theirs = np.stack([np.asarray(Image.fromarray(c.permute(1, 2, 0).numpy()).convert("L")) for c in colours])
    assert np.abs(ours.numpy().astype(int) - theirs).max() <= 1


def test_the_test_set_over_photographs_matches_its_pinned_checksum():
    """Made from the test digits and pictures alone: reading the training pictures would take longer than all else."""
    photographs = cifar10.from_parquet("test", jpeg=True)
    if photographs is None or mnist.find("t10k-images-idx3-ubyte") is None:
        pytest.skip("needs MNIST and a JPEG copy of CIFAR-10 in URAM_DATA")
    backgrounds = composed.grey(photographs.images)
    test = composed.fixed(mnist.split("t10k"), backgrounds, composed.OFTEN["test"], 10_000, "composed-jpeg", "test")
    assert md5(test.images, test.labels) == composed.SOURCES["composed-jpeg"][-1]
