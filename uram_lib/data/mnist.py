"""MNIST: 54,000 training, 6,000 validation and 10,000 test images of 28 x 28 (§5)."""

import gzip
from pathlib import Path

import torch

from ..common import UramError, relative
from . import files
from .base import Dataset, Split, centred, hold_out, md5

MD5 = {  # of the uncompressed files, as published with the data
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
VALIDATION = 6_000
FOLDERS = ("MNIST/raw/", "MNIST/", "raw/", "")  # below a data root


def find(name: str) -> Path | None:
    """File `name`, compressed or not, also where it is spelt train-images.idx3-ubyte; None where it is not here."""
    pattern = name.replace("-idx", "[-.]idx")
    return next(iter(files.find(*(f"{folder}{pattern}{end}" for folder in FOLDERS for end in ("", ".gz")))), None)


def read(name: str) -> bytearray:
    """One uncompressed idx file. Raises UramError where it is missing, truncated or altered."""
    if (path := find(name)) is None:
        raise UramError(files.missing("A part of MNIST", f"{name}[.gz]"))
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if (found := md5(raw)) != f"md5:{MD5[name]}":
            raise ValueError(f"{len(raw):,} bytes with {found}")
    except files.DAMAGE as error:
        again = f"expected MD5 {MD5[name]}; delete it and download MNIST again"
        raise UramError(f"{relative(path)} is damaged: {error}, {again}") from error
    return bytearray(raw)


def split(part: str) -> Split:
    """`part`: "train" (all 60,000) or "t10k" (the test set). Raises UramError as `read`."""
    images = torch.frombuffer(read(f"{part}-images-idx3-ubyte"), dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)
    return centred(images, torch.frombuffer(read(f"{part}-labels-idx1-ubyte"), dtype=torch.uint8, offset=8).long())


def load(name: str) -> Dataset:
    """MNIST. Raises as `data.load`."""
    if not any(map(find, MD5)):
        with files.downloading("MNIST", f"MNIST/raw/{next(iter(MD5))}[.gz]"):
            from torchvision.datasets import MNIST

            MNIST(files.writable(), download=True)
    test = split("t10k")  # damage is better found before an hour of training
    train, validation = hold_out(split("train"), VALIDATION, name)
    return Dataset(name, train, validation, lambda: test, len(test), md5("".join(MD5.values()).encode()))
