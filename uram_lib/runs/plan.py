"""Rows x seeds: what a person asked for, checked, and run on a pool of processes here or on a Dask cluster.

A plan can be stopped at any time and started again, and a worker that dies takes no other run with it.
"""

import contextlib
import itertools
import math
import multiprocessing
import os
import re
import signal
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from .. import data, paper
from ..common import UramError, check, relative
from ..experiments import TRANSFER_FROM, Experiment, experiments
from . import DEVICES, records
from .progress import Progress, count, seconds_of
from .run import Run, sources, train_and_test

MOST_SEEDS = 1_000
LONGEST_ROW = 200  # letters of its name, which files carry
KILLED = (
    "its process was killed; start the same command again to go on (a script that calls uram_lib.run must do so under "
    "`if __name__ == '__main__':`)"
)


@dataclass(frozen=True)
class Plan:
    """Rows x seeds and how to run them, as `make_plan` gives it. scheduler: address of a Dask cluster, or empty. Raises
    UramError for a device, a number of jobs or an address that cannot be."""

    experiments: tuple[Experiment, ...]
    seeds: tuple[int, ...]
    device: str = "auto"
    jobs: int = 1
    publish: bool = False
    scheduler: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.jobs, bool) or not isinstance(self.jobs, int) or not 1 <= self.jobs <= 1_000:
            raise UramError(f"jobs must be a whole number from 1 to 1000, got {self.jobs!r}")
        if self.scheduler and "://" not in str(self.scheduler):
            raise UramError(f"scheduler must be an address such as tcp://host:8786, got {self.scheduler!r}")
        check("device", self.device, DEVICES)

    @property
    def embedded(self) -> bool:
        """Whether this runs on the embedded digits, so that its numbers are not comparable with the paper."""
        return any(data.is_embedded(e.config.dataset) for e in self.experiments)

    @property
    def runs(self) -> list[Run]:
        """Every run: sources of transfer attacks first, early seeds complete across rows before later ones."""
        every = [Run(e, seed, self.publish) for seed in self.seeds for e in self.experiments]
        return sorted(every, key=lambda run: (run.seed, run.experiment.row not in TRANSFER_FROM))

    @property
    def waiting(self) -> list[Run]:
        """The runs without a record."""
        return [run for run in self.runs if not run.finished]

    def announce(self) -> str:
        """What is about to be done: rows, seeds, data set, device, and minutes as measured on this machine."""
        first, waiting = self.experiments[0], self.waiting
        sets = dict.fromkeys(e.config.dataset for e in self.experiments)
        where = f"on the cluster at {self.scheduler}" if self.scheduler else f"{self.jobs} at a time"
        minutes = "nothing to do" if not waiting else "on a cluster the minutes are not known beforehand"
        if waiting and not self.scheduler:
            minutes = f"about {count(math.ceil(self.seconds() / 60), 'minute')} on this machine, measured just now"
        return (
            f"{first.table}, preset {first.preset}: rows {', '.join(e.row for e in self.experiments)}; "
            f"seeds {', '.join(map(str, self.seeds))}; data {', '.join(sets)}; {where}; "
            f"{len(waiting)} of {count(len(self.runs), 'run')} to do: {minutes}; "
            f"records go to {relative(records.runs_root(self.publish))}"
        )

    def seconds(self) -> float:
        """How long the waiting runs will take here, from some steps of each kind of row that is waiting."""
        waiting = self.waiting
        also = {source for run in waiting for source in sources(run) if not source.weights.exists()}
        return seconds_of(waiting, self.device, self.jobs, also.difference(waiting))

    def run(self) -> list[Path]:
        """Do what is left to do, showing progress; returns the paths of all records, in the order of rows and seeds.
        Raises UramError, after everything else has been run, if a run failed, naming each."""
        if waiting := self.waiting:
            with Progress(waiting) as progress:
                failed = run_all(self, waiting, progress)
            if failed:
                raise UramError("; ".join(f"{run.name}: {said}" for run, said in failed.items()))
        return [Run(e, seed, self.publish).record for e in self.experiments for seed in self.seeds]


def run_all(plan: Plan, waiting: list[Run], progress: Progress) -> dict[Run, str]:
    """Do the runs; returns those that failed, with what they said. When a process is killed, its pool breaks with all
    runs in it, and nothing says whose process it was. So they are tried again, where they go on from their last epochs,
    first together and then each alone."""
    failed: dict[Run, str] = {}
    killed = run_on_executor(plan, waiting, progress, failed)
    for run in killed and run_on_executor(plan, killed, progress, failed):
        failed |= dict.fromkeys(run_on_executor(plan, [run], progress, failed), KILLED)
    return failed


def run_on_executor(plan: Plan, waiting: list[Run], progress: Progress, failed: dict[Run, str]) -> list[Run]:
    """Run all on an executor; puts into `failed` what those said that did, and returns those whose pool broke."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = 0 if plan.scheduler else max(1, cores // plan.jobs)
    killed = []
    with executor_of(plan, len(waiting)) as pool:
        with interrupts_held():
            futures = {pool.submit(train_and_test, run, plan.device, threads): run for run in waiting}
        while futures:
            done, _ = wait(futures, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                run = futures.pop(future)
                try:
                    progress.say(future.result())
                except BrokenProcessPool:
                    killed.append(run)
                except UramError as error:
                    failed[run] = str(error)
                except CancelledError:
                    failed[run] = "the cluster gave it up; start the same command again to go on"
                except Exception as error:  # of PyTorch, or of a bug
                    failed[run] = traceback.format_exception_only(error)[0].splitlines()[0]
            progress.show()
    return killed


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C, which a terminal sends to all processes, never reaches those started here, and this one afterwards."""
    if threading.current_thread() is not threading.main_thread():  # no signal reaches it
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))  # another thread may take the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by new processes
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def end_with_parent() -> None:
    """Have this process end when its parent has: a command that is killed leaves no worker behind."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextlib.contextmanager
def executor_of(plan: Plan, runs: int) -> Iterator[Executor]:
    """A pool of processes here, or the workers of a Dask cluster, which must see this project's folder. Raises
    UramError where the scheduler cannot be reached or `distributed` is not installed."""
    if not plan.scheduler:
        workers, context = min(plan.jobs, runs), multiprocessing.get_context("spawn")
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin would starve a command beside this one
        # In pages of 2 MB: with 4 kB looking them up can take longer than the computing, on virtual machines above all.
        os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        with ProcessPoolExecutor(workers, context, end_with_parent) as pool:
            try:
                yield pool
            except BaseException:
                for process in list((getattr(pool, "_processes", None) or {}).values()):
                    process.terminate()
                raise
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UramError("a scheduler needs the package 'distributed': pip install 'uram[cluster]'") from error
    try:
        client = Client(plan.scheduler, timeout="30s")
    except (OSError, ValueError) as error:
        raise UramError(f"no Dask scheduler answers at {plan.scheduler}") from error
    with client:
        yield client.get_executor(pure=False)


def make_plan(
    table: str, preset="quick", rows: list[str] | None = None, seeds=1, dataset="", settings: dict | None = None, **how
) -> Plan:
    """Check what a person asked for and make a plan of it.

    rows: as for `experiments`. seeds: how many, counted from 0, or which ones (`parse_seeds`). dataset: the preset's
    own when empty; where its files cannot be had, the embedded digits take its place, with a warning. settings: fields
    of `Config` changed by hand, as text. how: the other fields of `Plan`. Raises UramError in one line for anything
    unknown, listing what is allowed.
    """
    chosen = experiments(table, preset, rows, dataset=dataset, settings=settings)
    plan = Plan(tuple(chosen), parse_seeds(seeds), **how)
    if settings and plan.publish:
        raise UramError("a run with --set is never published: leave out --publish")
    reads, names = data.kind_of(paper.DATASETS[table]), dict.fromkeys(e.config.dataset for e in chosen)
    for e in chosen:
        model = f"model={e.config.model}"
        if (e.config.model in ("dram", "cnn10", "cnn11")) != (reads == "whole numbers"):
            raise UramError(f"{table} reads {reads}, which {model} does not")
        if table == "table4" and not e.config.model.startswith("vgg16"):
            raise UramError(f"table4 attacks vgg16 and the models upon it, and {model} is none")
        if reads == "whole numbers" and e.config.attack != "none":
            raise UramError(f"attack is for models that name one class: {table} reads {reads}")
        if len(e.row) > LONGEST_ROW:
            raise UramError(f"{len(settings or {})} settings make the name of row {e.row[:40]}... too long for a file")
    for name in names:
        if data.kind_of(name) != reads:
            raise UramError(f"{table} reads {reads}, and {name} holds {data.kind_of(name)}")
        names[name] = data.available(name)
        if plan.publish and names[name] != name:
            raise UramError(f"publishing needs {name}, which cannot be had here")
    here = [replace(e, config=replace(e.config, dataset=names[e.config.dataset])) for e in chosen]
    return replace(plan, experiments=tuple(here))


def parse_seeds(asked: "int | str | list[int]") -> tuple[int, ...]:
    """The seeds that `3` (0 to 2), `0,2,5` or `4-9` names, in order. Raises UramError on anything else."""
    text = ",".join(map(str, asked)) + "," if isinstance(asked, (list, tuple, range)) else str(asked)
    text = re.sub(r"\s*([,-])\s*", r"\1", text.strip())
    if text.isdecimal() and len(text) < 10:
        text = f"0-{int(text) - 1}"
    parts = [re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part) for part in text.rstrip(",").split(",")]
    found = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts if part]
    if len(found) < len(parts) or not all(found) or sum(one.stop - one.start for one in found) > MOST_SEEDS:
        raise UramError(
            f"cannot read seeds {str(asked)!r}; allowed: how many (3 means 0 to 2), a list (0,2,5) or a range (4-9), "
            f"at least one and at most {MOST_SEEDS}"
        )
    return tuple(sorted(set(itertools.chain(*found))))
