"""What published models do on test canvases: where they start, where they look, whether the context tells the label.

`write` keeps the numbers that pages state in `results/tables/looks.csv`, since a build may be without MNIST.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from uram_lib import checkpoints, data, evaluation, records
from uram_lib.config import Config
from uram_lib.data import Split
from uram_lib.evaluation import rollouts
from uram_lib.experiments import experiment
from uram_lib.glimpse import location_to_pixel, pixel_to_location
from uram_lib.models import Unified
from uram_lib.models.layers import Trajectory
from uram_lib.models.ram import start_location
from uram_lib.models.topdown import actions_to
from uram_lib.paths import TABLES, write_atomically
from uram_lib.runs import Run

from .tables import with_header

CANVASES = 2_000
FRAME = 28  # side of a digit's frame, in pixels
QUADRANTS = {"the digit's own": 0b00, "beside it": 0b01, "above or below it": 0b10, "opposite": 0b11}
ASKED = (("ours-6-entropy-context", "paper"), ("ours-8-entropy-context", "paper"), ("ours-6-entropy-context", "strong"))


def offsets(trajectory: Trajectory, split: Split) -> Tensor:
    """(N, T, 2) pixels, x then y: from the digit's centre to each glimpse."""
    pixels = location_to_pixel(trajectory.locations, *split.images.shape[-2:])
    return pixels - split.centres[:, None]


def starts(model, split: Split) -> np.ndarray:
    """(N, 2) pixels: where the first glimpse lies, seen from the digit's centre."""
    return offsets(rollouts(model, split.floats(), centres=split.centres), split)[:, 0].numpy()


def leak(model, split: Split, form: str) -> tuple[dict, np.ndarray]:
    """`evaluation.label_leak`: percentages, and the matrix of label told against label answered."""
    found, matrix = evaluation.label_leak(model, split, form)
    return found, matrix.numpy()


def frames(trajectory: Trajectory, split: Split, config: Config) -> pd.DataFrame:
    """A line per glimpse: its mean distance to the digit's centre, and how often it is centred in the digit's frame or
    has the digit's centre in the box of each scale, in percent."""
    away = offsets(trajectory, split)  # (N, T, 2)
    reach = away.abs().amax(-1)
    lines = {
        "distance (px)": away.norm(dim=-1).mean(0),
        "in the digit's frame (%)": 100 * (reach <= FRAME / 2).float().mean(0),
    }
    for k in range(config.scales):
        side = config.patch_size * 2**k
        lines[f"digit's centre in the {side} px box (%)"] = 100 * (reach <= side / 2).float().mean(0)
    lines["glimpse"] = torch.arange(1, config.glimpses + 1)
    return with_header(pd.DataFrame({name: values.tolist() for name, values in lines.items()}), "glimpse")


def on_digit(trajectory: Trajectory, split: Split) -> Tensor:
    """(N,) bool: whether the last glimpse is centred in the digit's frame."""
    return offsets(trajectory, split)[:, -1].abs().amax(-1) <= FRAME / 2


@torch.no_grad()
def by_quadrant(model: Unified, split: Split) -> pd.DataFrame:
    """What the model makes of a start in each quadrant, named from where the digit is: how often it is chosen, the mean
    Q, and the error."""
    images, size, lines = split.floats(), split.images.shape[-2:], []
    values = model.topdown(images).values[:, 0]  # (N, 4)
    own = actions_to(pixel_to_location(split.centres, *size), 1)[:, 0]
    middle = torch.tensor([[25.0, 25.0], [75.0, 25.0], [25.0, 75.0], [75.0, 75.0]]) / 100 * size[-1]
    for name, other in QUADRANTS.items():
        quadrant = own ^ other
        seen = rollouts(model, images, centres=middle[quadrant], start="true-quadrant")
        wrong = (seen.class_logits[:, -1].argmax(-1) != split.labels).float().mean().item()
        chosen = (values.argmax(1) == quadrant).float().mean().item()
        lines.append({"start in the quadrant": name, "chosen (%)": 100 * chosen,
                      "mean Q": values.gather(1, quadrant[:, None]).mean().item(),
                      "error (%)": 100 * wrong})  # fmt: skip
    return with_header(pd.DataFrame(lines), "start in the quadrant")


def error_by_distance(groups: dict[str, list[dict]], width: float = 10) -> pd.DataFrame:
    """Error against the distance from the start to the digit, from the outcomes of each image and start in the records.

    Columns `row`, `distance_px` (the middle of a bin of `width` pixels), `error` in percent, and `n`.
    """
    lines = []
    for row, runs in groups.items():
        config = Config.read(runs[0]["config"])
        split = data.load(config.dataset).load_test()
        wrong = np.stack([~records.unpack(r["test_correct"]) for r in runs])  # (seeds, S, N)
        for k in range(wrong.shape[1]):
            uniform = evaluation.uniform_start(len(split), evaluation.stream(0, "start", k))
            start = start_location(config.start, uniform, split.centres, *split.images.shape[-2:])
            far = split.glimpse_distances(start[:, None])[:, 0].numpy()
            lines += [
                {"row": row, "bin": b, "wrong": w} for b, w in zip(far // width, wrong[:, k].mean(0), strict=True)
            ]
    frame = pd.DataFrame(lines).groupby(["row", "bin"], sort=False)["wrong"].agg(["mean", "size"]).reset_index()
    frame = frame[frame["size"] >= 500].sort_values(["row", "bin"])
    return pd.DataFrame({"row": frame["row"], "distance_px": width * (frame["bin"] + 0.5), "error": 100 * frame["mean"],
                         "n": frame["size"]})  # fmt: skip


def write() -> None:
    """Renew `results/tables/looks.csv`; where MNIST is not here, it stays as it is."""
    try:
        split = data.load("clutter100-10").load_test().at(slice(CANVASES))
    except data.DataUnavailable:
        return
    lines = []
    for row, preset in ASKED:
        path = Run(experiment("table2", row, preset), 0, publish=True).checkpoint
        if path.exists():
            model, config = checkpoints.load(path)
            found, _ = leak(model, split, config.context)
            lines += [{"what": what, "row": row, "preset": preset, "form": config.context, "value": round(value, 4)}
                      for what, value in found.items()]  # fmt: skip
    text = pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")
    write_atomically(TABLES / "looks.csv", lambda temporary: temporary.write_text(text, encoding="utf-8"))
