"""A reference replication of URAM, the unified top-down and bottom-up recurrent attention model.

Three names are all that most readers need:

    model = uram_lib.load("table2", "ours-6")        # published weights
    reading = model.read(images)                     # labels, probabilities, locations
    records = uram_lib.run("table2", rows=["ram-6"]) # train, test, keep the record; in a script under a main guard

Comments say "ledger" with a code, as in "ledger A3", for what the paper leaves open: the book's chapter 71 lists these.
"""

from .common import UramError, __version__

__all__ = ["UramError", "__version__", "load", "run"]


def load(table: str, row: str, preset: str = "strong", seed: int = 0, dataset: str | None = None):
    """A published model, in evaluation mode: `load("table2", "ours-8").read(images)`. Raises UramError for an unknown
    name, and where no weights are published, listing the rows that have some."""
    from . import checkpoints, experiments

    return checkpoints.load(experiments.published_weights(table, row, preset, seed, dataset))[0]


def run(table: str, preset: str = "quick", rows: list[str] | None = None, seeds=1, **options) -> list[dict]:
    """Train rows of a table and return their records; seeds and options: of `runs.plan.make_plan`. Raises UramError."""
    from .runs import plan, records

    return [records.read_record(path) for path in plan.make_plan(table, preset, rows, seeds, **options).run()]
