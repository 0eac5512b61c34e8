"""Cluttered, translated MNIST: a digit at a random place of a larger black canvas, with pieces of other digits (§5).

Made in batches, on the device that holds the digits. Training images are made on the fly from the training digits;
the validation and test sets are fixed by a seed, each from the digits of its own split (ledger F1-F3).
"""

import functools
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import UramError, compiled
from ..seeding import stream
from . import Dataset, Split, digits, mnist

PIECE = 8  # side of a piece of clutter, in pixels
VARIANTS = {"clutter100-10": (100, 10), "clutter100-8": (100, 8), "clutter60-4": (60, 4)}  # canvas side, pieces
CHUNK = 1_000  # images composed at a time when a whole split is made

# MD5 of the test images and labels that the fixed seed gives.
TEST_MD5 = {
    "clutter100-10": "8e381e8f0c4f653e212339d0ce206f35",
    "clutter100-8": "bee143bdbad39997e079f9d95b4cc3a3",
    "clutter60-4": "769ad14acd056e46139e0826fa1d1ffc",
    "digits-clutter100-10": "d907a67ab1b7313e3cd9726a8c7a7942",
    "digits-clutter100-8": "a295373915b18220016786d0cde4a69e",
    "digits-clutter60-4": "82576eeb2e6720304bfb5fadccb10952",
}


def compose(
    digits: Tensor, own: Tensor, side: int, pieces: int, generator: torch.Generator, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Place digits on canvases and add clutter, clipping at white.

    digits: (N, 1, 28, 28) uint8, the split's digits; own: (B,), which of them to place; generator: on their device.
    The digit's offset is uniform in {0, ..., side - 28} along x and y, both ends included, or in the central `spread`
    (0 to 1) of that range, for a curriculum on translations; each piece is an 8 x 8
    window at a uniform offset of a digit other than the image's own, put at a uniform offset of the canvas.
    Returns canvases (B, 1, side, side) uint8 and the centres of the digits' frames (B, 2) in pixels, x then y.
    """
    batch, device, frame = len(own), digits.device, digits.shape[-1]
    draw = lambda high, *shape: torch.randint(high, shape, generator=generator, device=device)  # noqa: E731
    least = round((1 - spread) / 2 * (side - frame))
    corner = least + draw(side - frame + 1 - 2 * least, batch, 2)  # (B, 2), x then y
    other = (own[:, None] + 1 + draw(len(digits) - 1, batch, pieces)) % len(digits)  # (B, P), never `own`
    window = draw(frame - PIECE + 1, batch, pieces, 2)
    place = draw(side - PIECE + 1, batch, pieces, 2)

    images = compiled.canvases(digits, own, corner, other, window, place, side, PIECE)
    if images is None:
        images = paint(digits, own, corner, other, window, place, side)
    return images, corner + frame / 2


def paint(
    digits: Tensor, own: Tensor, corner: Tensor, other: Tensor, window: Tensor, place: Tensor, side: int
) -> Tensor:
    """Canvases (B, 1, side, side) uint8 with digit `own` (B,) at `corner` (B, 2) and, added to it up to white, pieces:
    of digits `other` (B, P), the windows at `window` (B, P, 2) in them, put at `place` (B, P, 2); all x then y.

    `compiled.canvases` does the same, faster, where it can.
    """
    batch, device, frame = len(own), digits.device, digits.shape[-1]
    flat = digits.view(len(digits), -1)  # (N, 784)
    square = lambda n, width: (torch.arange(n)[:, None] * width + torch.arange(n)).flatten().to(device)  # noqa: E731
    source = window[..., 1, None] * frame + window[..., 0, None] + square(PIECE, frame)  # (B, P, 64)
    clutter = flat.view(-1)[other[..., None] * frame**2 + source]  # (B, P, 64)
    where_clutter = place[..., 1, None] * side + place[..., 0, None] + square(PIECE, side)  # (B, P, 64)
    where_digit = corner[:, 1, None] * side + corner[:, 0, None] + square(frame, side)  # (B, 784)

    # Sums of whole numbers do not depend on their order, so this is exact on an accelerator too.
    canvas = torch.zeros(batch, side**2, dtype=torch.int16, device=device)
    canvas.scatter_add_(1, where_digit, flat[own].to(torch.int16))
    canvas.scatter_add_(1, where_clutter.flatten(1), clutter.flatten(1).to(torch.int16))
    return canvas.clamp_(max=255).to(torch.uint8).view(batch, 1, side, side)


@dataclass(frozen=True)
class Cluttered(Dataset):
    """`train` holds the bare digits; images are composed when a batch is asked for."""

    side: int = 0
    pieces: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, self.side, self.side)

    def training_batch(
        self, index: Tensor, generator: torch.Generator, spread: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New canvases around the digits at `index`: (B, 1, side, side) in [0, 1], labels (B,), centres (B, 2)."""
        canvas, centres = compose(self.train.images, index, self.side, self.pieces, generator, spread)
        return canvas.to(torch.float32) / 255, self.train.labels[index], centres


def fixed(bare: Split, side: int, pieces: int, *names: object) -> Split:
    """One canvas for every digit of `bare`, from the stream `names` of seed 0: always the same images."""
    generator = stream(0, *names)
    parts = [compose(bare.images, own, side, pieces, generator) for own in torch.arange(len(bare)).split(CHUNK)]
    images, centres = (torch.cat(part) for part in zip(*parts, strict=True))
    return Split(images, bare.labels, centres)


def fixed_test(source: Dataset, name: str, side: int, pieces: int) -> Split:
    """The test set of `name`. Raises UramError where this machine's generator gives other images than the pinned."""
    split = fixed(source.load_test(), side, pieces, name, "test")
    if (found := md5(split)) != TEST_MD5[name]:
        raise UramError(f"the test set of {name} came out with MD5 {found}, expected {TEST_MD5[name]}")
    return split


def md5(split: Split) -> str:
    """MD5 of a split's images and labels."""
    digest = hashlib.md5(split.images.numpy().tobytes(), usedforsecurity=False)
    digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()


@functools.cache
def load(name: str) -> Cluttered:
    """Variant `name`, a key of VARIANTS; with the prefix `digits-`, made from the embedded digits."""
    variant = name.removeprefix("digits-")
    source = digits.load() if name != variant else mnist.load()
    side, pieces = VARIANTS[variant]
    return Cluttered(
        name=name,
        title=f"{side} × {side} cluttered {source.title}, {pieces} pieces",
        classes=source.classes,
        train=source.train,
        validation=fixed(source.validation, side, pieces, name, "validation"),
        load_test=lambda: fixed_test(source, name, side, pieces),
        test_size=source.test_size,
        checksum="md5:" + TEST_MD5[name],
        side=side,
        pieces=pieces,
    )
