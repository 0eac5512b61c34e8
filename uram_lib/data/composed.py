"""Composed house numbers: 1 to 5 handwritten digits painted over natural backgrounds, for machines without SVHN.

As SVHN's, images are 64 x 64 and grey, and models see 54 x 54 of them; lengths are as frequent as there (F3, F5-F7).
Training images are made on the fly, in batches, on the device that holds the digits; the validation and test sets are
fixed by a seed. The three sets share neither digits nor backgrounds.
"""

import functools
import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..seeding import stream
from . import LONGEST, PLACES, TERMINAL
from . import load as load_dataset
from .base import Batch, Split, join, md5, pinned
from .numbers import LENGTHS, SIDE, SequenceDataset, Sequences, longest, middle, random_crops

# Digits, backgrounds, sizes of validation and test set, and the MD5 of the test images and labels: none where the
# photographs were not at hand.
SOURCES = {
    "composed": ("mnist", "cifar10", (5_000, 10_000), ""),
    "composed-jpeg": ("mnist", "cifar10-jpeg", (5_000, 10_000), "6335a2751e7678b9d15ff3a08ed83806"),
    "digits-composed": ("digits", "gradients", (200, 300), "93f8496de18d7dd0901f1c0bd2f4d12f"),
}
CHUNK = 250  # images composed at a time when a whole split is made
INK = 64  # a digit's pixels brighter than this are its ink
SQUEEZE = (0.55, 1.3)  # least and most width of a digit against its natural one
PLATES = 0.35  # share of the numbers that stand on a plate
# How often numbers have 1 to 5 digits: training and validation as in SVHN's train and extra, the test set as its test.
OFTEN = {"train": tuple(map(sum, zip(LENGTHS["train"], LENGTHS["extra"], strict=True))), "test": LENGTHS["test"]}


class Glyphs(NamedTuple):
    """What one split's numbers are painted with. images: (N, 1, 28, 28) uint8; labels: (N,) int64; ink: (N, 4), the
    smallest box around each digit's ink as left, top, width and height in pixels; nonzero: the digits that are no 0;
    backgrounds: (M, 32, 32) uint8."""

    images: Tensor
    labels: Tensor
    ink: Tensor
    nonzero: Tensor
    backgrounds: Tensor


def glyphs(bare: Split, backgrounds: Tensor) -> Glyphs:
    """The digits of `bare` with the boxes around their ink."""
    lit = bare.images[:, 0] > INK  # (N, 28, 28)
    across = torch.stack((lit.any(1), lit.any(2)), 1).int()  # (N, 2, 28): along x, along y
    first = across.argmax(-1)
    size = across.shape[-1] - across.flip(-1).argmax(-1) - first
    return Glyphs(bare.images, bare.labels, torch.cat((first, size), 1), bare.labels.nonzero()[:, 0], backgrounds)


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601) of colour images: (N, 3, H, W) uint8 -> (N, H, W) uint8, in whole numbers: exact everywhere."""
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.uint8)


def uniform(low: float, high: float, *shape: int, like: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Draws from [low, high), of `shape`, on the generator's device."""
    return low + (high - low) * torch.rand(*shape, generator=like, device=like.device, dtype=dtype)


def wide(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1), one value an image."""
    return values[:, None, None]


def pixel_centres(like: Tensor) -> Tensor:
    """Where the 64 pixels of a row lie, from -1 to 1 at the edges; device and type of `like`."""
    return (torch.arange(SIDE, device=like.device, dtype=like.dtype) + 0.5) * (2 / SIDE) - 1


def draw_numbers(source: Glyphs, lengths: tuple[int, ...], count: int, generator: torch.Generator) -> tuple:
    """The indices of the numbers' digits, (count, 5), and labels (count, 6), which say how many of them count. lengths:
    how often numbers have 1, 2, ... digits. No number starts with 0, as house numbers do not."""
    draw = functools.partial(torch.randint, generator=generator, device=generator.device)
    ends = torch.tensor(lengths, device=generator.device).cumsum(0)
    length = 1 + (draw(int(ends[-1]), (count,))[:, None] >= ends).sum(1)  # (N,)
    own = draw(len(source.labels), (count, LONGEST))
    own[:, 0] = source.nonzero[draw(len(source.nonzero), (count,))]
    labels = F.pad(source.labels[own], (0, 1), value=TERMINAL)
    labels[torch.arange(PLACES, device=generator.device) >= length[:, None]] = TERMINAL
    return own, labels


@dataclass(frozen=True)
class Layout:
    """Where the digits of numbers stand. place: (N, 5, 2), the digits' centres in the upright number's frame, in pixels
    from its middle; size: (N, 5, 2), width and height of their ink in pixels; centre: (N, 2), the number's middle in
    the image; turn: (N,) radians, clockwise; slant: (N,), shift to the left per pixel downwards."""

    place: Tensor
    size: Tensor
    centre: Tensor
    turn: Tensor
    slant: Tensor

    @property
    def centres(self) -> Tensor:
        """The digits' centres in the image, (N, 5, 2)."""
        x, y = self.place.unbind(-1)
        cos, sin = self.turn.cos()[:, None], self.turn.sin()[:, None]
        x = x - self.slant[:, None] * y
        return self.centre[:, None] + torch.stack((cos * x - sin * y, sin * x + cos * y), -1)


def lay_out(ink: Tensor, used: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Layout:
    """Place digits beside one another. ink: (N, 5, 2), width and height in the source; used: (N, 5) bool. A number aims
    at a height and a width of its own, as crops around real ones are squeezed too; where `SQUEEZE` is not enough for
    that, it becomes smaller or narrower."""
    count = len(ink)
    draw = functools.partial(uniform, like=generator, dtype=dtype)
    height, target = draw(22, 40, count, 1), draw(34, 47, count, 1)
    relative = draw(0.93, 1.07, count, LONGEST)  # digits of one number differ a little in height
    aspect = (ink[..., 0] / ink[..., 1]).clamp(max=1.0) * relative
    gap = draw(0.06, 0.22, count, 1)  # between digits, in heights
    natural = (aspect * used).sum(1, keepdim=True) + gap * (used.sum(1, keepdim=True) - 1)  # (N, 1), in heights
    squeeze = (target / (natural * height)).clamp(*SQUEEZE)
    height = torch.minimum(height, target / (natural * squeeze))
    width = aspect * height * squeeze * used  # (N, 5)
    step = (width + gap * height * squeeze) * used
    left = step.cumsum(1) - step
    x = left + width / 2 - natural * height * squeeze / 2
    y = draw(-0.05, 0.05, count, LONGEST) * height  # an uneven baseline
    place, size = torch.stack((x, y), -1), torch.stack((width, relative * height), -1)
    # A steeper turn would push the ends of a long number out of the image.
    return Layout(place, size, SIDE / 2 + draw(-2, 2, count, 2), draw(-0.21, 0.21, count), draw(-0.15, 0.2, count))


def upright(layout: Layout, slanted: bool) -> tuple[Tensor, Tensor]:
    """The pixels' centres in the numbers' upright frame: x and y, (N, 64, 64) each, pixels from a number's middle."""
    at = torch.arange(SIDE, device=layout.turn.device, dtype=layout.place.dtype) + 0.5
    dx, dy = at - wide(layout.centre[:, 0]), at[:, None] - wide(layout.centre[:, 1])
    cos, sin = wide(layout.turn.cos()), wide(layout.turn.sin())
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    return (x + wide(layout.slant) * y if slanted else x), y


def plates(layout: Layout, used: Tensor, margin: Tensor) -> Tensor:
    """How much of each pixel a plate around the number covers: (N, 64, 64) in [0, 1]. margin: (N,) pixels."""
    ends = (layout.place.abs() + layout.size / 2).masked_fill(~used[..., None], 0).amax(1) + margin[:, None]  # (N, 2)
    x, y = upright(layout, slanted=False)
    return (0.5 - torch.maximum(x.abs() - wide(ends[:, 0]), y.abs() - wide(ends[:, 1]))).clamp(0, 1)


def paint(source: Glyphs, own: Tensor, used: Tensor, layout: Layout) -> Tensor:
    """How much of each pixel is covered by digits, sampled where the pixels' centres fall in them: (N, 64, 64) in
    [0, 1]."""
    dtype, frame = layout.place.dtype, source.images.shape[-1]
    u, v = upright(layout, slanted=True)
    cover = torch.zeros_like(u)
    for slot in range(LONGEST):  # five passes over the batch: only numbers this long take part
        here = used[:, slot].nonzero()[:, 0]
        ink = source.ink[own[here, slot]].to(dtype)  # (H, 4)
        step = ink[:, 2:] / layout.size[here, slot]  # (H, 2), source pixels per pixel
        corner = ink[:, :2] + ink[:, 2:] / 2 - layout.place[here, slot] * step
        x = wide(corner[:, 0]) + u[here] * wide(step[:, 0])
        y = wide(corner[:, 1]) + v[here] * wide(step[:, 1])
        grid = torch.stack((x, y), -1) * (2 / frame) - 1
        digit = source.images[own[here, slot]].to(dtype) / 255
        cover[here] = torch.maximum(cover[here], F.grid_sample(digit, grid, align_corners=False)[:, 0])
    return cover


def photograph(source: Glyphs, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Background crops, enlarged: (count, 64, 64) in [0, 1]. Squares of 12 to 32 pixels anywhere, mirrored or not."""
    draw, device = functools.partial(uniform, like=generator, dtype=dtype), generator.device
    own = torch.randint(len(source.backgrounds), (count,), generator=generator, device=device)
    scale = draw(12 / source.backgrounds.shape[-1], 1, count, 1)
    shift = (1 - scale) * draw(-1, 1, count, 2)
    mirror = 1 - 2 * torch.randint(2, (count, 1), generator=generator, device=device)
    at = pixel_centres(scale)
    x, y = mirror * scale * at + shift[:, :1], scale * at + shift[:, 1:]  # (N, 64)
    grid = torch.stack((x[:, None, :].expand(-1, SIDE, -1), y[:, :, None].expand(-1, -1, SIDE)), -1)
    images = source.backgrounds[own, None].to(dtype) / 255
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)[:, 0]


def blur(images: Tensor, strength: Tensor) -> Tensor:
    """Average with neighbours along both axes. images: (N, H, W); strength: (N,) in [0, 1/3], a neighbour's weight."""
    for axis, pad in ((1, (0, 0, 1, 1)), (2, (1, 1, 0, 0))):
        padded = F.pad(images[:, None], pad, mode="replicate")[:, 0]
        neighbours = padded.narrow(axis, 0, SIDE) + padded.narrow(axis, 2, SIDE)
        images = (1 - 2 * wide(strength)) * images + wide(strength) * neighbours
    return images


def compose(
    source: Glyphs, lengths: tuple[int, ...], count: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Sequences:
    """`count` new house numbers, 64 x 64. generator: on the device of `source`. With float64 it gives the same bytes on
    every machine: rounding differences between processors are then too small to move a pixel."""
    draw = functools.partial(uniform, like=generator, dtype=dtype)
    own, labels = draw_numbers(source, lengths, count, generator)
    used = labels[:, :LONGEST] != TERMINAL
    layout = lay_out(source.ink[own][..., 2:].to(dtype), used, generator, dtype)
    cover = paint(source, own, used, layout)
    # Brush strokes with soft edges become painted ones.
    cover = ((cover - 0.4) * wide(draw(1.2, 2.5, count)) + 0.5).clamp(0, 1)

    # A wall in the colours of the photograph, now and then with a plate; its texture must leave the digits readable.
    contrast = draw(0.3, 0.7, count)
    wall = photograph(source, count, generator, dtype)
    mean, spread = wall.mean((1, 2)), wall.std((1, 2))
    texture = torch.minimum(draw(0.3, 0.9, count), 0.3 * contrast / (spread + 1e-3))
    level = mean * 0.6 + draw(0.05, 0.35, count)
    wall = wide(level) + wide(texture) * (wall - wide(mean))
    plate = plates(layout, used, draw(4, 9, count)) * wide((draw(0, 1, count) < PLATES) * draw(0.6, 0.95, count))
    level = torch.where(plate.amax((1, 2)) > 0, draw(0.1, 0.9, count), level)
    wall = wall + plate * (wide(level) - wall)

    # Light on dark or dark on light, whichever leaves room for the contrast; either where both do.
    lighter = draw(0, 1, count) < 0.5
    lighter = torch.where(level + contrast > 1, False, torch.where(level - contrast < 0, True, lighter))
    paint_level = level + torch.where(lighter, contrast, -contrast)
    image = wall + cover * wide(draw(0.85, 1, count)) * (wide(paint_level) - wall)

    # Uneven light, a camera out of focus and its noise.
    at = pixel_centres(image)
    slope, direction = draw(0, 0.15, count), draw(0, 2 * math.pi, count)
    image = image + wide(slope * direction.cos()) * at + wide(slope * direction.sin()) * at[:, None]
    image = blur(blur(image, draw(0, 1 / 3, count)), draw(0, 1 / 3, count))
    image = image + wide(draw(0, 0.06, count)) * draw(-1, 1, count, SIDE, SIDE)
    centres = layout.centres.masked_fill(~used[..., None], math.nan)
    pixels = (image * 255).round().clamp(0, 255).to(torch.uint8)
    return Sequences(pixels[:, None], labels, centres.to(torch.float32))


@dataclass(frozen=True)
class Composed(SequenceDataset):
    """`train` holds the bare digits, which give an epoch its length; numbers are composed when a batch is asked for."""

    source: Glyphs = field(repr=False)

    def training_batch(self, index: Tensor, generator: torch.Generator, spread: float = 1.0) -> Batch:
        """As many new numbers as `index`, (B,), is long, otherwise as in `SequenceDataset`."""
        most = longest(spread)
        return random_crops(compose(self.source, OFTEN["train"][:most], len(index), generator), most, generator)

    def to(self, device: torch.device) -> "Composed":
        return replace(super().to(device), source=Glyphs(*(tensor.to(device) for tensor in self.source)))


def fixed(source: Glyphs, lengths: tuple[int, ...], count: int, *names: object) -> Sequences:
    """`count` numbers, cropped in the middle, from the stream `names` of seed 0: always the same images."""
    generator = stream(0, *names)
    sizes = [min(CHUNK, count - done) for done in range(0, count, CHUNK)]
    return join([middle(compose(source, lengths, size, generator, torch.float64)) for size in sizes])


def gradients(count: int, *names: object) -> Tensor:
    """Backgrounds without a photograph: (count, 32, 32) uint8, smooth surfaces between 3 x 3 random levels."""
    levels = torch.rand(count, 1, 3, 3, generator=stream(0, *names), dtype=torch.float64)
    smooth = F.interpolate(levels, size=(32, 32), mode="bilinear", align_corners=True)
    return (smooth[:, 0] * 255).round().to(torch.uint8)


def load(name: str) -> Composed:
    """Numbers of the registry's digits and backgrounds; raises what loading those raises. Its `load_test` raises
    UramError where this machine's generator gives other test images than the pinned ones."""
    digits, behind, (validation_size, test_size), check = SOURCES[name]
    bare, photographs = load_dataset(digits), behind != "gradients" and load_dataset(behind)

    def of(part: str) -> Glyphs:
        split = lambda data: data.load_test() if part == "test" else getattr(data, part)  # noqa: E731
        plain = grey(split(photographs).images) if photographs else gradients(1_000, name, part, "backgrounds")
        return glyphs(split(bare), plain)

    def load_test() -> Sequences:
        return pinned(fixed(of("test"), OFTEN["test"], test_size, name, "test"), name, check)

    validation = fixed(of("validation"), OFTEN["train"], validation_size, name, "validation")
    # Without a pinned test set, what it is made of stands for it.
    checksum = check or md5((bare.checksum + (photographs.checksum if photographs else behind)).encode())
    return Composed(name, bare.train, validation, load_test, test_size, checksum, of("train"))
