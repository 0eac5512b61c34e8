"""Pictures of what models see: images, the path of their glimpses, what each glimpse saw, what they believe.

Every picture is drawn on the axes it is given, in pixels of the image, and its axes are returned. Images are (C, H, W)
in [0, 1]; locations (T, 2), x then y, in [-1, 1], the first of them the start.
"""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from uram_lib.data import PLACES, TERMINAL
from uram_lib.data.base import Split
from uram_lib.evaluation import rollouts
from uram_lib.glimpse import GlimpseSensor, location_to_pixel

from .plotting import BLACK, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW, name_of

PLACE_COLOURS = (YELLOW, SKY, ORANGE, GREEN, PURPLE, VERMILION)
# Of what is drawn over an image: a dark outline.
LINE = {"path_effects": [withStroke(linewidth=2.5, foreground="black")]}
TEXT = {"fontweight": "bold"} | LINE


def show_image(image: Tensor, ax: Axes, title: str = "") -> Axes:
    """Draw one image: pixel i covers [i, i + 1)."""
    height, width = image.shape[-2:]
    ax.imshow(image.detach().cpu().permute(1, 2, 0), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    ax.set(xticks=(0, width / 2, width), yticks=(0, height / 2, height), title=title)
    ax.set(xlim=(0, width), ylim=(height, 0))  # whatever is drawn over it
    ax.tick_params(labelsize=8, length=2)
    ax.spines[:].set_visible(False)
    return ax


def square(centre: Sequence[float], side: float, ax: Axes, **look) -> Axes:
    """Draw the square of `side` px around `centre`, x then y, in px: by default the frame of an object."""
    x, y = centre
    look = {"ec": GREEN, "lw": 2, "zorder": 2} | look
    ax.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, fill=False, **look))
    return ax


def pixels_of(image: Tensor, locations: Tensor) -> np.ndarray:
    """Locations in pixels of the image, at its edge where they lie beyond."""
    return location_to_pixel(locations.detach().cpu().clamp(-1, 1), *image.shape[-2:]).numpy()


def glimpse_path(image: Tensor, locations: Tensor, patch_size: int, scales: int, ax: Axes, title: str = "") -> Axes:
    """Draw where a model looked: one number per glimpse, the path between them and each glimpse's boxes, of side
    `patch_size` * 2**k px for scale k: the finest is a full line, the coarser ones are thin and dashed."""
    show_image(image, ax, title)
    pixels = pixels_of(image, locations)
    ax.plot(*pixels.T, color=YELLOW, lw=1.3, zorder=3, **LINE)
    for t, place in enumerate(pixels, 1):
        colour = SKY if t == 1 else ORANGE
        for k in reversed(range(scales)):
            look = {"lw": 0.6, "ls": "--", "alpha": 0.7} if k else {"lw": 1.3}
            square(place, patch_size * 2**k, ax, ec=colour, **look)
        ax.text(*place, str(t), color=colour, ha="center", va="center", fontsize=10, zorder=4, **TEXT)
    ax.set(xlabel="x (px)", ylabel="y (px)")
    return ax


def scan_paths(locations: Tensor, side: int, ax: Axes) -> Axes:
    """Draw the paths of many readings over one another, one colour per place of the number, and their mean in black.
    locations: (N, T, 2); side: of the images, in pixels."""
    pixels = (locations.numpy() + 1) / 2 * side
    each = pixels.shape[1] // PLACES
    for place in range(PLACES):
        part = pixels[:, max(place * each - 1, 0) : (place + 1) * each]
        ax.plot(*part.transpose(2, 1, 0), color=PLACE_COLOURS[place], lw=0.5, alpha=0.15, rasterized=True)
    ax.plot(*pixels.mean(0).T, color="black", lw=1.2, marker="o", ms=2.5)
    ax.set(xlim=(0, side), ylim=(side, 0), aspect="equal", xlabel="x (px)", ylabel="y (px)")
    return ax


def reading_path(image: Tensor, locations: Tensor, said: Sequence[int], ax: Axes) -> Axes:
    """Draw how a number was read: the glimpses at each of its places as dots on a line, one colour per place, and what
    the model then said. The line of a place begins where the one before it ended. said: the class at each of the P
    places that were read, P T / 6 of the T glimpses; 10, the end, is drawn as a full stop."""
    show_image(image, ax)
    pixels = pixels_of(image, locations)
    each = len(pixels) // PLACES
    for place, (digit, colour) in enumerate(zip(said, PLACE_COLOURS, strict=False)):
        first = place * each
        path = pixels[max(first - 1, 0) : first + each]
        ax.plot(*path.T, color=colour, lw=1.3, zorder=3, **LINE)
        ax.plot(*pixels[first : first + each].T, "o", ms=3.5, color=colour, mec="black", mew=0.5, zorder=4)
        text = "." if digit == TERMINAL else str(int(digit))
        ax.annotate(text, path[-1], (4, 4), textcoords="offset points", color=colour, fontsize=11, zorder=5, **TEXT)
    return ax


def patches(image: Tensor, locations: Tensor, patch_size: int, scales: int, ax: Axes, title: str = "") -> Axes:
    """Draw what each glimpse saw: a column a glimpse, a row a scale, finest first, with the side covered, in px."""
    sensor, step = GlimpseSensor(patch_size, scales), patch_size * 1.15
    images = image.detach().cpu().expand(len(locations), *image.shape)
    seen = sensor(sensor.pyramid(images), locations.detach().cpu())  # (T, S, C, g, g)
    for t, glimpse in enumerate(seen):
        for k, patch in enumerate(glimpse):
            x, y = t * step, k * step
            place = {"extent": (x, x + patch_size, y + patch_size, y)}
            ax.imshow(patch.permute(1, 2, 0), cmap="gray", vmin=0, vmax=1, **place)
    columns, middle = range(len(seen)), patch_size / 2
    ax.set(xlim=(-0.5, len(seen) * step), ylim=(scales * step, -0.5), xlabel="glimpse t", title=title, aspect="equal")
    ax.set_xticks([t * step + middle for t in columns], [t + 1 for t in columns])
    ax.set_yticks([k * step + middle for k in range(scales)], [f"{patch_size * 2**k} px" for k in range(scales)])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def region_values(image: Tensor, values: Tensor, ax: Axes, title: str = "") -> Axes:
    """Draw one decision of the top-down model: what it sees, a level of the pyramid, Q of each of the four regions,
    (4,) row by row from the top left, and the frame of the best."""
    show_image(image, ax, title)
    height, width = (side / 2 for side in image.shape[-2:])
    for region, value in enumerate(values.tolist()):
        x, y = region % 2 * width, region // 2 * height
        colour, line, z = (ORANGE, 2.5, 3) if region == values.argmax() else (SKY, 0.8, 2)
        ax.add_patch(Rectangle((x, y), width, height, fill=False, ec=colour, lw=line, zorder=z))
        ax.text(x + width / 2, y + height / 2, f"{value:.3f}", color=colour, ha="center", va="center", fontsize=12,
                zorder=4, **TEXT)  # fmt: skip
    ax.set(xlabel="x (px)", ylabel="y (px)")
    return ax


def class_probabilities(probabilities: Tensor, label: int, ax: Axes, title: str = "") -> Axes:
    """Draw what a model believes after each glimpse, (T, K): a column a glimpse, a row a class, dark where it is
    likely, with the likeliest class's probability in percent, and a frame around the row of the true class."""
    columns, classes = probabilities.shape
    ax.imshow(probabilities.T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for t, (sure, best) in enumerate(zip(*map(Tensor.tolist, probabilities.max(-1)), strict=True)):
        colour = "white" if sure > 0.6 else BLACK
        ax.text(t, best, f"{100 * sure:.0f}", ha="center", va="center", fontsize=8, color=colour)
    ax.add_patch(Rectangle((-0.5, label - 0.5), columns, 1, fill=False, ec=GREEN, lw=2, clip_on=False))
    ax.set(xlim=(-0.5, columns - 0.5), xlabel="glimpse t", ylabel="class", title=title, yticks=range(classes))
    ax.set_xticks(range(columns), range(1, columns + 1))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def read_together(models: dict[str, tuple], split: Split) -> None:
    """Draw how each model, name -> (model, config), reads the images of `split`: a row per model, the answer above each
    image, the label in brackets."""
    images, count = split.floats(), len(split)
    _, axes = plt.subplots(max(len(models), 1), count, figsize=(7.2, 1.5 * len(models)), squeeze=False)
    for line, (name, (model, config)) in zip(axes, models.items(), strict=False):
        looked = rollouts(model, images, centres=split.centres)
        for i, ax in enumerate(line):
            title = f"{looked.class_logits[i, -1].argmax()} ({split.labels[i]})"
            glimpse_path(images[i], looked.locations[i], config.patch_size, 1, ax, title)
            ax.set(xlabel="", ylabel="", xticks=(), yticks=())
        line[0].set_ylabel(textwrap.fill(name_of(name), 18))
