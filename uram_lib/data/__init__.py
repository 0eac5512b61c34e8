"""Data sets behind one interface: `load(name)` gives a `Dataset`, whatever it is made from.

Images are kept as bytes and reach the models as floats in [0, 1]. The test split is a method, not a field: it is
read once, at the end of a run.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import UramError


class DataUnavailable(UramError):
    """The files of a data set are neither on disk nor to be had from the network."""


@dataclass(frozen=True)
class Split:
    """images: (N, C, H, W) uint8; labels: (N,) int64; centres: (N, 2), the object's centre in pixels, x then y."""

    images: Tensor
    labels: Tensor
    centres: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self) -> Tensor:
        """The images as float32 in [0, 1]."""
        return self.images.to(torch.float32) / 255

    def to(self, device: torch.device) -> "Split":
        return type(self)(self.images.to(device), self.labels.to(device), self.centres.to(device))


@dataclass(frozen=True)
class Dataset:
    """`name` is the data set and its variant as records spell it; `title` is for people; `checksum` covers the test
    split of generated data, and of other data the part that is trained on. `load_test` reads the test split."""

    name: str
    title: str
    classes: int
    train: Split
    validation: Split
    load_test: Callable[[], Split] = field(repr=False)
    test_size: int
    checksum: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return tuple(self.train.images.shape[1:])

    def training_batch(
        self, index: Tensor, generator: torch.Generator, spread: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The training examples at `index`, (B,): images (B, C, H, W) in [0, 1], labels (B,), and centres (B, 2).

        `generator` feeds data sets that draw their training images on the fly, and `spread` (0 to 1) is the share of
        the range of translations, or of lengths of numbers, that they use; the others leave both alone.
        """
        return self.train.images[index].to(torch.float32) / 255, self.train.labels[index], self.train.centres[index]

    def describe(self) -> dict:
        """The `dataset` entry of a run record."""
        sizes = {"train": len(self.train), "validation": len(self.validation), "test": self.test_size}
        name, _, variant = self.name.partition("-")
        return {"name": name, "variant": variant, "sizes": sizes, "checksum": self.checksum}

    def to(self, device: torch.device) -> "Dataset":
        """The same data set with its training and validation splits on `device`."""
        return type(self)(**{**self.__dict__, "train": self.train.to(device), "validation": self.validation.to(device)})


EMBEDDED = "digits"
DIGITS = 10  # classes of a data set of single objects; one of whole numbers has one more, which ends a number

# Data on which results are published where the paper's own is not at hand: no verdict against the paper's values then.
STAND_INS = {"svhn": ("composed", "composed-jpeg"), "cifar10": ("cifar10-jpeg",)}
# Those of them that hold the paper's own images, re-encoded: effects between rows are judged on them, by name. Composed
# numbers are generated, so that an effect on them decides nothing about the paper's.
COPIES = ("cifar10-jpeg",)


def loaders() -> dict[str, Callable[[], Dataset]]:
    """Loader by data set name."""
    from . import cifar10, clutter, colour, composed, digits, mnist, svhn

    made = {name: functools.partial(clutter.load, name) for name in clutter.TEST_MD5}
    made |= {name: functools.partial(composed.load, name) for name in composed.BACKGROUNDS}
    made |= {name: functools.partial(cifar10.load, name) for name in cifar10.TITLES}
    return {"mnist": mnist.load, "digits": digits.load, colour.NAME: colour.load, "svhn": svhn.load, **made}


def shape_of(name: str) -> tuple[tuple[int, int, int], int]:
    """(C, H, W) and the number of classes of data set `name`, without reading it: for building a model where the data
    is not at hand. Raises UramError as `load` does."""
    from . import cifar10, colour, sequences
    from .clutter import VARIANTS
    from .composed import BACKGROUNDS

    if name not in loaders():
        raise UramError(f"unknown data set {name!r}; one of: {', '.join(sorted(loaders()))}")
    if name == "svhn" or name in BACKGROUNDS:
        return (1, sequences.CROP, sequences.CROP), sequences.CLASSES
    if name == colour.NAME or name in cifar10.TITLES:
        return (3, 32, 32), DIGITS
    side = VARIANTS.get(name.removeprefix("digits-"), (28, 0))[0]
    return (1, side, side), DIGITS


def holds_numbers(name: str) -> bool:
    """Whether data set `name` holds whole numbers, not single objects. Raises UramError as `load` does."""
    return shape_of(name)[1] != DIGITS


def load(name: str) -> Dataset:
    """The data set called `name`.

    Raises UramError for an unknown name (listing the known ones) or damaged files, DataUnavailable where the files
    are neither on disk nor to be downloaded.
    """
    known = loaders()
    if name not in known:
        raise UramError(f"unknown data set {name!r}; one of: {', '.join(sorted(known))}")
    return known[name]()


def available(name: str) -> str:
    """`name` if its files can be had here, else a JPEG re-encoded copy of it, else the same made from the embedded
    digits; with a warning that says so."""
    try:
        load(name)
        return name
    except DataUnavailable as error:
        reason = error
    copy = f"{name}-jpeg"
    if copy in loaders():
        with contextlib.suppress(DataUnavailable):
            warnings.warn(f"{reason} Running on {load(copy).title} instead.", stacklevel=2)
            return copy
    warnings.warn(f"{reason} Running on the embedded digits instead. {BANNER}", stacklevel=2)
    channels = shape_of(name)[0][0]
    kind = "composed" if holds_numbers(name) else "colour" if channels == 3 else name
    return f"{EMBEDDED}-{kind}" if f"{EMBEDDED}-{kind}" in loaders() else EMBEDDED


def is_embedded(name: str) -> bool:
    """Whether data set `name` is made from the embedded digits, so that its numbers are not comparable."""
    return name.split("-")[0] == EMBEDDED


BANNER = (
    "EMBEDDED DEFAULT: scikit-learn's 8x8 digits, resized. These numbers show that the machinery works; "
    "they are NOT comparable with the paper."
)
