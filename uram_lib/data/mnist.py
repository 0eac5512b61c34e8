"""MNIST: 54,000 training, 6,000 validation and 10,000 test images of 28 x 28 (§5)."""

import functools
import hashlib
import os
import socket
import warnings
from pathlib import Path

import torch
from torch import Tensor

from .. import UramError
from ..paths import data_roots, relative
from ..seeding import stream
from . import Dataset, DataUnavailable, Split

# MD5 of the uncompressed files, as published with the data.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
VALIDATION = 6_000
DOWNLOAD_TIMEOUT_S = 10


def find() -> Path | None:
    """The folder that holds the four MNIST files, or None."""
    for root in data_roots():
        folder = root / "MNIST" / "raw"
        if folder.is_dir() and any((folder / name).exists() for name in MD5):
            return folder
    return None


def download() -> Path:
    """Fetch MNIST with torchvision into the last data root. Raises DataUnavailable without a network or where
    `URAM_OFFLINE` is set."""
    if os.environ.get("URAM_OFFLINE"):
        raise DataUnavailable("MNIST is not on this machine and URAM_OFFLINE forbids downloading it.")
    from torchvision.datasets import MNIST

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        root = data_roots()[-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MNIST(root, train=True, download=True)
        return root / "MNIST" / "raw"
    except (OSError, RuntimeError) as error:
        raise DataUnavailable(f"MNIST is not on this machine and cannot be downloaded ({error}).") from error
    finally:
        socket.setdefaulttimeout(before)


def checked(folder: Path, name: str) -> bytes:
    """The bytes of one file. Raises UramError where it is missing, truncated or altered."""
    path = folder / name
    if not path.is_file():
        raise UramError(
            f"{relative(path)} is missing; the folder must hold: {', '.join(MD5)}; or delete it to download all"
        )
    raw = path.read_bytes()
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != MD5[name]:
        raise UramError(
            f"{relative(path)} is damaged: {len(raw)} bytes with MD5 {found}, expected MD5 {MD5[name]}; "
            "delete it and download MNIST again"
        )
    return raw


def read(folder: Path, name: str) -> Tensor:
    """One idx file as a uint8 tensor. Raises UramError as `checked` does."""
    raw = checked(folder, name)
    dimensions = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    return torch.frombuffer(bytearray(raw[4 + 4 * dimensions :]), dtype=torch.uint8).view(shape)


def split(folder: Path, part: str) -> Split:
    """`part`: "train" (all 60,000) or "t10k". The digits are centred, so each centre is the image's."""
    images = read(folder, f"{part}-images-idx3-ubyte")[:, None]  # (N, 1, 28, 28)
    labels = read(folder, f"{part}-labels-idx1-ubyte").long()
    return Split(images, labels, torch.full((len(labels), 2), 14.0))


@functools.cache
def load() -> Dataset:
    """MNIST with its fixed validation split: 6,000 of the training images, drawn once by a fixed stream."""
    folder = find() or download()
    for name in MD5:  # the test files too: better now than after an hour of training
        checked(folder, name)
    everything = split(folder, "train")
    order = torch.randperm(len(everything), generator=stream(0, "mnist", "validation"))
    held_out, kept = order[:VALIDATION].sort().values, order[VALIDATION:].sort().values
    part = lambda index: Split(everything.images[index], everything.labels[index], everything.centres[index])  # noqa: E731
    return Dataset(
        name="mnist",
        title="MNIST",
        classes=10,
        train=part(kept),
        validation=part(held_out),
        load_test=lambda: split(folder, "t10k"),
        test_size=10_000,
        checksum="md5:" + hashlib.md5("".join(MD5.values()).encode(), usedforsecurity=False).hexdigest(),
    )
