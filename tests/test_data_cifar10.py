"""CIFAR-10's files, official and as parquet in the layouts that people have, on small ones made here."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from uram_lib import UramError, data
from uram_lib.data import cifar10

COUNTS = {"train": 60, "test": 20}
USUAL = "cifar10/plain_text/{}-00000-of-00001.parquet"


def picture(colour, kind: str = "PNG", side: int = 32) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(raw, kind)
    return raw.getvalue()


def write(path, numbers=range(60), kind="PNG", columns=("img", "label"), pictures=None, labels=None):
    """A parquet file: picture i is all (i, 2 i, 3 i) mod 256, label i mod 10; `pictures` and `labels` replace some."""
    raws = {i: picture((i % 256, 2 * i % 256, 3 * i % 256), kind) for i in numbers} | (pictures or {})
    shown = [{"bytes": raw, "path": f"{i}.png"} for i, raw in raws.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(zip(columns, (shown, labels or [i % 10 for i in numbers]), strict=True))), path)


def write_both(root, layout=USUAL, **how):
    for part, count in COUNTS.items():
        write(root / layout.format(part), range(count), **how)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with a small CIFAR-10 in the layout of the Hugging Face hub."""
    monkeypatch.setenv("URAM_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10, "COUNTS", COUNTS)
    monkeypatch.setattr(cifar10, "VALIDATION", 10)
    return tmp_path


def check(loaded):
    assert loaded.image_shape == (3, 32, 32) and (loaded.train.centres == 16).all()
    images = torch.cat([loaded.train.images, loaded.validation.images])
    assert sorted(images[:, 0, 0, 0].tolist()) == list(range(60))
    assert torch.equal(images[:, 2], 3 * images[:, 0]) and len(loaded.validation) == 10
    assert torch.equal(loaded.train.labels, loaded.train.images[:, 0, 0, 0].long() % 10)
    assert loaded.load_test().images[:, 0, 0, 0].tolist() == list(range(20)) and loaded.test_size == 20


@pytest.mark.parametrize("layout", [
    USUAL, "cifar10/data/{}-00000-of-00001.parquet", "cifar10/plain_text/{}/0000.parquet", "cifar-10/{}/0000.parquet",
    "cifar10/{}.parquet", "CIFAR10/{}-00000-of-00001.parquet",
])  # fmt: skip
def test_parquet_files_are_found_and_their_splits_are_disjoint_and_together_the_file(root, layout):
    write_both(root, layout, columns=("img" if layout == USUAL else "image", "label"))
    check(cifar10.load("cifar10"))


def test_parquet_files_in_several_pieces_are_put_together_in_order(root, monkeypatch):
    write(root / USUAL.format("test"), range(20))
    write(root / "cifar10/plain_text/train-00000-of-00002.parquet", range(40))
    write(root / "cifar10/plain_text/train-00001-of-00002.parquet", range(40, 60))
    write(root / "cifar10/data/train-00000-of-00001.parquet")  # a second copy is left alone
    check(cifar10.load("cifar10"))
    monkeypatch.setenv("URAM_DATA", str(root / "cifar10"))  # the folder itself
    check(cifar10.load("cifar10"))


def test_a_jpeg_copy_of_cifar10_is_never_taken_for_the_original(root):
    with pytest.raises(data.DataUnavailable, match="A JPEG copy of CIFAR-10 is not on this machine: no cifar10/ with"):
        cifar10.load("cifar10-jpeg")
    write_both(root, kind="JPEG")
    assert cifar10.load("cifar10-jpeg").name == "cifar10-jpeg"
    with pytest.raises(data.DataUnavailable, match="no cifar-10-batches-py/ or cifar10/ with .*URAM_OFFLINE"):
        cifar10.load("cifar10")
    write_both(root, "cifar10/{}.parquet")  # both copies
    assert [cifar10.load(name).name for name in ("cifar10", "cifar10-jpeg")] == ["cifar10", "cifar10-jpeg"]


@pytest.mark.parametrize("part", COUNTS)
@pytest.mark.parametrize("how, said", [
    ({"pictures": {7: picture((1, 2, 3))[:40]}}, "damaged, or no picture"),
    ({"pictures": {7: picture((1, 2, 3), side=28)}}, "a picture of .28, 28, 3., expected .32, 32, 3."),
    ({"pictures": {7: None}}, "is damaged or no CIFAR-10 parquet file"),
    ({"columns": ("photo", "label")}, "image.* does not exist"),
    ({"columns": ("img", "fine_label")}, "label.* does not exist"),
    ({"labels": [i + 5 for i in range(10)]}, "labels other than 0 to 9"),
    ({"numbers": range(9)}, "holds 9 images, expected [26]0"),
    ({"numbers": range(0)}, "holds 0 images, expected [26]0"),
    (None, "is damaged or no CIFAR-10 parquet file"),
])  # fmt: skip
def test_other_files_are_named_in_one_line_before_any_training(root, part, how, said):
    write_both(root)
    path = root / USUAL.format(part)
    if how is None:
        path.write_bytes(path.read_bytes()[:-30])
    else:
        write(path, **{"numbers": range(10)} | how)
    with pytest.raises(UramError, match=f"{part}-00000-of-00001.parquet .*{said}") as caught:
        cifar10.load("cifar10")
    assert not isinstance(caught.value, data.DataUnavailable)


def test_damaged_official_files_are_named_and_not_taken_for_missing_ones(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"no pictures")
    with pytest.raises(UramError, match="cifar-10-batches-py is damaged or not whole; delete it") as caught:
        cifar10.load("cifar10")
    assert not isinstance(caught.value, data.DataUnavailable)  # for which the embedded digits would step in


def test_official_files_give_the_same_splits(root, monkeypatch):
    """Small ones as the authors packed them: a picture's red, green and blue, row by row."""
    (root / "cifar-10-batches-py").mkdir()
    lists = {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]}
    for part, names in lists.items():
        for k, name in enumerate(names):
            numbers = range(30 * k, min(30 * k + 30, COUNTS[part]))
            pictures = np.repeat(np.array([[i, 2 * i, 3 * i] for i in numbers], np.uint8), 1024, 1)
            packed = pickle.dumps({"data": pictures, "labels": [i % 10 for i in numbers]})
            (root / "cifar-10-batches-py" / name).write_bytes(packed)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name in lists["train"]])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, None] for name in lists["test"]])
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    check(cifar10.load("cifar10"))
