"""The only training loop: one configuration, one seed. It can be killed at any moment and goes on from its last epoch
to the same bits, on the same CPU and with the same number of threads."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .adversarial.attacks import prepared, robust_error
from .checkpoints import load_state, save_state
from .common import UramError, relative
from .config import Config
from .data.base import Dataset
from .evaluation import mean_error
from .models import Model, build
from .models.layers import Streams
from .models.ram import uniform_start
from .seeding import stream

CALIBRATION_IMAGES = 2_000
STREAMS = ("data", "start", "policy", "explore", "augment", "attack")  # of an epoch; `order` is one of its own


@dataclass
class Trained:
    """The outcome of `train`: the model with the weights of its best validation epoch, and its history.

    curves: by quantity, one value per epoch: the means of the loss's parts; `train_error` and `val_error` in percent;
    in adversarial training `val_robust_error`, too.
    rollouts: images that the model was trained on, each time counted.
    """

    model: Model
    best_epoch: int
    curves: dict[str, list[float]]
    seconds: float
    rollouts: int

    @property
    def val_error(self) -> float:
        """Percent, at the best epoch."""
        return self.curves["val_error"][self.best_epoch - 1]


class NotFinite(UramError):
    """The loss or the weights left the finite numbers."""


def train(
    config: Config,
    seed: int,
    dataset: Dataset,
    device: torch.device | str = "cpu",
    state_path: Path | None = None,
    on_step: Callable[[int, int, float | None], None] | None = None,
) -> Trained:
    """Train `config` with `seed`, choosing the epoch by validation error, in adversarial training by that under attack.
    Call `runs.machine.prepare_process` before.

    state_path: where the state is kept after each epoch; where the file exists, training goes on from there.
    on_step(steps done, steps in all, last validation error or None) is called after each step.
    Raises NotFinite, with the state of the last good epoch kept, and UramError for a state of another run.
    """
    device = torch.device(device)
    dataset = dataset.to(device)
    model = new_model(config, seed, dataset).to(device)
    # The step size is a tensor on the device, so that an accelerator need not be asked to wait.
    step_size = torch.tensor(config.learning_rate, device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=step_size, eps=config.adam_epsilon, fused=True)
    state = {"epoch": 0, "best_epoch": 0, "best_model": {}, "curves": {}, "seconds": 0.0}
    if state_path is not None and (found := load_state(state_path, config, seed, device)):
        model.load_state_dict(found.pop("model"))
        optimizer.load_state_dict(found.pop("optimizer"))
        step_size = optimizer.param_groups[0]["lr"]
        state = found
    curves = state["curves"]
    per_epoch = math.ceil(len(dataset.train) / config.batch_size)
    steps = config.epochs * per_epoch

    for epoch in range(state["epoch"] + 1, config.epochs + 1):
        began = time.perf_counter()
        model.train()
        model.begin_epoch()
        now, spread = config.at(epoch), config.spread(epoch)
        streams = {name: stream(seed, name, epoch, device=device) for name in STREAMS}
        order = torch.randperm(len(dataset.train), generator=stream(seed, "order", epoch)).to(device)
        history: list[dict[str, Tensor]] = []
        for done, index in enumerate(order.split(config.batch_size), (epoch - 1) * per_epoch):
            step_size.fill_(learning_rate_at(config, done, steps))
            history.append(step(model, now, optimizer, dataset, index, streams, spread, config.epsilon(done, steps)))
            if on_step is not None:
                on_step(done + 1, steps, curves["val_error"][-1] if curves else None)

        # Read once per epoch: asking at each step would make an accelerator wait. A short last batch counts as a whole.
        means = {name: torch.stack([parts[name] for parts in history]).cpu().mean().item() for name in history[0]}
        if fault := not_finite(model, history, epoch):
            kept = f"; epoch {epoch - 1} is kept in {relative(state_path)}" if state_path and epoch > 1 else ""
            raise NotFinite(f"{fault} (seed {seed}){kept}")

        means["train_error"] = 100 * (1 - means["reward"])
        means["val_error"] = mean_error(model, dataset.validation)
        if config.attack != "none":
            means["val_robust_error"] = robust_error(model, dataset.validation)
        for name, value in means.items():
            curves.setdefault(name, []).append(value)
        errors = curves.get("val_robust_error", curves["val_error"])
        if errors[-1] == min(errors):  # of equals the later one, which is trained longer
            state |= {"best_epoch": epoch, "best_model": copy.deepcopy(model.state_dict())}
        state |= {"epoch": epoch, "seconds": state["seconds"] + time.perf_counter() - began}
        if state_path is not None:
            current = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_state(state_path, config, seed, state | current)

    model.load_state_dict(state["best_model"])
    return Trained(model, state["best_epoch"], curves, state["seconds"], config.epochs * len(dataset.train))


def step(
    model: Model,
    config: Config,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    index: Tensor,
    streams: Streams,
    spread: float = 1.0,
    epsilon: float = 0.0,
) -> dict[str, Tensor]:
    """One step on the images at `index`, (B,), with `config` as in this epoch: the loss and its parts, detached."""
    images, labels, centres = dataset.training_batch(index, streams["data"], spread)
    draws = model.draws(len(images), streams, centres, epsilon=epsilon)
    with torch.autocast(index.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        images = prepared(model, config, images, labels, draws, streams)
        loss, parts = model.loss(images, labels, draws, config)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if config.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    return {"loss": loss.detach(), **parts}


def new_model(config: Config, seed: int, dataset: Dataset) -> Model:
    """The configuration's model with the first weights of `seed`, its input standardised on training images."""
    model = build(config, dataset.image_shape, dataset.classes).initialise(seed)
    # The same calibration for every seed and row of a data set: constants of the data, not of the run.
    index = torch.randperm(len(dataset.train), generator=stream(0, "calibration", "images"))[:CALIBRATION_IMAGES]
    device = dataset.train.labels.device
    images, *_ = dataset.training_batch(index.to(device), stream(0, "calibration", "data", device=device))
    model.calibrate(images.cpu(), uniform_start(len(index), stream(0, "calibration", "locations")))
    return model


def learning_rate_at(config: Config, step: int, steps: int) -> float:
    """The step size of Adam at `step` of `steps`."""
    fallen = 0.5 * (1 + math.cos(math.pi * step / steps)) if config.schedule == "cosine" else 1.0
    return config.learning_rate * fallen


def not_finite(model: Model, history: list[dict[str, Tensor]], epoch: int) -> str | None:
    """What left the finite numbers in an epoch, and at which step; None where nothing did."""
    finite = torch.stack([parts["loss"] for parts in history]).isfinite().tolist()
    if False in finite:
        return f"the loss is not finite from epoch {epoch}, step {finite.index(False) + 1} of {len(history)}, on"
    if not all(torch.isfinite(value).all() for value in model.parameters()):  # the last loss is from before its step
        return f"the weights are not finite after epoch {epoch}"
    return None
