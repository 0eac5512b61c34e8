"""What every data set gives: splits of images with labels, and batches to train on. Images are kept as bytes and reach
the models as floats in [0, 1]. The test split is a function, as it is read once, at the end of a run."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..common import UramError
from ..glimpse import location_to_pixel
from ..seeding import stream
from . import PLACES, TERMINAL, about


@dataclass(frozen=True)
class Split:
    """images: (N, C, H, W) uint8; labels: (N,) int64; centres: (N, 2), each object's centre in pixels, x then y. Raises
    UramError where N is 0.

    Of numbers, labels: (N, 6), the digits from left to right, then class 10 to the end; centres: (N, 5, 2), NaN where
    there is no digit. A reader takes the same number of glimpses at each of the six places, one after the other.
    """

    images: Tensor
    labels: Tensor
    centres: Tensor

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise UramError("a split needs at least one example, and this one is empty")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Tensor | None:
        """How many digits each number has, (N,) from 1 to 5; None where each example is a single object."""
        return lengths_of(self.labels) if self.labels.ndim > 1 else None

    def floats(self) -> Tensor:
        """The images as float32 in [0, 1]."""
        return self.images.to(torch.float32) / 255

    def at(self, index: Tensor | slice) -> "Split":
        """The examples at `index`, in that order."""
        return Split(self.images[index], self.labels[index], self.centres[index])

    def to(self, device: torch.device) -> "Split":
        """The same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device), self.centres.to(device))

    def glimpse_distances(self, locations: Tensor) -> Tensor:
        """From each glimpse to the object it should find, in pixels: locations (N, T, 2) in [-1, 1] -> (N, T), or
        (M, T / 6) for the M digits of numbers."""
        pixels = location_to_pixel(locations, *self.images.shape[-2:])
        if self.lengths is None:
            return (pixels - self.centres[:, None]).norm(dim=-1)
        is_digit = counting(self.labels)[:, 1:]  # (N, 5): a place holds a digit where the next one counts
        return (pixels.unflatten(1, (PLACES, -1))[:, :-1] - self.centres[:, :, None]).norm(dim=-1)[is_digit]

    def per_object(self, values: Tensor) -> Tensor:
        """What was measured at each glimpse, (N, T): the same, or of numbers (M, T / 6) for the M places that count."""
        return values if self.lengths is None else values.unflatten(1, (PLACES, -1))[counting(self.labels)]


@dataclass(frozen=True)
class Dataset:
    """name: as the registry spells it; load_test: gives the test split, of `test_size`, and raises UramError where a
    generated one is not the known one; checksum: of the test split of generated data, else of the part that is trained
    on; draw: of data sets that draw their images, makes these from `train` and the arguments of `training_batch`."""

    name: str
    train: Split
    validation: Split
    load_test: Callable[[], Split] = field(repr=False)
    test_size: int
    checksum: str
    draw: Callable[[Split, Tensor, torch.Generator, float], Split] | None = field(default=None, repr=False)

    @property
    def classes(self) -> int:
        return about(self.name).classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what a model sees."""
        return tuple(self.validation.images.shape[1:])

    @property
    def summary(self) -> str:
        """The data set in a line: its title, sizes and checksum."""
        sizes = f"{len(self.train):,} / {len(self.validation):,} / {self.test_size:,}"
        return f"{self.name}: {about(self.name).title}, {sizes} train / validation / test, {self.checksum}"

    def training_batch(self, index: Tensor, generator: torch.Generator, spread: float = 1.0) -> tuple:
        """The training examples at `index`, (B,): images (B, C, H, W) in [0, 1], labels (B,), and centres (B, 2). Data
        sets that draw their images use `generator`, and the share `spread` (0 to 1) of the range of translations, or of
        lengths of numbers: labels (B, n + 1), of numbers with at most n digits, and centres (B, 5, 2)."""
        drawn = self.draw(self.train, index, generator, spread) if self.draw else self.train.at(index)
        return drawn.floats(), drawn.labels, drawn.centres

    def describe(self) -> dict:
        """The `dataset` entry of a run record."""
        sizes = {"train": len(self.train), "validation": len(self.validation), "test": self.test_size}
        name, _, variant = self.name.partition("-")
        return {"name": name, "variant": variant, "sizes": sizes, "checksum": self.checksum}

    def to(self, device: torch.device) -> "Dataset":
        """The same data set with its training and validation splits on `device`."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))


def lengths_of(labels: Tensor) -> Tensor:
    """The number of digits of each row of labels: (..., 6) -> (...)."""
    return (labels != TERMINAL).sum(-1)


def counting(labels: Tensor) -> Tensor:
    """Which labels count, (..., 6) bool: the digits and the class 10 that ends them. The rest is padding."""
    return torch.arange(labels.shape[-1], device=labels.device) <= lengths_of(labels)[..., None]


def centred(images: Tensor, labels: Tensor) -> Split:
    """A split whose objects are taken to be in the middle of their images, (N, C, side, side)."""
    return Split(images, labels, torch.full((len(labels), 2), images.shape[-1] / 2))


def join(parts: list[Split]) -> Split:
    """The examples of all `parts`, one after the other."""
    return Split(*(torch.cat([getattr(p, k) for p in parts]) for k in ("images", "labels", "centres")))


def hold_out(everything: Split, count: int, name: str) -> tuple[Split, Split]:
    """Training and validation split: a fixed stream of data set `name` draws the `count` examples that are held out."""
    order = torch.randperm(len(everything), generator=stream(0, name, "validation"))
    return everything.at(order[count:].sort().values), everything.at(order[:count].sort().values)


def md5(*parts: Tensor | bytes) -> str:
    """ "md5:" and the MD5 of bytes, or of tensors' bytes, one after the other."""
    raw = b"".join(part.numpy().tobytes() if isinstance(part, Tensor) else part for part in parts)
    return f"md5:{hashlib.md5(raw, usedforsecurity=False).hexdigest()}"


def pinned(split: Split, name: str, expected: str) -> Split:
    """`split`, the generated test set of `name`. Raises UramError where its `md5` is not `expected`, "" for any."""
    if expected and (found := md5(split.images, split.labels)) != expected:
        raise UramError(f"the test set of {name} came out with {found}, expected {expected}")
    return split
