"""Finding, fetching and opening the files of data sets, with one clear line where that fails."""

import contextlib
import io
import itertools
import os
import socket
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ..common import UramError, data_roots, relative
from . import DataUnavailable

TIMEOUT_S = 10  # of a connection that gives no answer
SHOWN = 6  # names of a folder in an error line
# What Pillow and gzip raise for damaged files of one kind or another.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_failed: dict[str, str] = {}  # data set -> how its download failed


def find(*patterns: str) -> list[Path]:
    """What matches `patterns` below the data roots, root by root. A root may itself be a pattern's first folder."""
    found = []
    for root, pattern in itertools.product(data_roots(), patterns):
        for folder in (root, root.parent):
            found += sorted(path for path in folder.glob(pattern) if path.is_relative_to(root))
    return found


def missing(what: str, wanted: str) -> str:
    """A line that says which folders, the data roots and those of `wanted` below them, lack it, and what they hold."""
    parts = []
    for root in data_roots():
        for folder in (root / inside for inside in reversed(Path(wanted.split()[0]).parents)):
            names = sorted(path.name for path in folder.glob("*"))
            names = names[:SHOWN] + [f"{len(names) - SHOWN} more"] * (len(names) > SHOWN)
            if names or folder == root:
                parts.append(f"{relative(folder)} (holds {', '.join(names) or 'nothing'})")
    return f"{what} is not on this machine: no {wanted} in {', '.join(parts)}"


def writable(name: str = "") -> Path:
    """Folder `name` below the first data root that can be written to. Raises UramError where there is none."""
    for folder in (root / name for root in data_roots()):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise UramError(f"no data folder can be written to: {', '.join(map(relative, data_roots()))}; set URAM_DATA to one")


@contextlib.contextmanager
def downloading(what: str, wanted: str) -> Iterator[None]:
    """Around a download of what is `missing(what, wanted)`. Raises DataUnavailable, one line, where it fails, where it
    has failed before in this process, and where `URAM_OFFLINE` is set."""
    absent = missing(what, wanted)
    if os.environ.get("URAM_OFFLINE"):
        raise DataUnavailable(f"{absent}; URAM_OFFLINE forbids downloading it.")
    if what in _failed:
        raise DataUnavailable(_failed[what])
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    except (OSError, RuntimeError) as error:
        _failed[what] = f"{absent}; it cannot be downloaded ({' '.join(str(error).split())})."
        raise DataUnavailable(_failed[what]) from error
    finally:
        socket.setdefaulttimeout(before)


def picture(raw: bytes, mode: str) -> Image.Image:
    """A file's bytes as a picture. mode: "L" (grey) or "RGB". Raises ValueError for damage and other than 8 bits."""
    try:
        with Image.open(io.BytesIO(raw)) as image:
            image.load()
    except DAMAGE as error:
        raise ValueError("damaged, or no picture") from error
    if image.mode.startswith(("I", "F")):  # Pillow's own conversion of these cuts at 255
        raise ValueError(f"not 8 bits a channel (Pillow's mode {image.mode})")
    return image.convert(mode)
