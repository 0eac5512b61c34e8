"""CIFAR-10: 45,000 training, 5,000 validation and 10,000 test images of 32 x 32 in colour.

Two copies are known: the official files as torchvision reads (and downloads) them, and the parquet files of the Hugging
Face hub. Parquet files whose pictures are JPEG are a lossy re-encoding, so they are a data set of their own.
"""

import contextlib
import functools
import hashlib
import io
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import UramError
from ..paths import data_roots, relative
from ..seeding import stream
from . import Dataset, DataUnavailable, Split

TITLES = {"cifar10": "CIFAR-10", "cifar10-jpeg": "CIFAR-10 (JPEG re-encoded)"}
COUNTS = {"train": 50_000, "test": 10_000}
VALIDATION = 5_000
DOWNLOAD_TIMEOUT_S = 10
JPEG = b"\xff\xd8\xff"  # how a JPEG file starts


def parquet(part: str) -> Path | None:
    """The parquet file of `part` ("train" or "test"), or None."""
    for root in data_roots():
        path = root / "cifar10" / "plain_text" / f"{part}-00000-of-00001.parquet"
        if path.is_file():
            return path
    return None


def is_jpeg(path: Path) -> bool:
    """Whether a parquet file's pictures are JPEG. Raises UramError where it cannot be read."""
    return rows_of(path, 1)[0][0].startswith(JPEG)


@contextlib.contextmanager
def opened(path: Path) -> Iterator:
    """A `pyarrow.parquet.ParquetFile` to read from. Raises UramError where that fails, also within the block."""
    import pyarrow.parquet as pq

    try:
        yield pq.ParquetFile(path)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:  # pyarrow's errors are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UramError(f"{relative(path)} is damaged or no CIFAR-10 parquet file ({reason}); delete it") from error


def check_count(path: Path, count: int) -> None:
    """By the file's own index, without reading the pictures. Raises UramError where they are not `count`."""
    with opened(path) as file:
        found = file.metadata.num_rows
    if found != count:
        raise UramError(f"{relative(path)} holds {found:,} images, expected {count:,}")


def rows_of(path: Path, count: int | None = None) -> list[tuple[bytes, int]]:
    """The first `count` encoded pictures and labels of a parquet file; all when None.

    Raises UramError where it cannot be read.
    """
    with opened(path) as file:
        if count is None:
            table = file.read(["img", "label"])
        else:
            table = next(file.iter_batches(count, columns=["img", "label"]))
        pictures, labels = table["img"].to_pylist(), table["label"].to_pylist()
        return [(picture["bytes"], label) for picture, label in zip(pictures, labels, strict=True)]


def read_parquet(path: Path, count: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64. Raises UramError where they are not `count` good pictures."""
    check_count(path, count)
    rows = rows_of(path)
    images = np.empty((count, 32, 32, 3), np.uint8)
    for i, (raw, _) in enumerate(rows):
        try:
            images[i] = Image.open(io.BytesIO(raw)).convert("RGB")
        except (OSError, ValueError) as error:
            raise UramError(f"{relative(path)}: picture {i} cannot be read ({error})") from error
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor([label for _, label in rows])


def read_official(part: str) -> tuple[Tensor, Tensor]:
    """As `read_parquet`, from torchvision's files; they are downloaded where they are missing.

    Raises UramError for damaged ones, DataUnavailable without them and without a network, or where `URAM_OFFLINE` is
    set.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    before = socket.getdefaulttimeout()
    for root in data_roots():
        try:
            found = CIFAR10(root, train=part == "train")
            break
        except RuntimeError as error:
            folder = Path(root) / CIFAR10.base_folder
            for file, md5 in CIFAR10.train_list + CIFAR10.test_list:
                if folder.is_dir() and not check_integrity(folder / file, md5):
                    state = "damaged" if (folder / file).exists() else "missing"
                    raise UramError(
                        f"{relative(folder / file)} is {state} (expected MD5 {md5}); delete {relative(folder)}, "
                        "so that it is downloaded anew"
                    ) from error
    else:
        if os.environ.get("URAM_OFFLINE"):
            raise DataUnavailable("CIFAR-10 is not on this machine and URAM_OFFLINE forbids downloading it.")
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = CIFAR10(data_roots()[-1], train=part == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise DataUnavailable(f"CIFAR-10 is not on this machine and cannot be downloaded ({error}).") from error
        finally:
            socket.setdefaulttimeout(before)
    return torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(found.targets)


def reader(name: str) -> Callable[[str], tuple[Tensor, Tensor]]:
    """The function that reads "train" or "test" of `name`, "cifar10" or "cifar10-jpeg".

    Raises DataUnavailable where there is no JPEG copy; the official files are looked for when they are read.
    """
    path, other = parquet("train"), parquet("test")
    here = path is not None and other is not None
    if here and is_jpeg(path) == (name == "cifar10-jpeg"):
        check_count(other, COUNTS["test"])  # better now than after an hour of training
        return lambda part: read_parquet(parquet(part), COUNTS[part])
    if name == "cifar10-jpeg":
        raise DataUnavailable("No JPEG re-encoded copy of CIFAR-10 is on this machine (cifar10/plain_text/*.parquet).")
    return read_official


def split(images: Tensor, labels: Tensor) -> Split:
    """The object's centre is taken to be the image's."""
    return Split(images, labels, torch.full((len(labels), 2), 16.0))


@functools.cache
def load(name: str) -> Dataset:
    """`name`: "cifar10" or "cifar10-jpeg". 5,000 of the training images, drawn once by a fixed stream, are held out.

    Raises UramError for damaged files, DataUnavailable where the copy is neither here nor to be downloaded.
    """
    read = reader(name)
    images, labels = read("train")
    order = torch.randperm(len(labels), generator=stream(0, "cifar10", "validation"))
    held_out, kept = order[:VALIDATION].sort().values, order[VALIDATION:].sort().values
    digest = hashlib.md5(images.numpy().tobytes(), usedforsecurity=False)
    digest.update(labels.numpy().tobytes())
    return Dataset(
        name=name,
        title=TITLES[name],
        classes=10,
        train=split(images[kept], labels[kept]),
        validation=split(images[held_out], labels[held_out]),
        load_test=lambda: split(*read("test")),
        test_size=COUNTS["test"],
        checksum="md5:" + digest.hexdigest(),
    )
