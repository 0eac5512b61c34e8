"""Running a notebook with parameters from the command line: what `make reproduce-table1` calls.

    python -m uram_lib.notebook notebooks/10_table1.ipynb --table table1 -p preset quick -p seeds 3

papermill takes any parameter without a word and answers a mistake with a page of traceback. Here parameters are
checked against the notebook's own parameters cell, a failure is one line, and the executed notebook carries nothing
that differs from run to run: no timestamps, no durations. It lies with an HTML copy in `results/local/notebooks`.
"""

import argparse
import ast
import sys
import warnings
from pathlib import Path

import nbformat

from . import UramError, data, paper, records, sweep, tables
from .cli import exit_status
from .paths import local, relative, write_atomically

KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}


def parameters_of(notebook: nbformat.NotebookNode, name: str) -> dict:
    """Names and default values in the cell tagged `parameters`. Raises UramError where there is none of literals."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UramError(f"{name} has {len(cells)} cells tagged 'parameters'; it needs one")
    try:
        statements = ast.parse(cells[0].source).body
        return {s.targets[0].id: ast.literal_eval(s.value) for s in statements}
    except (SyntaxError, AttributeError, ValueError) as error:
        raise UramError(f"the parameters cell of {name} must assign literals and nothing else") from error


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Raises UramError where there is no notebook at `path`, or what is there is none."""
    try:
        found = nbformat.read(path, 4)
        nbformat.validate(found)
        return found
    except FileNotFoundError:
        raise UramError(f"there is no notebook {relative(path.resolve())}") from None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, nbformat.ValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UramError(f"{relative(path.resolve())} is no notebook: {reason}") from error


def check_parameters(given: list[tuple[str, str]], defaults: dict) -> dict:
    """The given words as values of the defaults' types. Raises UramError, listing what is allowed."""
    values = {}
    for name, text in given:
        if name not in defaults:
            raise UramError(f"unknown parameter {name!r}; one of: {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            values[name] = {"True": True, "False": False}[text] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise UramError(f"{name} must be {KINDS.get(kind, kind.__name__)}, got {text!r}") from None
    return values


def strip_run_details(notebook: nbformat.NotebookNode) -> None:
    """Remove what papermill and the kernel's client write about this one execution."""
    notebook.metadata.pop("papermill", None)
    for i, cell in enumerate(notebook.cells):
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = f"injected-parameters-{i}"


def run_notebook(path: Path, given: list[tuple[str, str]], output: Path) -> dict:
    """Execute the notebook at `path` in its own folder and write it to `output`, with an HTML copy beside it.

    Returns the values of all parameters. Raises UramError for a wrong parameter or a cell that failed; what ran until
    then is in `output`.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    path, output = path.resolve(), output.resolve()
    if output.suffix != ".ipynb" or output == path or output.is_dir():
        raise UramError(f"the output must be another .ipynb file than the notebook itself, got {relative(output)}")
    defaults = parameters_of(read_notebook(path), path.name)
    values = check_parameters(given, defaults)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UramError(f"cannot write to {relative(output.parent)}: {error.strerror}") from error
    failure = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # papermill's own, about its dependencies
        try:
            papermill.execute_notebook(
                path,
                output,
                values,
                cwd=path.parent,
                progress_bar=sys.stderr.isatty(),
                kernel_name="python3",
                language="python",
                extra_arguments=["--IPKernelApp.log_level=50"],  # its warnings are no reader's business
            )
        except PapermillExecutionError as error:
            failure = error
        except OSError as error:
            if output.exists() and not output.stat().st_size:
                output.unlink()
            raise UramError(f"cannot write {relative(output)}: {error.strerror or error}") from error
        except DeadKernelError as error:
            raise UramError(
                f"the kernel of {path.name} was killed, perhaps for want of memory "
                f"(notebook as far as it ran: {relative(output)})"
            ) from error
    notebook = nbformat.read(output, 4)
    strip_run_details(notebook)
    write_atomically(output, lambda temporary: nbformat.write(notebook, temporary))
    if failure is not None:
        lines = str(failure.evalue).strip().splitlines() or ["no message"]
        kind = "" if failure.ename in known_errors() else f"cell {failure.exec_count} of {path.name}: {failure.ename}: "
        raise UramError(f"{kind}{lines[0]} (notebook as far as it ran: {relative(output)})")
    write_html(notebook, output.with_suffix(".html"))
    return defaults | values


def known_errors() -> set[str]:
    """Names of the errors that tell a mistake in one line."""
    from . import data, training  # noqa: F401  (they define such errors)

    found, names = [UramError], set()
    while found:
        error = found.pop()
        names.add(error.__name__)
        found += error.__subclasses__()
    return names


def write_html(notebook: nbformat.NotebookNode, path: Path) -> None:
    """A copy to look at in any browser."""
    from nbconvert import HTMLExporter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporter = HTMLExporter(require_js_url="", jquery_url="")
        text, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": path.stem}})
    write_atomically(path, lambda temporary: temporary.write_text(text))


def comparison(plan: sweep.Plan) -> str:
    """Paper, published and this machine side by side, as text."""
    first = plan.experiments[0]
    mine = [r for r in records.load_records(records.runs_root(False), first.table) if r["seed"] in plan.seeds]
    frame = tables.compare(list(plan.experiments), records.load_records(table=first.table), mine, first.preset)
    frame = frame.rename(columns={"this machine": f"this machine ({first.preset}, {first.config.dataset})"})
    frame["model"] = frame["model"].str.ljust(frame["model"].str.len().max())
    metric = {"error": "test error", "robust_accuracy": "robust accuracy"}[paper.metric(first.table)]
    title = f"Table {first.table.removeprefix('table')}: {paper.CAPTIONS[first.table]}, {metric} in % [95 % interval]"
    lines = [title, frame.rename_axis(None).to_string(na_rep="–")]
    return "\n".join([data.BANNER, *lines] if plan.embedded else lines)


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 after one line that says what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m uram_lib.notebook", description="Run a notebook with parameters.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    parser.add_argument("--table", help="first make the runs of this table; afterwards print its comparison")
    parser.add_argument("--output", type=Path, help="where the executed notebook goes")
    options = parser.parse_args(words)
    return exit_status(lambda: command(options))


def command(options: argparse.Namespace) -> None:
    output = options.output or local() / "notebooks" / options.notebook.name
    plan = None
    if options.table:
        defaults = parameters_of(read_notebook(options.notebook), options.notebook.name)
        values = defaults | check_parameters(options.parameters, defaults)
        # The runs are made here, in sight of the terminal; the notebook makes the same plan and finds them done.
        plan = sweep.plan(options.table, **values)
        print(plan.announce(), flush=True)
        plan.run()
        print(f"running {options.notebook.name}", flush=True)
    run_notebook(options.notebook, options.parameters, output)
    if plan is not None:
        print(f"\n{comparison(plan)}\n")
    print(f"notebook: {relative(output)}\nto look at: {relative(output.with_suffix('.html'))}")


if __name__ == "__main__":
    sys.exit(main())
