"""The embedded digits in colour, for machines without CIFAR-10: a digit of one bright colour on a dark, smooth ground.

32 x 32 pixels, as CIFAR-10 has; the splits are those of the embedded digits, so no digit is in two of them. Colours and
grounds are drawn once, by a fixed stream of each split.
"""

import functools
import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from ..seeding import stream
from . import Dataset, Split, digits

NAME = "digits-colour"
MARGIN = 2  # pixels on each side: 28 -> 32


def paint(bare: Split, part: str) -> Split:
    """The digits of `bare`, (N, 1, 28, 28), as images of (N, 3, 32, 32) uint8.

    Each of the three channels of a ground runs smoothly between 3 x 3 random levels in the lower half of the range; a
    digit's ink has one random level in the upper third of the range a channel.
    """
    count, generator = len(bare), stream(0, NAME, part)
    draw = lambda *shape: torch.rand(count, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    side = bare.images.shape[-1] + 2 * MARGIN
    ground = 0.5 * F.interpolate(draw(3, 3, 3), size=(side, side), mode="bilinear", align_corners=True)
    ink = (2 + draw(3, 1, 1)) / 3  # (N, 3, 1, 1)
    cover = F.pad(bare.images.to(torch.float64) / 255, [MARGIN] * 4)  # (N, 1, 32, 32)
    images: Tensor = (255 * (ground + cover * (ink - ground))).round().to(torch.uint8)
    return Split(images, bare.labels, bare.centres + MARGIN)


@functools.cache
def load() -> Dataset:
    """The digits in colour. Numbers made from them are not comparable with the paper."""
    bare = digits.load()
    train, validation, test = (
        paint(split, part)
        for part, split in (("train", bare.train), ("validation", bare.validation), ("test", bare.load_test()))
    )
    digest = hashlib.md5(usedforsecurity=False)
    for split in (train, validation, test):
        digest.update(split.images.numpy().tobytes())
    return Dataset(
        name=NAME,
        title="embedded digits (scikit-learn), in colour",
        classes=bare.classes,
        train=train,
        validation=validation,
        load_test=lambda: test,
        test_size=bare.test_size,
        checksum="md5:" + digest.hexdigest(),
    )
