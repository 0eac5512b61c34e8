"""MNIST: 54,000 training, 6,000 validation and 10,000 test images of 28 x 28 (§5)."""

import gzip
import zlib
from pathlib import Path

import torch

from .. import UramError
from ..paths import relative
from . import files
from .base import Dataset, Split, centred, hold_out, md5

MD5 = {  # of the uncompressed files, as published with the data
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
VALIDATION = 6_000
FOLDERS = ("MNIST/raw", "MNIST", "raw", "")  # below a data root


def locate(folder: Path, name: str) -> Path | None:
    """File `name` of `folder`, compressed or not, also where it is spelt train-images.idx3-ubyte; None without it."""
    pattern = name.replace("-idx", "[-.]idx")
    return next(iter([*folder.glob(pattern), *folder.glob(f"{pattern}.gz")]), None)


def find() -> Path | None:
    """The folder that holds MNIST: the first of those that have most of the four files, or None."""
    held = {folder: sum(locate(folder, name) is not None for name in MD5) for folder in files.folders(*FOLDERS)}
    folder = max(held, key=held.get)
    return folder if held[folder] else None


def download() -> Path:
    """Fetch MNIST with torchvision; returns its folder. Raises DataUnavailable where that cannot be."""
    with files.downloading("MNIST", f"{next(iter(MD5))}[.gz]", *FOLDERS):
        from torchvision.datasets import MNIST

        return Path(MNIST(files.writable(), train=True, download=True).raw_folder)


def read(folder: Path, name: str) -> bytes:
    """One uncompressed idx file. Raises UramError where it is missing, truncated or altered."""
    if (path := locate(folder, name)) is None:
        raise UramError(f"{relative(folder / name)} is missing; {relative(folder)} must hold {', '.join(MD5)}")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if (found := md5(raw)) != MD5[name]:
            raise ValueError(f"{len(raw):,} bytes with MD5 {found}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        again = f"expected MD5 {MD5[name]}; delete it and download MNIST again"
        raise UramError(f"{relative(path)} is damaged: {error}, {again}") from error
    return raw


def split(folder: Path, part: str) -> Split:
    """`part`: "train" (all 60,000) or "t10k" (the test set)."""
    images, labels = (bytearray(read(folder, f"{part}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
    images = torch.frombuffer(images, dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)
    return centred(images, torch.frombuffer(labels, dtype=torch.uint8, offset=8).long())


def load(name: str) -> Dataset:
    """MNIST. Raises UramError for damaged files, DataUnavailable where they are neither here nor to be downloaded."""
    folder = find() or download()
    test_size = len(split(folder, "t10k"))  # read once now: damage is better found before an hour of training
    train, validation = hold_out(split(folder, "train"), VALIDATION, name)
    checksum = md5("".join(MD5.values()).encode())
    return Dataset(name, train, validation, lambda: split(folder, "t10k"), test_size, checksum)
