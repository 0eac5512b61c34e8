"""The live page's model: a published checkpoint of the unified model, and test images, as scripts for a browser.

A page that is opened as a file may not fetch anything, but it may load scripts. So the weights and the images come as
scripts that set one global each, with their bytes in base64. `book/_static/uram.js` computes with them.
"""

import base64
import json
from pathlib import Path

import torch
from torch import Tensor

from . import UramError, checkpoints, data, paper
from .data import Split
from .experiments import Config, label_of
from .models import Unified
from .models.topdown import REGIONS
from .paths import CHECKPOINTS, PUBLISHED, relative, write_atomically
from .records import dataset_name, load_records
from .tables import PUBLISHED_AT

TABLE = "table2"
IMAGES = 24  # the first of the test set
DIGIT_RADIUS_PX = 14  # from the centre of a digit's frame of 28 x 28 px to the middle of its edges
BLIND = 100 / REGIONS  # percent of images whose object lies in a quadrant that was chosen without looking
# What training alone uses: the frozen Q-network of Eq. 8, the baseline of Eq. 4 and f_c of Eq. 11.
TRAINING_ONLY = ("topdown.target.", "ram.baseline_network.", "ram.context_network.")


def find(checkpoints_root: Path = CHECKPOINTS, records_root: Path = PUBLISHED) -> tuple[Path, dict] | None:
    """The checkpoint that the page shows and its run record; None where none is published.

    Of the first preset of `PUBLISHED_AT` that has checkpoints of the unified model on the paper's data set, it is the
    one of lowest validation error.
    """
    records = load_records(records_root, TABLE)
    for preset in PUBLISHED_AT:
        found = []
        for record in records:
            place = Path(TABLE, preset, paper.DATASETS[TABLE], record["row"], f"seed-{record['seed']}.safetensors")
            here = (record["preset"], dataset_name(record)) == (preset, paper.DATASETS[TABLE])
            if here and record["config"]["model"] == "unified" and (checkpoints_root / place).exists():
                found.append((checkpoints_root / place, record))
        if found:
            return min(found, key=lambda one: one[1]["metrics"]["val_error"])
    return None


def load(path: Path, record: dict) -> tuple[Unified, Config]:
    """The model in `path` and its configuration. Raises UramError where the record is of another configuration, and
    where the page's script does not know the model."""
    model, config = checkpoints.load(path)
    if config.hash != record["config_hash"]:
        raise UramError(f"{relative(path)} is not of the configuration that its record names")
    if config.levels != 1:
        raise UramError(f"{relative(path)}: the live page shows one decision, this model takes {config.levels}")
    return model, config


def model_script(model: Unified, config: Config) -> str:
    """The model as a script that sets `uramModel`: what `Uram.load` of `uram.js` reads.

    The weights are single precision, as they were trained. Half would be half as long, but a rollout enlarges small
    differences: with weights rounded to half precision some paths become other paths.
    """
    weights = {
        name: value.detach().to(torch.float32).flatten()
        for name, value in model.state_dict().items()
        if not name.startswith(TRAINING_ONLY)
    }
    places, at = {}, 0
    for name, value in weights.items():
        places[name] = {"at": at, "size": len(value)}
        at += len(value)
    kept = ("glimpses", "patch_size", "scales", "core", "region_start")
    side = data.shape_of(config.dataset)[0][-1]
    settings = {name: getattr(config, name) for name in kept} | {"side": side, "hidden": model.ram.core.hidden_size}
    exported = {"config": settings, "weights": places, "data": encode(torch.cat(list(weights.values())))}
    return f"const uramModel = {json.dumps(exported)};\n"


def images_script(split: Split, count: int = IMAGES) -> str:
    """The first images of `split` as a script that sets `uramImages`: `count`, `labels`, the `centres` of the digits
    in pixels, x then y, and `data`, a byte a pixel, image by image and row by row."""
    count = min(count, len(split))
    exported = {
        "count": count,
        "labels": split.labels[:count].tolist(),
        "centres": split.centres[:count].tolist(),
        "data": encode(split.images[:count]),
    }
    return f"const uramImages = {json.dumps(exported)};\n"


def encode(values: Tensor) -> str:
    """The little-endian bytes of a tensor, row by row, in base64."""
    array = values.contiguous().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def write_scripts(folder: Path) -> list[Path]:
    """Write `live-model.js` and `live-images.js` for the book; none where no checkpoint is published. Without MNIST the
    images are made from the embedded digits."""
    found = find()
    if found is None:
        return []
    model, config = load(*found)
    dataset = data.load(data.available(config.dataset))
    scripts = {"live-model.js": model_script(model, config), "live-images.js": images_script(dataset.load_test())}
    for name, text in scripts.items():
        write_atomically(folder / name, lambda temporary, text=text: temporary.write_text(text))
    return [folder / name for name in scripts]


def fragments(found: tuple[Path, dict] | None) -> dict[str, str]:
    """Name of each Markdown fragment of the page and its text. found: of `find`."""
    if found is None:
        nothing = "No checkpoint of the unified model is published yet, so this page has nothing to show.\n"
        return {"live-model.md": nothing, "live-images.md": ""}
    return {"live-model.md": model_text(*found), "live-images.md": images_text(found[1]["config"]["dataset"])}


def model_text(path: Path, record: dict) -> str:
    """Which model the page shows, how often it errs, and what may be expected of its glimpses, from its record."""
    metrics, settings = record["metrics"], record["config"]
    starts = {
        "uniform": "at a uniformly drawn place in it, and *Reset* draws another",
        "centre": "in the middle of it",
    }
    return (
        f"The model is *{label_of(TABLE, record['row'])}* with a core of the kind `{settings['core']}`, preset "
        f"`{record['preset']}`, seed {record['seed']} (`{relative(path)}`). Of the checkpoints of the unified model "
        "published at that preset it has the lowest validation error. On the whole test set of "
        f"{record['dataset']['sizes']['test']:,} canvases it errs on **{metrics['test_error']:.2f}\u00a0%**, the "
        f"mean over {len(metrics['test_error_by_start'])} passes.\n\n"
        f"{quadrant_text(metrics['top_down'])} It starts {starts[settings['region_start']]}.\n\n"
        f"{distance_text(metrics['glimpse_distance_px'])}\n"
    )


def quadrant_text(top_down: dict) -> str:
    """How often the chosen quadrant is the right one, and how often each is chosen."""
    shares = [f"{100 * share:.0f}" for share in top_down["action_histogram"][0]]
    inside = top_down["in_region_percent"]
    return (
        f"The quadrant that it chooses holds the digit's centre on {inside:.0f}\u00a0% of the test canvases; a blind "
        f"choice would come to about {BLIND:.0f}\u00a0%.{away_text(inside)} It "
        "chooses top left, top right, bottom left and bottom right on "
        f"{', '.join(shares[:-1])} and {shares[-1]}\u00a0% of them."
    )


def away_text(in_region_percent: float) -> str:
    """What a reader who sees the digit outside the chosen quadrant should know; empty where the two mostly agree."""
    if in_region_percent > BLIND / 2:
        return ""
    where = "[the gallery](../notebooks/60_gallery.ipynb)"
    return f" It has learned to start *away* from the digit, and {where} measures whether that pays."


def distance_text(distances: list[float]) -> str:
    """Whether the glimpses come to the digit, from their mean distances to its centre in pixels, glimpse by glimpse."""
    nearest = min(range(len(distances)), key=distances.__getitem__)
    last = len(distances) - 1
    least = f"least at glimpse {nearest + 1}{', the last,' if nearest == last else ''} with {distances[nearest]:.0f}"
    measured = f"The mean distance from a glimpse to the digit's centre is {distances[0]:.0f}\u00a0px at the start" + (
        f" and {least}\u00a0px"
        if nearest == last
        else f", {least}\u00a0px, and {distances[-1]:.0f}\u00a0px at the last"
    )
    frame = f"the frame of a digit reaches {DIGIT_RADIUS_PX}\u00a0px from its centre"
    if distances[nearest] > DIGIT_RADIUS_PX:
        return (
            f"**On average its glimpses do not come to the digit.** {measured}, while {frame}. The coarse scales see "
            "much of the canvas from anywhere, so that it can read a digit from afar."
        )
    return f"On average its glimpses find their way to the digit. {measured}; {frame}."


def images_text(dataset: str) -> str:
    """What the page's images are made from, and under which licence."""
    if data.is_embedded(data.available(dataset)):
        return f"{data.BANNER} The images above are made from them, as MNIST was not at hand.\n"
    return (
        f"The images are the first {IMAGES} of the fixed test set `{dataset}`, not selected. They are made from "
        "MNIST's digits, by Yann LeCun and Corinna Cortes, which stand under the licence "
        "[CC BY-SA 3.0](https://creativecommons.org/licenses/by-sa/3.0/), and so do these images.\n"
    )
