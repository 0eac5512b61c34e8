"""Cluttered, translated MNIST: a digit at a random place of a larger black canvas, with pieces of other digits (§5).

Made in batches, on the device that holds the digits. Training images are made on the fly from the training digits, or
once for a fixed training set; the validation and test sets are fixed, each from the digits of its own split (F1-F3).
"""

import functools

import torch
from torch import Tensor

from ..seeding import stream
from . import about, is_embedded
from . import load as load_dataset
from .base import Dataset, Split, join, pinned

PIECE = 8  # side of a piece of clutter, in pixels
CHUNK = 1_000  # images composed at a time when a whole split is made
MD5 = {  # of each test set's images and labels; a fixed training set has the same test set
    "clutter100-10": "md5:8e381e8f0c4f653e212339d0ce206f35",
    "clutter100-8": "md5:bee143bdbad39997e079f9d95b4cc3a3",
    "clutter100-4": "md5:58d4e80492c35cea7eaf0ea8c432f41e",
    "clutter60-4": "md5:769ad14acd056e46139e0826fa1d1ffc",
    "digits-clutter100-10": "md5:d907a67ab1b7313e3cd9726a8c7a7942",
    "digits-clutter100-8": "md5:a295373915b18220016786d0cde4a69e",
    "digits-clutter100-4": "md5:11defa8b94f0848ee9ab4fc398ce8813",
    "digits-clutter60-4": "md5:82576eeb2e6720304bfb5fadccb10952",
}


def compose(
    digits: Tensor, own: Tensor, side: int, pieces: int, generator: torch.Generator, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Place digits on canvases and add clutter, clipping at white.

    digits: (N, 1, 28, 28) uint8, the split's digits; own: (B,), which of them to place; generator: on their device.
    The digit's offset is uniform in {0, ..., side - 28} along x and y, both ends included, or in the central `spread`
    (0 to 1) of that range; each piece is an 8 x 8 window at a uniform offset of a digit other than the image's own, put
    at a uniform offset of the canvas.
    Returns canvases (B, 1, side, side) uint8 and the centres of the digits' frames (B, 2) in pixels, x then y.
    """
    batch, device, frame = len(own), digits.device, digits.shape[-1]
    draw = functools.partial(torch.randint, generator=generator, device=device)
    least = round((1 - spread) / 2 * (side - frame))
    corner = least + draw(side - frame + 1 - 2 * least, (batch, 2))  # x then y, as all below
    other = (own[:, None] + 1 + draw(len(digits) - 1, (batch, pieces))) % len(digits)  # (B, P), never `own`
    window = draw(frame - PIECE + 1, (batch, pieces, 2))  # in the other digit
    place = draw(side - PIECE + 1, (batch, pieces, 2))  # on the canvas

    def pixels(first: Tensor, size: int, width: int) -> Tensor:
        """Corners (..., 2) to (..., size * size), the places of a square's pixels in an image `width` wide."""
        square = torch.arange(size, device=device)[:, None] * width + torch.arange(size, device=device)
        return first[..., 1, None] * width + first[..., 0, None] + square.flatten()

    flat = digits.view(len(digits), -1)  # (N, 784)
    clutter = flat.view(-1)[other[..., None] * frame**2 + pixels(window, PIECE, frame)]  # (B, P, 64)
    # Sums of whole numbers do not depend on their order, so this is exact on an accelerator too.
    canvas = torch.zeros(batch, side**2, dtype=torch.int16, device=device)
    canvas.scatter_add_(1, pixels(corner, frame, side), flat[own].to(torch.int16))
    canvas.scatter_add_(1, pixels(place, PIECE, side).flatten(1), clutter.flatten(1).to(torch.int16))
    return canvas.clamp_(max=255).to(torch.uint8).view(batch, 1, side, side), corner + frame / 2


def load(name: str) -> Dataset:
    """Canvases of the registry's digits; `train` holds the bare ones. Where it is fixed, `spread` changes nothing."""
    source, plain = load_dataset("digits" if is_embedded(name) else "mnist"), name.removesuffix("-fixed")
    side, pieces = about(name).shape[-1], int(plain.split("-")[-1])

    def draw(bare: Split, own: Tensor, generator: torch.Generator, spread: float = 1.0) -> Split:
        images, centres = compose(bare.images, own, side, pieces, generator, spread)
        return Split(images, bare.labels[own], centres)

    def fixed(bare: Split, *names: str) -> Split:
        """One canvas for every digit of `bare`, from the stream `names` of seed 0: always the same images."""
        generator = stream(0, *names)
        return join([draw(bare, own, generator) for own in torch.arange(len(bare)).split(CHUNK)])

    @functools.cache
    def canvases(train: Split) -> Split:
        """All of them, on the device of `train`; 540 MB for MNIST, so made when first needed."""
        return fixed(train.to(torch.device("cpu")), name, "train").to(train.labels.device)

    def load_test() -> Split:
        return pinned(fixed(source.load_test(), plain, "test"), name, MD5[plain])

    validation = fixed(source.validation, plain, "validation")
    shown = draw if name == plain else lambda train, index, generator, spread: canvases(train).at(index)
    return Dataset(name, source.train, validation, load_test, source.test_size, MD5[plain], shown)
