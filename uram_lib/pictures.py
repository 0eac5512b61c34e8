"""Reading a person's own pictures with a published model: what `uram read` does. Every conversion is said."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from . import UramError
from .data import TERMINAL
from .glimpse import location_to_pixel
from .models import Model, Reading
from .paths import relative, write_atomically

KINDS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm")


def read_all(model: Model, places: list[Path], png: Path | None = None) -> Iterator[str]:
    """Lines on each picture at `places`, files or folders: what was converted, the label, its probability, and
    where the model looked. png: where the glimpse path of a single picture is drawn.

    Raises UramError for what is no picture, a folder without pictures, or several pictures with `png`.
    """
    files = [file for place in places for file in pictures_in(place)]
    if png is not None and len(files) != 1:
        raise UramError(f"--png draws the path of one picture, got {len(files)}")
    for file in files:
        image, said = picture(file, model.image_shape)
        reading = model.read(image)
        yield f"{relative(file.resolve())}: {answer(reading)}" + (f" ({'; '.join(said)})" if said else "")
        if png is not None:
            draw(image, reading, model, png)
            yield f"glimpse path: {relative(png.resolve())}"


def pictures_in(place: Path) -> list[Path]:
    """The picture files at a path. Raises UramError where there is none."""
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if file.suffix.lower() in KINDS)
        if not found:
            raise UramError(f"{place} holds no picture; known kinds: {', '.join(KINDS)}")
        return found
    if not place.exists():
        raise UramError(f"there is no picture {place}")
    return [place]


def picture(file: Path, shape: tuple[int, int, int]) -> tuple[Tensor, list[str]]:
    """A picture file as a model of `shape`, (C, H, W), takes it, (1, C, H, W) in [0, 1], and what was done to it.

    Colours are averaged for a grey model, dark on light is inverted for the digits' models (their digits are light on
    black), a picture larger than the canvas is scaled down to fit, and a smaller one is put in the middle of it.
    """
    channels, height, width = shape
    try:
        with Image.open(file) as opened:
            opened.load()
            deep = opened.mode.startswith("I") or opened.mode == "F"
            pixels = np.asarray(opened if deep else opened.convert("RGB"), np.float32)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise UramError(f"{file} cannot be read as a picture: {error}") from error
    said = []
    if deep:
        said.append("16 bits scaled to [0, 1]")
        pixels = np.repeat((pixels / 65_535).clip(0, 1)[..., None], 3, 2)
    else:
        pixels = pixels / 255
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]  # (1, 3, h, w)
    if channels == 1:
        if (image[:, :1] != image).any():
            said.append("colours averaged to grey")
        image = image.mean(1, keepdim=True)
        edge = torch.cat((image[..., 0, :], image[..., -1, :], image[..., 0], image[..., -1]), -1)
        if edge.median() > 0.5:
            said.append("dark on light inverted")
            image = 1 - image
    h, w = image.shape[-2:]
    shrink = min(height / h, width / w)
    if shrink < 1:
        h, w = max(1, round(h * shrink)), max(1, round(w * shrink))
        said.append(f"scaled down to {w} x {h} px")
        image = torch.nn.functional.interpolate(image, (h, w), mode="bilinear", antialias=True, align_corners=False)
    if (h, w) != (height, width):
        said.append(f"put in the middle of {width} x {height} px")
        left, top = (width - w) // 2, (height - h) // 2
        image = torch.nn.functional.pad(image, (left, width - w - left, top, height - h - top))
    return image.clamp(0, 1), said


def answer(reading: Reading) -> str:
    """As in `7, probability 0.98`; of a number its digits."""
    label, probabilities = reading.labels[0], reading.probabilities[0]
    if label.ndim == 0:
        return f"{label.item()}, probability {probabilities.max().item():.2f}"
    digits = label[label != TERMINAL].tolist()
    best = probabilities.gather(-1, label[:, None])[: len(digits) + 1].prod().item()
    return f"{''.join(map(str, digits)) or 'no digit'}, probability {best:.2f}"


def draw(image: Tensor, reading: Reading, model: Model, png: Path) -> None:
    """Draw the picture with the path of the glimpses and their finest patches. Raises UramError for another suffix."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    if png.suffix.lower() != ".png":
        raise UramError(f"--png takes a file that ends in .png, got {png}")
    figure = Figure((4, 4), layout="constrained")
    axes = figure.add_subplot()
    height, width = image.shape[-2:]
    axes.imshow(image[0].permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    path = location_to_pixel(reading.locations[0], height, width)
    axes.plot(*path.T, "-", color="tab:orange", lw=1.5)
    side = getattr(getattr(model, "ram", model), "sensor", None)
    for t, (x, y) in enumerate(path.tolist()):
        axes.text(x, y, str(t + 1), color="tab:orange", ha="center", va="center", fontsize=9)
        if side is not None:
            corner = (x - side.size / 2, y - side.size / 2)
            axes.add_patch(Rectangle(corner, side.size, side.size, fill=False, ec="tab:orange", lw=0.8))
    axes.set(title=answer(reading), xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    write_atomically(png.resolve(), lambda temporary: figure.savefig(temporary, format="png", dpi=150))
