"""How fast training is, as ratios within one run: `make bench`. A step against its matrix products alone, and the cost
of a glimpse, the pyramid and the whole model on canvases of several sizes (claim C9). All is timed in turns, so that a
busy machine slows all alike. Writes `results/bench.json` with `--publish`, else `results/local/bench.json`."""

import argparse
import functools
import json
import sys
from collections.abc import Callable

import pandas as pd
import torch
from torch.utils.benchmark import Timer

from uram_lib import data
from uram_lib.cli import exit_status
from uram_lib.common import BENCH, local, relative
from uram_lib.config import Config
from uram_lib.evaluation import draws_in_testing
from uram_lib.glimpse import GlimpseSensor
from uram_lib.models import build
from uram_lib.runs.machine import cpu_name, git_state, prepare_process
from uram_lib.seeding import stream
from uram_lib.training import STREAMS, step

from .tables import write

SHAPES = {
    "table1": Config("mnist", "ram", 1, glimpses=6, patch_size=8, scales=1, clip_norm=1.0),
    "table2": Config("clutter100-10", "ram", 1, glimpses=8, patch_size=12, scales=4, clip_norm=1.0),
}
CANVASES = (60, 100, 200, 400, 1000)
REPEATS = 9


def in_turns(acts: dict[str, Callable[[], object]], at_least: float = 0.2) -> pd.DataFrame:
    """(REPEATS, acts): seconds per call of each of `acts`, one after the other in every round."""
    timers = {name: Timer("act()", globals={"act": act}) for name, act in acts.items()}
    return pd.DataFrame([{name: timer.blocked_autorange(min_run_time=at_least).mean for name, timer in timers.items()}
                         for _ in range(REPEATS)])  # fmt: skip


def matrix_products(model: torch.nn.Module, config: Config) -> Callable[[], object]:
    """The matrix products of a training step alone: each weight's forward product and both gradients, at each use."""
    parts = []
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "baseline" not in name:
            outputs, inputs = (torch.rand(config.batch_size, size) for size in weight.shape)
            parts.append((weight.detach(), inputs, outputs))

    def run() -> None:
        for weight, inputs, outputs in parts * config.glimpses:
            inputs @ weight.T, outputs.T @ inputs, outputs @ weight

    return run


def measure_shape(name: str) -> dict:
    """Images per second of training, its data included, and the share of a step that the matrix products take."""
    config = SHAPES[name]
    dataset = data.load(data.available(config.dataset))
    model = build(config, dataset.image_shape, dataset.classes).initialise(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    streams = {key: stream(0, "bench", key) for key in STREAMS}
    index = torch.randint(len(dataset.train), (config.batch_size,), generator=stream(0, "bench", "index"))

    act = functools.partial(step, model, config.at(1), optimizer, dataset, index, streams)
    times = in_turns({"step": act, "products": matrix_products(model, config)})
    ratios = (times["products"] / times["step"]).round(3)
    return {"shape": name, "images_per_second": round(config.batch_size / times["step"].median()),
            "ratio": ratios.median(), "ratio_range": [ratios.min(), ratios.max()]}  # fmt: skip


@torch.no_grad()
def measure_canvas(side: int) -> dict:
    """Milliseconds per image of one glimpse, of the pyramid, and of the unified model, on a canvas of `side` pixels."""
    sensor, batch = GlimpseSensor(12, 4), 4
    images = torch.rand(batch, 1, side, side, generator=stream(0, "bench", side))
    pyramid, places = sensor.pyramid(images), torch.zeros(batch, 2)
    config = Config("clutter100-10", "unified", 1, glimpses=6, patch_size=12, scales=4)
    model = build(config, (1, side, side), 10).initialise(0).eval()
    draws = draws_in_testing(model, images)
    times = in_turns({
        "glimpse_ms": lambda: sensor(pyramid, places), "pyramid_ms": lambda: sensor.pyramid(images),
        "unified_ms": lambda: model.rollout(images, draws),
    }, 0.05)  # fmt: skip
    return {"side_px": side} | (1e3 * times.median() / batch).round(5).to_dict()


def measure(publish: bool) -> None:
    prepare_process(threads=1)
    machine = {"processor": cpu_name(), "threads": 1, "torch": torch.__version__, **git_state()}
    found = {"machine": machine, "shapes": [measure_shape(name) for name in SHAPES],
             "canvas": [measure_canvas(side) for side in CANVASES]}  # fmt: skip
    path = BENCH if publish else local() / "bench.json"
    write(path, json.dumps(found, indent=1) + "\n")
    for line in found["shapes"]:
        share = "{:.2f} of a step [{:.2f}, {:.2f}]".format(line["ratio"], *line["ratio_range"])
        print(f"{line['shape']}: {line['images_per_second']:,} images per second; the matrix products take {share}")
    print(f"written: {relative(path)}")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m uram_book.bench", description="Measure the speed of training.")
    parser.add_argument("--publish", action="store_true", help="write results/bench.json")
    options = parser.parse_args(words)
    return exit_status(lambda: measure(options.publish))


if __name__ == "__main__":
    sys.exit(main())
