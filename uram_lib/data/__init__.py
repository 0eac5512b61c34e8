"""Data sets behind one interface: `load(name)` gives a `base.Dataset`, whatever it is made from.

Here stands what is known of each data set before it is read. PyTorch is imported when one is loaded.
"""

import functools
import importlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..common import UramError, check

LONGEST = 5  # digits of the longest house number
PLACES = LONGEST + 1  # of a house number: its digits and its end
TERMINAL = 10  # class that ends a house number
CLASSES = 11  # of the places of house numbers
EMBEDDED = "digits"  # the names of all data sets made from scikit-learn's digits begin with it
BANNER = (
    "EMBEDDED DEFAULT: scikit-learn's 8x8 digits, resized. These numbers show that the machinery works; "
    "they are NOT comparable with the paper."
)
# Data that holds the paper's own images, re-encoded: effects between rows are judged on it, by name.
COPIES = ("cifar10-jpeg",)


class DataUnavailable(UramError):
    """The files of a data set are neither on disk nor to be had from the network."""


@dataclass(frozen=True)
class Entry:
    """What is known of a data set before it is read."""

    module: str  #: The file here whose `load(name)` makes it.
    title: str
    shape: tuple[int, int, int]  #: (C, H, W) of what a model sees.
    classes: int = 10
    fallbacks: tuple[str, ...] = ()  #: What `available` tries in turn where files are missing.
    download: str = ""  #: Its size, where that is too much to fetch unasked.


_MNIST, _DIGITS, _CIFAR10, _JPEG = "MNIST", "embedded digits (scikit-learn)", "CIFAR-10", "CIFAR-10 (JPEG re-encoded)"
_HOUSES = "composed house numbers ({} over {})"
_numbers = functools.partial(Entry, shape=(1, 54, 54), classes=CLASSES)
REGISTRY = {
    "mnist": Entry("mnist", _MNIST, (1, 28, 28), fallbacks=("digits",)),
    "digits": Entry("digits", _DIGITS, (1, 28, 28)),
    "digits-colour": Entry("digits", f"{_DIGITS}, in colour", (3, 32, 32)),
    "cifar10": Entry("cifar10", _CIFAR10, (3, 32, 32), fallbacks=("cifar10-jpeg", "digits-colour")),
    "cifar10-jpeg": Entry("cifar10", _JPEG, (3, 32, 32), fallbacks=("digits-colour",)),
    "svhn": _numbers("svhn", "SVHN full numbers", fallbacks=("digits-composed",), download="2.6 GB"),
    "composed": _numbers("composed", _HOUSES.format(_MNIST, _CIFAR10), fallbacks=("composed-jpeg", "digits-composed")),
    "composed-jpeg": _numbers("composed", _HOUSES.format(_MNIST, _JPEG), fallbacks=("digits-composed",)),
    "digits-composed": _numbers("composed", _HOUSES.format(_DIGITS, "gradients")),
}
for _prefix, _digits in (("", _MNIST), ("digits-", _DIGITS)):
    for _name in ("clutter100-10", "clutter100-10-fixed", "clutter100-8", "clutter100-4", "clutter60-4"):
        _side, _pieces, *_fixed = _name.removeprefix("clutter").split("-")
        _title = f"{_side} × {_side} cluttered {_digits}, {', '.join([f'{_pieces} pieces', *_fixed])}"
        _others = () if _prefix else (f"digits-{_name}",)
        REGISTRY[_prefix + _name] = Entry("clutter", _title, (1, int(_side), int(_side)), fallbacks=_others)
NAMES = tuple(REGISTRY)


def about(name: str) -> Entry:
    """What is known of data set `name` before it is read. Raises UramError, with all names, where it is unknown."""
    check("data set", name, sorted(REGISTRY))
    return REGISTRY[name]


def shape_of(name: str) -> tuple[tuple[int, int, int], int]:
    """(C, H, W) and the number of classes, without reading: for building a model where the data is not at hand."""
    return about(name).shape, about(name).classes


def kind_of(name: str) -> str:
    """What data set `name` holds: "whole numbers", "grey digits" or "colour pictures"."""
    (channels, *_), classes = shape_of(name)
    return "whole numbers" if classes == CLASSES else "grey digits" if channels == 1 else "colour pictures"


def is_embedded(name: str) -> bool:
    """Whether data set `name` is made from the embedded digits, so that its numbers are not comparable."""
    return name.split("-")[0] == EMBEDDED


@functools.cache
def load(name: str):
    """The `base.Dataset` of that name, read once per process. Raises UramError for an unknown name or damaged files,
    DataUnavailable where the files are neither on disk nor to be downloaded."""
    return importlib.import_module(f".{about(name).module}", __name__).load(name)


def available(name: str) -> str:
    """`name` if its files can be had here, else the first of its fallbacks that can; then a warning says so."""
    reason = None
    for other in (name, *about(name).fallbacks):
        try:
            load(other)
        except DataUnavailable as error:
            reason = reason or error
            continue
        if reason:
            banner = f" {BANNER}" if is_embedded(other) else ""
            warnings.warn(f"{reason} Running on {about(other).title} instead.{banner}", stacklevel=2)
        return other
    raise reason


def overview(names: Iterable[str] = NAMES) -> Iterator[str]:
    """One line per data set: its title, sizes and checksum, or why it is not here; the same reason is given once.
    Raises UramError after the last line where files are damaged."""
    said: dict[str, str] = {}  # reason -> where it was given
    damaged = []
    for name in names:
        try:
            if about(name).download and not importlib.import_module(f".{about(name).module}", __name__).here():
                yield f"{name}: not here. `uram data {name}` downloads it: {about(name).download}"
            else:
                yield load(name).summary
        except UramError as error:
            missing, first = isinstance(error, DataUnavailable), said.setdefault(str(error), name)
            yield f"{name}: {'not here. ' if missing else ''}{error if first == name else f'See {first}.'}"
            damaged += [] if missing else [name]
    if damaged:
        raise UramError(f"cannot be read: {', '.join(damaged)}")
