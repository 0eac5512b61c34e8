"""One run: train, test once, write the weights and then the record. It takes care of itself wherever it is started:
what is finished is skipped, what was cut goes on, and a lock keeps two processes from the same run."""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from .. import data
from ..common import CHECKPOINTS, UramError, local, relative, write_atomically
from ..config import Config
from ..experiments import START_SEEDS, TRANSFER_FROM, Experiment, experiment
from . import records

CHECKPOINT_SEED = 0  # the weights of this seed's runs are kept
LARGEST = 4_000_000  # bytes of weights that are published; of a larger network the records alone are
NOTE = 60  # characters of a note of progress
# Beside a run's state until its record is written: what made the run so far, and the attacks of Table 4 that are done.
SESSIONS, ATTACKS = ".sessions.json", ".attacks.pt"
PATIENCE = 5  # seconds between two looks at a lock that is waited for


@dataclass(frozen=True)
class Run:
    """One experiment with one seed."""

    experiment: Experiment
    seed: int
    publish: bool = False

    @property
    def name(self) -> str:
        return f"{self.experiment.row} seed {self.seed}"

    @property
    def place(self) -> Path:
        """`<table>/<preset>/<dataset>/<row>/seed-<k>`, under whatever root."""
        e = self.experiment
        return Path(e.table, e.preset, e.config.dataset, e.row, f"seed-{self.seed}")

    @property
    def record(self) -> Path:
        return records.runs_root(self.publish) / f"{self.place}.json"

    @property
    def state(self) -> Path:
        """The resume state, named by the configuration's hash, so that another recipe never resumes from it."""
        e = self.experiment
        return local() / "state" / f"{e.table}-{e.row}-{e.config.hash}-seed-{self.seed}.pt"

    @property
    def lock(self) -> Path:
        return self.state.with_suffix(".lock")

    @property
    def weights(self) -> Path | None:
        """Where the weights of the best validation epoch are kept: those of one seed; where attacks start from them,
        those of all, on this machine alone."""
        if self.experiment.protocol:
            return self.state.with_suffix(".safetensors")
        root = CHECKPOINTS if self.publish else local() / "checkpoints"
        return root / f"{self.place}.safetensors" if self.seed == CHECKPOINT_SEED else None

    @property
    def finished(self) -> bool:
        """Whether there is a record of this very configuration, attacked, if at all, by this very protocol."""
        if not self.record.exists():
            return False
        record, protocol = records.read_record(self.record), self.experiment.protocol
        attacked = protocol and records.rounded(dataclasses.asdict(protocol))
        return (
            Config.read(record["config"]) == self.experiment.config
            and records.rounded(record["metrics"].get("protocol")) == attacked
        )

    def steps(self, since: float = math.inf) -> tuple[int, int, float | None]:
        """Steps done, steps in all, and the last validation error, as the run notes them in its lock file. Nothing is
        done where no epoch is kept and the note is older than the time `since`."""
        with contextlib.suppress(OSError, ValueError):
            if self.state.exists() or self.lock.stat().st_mtime > since:
                return tuple(json.loads(self.lock.read_text(encoding="utf-8")))
        return 0, 1, None


class Busy(UramError):
    """Another process is at a run."""


@contextlib.contextmanager
def only_one(path: Path, wait: bool = False) -> Iterator[TextIO]:
    """Hold `path` as a lock for the time of a run; the system frees it when the process ends, however it ends. Where
    another process holds it, waits or raises Busy; raises UramError where the file cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "r+", encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))
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


def train_and_test(run: Run, device: str = "auto", threads: int = 0) -> str:
    """Train, test once, and write the weights and then the record; nothing where that is done. Returns a line for the
    reader. Raises UramError, among them Busy and NotFinite."""
    from .. import checkpoints
    from ..adversarial.robustness import evaluate_robustness
    from ..evaluation import evaluate
    from . import machine

    e, chosen = run.experiment, machine.pick_device(device)
    machine.prepare_process(chosen, threads)
    try:
        run.record.parent.mkdir(parents=True, exist_ok=True)  # found out now, not after an hour of training
    except OSError as error:
        raise UramError(f"cannot write to {relative(run.record.parent)}: {error.strerror}") from error
    # A row of Table 4 may be in training as the source of another one's attack.
    with only_one(run.lock, wait=e.protocol is not None) as lock:
        if run.finished:
            return f"{run.name}: was finished"
        sessions, trained = train_run(run, chosen, lock)
        dataset = data.load(e.config.dataset)
        split, kept = dataset.load_test().to(chosen), run.state.with_suffix(ATTACKS)
        if e.protocol:
            test = evaluate_robustness(
                trained.model, split, e.protocol, networks(run, chosen),
                checkpoints.load_state(kept, e.config, run.seed),
                lambda state: checkpoints.save_state(kept, e.config, run.seed, state),
            )  # fmt: skip
        else:
            test = evaluate(trained.model, split, START_SEEDS, sampled=True)
        records.write_record(run.record, records.make_record(e, run.seed, dataset.describe(), trained, test, sessions))
        for suffix in (ATTACKS, SESSIONS, ".pt"):
            run.state.with_suffix(suffix).unlink(missing_ok=True)
    return result_line(run)


def train_run(run: Run, device, lock: TextIO) -> tuple:
    """Train one run, or go on with it, and keep the weights that are to be kept. Returns its sessions, a list of dicts,
    and what `training.train` gives."""
    from .. import checkpoints, training

    def note(done: int, total: int, error: float | None) -> None:
        lock.seek(0)  # over the last note, in one write: whoever reads sees the one or the other
        lock.write(json.dumps([done, total, error]).ljust(NOTE))
        lock.flush()

    e, sessions = run.experiment, note_session(run, device.type)
    trained = training.train(e.config, run.seed, data.load(e.config.dataset), device, run.state, note)
    size = sum(value.nbytes for value in trained.model.state_dict().values())
    if run.weights and not (run.publish and e.protocol is None and size > LARGEST):
        checkpoints.save(run.weights, trained.model, e.config, run.seed)
    return sessions, trained


def note_session(run: Run, device: str) -> list[dict]:
    """Every session of a run so far, this one last. Kept beside its state, as one record may be the work of several."""
    from ..checkpoints import load_state
    from .machine import session

    path, state = run.state.with_suffix(SESSIONS), load_state(run.state, run.experiment.config, run.seed)
    found = json.loads(path.read_text(encoding="utf-8")) if state and path.exists() else []
    found.append(session(device, state["epoch"] if state else 0))
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(found), encoding="utf-8"))
    return found


def sources(run: Run) -> list[Run]:
    """The runs whose networks a transfer attack on a run of Table 4 starts from: of its preset, data set, epochs and
    seed. None for other tables."""
    e = run.experiment
    rows = [row for row in TRANSFER_FROM if e.protocol and row != e.row]
    alike = {"dataset": e.config.dataset, "epochs": e.config.epochs}
    found = (experiment(e.table, row, e.preset) for row in rows)
    return [replace(run, experiment=replace(one, config=replace(one.config, **alike))) for one in found]


def networks(run: Run, device) -> dict:
    """Those of its `sources`, by row. One that has no weights yet is trained first, or waited for where another process
    trains it."""
    from .. import checkpoints

    found = {}
    for source in sources(run):
        while not source.weights.exists():
            try:
                with only_one(source.lock) as lock:  # not waited for: its weights are there before it is tested
                    if not source.weights.exists():
                        train_run(source, device, lock)
            except Busy:
                time.sleep(PATIENCE)
        found[source.experiment.row] = checkpoints.load(source.weights, source.experiment.config)[0].to(device)
    return found


def result_line(run: Run) -> str:
    """What came out of a finished run, for the reader."""
    metrics = records.read_record(run.record)["metrics"]
    what = "robust_accuracy" if run.experiment.protocol else "test_error"
    found = f"{what.removeprefix('test_').replace('_', ' ')} {metrics[what]:.2f} %"
    return f"{run.name}: {found} on the test set, {relative(run.record)}"
