"""Finding, fetching and opening the files of data sets, with one clear line where that fails."""

import contextlib
import io
import os
import socket
import struct
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from .. import UramError
from ..paths import data_roots, relative
from . import DataUnavailable

TIMEOUT_S = 10  # of a connection that gives no answer
RETRY_S = 60  # a download that failed is not tried again before
SHOWN = 6  # names of a folder in an error line
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_failed: dict[str, tuple[float, str]] = {}  # data set -> when its download failed, and how


def folders(*names: str) -> list[Path]:
    """Where a data set may lie: `names` below each data root, also where the root is the first folder of a name."""
    found = []
    for root in data_roots():
        found += [root / name for name in names]
        found += [root.parent / name for name in names if Path(name).parts[:1] == (root.name,)]
    return found


def missing(what: str, wanted: str, *names: str) -> str:
    """A line that says which folders, the data roots and `names` below them, lack `wanted` and what lies there."""
    parts = []
    for place in dict.fromkeys([*data_roots(), *folders(*names)]):
        if place.is_dir():
            names = sorted(path.name + "/" * path.is_dir() for path in place.iterdir())
            names = names[:SHOWN] + [f"{len(names) - SHOWN} more"] * (len(names) > SHOWN)
            parts.append(f"{relative(place)} (holds {', '.join(names) or 'nothing'})")
        elif place in data_roots():
            parts.append(f"{relative(place)} (no such folder)")
    return f"{what} is not on this machine: no {wanted} in {', '.join(parts)}"


def writable(name: str = "") -> Path:
    """Folder `name` below the first data root that can be written to. Raises UramError where there is none."""
    for folder in (root / name for root in data_roots()):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    raise UramError(f"no data folder can be written to: {', '.join(map(relative, data_roots()))}; set URAM_DATA to one")


@contextlib.contextmanager
def downloading(*sought: str) -> Iterator[None]:
    """Around a download of what is `missing(*sought)`. Raises DataUnavailable, one line, where it fails or has failed
    in the last minute, and where `URAM_OFFLINE` is set."""
    what, absent = sought[0], missing(*sought)
    when, line = _failed.get(what, (0, ""))
    if os.environ.get("URAM_OFFLINE"):
        raise DataUnavailable(f"{absent}; URAM_OFFLINE forbids downloading it.")
    if line and time.monotonic() - when < RETRY_S:
        raise DataUnavailable(line)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    except (OSError, RuntimeError) as error:
        line = f"{absent}; it cannot be downloaded ({' '.join(str(error).split())})."
        _failed[what] = time.monotonic(), line
        raise DataUnavailable(line) from error
    finally:
        socket.setdefaulttimeout(before)


def picture(raw: bytes, mode: str) -> Image.Image:
    """The picture in a file's bytes. mode: "L" (grey) or "RGB". Raises ValueError where it is damaged, no picture, or
    has other than 8 bits a channel."""
    try:
        with Image.open(io.BytesIO(raw)) as image:
            image.load()
    except DAMAGE as error:
        raise ValueError("damaged, or no picture") from error
    if image.mode.startswith(("I", "F")):  # Pillow's own conversion of these cuts at 255
        raise ValueError(f"not 8 bits a channel (Pillow's mode {image.mode})")
    return image.convert(mode)
