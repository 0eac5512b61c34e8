"""Where things lie. Every path is absolute, so the working directory never matters."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import UramError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PUBLISHED = RESULTS / "runs"
CHECKPOINTS = RESULTS / "checkpoints"
FIGURES = RESULTS / "figures"
TABLES = RESULTS / "tables"
CLAIMS = RESULTS / "claims.csv"
BENCH = RESULTS / "bench.json"


def local() -> Path:
    """Where a reader's own runs go: `results/local`, or `URAM_LOCAL` (tests point it at a temporary folder)."""
    return Path(os.environ.get("URAM_LOCAL", RESULTS / "local")).resolve()


def data_roots() -> list[Path]:
    """Folders that are searched for data sets, in order: `URAM_DATA` (a relative one counts from the project's root,
    so that notebooks find it too), then `data/`."""
    roots = [(ROOT / Path(os.environ["URAM_DATA"]).expanduser()).resolve()] if os.environ.get("URAM_DATA") else []
    return [*roots, ROOT / "data"]


def relative(path: Path) -> str:
    """`path` as a reader sees it: from the project's root where it lies inside, else from the working directory."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else os.path.relpath(path)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary)`, flush it to disk and move it to `path`: a reader sees the old file or the whole new one.

    The temporary name is unique, so two writers of one path cannot mix their bytes; the last one wins.
    Raises UramError when the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UramError(
            f"cannot write {relative(path)}: {error.strerror or error}; results folder unchanged"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
