"""What the live explorer computes with: a published RAM and a URAM of equal length, and digits, as one script.

A page that is opened as a file may not fetch anything, but it may load scripts. So weights and digits come as a script
that sets `uramModels`, with their bytes in base64. `book/_static/uram.js` computes with them.
"""

import base64
import json
from pathlib import Path

import torch
from torch import Tensor

from uram_lib import checkpoints, data
from uram_lib.config import Config
from uram_lib.experiments import published_weights
from uram_lib.models import Unified
from uram_lib.models.layers import predicts

from .tables import write

PRESET, ROWS = "strong", ("ram-8", "ours-8")
DIGITS = 40  # the first of MNIST's test set


def export(model: torch.nn.Module, config: Config) -> dict:
    """A model as `Uram.load` reads it: settings, and weights in single precision. Half precision would be half as long,
    but a rollout enlarges small differences: some paths would become others."""
    parts = {name: value.float().flatten() for name, value in model.state_dict().items() if predicts(name)}
    places, at = {}, 0
    for name, part in parts.items():
        places[name] = {"at": at, "size": len(part)}
        at += len(part)
    ram = model.ram if isinstance(model, Unified) else model
    kept = ("glimpses", "patch_size", "scales", "core", "region_start", "regions", "bounded_mean")
    settings = {name: getattr(config, name) for name in kept}
    settings |= {"kind": config.model, "side": data.shape_of(config.dataset)[0][-1], "hidden": ram.core.hidden_size}
    return {"config": settings, "weights": places, "data": encode(torch.cat([*parts.values()]))}


def encode(values: Tensor) -> str:
    """The little-endian bytes of a tensor, row by row, in base64."""
    array = values.contiguous().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def write_script(folder: Path) -> None:
    """Write `live-model.js`, the script that sets `uramModels`, for the book. Without MNIST the digits are the embedded
    ones."""
    test = data.load(data.available("mnist")).load_test()
    digits = {"labels": test.labels[:DIGITS].tolist(), "data": encode(test.images[:DIGITS])}
    models = [export(*checkpoints.load(published_weights("table2", row, PRESET, 0))) for row in ROWS]
    shown = {"side": models[0]["config"]["side"], "digits": digits, "models": models}
    write(folder / "live-model.js", f"const uramModels = {json.dumps(shown)};\n")
