"""The only training loop. It can be killed at any moment and resumes from its last epoch to the same bits."""

import ctypes
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import UramError
from .data import Dataset
from .evaluation import evaluate, uniform_start
from .experiments import Config
from .models import RAM, build
from .objectives import hybrid_loss
from .paths import relative, write_atomically
from .seeding import initialise, stream

CALIBRATION_IMAGES = 2_000


@dataclass
class Trained:
    """The outcome of `train`: the model with the weights of its best validation epoch, and its history."""

    model: nn.Module
    best_epoch: int
    curves: dict[str, list[float]]
    seconds: float
    images: int

    @property
    def val_error(self) -> float:
        """Percent, at the best epoch."""
        return self.curves["val_error"][self.best_epoch - 1]


class NotFinite(UramError):
    """The loss left the finite numbers."""


def devices_here() -> list[str]:
    """The kinds of device on this machine, the fastest first."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, here in present.items() if here]


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, else MPS, else CPU. Raises UramError for an unknown device or one that is not here."""
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise UramError(f"unknown device {name!r}; one of: auto, cpu, cuda, mps")
    here = devices_here()
    if name != "auto" and name not in here:
        raise UramError(f"device {name!r} is not available on this machine; here: {', '.join(here)}")
    return torch.device(here[0] if name == "auto" else name)


def keep_freed_memory() -> None:
    """Have the C library keep the memory that a step frees for the next one, instead of handing it back to the system
    and being given zeroed pages anew: a tenth of a step. Only glibc knows this; elsewhere nothing happens."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((-3, 32 * 2**20), (-1, 2**31 - 1), (-2, 64 * 2**20)):  # M_MMAP_THRESHOLD, _TRIM_, _TOP_PAD
        mallopt(parameter, value)


def new_model(config: Config, seed: int, dataset: Dataset) -> nn.Module:
    """The configuration's model with the initial weights of `seed`, its input standardised on training images."""
    model = initialise(build(config, dataset.image_shape, dataset.classes), seed)
    if isinstance(model, RAM):
        # The same calibration for every seed and row of a data set: constants of the data, not of the run.
        index = torch.randperm(len(dataset.train), generator=stream(0, "calibration", "images"))[:CALIBRATION_IMAGES]
        device = dataset.train.labels.device
        images, _ = dataset.training_batch(index.to(device), stream(0, "calibration", "data", device=device))
        model.calibrate(images.cpu(), uniform_start(len(index), stream(0, "calibration", "locations")))
    return model


def new_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Adam over all of the model's parameters; its step size is a tensor on their device, set by the loop."""
    device = next(model.parameters()).device
    return torch.optim.Adam(model.parameters(), lr=torch.tensor(config.learning_rate, device=device), fused=True)


def learning_rate_at(config: Config, step: int, steps: int) -> float:
    """The step size of Adam at `step` of `steps`."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def batch_loss(
    model: nn.Module, config: Config, images: Tensor, labels: Tensor, draws: dict[str, torch.Generator]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one batch and its detached parts; RAM draws its start and its exploration from `draws`."""
    if isinstance(model, RAM):
        start = uniform_start(len(images), draws["start"])
        noise = torch.randn(len(images), model.glimpses - 1, 2, generator=draws["policy"], device=images.device)
        trajectory = model(images, start, noise)
        return hybrid_loss(
            trajectory, labels, model.context_network, config.beta1, config.beta2, config.entropy, config.entropy_offset
        )
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    return loss, {"cross_entropy": loss.detach(), "reward": (logits.argmax(-1) == labels).float().mean()}


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, config: Config, loss: Tensor) -> None:
    """One step of the optimiser along the gradient of `loss`, clipped if the configuration says so."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if config.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()


def train_epoch(model, optimizer, config: Config, seed: int, epoch: int, dataset: Dataset) -> dict[str, float]:
    """One pass over the training split; returns the mean of each part of the loss. Raises NotFinite."""
    model.train()
    device = dataset.train.labels.device
    order = torch.randperm(len(dataset.train), generator=stream(seed, "order", epoch)).to(device)
    draws = {name: stream(seed, name, epoch, device=device) for name in ("data", "start", "policy")}
    batches = order.split(config.batch_size)
    history: list[dict[str, Tensor]] = []
    for i, index in enumerate(batches):
        step = (epoch - 1) * len(batches) + i
        optimizer.param_groups[0]["lr"].fill_(learning_rate_at(config, step, config.epochs * len(batches)))
        images, labels = dataset.training_batch(index, draws["data"])
        loss, parts = batch_loss(model, config, images, labels, draws)
        descend(model, optimizer, config, loss)
        history.append({"loss": loss.detach(), **parts})
    # Read once an epoch: asking for the numbers at each step would make an accelerator wait.
    columns = {name: torch.stack([step[name] for step in history]) for name in history[0]}
    finite = torch.isfinite(columns["loss"])
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise NotFinite(
            f"the loss is not finite from epoch {epoch}, step {first + 1} of {len(batches)}, on (seed {seed})"
        )
    return {name: column.mean().item() for name, column in columns.items()}


def train(
    config: Config,
    seed: int,
    dataset: Dataset,
    device: torch.device | str = "cpu",
    state_path: Path | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Trained:
    """Train `config` with `seed`, choosing the epoch by validation error; the test split is not touched.

    state_path: where the state is kept after every epoch; if it exists, training goes on from there, to the same
    final weights bit for bit on the same CPU. on_epoch(epoch, curves of that epoch) is called after each.
    Raises NotFinite, with the state of the last good epoch kept, and UramError for a state of another run.
    """
    keep_freed_memory()
    torch.use_deterministic_algorithms(True, warn_only=torch.device(device).type != "cpu")
    device = torch.device(device)
    dataset = dataset.to(device)
    model = new_model(config, seed, dataset).to(device)
    optimizer = new_optimizer(model, config)
    state = {"epoch": 0, "best_epoch": 0, "best_model": {}, "curves": {}, "seconds": 0.0}
    if state_path is not None and state_path.exists():
        state = load_state(state_path, config, seed, device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(state["epoch"] + 1, config.epochs + 1):
        began = time.perf_counter()
        try:
            row = train_epoch(model, optimizer, config, seed, epoch, dataset)
        except NotFinite as error:
            kept = f"; epoch {epoch - 1} is kept in {relative(state_path)}" if state_path and epoch > 1 else ""
            raise NotFinite(f"{error}{kept}") from None
        row["train_error"] = 100 * (1 - row["reward"])
        row["val_error"] = evaluate(model, dataset.validation).error
        seconds = time.perf_counter() - began
        for name, value in row.items():
            state["curves"].setdefault(name, []).append(value)
        if row["val_error"] <= min(state["curves"]["val_error"]):  # of equals the later one, which is trained longer
            state["best_epoch"] = epoch
            state["best_model"] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        state |= {"epoch": epoch, "seconds": state["seconds"] + seconds}
        if state_path is not None:
            state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_state(state_path, config, seed, state)
        if on_epoch is not None:
            on_epoch(epoch, row)
    model.load_state_dict(state["best_model"])
    return Trained(model, state["best_epoch"], state["curves"], state["seconds"], config.epochs * len(dataset.train))


def save_state(path: Path, config: Config, seed: int, state: dict) -> None:
    """Write the resume state, whole or not at all."""
    # Through memory: on a full disk PyTorch's own writer raises a RuntimeError that does not say why.
    buffer = io.BytesIO()
    torch.save({"run": f"{config.hash}/{seed}", **state}, buffer)
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def load_state(path: Path, config: Config, seed: int, device: torch.device) -> dict:
    """Read the resume state. Raises UramError where it is unreadable or belongs to another configuration or seed."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise UramError(f"{relative(path)} cannot be read as a training state; delete it to start afresh") from error
    if not isinstance(state, dict) or state.get("run") != f"{config.hash}/{seed}":
        raise UramError(f"{relative(path)} is the state of another run; delete it to start afresh")
    return state
