"""How fast training is, against what the matrix products alone would allow: `make bench`.

Every figure is a ratio of things timed in turn within one run, so that a shared, noisy machine disturbs all alike.
Writes `results/bench.json` with `--publish`, else `results/local/bench.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import UramError, compiled
from .cli import exit_status
from .data.clutter import VARIANTS, compose
from .evaluation import uniform_start
from .experiments import Config
from .glimpse import GlimpseSensor
from .models import build
from .paths import RESULTS, local, relative, write_atomically
from .records import cpu_name, git_state
from .replicas import Replicas
from .seeding import initialise, stream
from .training import STREAMS, be_deterministic, draws_of, keep_freed_memory, pick_device, use_wide_products

SHAPES = {
    "table1": Config("mnist", "ram", 1, glimpses=6, patch_size=8, scales=1, clip_norm=1.0),
    "table2": Config("clutter100-10", "ram", 1, glimpses=8, patch_size=12, scales=4, clip_norm=1.0),
}
CANVASES = (28, 60, 100, 200, 400, 1000)
TOGETHER = {"cpu": (1, 4), "mps": (1, 4), "cuda": (1, 4, 16, 64)}  # seeds at once
EPOCH_IMAGES = 54_000
REPEATS = 9
# What a process does for speed beside the plain PyTorch code, and what switches it on.
SPEED_UPS = {
    "kept memory": keep_freed_memory, "wide products": use_wide_products, "compiled loops": compiled.use_loops
}  # fmt: skip


def seconds(act: Callable[[], object], at_least: float, device: str = "cpu") -> float:
    """Seconds a call, over calls that fill `at_least` seconds."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < at_least or not count:
        act()
        wait()
        count += 1
    return passed / count


def in_turn(
    acts: dict[str, Callable[[], object]], at_least: float = 0.3, device: str = "cpu"
) -> dict[str, list[float]]:
    """Time each of `acts` REPEATS times, one after the other in every round; seconds a call, a list each."""
    for act in acts.values():
        act()
    rounds = [{name: seconds(act, at_least, device) for name, act in acts.items()} for _ in range(REPEATS)]
    return {name: [one[name] for one in rounds] for name in acts}


class Step:
    """A step of training as `training.train_epoch` does it, its data included, for `together` seeds at once."""

    def __init__(self, name: str, together: int = 1, device: str = "cpu"):
        self.config = SHAPES[name]
        self.side, self.pieces = VARIANTS.get(self.config.dataset, (28, 0))
        draw = stream(0, "bench")
        # As many digits as the training split has, so that picking a batch misses the caches as it really does.
        self.digits = torch.randint(256, (EPOCH_IMAGES, 1, 28, 28), generator=draw, dtype=torch.uint8).to(device)
        self.labels = torch.randint(10, (EPOCH_IMAGES,), generator=draw).to(device)
        self.centres = torch.full((EPOCH_IMAGES, 2), self.side / 2, device=device)
        models = [initialise(build(self.config, (1, self.side, self.side), 10), seed) for seed in range(together)]
        self.replicas = Replicas([model.to(device) for model in models], self.config)
        self.streams = [{name: stream(seed, name, device=device) for name in STREAMS} for seed in range(together)]
        self.index = torch.randint(EPOCH_IMAGES, (self.config.batch_size,), generator=draw).to(device)

    def data(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A batch as the data sets of the two tables make it."""
        if self.pieces:
            images, centres = compose(self.digits, self.index, self.side, self.pieces, generator)
        else:
            images, centres = self.digits[self.index], self.centres[self.index]
        return images.to(torch.float32) / 255, self.labels[self.index], centres

    def __call__(self) -> None:
        model = self.replicas.models[0]
        batches = []
        for own in self.streams:
            images, labels, centres = self.data(own["data"])
            batches.append((images, labels, *draws_of(model, images, centres, own)))
        losses, _ = self.replicas.loss(batches)
        self.replicas.descend(losses, self.config.learning_rate)


def matrix_products(model: nn.Module, config: Config) -> Callable[[], object]:
    """The matrix products of one training step and nothing else: for every weight matrix and use, the forward product,
    the gradient of its input (but where none is needed: at patch and location) and the gradient of the weight."""
    batch, glimpses = config.batch_size, config.glimpses
    every_glimpse = ("glimpse_network.patch", "glimpse_network.location", "glimpse_network.combine",
                     "core.from_glimpse", "core.from_hidden", "classifier")  # fmt: skip
    uses = dict.fromkeys(every_glimpse, glimpses) | {"location_network": glimpses - 1, "baseline_network": glimpses - 1}
    no_input_gradient = ("glimpse_network.patch", "glimpse_network.location", "baseline_network")
    parameters = {name.removesuffix(".weight"): p.detach() for name, p in model.named_parameters() if p.ndim == 2}
    assert set(parameters) == set(uses), "the bench must count every weight matrix"
    work = []
    for name, weight in parameters.items():
        rows, columns = weight.shape
        work.append(
            (weight, torch.rand(batch, columns), torch.rand(batch, rows), uses[name], name in no_input_gradient)
        )

    def run() -> None:
        for weight, inputs, outputs, count, leaf in work:
            for _ in range(count):
                inputs @ weight.T
                outputs.T @ inputs
                if not leaf:
                    outputs @ weight

    return run


def as_it_comes(act: Callable[[], object]) -> Callable[[], object]:
    """`act` with matrix products by the library that PyTorch takes of itself (`training.use_wide_products` undone)."""
    setting = torch.backends.mkldnn.matmul

    def run() -> None:
        chosen, setting.fp32_precision = setting.fp32_precision, "none"
        try:
            act()
        finally:
            setting.fp32_precision = chosen

    return run


def measure_shape(name: str) -> dict:
    """Images a second of training against the matrix products alone; where the time of a step goes; the start-up.

    The limit is that of PyTorch as it comes; `own_limit` that of the library in use here, which may be faster.
    """
    began = time.perf_counter()
    step = Step(name)
    step()
    start_up = time.perf_counter() - began
    config, replicas = step.config, step.replicas
    sensor = GlimpseSensor(config.patch_size, config.scales)
    images, *_ = step.data(step.streams[0]["data"])
    starts = [uniform_start(len(images), stream(0, "bench", "start", t)) for t in range(config.glimpses)]
    pyramid = sensor.pyramid(images)

    def optimise() -> None:
        replicas.clip_gradients()
        replicas.optimizer.step()

    products = matrix_products(replicas.models[0], config)
    times = in_turn({
        "step": step, "limit": as_it_comes(products), "matrix products": products,
        "data": lambda: step.data(step.streams[0]["data"]), "pyramid": lambda: sensor.pyramid(images),
        "glimpses": lambda: [sensor(pyramid, start) for start in starts], "optimiser": optimise,
    })  # fmt: skip
    ratios = [limit / whole for whole, limit in zip(times["step"], times["limit"], strict=True)]
    own_ratios = [limit / whole for whole, limit in zip(times["step"], times["matrix products"], strict=True)]
    middle = {part: statistics.median(values) for part, values in times.items()}
    parts = {part: 1e3 * value for part, value in middle.items() if part not in ("step", "limit")}
    parts["everything else"] = max(0.0, 1e3 * middle["step"] - sum(parts.values()))
    return {
        "shape": name,
        "images_per_second": round(config.batch_size / middle["step"]),
        "limit_images_per_second": round(config.batch_size / middle["limit"]),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "own_limit_images_per_second": round(config.batch_size / middle["matrix products"]),
        "own_ratio": round(statistics.median(own_ratios), 3),
        "start_up_seconds": round(start_up, 2),
        "parts_ms": {part: round(value, 3) for part, value in parts.items()},
    }


def measure_together(device: str) -> list[dict]:
    """Images a second, summed over seeds trained side by side, and seconds an epoch of all (Table 2's shape)."""
    lines = []
    for together in TOGETHER[device]:
        step = Step("table2", together, device)
        took = statistics.median(in_turn({"step": step}, device=device)["step"])
        rate = together * step.config.batch_size / took
        lines.append({
            "seeds": together, "images_per_second": round(rate),
            "seconds_per_epoch": round(EPOCH_IMAGES * together / rate, 2),
        })  # fmt: skip
    return lines


def rate_for(name: str, length: float) -> float:
    """Images a second of training over `length` seconds, after a second of warming up."""
    step = Step(name)
    seconds(step, 1.0)
    return step.config.batch_size / seconds(step, length)


def measure_processes(name: str, length: float = 2.0, rounds: int = 3) -> dict:
    """What processes of one thread do to each other and to themselves, each figure the median of `rounds`: the share
    of its rate alone that each of two at once keeps, as in a sweep with `--jobs 2`; and the rate of one without each of
    SPEED_UPS, and without all, as a share of one that has them."""

    def child(*without: str) -> subprocess.Popen:
        words = [sys.executable, "-m", "uram_lib.bench", "--rate", name, "--length", str(length)]
        words += [word for one in without for word in ("--without", one)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    def rates(*children: subprocess.Popen) -> float:
        return statistics.mean(float(one.communicate()[0]) for one in children)

    left_out = {one: (one,) for one in SPEED_UPS} | {"all of them": tuple(SPEED_UPS)}
    found = [
        (rates(child()), rates(child(), child()), *(rates(child(*those)) for those in left_out.values()))
        for _ in range(rounds)
    ]
    alone, both, *others = (statistics.median(one) for one in zip(*found, strict=True))
    return {
        "shape": name,
        "alone_images_per_second": round(alone),
        "kept_by_each_of_two": round(both / alone, 3),
        "without": {one: round(rate / alone, 3) for one, rate in zip(left_out, others, strict=True)},
    }


def measure_canvas(batch: int = 16) -> list[dict]:
    """Milliseconds an image, by canvas side (claim C9): a glimpse (12 x 12, 4 scales), the one-off pyramid, and the
    whole unified model with 6 glimpses, whose Q-network reads the coarse image."""
    sensor = GlimpseSensor(12, 4)
    location = uniform_start(batch, stream(0, "bench", "locations"))
    config = Config("", "unified", 0, glimpses=6, patch_size=12, scales=4)
    lines = []
    for side in CANVASES:
        images = torch.rand(batch, 1, side, side, generator=stream(0, "bench", side))
        pyramid = sensor.pyramid(images)
        model = initialise(build(config, (1, side, side), 10), 0).requires_grad_(False)
        acts = {
            "pyramid": lambda i=images: sensor.pyramid(i),
            "glimpse": lambda p=pyramid: sensor(p, location),
            "unified": lambda m=model, i=images: m(i),
        }
        per_image = {name: 1e3 * statistics.median(values) / batch for name, values in in_turn(acts, 0.05).items()}
        lines.append({"side_px": side} | {f"{name}_ms": round(value, 5) for name, value in per_image.items()})
    return lines


def report(device: str, threads: int) -> dict:
    """Measure everything, printing as it goes."""
    shapes = []
    print(
        f"{'shape':8} {'images/s':>9} {'limit':>9} {'ratio':>6} {'range':>14} {'own limit':>9} {'ratio':>6} "
        f"{'start-up s':>10}"
    )
    for name in SHAPES:
        shapes.append(s := measure_shape(name))
        low, high = s["ratio_range"]
        print(
            f"{s['shape']:8} {s['images_per_second']:9,} {s['limit_images_per_second']:9,} {s['ratio']:6.2f} "
            f"{low:6.2f} – {high:5.2f} {s['own_limit_images_per_second']:9,} {s['own_ratio']:6.2f} "
            f"{s['start_up_seconds']:10.1f}"
        )
    print("\nmilliseconds a step of 128 images")
    print(f"{'':18}" + "".join(f"{s['shape']:>9}" for s in shapes))
    for part in shapes[0]["parts_ms"]:
        print(f"{part:18}" + "".join(f"{s['parts_ms'][part]:9.2f}" for s in shapes))
    processes = [measure_processes(name) for name in SHAPES]
    print(f"\n{'share of the rate alone':32}" + "".join(f"{p['shape']:>9}" for p in processes))
    print(f"{'each of two at once':32}" + "".join(f"{p['kept_by_each_of_two']:9.2f}" for p in processes))
    for one in processes[0]["without"]:
        print(f"{'without ' + one:32}" + "".join(f"{p['without'][one]:9.2f}" for p in processes))
    together = measure_together(device)
    print(f"\n{'seeds at once':>13} {'images/s':>10} {'s an epoch':>11}   (Table 2's shape, {device})")
    for line in together:
        print(f"{line['seeds']:13} {line['images_per_second']:10,} {line['seconds_per_epoch']:11.1f}")
    canvases = measure_canvas()
    print(f"\n{'canvas px':>9} {'pyramid ms':>11} {'glimpse ms':>11} {'unified ms':>11}   (an image; 12×12, 4 scales)")
    for line in canvases:
        print(f"{line['side_px']:9}" + "".join(f"{line[f'{n}_ms']:12.4f}" for n in ("pyramid", "glimpse", "unified")))
    accelerator = torch.cuda.get_device_name() if device == "cuda" else None
    machine = {"processor": cpu_name(), "accelerator": accelerator, "threads": threads, "torch": torch.__version__}
    measured = {"shapes": shapes, "processes": processes, "together": together, "canvas": canvases}
    return {"machine": machine | git_state(), **measured}


def main(words: list[str] | None = None) -> int:
    """Measure everything, print it as a table and write it down; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--publish", action="store_true", help="write results/bench.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of the measurement with several seeds at once")
    parser.add_argument("--rate", choices=SHAPES, help="print the images a second of one shape, and nothing else")
    parser.add_argument("--length", type=float, default=6.0, help="seconds that --rate takes")
    parser.add_argument("--without", action="append", default=[], choices=SPEED_UPS, help="leave out a speed-up")
    options = parser.parse_args(words)
    return exit_status(lambda: measure(options))


def measure(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if options.threads < 1:
        raise UramError(f"threads must be a whole number from 1 on, got {options.threads}")
    device = pick_device(options.device).type
    torch.set_num_threads(options.threads)
    be_deterministic(torch.device(device))
    for name, switch_on in SPEED_UPS.items():
        if name not in options.without:
            switch_on()
    if options.rate:
        print(rate_for(options.rate, options.length))
        return
    text = json.dumps(report(device, options.threads), indent=1)
    path = (RESULTS if options.publish else local()) / "bench.json"
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n"))
    print(f"\nwritten to {relative(path)}")


if __name__ == "__main__":
    sys.exit(main())
