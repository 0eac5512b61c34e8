"""Running experiments: one run, or rows x seeds as child processes, longest first.

A sweep starts `uram run` once per row and seed, so a run behaves alike alone and in a sweep, a run that dies takes no
other with it, and everything can be stopped at any time: what is finished is skipped and what was cut is resumed.
"""

import contextlib
import datetime
import fcntl
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from . import UramError, checkpoints, data, records
from .evaluation import evaluate
from .experiments import Experiment
from .paths import relative
from .training import pick_device, train

RETRIES = 1  # of a child process that was killed; a run that says why it failed is not tried again


@contextlib.contextmanager
def only_one(path: Path):
    """Hold `path` as a lock for the time of a run; the system frees it when the process ends, however it ends.

    Raises UramError where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UramError(f"{path.stem} is being trained by another process; wait for it or stop it") from None
        yield


def run_one(
    experiment: Experiment,
    seed: int,
    device: str = "auto",
    publish: bool = False,
    checkpoint: bool = False,
    progress: bool = True,
) -> Path:
    """Train, test once, and write the record; returns its path. A finished run is left as it is.

    publish: write under `results/runs` instead of `results/local`. checkpoint: keep the weights too. progress: show a
    bar where a person watches. Raises UramError where another process is at this run.
    """
    path = records.record_path(experiment, seed, publish)
    state = records.state_path(experiment, seed)
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UramError(f"cannot write to {relative(path.parent)}: {error.strerror}") from error
    with only_one(state.with_suffix(".lock")):
        weights = records.checkpoint_path(experiment, seed, publish)
        if records.finished(experiment, seed, publish) and (weights.exists() or not checkpoint):
            return path
        chosen = pick_device(device)
        dataset = data.load(experiment.config.dataset)
        code = records.git_state()
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        name = f"{experiment.table} {experiment.row} seed {seed}"
        shown = progress and sys.stderr.isatty()
        with tqdm(total=experiment.config.epochs, desc=name, unit="epoch", disable=not shown) as bar:

            def on_epoch(epoch: int, row: dict[str, float]) -> None:
                bar.update(epoch - bar.n)
                bar.set_postfix_str(f"validation error {row['val_error']:.2f} %")

            trained = train(experiment.config, seed, dataset, chosen, state, on_epoch)
        test = evaluate(trained.model, dataset.load_test().to(chosen), experiment.start_seeds, monte_carlo=True)
        run = records.provenance(chosen, started, code, trained)
        record = records.make_record(experiment, seed, dataset.describe(), trained, test, run)
        if checkpoint:
            checkpoints.save(weights, trained.model, experiment.config, seed)
        records.write_record(path, record)
        state.unlink(missing_ok=True)
    return path


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    experiment: Experiment
    seed: int

    @property
    def name(self) -> str:
        return f"{self.experiment.row} seed {self.seed}"

    @property
    def cost(self) -> float:
        """Relative cost, for starting the longest first: epochs times the work of an image."""
        c = self.experiment.config
        return c.epochs * {"fc": 1, "cnn2": 40}.get(c.model, 1 + c.glimpses * (1 + 0.2 * c.scales))


def jobs_of(experiments: list[Experiment], seeds: list[int]) -> list[Job]:
    """Rows x seeds, longest first; equals in order of seed, so that early seeds are complete across rows."""
    return sorted((Job(e, s) for s in seeds for e in experiments), key=lambda job: -job.cost)


def run_sweep(
    experiments: list[Experiment],
    seeds: list[int],
    device: str = "auto",
    parallel: int = 1,
    publish: bool = False,
    checkpoint_seeds: tuple[int, ...] = (0,),
) -> list[Path]:
    """Run every experiment with every seed: one after the other in this process when `parallel` is 1, else in that many
    child processes of one thread each.

    Finished runs are skipped. Returns the records' paths. Raises UramError at the end if a run failed, naming each.
    """
    waiting = [job for job in jobs_of(experiments, seeds) if not records.finished(job.experiment, job.seed, publish)]
    paths = [records.record_path(e, s, publish) for e in experiments for s in seeds]
    if parallel == 1:
        for job in waiting:
            run_one(job.experiment, job.seed, device, publish, job.seed in checkpoint_seeds)
        return paths
    skipped = len(paths) - len(waiting)
    failed: dict[str, str] = {}
    running: dict[subprocess.Popen, Job] = {}
    tries: dict[Job, int] = {}
    bar = tqdm(total=len(paths), initial=skipped, unit="run", disable=None, desc=f"{skipped} finished before")
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                child = start(job, device, publish, job.seed in checkpoint_seeds)
                running[child] = job
                bar.set_postfix_str("running: " + ", ".join(j.name for j in running.values()))
            for child in [c for c in running if c.poll() is not None]:
                job = running.pop(child)
                if child.returncode == 0:
                    bar.update()
                elif child.returncode < 0 and tries.get(job, 0) < RETRIES:
                    tries[job] = tries.get(job, 0) + 1
                    waiting.insert(0, job)
                else:
                    said = child.stderr.read().decode(errors="replace").strip().splitlines()
                    failed[job.name] = said[-1] if said else f"ended with status {child.returncode}"
            time.sleep(0.05)
    finally:
        for child in running:
            child.terminate()
        bar.close()
    if failed:
        raise UramError("; ".join(f"{name}: {why}" for name, why in failed.items()))
    return paths


def start(job: Job, device: str, publish: bool, checkpoint: bool) -> subprocess.Popen:
    """Start one run as a child process of one thread."""
    e = job.experiment
    words = ["run", e.table, "--preset", e.preset, "--rows", e.row, "--seeds", str(job.seed), "--device", device]
    words += ["--dataset", e.config.dataset, "--single"]
    words += ["--publish"] * publish + ["--checkpoint"] * checkpoint
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "uram_lib.cli", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def seconds_an_epoch(experiment: Experiment) -> float | None:
    """From published records of this row: seconds an epoch where they were made; None without records."""
    found = records.load_records(table=experiment.table)
    times = [r["provenance"]["wall_seconds"] / r["config"]["epochs"] for r in found if r["row"] == experiment.row]
    return sum(times) / len(times) if times else None


def announce(experiments: list[Experiment], seeds: list[int], device: str, parallel: int, publish: bool) -> str:
    """What a sweep is about to do: rows, seeds, data set, device, expected minutes."""
    first = experiments[0]
    todo = [job for job in jobs_of(experiments, seeds) if not records.finished(job.experiment, job.seed, publish)]
    seconds = [seconds_an_epoch(job.experiment) for job in todo]
    minutes = "unknown (no published record to go by)"
    if all(s is not None for s in seconds):
        total = sum(s * job.experiment.config.epochs for s, job in zip(seconds, todo, strict=True))
        minutes = f"about {max(1, round(total / parallel / 60))} where the published records were made"
    if first.config.dataset == data.EMBEDDED:
        minutes = "about 1"
    rows = ", ".join(e.row for e in experiments)
    into = records.runs_root(publish)
    return (
        f"{first.table}, preset {first.preset}: rows {rows}; seeds {seeds}; data {first.config.dataset}; "
        f"device {pick_device(device).type} ({torch.get_num_threads()} threads), {parallel} at a time; "
        f"{len(todo)} of {len(experiments) * len(seeds)} runs to do; minutes: {minutes}; records in {relative(into)}"
    )
