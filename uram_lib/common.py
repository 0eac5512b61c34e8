"""What every part needs: the mistake that a person is told of, where things lie, and how a file is written whole.

Every path is absolute, so the working directory never matters.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__version__ = "0.2.0"
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PUBLISHED = RESULTS / "runs"
QUICK = RESULTS / "quick"  # records of small budgets: what a reader may expect
CHECKPOINTS = RESULTS / "checkpoints"
FIGURES = RESULTS / "figures"
TABLES = RESULTS / "tables"
BENCH = RESULTS / "bench.json"


class UramError(Exception):
    """A mistake of the user's or of the machine's, told in one line: what was wrong and what is allowed."""


def check(kind: str, name, known, where: str = "") -> None:
    """Raise UramError where `name` is not among the known ones, listing them."""
    if name not in known:
        raise UramError(f"unknown {kind} {name!r}{where}; one of: {', '.join(map(str, known))}")


def local() -> Path:
    """Where a reader's own runs go: `URAM_LOCAL` (if relative, from the project's root), else `results/local`."""
    return _named_by("URAM_LOCAL") or RESULTS / "local"


def data_roots() -> list[Path]:
    """Folders that are searched for data sets: `URAM_DATA` (if relative, from the project's root), then `data/`. Raises
    UramError where `URAM_DATA` is no folder."""
    own = _named_by("URAM_DATA")
    if own is not None and not os.path.isdir(own):  # also False where the name is too long
        raise UramError(f"URAM_DATA names {own}, which is no folder")
    return [*filter(None, [own]), ROOT / "data"]


def _named_by(variable: str) -> Path | None:
    """The path that an environment variable names, None where it is unset or empty."""
    if not (text := os.environ.get(variable)):
        return None
    try:
        return (ROOT / Path(text).expanduser()).resolve()
    except RuntimeError as error:  # of a user who is not known
        raise UramError(f"{variable} names {text}: {error}") from error


def relative(path: Path) -> str:
    """`path` as a reader sees it: from the project's root where it lies inside, else from the working directory."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else os.path.relpath(path)


def read_json(path: Path, *keys: str) -> dict | None:
    """What a JSON file holds; None where there is none. Raises UramError where it is damaged or lacks one of `keys`."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if missing := [key for key in keys if key not in found]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (OSError, ValueError, TypeError) as error:
        raise UramError(f"{relative(path)} is damaged ({error}); measure anew, or take it from git") from error
    return found


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary)`, flush it to disk and move it to `path`: readers and other writers there see whole files
    alone. Raises UramError where the folder cannot be written or the disk is full; nothing is left behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            temporary = Path(folder, "new")
            write(temporary)
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    except OSError as error:
        why = error.strerror or error
        raise UramError(f"cannot write {relative(path)}: {why}; nothing was changed") from error
