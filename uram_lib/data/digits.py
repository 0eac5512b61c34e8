"""The embedded default: scikit-learn's 1,797 handwritten 8 x 8 digits. No file, no network.

They come resized to 28 x 28, as MNIST's are, or painted in colour on 32 x 32, for machines without CIFAR-10.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..seeding import stream
from .base import Dataset, Split, centred, md5

SIZES = {"train": 1_297, "validation": 200, "test": 300}
MARGIN = 2  # pixels on each side of a digit in colour: 28 -> 32


def surfaces(count: int, channels: int, generator: torch.Generator) -> Tensor:
    """Smooth surfaces between 3 x 3 random levels: (count, channels, 32, 32) float64 in [0, 1]."""
    levels = torch.rand(count, channels, 3, 3, generator=generator, dtype=torch.float64)
    return F.interpolate(levels, size=(32, 32), mode="bilinear", align_corners=True)


def paint(bare: Split, part: str) -> Split:
    """The digits of `bare`, (N, 1, 28, 28), in colour, (N, 3, 32, 32) uint8, drawn once by a fixed stream of `part`: a
    ground in the lower half of the range, and ink of one random level per channel in the upper third."""
    generator = stream(0, "digits-colour", part)
    ground = 0.5 * surfaces(len(bare), 3, generator)
    ink = (2 + torch.rand(len(bare), 3, 1, 1, generator=generator, dtype=torch.float64)) / 3
    cover = F.pad(bare.images.to(torch.float64) / 255, [MARGIN] * 4)  # (N, 1, 32, 32)
    return centred((255 * (ground + cover * (ink - ground))).round().to(torch.uint8), bare.labels)


def load(name: str) -> Dataset:
    """`name`: "digits" or "digits-colour". Numbers made from them are not comparable with the paper."""
    from sklearn.datasets import load_digits  # only here: a machine that trains on MNIST may lack it

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16  # (N, 1, 8, 8)
    # 8 -> 20 pixels inside a margin of 4, as MNIST's digits fill 20 of 28 pixels.
    large = F.pad(F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))
    everything = centred((large * 255).round().to(torch.uint8), torch.from_numpy(bunch.target).long())
    order = torch.randperm(len(everything), generator=stream(0, "digits", "split")).split(list(SIZES.values()))
    parts = {part: everything.at(index) for part, index in zip(SIZES, order, strict=True)}
    checksum = md5(bunch.images.astype("uint8").tobytes())
    if name == "digits-colour":
        parts = {part: paint(bare, part) for part, bare in parts.items()}
        checksum = md5(*(split.images for split in parts.values()))
    return Dataset(name, parts["train"], parts["validation"], lambda: parts["test"], SIZES["test"], checksum)
