"""Data sets behind one interface: `load(name)` gives a `Dataset`, whatever it is made from.

Here stands what is known of each data set before it is read, as plain data. PyTorch is imported when one is loaded.
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import UramError

if TYPE_CHECKING:
    from .base import Dataset

LONGEST = 5  # digits of the longest house number
PLACES = LONGEST + 1  # of a house number: its digits and its end
TERMINAL = 10  # class that ends a house number
DIGITS, CLASSES = 10, 11  # classes of single objects, and of the places of house numbers
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
    settings: what else `module` needs to know.
    """

    module: str
    title: str
    shape: tuple[int, int, int]
    classes: int = DIGITS
    fallbacks: tuple[str, ...] = ()
    download: str = ""
    settings: dict = field(default_factory=dict)


def _canvases(name: str, side: int, pieces: int, digits: str, md5: str) -> Entry:
    """Cluttered `digits`; md5: of the test images and labels, the same with a fixed training set and without."""
    title = f"{side} × {side} cluttered {REGISTRY[digits].title}, {pieces} pieces" + ", fixed" * name.endswith("-fixed")
    settings = {"digits": digits, "pieces": pieces, "canvases": name.removesuffix("-fixed"), "md5": md5}
    fallbacks = () if digits == EMBEDDED else (f"{EMBEDDED}-{name}",)
    return Entry("clutter", title, (1, side, side), fallbacks=fallbacks, settings=settings)


def _composed(digits: str, backgrounds: str, sizes: tuple[int, int], md5: str, *fallbacks: str) -> Entry:
    """House numbers of `digits` over `backgrounds`. sizes: of the validation and the test set."""
    behind = REGISTRY[backgrounds].title if backgrounds in REGISTRY else backgrounds
    settings = {"digits": digits, "backgrounds": backgrounds, "sizes": sizes, "md5": md5}
    title = f"composed house numbers ({REGISTRY[digits].title} over {behind})"
    return Entry("composed", title, (1, 54, 54), CLASSES, fallbacks, settings=settings)


REGISTRY = {
    "mnist": Entry("mnist", "MNIST", (1, 28, 28), fallbacks=("digits",)),
    "digits": Entry("digits", "embedded digits (scikit-learn)", (1, 28, 28)),
    "digits-colour": Entry("digits", "embedded digits (scikit-learn), in colour", (3, 32, 32)),
    "cifar10": Entry("cifar10", "CIFAR-10", (3, 32, 32), fallbacks=("cifar10-jpeg", "digits-colour")),
    "cifar10-jpeg": Entry("cifar10", "CIFAR-10 (JPEG re-encoded)", (3, 32, 32), fallbacks=("digits-colour",)),
    "svhn": Entry("svhn", "SVHN full numbers", (1, 54, 54), CLASSES, ("digits-composed",), "2.6 GB"),
}
_MD5 = "6335a2751e7678b9d15ff3a08ed83806"
REGISTRY |= {
    # The first has no MD5: its official photographs were not at hand when these were written.
    "composed": _composed("mnist", "cifar10", (5_000, 10_000), "", "composed-jpeg", "digits-composed"),
    "composed-jpeg": _composed("mnist", "cifar10-jpeg", (5_000, 10_000), _MD5, "digits-composed"),
    "digits-composed": _composed("digits", "gradients", (200, 300), "93f8496de18d7dd0901f1c0bd2f4d12f"),
}
REGISTRY |= {
    name: _canvases(name, *rest)
    for name, *rest in (
        ("clutter100-10", 100, 10, "mnist", "8e381e8f0c4f653e212339d0ce206f35"),
        ("clutter100-10-fixed", 100, 10, "mnist", "8e381e8f0c4f653e212339d0ce206f35"),
        ("clutter100-8", 100, 8, "mnist", "bee143bdbad39997e079f9d95b4cc3a3"),
        ("clutter100-4", 100, 4, "mnist", "58d4e80492c35cea7eaf0ea8c432f41e"),
        ("clutter60-4", 60, 4, "mnist", "769ad14acd056e46139e0826fa1d1ffc"),
        ("digits-clutter100-10", 100, 10, "digits", "d907a67ab1b7313e3cd9726a8c7a7942"),
        ("digits-clutter100-10-fixed", 100, 10, "digits", "d907a67ab1b7313e3cd9726a8c7a7942"),
        ("digits-clutter100-8", 100, 8, "digits", "a295373915b18220016786d0cde4a69e"),
        ("digits-clutter100-4", 100, 4, "digits", "11defa8b94f0848ee9ab4fc398ce8813"),
        ("digits-clutter60-4", 60, 4, "digits", "82576eeb2e6720304bfb5fadccb10952"),
    )
}
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
