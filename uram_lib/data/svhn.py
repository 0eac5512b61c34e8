"""SVHN full numbers (format 1): photographs of house numbers with a box around every digit (§5.3, ledger F5-F7).

The three official archives are read as they are, or unpacked: each number is cut out, turned grey and resized to
64 x 64 once, and kept in one compact file a part, which is read in seconds afterwards.
"""

import contextlib
import functools
import hashlib
import io
import os
import struct
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .. import UramError
from ..paths import data_roots, relative, write_atomically
from ..seeding import stream
from . import DataUnavailable
from .sequences import CLASSES, LENGTHS, LONGEST, PLACES, SIDE, SequenceDataset, Sequences, encode, middle


@dataclass(frozen=True)
class Archive:
    """An official archive: its size in bytes, its SHA-256 and the number of images in it."""

    size: int
    sha256: str
    images: int


URL = "http://ufldl.stanford.edu/housenumbers/{part}.tar.gz"
# The authors state the counts and publish no checksums; sizes and checksums are what Hugging Face's `datasets` recorded
# of these addresses (datasets/svhn/dataset_infos.json of its repository).
ARCHIVES = {
    "train": Archive(404_141_560, "4b17bb33b6cd8f963493168f80143da956f28ec406cc12f8e5745a9f91a51898", 33_402),
    "test": Archive(276_555_967, "57ac9ceb530e4aa85b55d991be8fc49c695b3d71c6f6a88afea86549efde7fb5", 13_068),
    "extra": Archive(1_955_489_752, "e857e27d1e65bd1e7d3959b094061777f6506bbc39889a0df3bba6a729d60f9c", 202_353),
}
VALIDATION = 23_511  # images of train and extra held out, as in the paper: 212,243 are left (F5)
ENLARGE = 1.3  # the crop against the union of the digits' boxes, along each axis (F6)
ANNOTATIONS = "digitStruct.mat"
FIELDS = ("label", "left", "top", "width", "height")
LAYOUT = "1"  # of the compact files
DOWNLOAD_TIMEOUT_S = 10


def find(name: str) -> Path | None:
    """`svhn/<name>` under the first data root that has it, or None."""
    return next((path for root in data_roots() if (path := root / "svhn" / name).exists()), None)


def source(part: str) -> Path | None:
    """Where `part` can be read from: its archive, or the folder it was unpacked to; None where there is neither."""
    return find(f"{part}.tar.gz") or ((found := find(f"{part}/{ANNOTATIONS}")) and found.parent)


def compact(part: str) -> str:
    """The name of a part's compact file."""
    return f"{part}-{SIDE}.safetensors"


def here() -> bool:
    """Whether every part is on this machine, in one form or another."""
    return all(find(compact(part)) or source(part) for part in ARCHIVES)


def resume(url: str, output: str, _: object) -> None:
    """Download `url` to `output` for pooch, going on where an earlier attempt stopped. Raises OSError on a failure."""
    import requests

    kept = Path(output).parent / f"{url.rsplit('/', 1)[1]}.part"
    have = kept.stat().st_size if kept.exists() else 0
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={have}-"}
    with requests.get(url, headers=headers, stream=True, timeout=DOWNLOAD_TIMEOUT_S) as response:
        if response.status_code != requests.codes.range_not_satisfiable:  # that one says that nothing is missing
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                have = 0  # this server starts again from the beginning
            total = have + int(response.headers["Content-Length"])
            bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=kept.stem, disable=None)
            with open(kept, "r+b" if have else "wb") as file, bar:
                file.seek(have)
                for chunk in response.iter_content(1 << 20):
                    file.write(chunk)
                    bar.update(len(chunk))
            if kept.stat().st_size != total:
                raise OSError(f"the connection ended after {kept.stat().st_size:,} of {total:,} bytes")
    os.replace(kept, output)


def download(part: str) -> Path:
    """Fetch an archive into the last data root; an attempt that was stopped goes on where it was.

    Raises DataUnavailable without a network or where `URAM_OFFLINE` is set, UramError where other bytes arrive than
    the known ones.
    """
    if os.environ.get("URAM_OFFLINE"):
        raise DataUnavailable(
            f"SVHN's {part} images are not on this machine and URAM_OFFLINE forbids downloading them."
        )
    import pooch

    pooch.get_logger().setLevel("WARNING")
    folder, url = data_roots()[-1] / "svhn", URL.format(part=part)
    try:
        pooch.retrieve(url, "sha256:" + ARCHIVES[part].sha256, f"{part}.tar.gz", folder, downloader=resume)
    except OSError as error:
        raise DataUnavailable(
            f"SVHN's {part} images are not on this machine and cannot be downloaded ({error})."
        ) from error
    except ValueError as error:  # pooch's word for another checksum
        raise UramError(f"{url} is not the file that is expected, SHA-256 {ARCHIVES[part].sha256}") from error
    return folder / f"{part}.tar.gz"


def check_archive(path: Path, expected: Archive) -> None:
    """Raises UramError where an archive is truncated or altered."""
    if (size := path.stat().st_size) == expected.size:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == expected.sha256:
            return
    raise UramError(
        f"{relative(path)} is damaged: {size:,} bytes, expected {expected.size:,} with SHA-256 {expected.sha256}; "
        "delete it and download SVHN again"
    )


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an archive or of a folder, by bare name, one after the other. Raises UramError for a damaged one."""
    if path.is_dir():
        yield from ((file.name, file.read_bytes()) for file in sorted(path.iterdir()) if file.is_file())
        return
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.isfile():
                    yield Path(member.name).name, archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UramError(f"{relative(path)} is damaged ({error}); delete it and download SVHN again") from error


@contextlib.contextmanager
def annotations(path: Path) -> Iterator[tuple]:
    """The annotations of a part, open while they are read: `entry(file, i)` for every i in range(count).

    Yields (file, count). Raises UramError where they are missing or no MATLAB 7.3 file of the known layout.
    """
    import h5py

    shown = f"{relative(path)}/{ANNOTATIONS}"
    with tempfile.TemporaryDirectory() as folder:
        raw = next((raw for name, raw in members(path) if name == ANNOTATIONS), None)
        if raw is None:
            raise UramError(f"{shown} is missing")
        copy = Path(folder, ANNOTATIONS)
        copy.write_bytes(raw)
        try:
            file = h5py.File(copy, "r")
        except OSError as error:
            raise UramError(f"{shown} is damaged or no MATLAB 7.3 file ({error})") from error
        with file:
            try:
                names, boxes = file["digitStruct/name"], file["digitStruct/bbox"]
                if len(names) != len(boxes):
                    raise UramError(f"{shown} names {len(names)} images and has boxes for {len(boxes)}")
            except (KeyError, TypeError) as error:
                raise UramError(f"{shown} has no digitStruct with names and boxes ({error})") from error
            yield file, len(names)


def name_of(file: object, i: int) -> str:
    """The file name of image `i`, from 0. Raises ValueError where it is none."""
    try:
        return bytes(file[file["digitStruct/name"][i, 0]][:, 0].tolist()).decode("ascii")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"no file name ({error})") from error


def boxes_of(file: object, i: int) -> np.ndarray:
    """The digits of image `i` in the order of the annotation: (n, 5), digit (0 to 9), left, top, width, height.

    MATLAB stores one digit's numbers in place and several digits' as references, one a digit; digit 0 has label 10.
    Raises ValueError where the annotation is malformed.
    """
    try:
        group = file[file["digitStruct/bbox"][i, 0]]
        columns = []
        for name in FIELDS:
            values = group[name]
            is_reference = values.dtype == object
            columns.append([float(file[v][0, 0]) if is_reference else float(v) for v in values[:, 0]])
        boxes = np.array(columns, float).T  # raises where the lengths differ
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"malformed annotation ({error})") from error
    digits, sizes = boxes[:, 0], boxes[:, 3:]
    if len(boxes) == 0 or not np.isfinite(boxes).all() or not (sizes > 0).all():
        raise ValueError("malformed annotation (no digits, or boxes without a size)")
    if not np.isin(digits, range(1, 11)).all():
        raise ValueError(f"malformed annotation (labels {digits.tolist()}, expected 1 to 10)")
    boxes[:, 0] %= 10
    return boxes


# What PIL raises for a file that is no picture, or one that claims to be monstrously large.
PICTURE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class OutsideImage(ValueError):
    """The boxes of a number have no pixel of their image in them."""


def cut_out(image: Image.Image, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number as (64, 64) uint8 and its digits' centres in it, (n, 2), x then y, in pixels.

    The union of the boxes, enlarged by 30 % about its centre and cut at the image's edges, resized without regard to
    its proportions (F6). Raises OutsideImage where it lies outside the image.
    """
    corner, size = boxes[:, 1:3], boxes[:, 3:]
    low, high = corner.min(0), (corner + size).max(0)
    centre, half = (low + high) / 2, (high - low) / 2 * ENLARGE
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half, image.size)
    if (high - low < 1).any():
        raise OutsideImage(f"its boxes lie outside the image of {image.width} x {image.height}")
    window = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, (*low, *high))
    return np.asarray(window), (corner + size / 2 - low) * SIDE / (high - low)


def read_part(path: Path, skip_missing: bool = False) -> tuple[Sequences, list[str]]:
    """Every number with at most five digits of an archive or folder, and what was left out, one line each.

    Raises UramError at the first image that is missing or damaged or has a malformed annotation, unless
    `skip_missing`; and where annotations or archive cannot be read at all.
    """
    problems = []

    def problem(name: str, reason: object) -> None:
        problems.append(f"{relative(path)}/{name}: {reason}")
        if not skip_missing:
            raise UramError(f"{problems[-1]}; --skip-missing leaves such images out")

    wanted = {}  # file name -> place among the annotations, boxes
    with annotations(path) as (file, count):
        for i in tqdm(range(count), desc=f"{path.name}: annotations", disable=None):
            name = f"{ANNOTATIONS}, image {i + 1}"
            try:
                name = name_of(file, i)
                wanted[name] = i, boxes_of(file, i)
            except ValueError as error:
                problem(name, error)
    wanted = {name: found for name, found in wanted.items() if len(found[1]) <= LONGEST}

    images = np.zeros((count, SIDE, SIDE), np.uint8)
    labels = np.zeros((count, PLACES), np.int64)
    centres = np.full((count, LONGEST, 2), np.nan, np.float32)
    good = np.zeros(count, bool)
    bar = tqdm(total=len(wanted), desc=f"{path.name}: images", disable=None)
    with bar:
        for name, raw in members(path):
            if name not in wanted:
                continue
            i, boxes = wanted.pop(name)
            bar.update()
            try:
                with Image.open(io.BytesIO(raw)) as image:
                    images[i], centres[i, : len(boxes)] = cut_out(image, boxes)
            except OutsideImage as error:
                problem(name, error)
                continue
            except PICTURE_ERRORS:
                problem(name, "damaged, or no picture")
                continue
            labels[i] = encode(boxes[:, 0].astype(int).tolist())
            good[i] = True
    for name in wanted:
        problem(name, "listed in the annotations, but missing")
    return Sequences(*(torch.from_numpy(a[good]) for a in (images[:, None], labels, centres))), problems


def prepare(part: str, skip_missing: bool = False) -> Path:
    """The compact file of `part`, made from its archive or folder where it is not there yet; downloads as needed.

    Raises UramError for damaged files as `read_part` does and for another number of images than the official one,
    DataUnavailable as `download` does.
    """
    if (path := find(compact(part))) is not None:
        return path
    expected, path = ARCHIVES[part], source(part) or download(part)
    if path.is_file():
        check_archive(path, expected)
    read, problems = read_part(path, skip_missing)
    found = len(read) + len(problems)
    wanted = sum(LENGTHS[part])
    if found != wanted and not skip_missing:
        raise UramError(f"{relative(path)} lists {found:,} numbers of 1 to 5 digits, expected {wanted:,}")
    tensors = {"images": read.images, "labels": read.labels.to(torch.uint8), "centres": read.centres}
    notes = {"layout": LAYOUT, "skipped": str(wanted - len(read)), "first": problems[0] if problems else ""}
    target = data_roots()[-1] / "svhn" / compact(part)
    # Through memory: on a full disk the library's own writer raises an error of another kind.
    write_atomically(target, lambda to: to.write_bytes(safetensors.torch.save(tensors, notes)))
    return target


def read_compact(path: Path) -> tuple[Sequences, int]:
    """The numbers in a compact file, 64 x 64, and how many are left out. Raises UramError where it cannot be read."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            if notes.get("layout") != LAYOUT:
                raise UramError(f"{relative(path)} has another layout than this version's; delete it to make it anew")
            tensors = {name: file.get_tensor(name) for name in ("images", "labels", "centres")}
            skipped = int(notes["skipped"])
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise UramError(f"{relative(path)} is damaged ({error}); delete it to make it anew") from error
    if skipped:
        total = len(tensors["labels"]) + skipped
        first = notes.get("first", "unknown")
        warnings.warn(f"SVHN: {path.name} leaves out {skipped:,} of {total:,} images; first {first}", stacklevel=2)
    return Sequences(tensors["images"], tensors["labels"].long(), tensors["centres"]), skipped


def held_out(count: int) -> Tensor:
    """Which of `count` training images are for validation, (count,) bool: the paper's share, by a fixed stream."""
    size = round(count * VALIDATION / sum(LENGTHS["train"] + LENGTHS["extra"]))
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count, generator=stream(0, "svhn", "validation"))[:size]] = True
    return chosen


@functools.cache
def load() -> SequenceDataset:
    """SVHN: training and validation from train and extra, 212,243 and 23,511 numbers; 13,068 for test.

    Raises UramError for damaged files, DataUnavailable where they are neither here nor to be downloaded (2.6 GB).
    """
    paths = {part: prepare(part) for part in ARCHIVES}  # the test part too: better now than after hours of training
    read = {part: read_compact(path) for part, path in paths.items()}
    for part, (found, left_out) in read.items():
        if len(found) + left_out != (wanted := sum(LENGTHS[part])):
            raise UramError(
                f"{relative(paths[part])} holds {len(found):,} numbers and says that {left_out:,} are left out, "
                f"expected {wanted:,} together; delete it to make it anew"
            )
    training = [read[part][0] for part in ("train", "extra")]
    everything = Sequences(*(torch.cat([getattr(s, k) for s in training]) for k in ("images", "labels", "centres")))
    chosen = held_out(len(everything))
    test_size, skipped = len(read["test"][0]), sum(left_out for _, left_out in read.values())
    title = "SVHN full numbers" + (f", {skipped:,} images left out" if skipped else "")
    made_of = "".join(archive.sha256 for archive in ARCHIVES.values()) + (f"-{skipped}" if skipped else "")
    return SequenceDataset(
        name="svhn",
        title=title,
        classes=CLASSES,
        train=everything.at(~chosen),
        validation=middle(everything.at(chosen)),
        load_test=lambda: middle(read_compact(paths["test"])[0]),
        test_size=test_size,
        checksum="md5:" + hashlib.md5(made_of.encode(), usedforsecurity=False).hexdigest(),
        skipped=skipped,
    )
