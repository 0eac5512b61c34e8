"""House numbers as sequences of digits: what SVHN and the composed numbers have in common (§5.3, ledger F5-F7)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import Dataset, Split

LONGEST = 5  # digits of the longest number
PLACES = LONGEST + 1  # of a number: its digits and its end
TERMINAL = 10  # class that ends a sequence
CLASSES = 11
SIDE = 64  # side of the stored images, in pixels
CROP = 54  # side of what a model sees

# Images by number of digits (1 to 5) in SVHN's three parts; train has one more, of six digits. The counts add up to
# the 33,402, 202,353 and 13,068 images and the 73,257, 531,131 and 26,032 digits that the authors state; digit by
# digit they are yet to be held against the archives.
LENGTHS = {
    "train": (5_137, 18_130, 8_691, 1_434, 9),
    "extra": (9_385, 71_726, 106_789, 14_338, 115),
    "test": (2_483, 8_356, 2_081, 146, 2),
}


@dataclass(frozen=True)
class Sequences(Split):
    """images: (N, 1, 64, 64) or, cropped, (N, 1, 54, 54) uint8; labels: (N, 6) int64, the digits from left to right,
    then class 10 to the end; centres: (N, 5, 2), each digit's centre in pixels, x then y, NaN where there is none."""

    @property
    def lengths(self) -> Tensor:
        """(N,) int64: the number of digits, 1 to 5."""
        return lengths_of(self.labels)

    def at(self, index: Tensor) -> "Sequences":
        """The examples at `index`."""
        return Sequences(self.images[index], self.labels[index], self.centres[index])


@dataclass(frozen=True)
class SequenceDataset(Dataset):
    """Numbers kept at 64 x 64: training sees random 54 x 54 crops of them, validation and test the middle one.

    `train` holds the whole images, `validation` and the test split what the models see. `skipped` counts the images
    that were left out because they could not be read.
    """

    skipped: int = field(default=0, kw_only=True)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, CROP, CROP)

    def training_batch(
        self, index: Tensor, generator: torch.Generator, spread: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Random crops of the images at `index`: (B, 1, 54, 54) in [0, 1], labels (B, n + 1) of numbers with at most n
        digits, centres (B, 5, 2). n is 5; with `spread` below 1 it is `longest(spread)`, and there are as many images,
        of which some take the places of those that are too long."""
        most = longest(spread)
        if most < LONGEST:
            short = (self.train.lengths <= most).nonzero()[:, 0]
            index = short[index % len(short)]
        batch = crop(self.train.at(index), random_corners(len(index), generator))
        return batch.floats(), batch.labels[:, : most + 1], batch.centres


def longest(spread: float) -> int:
    """Digits of the longest numbers that a curriculum shows which has come to the share `spread`, in (0, 1]."""
    return max(1, int(spread * LONGEST))


def lengths_of(labels: Tensor) -> Tensor:
    """The number of digits of each row of labels: (..., 6) -> (...)."""
    return (labels != TERMINAL).sum(-1)


def counting(labels: Tensor) -> Tensor:
    """Which labels count, (..., 6) bool: the digits and the class 10 that ends them. The rest is padding."""
    places = torch.arange(labels.shape[-1], device=labels.device)
    return places <= lengths_of(labels)[..., None]


def encode(digits: list[int]) -> list[int]:
    """Digits from left to right as six labels: [4, 2] -> [4, 2, 10, 10, 10, 10]."""
    return digits + [TERMINAL] * (PLACES - len(digits))


def crop(split: Sequences, corners: Tensor) -> Sequences:
    """54 x 54 windows of 64 x 64 images. corners: (N, 2) int64 in [0, 10], the windows' first pixel, x then y."""
    across = torch.arange(CROP, device=corners.device)
    columns, rows = (corners[:, axis, None] + across for axis in (0, 1))  # (N, 54)
    number = torch.arange(len(corners), device=corners.device)[:, None, None]
    images = split.images[number, 0, rows[:, :, None], columns[:, None, :]][:, None]  # (N, 1, 54, 54)
    return Sequences(images, split.labels, split.centres - corners[:, None])


def middle(split: Sequences) -> Sequences:
    """The middle 54 x 54 of every image."""
    return crop(split, torch.full((len(split), 2), (SIDE - CROP) // 2, device=split.labels.device))


def random_corners(count: int, generator: torch.Generator) -> Tensor:
    """Corners for `crop`, (count, 2), uniform over all places."""
    return torch.randint(SIDE - CROP + 1, (count, 2), generator=generator, device=generator.device)
