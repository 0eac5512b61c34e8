"""Run records: one small JSON file per run, the versioned truth that every table, claim and figure is derived from."""

import base64
import dataclasses
import json
import re
import zlib
from pathlib import Path

import numpy as np

from ..common import PUBLISHED, UramError, check, local, relative, write_atomically
from ..config import Config
from ..experiments import PRESETS, ROWS, Experiment

SCHEMA = 1
# What every record holds, of which kind, and what of it every reader counts on.
KINDS = {"table": str, "row": str, "seed": int, "preset": str, "dataset": dict, "config": dict, "config_hash": str,
         "metrics": dict, "test_correct": dict, "curves": dict, "provenance": dict}  # fmt: skip
WITHIN = {"dataset": {"name", "variant", "sizes"}, "metrics": {"val_error", "best_epoch"},
          "provenance": {"git_commit", "wall_seconds", "images_per_second", "threads", "rollouts"}}  # fmt: skip


def runs_root(published: bool) -> Path:
    """`results/runs` for published records, `results/local/runs` for a reader's own."""
    return PUBLISHED if published else local() / "runs"


def pack(correct) -> dict:
    """Outcomes, a tensor of bool of any shape, as JSON: bits packed, deflated, base64."""
    bits = np.packbits(correct.cpu().numpy().astype(bool).ravel())
    data = base64.b64encode(zlib.compress(bits.tobytes(), 9)).decode()
    return {"encoding": "base64(zlib(packbits))", "shape": list(correct.shape), "data": data}


def unpack(packed: dict) -> np.ndarray:
    """The inverse of `pack`."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8)
    return np.unpackbits(bits)[: int(np.prod(packed["shape"]))].reshape(packed["shape"]).astype(bool)


def make_record(experiment: Experiment, seed: int, dataset: dict, trained, test, sessions: list[dict]) -> dict:
    """The record of a finished run. dataset: `Dataset.describe()`; trained: of `training.train`; test: an `Evaluation`
    or a `Robustness`; sessions: of `machine.session`, one for each time that the run was started or gone on with. The
    last one tells commit and machine; where there are several, all are kept."""
    return {
        "schema": SCHEMA,
        "table": experiment.table,
        "row": experiment.row,
        "seed": seed,
        "preset": experiment.preset,
        "dataset": dataset,
        "config": dataclasses.asdict(experiment.config),
        "config_hash": experiment.config.hash,
        "metrics": rounded(test.metrics() | {"val_error": trained.val_error, "best_epoch": trained.best_epoch}),
        "test_correct": pack(test.correct),
        "curves": rounded(trained.curves),
        "provenance": {
            **sessions[-1],
            "dirty": any(one["dirty"] for one in sessions),
            "started": sessions[0]["started"],
            **({"sessions": sessions} if len(sessions) > 1 else {}),
            "rollouts": trained.rollouts,
            "wall_seconds": round(trained.seconds, 1),
            "images_per_second": round(trained.rollouts / trained.seconds, 1),
            **({"attack_seconds": test.seconds} if hasattr(test, "seconds") else {}),
        },
    }


def rounded(value):
    """Outcomes packed, and numbers cut to what is meaningful, so that records stay small and differences legible."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 4)
    return pack(value) if hasattr(value, "cpu") else value  # a tensor


def write_record(path: Path, record: dict) -> None:
    """Write a record, whole or not at all. Lists of numbers lie on one line each: a curve is a line in a diff."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda match: re.sub(r"\s+", " ", match[0]), text)
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def read_record(path: Path) -> dict:
    """Read a record. Raises UramError where it is unreadable, of another schema, not whole, or in the wrong place."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UramError(f"{relative(path)} is not a run record: {error}") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise UramError(f"{relative(path)} has record schema {found!r}; this version reads schema {SCHEMA}")
    if missing := KINDS.keys() - record.keys():
        raise UramError(f"{relative(path)} is not a whole run record: it lacks {', '.join(sorted(missing))}")
    if odd := [key for key, kind in KINDS.items() if type(record[key]) is not kind]:
        raise UramError(f"{relative(path)} is damaged: {odd[0]} is {record[odd[0]]!r:.40}")
    if missing := [f"{key}.{name}" for key, names in WITHIN.items() for name in sorted(names - record[key].keys())]:
        raise UramError(f"{relative(path)} is not a whole run record: it lacks {', '.join(missing)}")
    for kind, known in (("table", ROWS), ("preset", PRESETS)):
        check(kind, record[kind], known, f" in {relative(path)}")
    try:
        if unpack(record["test_correct"]).ndim != 2:
            raise ValueError(f"shape {record['test_correct']['shape']}")
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise UramError(f"{relative(path)} is damaged: its test_correct cannot be unpacked ({error})") from error
    ours = (record["table"], record["preset"], dataset_name(record), record["row"], f"seed-{record['seed']}.json")
    if path.parts[-5:] != ours:
        raise UramError(f"{relative(path)} holds the record of {'/'.join(ours)}; records keep their place")
    return record


def load_records(root: Path = PUBLISHED, table: str | None = None) -> list[dict]:
    """All records under `root`, of one table or of all, ordered by place and seed."""
    folder = root / table if table else root
    records = [read_record(path) for path in sorted(folder.glob("**/seed-*.json"))]
    return sorted(records, key=lambda r: (r["table"], r["preset"], dataset_name(r), r["row"], r["seed"]))


def dataset_name(record: dict) -> str:
    """The record's data set and variant in one word, as in `clutter100-10`."""
    return "-".join(filter(None, (record["dataset"]["name"], record["dataset"]["variant"])))


def wrong(records: list[dict]) -> np.ndarray:
    """(seeds, images): the share of test passes in which each image was misread, one line per record. Raises UramError
    where the records are not of one recipe and one test set."""
    kinds = {
        "recipes": lambda r: Config.read(r["config"]).hash,
        "test sets": lambda r: r["dataset"]["checksum"],
        "numbers of images": lambda r: f"{r['test_correct']['shape'][-1]:,}",
    }
    for what, value in kinds.items():
        if len(set(map(value, records))) > 1:
            found = ", ".join(f"seed {r['seed']}: {value(r)}" for r in records)
            raise UramError(f"the records of row {records[0]['row']} are of different {what} ({found})")
    return np.stack([1 - unpack(record["test_correct"]).mean(0) for record in records])
