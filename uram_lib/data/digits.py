"""The embedded default: scikit-learn's 1,797 handwritten 8 x 8 digits, resized to 28 x 28. No file, no network."""

import functools
import hashlib

import torch
import torch.nn.functional as F

from ..seeding import stream
from . import Dataset, Split

SIZES = {"train": 1_297, "validation": 200, "test": 300}


@functools.cache
def load() -> Dataset:
    """The digits, split by a fixed stream. Numbers made from them are not comparable with the paper."""
    from sklearn.datasets import load_digits  # only where it is asked for: a machine that trains on MNIST may lack it

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16  # (N, 1, 8, 8)
    # 8 -> 20 pixels inside a margin of 4, as MNIST's digits fill 20 of 28 pixels.
    large = F.pad(F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))
    images, labels = (large * 255).round().to(torch.uint8), torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=stream(0, "digits", "split"))
    parts = dict(zip(SIZES, order.split(list(SIZES.values())), strict=True))
    part = {k: Split(images[i], labels[i], torch.full((len(i), 2), 14.0)) for k, i in parts.items()}
    return Dataset(
        name="digits",
        title="embedded digits (scikit-learn)",
        classes=10,
        train=part["train"],
        validation=part["validation"],
        load_test=lambda: part["test"],
        test_size=SIZES["test"],
        checksum="md5:" + hashlib.md5(bunch.images.astype("uint8").tobytes(), usedforsecurity=False).hexdigest(),
    )
