"""CIFAR-10: 45,000 training, 5,000 validation and 10,000 test images of 32 x 32 in colour.

Two copies are known: the official files as torchvision reads (and downloads) them, and the parquet files of the Hugging
Face hub. Parquet files whose pictures are JPEG are a lossy re-encoding, so they are a data set of their own.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import UramError
from ..paths import relative
from . import DataUnavailable, files
from .base import Dataset, centred, hold_out, md5

COUNTS = {"train": 50_000, "test": 10_000}
VALIDATION = 5_000
JPEG = b"\xff\xd8\xff"  # how a JPEG file starts
NAMES = ("cifar10", "cifar-10", "CIFAR10")
FOLDERS = [f"{name}{inner}" for name in NAMES for inner in ("/plain_text", "/data", "")]  # below a data root
COLUMNS = (("img", "image"), ("label", "labels"))  # names of the pictures' and of the labels' column


def parquet(part: str) -> list[Path]:
    """The parquet files of `part` ("train" or "test"), in order; none where there are none."""
    patterns = (f"{part}-*.parquet", f"{part}/*.parquet", f"{part}.parquet")
    found = (sorted(folder.glob(pattern)) for folder in files.folders(*FOLDERS) for pattern in patterns)
    return next(filter(None, found), [])


def encoded(part: str) -> list[tuple[str, bytes, int]]:
    """Where each picture of `part` stands in the parquet files, the picture's bytes, and its label. Raises UramError,
    one line, where a file cannot be read or holds something else, and where they are not all."""
    import pyarrow.parquet as pq

    rows = []
    for path in parquet(part):
        try:
            table = pq.ParquetFile(path).read()
            there = table.column_names
            columns = [next((name for name in names if name in there), None) for names in COLUMNS]
            if None in columns:
                raise ValueError(f"columns {', '.join(there)}, expected img or image, and label or labels")
            pictures, labels = (table[name].to_pylist() for name in columns)
            pictures = [picture["bytes"] if isinstance(picture, dict) else picture for picture in pictures]
            if not all(isinstance(raw, bytes) for raw in pictures) or not set(labels) <= set(range(10)):
                raise ValueError("expected pictures as bytes, and labels from 0 to 9")
        except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are ValueErrors
            reason = str(error).partition("\n")[0]
            raise UramError(f"{relative(path)} is damaged or no CIFAR-10 parquet file ({reason}); delete it") from error
        places = (f"{relative(path)}: picture {i}" for i in range(len(labels)))
        rows += zip(places, pictures, labels, strict=True)
    if len(rows) != COUNTS[part]:
        shown = ", ".join(map(relative, parquet(part)))
        raise UramError(f"{shown} holds {len(rows):,} images, expected {COUNTS[part]:,}")
    return rows


def read_parquet(part: str) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64. Raises UramError as `encoded`, and for damaged pictures."""
    images, rows = [], encoded(part)
    for where, raw, _ in rows:
        try:
            image = files.picture(raw, "RGB")
            if image.size != (32, 32):
                raise ValueError(f"{image.width} x {image.height} pixels, expected 32 x 32")
        except ValueError as error:
            raise UramError(f"{where} cannot be read ({error})") from error
        images.append(np.asarray(image))
    labels = torch.tensor([label for *_, label in rows])
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), labels


def read_official(part: str) -> tuple[Tensor, Tensor]:
    """As `read_parquet`, from torchvision's files. Raises UramError for damaged ones, DataUnavailable where they are
    neither here nor to be downloaded."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    inside = CIFAR10.base_folder  # cifar-10-batches-py
    places = files.folders(inside, *(f"{name}/{inside}" for name in NAMES))
    if (folder := next(filter(Path.is_dir, places), None)) is None:
        with files.downloading("CIFAR-10", f"{inside} or parquet files of it", *FOLDERS):
            folder = Path(CIFAR10(files.writable(), download=True).root) / inside
    for file, expected in CIFAR10.train_list + CIFAR10.test_list:
        if not check_integrity(path := folder / file, expected):
            state = f"{'damaged' if path.exists() else 'missing'} (expected MD5 {expected})"
            raise UramError(f"{relative(path)} is {state}; delete {relative(folder)}, to download it anew")
    found = CIFAR10(folder.parent, train=part == "train")
    return torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(found.targets)


def reader(name: str) -> Callable[[str], tuple[Tensor, Tensor]]:
    """The function that reads "train" or "test" of `name`, "cifar10" or "cifar10-jpeg". Raises DataUnavailable where
    there is no JPEG copy; the official files are looked for when they are read."""
    if parquet("train") and parquet("test"):
        _, first, _ = encoded("test")[0]  # damage is better found now than after an hour of training
        if first.startswith(JPEG) == (name == "cifar10-jpeg"):
            return read_parquet
    if name == "cifar10-jpeg":
        raise DataUnavailable(files.missing("A JPEG copy of CIFAR-10", "parquet files of it", *FOLDERS) + ".")
    return read_official


def load(name: str) -> Dataset:
    """`name`: "cifar10" or "cifar10-jpeg". 5,000 of the training images, drawn once by a fixed stream, are held out.
    Raises UramError for damaged files, DataUnavailable where the copy is neither here nor to be downloaded."""
    read = reader(name)
    images, labels = read("train")
    train, validation = hold_out(centred(images, labels), VALIDATION, "cifar10")
    return Dataset(name, train, validation, lambda: centred(*read("test")), COUNTS["test"], md5(images, labels))
