"""Data sets behind one interface: `load(name)` gives a `Dataset`, whatever it is made from.

Here stands what is known of each data set before it is read, as plain data. PyTorch is imported when one is loaded.
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import UramError

if TYPE_CHECKING:
    from .base import Dataset

LONGEST = 5  # digits of the longest house number
PLACES = LONGEST + 1  # of a house number: its digits and its end
TERMINAL = 10  # class that ends a house number
CLASSES = 11  # of the places of house numbers
EMBEDDED = "digits"  # the names of all data sets made from scikit-learn's digits begin with it
BANNER = (
    "EMBEDDED DEFAULT: scikit-learn's 8x8 digits, resized. These numbers show that the machinery works; "
    "they are NOT comparable with the paper."
)
# Data on which results are published where the paper's own is not at hand: no verdict against the paper's values then.
STAND_INS = {"svhn": ("composed", "composed-jpeg"), "cifar10": ("cifar10-jpeg",)}
# Those of them that hold the paper's own images, re-encoded: effects between rows are judged on them, by name.
COPIES = ("cifar10-jpeg",)


class DataUnavailable(UramError):
    """The files of a data set are neither on disk nor to be had from the network."""


@dataclass(frozen=True)
class Entry:
    """What is known of a data set before it is read.

    module: the file here whose `load(name)` makes it. shape: (C, H, W) of what a model sees. fallbacks: what
    `available` tries in turn where files are missing. download: its size, where that is too much to fetch unasked.
    """

    module: str
    title: str
    shape: tuple[int, int, int]
    classes: int = 10
    fallbacks: tuple[str, ...] = ()
    download: str = ""


REGISTRY = {
    "mnist": Entry("mnist", "MNIST", (1, 28, 28), fallbacks=("digits",)),
    "digits": Entry("digits", "embedded digits (scikit-learn)", (1, 28, 28)),
    "digits-colour": Entry("digits", "embedded digits (scikit-learn), in colour", (3, 32, 32)),
    "cifar10": Entry("cifar10", "CIFAR-10", (3, 32, 32), fallbacks=("cifar10-jpeg", "digits-colour")),
    "cifar10-jpeg": Entry("cifar10", "CIFAR-10 (JPEG re-encoded)", (3, 32, 32), fallbacks=("digits-colour",)),
    "svhn": Entry("svhn", "SVHN full numbers", (1, 54, 54), CLASSES, ("digits-composed",), "2.6 GB"),
}
for _name, _digits, _behind, *_fallbacks in (
    ("composed", "mnist", "CIFAR-10", "composed-jpeg", "digits-composed"),
    ("composed-jpeg", "mnist", "CIFAR-10 (JPEG re-encoded)", "digits-composed"),
    ("digits-composed", "digits", "gradients"),
):
    _title = f"composed house numbers ({REGISTRY[_digits].title} over {_behind})"
    REGISTRY[_name] = Entry("composed", _title, (1, 54, 54), CLASSES, tuple(_fallbacks))
for _digits, _prefix in (("mnist", ""), ("digits", f"{EMBEDDED}-")):
    for _name in ("clutter100-10", "clutter100-10-fixed", "clutter100-8", "clutter100-4", "clutter60-4"):
        _side, _pieces, *_fixed = _name.removeprefix("clutter").split("-")
        _title = f"{_side} × {_side} cluttered {REGISTRY[_digits].title}, {', '.join([f'{_pieces} pieces', *_fixed])}"
        _others = () if _prefix else (f"{EMBEDDED}-{_name}",)
        REGISTRY[_prefix + _name] = Entry("clutter", _title, (1, int(_side), int(_side)), fallbacks=_others)
NAMES = tuple(REGISTRY)


def about(name: str) -> Entry:
    """What is known of data set `name` before it is read. Raises UramError, with all names, where it is unknown."""
    if name not in REGISTRY:
        raise UramError(f"unknown data set {name!r}; one of: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name]


def shape_of(name: str) -> tuple[tuple[int, int, int], int]:
    """(C, H, W) and the number of classes, without reading: for building a model where the data is not at hand."""
    return about(name).shape, about(name).classes


def holds_numbers(name: str) -> bool:
    """Whether data set `name` holds whole numbers, not single objects."""
    return about(name).classes == CLASSES


def is_embedded(name: str) -> bool:
    """Whether data set `name` is made from the embedded digits, so that its numbers are not comparable."""
    return name.split("-")[0] == EMBEDDED


@functools.cache
def load(name: str) -> "Dataset":
    """The data set called `name`, read once per process. Raises UramError for an unknown name or damaged files,
    DataUnavailable where the files are neither on disk nor to be downloaded."""
    return importlib.import_module(f".{about(name).module}", __name__).load(name)


def available(name: str) -> str:
    """`name` if its files can be had here, else the first of its fallbacks that can; then a warning says so."""
    try:
        load(name)
        return name
    except DataUnavailable as error:
        reason = error
    for other in about(name).fallbacks:
        with contextlib.suppress(DataUnavailable):
            load(other)
            banner = f" {BANNER}" if is_embedded(other) else ""
            warnings.warn(f"{reason} Running on {about(other).title} instead.{banner}", stacklevel=2)
            return other
    raise reason


def overview(names: Iterable[str] = NAMES) -> Iterator[str]:
    """One line per data set: its title, sizes and checksum, or why it is not here; the same reason is given once."""
    said: dict[str, str] = {}  # reason -> where it was given
    for name in names:
        if about(name).download and not importlib.import_module(f".{about(name).module}", __name__).here():
            yield f"{name}: not here. `uram data {name}` downloads it: {about(name).download}"
            continue
        try:
            yield load(name).summary
        except DataUnavailable as error:
            first = said.setdefault(str(error), name)
            yield f"{name}: not here. {error if first == name else f'See {first}.'}"


def __getattr__(name: str) -> object:
    """`Split` and `Dataset`, which need PyTorch, when they are first asked for."""
    if name in ("Split", "Dataset"):
        return getattr(importlib.import_module(".base", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
