"""CIFAR-10: 45,000 training, 5,000 validation and 10,000 test images of 32 x 32 in colour.

Two copies are known: the official files as torchvision reads (and downloads) them, and the parquet files of the Hugging
Face hub. Parquet files whose pictures are JPEG are a lossy re-encoding, so they are a data set of their own.
"""

import numpy as np
import torch

from ..common import UramError, relative
from . import DataUnavailable, files
from .base import Dataset, Split, centred, hold_out, md5

COUNTS = {"train": 50_000, "test": 10_000}
VALIDATION = 5_000
JPEG = b"\xff\xd8\xff"  # how a JPEG file starts
OWN = "[cC][iI][fF][aA][rR]*10/"  # its folder below a data root: cifar10, cifar-10, CIFAR10
PARQUET = [OWN + inner for inner in ("*/{}-*.parquet", "{}-*.parquet", "*/{}/*.parquet", "{}/*.parquet", "{}.parquet")]


def from_parquet(part: str, jpeg: bool) -> Split | None:
    """The pictures of `part` ("train" or "test"), (N, 3, 32, 32); None where there are no parquet files of the wanted
    kind, JPEG or not. Raises UramError where one is damaged or holds something else, and where they are not all."""
    import pyarrow.parquet as pq

    found = files.find(*(pattern.format(part) for pattern in PARQUET))
    images, labels, wanted = [], [], []
    for path in found:
        if wanted and path.parent != wanted[0].parent:  # a second copy may lie elsewhere
            continue
        try:
            table = pq.ParquetFile(path).read()
            pictures = [one["bytes"] for one in table["img" if "img" in table.column_names else "image"].to_pylist()]
            if pictures and pictures[0].startswith(JPEG) != jpeg:
                continue
            wanted.append(path)
            images += [np.asarray(files.picture(raw, "RGB")) for raw in pictures]
            if odd := {image.shape for image in images} - {(32, 32, 3)}:
                raise ValueError(f"a picture of {odd.pop()}, expected (32, 32, 3)")
            labels += table["label"].to_pylist()
            if not set(labels) <= set(range(10)):
                raise ValueError("labels other than 0 to 9")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # pyarrow's errors are ValueErrors
            reason = str(error).partition("\n")[0]
            raise UramError(f"{relative(path)} is damaged or no CIFAR-10 parquet file ({reason}); delete it") from error
    if not wanted:
        return None
    if len(images) != COUNTS[part]:
        shown = ", ".join(map(relative, wanted))
        raise UramError(f"{shown} holds {len(images):,} images, expected {COUNTS[part]:,}")
    return centred(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))


def official() -> list[Split]:
    """All training images and the test images from torchvision's files. Raises UramError for damaged ones,
    DataUnavailable where they are neither here nor to be downloaded."""
    from torchvision.datasets import CIFAR10

    inside = CIFAR10.base_folder  # cifar-10-batches-py
    if not (found := files.find(inside, OWN + inside)):
        with files.downloading("CIFAR-10", f"{inside}/ or cifar10/ with parquet files"):
            found = [files.writable() / inside]
            CIFAR10(found[0].parent, download=True)
    try:
        parts = [CIFAR10(found[0].parent, train=part == "train") for part in COUNTS]
    except RuntimeError as error:  # another MD5 of one of the files
        raise UramError(f"{relative(found[0])} is damaged or not whole; delete it, to download it anew") from error
    return [centred(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets)) for p in parts]


def load(name: str) -> Dataset:
    """`name`: "cifar10" or "cifar10-jpeg"; both hold out the same 5,000 images. Raises as `data.load`."""
    jpeg = name == "cifar10-jpeg"
    everything, test = (from_parquet(part, jpeg) for part in COUNTS)
    if everything is None or test is None:
        if jpeg:
            raise DataUnavailable(files.missing("A JPEG copy of CIFAR-10", "cifar10/ with parquet files") + ".")
        everything, test = official()
    train, validation = hold_out(everything, VALIDATION, "cifar10")
    checksum = md5(everything.images, everything.labels)
    return Dataset(name, train, validation, lambda: test, len(test), checksum)
