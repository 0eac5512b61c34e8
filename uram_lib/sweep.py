"""Running experiments: one run, or a plan of rows x seeds in this process, in several, or on a Dask cluster.

The unit of work is a group: one run, or several seeds of one row that are trained together in one process.
A run takes care of itself wherever it is started: what is finished is skipped, what was cut is resumed, and a lock
keeps two processes from the same run. So a plan can be stopped at any time and started again, and a worker that dies
takes no other run with it.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import torch
from torch import nn
from tqdm import tqdm

from . import UramError, checkpoints, data, records
from .evaluation import evaluate
from .experiments import TRANSFER_FROM, Experiment, experiment, experiments
from .models import build
from .paths import relative, write_atomically
from .robustness import evaluate_robustness
from .training import NotFinite, Trained, load_state, pick_device, train_together

CHECKPOINT_SEED = 0  # the weights of this seed's runs are kept, for pictures
PATIENCE = 5  # seconds between two looks at a lock that is waited for
# Seeds in one process. On a CPU more than one gains nothing (`make bench`); on an accelerator 16 is a guess.
TOGETHER = {"cpu": 1, "mps": 1, "cuda": 16}


@dataclass(frozen=True)
class Job:
    """One run of a plan."""

    experiment: Experiment
    seed: int
    publish: bool

    @property
    def cost(self) -> float:
        """Relative cost, for starting the longest first: epochs times the work of an image."""
        c = self.experiment.config
        feedforward = {
            "fc": 1, "cnn2": 40, "cnn5": 80, "cnn10": 36, "cnn11": 59, "vgg16": 5, "vgg16-mlp": 5,
        }  # fmt: skip
        return c.epochs * feedforward.get(c.model, 1 + c.glimpses * (1 + 0.2 * c.scales))

    @property
    def record(self) -> Path:
        return records.record_path(self.experiment, self.seed, self.publish)

    @property
    def state(self) -> Path:
        return records.state_path(self.experiment, self.seed)

    @property
    def lock(self) -> Path:
        return self.state.with_suffix(".lock")

    @property
    def sessions(self) -> Path:
        """Where what made the run so far is noted until its record is written."""
        return self.state.with_suffix(".sessions.json")

    @property
    def weights(self) -> Path | None:
        """Where the weights are kept: for pictures, of one seed; where attacks start from them, of all, on this machine
        alone."""
        if self.experiment.protocol:
            return records.weights_path(self.experiment, self.seed)
        return (
            records.checkpoint_path(self.experiment, self.seed, self.publish) if self.seed == CHECKPOINT_SEED else None
        )

    @property
    def finished(self) -> bool:
        """Whether a record of this very configuration and seed exists."""
        return records.finished(self.experiment, self.seed, self.publish)

    @property
    def progress(self) -> float:
        """The share of its epochs that a run has behind it, as it notes in its lock file."""
        try:
            done, total = self.lock.read_text().split("/")
            return int(done) / int(total)
        except (OSError, ValueError):
            return 0.0


class Busy(UramError):
    """Another process is at a run."""


@contextlib.contextmanager
def only_one(path: Path, wait: bool = False) -> Iterator[TextIO]:
    """Hold `path` as a lock for the time of a run; the system frees it when the process ends, however it ends.

    Where another process holds it, waits or raises Busy; raises UramError where the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")
    except OSError as error:
        raise UramError(f"cannot write to {relative(path.parent)}: {error.strerror}") from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait:
                    raise Busy(f"{path.stem} is being trained by another process; wait for it or stop it") from None
                time.sleep(PATIENCE)
        yield file


Group = tuple[Job, ...]
"""Runs of one row that are trained together."""


def name_of(group: Group) -> str:
    """How people call a group: its row and its seeds."""
    return f"{group[0].experiment.row} seed{'s' * (len(group) > 1)} {', '.join(str(job.seed) for job in group)}"


def cost_of(group: Group) -> float:
    return sum(job.cost for job in group)


def progress_of(group: Group) -> float:
    return sum(job.progress for job in group) / len(group)


def run_group(group: Group, device: str = "auto") -> None:
    """Train, test once, and write the record of every run of a group. Finished runs are left as they are.

    Shows a bar where a person watches. Raises UramError, after the others have been run, naming the runs that failed;
    among them those that another process is at (Busy).
    """
    experiment = group[0].experiment
    chosen = pick_device(device)
    # Runs that were cut at different epochs cannot take their steps together.
    alike: dict[int, list[Job]] = defaultdict(list)
    with contextlib.ExitStack() as held:
        locks: dict[Job, TextIO] = {}

        def take(job: Job) -> None:
            try:
                job.record.parent.mkdir(parents=True, exist_ok=True)  # found out now, not after an hour of training
            except OSError as error:
                raise UramError(f"cannot write to {relative(job.record.parent)}: {error.strerror}") from error
            # A row of Table 4 may be in training as the source of another one's attack, in a process of this very plan.
            locks[job] = held.enter_context(only_one(job.lock, wait=experiment.protocol is not None))
            if not job.finished:
                alike[(load_state(job.state, experiment.config, job.seed) or {"epoch": 0})["epoch"]].append(job)

        failed = failures(group, take)
        for jobs in alike.values():
            try:
                train_and_test(jobs, chosen, locks)
            except NotFinite as error:  # one that diverges takes no other with it
                alone = lambda job: train_and_test([job], chosen, locks)  # noqa: E731
                failed |= failures(jobs, alone) if len(jobs) > 1 else {jobs[0]: error}
            except UramError as error:
                failed[tuple(jobs)] = error
        tell(failed, len(group))


def train_and_test(jobs: list[Job], device: torch.device, locks: dict[Job, TextIO]) -> None:
    """Train runs of one row together, test each once, and write their records, the weights first.

    Raises UramError, of which NotFinite may be one run's alone.
    """
    e = jobs[0].experiment
    dataset = data.load(e.config.dataset)
    sessions = [note_session(job, device) for job in jobs]
    outcome = train(jobs, device, locks)
    split = dataset.load_test().to(device)
    for job, trained, own in zip(jobs, outcome, sessions, strict=True):
        run = records.provenance(own, trained, together=len(jobs))
        if e.protocol:
            kept = job.state.with_suffix(".attacks.pt")
            test = evaluate_robustness(
                trained.model, split, e.protocol, sources(job, device), (kept, e.config, job.seed)
            )
            run["attack_seconds"] = test.seconds
        else:
            kept, test = None, evaluate(trained.model, split, e.start_seeds, monte_carlo=True)
        records.write_record(job.record, records.make_record(e, job.seed, dataset.describe(), trained, test, run))
        for path in filter(None, (kept, job.sessions, job.state)):
            path.unlink(missing_ok=True)


def note_session(job: Job, device: torch.device) -> list[dict]:
    """Every session of a run so far, this one last. Kept beside its state, as one record may be the work of several."""
    found = []
    if job.state.exists():
        with contextlib.suppress(OSError, ValueError):  # of an older version there is none
            found = json.loads(job.sessions.read_text())
    found.append(records.session(device))
    write_atomically(job.sessions, lambda temporary: temporary.write_text(json.dumps(found)))
    return found


def failures(items: Iterable, do: Callable) -> dict[object, UramError]:
    """Call `do` on each item, jobs or groups; returns those that failed, with what they said."""
    failed = {}
    for item in items:
        try:
            do(item)
        except UramError as error:
            failed[item] = error
    return failed


def tell(failed: dict, among: int) -> None:
    """Raise UramError with what each of the failed items, jobs or groups, said; of one item alone, just that."""
    if not failed:
        return
    if among == 1:
        raise UramError(*map(str, failed.values()))
    names = {item: name_of(item if isinstance(item, tuple) else (item,)) for item in failed}
    raise UramError("; ".join(f"{names[item]}: {said}" for item, said in failed.items()))


def train(jobs: list[Job], device: torch.device, locks: dict[Job, TextIO]) -> list[Trained]:
    """Train runs of one row together and keep the weights that are to be kept."""
    e, seeds = jobs[0].experiment, [job.seed for job in jobs]
    with tqdm(total=e.config.epochs, desc=f"{e.table} {name_of(tuple(jobs))}", unit="epoch", disable=None) as bar:

        def on_epoch(epoch: int, rows: list[dict[str, float]]) -> None:
            for job in jobs:
                locks[job].truncate(0)
                locks[job].write(f"{epoch}/{e.config.epochs}")
                locks[job].flush()
            bar.update(epoch - bar.n)
            error = sum(row["val_error"] for row in rows) / len(rows)
            bar.set_postfix_str(f"validation error {error:.2f} %")

        dataset = data.load(e.config.dataset)
        outcome = train_together(e.config, seeds, dataset, device, [job.state for job in jobs], on_epoch)
    for job, trained in zip(jobs, outcome, strict=True):
        too_large = job.publish and e.protocol is None and not checkpoints.small_enough(trained.model)
        if job.weights and not too_large:
            checkpoints.save(job.weights, trained.model, e.config, job.seed)
    return outcome


def sources(job: Job, device: torch.device) -> dict[str, nn.Module]:
    """The networks that a transfer attack on a run of Table 4 starts from, by row: of its preset, data set and seed.

    One that has no weights yet is trained first, or waited for where another process trains it.
    """
    e, found = job.experiment, {}
    for row in TRANSFER_FROM:
        if row == e.row:
            continue
        source = Job(experiment(e.table, row, e.preset, e.config.dataset), job.seed, job.publish)
        while not source.weights.exists():
            try:
                with only_one(source.lock) as lock:
                    if not source.weights.exists():
                        note_session(source, device)  # its own record is to tell of this one, too
                        train([source], device, {source: lock})
            except Busy:
                time.sleep(PATIENCE)
        found[row] = checkpoints.load(source.weights, source.experiment.config)[0].to(device)
    return found


@dataclass(frozen=True)
class Plan:
    """Rows x seeds and how to run them. Made by `plan`, which checks everything."""

    experiments: tuple[Experiment, ...]
    seeds: tuple[int, ...]
    device: str
    parallel: int
    publish: bool
    scheduler: str
    together: int

    @property
    def embedded(self) -> bool:
        """Whether this runs on the embedded digits, so that its numbers are not comparable with the paper."""
        return any(map(data.is_embedded, self.datasets))

    @property
    def datasets(self) -> list[str]:
        """The data sets of the rows, each once; arms of several tables have several."""
        return list(dict.fromkeys(e.config.dataset for e in self.experiments))

    @property
    def jobs(self) -> list[Job]:
        """Every run, longest first."""
        every = [Job(e, seed, self.publish) for seed in self.seeds for e in self.experiments]
        return sorted(every, key=lambda job: -job.cost)

    @property
    def waiting(self) -> list[Job]:
        """The runs without a record, longest first."""
        return [job for job in self.jobs if not job.finished]

    @property
    def groups(self) -> list[Group]:
        """The waiting runs as units of work, longest first: up to `together` seeds of a row each."""
        rows: dict[Experiment, list[Job]] = defaultdict(list)
        for job in self.waiting:
            rows[job.experiment].append(job)
        groups = [
            tuple(jobs[i : i + self.together]) for jobs in rows.values() for i in range(0, len(jobs), self.together)
        ]
        # What others wait for comes first; equals in order of seed, so that early seeds are complete across rows.
        waited_for = lambda group: group[0].experiment.row in TRANSFER_FROM  # noqa: E731
        return sorted(groups, key=lambda group: (not waited_for(group), -cost_of(group), group[0].seed))

    def announce(self) -> str:
        """What is about to be done: rows, seeds, data set, device, expected minutes."""
        first, waiting = self.experiments[0], self.waiting
        seconds = [seconds_a_run(job.experiment) for job in waiting]
        minutes = "unknown (no published record to go by)"
        if not waiting:
            minutes = "0"
        elif self.embedded:
            minutes = f"about {max(1, round(len(waiting) / self.parallel / 8))}"
        elif None not in seconds:
            total = sum(seconds) / self.parallel
            minutes = f"about {max(1, round(total / 60))} where the published records were made"
        where = f"on the cluster at {self.scheduler}" if self.scheduler else f"{self.parallel} at a time"
        return (
            f"{first.table}, preset {first.preset}: rows {', '.join(e.row for e in self.experiments)}; "
            f"seeds {', '.join(map(str, self.seeds))}; data {', '.join(self.datasets)}; "
            f"device {pick_device(self.device).type} ({torch.get_num_threads()} threads), {where}; "
            f"{len(waiting)} of {len(self.jobs)} runs to do; minutes: {minutes}; "
            f"records in {relative(records.runs_root(self.publish))}"
        )

    def run(self) -> list[Path]:
        """Do what is left to do; returns the paths of all records, in the order of rows and seeds.

        In this process when `parallel` is 1, else in that many child processes of one thread each, or on the cluster
        at `scheduler`. Raises UramError, after everything else has been run, if a run failed, naming each.
        """
        if self.scheduler:
            run_on_cluster(self)
        elif self.parallel == 1:
            groups = self.groups
            tell(failures(groups, lambda group: run_group(group, self.device)), len(groups))
        else:
            run_in_children(self)
        if lost := self.waiting:
            raise UramError(f"no record came of: {', '.join(name_of((job,)) for job in lost)}")
        return [Job(e, seed, self.publish).record for e in self.experiments for seed in self.seeds]


def plan(
    table: str,
    preset: str = "quick",
    rows: list[str] | None = None,
    seeds: int | Iterable[int] = (0,),
    device: str = "auto",
    jobs: int = 1,
    dataset: str = "",
    publish: bool = False,
    scheduler: str = "",
    together: int = 0,
) -> Plan:
    """Check what a person asked for and make a plan of it.

    rows: all of the table's when None; seeds: how many, counted from 0, or which ones; dataset: the preset's own when
    empty, and where its files cannot be had, the embedded digits take its place, with a warning; together: seeds of a
    row that one process trains side by side, 0 for what suits the device. Raises UramError in one line for anything
    unknown, listing what is allowed.
    """
    chosen = experiments(table, preset, rows, dataset or None)
    asked = seeds
    if isinstance(asked, int) and not isinstance(asked, bool):
        seeds = range(asked)
    seeds = tuple(dict.fromkeys(seeds)) if isinstance(seeds, Iterable) else ()
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise UramError(f"seeds must be whole numbers from 0 on, at least one, got {asked!r}")
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise UramError(f"jobs must be a whole number from 1 on, got {jobs!r}")
    if isinstance(together, bool) or not isinstance(together, int) or together < 0:
        raise UramError(f"together must be a whole number from 0 on, got {together!r}")
    if scheduler and "://" not in str(scheduler):
        raise UramError(f"scheduler must be an address such as tcp://host:8786, got {scheduler!r}")
    chosen_device = pick_device(device).type
    # One VGG16 has enough to do for any device.
    together = together or (1 if chosen[0].protocol else TOGETHER[chosen_device])
    read = data.holds_numbers(experiments(table, preset)[0].config.dataset)
    found: dict[str, str] = {}
    for e in chosen:
        wanted = e.config.dataset
        if wanted in found:
            continue
        if (held := data.holds_numbers(wanted)) != read:
            kinds = {True: "whole numbers", False: "single digits"}
            raise UramError(f"{table} reads {kinds[read]}, and {wanted} holds {kinds[held]}")
        try:
            with torch.device("meta"):
                build(e.config, *data.shape_of(wanted))
        except ValueError as error:
            raise UramError(f"{table} cannot read {wanted}: {error}") from None
        found[wanted] = data.available(wanted)
        if found[wanted] != wanted and publish:
            raise UramError(f"publishing needs {wanted}, which cannot be had here")
    chosen = [experiment(e.table, e.row, e.preset, found[e.config.dataset]) for e in chosen]
    return Plan(tuple(chosen), seeds, device, jobs, publish, scheduler, together)


def run_in_children(plan: Plan) -> None:
    """Run each group as a child process, `plan.parallel` at a time. Raises UramError naming those that failed."""
    waiting, total = plan.groups, len(plan.groups)
    running: dict[subprocess.Popen, tuple[Group, BinaryIO]] = {}  # with what it says to stderr
    retried: set[Group] = set()
    failed: dict[Group, str] = {}
    work = sum(map(cost_of, waiting))
    done = 0.0
    # One line for the whole plan; tqdm computes the time left from the share of the work that is done.
    with tqdm(
        total=100, disable=None, bar_format="{percentage:3.0f} % |{bar:20}| {elapsed}, {remaining} left; {postfix}"
    ) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < plan.parallel:
                    group = waiting.pop(0)
                    child, stderr = start(group, plan.device)
                    running[child] = group, stderr
                for child in [child for child in running if child.poll() is not None]:
                    group, stderr = running.pop(child)
                    if child.returncode < 0 and group not in retried:  # killed, not failed
                        retried.add(group)
                        waiting.insert(0, group)
                        continue
                    done += cost_of(group)
                    if child.returncode:
                        stderr.seek(0)
                        said = stderr.read().decode(errors="replace").strip().splitlines()
                        said = said or [f"ended with status {child.returncode}"]
                        failed[group] = said[-1].removeprefix("uram: error: ")
                partly = sum(progress_of(group) * cost_of(group) for group, _ in running.values())
                bar.update(100 * (done + partly) / work - bar.n)
                names = ", ".join(
                    f"{name_of(group)} ({100 * progress_of(group):.0f} %)" for group, _ in running.values()
                )
                bar.set_postfix_str(f"{total - len(waiting) - len(running)} of {total} done; running: {names}")
                time.sleep(0.2)
        finally:
            for child in running:
                child.terminate()
    tell(failed, total)


def start(group: Group, device: str) -> tuple[subprocess.Popen, BinaryIO]:
    """Start a group as a child process of one thread; what it says to stderr goes to the file, as a pipe that nobody
    reads meanwhile would stop it when full."""
    e, seeds = group[0].experiment, ",".join(str(job.seed) for job in group)
    words = ["run", e.table, "--preset", e.preset, "--rows", e.row, "--seeds", seeds, "--device", device]
    words += ["--together", str(len(group)), "--dataset", e.config.dataset] + ["--publish"] * group[0].publish
    stderr = tempfile.TemporaryFile()
    child = subprocess.Popen(
        [sys.executable, "-m", "uram_lib.cli", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    return child, stderr


def run_on_cluster(plan: Plan) -> None:
    """Hand the waiting jobs to a Dask cluster whose workers see this project's folder. Raises UramError where the
    scheduler cannot be reached, `distributed` is not installed, or runs failed (naming them)."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise UramError("a scheduler needs the package 'distributed': pip install 'uram[cluster]'") from error
    try:
        client = Client(plan.scheduler, timeout="30s")
    except (OSError, ValueError) as error:
        raise UramError(f"no Dask scheduler answers at {plan.scheduler}") from error
    failed: dict[Group, str] = {}
    groups = plan.groups
    with (
        client,
        tqdm(total=len(groups), unit="group", disable=None) as bar,
    ):
        # A group whose worker dies is handed to another one and resumes there from its last epoch.
        futures = {client.submit(run_group, group, plan.device, pure=False): group for group in groups}
        for future in as_completed(futures):
            bar.update()
            if future.status == "error":
                error = future.exception()
                failed[futures[future]] = (str(error) or type(error).__name__).splitlines()[0]
            elif future.status != "finished":  # cancelled or lost
                failed[futures[future]] = "the cluster gave it up; start the same command again to go on"
    tell(failed, len(groups))


def seconds_a_run(experiment: Experiment) -> float | None:
    """From published records of this row on this data set, or a copy of it: seconds of as many epochs where they were
    made, and of the attacks; None without records."""
    found = records.load_records(table=experiment.table)
    now = experiment.config
    of_size = lambda name: name.removesuffix("-jpeg") if name in data.COPIES else name  # noqa: E731
    like = lambda r: (r["row"], of_size(r["config"]["dataset"]), r["config"].get("width", 1))  # noqa: E731
    alike = [r for r in found if like(r) == (experiment.row, of_size(now.dataset), now.width)]
    times = [
        made["wall_seconds"] / r["config"]["epochs"] * experiment.config.epochs
        + sum(made.get("attack_seconds", {}).values())
        for r in alike
        for made in [r["provenance"]]
    ]
    return sum(times) / len(times) if times else None
