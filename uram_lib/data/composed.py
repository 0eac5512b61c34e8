"""Composed house numbers: 1 to 5 handwritten digits painted over natural backgrounds, for machines without SVHN.

As SVHN's, images are 64 x 64 and grey, and models see 54 x 54 of them; lengths are as frequent as there (F3, F5-F7).
Training images are made on the fly, in batches, on the device that holds the digits; the validation and test sets are
fixed by a seed. The three sets share neither digits nor backgrounds.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..seeding import stream
from . import LONGEST, PLACES, TERMINAL
from . import load as load_dataset
from .base import Dataset, Split, join, md5, pinned
from .digits import surfaces
from .numbers import LENGTHS, SIDE, draw, middle

# Digits, backgrounds, sizes of validation and test set, and the MD5 of the test images and labels: none where the
# photographs were not at hand.
SOURCES = {
    "composed": ("mnist", "cifar10", (5_000, 10_000), ""),
    "composed-jpeg": ("mnist", "cifar10-jpeg", (5_000, 10_000), "md5:6335a2751e7678b9d15ff3a08ed83806"),
    "digits-composed": ("digits", "gradients", (200, 300), "md5:93f8496de18d7dd0901f1c0bd2f4d12f"),
}
CHUNK = 250  # images composed at a time when a whole split is made
PIXELS = torch.arange(SIDE) + 0.5  # where the pixels of a row lie
INK = 64  # a digit's pixels brighter than this are its ink
SQUEEZE = (0.55, 1.3)  # least and most width of a digit against its natural one
PLATES = 0.35  # share of the numbers that stand on a plate
# How often numbers have 1 to 5 digits: training and validation as in SVHN's train and extra, the test set as its test.
OFTEN = {"train": tuple(map(sum, zip(LENGTHS["train"], LENGTHS["extra"], strict=True))), "test": LENGTHS["test"]}


def ink_boxes(images: Tensor) -> Tensor:
    """The smallest boxes around the ink of images (..., 28, 28): (..., 4), left, top, width and height in pixels."""
    lit = (torch.stack((images.amax(-2), images.amax(-1)), -2) > INK).int()  # (..., 2, 28): along x, along y
    first = lit.argmax(-1)
    return torch.cat((first, lit.shape[-1] - lit.flip(-1).argmax(-1) - first), -1)


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601) of colour images: (N, 3, H, W) uint8 -> (N, H, W) uint8, in whole numbers: exact everywhere."""
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.uint8)


def uniform(count: int, generator: torch.Generator, dtype: torch.dtype, low: float, high: float, *shape: int) -> Tensor:
    """Draws from [low, high) on the generator's device: (count, *shape), or (count, 1, 1), one value per image."""
    values = torch.rand(count, *(shape or (1, 1)), generator=generator, device=generator.device, dtype=dtype)
    return low + (high - low) * values


def draw_numbers(bare: Split, lengths: tuple[int, ...], count: int, generator: torch.Generator) -> tuple:
    """The indices of the numbers' digits, (count, 5), and labels (count, 6), which say how many of them count. lengths:
    how often numbers have 1, 2, ... digits. No number starts with 0, as house numbers do not."""
    draw = functools.partial(torch.randint, generator=generator, device=generator.device)
    ends = torch.tensor(lengths, device=generator.device).cumsum(0)
    length = 1 + (draw(int(ends[-1]), (count,))[:, None] >= ends).sum(1)  # (N,)
    own = draw(len(bare), (count, LONGEST))
    nonzero = bare.labels.nonzero()[:, 0]
    own[:, 0] = nonzero[draw(len(nonzero), (count,))]
    labels = F.pad(bare.labels[own], (0, 1), value=TERMINAL)
    labels[torch.arange(PLACES, device=generator.device) >= length[:, None]] = TERMINAL
    return own, labels


@dataclass(frozen=True)
class Layout:
    """Where the digits of numbers stand."""

    place: Tensor  # (N, 5, 2), the digits' centres in the upright number's frame, in pixels from its middle
    size: Tensor  # (N, 5, 2), width and height of their ink in pixels
    centre: Tensor  # (N, 1, 1, 2), the number's middle in the image
    turn: Tensor  # (N, 1, 1) radians, clockwise
    slant: Tensor  # (N, 1, 1), shift to the left per pixel downwards

    def centres(self) -> Tensor:
        """The digits' centres in the image, (N, 5, 2)."""
        cos, sin, slant = self.turn.cos()[..., 0], self.turn.sin()[..., 0], self.slant[..., 0]  # (N, 1)
        x, y = self.place.unbind(-1)
        x = x - slant * y
        return self.centre[:, 0] + torch.stack((cos * x - sin * y, sin * x + cos * y), -1)

    def upright(self) -> tuple[Tensor, Tensor]:
        """The pixels' centres in the upright, still slanted numbers: x and y, (N, 64, 64) each, from their middles."""
        at, cos, sin = PIXELS.to(self.place), self.turn.cos(), self.turn.sin()
        dx, dy = at - self.centre[..., 0], at[:, None] - self.centre[..., 1]
        return cos * dx + sin * dy, cos * dy - sin * dx


def lay_out(ink: Tensor, used: Tensor, generator: torch.Generator) -> Layout:
    """Place digits beside one another. ink: (N, 5, 2), width and height in the source; used: (N, 5) bool. A number aims
    at a height and a width of its own, as crops of real ones are squeezed too; beyond `SQUEEZE` it becomes smaller."""
    draw = functools.partial(uniform, len(ink), generator, ink.dtype)
    height, target = draw(22, 40, 1), draw(34, 47, 1)
    relative = draw(0.93, 1.07, LONGEST)  # digits of one number differ a little in height
    aspect = (ink[..., 0] / ink[..., 1]).clamp(max=1.0) * relative
    gap = draw(0.06, 0.22, 1)  # between digits, in heights
    natural = (aspect * used).sum(1, keepdim=True) + gap * (used.sum(1, keepdim=True) - 1)  # (N, 1), in heights
    squeeze = (target / (natural * height)).clamp(*SQUEEZE)
    height = torch.minimum(height, target / (natural * squeeze))
    width = aspect * height * squeeze * used  # (N, 5)
    step = (width + gap * height * squeeze) * used
    x = step.cumsum(1) - step + width / 2 - natural * height * squeeze / 2
    y = draw(-0.05, 0.05, LONGEST) * height  # an uneven baseline
    place, size = torch.stack((x, y), -1), torch.stack((width, relative * height), -1)
    # A steeper turn would push the ends of a long number out of the image.
    return Layout(place, size, SIDE / 2 + draw(-2, 2, 1, 1, 2), draw(-0.21, 0.21), draw(-0.15, 0.2))


def plates(layout: Layout, used: Tensor, margin: Tensor) -> Tensor:
    """How much of each pixel a plate around the number covers: (N, 64, 64) in [0, 1]. margin: (N, 1, 1) pixels."""
    ends = (layout.place.abs() + layout.size / 2).masked_fill(~used[..., None], 0).amax(1) + margin[:, 0]  # (N, 2)
    x, y = layout.upright()
    return (0.5 - torch.maximum(x.abs() - ends[:, 0, None, None], y.abs() - ends[:, 1, None, None])).clamp(0, 1)


def paint(digits: Tensor, ink: Tensor, used: Tensor, layout: Layout) -> Tensor:
    """How much of each pixel is covered by digits, sampled where the pixels' centres fall in them: (N, 64, 64) in
    [0, 1]. digits: (N, 5, 28, 28) uint8; ink: (N, 5, 4), their `ink_boxes`; used: (N, 5) bool."""
    u, v = layout.upright()
    u = u + layout.slant * v
    step = ink[..., 2:] / layout.size  # (N, 5, 2), source pixels per pixel
    corner = ink[..., :2] + ink[..., 2:] / 2 - layout.place * step
    cover = torch.zeros_like(u)
    for slot in range(LONGEST):  # five passes over the batch: only numbers this long take part
        here = used[:, slot].nonzero()[:, 0]
        (left, top), (wide, high) = (values[here, slot, :, None, None].unbind(1) for values in (corner, step))
        grid = torch.stack((left + u[here] * wide, top + v[here] * high), -1) * (2 / digits.shape[-1]) - 1
        digit = digits[here, slot, None].to(u.dtype) / 255
        cover[here] = torch.maximum(cover[here], F.grid_sample(digit, grid, align_corners=False)[:, 0])
    return cover


def photograph(backgrounds: Tensor, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Background crops, enlarged: (count, 64, 64) in [0, 1]. Squares of 12 to 32 pixels anywhere, mirrored or not."""
    draw = functools.partial(uniform, count, generator, dtype)
    choose = functools.partial(torch.randint, generator=generator, device=generator.device)
    own = choose(len(backgrounds), (count,))
    scale = draw(12 / backgrounds.shape[-1], 1, 1)
    shift = (1 - scale) * draw(-1, 1, 2)
    mirror = 1 - 2 * choose(2, (count, 1))
    at = PIXELS.to(scale) * (2 / SIDE) - 1
    x, y = mirror * scale * at + shift[:, :1], scale * at + shift[:, 1:]  # (N, 64)
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    images = backgrounds[own, None].to(dtype) / 255
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)[:, 0]


def blur(images: Tensor, strength: Tensor) -> Tensor:
    """Average with neighbours along both axes. images: (N, H, W); strength: (N, 1, 1) in [0, 1/3], their weight."""
    for axis, pad in ((1, (0, 0, 1, 1)), (2, (1, 1, 0, 0))):
        padded = F.pad(images[:, None], pad, mode="replicate")[:, 0]
        neighbours = padded.narrow(axis, 0, SIDE) + padded.narrow(axis, 2, SIDE)
        images = (1 - 2 * strength) * images + strength * neighbours
    return images


def compose(
    bare: Split, backgrounds: Tensor, lengths: tuple, count: int, generator: torch.Generator, dtype=torch.float32
) -> Split:
    """`count` new numbers, 64 x 64, of digits `bare` over `backgrounds`, (M, 32, 32) uint8; generator: on their device.
    lengths: as `draw_numbers`. With float64, rounding differences between processors are too small to move a pixel."""
    draw = functools.partial(uniform, count, generator, dtype)
    own, labels = draw_numbers(bare, lengths, count, generator)
    used, digits = labels[:, :LONGEST] != TERMINAL, bare.images[own, 0]
    ink = ink_boxes(digits).to(dtype)
    layout = lay_out(ink[..., 2:], used, generator)
    # Brush strokes with soft edges become painted ones.
    cover = ((paint(digits, ink, used, layout) - 0.4) * draw(1.2, 2.5) + 0.5).clamp(0, 1)

    # A wall in the colours of the photograph, now and then with a plate; its texture must leave the digits readable.
    contrast = draw(0.3, 0.7)
    wall = photograph(backgrounds, count, generator, dtype)
    mean, spread = wall.mean((1, 2), keepdim=True), wall.std((1, 2), keepdim=True)
    texture = torch.minimum(draw(0.3, 0.9), 0.3 * contrast / (spread + 1e-3))
    level = mean * 0.6 + draw(0.05, 0.35)
    wall = level + texture * (wall - mean)
    plate = plates(layout, used, draw(4, 9)) * ((draw(0, 1) < PLATES) * draw(0.6, 0.95))
    level = torch.where(plate.amax((1, 2), keepdim=True) > 0, draw(0.1, 0.9), level)
    wall = wall + plate * (level - wall)

    # Light on dark or dark on light, whichever leaves room for the contrast; either where both do.
    lighter = draw(0, 1) < 0.5
    lighter = torch.where(level + contrast > 1, False, torch.where(level - contrast < 0, True, lighter))
    paint_level = level + torch.where(lighter, contrast, -contrast)
    image = wall + cover * draw(0.85, 1) * (paint_level - wall)

    # Uneven light, a camera out of focus and its noise.
    at = PIXELS.to(image) * (2 / SIDE) - 1
    slope, direction = draw(0, 0.15), draw(0, 2 * math.pi)
    image = image + slope * direction.cos() * at + slope * direction.sin() * at[:, None]
    image = blur(blur(image, draw(0, 1 / 3)), draw(0, 1 / 3))
    image = image + draw(0, 0.06) * draw(-1, 1, SIDE, SIDE)
    centres = layout.centres().masked_fill(~used[..., None], math.nan)
    pixels = (image * 255).round().clamp(0, 255).to(torch.uint8)
    return Split(pixels[:, None], labels, centres.to(torch.float32))


def fixed(bare: Split, backgrounds: Tensor, lengths: tuple[int, ...], count: int, *names: str) -> Split:
    """`count` numbers, cropped in the middle, from the stream `names` of seed 0: always the same images."""
    generator, parts = stream(0, *names), torch.arange(count).split(CHUNK)
    return join([middle(compose(bare, backgrounds, lengths, len(p), generator, torch.float64)) for p in parts])


def sources(name: str, part: str) -> tuple[Split, Tensor]:
    """The digits and the backgrounds, (M, 32, 32) uint8, of "train", "validation" or "test"."""
    digits, behind, *_ = SOURCES[name]
    split = lambda data: data.load_test() if part == "test" else getattr(data, part)  # noqa: E731
    bare = split(load_dataset(digits))
    if behind != "gradients":
        return bare, grey(split(load_dataset(behind)).images)
    smooth = surfaces(1_000, 1, stream(0, name, part, "backgrounds"))[:, 0]
    return bare, (smooth * 255).round().to(torch.uint8)


def load(name: str) -> Dataset:
    """Numbers of the digits and backgrounds in `SOURCES`; `train` holds bare digits, which give an epoch its length."""
    digits, behind, (validation_size, test_size), check = SOURCES[name]
    bare, backgrounds = sources(name, "train")
    there = functools.cache(backgrounds.to)  # one copy on each device

    def whole(train: Split, index: Tensor, most: int, generator: torch.Generator) -> Split:
        return compose(train, there(train.labels.device), OFTEN["train"][:most], len(index), generator)

    def load_test() -> Split:
        return pinned(fixed(*sources(name, "test"), OFTEN["test"], test_size, name, "test"), name, check)

    validation = fixed(*sources(name, "validation"), OFTEN["train"], validation_size, name, "validation")
    # Without a pinned test set, what it is made of stands for it.
    made_of = (load_dataset(of).checksum if of != "gradients" else of for of in (digits, behind))
    checksum = check or md5("".join(made_of).encode())
    return Dataset(name, bare, validation, load_test, test_size, checksum, functools.partial(draw, whole=whole))
