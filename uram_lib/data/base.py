"""What every data set gives: splits of images with labels, and batches to train on.

Images are kept as bytes and reach the models as floats in [0, 1]. The test split is a function, not a field: it is
read once, at the end of a run.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
from torch import Tensor

from .. import UramError
from ..glimpse import location_to_pixel
from ..seeding import stream
from . import about

Batch = tuple[Tensor, Tensor, Tensor]  # images as floats in [0, 1], labels, centres


@dataclass(frozen=True)
class Split:
    """Images with labels. Raises UramError where there is none."""

    images: Tensor  #: (N, C, H, W) uint8.
    labels: Tensor  #: (N,) int64.
    centres: Tensor  #: (N, 2), each object's centre in pixels, x then y.
    lengths = None  #: How many digits each number has, (N,); None where each example is a single object.

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise UramError("a split needs at least one example, and this one is empty")

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self) -> Tensor:
        """The images as float32 in [0, 1]."""
        return self.images.to(torch.float32) / 255

    def at(self, index: Tensor | slice) -> Self:
        """The examples at `index`, in that order."""
        return type(self)(self.images[index], self.labels[index], self.centres[index])

    def batch(self) -> Batch:
        """All of it, to train on."""
        return self.floats(), self.labels, self.centres

    def to(self, device: torch.device) -> Self:
        """The same split on `device`."""
        return type(self)(self.images.to(device), self.labels.to(device), self.centres.to(device))

    def glimpse_distances(self, locations: Tensor) -> Tensor:
        """From each glimpse to the object it should find, in pixels: locations (N, T, 2) in [-1, 1] -> (N, T)."""
        return (location_to_pixel(locations, *self.images.shape[-2:]) - self.centres[:, None]).norm(dim=-1)

    def per_object(self, values: Tensor) -> Tensor:
        """What was measured at each glimpse, (N, T), by object that is read: (M, T)."""
        return values


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set."""

    name: str  #: As the registry spells it.
    train: Split
    validation: Split
    load_test: Callable[[], Split] = field(repr=False)  #: Gives the test split.
    test_size: int
    checksum: str  #: Of the test split of generated data, and of other data of the part that is trained on.

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

    def training_batch(self, index: Tensor, generator: torch.Generator, spread: float = 1.0) -> Batch:
        """The training examples at `index`, (B,): images (B, C, H, W) in [0, 1], labels (B,), and centres (B, 2). Data
        sets that draw their images use `generator`, and the share `spread` (0 to 1) of the range of translations, or of
        lengths of numbers."""
        return self.train.at(index).batch()

    def describe(self) -> dict:
        """The `dataset` entry of a run record."""
        sizes = {"train": len(self.train), "validation": len(self.validation), "test": self.test_size}
        name, _, variant = self.name.partition("-")
        return {"name": name, "variant": variant, "sizes": sizes, "checksum": self.checksum}

    def to(self, device: torch.device) -> Self:
        """The same data set, to train and validate on `device`."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: part.to(device) for name, part in parts.items() if hasattr(part, "to")})


def centred(images: Tensor, labels: Tensor) -> Split:
    """A split whose objects are taken to be in the middle of their images, (N, C, side, side)."""
    return Split(images, labels, torch.full((len(labels), 2), images.shape[-1] / 2))


def join(parts: list[Split]) -> Split:
    """The examples of all `parts`, one after the other."""
    return type(parts[0])(*(torch.cat([getattr(p, k) for p in parts]) for k in ("images", "labels", "centres")))


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
