"""The gallery: how a trained unified model reads single images, where it looks, and what is to be said of that."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from . import plotting
from .data import Split
from .evaluation import distances_px, rollouts
from .glimpse import location_to_pixel, pixel_to_location
from .live import BLIND
from .models import RAM, Trajectory, Unified
from .models.topdown import actions_to, place_within, pyramid, rectangle
from .statistics import Estimate, paired_difference
from .wording import count, listed

# Where the bottom-up model is put, and how a reader calls it; the first is its own start. The last knows the answer.
STARTS = {
    "where top-down says": None, "anywhere": "uniform", "image centre": "image-centre", "digit's centre": "true-centre",
}  # fmt: skip
# Quadrants as seen from the object's: what the number of its own quadrant is to be combined with, bit by bit.
QUADRANTS = {"the digit's own": 0b00, "beside it": 0b01, "above or below it": 0b10, "opposite": 0b11}
SELDOM = 5  # percent of the images: a region chosen less often counts as hardly ever chosen


class Reading(NamedTuple):
    """How the unified model read one image in T glimpses."""

    image: Tensor  # (C, H, W) in [0, 1]
    label: int
    centre: Tensor  # (2,), the object's, in px, x then y
    values: Tensor  # (4,): Q of the first decision
    locations: Tensor  # (T, 2) in [-1, 1], x then y
    probabilities: Tensor  # (T, K): alpha_t (Eq. 10d)


@torch.no_grad()
def readings(model: Unified, split: Split, start_seed: int = 0) -> list[Reading]:
    """`model`'s readings of all of `split`, from start draw `start_seed`, by the mean policy."""
    images = split.floats()
    trajectory = rollouts(model, images, start_seed)
    values = model.topdown(images).values[:, 0]  # (N, 4)
    parts = (images, split.labels.tolist(), split.centres, values, trajectory.locations)
    return [Reading(*fields) for fields in zip(*parts, trajectory.class_logits.softmax(-1), strict=True)]


def first_cases(found: list[Reading], count: int) -> tuple[list[int], list[int]]:
    """The indices of the first `count` images that were read rightly, and of the first that were read wrongly."""
    right = [int(r.probabilities[-1].argmax()) == r.label for r in found]
    return tuple([i for i, ok in enumerate(right) if ok == wanted][:count] for wanted in (True, False))


def draw(r: Reading, ram: RAM, object_side: float, title: str = "", glimpses: int | None = None) -> Figure:
    """A new figure of one reading: the region that was chosen, the path, what each glimpse saw and what the model
    believed after it.

    object_side: of the object's frame, in px. glimpses: show the first so many alone, and the boxes of all scales for
    the last of them, as a frame of an animation; by default all, each with the box of its finest scale.
    """
    size, scales, steps = ram.sensor.size, ram.sensor.scales, len(r.locations)
    shown = r.locations[:glimpses]
    figure, axes = plt.subplots(2, 2, figsize=(7.2, 6.8), gridspec_kw={"height_ratios": (1.2, 1)})
    plotting.region_values(pyramid(r.image[None], 2)[0][0], r.values, axes[0, 0], "what top-down sees, and Q")
    plotting.object_frame(r.centre, object_side, axes[0, 1])
    boxes = {"scales": 1} if glimpses is None else {"scales": scales, "last_boxes_only": True}
    plotting.glimpse_path(r.image, shown, size, ax=axes[0, 1], title="the path", **boxes)
    plotting.patches(r.image, shown, size, scales, axes[1, 0], "what each glimpse saw", steps)
    belief = r.probabilities[:glimpses]
    plotting.class_probabilities(belief, r.label, axes[1, 1], "belief after each glimpse (%)", steps)
    figure.suptitle(title)
    return figure


class Looked(NamedTuple):
    """What a model did from one kind of start, means over start draws."""

    wrong: np.ndarray  # (N, T): share of the draws in which the image would be misread after glimpse t
    distance_px: np.ndarray  # (N, T): from glimpse t to the object's centre


@torch.no_grad()
def from_starts(model: Unified, split: Split, draws: int) -> dict[str, Looked]:
    """What `model` does on all of `split` from each of STARTS, with the same draws for all: start draws 0 to
    `draws` - 1, those of testing."""
    images, found = split.floats(), {}
    for name, start in STARTS.items():
        trajectories = [rollouts(model, images, k, centres=split.centres, start=start) for k in range(draws)]
        wrong = [(t.class_logits.argmax(-1) != split.labels[:, None]).double() for t in trajectories]
        far = [distances_px(t, split).double() for t in trajectories]
        found[name] = Looked(*(torch.stack(values).mean(0).cpu().numpy() for values in (wrong, far)))
    return found


def by_glimpse(looked: dict[str, Looked]) -> pd.DataFrame:
    """Means over images in the long form that `plotting.by_glimpse` draws, a `row` a start."""
    lines = [
        {"row": name, "quantity": f"{quantity}, glimpse {t}", "value": value, "ci_low": None, "ci_high": None}
        for name, found in looked.items()
        for quantity, values in (("error_percent", 100 * found.wrong), ("glimpse_distance_px", found.distance_px))
        for t, value in enumerate(values.mean(0))
    ]
    return pd.DataFrame(lines)


def change(looked: dict[str, Looked], start: str) -> Estimate:
    """The error of the model's own start minus that from another one, in percentage points, paired by image; a normal
    interval over images, of this one trained model."""
    own = next(iter(looked))
    return paired_difference(looked[own].wrong[None, :, -1], looked[start].wrong[None, :, -1])


class Quadrant(NamedTuple):
    """What a model makes of a start in one quadrant of each of N images, named from where the object is."""

    wrong: np.ndarray  # (N,): share of the start draws in which the image is misread
    value: np.ndarray  # (N,): Q
    chosen: np.ndarray  # (N,): whether Q is highest there


@torch.no_grad()
def by_quadrant(model: Unified, split: Split, draws: int) -> dict[str, Quadrant]:
    """What `model`, of one decision, makes of starts in each of QUADRANTS, with the same draws for all: start draws 0
    to `draws` - 1, those of testing."""
    images, found, size = split.floats(), {}, split.images.shape[-2:]
    values = model.topdown(images).values[:, 0]  # (N, 4)
    own = actions_to(pixel_to_location(split.centres, *size), 1)  # (N, 1)
    for name, other in QUADRANTS.items():
        quadrant = own ^ other
        there = location_to_pixel(place_within(rectangle(quadrant), 0.5), *size)  # as if the object were there
        draw = lambda k, there=there: rollouts(model, images, k, centres=there, start="true-quadrant")  # noqa: E731
        wrong = [(draw(k).class_logits[:, -1].argmax(-1) != split.labels).double() for k in range(draws)]
        parts = (torch.stack(wrong).mean(0), values.gather(1, quadrant)[:, 0], values.argmax(1) == quadrant[:, 0])
        found[name] = Quadrant(*(part.cpu().numpy() for part in parts))
    return found


def quadrants_sentence(found: dict[str, Quadrant]) -> str:
    """Whether Q chooses what reads best, and whether that is where the object is. found: of `by_quadrant`."""
    right = {name: 100 * (1 - at.wrong.mean()) for name, at in found.items()}
    value = {name: at.value.mean() for name, at in found.items()}
    chosen = {name: 100 * at.chosen.mean() for name, at in found.items()}
    own, (best, valued, usual) = next(iter(found)), (max(means, key=means.get) for means in (right, value, chosen))
    rates = listed([f"{rate:.1f} % ({name})" for name, rate in right.items()])
    text = (
        f"By the quadrant of the start, this model reads {rates} rightly. Mean Q is highest for *{valued}*, and chosen "
        f"most often is *{usual}*, on {chosen[usual]:.0f} % of the canvases."
    )
    if best != own and paired_difference(found[best].wrong[None], found[own].wrong[None]).high < 0:
        text += " **The start that pays is not where the digit is.**"
    return text


def looks(trajectory: Trajectory, split: Split, ram: RAM, object_side: float) -> pd.DataFrame:
    """Where the glimpses of all images of `split` lie, a line a glimpse: `distance_px`, the mean to the object's
    centre; and in percent of images, `in_frame`, those whose glimpse is centred in the object's frame, and `box_<side>`
    for each scale, those whose box of that side in px holds the object's centre."""
    side = torch.tensor(split.images.shape[-1])
    pixels = (trajectory.locations + 1) / 2 * side  # (N, T, 2)
    away = (pixels - split.centres[:, None]).abs().amax(-1)  # (N, T): half the side of the square that just reaches
    sides = {"in_frame": object_side} | {f"box_{ram.sensor.size * 2**k}": ram.sensor.size * 2**k
                                         for k in range(ram.sensor.scales)}  # fmt: skip
    lines = {"distance_px": distances_px(trajectory, split).mean(0)}
    lines |= {name: 100 * (away <= width / 2).double().mean(0) for name, width in sides.items()}
    return pd.DataFrame({name: values.tolist() for name, values in lines.items()}).rename_axis("glimpse")


def looking_sentence(lines: pd.DataFrame) -> str:
    """What `looks` says, in words."""
    first, last = lines.iloc[0], lines.iloc[-1]
    widest, finest = lines.columns[-1], next(name for name in lines if name.startswith("box_"))
    mostly = "mostly" if last["in_frame"] > 50 else "mostly not"
    side = lambda name: name.removeprefix("box_")  # noqa: E731
    return (
        f"The start lies {first['distance_px']:.0f} px from the digit's centre on average, the last glimpse "
        f"{last['distance_px']:.0f} px. That last glimpse is centred within the digit's frame in "
        f"{last['in_frame']:.0f} % of the canvases: **where the model looks is {mostly} where the digit is.** Its "
        f"finest patch ({side(finest)} px wide) holds the digit's centre in {last[finest]:.0f} %, its widest "
        f"({side(widest)} px) in {last[widest]:.0f} %."
    )


def choosing_sentence(records: list[dict]) -> str:
    """What the first top-down decision of these runs came to, over all test images. records: of models that choose
    their start, at least one."""
    found = [r["metrics"]["top_down"] for r in records]
    shares = 100 * np.array([f["action_histogram"][0] for f in found])  # (runs, 4)
    inside = [f["in_region_percent"] for f in found]
    used = (shares >= SELDOM).sum(1)
    less = sum(share < BLIND / 2 for share in inside)
    away = (
        f" In {count(less, 'run')} it is less than half of that: **these start away from the digit.**" if less else ""
    )
    parts = [f"{count(n, 'quadrant')} in {count(int((used == n).sum()), 'run')}" for n in sorted(set(used.tolist()))]
    return (
        f"Over {count(len(found), 'run')}, the quadrant that a run chooses most often takes {_range(shares.max(1))} % "
        f"of the test canvases, though the digit lies in each equally often. Quadrants that a run chooses for at least "
        f"{SELDOM} % of the canvases: {listed(parts)}. The digit's centre lies in the chosen quadrant in "
        f"{_range(inside)} % of the canvases; a blind choice would give {BLIND:.0f} %." + away
    )


def _range(values) -> str:
    """As in `51 to 96`, or `51` where they round to one number."""
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"
