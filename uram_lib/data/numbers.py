"""House numbers as sequences of digits: what SVHN and the composed numbers have in common (§5.3, ledger F5-F7)."""

from collections.abc import Callable

import torch
from torch import Tensor

from . import LONGEST, PLACES, TERMINAL
from .base import Split

SIDE = 64  # side of the stored images, in pixels
CROP = 54  # side of what a model sees
# Images by number of digits (1 to 5) in SVHN's three parts; train has one more, of six digits. They add up to the
# images and the digits that the authors state, but have not been compared with the archives digit by digit yet.
LENGTHS = {
    "train": (5_137, 18_130, 8_691, 1_434, 9),
    "extra": (9_385, 71_726, 106_789, 14_338, 115),
    "test": (2_483, 8_356, 2_081, 146, 2),
}


def kept(train: Split, index: Tensor, most: int, generator: torch.Generator) -> Split:
    """The images at `index`; others with at most `most` digits take the places of those that are too long."""
    if most < LONGEST:
        short = (train.lengths <= most).nonzero()[:, 0]
        index = short[index % len(short)]
    return train.at(index)


def draw(train: Split, index: Tensor, generator: torch.Generator, spread: float, whole: Callable = kept) -> Split:
    """As `Dataset.draw`: random 54 x 54 crops of numbers with at most n digits, the share `spread` of five and at least
    one; labels: (B, n + 1). whole: gives the 64 x 64 images, as `kept`."""
    most = max(1, int(spread * LONGEST))
    large = whole(train, index, most, generator)
    corners = torch.randint(SIDE - CROP + 1, (len(large), 2), generator=generator, device=generator.device)
    cut = crop(large, corners)
    return Split(cut.images, cut.labels[:, : most + 1], cut.centres)


def encode(digits: list[int]) -> list[int]:
    """Digits from left to right as six labels: [4, 2] -> [4, 2, 10, 10, 10, 10]."""
    return digits + [TERMINAL] * (PLACES - len(digits))


def crop(split: Split, corners: Tensor) -> Split:
    """54 x 54 windows of 64 x 64 images. corners: (N, 2) int64 in [0, 10], the windows' first pixel, x then y."""
    columns, rows = (corners[:, :, None] + torch.arange(CROP, device=corners.device)).unbind(1)  # (N, 54)
    number = torch.arange(len(corners), device=corners.device)[:, None, None]
    images = split.images[number, 0, rows[:, :, None], columns[:, None, :]]  # (N, 54, 54)
    return Split(images[:, None], split.labels, split.centres - corners[:, None])


def middle(split: Split) -> Split:
    """The middle 54 x 54 of every image."""
    return crop(split, torch.full((len(split), 2), (SIDE - CROP) // 2, device=split.labels.device))
