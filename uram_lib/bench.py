"""How fast training is, against what the matrix products alone would allow: `make bench`.

Every figure is a ratio of two things timed in turn within one run, so that a shared, noisy machine disturbs both alike.
Writes `results/bench.json` with `--publish`, else `results/local/bench.json`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from .evaluation import uniform_start
from .experiments import Config
from .glimpse import GlimpseSensor
from .models import build
from .paths import RESULTS, local, relative, write_atomically
from .records import cpu_name, git_state
from .seeding import initialise, stream
from .training import batch_loss, descend, new_optimizer

SHAPES = {
    "table1": (Config("mnist", "ram", 1, glimpses=6, patch_size=8, scales=1, clip_norm=1.0), (1, 28, 28)),
    "table2": (Config("clutter100-10", "ram", 1, glimpses=8, patch_size=12, scales=4, clip_norm=1.0), (1, 100, 100)),
}
CANVASES = (28, 60, 100, 200, 400, 1000)
REPEATS = 9


def seconds(act: Callable[[], object], at_least: float) -> float:
    """Seconds a call, over calls that fill `at_least` seconds."""
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < at_least or not count:
        act()
        count += 1
    return passed / count


def in_turn(acts: dict[str, Callable[[], object]], at_least: float = 0.3) -> dict[str, list[float]]:
    """Time each of `acts` REPEATS times, one after the other in every round; seconds a call, a list each."""
    for act in acts.values():
        act()
    rounds = [{name: seconds(act, at_least) for name, act in acts.items()} for _ in range(REPEATS)]
    return {name: [one[name] for one in rounds] for name in acts}


def training_step(config: Config, image_shape: tuple[int, int, int]) -> tuple[Callable[[], object], nn.Module]:
    """One step of training as `training.train_epoch` does it, on one batch that stays in memory; and its model."""
    model = initialise(build(config, image_shape, 10), 0)
    optimizer = new_optimizer(model, config)
    images = torch.rand(config.batch_size, *image_shape, generator=stream(0, "bench"))
    labels = torch.randint(10, (config.batch_size,), generator=stream(0, "bench", "labels"))
    draws = {name: stream(0, name) for name in ("start", "policy")}

    def step() -> None:
        loss, _ = batch_loss(model, config, images, labels, draws)
        descend(model, optimizer, config, loss)

    return step, model


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


def measure_shape(name: str) -> dict:
    """Images a second of training against the matrix products alone, and the time to the first step."""
    config, image_shape = SHAPES[name]
    began = time.perf_counter()
    step, model = training_step(config, image_shape)
    step()
    start_up = time.perf_counter() - began
    times = in_turn({"training": step, "limit": matrix_products(model, config)})
    ratios = [limit / training for training, limit in zip(times["training"], times["limit"], strict=True)]
    rate = lambda name: config.batch_size / statistics.median(times[name])  # noqa: E731
    return {
        "shape": name,
        "images_per_second": round(rate("training")),
        "limit_images_per_second": round(rate("limit")),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "start_up_seconds": round(start_up, 2),
    }


def measure_canvas(batch: int = 32) -> list[dict]:
    """Milliseconds of a glimpse (12 x 12, 4 scales) and of the one-off pyramid, an image, by canvas side (claim C9)."""
    sensor = GlimpseSensor(12, 4)
    location = uniform_start(batch, stream(0, "bench", "locations"))
    lines = []
    for side in CANVASES:
        images = torch.rand(batch, 1, side, side, generator=stream(0, "bench", side))
        pyramid = sensor.pyramid(images)
        times = in_turn(
            {"pyramid": lambda i=images: sensor.pyramid(i), "glimpse": lambda p=pyramid: sensor(p, location)}, 0.05
        )
        per_image = {name: 1e3 * statistics.median(values) / batch for name, values in times.items()}
        lines.append({"side_px": side} | {f"{name}_ms": round(value, 5) for name, value in per_image.items()})
    return lines


def main(words: list[str] | None = None) -> int:
    """Measure everything, print it as a table and write it down."""
    options = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    options.add_argument("--publish", action="store_true", help="write results/bench.json")
    options.add_argument("--threads", type=int, default=1)
    options = options.parse_args(words)
    torch.set_num_threads(options.threads)
    shapes = [measure_shape(name) for name in SHAPES]
    print(f"{'shape':8} {'images/s':>9} {'limit':>9} {'ratio':>6} {'range':>14} {'start-up s':>10}")
    for s in shapes:
        low, high = s["ratio_range"]
        print(
            f"{s['shape']:8} {s['images_per_second']:9,} {s['limit_images_per_second']:9,} {s['ratio']:6.2f} "
            f"{low:6.2f} – {high:5.2f} {s['start_up_seconds']:10.1f}"
        )
    canvases = measure_canvas()
    print(f"\n{'canvas px':>9} {'pyramid ms':>11} {'glimpse ms':>11}   (an image; 12×12, 4 scales)")
    for line in canvases:
        print(f"{line['side_px']:9} {line['pyramid_ms']:11.4f} {line['glimpse_ms']:11.4f}")
    machine = {"processor": cpu_name(), "threads": options.threads, "torch": torch.__version__, **git_state()}
    report = json.dumps({"machine": machine, "shapes": shapes, "canvas": canvases}, indent=1)
    path = (RESULTS if options.publish else local()) / "bench.json"
    write_atomically(path, lambda temporary: temporary.write_text(report + "\n"))
    print(f"\nwritten to {relative(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
