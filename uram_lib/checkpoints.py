"""What a run keeps on disk: its weights, in safetensors files that carry the configuration they belong to, and until it
is finished the state that it resumes from. Nothing is unpickled but tensors."""

import dataclasses
import io
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from . import data
from .common import UramError, relative, write_atomically
from .config import Config
from .models import Model, build


def save(path: Path, model: Model, config: Config, seed: int) -> None:
    """Write the model's weights with its configuration and seed, whole or not at all."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    # One key: the library writes several in random order, and equal runs shall give equal files.
    metadata = {"uram": json.dumps({"config": dataclasses.asdict(config), "seed": seed}, sort_keys=True)}
    # Through memory: on a full disk the library's own writer raises an error of another kind.
    write_atomically(path, lambda temporary: temporary.write_bytes(serialise(weights, metadata)))


def load(path: Path, config: Config | None = None) -> tuple[Model, Config]:
    """The model in `path`, in evaluation mode, and its configuration. config: what the file must hold, if that matters.
    Raises UramError where the file is missing, unreadable, no checkpoint of this project or one of another model."""
    try:
        with safe_open(path, "pt") as file:
            metadata, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UramError(f"{relative(path)} cannot be read as a checkpoint: {error}") from error
    try:
        found = Config.read(json.loads(metadata["uram"])["config"])
    except (KeyError, TypeError, ValueError, UramError) as error:
        raise UramError(f"{relative(path)} is not a checkpoint of this project (no configuration in it)") from error
    if config is not None and found != config:
        ours, theirs = dataclasses.asdict(config), dataclasses.asdict(found)
        differing = ", ".join(f"{k}={theirs[k]!r} (wanted {ours[k]!r})" for k in ours if ours[k] != theirs[k])
        raise UramError(f"{relative(path)} is a checkpoint of another model: {differing}")
    try:
        model = build(found, *data.shape_of(found.dataset))
        model.load_state_dict(weights)
    except (RuntimeError, UramError) as error:
        raise UramError(f"{relative(path)} does not fit its own configuration: {str(error).splitlines()[0]}") from error
    return model.eval(), found


def save_state(path: Path, config: Config, seed: int, state: dict) -> None:
    """Write the resume state, whole or not at all."""
    # Through memory: on a full disk PyTorch's own writer raises a RuntimeError that does not say why.
    buffer = io.BytesIO()
    torch.save({"run": f"{config.hash}/{seed}", **state}, buffer)
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def load_state(path: Path, config: Config, seed: int, device: torch.device | str = "cpu") -> dict | None:
    """Read the resume state; None where there is none. Raises UramError for a damaged one and for another run's."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise UramError(f"{relative(path)} cannot be read as a training state; delete it to start afresh") from error
    if not isinstance(state, dict) or state.get("run") != f"{config.hash}/{seed}":
        raise UramError(f"{relative(path)} is the state of another run; delete it to start afresh")
    return state
