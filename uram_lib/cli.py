"""The console script `uram`. PyTorch is imported when a command needs it, so that help and a mistake answer at once."""

import argparse
import io
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from .common import UramError, __version__, data_roots, relative
from .experiments import PRESETS, READINGS, ROWS


def words_of(text: str) -> list[str]:
    """`ram-6, ours-6` as a list; empty words are left out. Raises UramError where only such are given."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if text and not found:
        raise UramError(f"rows are names with commas between them, got {text!r}")
    return found


def settings_of(pairs: list[str]) -> dict[str, str]:
    """`["sigma=0.3"]` as a dict. Raises UramError for a word without `=`, and for a name that comes twice."""
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UramError(f"--set takes NAME=VALUE, as in --set sigma=0.3, got {pair!r}")
        if name in settings:
            raise UramError(f"--set gives {name} twice, {settings[name]} and {value}: give it once")
        settings[name] = value
    return settings


def path_of(text: str) -> Path:
    """A path. Raises ArgumentTypeError where it is empty, which `Path` would take for the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name")
    return Path(text)


def command_run(options: argparse.Namespace) -> None:
    from . import data
    from .runs import plan
    from .runs.run import result_line

    rows = words_of(",".join(options.rows))
    found = plan.make_plan(
        options.table, options.preset, rows, options.seeds, options.dataset, settings_of(options.set),
        device=options.device, jobs=options.jobs, publish=options.publish, scheduler=options.scheduler,
    )  # fmt: skip
    print(found.announce(), flush=True)
    found.run()
    print(*[result_line(one) for one in found.runs], sep="\n")
    if found.embedded:
        print(data.BANNER)


def command_read(options: argparse.Namespace) -> None:
    from . import pictures

    table, _, row = options.model.partition("/")
    if not row:
        raise UramError(f"--model takes TABLE/ROW, as in table2/ours-6, got {options.model!r}")
    for line in pictures.read_all(options.picture, table, row, options.preset, options.seed, options.png):
        print(line)


def command_data(options: argparse.Namespace) -> None:
    from . import data

    if options.skip_missing:
        if options.name != "svhn":
            raise UramError("--skip-missing is for svhn alone: uram data svhn --skip-missing")
        from .data import svhn

        for part in svhn.ARCHIVES:
            svhn.prepare(part, skip_missing=True)
    for line in [data.load(options.name).summary] if options.name else data.overview():
        print(line)


def command_doctor(options: argparse.Namespace) -> None:
    import torch

    from . import data
    from .runs.machine import cpu_name, devices_here, git_state

    print(f"uram {__version__}, commit {git_state()['git_commit'][:12]}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, {cpu_name()}")
    print("devices: " + ", ".join(devices_here()))
    print("data is looked for in: " + ", ".join(relative(root) for root in data_roots()))
    for line in data.overview():
        print(line)


class Parser(argparse.ArgumentParser):
    """One that answers a mistake in one line, without the usage above it, and takes no option cut short: `--seed 5`
    would be five seeds."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {table}: {', '.join(rows)}" for table, rows in ROWS.items())
    presets = "\n".join(f"  {name}: {what}" for name, what in PRESETS.items())
    readings = ", ".join(sorted(READINGS))
    main = Parser(prog="uram", description="Run the replication's experiments and read pictures.")
    main.add_argument("--version", action="version", version=f"uram {__version__}")
    commands = main.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run",
        help="train rows of a table and write run records",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"rows:\n{rows}\n\nreadings, as in ours-6@region-centre:\n  {readings}\n\npresets:\n{presets}",
    )
    run.set_defaults(act=command_run)
    run.add_argument("table", help="table1, table2, table3 or table4")
    run.add_argument("--preset", default="quick", help="smoke, quick, paper or strong (default: quick)")
    run.add_argument("--rows", action="append", default=[], help="rows with commas between them (default: all)")
    run.add_argument("--seeds", default="1", help="how many (3 means 0 to 2), 0,2,5 or 4-9 (default: 1)")
    run.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    run.add_argument("--dataset", default="", help="another data set than the preset's own")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, as sigma=0.3")
    run.add_argument("--publish", action="store_true", help="write to results/runs instead of results/local")
    run.add_argument("--scheduler", default="", help="address of a Dask cluster, as in tcp://host:8786")

    read = commands.add_parser("read", help="read pictures with a published model")
    read.set_defaults(act=command_read)
    read.add_argument("picture", nargs="+", type=path_of, help="picture files, or a folder of them")
    read.add_argument("--model", default="table2/ours-6", help="TABLE/ROW (default: table2/ours-6)")
    read.add_argument("--preset", default="strong", help="paper or strong (default: strong)")
    read.add_argument("--seed", type=int, default=0, help="of the published run (default: 0)")
    read.add_argument("--png", type=path_of, help="draw the glimpse path of one picture there")

    data = commands.add_parser("data", help="find (or download) and check the data sets")
    data.set_defaults(act=command_data)
    data.add_argument("name", nargs="?", help="one data set (default: all)")
    data.add_argument("--skip-missing", action="store_true", help="svhn: leave out unreadable images, and count them")
    commands.add_parser("doctor", help="what this machine has").set_defaults(act=command_doctor)
    return main


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 after one line that says what was wrong."""
    options = parser().parse_args(words)
    return exit_status(lambda: options.act(options))


def exit_status(act: Callable[[], object]) -> int:
    """Call `act` as a command does: warnings are notes, a mistake is one line and status 1, a stop by hand is 130. A
    terminal that lacks a character shows a question mark in its place."""
    for shown in (sys.stdout, sys.stderr):
        if isinstance(shown, io.TextIOWrapper):
            shown.reconfigure(errors="replace")
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    try:
        act()
    except UramError as error:
        print(f"uram: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # nobody reads on, as in `uram data | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:  # where runs were under way, `Progress` has said what is kept
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
