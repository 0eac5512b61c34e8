"""Reading a person's own pictures with a published model: what `uram read` does. Every conversion is said.

PyTorch is imported when a picture and a model were found, so that a mistake answers at once.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from .common import UramError, relative, write_atomically
from .data import TERMINAL
from .data.files import DAMAGE
from .experiments import published_weights

KINDS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm")


def read_all(places: list[Path], table: str, row: str, preset: str, seed: int, png: Path | None) -> Iterator[str]:
    """A line on each picture at `places`, files or folders: the label, its probability, and what was converted. png:
    where the glimpse path of a single picture is drawn. Raises UramError for what is no picture, for a folder without
    any, for an unknown model, and for several pictures with `png`."""
    weights = published_weights(table, row, preset, seed)
    files = [file for place in places for file in pictures_in(place)]
    if png is not None and len(files) != 1:
        raise UramError(f"--png draws the path of one picture, got {len(files)}")
    if png is not None and png.suffix.lower() != ".png":
        raise UramError(f"--png takes a file that ends in .png, got {png}")
    if png is not None and png.resolve() == files[0].resolve():
        raise UramError(f"--png {png} would overwrite the picture itself: name another file")
    for file in files:
        opened(file)

    import torch

    from . import checkpoints

    model, _ = checkpoints.load(weights)
    for file in files:
        image, said = opened(file)
        canvas, fitting = fitted(image, *model.image_shape[1:])
        reading = model.read(torch.from_numpy(canvas)[None, None])
        notes = f" ({'; '.join(said + fitting)})" if said + fitting else ""
        yield f"{relative(file.resolve())}: {answer(reading)}{notes}"
        if png is not None:
            draw(canvas, reading, model, png)
            yield f"glimpse path: {relative(png.resolve())}"


def pictures_in(place: Path) -> list[Path]:
    """The picture files at a path. Raises UramError where there is none."""
    if not os.path.exists(place):  # also False where the name is too long
        raise UramError(f"there is no picture {place}")
    seen = [f for f in place.iterdir() if not f.name.startswith(".")] if place.is_dir() else []
    found = sorted(f for f in seen if f.suffix.lower() in KINDS) if place.is_dir() else [place]
    if not found:
        raise UramError(f"{place} holds no picture; known kinds: {', '.join(KINDS)}")
    return found


def opened(file: Path) -> tuple[Image.Image, list[str]]:
    """The picture in a file as 8-bit RGB, and what was done to it. Raises UramError where it is damaged or none."""
    try:
        with Image.open(file) as image:
            said = [f"the first of {n} frames"] if (n := getattr(image, "n_frames", 1)) > 1 else []
            if image.mode == "I" and image.format == "TIFF":
                raise ValueError("neither 8 nor 16 bits a channel")
            if image.mode.startswith("I") or any(";16" in str(tile.args) for tile in image.tile):
                said.append("16 bits scaled to 8")
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
                said.append("turned upright, as the camera noted")
            image.load()
            if image.mode.startswith(("I", "F")):  # Pillow's own conversion of these cuts at 255
                image = eight_bits(image)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                if image.getextrema()[3][0] < 255:
                    said.append("transparency put on white")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB"), said
    except (*DAMAGE, IndexError, TypeError) as error:  # these two of damaged GIF and TIFF
        raise UramError(f"{file} cannot be read as a picture: {error}") from error


def eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits as one of 8, transparent where it was. Raises ValueError for a wider range."""
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65_535:
        raise ValueError(f"neither 8 nor 16 bits a channel (Pillow's mode {image.mode})")
    alpha = np.where(levels == image.info.get("transparency", -1), 0, 255)
    grey = (levels.astype(np.uint32) + 128) // 257
    return Image.fromarray(np.stack((grey, alpha), -1).astype(np.uint8))  # mode LA


def fitted(image: Image.Image, height: int, width: int) -> tuple[np.ndarray, list[str]]:
    """A picture as the models of digits take it, an array (height, width) in [0, 1], and what was done to it. Their
    digits are light on black, and nothing is enlarged."""
    colours, said = np.asarray(image, np.float32) / 255, []  # (h, w, 3)
    grey = colours.mean(-1)
    if grey.min() == grey.max():
        said.append("one colour throughout, so there is nothing to read")
    if (colours != colours[..., :1]).any():
        said.append("colours averaged to grey")
    if np.median(np.concatenate((grey[0], grey[-1], grey[:, 0], grey[:, -1]))) > 0.5:
        said.append("dark on light inverted")
        grey = 1 - grey
    h, w = grey.shape
    if (shrink := min(height / h, width / w)) < 1:
        h, w = max(1, round(h * shrink)), max(1, round(w * shrink))
        said.append(f"scaled down to {w} x {h} px")
        grey = np.array(Image.fromarray(grey).resize((w, h), Image.Resampling.BILINEAR))
    if (h, w) != (height, width):
        said.append(f"put in the middle of {width} x {height} px")
    top, left = (height - h) // 2, (width - w) // 2
    return np.pad(grey, ((top, height - h - top), (left, width - w - left))).clip(0, 1), said


def answer(reading) -> str:
    """As in `7, probability 0.98`; of a number its digits. reading: what `Model.read` returns for one picture."""
    label, probabilities = reading.labels[0], reading.probabilities[0]
    if label.ndim == 0:
        return f"{label.item()}, probability {probabilities.max().item():.2f}"
    digits = label[label != TERMINAL].tolist()
    best = probabilities.gather(-1, label[:, None])[: len(digits) + 1].prod().item()
    return f"{''.join(map(str, digits)) or 'no digit'}, probability {best:.2f}"


def draw(canvas: np.ndarray, reading, model, png: Path) -> None:
    """Draw the picture, (H, W), with the path of the glimpses and their finest patches."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from .glimpse import location_to_pixel

    height, width = canvas.shape
    figure = Figure((4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    path = location_to_pixel(reading.locations[0], height, width)
    axes.plot(*path.T, "-", color="tab:orange", lw=1.5)
    for t, (x, y) in enumerate(path.tolist(), 1):
        axes.text(x, y, str(t), color="tab:orange", ha="center", va="center", fontsize=9)
        size = getattr(model, "ram", model).sensor.size
        axes.add_patch(Rectangle((x - size / 2, y - size / 2), size, size, fill=False, ec="tab:orange", lw=0.8))
    axes.set(title=answer(reading), xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    write_atomically(png.resolve(), lambda temporary: figure.savefig(temporary, format="png", dpi=150))
