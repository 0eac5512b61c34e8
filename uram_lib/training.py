"""The only training loop. It can be killed at any moment and resumes from its last epoch to the same bits, on the same
CPU and with the same number of threads."""

import ctypes
import io
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import UramError, compiled
from .adversarial import prepared, robust_error
from .data import Dataset
from .evaluation import evaluate, uniform_start
from .experiments import Config
from .models import DRAM, VGG16, Unified, bottom_up, build
from .models.unified import start_location
from .paths import relative, write_atomically
from .replicas import Replicas, weights
from .seeding import initialise, stream

CALIBRATION_IMAGES = 2_000
# What a run draws in an epoch, but for the order of its images.
STREAMS = ("data", "start", "policy", "explore", "augment", "attack")


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
    and being given zeroed pages anew (`make bench` tells what that costs). Only glibc knows this; elsewhere nothing
    happens."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((-3, 32 * 2**20), (-1, 2**31 - 1), (-2, 64 * 2**20)):  # M_MMAP_THRESHOLD, _TRIM_, _TOP_PAD
        mallopt(parameter, value)


def use_wide_products() -> None:
    """Have AMD processors with AVX-512 use it in float32 matrix products. MKL, PyTorch's library for them, keeps to
    narrower instructions on processors of other makers than Intel; oneDNN, which comes with PyTorch too, does not.

    PyTorch offers that route under the name of a lower precision, which oneDNN takes only on processors with AMX. There
    are none of AMD's; on these it computes in float32 throughout.
    """
    if cpu_maker() == "AuthenticAMD" and torch.backends.cpu.get_cpu_capability() == "AVX512":
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"


def cpu_maker() -> str:
    """The processor's maker as it names itself, where the system tells (Linux on x86); else empty."""
    try:
        return re.search(r"^vendor_id\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1]
    except (OSError, TypeError):
        return ""


def be_deterministic(device: torch.device) -> None:
    """Have the same inputs give the same bits; on an accelerator, as far as PyTorch can, with a warning where not."""
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    # Nothing here reads memory before writing it, so filling it first would cost time for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # By default convolutions round their inputs to 10 bits there, those of attacks and tests, too.
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"


def new_model(config: Config, seed: int, dataset: Dataset) -> nn.Module:
    """The configuration's model with the initial weights of `seed`, its input standardised on training images."""
    model = build(config, dataset.image_shape, dataset.classes)
    if isinstance(model, Unified):
        # Part by part: its RAM starts from the same weights as the plain RAM of the same seed.
        initialise(model.ram, seed)
        initialise(model.topdown, seed).sync_target()
    else:
        initialise(model, seed)
    if (ram := bottom_up(model)) is not None or isinstance(model, VGG16):
        # The same calibration for every seed and row of a data set: constants of the data, not of the run.
        index = torch.randperm(len(dataset.train), generator=stream(0, "calibration", "images"))[:CALIBRATION_IMAGES]
        device = dataset.train.labels.device
        images, *_ = dataset.training_batch(index.to(device), stream(0, "calibration", "data", device=device))
        (ram or model).calibrate(images.cpu(), uniform_start(len(index), stream(0, "calibration", "locations")))
    return model


def mixed_precision(config: Config, device: torch.device) -> torch.autocast:
    """Where the forward passes of training run: their matrix products and convolutions in `config.precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")


def learning_rate_at(config: Config, step: int, steps: int) -> float:
    """The step size of Adam at `step` of `steps`."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def draws_of(
    model: nn.Module, images: Tensor, centres: Tensor, streams: dict[str, torch.Generator], epsilon: float = 0.0
) -> tuple[Tensor, ...]:
    """What the model is to draw for a batch, as it takes it: for RAM its start (B, 2) and its exploration
    (B, T - 1, 2); for DRAM its exploration (B, T, 2); for the unified model its place in the region (B, 2), of the same
    draw as RAM's start, RAM's exploration, its own (B, L, 2), and `epsilon`. images: (B, C, H, W); centres: (B, 2), the
    objects', in pixels."""
    if (ram := bottom_up(model)) is None:
        return ()
    policy, batch = streams["policy"], len(images)
    if isinstance(ram, DRAM):
        return (torch.randn(batch, ram.glimpses, 2, generator=policy, device=policy.device),)
    start = uniform_start(batch, streams["start"])
    noise = torch.randn(batch, ram.glimpses - 1, 2, generator=policy, device=policy.device)
    if not isinstance(model, Unified):
        return start_location(model.start, start, centres, *images.shape[-2:]), noise
    explore = torch.rand(batch, model.topdown.levels, 2, generator=streams["explore"], device=policy.device)
    return (start + 1) / 2, noise, explore, torch.tensor(epsilon, device=policy.device)


def train_epoch(replicas: Replicas, seeds: Sequence[int], epoch: int, dataset: Dataset) -> list[dict[str, float]]:
    """One pass over the training split; returns, for each seed, the mean of each part of its loss.

    Raises NotFinite naming the seed.
    """
    config, device = replicas.config, dataset.train.labels.device
    for model in replicas.models:
        model.train()
    orders = [
        torch.randperm(len(dataset.train), generator=stream(seed, "order", epoch)).to(device).split(config.batch_size)
        for seed in seeds
    ]
    streams = [{name: stream(seed, name, epoch, device=device) for name in STREAMS} for seed in seeds]
    for model in replicas.models:
        if (ram := bottom_up(model)) is not None:
            ram.sigma = config.sigma_at(epoch)
        if isinstance(model, Unified):
            model.topdown.sync_target()  # once an epoch (ledger A3)
    replicas.objective.config = config.at(epoch)
    count, spread = len(orders[0]), config.spread(epoch)
    history: list[dict[str, Tensor]] = []
    for i, indices in enumerate(zip(*orders, strict=True)):
        step, steps = (epoch - 1) * count + i, config.epochs * count
        batches = []
        for model, index, own in zip(replicas.models, indices, streams, strict=True):
            images, labels, centres = dataset.training_batch(index, own["data"], spread)
            draws = draws_of(model, images, centres, own, config.epsilon(step, steps))
            with mixed_precision(config, device):
                images = prepared(model, config, images, labels, draws, own)
            batches.append((images, labels, *draws))
        with mixed_precision(config, device):
            losses, parts = replicas.loss(batches)
        replicas.descend(losses, learning_rate_at(config, step, steps))
        history.append({"loss": losses.detach(), **parts})
    # Read once an epoch: asking for the numbers at each step would make an accelerator wait.
    columns = {name: torch.stack([step[name] for step in history]).cpu() for name in history[0]}  # (steps, R)
    for r, seed in enumerate(seeds):
        finite = torch.isfinite(columns["loss"][:, r])
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise NotFinite(f"the loss is not finite from epoch {epoch}, step {first + 1} of {count}, on (seed {seed})")
        # The last step's loss is from before it.
        if not all(torch.isfinite(value).all() for value in replicas.models[r].parameters()):
            raise NotFinite(f"the weights are not finite after epoch {epoch} (seed {seed})")
    return [{name: column[:, r].mean().item() for name, column in columns.items()} for r in range(len(seeds))]


def train(
    config: Config,
    seed: int,
    dataset: Dataset,
    device: torch.device | str = "cpu",
    state_path: Path | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Trained:
    """`train_together` for one seed; on_epoch(epoch, curves of that epoch)."""
    tell = on_epoch and (lambda epoch, rows: on_epoch(epoch, rows[0]))
    return train_together(config, [seed], dataset, device, state_path and [state_path], tell)[0]


def train_together(
    config: Config,
    seeds: Sequence[int],
    dataset: Dataset,
    device: torch.device | str = "cpu",
    state_paths: Sequence[Path] | None = None,
    on_epoch: Callable[[int, list[dict[str, float]]], None] | None = None,
) -> list[Trained]:
    """Train `config` with each of `seeds`, side by side, choosing each one's epoch by validation error, in adversarial
    training by that under attack; the test split is not touched.

    state_paths: where the state of each seed is kept after an epoch; where the files exist, training goes on from
    there: for one seed on the same CPU, with as many threads, to the same final weights, bit for bit. A seed may go on
    in other company than before. on_epoch(epoch, curves of that epoch for each seed) is called after each.
    Raises NotFinite, with the states of the last good epoch kept, and UramError for a state of another run or for
    states of different epochs.
    """
    device = torch.device(device)
    keep_freed_memory()
    use_wide_products()
    if device.type == "cpu":
        compiled.use_loops()
    be_deterministic(device)
    dataset = dataset.to(device)
    replicas = Replicas([new_model(config, seed, dataset).to(device) for seed in seeds], config)
    states = [{"epoch": 0, "best_epoch": 0, "best_model": {}, "curves": {}, "seconds": 0.0} for _ in seeds]
    if state_paths is not None:
        found = [load_state(path, config, seed, device) for path, seed in zip(state_paths, seeds, strict=True)]
        if len({state["epoch"] if state else 0 for state in found}) > 1:
            raise UramError(f"seeds {', '.join(map(str, seeds))} stand at different epochs; train them apart")
        if all(found):
            states = found
            replicas.load(states)
    saved, saved_at, cost = states[0]["epoch"], time.perf_counter(), 0.0
    for epoch in range(saved + 1, config.epochs + 1):
        began = time.perf_counter()
        try:
            rows = train_epoch(replicas, seeds, epoch, dataset)
        except NotFinite as error:
            kept = f"; epoch {saved} is kept in {relative(state_paths[0])}" if state_paths and saved else ""
            raise NotFinite(f"{error}{kept}") from None
        for model, row, state in zip(replicas.models, rows, states, strict=True):
            row["train_error"] = 100 * (1 - row["reward"])
            row["val_error"] = evaluate(model, dataset.validation).error
            if config.attack != "none":
                row["val_robust_error"] = robust_error(model, config, dataset.validation)
            for name, value in row.items():
                state["curves"].setdefault(name, []).append(value)
            errors = state["curves"]["val_error" if config.attack == "none" else "val_robust_error"]
            if errors[-1] == min(errors):  # of equals the later one, which is trained longer
                state |= {"best_epoch": epoch, "best_model": weights(model)}
            state["epoch"] = epoch
        now = time.perf_counter()
        for state in states:
            state["seconds"] += (now - began) / len(seeds)  # a seed's share
        # The state of one seed takes no time; that of many is kept often enough to cost a twentieth of theirs.
        if state_paths is not None and (len(seeds) == 1 or now - saved_at >= 20 * cost or epoch == config.epochs):
            for r, (path, seed) in enumerate(zip(state_paths, seeds, strict=True)):
                save_state(path, config, seed, states[r] | replicas.state(r))
            saved, saved_at, cost = epoch, time.perf_counter(), time.perf_counter() - now
        if on_epoch is not None:
            on_epoch(epoch, rows)
    images = config.epochs * len(dataset.train)
    for model, state in zip(replicas.models, states, strict=True):
        model.load_state_dict(state["best_model"])
    return [
        Trained(model, state["best_epoch"], state["curves"], state["seconds"], images)
        for model, state in zip(replicas.models, states, strict=True)
    ]


def save_state(path: Path, config: Config, seed: int, state: dict) -> None:
    """Write the resume state, whole or not at all."""
    # Through memory: on a full disk PyTorch's own writer raises a RuntimeError that does not say why.
    buffer = io.BytesIO()
    torch.save({"run": f"{config.hash}/{seed}", **state}, buffer)
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def load_state(path: Path, config: Config, seed: int, device: torch.device | str = "cpu") -> dict | None:
    """Read the resume state; None where there is none. Raises UramError where it is unreadable or belongs to another
    configuration or seed."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise UramError(f"{relative(path)} cannot be read as a training state; delete it to start afresh") from error
    if not isinstance(state, dict) or state.get("run") != f"{config.hash}/{seed}":
        raise UramError(f"{relative(path)} is the state of another run; delete it to start afresh")
    return state
