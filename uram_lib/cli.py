"""The console script `uram`: `run`, `tables`, `data`, `doctor`."""

import argparse
import io
import os
import platform
import sys
import warnings
from collections.abc import Callable

from . import UramError, __version__


def parse_seeds(text: str) -> list[int]:
    """The seeds that `3`, `0,2,5` or `0-9` names, in order.

    Raises UramError on anything else.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            low, dash, high = part.partition("-")
            found = range(int(low), int(high if dash else low) + 1)
            if not found:  # 3-1
                raise ValueError
            seeds += found
    except ValueError:
        seeds = []
    if not seeds:
        raise UramError(f"cannot read seeds {text!r}; allowed: a number (3), a list (0,2,5) or a range (0-9)")
    return sorted(set(seeds))


def command_run(options: argparse.Namespace) -> None:
    from . import sweep
    from .paths import relative

    plan = sweep.plan(
        options.table,
        options.preset,
        None if options.rows is None else options.rows.split(","),
        parse_seeds(options.seeds),
        options.device,
        options.jobs,
        options.dataset,
        options.publish,
        options.scheduler,
        options.together,
    )
    print(plan.announce(), flush=True)
    for path in plan.run():
        print(relative(path))


def command_tables(options: argparse.Namespace) -> None:
    from .tables import write_tables

    print("\n".join(write_tables()))


def command_data(options: argparse.Namespace) -> None:
    from . import data
    from .data import svhn

    if options.skip_missing:
        if options.name != "svhn":
            raise UramError("--skip-missing is for svhn alone: uram data svhn --skip-missing")
        for part in svhn.ARCHIVES:
            svhn.prepare(part, skip_missing=True)
    for name in sorted(data.loaders()) if options.name is None else [options.name]:
        if options.name is None and name == "svhn" and not svhn.here():
            print("svhn: not here. `uram data svhn` downloads it: 2.6 GB")  # too much for a mere list
            continue
        try:
            found = data.load(name)
            sizes = f"{len(found.train):,} / {len(found.validation):,} / {found.test_size:,}"
            print(f"{name}: {found.title}, {sizes} train / validation / test, {found.checksum}")
        except data.DataUnavailable as error:
            if options.name is not None:
                raise
            print(f"{name}: not here. {error}")


def command_doctor(options: argparse.Namespace) -> None:
    import torch

    from .paths import data_roots, relative
    from .records import cpu_name, git_state
    from .training import devices_here

    print(f"uram {__version__}, commit {git_state()['git_commit'][:12]}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, {cpu_name()}")
    print("devices: " + ", ".join(devices_here()))
    print("data is looked for in: " + ", ".join(relative(root) for root in data_roots()))
    command_data(argparse.Namespace(name=None, skip_missing=False))


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="uram", description="Run and tabulate the replication's experiments.")
    commands = main.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train rows of a table and write run records")
    run.set_defaults(act=command_run)
    run.add_argument("table", help="table1, table2, table3, table4 or ablations")
    run.add_argument("--preset", default="quick", help="smoke, quick, paper (not Table 1) or converged")
    run.add_argument("--rows", help="comma-separated rows; all when left out")
    run.add_argument("--seeds", default="0", help="as in 3, 0,2,5 or 0-9")
    run.add_argument("--jobs", type=int, default=1, help="processes at a time, of one thread each where more than 1")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    run.add_argument("--dataset", default="", help="another data set than the preset's own")
    run.add_argument("--publish", action="store_true", help="write to results/runs instead of results/local")
    run.add_argument("--scheduler", default="", help="address of a Dask cluster, as in tcp://host:8786")
    run.add_argument(
        "--together",
        type=int,
        default=0,
        help="seeds of a row trained side by side in one process; 0: what suits the device",
    )
    commands.add_parser("tables", help="rebuild tables and claims from the records").set_defaults(act=command_tables)
    data = commands.add_parser("data", help="find (or download) and check the data sets")
    data.set_defaults(act=command_data)
    data.add_argument("name", nargs="?", help="one data set; all when left out")
    data.add_argument(
        "--skip-missing",
        action="store_true",
        help="svhn: leave out images that are missing or damaged, count them and say so",
    )
    commands.add_parser("doctor", help="what this machine has").set_defaults(act=command_doctor)
    return main


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 after one line that says what was wrong."""
    options = parser().parse_args(words)
    return exit_status(lambda: options.act(options))


def exit_status(act: Callable[[], object]) -> int:
    """Call `act` as a command does: warnings are notes, a mistake is one line and status 1, a stop by hand is 130.

    A terminal that lacks a character shows a question mark in its place.
    """
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
    except KeyboardInterrupt:
        print("uram: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
