"""SVHN full numbers (format 1): photographs of house numbers with a box around every digit (§5.3, ledger F5-F7).

The three official archives are read as they are, or unpacked: each number is cut out, turned grey and resized to
64 x 64 once, and kept in one compact file per part, which is renewed when its source is newer.
"""

import hashlib
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image
from tqdm import tqdm

from ..common import UramError, relative, write_atomically
from . import LONGEST, files
from .base import Dataset, Split, hold_out, join, md5
from .numbers import LENGTHS, SIDE, draw, encode, middle

URL = "http://ufldl.stanford.edu/housenumbers/{part}.tar.gz"
# SHA-256 of the archives, 0.4, 0.3 and 2.0 GB. The authors publish no checksums; these are what Hugging Face's
# `datasets` recorded of these addresses (datasets/svhn/dataset_infos.json of its repository).
ARCHIVES = {
    "train": "4b17bb33b6cd8f963493168f80143da956f28ec406cc12f8e5745a9f91a51898",
    "test": "57ac9ceb530e4aa85b55d991be8fc49c695b3d71c6f6a88afea86549efde7fb5",
    "extra": "e857e27d1e65bd1e7d3959b094061777f6506bbc39889a0df3bba6a729d60f9c",
}
VALIDATION = 23_511  # images of train and extra held out, as in the paper: 212,243 are left (F5)
ENLARGE = 1.3  # the crop against the union of the digits' boxes, along each axis (F6)
OWN, ANNOTATIONS = "[sS][vV][hH][nN]/", "digitStruct.mat"  # its folder below a data root, and a file of each part
BOX = ("label", "left", "top", "width", "height")  # what is known of a digit
COMPACT = "{}-64.safetensors"  # name of a part's compact file
FOREIGN = (OSError, KeyError, TypeError, ValueError, IndexError, AttributeError)  # of annotations of another kind


def source(part: str) -> Path | None:
    """Where `part` can be read from: its archive, or the folder it was unpacked to; None where there is neither."""
    found = files.find(f"{OWN}{part}.tar.gz", f"{OWN}{part}/{ANNOTATIONS}")
    return next((path.parent if path.name == ANNOTATIONS else path for path in found), None)


def here() -> bool:
    """Whether every part is on this machine, in one form or another."""
    return all(files.find(OWN + COMPACT.format(part)) or source(part) for part in ARCHIVES)


def members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The files of an archive or of a folder, one after the other: the bare name, and what reads it."""
    if path.is_dir():
        yield from ((file.name, file.read_bytes) for file in sorted(path.iterdir()) if file.is_file())
        return
    with tarfile.open(path, "r|gz") as archive:
        yield from ((Path(m.name).name, archive.extractfile(m).read) for m in archive if m.isfile())


def annotations(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """`boxes_of` the images of a part by file name, and a line on each image whose annotation is malformed. Raises
    UramError where the annotations are missing or no MATLAB 7.3 file of the known layout."""
    import h5py

    raw = next((read() for name, read in members(path) if name == ANNOTATIONS), b"")
    try:
        file = h5py.File(h5py.h5f.open_file_image(raw))
        listed = list(zip(file["digitStruct/name"][:, 0], file["digitStruct/bbox"][:, 0], strict=True))
    except FOREIGN as error:
        reason = f"is missing, damaged or no MATLAB 7.3 file with a digitStruct of names and boxes ({error})"
        raise UramError(f"{relative(path)}/{ANNOTATIONS} {reason}") from error
    found, problems = {}, []
    for i, (characters, box) in enumerate(tqdm(listed, desc=f"{path.name}: annotations", disable=None), 1):
        name = f"{ANNOTATIONS}, image {i}"
        try:
            name = bytes(file[characters][:, 0].tolist()).decode("ascii")
            found[name] = boxes_of(file, file[box])
        except FOREIGN as error:
            problems.append(f"{name}: malformed annotation ({error})")
    return found, problems


def boxes_of(file: Mapping, group: Mapping) -> np.ndarray:
    """The digits of an image in the order of its annotation: (n, 5), digit (0 to 9), left, top, width, height. MATLAB
    stores one digit's numbers in place, several digits' as references, and 0 as 10. Raises one of FOREIGN."""
    columns = [[v if isinstance(v, np.number) else file[v][0, 0] for v in group[name][:, 0]] for name in BOX]
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


def read_part(path: Path, skip_missing: bool = False) -> tuple[Split, list[str]]:
    """Every number with at most five digits of an archive or folder, and what was left out, one line each. Raises
    UramError where images are missing, damaged or badly annotated, unless `skip_missing`, and where none is read."""
    annotated, problems = annotations(path)
    wanted = {name: boxes for name, boxes in annotated.items() if len(boxes) <= LONGEST}
    cut: dict = dict.fromkeys(wanted, "listed in the annotations, but missing")  # what is wrong, or `cut_out`'s arrays
    for name, read in tqdm(members(path), f"{path.name}: images", len(wanted), disable=None):
        if name in wanted:
            try:
                cut[name] = cut_out(files.picture(read(), "L"), wanted[name])
            except ValueError as error:
                cut[name] = error
    good = {name: arrays for name, arrays in cut.items() if isinstance(arrays, tuple)}
    problems += [f"{name}: {said}" for name, said in cut.items() if name not in good]
    problems = [f"{relative(path)}/{problem}" for problem in problems]
    if problems and not skip_missing:
        raise UramError(f"{problems[0]}; --skip-missing leaves such images out, {len(problems):,} in all")
    if not good:
        raise UramError(f"{relative(path)} has no number that can be read; first {(problems or ['none listed'])[0]}")
    images, centres = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*good.values(), strict=True))
    labels = torch.tensor([encode(wanted[name][:, 0].astype(int).tolist()) for name in good])
    return Split(images[:, None], labels, centres), problems


def prepare(part: str, skip_missing: bool = False) -> tuple[Split, dict[str, str]]:
    """The numbers of `part` and the notes of its compact file: one that is there, also where the source was deleted to
    save space, unless the source is newer; else a new one. May download. Raises UramError for damaged files and for
    another number of images than the official one, DataUnavailable where nothing is here nor to be downloaded."""
    path, kept = source(part), files.find(OWN + COMPACT.format(part))
    if path is None and not kept:
        with files.downloading("SVHN", f"svhn/{part}.tar.gz or svhn/{part}/{ANNOTATIONS}"):
            path = files.writable("svhn") / f"{part}.tar.gz"
            torch.hub.download_url_to_file(URL.format(part=part), str(path), ARCHIVES[part])
    changed = max(p.stat().st_mtime_ns for p in (path, *path.glob("*"))) if path else 0
    for made in (one for one in kept if one.stat().st_mtime_ns > changed):
        try:
            with safetensors.safe_open(made, "pt") as file:
                images, labels, centres = (file.get_tensor(name) for name in ("images", "labels", "centres"))
                return Split(images, labels.long(), centres), file.metadata()
        except (safetensors.SafetensorError, OSError) as error:
            raise UramError(f"{relative(made)} is damaged ({error}); delete it to make it anew") from error
    if path.is_file():
        with open(path, "rb") as file:
            if (found := hashlib.file_digest(file, "sha256").hexdigest()) != ARCHIVES[part]:
                again = f"expected {ARCHIVES[part]}; delete it and download SVHN again"
                raise UramError(f"{relative(path)} is damaged: its SHA-256 is {found}, {again}")
    read, problems = read_part(path, skip_missing)
    if len(read) != (wanted := sum(LENGTHS[part])) and not skip_missing:
        raise UramError(f"{relative(path)} lists {len(read):,} numbers of 1 to 5 digits, expected {wanted:,}")
    tensors = {"images": read.images, "labels": read.labels.to(torch.uint8), "centres": read.centres}
    notes = {"skipped": str(wanted - len(read)), "first": "".join(problems[:1])}
    # Through memory: on a full disk the library's own writer raises an error of another kind.
    kept = files.writable("svhn") / COMPACT.format(part)
    write_atomically(kept, lambda to: to.write_bytes(safetensors.torch.save(tensors, notes)))
    return read, notes


def load(name: str) -> Dataset:
    """SVHN: 212,243 training and 23,511 validation numbers (train, extra), 13,068 of test. Raises as `data.load`."""
    read = {part: prepare(part) for part in ARCHIVES}  # the test part too: better now than after hours of training
    skipped = sum(int(notes["skipped"]) for _, notes in read.values())
    if skipped:
        first = next(notes["first"] for _, notes in read.values() if notes["first"])
        warnings.warn(f"SVHN: {skipped:,} images are left out; first {first}", stacklevel=2)
    everything = join([read["train"][0], read["extra"][0]])
    share = VALIDATION / sum(LENGTHS["train"] + LENGTHS["extra"])  # of what could be read
    train, validation = hold_out(everything, round(len(everything) * share), name)
    test = middle(read["test"][0])
    checksum = md5("".join([*ARCHIVES.values(), *([f"-{skipped}"] if skipped else [])]).encode())
    return Dataset(name, train, middle(validation), lambda: test, len(test), checksum, draw)
