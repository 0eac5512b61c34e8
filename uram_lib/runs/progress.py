"""How long runs will take on this machine, and how far they are."""

import contextlib
import dataclasses
import functools
import heapq
import math
import statistics
import sys
import time
from typing import TextIO

from tqdm import tqdm

from .. import data
from ..config import Protocol
from ..experiments import START_SEEDS

QUIET = 30  # seconds between two lines of progress where no terminal watches
WARM_UP, STEPS, SECONDS = 2, 4, 1.0  # steps that are not timed, and at least so many and so long of those that are
SLACK = 1.15  # testing after every epoch, reading data, starting processes
FORWARD = 2  # images that are read in the time in which one is trained on: 2.3 measured of RAM, 1.4 of URAM
DONE = (1, 1, None)  # steps of a run that has its record
# What all attacks on one image cost, in training images: about what the published runs took, without and with glimpses.
ATTACKED = {False: 300, True: 800}


def count(number: int, noun: str) -> str:
    """As in `1 run`, `2 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Progress(contextlib.AbstractContextManager):
    """How far the runs are, the mean share of their steps: on a terminal as one bar, elsewhere a line now and then."""

    def __init__(self, runs: list, out: TextIO | None = None):
        self.runs, self.out = runs, out or sys.stderr
        self.began = self.said = time.monotonic()
        self.started, self.first, self.done = time.time(), None, set()
        form = "{percentage:3.0f} % |{bar:20}| {elapsed} gone, {remaining} left{postfix}"
        self.bar = tqdm(total=100, file=self.out, disable=None, bar_format=form, dynamic_ncols=True)
        if self.bar.disable:
            self.say(f"{count(len(runs), 'run')} to do; progress every {QUIET} seconds")

    def __exit__(self, kind, *_) -> None:
        self.bar.close()
        if kind is KeyboardInterrupt:
            self.say("stopped: finished epochs and records are kept; start the same command again to go on from there")

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.bar.write(line, self.out)

    def show(self) -> None:
        """Look at every run's notes and show where all are."""
        self.done |= {run for run in self.runs if run not in self.done and run.finished}
        states = {run: DONE if run in self.done else run.steps(self.started) for run in self.runs}
        share = sum(done / total for done, total, _ in states.values()) / len(states)
        running = []
        for run, (done, total, error) in states.items():
            if states[run] is DONE:
                continue
            far = f"{100 * done / total:.0f} %"
            if self.first is None and 0 < done < total and run.state.exists():
                self.say(f"{run.name}: goes on from {far} of its steps, to its last whole epoch")
            if done:
                loss = "" if error is None else f", validation error {error:.1f} %"
                running.append(f"{run.name} {'is being tested' if done == total else far}{loss}")
        self.first = share if self.first is None else self.first  # of what was resumed
        if not self.bar.disable:
            self.bar.n = 100 * share
            self.bar.set_postfix_str("; ".join(["", *running]))
        elif time.monotonic() - self.said > QUIET:
            self.said = time.monotonic()
            passed, gained = self.said - self.began, share - self.first
            left = math.ceil(passed * (1 - share) / gained / 60) if gained > 0.01 else 0
            known = f", about {left} min left" if left else ""
            self.say("; ".join([f"{100 * share:.0f} %, {passed / 60:.1f} min gone{known}", *running]))


def seconds_of(runs, device: str, jobs: int, untested=frozenset()) -> float:
    """Wall seconds of `runs` (of `run.Run`), and of others that are trained and stay `untested`, `jobs` at a time; what
    is resumed counts as far as it is left."""
    import torch

    from ..evaluation import AVERAGED
    from .machine import pick_device, prepare_process

    chosen = pick_device(device)
    prepare_process(chosen)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // jobs))
    free = [0.0] * jobs  # when each of the jobs can take its next run
    for run in (*untested, *runs):
        config = run.experiment.config
        first = {"curriculum_epochs": 0, "explore_epochs": 0, "chooser_alone_epochs": 0}  # these epochs cost less
        alike = dataclasses.replace(config, epochs=1, last_sigma=0.0, **first)
        dataset = data.load(config.dataset)
        images = config.epochs * len(dataset.train)
        done, steps, _ = run.steps()
        images *= 1 - done / steps
        protocol, tested = run.experiment.protocol, run not in untested
        if tested and protocol:
            attacked = protocol.images or dataset.test_size
            images += attacked * ATTACKED[bool(config.glimpses)] * protocol.restarts / Protocol.restarts
        elif tested and config.glimpses:
            images += dataset.test_size * (START_SEEDS + AVERAGED) / FORWARD
        heapq.heapreplace(free, free[0] + SLACK * seconds_per_image(alike, chosen) * images)
    torch.set_num_threads(threads)
    return max(free)


@functools.cache  # a plan that is shortened to fit a budget is announced by the same measurement
def seconds_per_image(config, device) -> float:
    """The mean time of a training step, after some that warm up, per image."""
    import torch

    from ..training import STREAMS, new_model, step

    dataset = data.load(config.dataset).to(device)
    model = new_model(config, 0, dataset).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    streams = {name: torch.Generator(device=device) for name in STREAMS}
    times: list[float] = []
    while len(times) < WARM_UP + STEPS or sum(times[WARM_UP:]) < SECONDS:
        began = time.perf_counter()
        index = torch.arange(config.batch_size, device=device) + len(times) * config.batch_size
        step(model, config, optimizer, dataset, index % len(dataset.train), streams)["loss"].item()
        times.append(time.perf_counter() - began)
    return statistics.mean(times[WARM_UP:]) / config.batch_size
