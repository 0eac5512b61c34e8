"""What `make reproduce-table2` runs: re-test published weights, train, run the chapter's notebook, make its page.

    python -m uram_book table2 --preset quick --seeds 1

The executed notebook lies in `results/local/notebooks` and its page, rendered as the book is, in `results/local/pages`.
"""

import argparse
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import yaml
from IPython.display import display
from matplotlib import pyplot as plt

from uram_lib import UramError, checkpoints, data, evaluation, paper
from uram_lib.cli import Parser, exit_status, words_of
from uram_lib.common import CHECKPOINTS, QUICK, ROOT, local, read_json, relative
from uram_lib.config import Config
from uram_lib.experiments import Experiment, experiment, label_of
from uram_lib.runs import plan, records
from uram_lib.runs.progress import count
from uram_lib.runs.run import Run

from . import drawing, pages, plotting
from .pages import CHAPTERS_OF
from .tables import write

# The rows that carry the paper's argument: what `quick` trains when no rows are named.
ARGUED = {"table1": "ram-6,entropy-6,entropy-context-6", "table2": "ram-6,ours-6,ours-6-entropy-context",
          "table3": "dram,entropy-context", "table4": "vgg16-pgd,ours-vgg16-pgd"}  # fmt: skip
RETESTED = 1_000  # test images
BUDGET = {"table1": 14, "table2": 14, "table3": 22, "table4": 22}  # minutes of training at `quick`
YOURS = "yours"  # tag of the cells that show a reader's own runs: hidden in the book, first on the reader's page


def retest(table: str) -> Iterator[tuple]:
    """Test every published checkpoint of a table on the first test images, image by image against its record. Yields
    (row, preset, images, error here, error in the record, answers that differ) for each."""
    for path in sorted(CHECKPOINTS.glob(f"{table}/*/*/*/seed-*.safetensors")):
        preset, dataset, row = path.parts[-4:-1]
        seed = int(path.stem.removeprefix("seed-"))
        try:
            test = data.load(dataset).load_test()
        except data.DataUnavailable as error:
            print(f"{label_of(table, row)}: not tested again: {error}")
            continue
        few = test.at(slice(RETESTED))  # their random starts are the first of the whole test set's
        here = ~evaluation.evaluate(checkpoints.load(path)[0], few).correct[0].numpy()
        record = records.read_record(Run(experiment(table, row, preset, dataset), seed, publish=True).record)
        there = ~records.unpack(record["test_correct"])[0, : len(few)]
        yield row, preset, len(few), 100 * here.mean(), 100 * there.mean(), int((here != there).sum())


def show_retest(table: str) -> None:
    print(f"Published models, tested again on this machine (first {RETESTED:,} test images):", flush=True)
    differ = asked = 0
    for row, preset, images, here, there, others in retest(table):
        if not asked:
            print(f"{'':62}{'paper':>7}{'published':>11}{'here':>8}{'answers that differ':>21}")
        reported = paper.row(table, row.partition("@")[0])
        value = f"{reported.value:g}" if reported else "–"
        *start, end = textwrap.wrap(f"{label_of(table, row)} ({preset})", 60)
        print(*start, f"{end:62}{value:>7}{there:>10.1f}%{here:>7.1f}%{others:>21}", sep="\n", flush=True)
        differ, asked = differ + others, asked + images
    note = " A few may differ by rounding on another processor." if differ else ""
    found = f"{differ} of {asked:,} answers differ from the records.{note}"
    print(found if asked else "none: this table's networks are too large to be published", flush=True)


def open_chapter(table: str, preset: str, seeds, device, jobs, dataset: str, rows: str, scheduler: str) -> plan.Plan:
    """What a table's notebook begins with: make the missing runs, within BUDGET where `quick` chose rows and seed."""
    how = {"device": device, "jobs": jobs, "scheduler": scheduler}
    made = plan.make_plan(table, preset, words_of(rows), seeds, dataset, **how)
    if preset == "quick" and rows == ARGUED.get(table) and len(made.seeds) == 1 and not scheduler:
        made = within_budget(made)
    print(made.announce(), flush=True)
    if preset == "quick":
        print(*expected(made), sep="\n", flush=True)
    made.run()
    return made


def within_budget(made: plan.Plan) -> plan.Plan:
    """The plan with as many epochs as this machine trains in BUDGET, at most the preset's, found once and then kept."""
    table = made.experiments[0].table
    path = local() / f"quick-{table}.json"
    kept = read_json(path, "share")
    if kept is None:
        kept = {"share": min(1.0, 60 * BUDGET[table] / max(made.seconds(), 1))}
        write(path, json.dumps(kept))
    return replace(made, experiments=tuple(shortened(e, kept["share"]) for e in made.experiments))


def shortened(experiment: Experiment, share: float) -> Experiment:
    """An experiment of `share` of the epochs, at least one, with as large a part of them for its first phases."""
    config = experiment.config
    epochs = max(1, int(share * config.epochs))
    early = {n: getattr(config, n) * epochs // config.epochs for n in ("curriculum_epochs", "explore_epochs")}
    return replace(experiment, config=replace(config, epochs=epochs, **early))


def error_of(record: dict) -> str:
    """As in `34 % wrong`: of the test images, in Table 4 under attack."""
    metrics = record["metrics"]
    if "test_error" in metrics:
        return f"{metrics['test_error']:.0f} % wrong"
    return f"{100 - metrics['robust_accuracy']:.0f} % wrong under attack"


def expected(made: plan.Plan) -> Iterator[str]:
    """The budget in epochs, and the error of a run of ours with the same configuration, where there is one."""
    known = {Config.read(r["config"]): f"; ours had {error_of(r)}" for r in records.load_records(QUICK)}
    for e in made.experiments:
        yield f"{label_of(e.table, e.row)}: {count(e.config.epochs, 'epoch')}{known.get(e.config, '')}"


def show_yours(made: plan.Plan) -> None:
    """A reader's own runs in a notebook: what they can show, the table, learning curves and paths of the glimpses."""
    here, first = [records.read_record(run.record) for run in made.runs], made.experiments[0]
    display(pages.say("yours", preset=first.preset, table=first.table, epochs=first.config.epochs, runs=len(here),
                      banner=data.BANNER if made.embedded else ""))  # fmt: skip
    display(pages.show("rows", first.table, here))
    groups = {e.row: [r for r in here if r["row"] == e.row] for e in made.experiments}
    ax = plotting.learning_curves(groups, plt.gca())
    ax.set_title("Your learning curves")
    ax.figure.set_figheight(3.2 + 0.1 * len(groups))
    plotting.legend_below(ax.figure, 2)
    plt.show()
    paths = {run.experiment.row: run.weights for run in made.runs if run.experiment.config.glimpses and run.weights}
    if not paths or data.kind_of(first.config.dataset) != "grey digits":
        return
    few = data.load(first.config.dataset).load_test().at(slice(5))
    drawing.read_together({row: checkpoints.load(path) for row, path in paths.items()}, few)
    plt.show()


def run_notebook(name: str, values: dict, output: Path) -> nbformat.NotebookNode:
    """Execute a notebook with parameters, write it to `output` and return it. Raises UramError where a cell failed."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    output.parent.mkdir(parents=True, exist_ok=True)
    path, failure = ROOT / "notebooks" / f"{name}.ipynb", None
    options = {"cwd": path.parent, "progress_bar": sys.stderr.isatty(), "kernel_name": "python3", "language": "python"}
    options["extra_arguments"] = ["--log-level=50"]  # the kernel's own lines; those of cells come with the notebook
    try:
        with warnings.catch_warnings(action="ignore"):  # papermill's own, about its dependencies
            papermill.execute_notebook(path, output, values, **options)
    except PapermillExecutionError as error:
        first = str(error.evalue).strip().partition("\n")[0]  # none, as of a bare assert, is possible
        failure = f"cell {error.exec_count} of {path.name}: {error.ename}: {first}"
    except DeadKernelError:
        failure = f"the kernel of {path.name} was killed, perhaps for want of memory"
    notebook = nbformat.read(output, 4)
    for part, key in itertools.product((notebook, *notebook.cells), ("papermill", "execution")):
        part.metadata.pop(key, None)  # what differs from run to run
    write(output, nbformat.writes(notebook) + "\n")
    if failure:
        raise UramError(f"{failure} (notebook as far as it ran: {relative(output)})")
    return notebook


def slim(drawing: str) -> str:
    """SVG with one decimal, but all of them in small numbers and in scales, which multiply a picture's pixels."""
    drawing = re.sub(r"(?s)<metadata>.*?</metadata>|<!--.*?-->|<\?xml.*?\?>|<!DOCTYPE.*?>", "", drawing)
    drawing = re.sub(r"((?:matrix|scale)\([^)]*\))|(?<![\d.])([1-9]\d*\.\d)\d+", r"\1\2", drawing)
    return re.sub(r"\s*\n\s*", "\n", drawing).strip() + "\n"


def store(name: str) -> None:
    """Run a chapter's notebook and keep its outputs in the repository: slim figures, no runs of the reader's own."""
    notebook = run_notebook(name, {}, local() / "notebooks" / f"{name}.ipynb")
    for cell in notebook.cells:
        if YOURS in cell.metadata.get("tags", []):
            cell["outputs"] = []
        for found in (output.get("data", {}) for output in cell.get("outputs", [])):
            for kind in ("image/svg+xml", "text/html"):
                if "<svg" in (drawing := found.get(kind, "")):
                    found[kind] = slim(drawing)
                    found.pop("text/plain", None)
    path = ROOT / "notebooks" / f"{name}.ipynb"
    write(path, nbformat.writes(notebook) + "\n")
    print(f"stored: {relative(path)}, {path.stat().st_size / 1000:,.0f} kB")


def reader_first(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy in which the reader's own results follow the title, and are not hidden."""
    made = nbformat.from_dict(notebook)
    tagged = lambda tag: [cell for cell in made.cells if tag in cell.metadata.get("tags", [])]  # noqa: E731
    mine, plumbing = tagged(YOURS), tagged("injected-parameters")  # papermill's
    for cell in mine:
        cell.metadata["tags"] = ["remove-input", YOURS]
    made.cells = made.cells[:1] + mine + [cell for cell in made.cells[1:] if cell not in mine + plumbing]
    return made


def write_page(notebook: nbformat.NotebookNode, name: str) -> Path:
    """Render one notebook as the book is; returns the page. Links to other chapters lead nowhere here."""
    folder = local() / "pages" / name
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["bibtex_bibfiles"] = [str(ROOT / "book" / "references.bib")]
    config["sphinx"]["local_extensions"] = {"no_thebe": str(ROOT / "book" / "_ext")}
    config["sphinx"]["config"]["html_static_path"] = [str(ROOT / "book" / "_static")]
    with tempfile.TemporaryDirectory() as source:
        place = Path(source)
        nbformat.write(notebook, place / f"{name}.ipynb")
        (place / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        (place / "_toc.yml").write_text(f"format: jb-book\nroot: {name}\n", encoding="utf-8")
        tool = Path(sys.executable).with_name("jupyter-book")
        ran = subprocess.run([tool, "build", place, "--quiet"], capture_output=True, text=True)
        if not (place / "_build" / "html" / f"{name}.html").exists():
            raise UramError(f"no page could be made of {name}: {ran.stderr.strip()[-500:]}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(place / "_build" / "html", folder)
    return folder / f"{name}.html"


def reproduce(options: argparse.Namespace) -> None:
    asked = vars(options)
    what, keep, train = (asked.pop(key) for key in ("what", "store", "train"))
    name, quick, values = CHAPTERS_OF[what], asked["preset"] == "quick", {}
    if keep:
        return store(name)
    if what.startswith("table"):
        values = asked | {"rows": asked["rows"] or (ARGUED[what] if quick else "all")}
        plan.make_plan(what, **values | {"rows": words_of(values["rows"])})  # mistakes are told before anything starts
        if quick and not asked["dataset"]:
            show_retest(what)
        open_chapter(what, **values)
        print(f"running {name}.ipynb", flush=True)
    elif train:
        rows = "ram-6,ours-6,ours-6-entropy,ours-6-entropy-context,readings"
        open_chapter("table2", **asked | {"dataset": "", "rows": rows})
        values = {"preset": asked["preset"]}
    output = local() / "notebooks" / f"{name}.ipynb"
    page = write_page(reader_first(run_notebook(name, values, output)), name)
    print(f"to look at: {relative(page)}\nnotebook: {relative(output)}")


def main(words: list[str] | None = None) -> int:
    parser = Parser(prog="python -m uram_book", description="Run a chapter with its runs.")
    parser.add_argument("what", choices=CHAPTERS_OF)
    for option, default in {"preset": "quick", "rows": "", "seeds": "1", "device": "auto", "dataset": "",
                            "scheduler": "", "jobs": 1}.items():  # fmt: skip
        parser.add_argument(f"--{option}", default=default, type=type(default))
    parser.add_argument("--store", action="store_true", help="run the notebook as it stands and keep its outputs in it")
    parser.add_argument("--train", action="store_true", help="of readings: train first what is missing")
    options = parser.parse_args(words)
    return exit_status(lambda: reproduce(options))
