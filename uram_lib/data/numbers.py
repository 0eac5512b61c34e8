"""House numbers as sequences of digits: what SVHN and the composed numbers have in common (§5.3, ledger F5-F7)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..glimpse import location_to_pixel
from . import LONGEST, PLACES, TERMINAL
from .base import Batch, Dataset, Split

SIDE = 64  # side of the stored images, in pixels
CROP = 54  # side of what a model sees
# Images by number of digits (1 to 5) in SVHN's three parts; train has one more, of six digits. They add up to the
# images and the digits that the authors state, but have not been compared with the archives digit by digit yet.
LENGTHS = {
    "train": (5_137, 18_130, 8_691, 1_434, 9),
    "extra": (9_385, 71_726, 106_789, 14_338, 115),
    "test": (2_483, 8_356, 2_081, 146, 2),
}


@dataclass(frozen=True)
class Sequences(Split):
    """images: (N, 1, 64, 64) or, cropped, (N, 1, 54, 54) uint8; labels: (N, 6) int64, the digits from left to right,
    then class 10 to the end; centres: (N, 5, 2), each digit's centre in pixels, x then y, NaN where there is none. A
    reader takes the same number of glimpses at each of the six places, one after the other: T is 6 times that."""

    @property
    def lengths(self) -> Tensor:
        """(N,) int64: the number of digits, 1 to 5."""
        return lengths_of(self.labels)

    def glimpse_distances(self, locations: Tensor) -> Tensor:
        """From each glimpse to the digit that is read, (M, T / 6) pixels for M digits. locations: (N, T, 2)."""
        pixels = location_to_pixel(locations, *self.images.shape[-2:]).unflatten(1, (PLACES, -1))[:, :-1]
        is_digit = counting(self.labels)[:, 1:]  # (N, 5): a place holds a digit where the next one counts
        return (pixels - self.centres[:, :, None]).norm(dim=-1)[is_digit]

    def per_object(self, values: Tensor) -> Tensor:
        """Values (N, T) at the glimpses as (M, T / 6), for M places: all digits and the end of each number."""
        return values.unflatten(1, (PLACES, -1))[counting(self.labels)]


@dataclass(frozen=True)
class SequenceDataset(Dataset):
    """Numbers kept at 64 x 64: training sees random 54 x 54 crops of `train`; validation and test are cropped in the
    middle."""

    def training_batch(self, index: Tensor, generator: torch.Generator, spread: float = 1.0) -> Batch:
        """Random crops of the images at `index`: (B, 1, 54, 54) in [0, 1], labels (B, n + 1) of numbers with at most
        n digits, the share `spread` of five and at least one, and centres (B, 5, 2)."""
        most = max(1, int(spread * LONGEST))
        whole = self.whole(index, most, generator)
        corners = torch.randint(SIDE - CROP + 1, (len(whole), 2), generator=generator, device=generator.device)
        images, labels, centres = crop(whole, corners).batch()
        return images, labels[:, : most + 1], centres

    def whole(self, index: Tensor, most: int, generator: torch.Generator) -> Sequences:
        """The images at `index`; others with at most `most` digits take the places of those that are too long."""
        if most < LONGEST:
            short = (self.train.lengths <= most).nonzero()[:, 0]
            index = short[index % len(short)]
        return self.train.at(index)


def lengths_of(labels: Tensor) -> Tensor:
    """The number of digits of each row of labels: (..., 6) -> (...)."""
    return (labels != TERMINAL).sum(-1)


def counting(labels: Tensor) -> Tensor:
    """Which labels count, (..., 6) bool: the digits and the class 10 that ends them. The rest is padding."""
    return torch.arange(labels.shape[-1], device=labels.device) <= lengths_of(labels)[..., None]


def encode(digits: list[int]) -> list[int]:
    """Digits from left to right as six labels: [4, 2] -> [4, 2, 10, 10, 10, 10]."""
    return digits + [TERMINAL] * (PLACES - len(digits))


def crop(split: Sequences, corners: Tensor) -> Sequences:
    """54 x 54 windows of 64 x 64 images. corners: (N, 2) int64 in [0, 10], the windows' first pixel, x then y."""
    columns, rows = (corners[:, :, None] + torch.arange(CROP, device=corners.device)).unbind(1)  # (N, 54)
    number = torch.arange(len(corners), device=corners.device)[:, None, None]
    images = split.images[number, 0, rows[:, :, None], columns[:, None, :]]  # (N, 54, 54)
    return Sequences(images[:, None], split.labels, split.centres - corners[:, None])


def middle(split: Sequences) -> Sequences:
    """The middle 54 x 54 of every image."""
    return crop(split, torch.full((len(split), 2), (SIDE - CROP) // 2, device=split.labels.device))
