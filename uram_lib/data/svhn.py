"""SVHN full numbers (format 1): photographs of house numbers with a box around every digit (§5.3, ledger F5-F7).

The three official archives are read as they are, or unpacked: each number is cut out, turned grey and resized to
64 x 64 once, and kept in one compact file per part, which is renewed when its source changes.
"""

import hashlib
import os
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image
from tqdm import tqdm

from .. import UramError
from ..paths import relative, write_atomically
from . import LONGEST, files
from .base import hold_out, join, md5
from .numbers import LENGTHS, SIDE, SequenceDataset, Sequences, encode, middle

URL = "http://ufldl.stanford.edu/housenumbers/{part}.tar.gz"
# Bytes and SHA-256 of the archives. The authors publish no checksums; these are what Hugging Face's `datasets` recorded
# of these addresses (datasets/svhn/dataset_infos.json of its repository).
ARCHIVES = {
    "train": (404_141_560, "4b17bb33b6cd8f963493168f80143da956f28ec406cc12f8e5745a9f91a51898"),
    "test": (276_555_967, "57ac9ceb530e4aa85b55d991be8fc49c695b3d71c6f6a88afea86549efde7fb5"),
    "extra": (1_955_489_752, "e857e27d1e65bd1e7d3959b094061777f6506bbc39889a0df3bba6a729d60f9c"),
}
VALIDATION = 23_511  # images of train and extra held out, as in the paper: 212,243 are left (F5)
ENLARGE = 1.3  # the crop against the union of the digits' boxes, along each axis (F6)
FOLDERS, ANNOTATIONS = ("svhn", "SVHN"), "digitStruct.mat"
COMPACT, LAYOUT = "{}-64.safetensors", "2"  # name and layout of a part's compact file
FOREIGN = (
    OSError,
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
)  # of annotations of another kind


def find(name: str) -> list[Path]:
    """All files or folders called `name` in the folders for SVHN, in the order of the data roots."""
    return [path for folder in files.folders(*FOLDERS) if (path := folder / name).exists()]


def source(part: str) -> Path | None:
    """Where `part` can be read from: its archive, or the folder it was unpacked to; None where there is neither."""
    return next(iter(find(f"{part}.tar.gz") + [path.parent for path in find(f"{part}/{ANNOTATIONS}")]), None)


def here() -> bool:
    """Whether every part is on this machine, in one form or another."""
    return all(find(COMPACT.format(part)) or source(part) for part in ARCHIVES)


def download(part: str) -> Path:
    """Fetch an archive. Raises DataUnavailable where that fails, also because other bytes come than the known ones."""
    with files.downloading("SVHN", f"{part}.tar.gz or {part}/{ANNOTATIONS}", *FOLDERS):
        target = files.writable("svhn") / f"{part}.tar.gz"
        torch.hub.download_url_to_file(URL.format(part=part), str(target), ARCHIVES[part][1])
        return target


def check_archive(path: Path, size: int, sha256: str) -> None:
    """Raises UramError where an archive is truncated or altered."""
    with open(path, "rb") as file:
        if (found := path.stat().st_size) != size or hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            expected = f"expected {size:,} with SHA-256 {sha256}; delete it and download SVHN again"
            raise UramError(f"{relative(path)} is damaged: {found:,} bytes, {expected}")


def state_of(part: str, path: Path) -> str:
    """What tells whether a source is still the one that a compact file was made from. Archives have one content."""
    if path.is_file():
        return ARCHIVES[part][1]
    return md5(repr(sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in os.scandir(path))).encode())


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an archive or of a folder, by bare name, one after the other. Raises UramError for a damaged one."""
    if path.is_dir():
        yield from ((file.name, file.read_bytes()) for file in sorted(path.iterdir()) if file.is_file())
        return
    try:
        with tarfile.open(path, "r|gz") as archive:
            yield from ((Path(m.name).name, archive.extractfile(m).read()) for m in archive if m.isfile())
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UramError(f"{relative(path)} is damaged ({error}); delete it and download SVHN again") from error


def annotations(path: Path, problem: Callable[[str, str], None]) -> dict[str, np.ndarray]:
    """`boxes_of` the images of a part by file name; `problem(name, reason)` is called where an image's are malformed.
    Raises UramError where the annotations are missing or no MATLAB 7.3 file of the known layout."""
    import h5py

    raw = next((raw for name, raw in members(path) if name == ANNOTATIONS), None)
    if raw is None:
        raise UramError(f"{relative(path)}/{ANNOTATIONS} is missing")
    try:
        file = h5py.File(h5py.h5f.open_file_image(raw))
        listed = list(zip(file["digitStruct/name"][:, 0], file["digitStruct/bbox"][:, 0], strict=True))
    except FOREIGN as error:
        reason = f"is damaged or no MATLAB 7.3 file with a digitStruct of names and boxes ({error})"
        raise UramError(f"{relative(path)}/{ANNOTATIONS} {reason}") from error
    found = {}
    for i, (characters, box) in enumerate(tqdm(listed, desc=f"{path.name}: annotations", disable=None), 1):
        name = f"{ANNOTATIONS}, image {i}"
        try:
            name = bytes(file[characters][:, 0].tolist()).decode("ascii")
            found[name] = boxes_of(file, file[box])
        except FOREIGN as error:
            problem(name, f"malformed annotation ({error})")
    return found


def boxes_of(file: Mapping, group: Mapping) -> np.ndarray:
    """The digits of an image in the order of its annotation: (n, 5), digit (0 to 9), left, top, width, height. MATLAB
    stores one digit's numbers in place and several digits' as references; digit 0 has label 10. Raises ValueError, or
    what a foreign layout leads to."""
    columns = []
    for values in (group[name] for name in ("label", "left", "top", "width", "height")):
        is_reference = values.dtype == object
        columns.append([float(file[v][0, 0]) if is_reference else float(v) for v in values[:, 0]])
    boxes = np.array(columns, float).T  # raises where the lengths differ
    if len(boxes) == 0 or not np.isfinite(boxes).all() or not (boxes[:, 3:] > 0).all():
        raise ValueError("no digits, or boxes without a size")
    if not np.isin(boxes[:, 0], range(1, 11)).all():
        raise ValueError(f"labels {boxes[:, 0].tolist()}, expected 1 to 10")
    boxes[:, 0] %= 10
    return boxes


def cut_out(image: Image.Image, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number in a grey image as (64, 64) uint8 and its digits' centres in it, (5, 2), x then y, in pixels. The
    union of the boxes, enlarged by 30 % about its centre and cut at the image's edges, resized without regard to its
    proportions (F6). Raises ValueError where it lies outside the image."""
    corner, size = boxes[:, 1:3], boxes[:, 3:]
    low, high = corner.min(0), (corner + size).max(0)
    centre, half = (low + high) / 2, (high - low) / 2 * ENLARGE
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half, image.size)
    if (high - low < 1).any():
        raise ValueError(f"its boxes lie outside the image of {image.width} x {image.height}")
    centres = np.full((LONGEST, 2), np.nan, np.float32)
    centres[: len(boxes)] = (corner + size / 2 - low) * SIDE / (high - low)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (*low, *high))), centres


def read_part(path: Path, skip_missing: bool = False) -> tuple[Sequences, list[str]]:
    """Every number with at most five digits of an archive or folder, and what was left out, one line each. Raises
    UramError at the first image that is missing, damaged or badly annotated, unless `skip_missing`; and where
    annotations or archive cannot be read at all, or nothing is left."""
    problems = []

    def problem(name: str, reason: object) -> None:
        problems.append(f"{relative(path)}/{name}: {reason}")
        if not skip_missing:
            raise UramError(f"{problems[-1]}; --skip-missing leaves such images out")

    wanted = {name: boxes for name, boxes in annotations(path, problem).items() if len(boxes) <= LONGEST}
    read: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}  # None: damaged
    pictures = ((name, raw) for name, raw in members(path) if name in wanted)
    for name, raw in tqdm(pictures, f"{path.name}: images", len(wanted), disable=None):
        read[name] = None
        try:
            read[name] = cut_out(files.picture(raw, "L"), wanted[name])
        except ValueError as error:
            problem(name, error)
    for name in wanted:
        if name not in read:
            problem(name, "listed in the annotations, but missing")
    good = [name for name in wanted if read.get(name)]
    if not good:
        raise UramError(f"{relative(path)} has no number that can be read; first {(problems or ['none listed'])[0]}")
    images, centres = (torch.from_numpy(np.stack(values)) for values in zip(*map(read.get, good), strict=True))
    labels = torch.tensor([encode(wanted[name][:, 0].astype(int).tolist()) for name in good])
    return Sequences(images[:, None], labels, centres), problems


def read_compact(part: str, path: Path, state: str | None) -> tuple[Sequences, dict[str, str]] | None:
    """The numbers in a compact file, 64 x 64, and its notes. state: of its source, None where that is gone. Returns
    None where it was made from another source or by another version. Raises UramError where it cannot be read or does
    not hold as many as it should, and where another version's cannot be made anew."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            if state and (notes.get("layout"), notes.get("source")) != (LAYOUT, state):
                return None
            if notes["layout"] != LAYOUT:
                raise ValueError("the layout of another version")
            images, labels, centres = (file.get_tensor(name) for name in ("images", "labels", "centres"))
        if len(labels) + int(notes["skipped"]) != (wanted := sum(LENGTHS[part])):
            raise ValueError(f"{len(labels):,} numbers and {notes['skipped']} left out, expected {wanted:,} together")
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise UramError(f"{relative(path)} is damaged ({error}); delete it to make it anew") from error
    return Sequences(images, labels.long(), centres), notes


def prepare(part: str, skip_missing: bool = False) -> tuple[Sequences, dict[str, str]]:
    """The numbers of `part` and the notes of its compact file: one that is there, also where the source was deleted to
    save space, unless the source has changed; else a new one. May download. Raises UramError for damaged files and for
    another number of images than the official one, DataUnavailable as `download` does."""
    path, kept = source(part), find(COMPACT.format(part))
    if path is None and not kept:
        path = download(part)
    state = path and state_of(part, path)
    for made in kept:
        if found := read_compact(part, made, state):
            return found
    if path.is_file():
        check_archive(path, *ARCHIVES[part])
    read, problems = read_part(path, skip_missing)
    if len(read) != (wanted := sum(LENGTHS[part])) and not skip_missing:
        raise UramError(f"{relative(path)} lists {len(read):,} numbers of 1 to 5 digits, expected {wanted:,}")
    tensors = {"images": read.images, "labels": read.labels.to(torch.uint8), "centres": read.centres}
    notes = {"layout": LAYOUT, "source": state, "skipped": str(wanted - len(read)), "first": "".join(problems[:1])}
    # Through memory: on a full disk the library's own writer raises an error of another kind.
    kept = files.writable("svhn") / COMPACT.format(part)
    write_atomically(kept, lambda to: to.write_bytes(safetensors.torch.save(tensors, notes)))
    return read, notes


def load(name: str) -> SequenceDataset:
    """SVHN: training and validation from train and extra, 212,243 and 23,511 numbers; 13,068 for test. Raises UramError
    for damaged files, DataUnavailable where they are neither here nor to be downloaded (2.6 GB)."""
    read = {part: prepare(part) for part in ARCHIVES}  # the test part too: better now than after hours of training
    skipped = sum(int(notes["skipped"]) for _, notes in read.values())
    if skipped:
        first = next(notes["first"] for _, notes in read.values() if notes["first"])
        warnings.warn(f"SVHN: {skipped:,} images are left out; first {first}", stacklevel=2)
    everything = join([read["train"][0], read["extra"][0]])
    share = VALIDATION / sum(LENGTHS["train"] + LENGTHS["extra"])  # of what could be read
    train, validation = hold_out(everything, round(len(everything) * share), name)
    made_of = "".join(sha256 for _, sha256 in ARCHIVES.values()) + (f"-{skipped}" if skipped else "")
    test = lambda: middle(prepare("test")[0])  # noqa: E731
    sizes = len(read["test"][0]), md5(made_of.encode())
    return SequenceDataset(name, train, middle(validation), test, *sizes)
