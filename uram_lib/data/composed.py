"""Composed house numbers: 1 to 5 handwritten digits painted over natural backgrounds, for machines without SVHN.

A number is laid out, tilted and blended over a crop of a photograph, all in batches, on the device that holds the
digits. As with SVHN, images are 64 x 64 and grey, and models see 54 x 54 of them. Training images are made on the fly;
the validation and test sets are fixed by a seed. Digits and backgrounds of the three sets are disjoint, and how often a
number has how many digits follows SVHN: train and extra for training and validation, test for the test set (F3, F5-F7).
"""

import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import UramError
from ..seeding import stream
from . import Split, cifar10, clutter, digits, mnist
from .sequences import (
    CLASSES,
    LENGTHS,
    LONGEST,
    PLACES,
    SIDE,
    TERMINAL,
    SequenceDataset,
    Sequences,
    crop,
    longest,
    middle,
    random_corners,
)

BACKGROUNDS = {"composed": "cifar10", "composed-jpeg": "cifar10-jpeg", "digits-composed": None}
SIZES = {"composed": (5_000, 10_000), "composed-jpeg": (5_000, 10_000), "digits-composed": (200, 300)}
CHUNK = 250  # images composed at a time when a whole split is made

# MD5 of the test images and labels that the fixed seed gives. "composed" has none: its official backgrounds were not at
# hand when these were written.
TEST_MD5 = {
    "composed-jpeg": "6335a2751e7678b9d15ff3a08ed83806",
    "digits-composed": "93f8496de18d7dd0901f1c0bd2f4d12f",
}

# How often numbers have 1 to 5 digits: training and validation as in SVHN's train and extra, the test set as its test.
OFTEN = {"train": tuple(map(sum, zip(LENGTHS["train"], LENGTHS["extra"], strict=True))), "test": LENGTHS["test"]}


@dataclass(frozen=True)
class Glyphs:
    """What one split's numbers are painted with. images: (N, 1, 28, 28) uint8; labels: (N,) int64; ink: (N, 4), the
    smallest box around each digit's ink as left, top, width and height in pixels; nonzero: the digits that are no 0;
    backgrounds: (M, 32, 32) uint8."""

    images: Tensor
    labels: Tensor
    ink: Tensor
    nonzero: Tensor
    backgrounds: Tensor

    def to(self, device: torch.device) -> "Glyphs":
        return Glyphs(*(getattr(self, f.name).to(device) for f in fields(self)))


def glyphs(bare: Split, backgrounds: Tensor) -> Glyphs:
    """The digits of `bare` with the boxes around their ink."""
    ink = torch.stack([edge for axis in (1, 2) for edge in extent((bare.images[:, 0] > INK).any(axis))])
    left, width, top, height = ink
    boxes = torch.stack((left, top, width, height), 1)
    return Glyphs(bare.images, bare.labels, boxes, bare.labels.nonzero()[:, 0], backgrounds)


INK = 64  # a digit's pixels brighter than this are its ink


def extent(lit: Tensor) -> tuple[Tensor, Tensor]:
    """First lit place and number of places up to the last one, along the last axis of lit: (N, L) bool."""
    first = lit.int().argmax(-1)
    return first, lit.shape[-1] - lit.flip(-1).int().argmax(-1) - first


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601) of colour images: (N, 3, H, W) uint8 -> (N, H, W) uint8, in whole numbers: exact everywhere."""
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.uint8)


def uniform(low: float, high: float, *shape: int, like: torch.Generator, dtype: torch.dtype) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=like, device=like.device, dtype=dtype)


def draw_numbers(source: Glyphs, lengths: tuple[int, ...], count: int, generator: torch.Generator) -> tuple:
    """Which digits the numbers are made of. lengths: how often numbers have 1, 2, ... digits.

    Returns own: (count, 5), the digits' indices, of which the first `length` count, and labels: (count, 6). Numbers do
    not start with 0, as house numbers do not.
    """
    device = generator.device
    ends = torch.tensor(lengths, device=device).cumsum(0)
    ticket = torch.randint(int(ends[-1]), (count,), generator=generator, device=device)
    length = 1 + (ticket[:, None] >= ends).sum(1)  # (N,)
    own = torch.randint(len(source.labels), (count, LONGEST), generator=generator, device=device)
    first = torch.randint(len(source.nonzero), (count,), generator=generator, device=device)
    own[:, 0] = source.nonzero[first]
    labels = F.pad(source.labels[own], (0, 1), value=TERMINAL)
    labels[torch.arange(PLACES, device=device) >= length[:, None]] = TERMINAL
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
    """Place digits beside one another. ink: (N, 5, 2), width and height in the source; used: (N, 5) bool.

    A number aims at a height and a width of its own, as crops around real ones are squeezed too; its digits are
    squeezed by at most `SQUEEZE`, and the number becomes smaller or narrower where that is not enough.
    """
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
    # A steep turn would push the ends of a long number out of the image.
    return Layout(
        torch.stack((x, y), -1),
        torch.stack((width, relative * height), -1),
        SIDE / 2 + draw(-2, 2, count, 2),
        draw(-0.21, 0.21, count),
        draw(-0.15, 0.2, count),
    )


SQUEEZE = (0.55, 1.3)
PLATES = 0.35  # numbers that stand on a plate


def upright(layout: Layout, slanted: bool) -> tuple[Tensor, Tensor]:
    """The pixels' centres in the numbers' upright frame: x and y, (N, 64, 64) each, pixels from a number's middle."""
    wide = lambda t: t[:, None, None]  # noqa: E731
    at = torch.arange(SIDE, device=layout.turn.device, dtype=layout.place.dtype) + 0.5
    dx, dy = at - wide(layout.centre[:, 0]), at[:, None] - wide(layout.centre[:, 1])
    cos, sin = wide(layout.turn.cos()), wide(layout.turn.sin())
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    return (x + wide(layout.slant) * y if slanted else x), y


def plates(layout: Layout, used: Tensor, margin: Tensor) -> Tensor:
    """How much of each pixel a plate around the number covers: (N, 64, 64) in [0, 1]. margin: (N,) pixels."""
    ends = (layout.place.abs() + layout.size / 2).masked_fill(~used[..., None], 0).amax(1) + margin[:, None]  # (N, 2)
    x, y = upright(layout, slanted=False)
    outside = torch.maximum(x.abs() - ends[:, 0, None, None], y.abs() - ends[:, 1, None, None])
    return (0.5 - outside).clamp(0, 1)


def paint(source: Glyphs, own: Tensor, used: Tensor, layout: Layout) -> Tensor:
    """How much of each pixel is covered by digits: (N, 64, 64) in [0, 1].

    Each digit is sampled where the pixels' centres fall in it, the inverse of the number's turn, slant and scale.
    """
    dtype = layout.place.dtype
    frame = source.images.shape[-1]
    u, v = upright(layout, slanted=True)
    cover = torch.zeros_like(u)
    for slot in range(LONGEST):  # five passes over the batch: only numbers this long take part
        here = used[:, slot].nonzero()[:, 0]
        ink = source.ink[own[here, slot]].to(dtype)  # (H, 4)
        place, size = layout.place[here, slot], layout.size[here, slot]
        step = ink[:, 2:] / size  # (H, 2), source pixels per pixel
        corner = ink[:, :2] + ink[:, 2:] / 2 - place * step
        x = corner[:, 0, None, None] + u[here] * step[:, 0, None, None]
        y = corner[:, 1, None, None] + v[here] * step[:, 1, None, None]
        grid = torch.stack((x, y), -1) * (2 / frame) - 1
        digit = source.images[own[here, slot]].to(dtype) / 255
        drawn = F.grid_sample(digit, grid, align_corners=False)[:, 0]
        cover[here] = torch.maximum(cover[here], drawn)
    return cover


def photograph(source: Glyphs, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Background crops, enlarged: (count, 64, 64) in [0, 1]. Squares of 12 to 32 pixels anywhere, mirrored or not."""
    device, frame = generator.device, source.backgrounds.shape[-1]
    draw = functools.partial(uniform, like=generator, dtype=dtype)
    own = torch.randint(len(source.backgrounds), (count,), generator=generator, device=device)
    scale = draw(12 / frame, 1, count, 1)
    shift = (1 - scale) * draw(-1, 1, count, 2)
    mirror = 1 - 2 * torch.randint(2, (count, 1), generator=generator, device=device)
    at = (torch.arange(SIDE, device=device, dtype=dtype) + 0.5) * (2 / SIDE) - 1
    x, y = mirror * scale * at + shift[:, :1], scale * at + shift[:, 1:]  # (N, 64)
    grid = torch.stack((x[:, None, :].expand(-1, SIDE, -1), y[:, :, None].expand(-1, -1, SIDE)), -1)
    images = source.backgrounds[own, None].to(dtype) / 255
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)[:, 0]


def blur(images: Tensor, strength: Tensor) -> Tensor:
    """Average with neighbours along both axes. images: (N, H, W); strength: (N,) in [0, 1/3], a neighbour's weight."""
    strength = strength[:, None, None]
    for axis in (1, 2):
        pad = (0, 0, 1, 1) if axis == 1 else (1, 1, 0, 0)
        wide = F.pad(images[:, None], pad, mode="replicate")[:, 0]
        before, after = wide.narrow(axis, 0, SIDE), wide.narrow(axis, 2, SIDE)
        images = (1 - 2 * strength) * images + strength * (before + after)
    return images


def compose(
    source: Glyphs,
    lengths: tuple[int, ...],
    count: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Sequences:
    """`count` new house numbers, 64 x 64. generator: on the device of `source`.

    With float64 the same generator gives the same bytes on every machine: rounding differences between processors are
    then too small to move a pixel.
    """
    draw = functools.partial(uniform, like=generator, dtype=dtype)
    wide = lambda t: t[:, None, None]  # noqa: E731
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
    at = (torch.arange(SIDE, device=own.device, dtype=dtype) + 0.5) * (2 / SIDE) - 1
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

    source: Glyphs = field(kw_only=True, repr=False)

    def training_batch(
        self, index: Tensor, generator: torch.Generator, spread: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As many new numbers as `index`, (B,), is long, otherwise as in `SequenceDataset`."""
        most = longest(spread)
        whole = compose(self.source, OFTEN["train"][:most], len(index), generator)
        batch = crop(whole, random_corners(len(index), generator))
        return batch.floats(), batch.labels[:, : most + 1], batch.centres

    def to(self, device: torch.device) -> "Composed":
        moved = {k: getattr(self, k).to(device) for k in ("train", "validation", "source")}
        return type(self)(**{**self.__dict__, **moved})


def fixed(source: Glyphs, lengths: tuple[int, ...], count: int, *names: object) -> Sequences:
    """`count` numbers, cropped in the middle, from the stream `names` of seed 0: always the same images."""
    generator = stream(0, *names)
    sizes = [min(CHUNK, count - done) for done in range(0, count, CHUNK)]
    parts = [middle(compose(source, lengths, size, generator, torch.float64)) for size in sizes]
    return Sequences(*(torch.cat([getattr(p, k) for p in parts]) for k in ("images", "labels", "centres")))


def fixed_test(source: Callable[[], Glyphs], name: str) -> Sequences:
    """The test set of `name`. Raises UramError where this machine's generator gives other images than the pinned."""
    made = fixed(source(), OFTEN["test"], SIZES[name][1], name, "test")
    if name in TEST_MD5 and (found := clutter.md5(made)) != TEST_MD5[name]:
        raise UramError(f"the test set of {name} came out with MD5 {found}, expected {TEST_MD5[name]}")
    return made


def gradients(count: int, *names: object) -> Tensor:
    """Backgrounds without a photograph: (count, 32, 32) uint8, smooth surfaces between 3 x 3 random levels."""
    levels = torch.rand(count, 1, 3, 3, generator=stream(0, *names), dtype=torch.float64)
    smooth = F.interpolate(levels, size=(32, 32), mode="bilinear", align_corners=True)
    return (smooth[:, 0] * 255).round().to(torch.uint8)


@functools.cache
def load(name: str) -> Composed:
    """`name`: "composed" (backgrounds from the official CIFAR-10), "composed-jpeg" (from its JPEG re-encoded copy) or
    "digits-composed" (embedded digits before plain gradients).

    Raises UramError for damaged source files, DataUnavailable where they are neither here nor to be downloaded.
    """
    if BACKGROUNDS[name] is None:
        bare, setting, made_of = digits.load(), "gradients", digits.load().checksum
        backgrounds = {
            part: functools.partial(gradients, 1_000, name, part, "backgrounds")
            for part in ("train", "validation", "test")
        }
    else:
        bare, scenes = mnist.load(), cifar10.load(BACKGROUNDS[name])
        setting, made_of = scenes.title, bare.checksum + scenes.checksum
        backgrounds = {
            "train": lambda: grey(scenes.train.images),
            "validation": lambda: grey(scenes.validation.images),
            "test": lambda: grey(scenes.load_test().images),
        }
    held_out, test = SIZES[name]
    validation = glyphs(bare.validation, backgrounds["validation"]())
    return Composed(
        name=name,
        title=f"composed house numbers ({bare.title} over {setting})",
        classes=CLASSES,
        train=bare.train,
        validation=fixed(validation, OFTEN["train"], held_out, name, "validation"),
        load_test=lambda: fixed_test(lambda: glyphs(bare.load_test(), backgrounds["test"]()), name),
        test_size=test,
        # Without a pinned test set, what it is made of stands for it.
        checksum="md5:" + (TEST_MD5.get(name) or hashlib.md5(made_of.encode(), usedforsecurity=False).hexdigest()),
        source=glyphs(bare.train, backgrounds["train"]()),
    )
