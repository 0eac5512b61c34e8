"""CIFAR-10's files, official and as parquet in the layouts that people have, on small ones made here."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from uram_lib import UramError, data
from uram_lib.data import cifar10

COUNTS = {"train": 60, "test": 20}
USUAL = "cifar10/plain_text/{}-00000-of-00001.parquet"


def picture(colour, kind: str = "PNG", side: int = 32) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(raw, kind)
    return raw.getvalue()


def write(path, numbers=range(60), kind="PNG", columns=("img", "label"), bare=False, pictures=None, labels=None):
    """A parquet file: picture i is all (i, 2 i, 3 i) mod 256, label i mod 10. bare: bytes without the hub's struct."""
    raws = [picture((i % 256, 2 * i % 256, 3 * i % 256), kind) for i in numbers]
    for i, raw in (pictures or {}).items():
        raws[i] = raw
    shown = raws if bare else [{"bytes": raw, "path": f"{i}.png"} for i, raw in enumerate(raws)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(zip(columns, (shown, labels or [i % 10 for i in numbers]), strict=True))), path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("URAM_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10, "COUNTS", COUNTS)
    monkeypatch.setattr(cifar10, "VALIDATION", 10)
    return tmp_path


def write_both(root, layout=USUAL, **how):
    for part, count in COUNTS.items():
        write(root / layout.format(part), range(count), **how)


def check(loaded):
    assert loaded.image_shape == (3, 32, 32) and (loaded.train.centres == 16).all()
    images = torch.cat([loaded.train.images, loaded.validation.images])
    assert sorted(images[:, 0, 0, 0].tolist()) == list(range(60))
    assert torch.equal(images[:, 2], 3 * images[:, 0]) and len(loaded.validation) == 10
    assert torch.equal(loaded.train.labels, loaded.train.images[:, 0, 0, 0].long() % 10)
    assert loaded.load_test().images[:, 0, 0, 0].tolist() == list(range(20)) and loaded.test_size == 20


@pytest.mark.parametrize("columns", [("img", "label"), ("image", "labels")])
@pytest.mark.parametrize(
    "layout",
    [USUAL, "cifar10/data/{}-00000-of-00001.parquet", "cifar10/plain_text/{}/0000.parquet", "cifar-10/{}/0000.parquet",
     "cifar10/{}.parquet", "CIFAR10/{}-00000-of-00001.parquet"],
)  # fmt: skip
def test_parquet_files_are_found_and_their_splits_are_disjoint_and_together_the_file(root, layout, columns):
    write_both(root, layout, columns=columns, bare=layout != USUAL)
    check(cifar10.load("cifar10"))


def test_parquet_files_in_several_pieces_are_put_together_in_order(root, monkeypatch):
    write_both(root)
    (root / USUAL.format("train")).unlink()
    write(root / "cifar10/plain_text/train-00000-of-00002.parquet", range(40))
    write(root / "cifar10/plain_text/train-00001-of-00002.parquet", range(40, 60))
    check(cifar10.load("cifar10"))
    monkeypatch.setenv("URAM_DATA", str(root / "cifar10"))  # the folder itself
    check(cifar10.load("cifar10"))


def test_a_jpeg_copy_of_cifar10_is_never_taken_for_the_original(root):
    write_both(root, kind="JPEG")
    assert cifar10.load("cifar10-jpeg").name == "cifar10-jpeg"
    with pytest.raises(data.DataUnavailable, match="URAM_OFFLINE") as caught:
        cifar10.load("cifar10")
    assert "plain_text (holds test-00000-of-00001.parquet, train-" in str(caught.value)


def test_a_jpeg_copy_that_is_not_here_is_named_with_the_folders_searched(root):
    with pytest.raises(data.DataUnavailable, match=r"A JPEG copy of CIFAR-10 is not on this machine: .* \(holds "):
        cifar10.load("cifar10-jpeg")


@pytest.mark.parametrize(
    "how, said",
    [
        ({"pictures": {7: picture((1, 2, 3))[:40]}}, "parquet: picture 7 cannot be read .damaged, or no picture"),
        ({"pictures": {7: picture((1, 2, 3), side=28)}}, "picture 7 cannot be read .28 x 28 pixels, expected 32 x 32"),
        ({"columns": ("photo", "label")}, "columns photo, label, expected img or image"),
        ({"columns": ("img", "fine_label")}, "columns img, fine_label, .* label or labels"),
        ({"labels": [i % 100 for i in range(60)]}, "labels from 0 to 9"),
        ({"numbers": range(59)}, "train-00000-of-00001.parquet holds 59 images, expected 60"),
        ({"numbers": range(0), "bare": True}, "parquet holds 0 images, expected 60"),
    ],
)
def test_other_files_are_refused_in_one_line(root, how, said):
    write_both(root)
    write(root / USUAL.format("train"), **how)
    with pytest.raises(UramError, match=said) as caught:
        cifar10.load("cifar10")
    assert "\n" not in str(caught.value) and not isinstance(caught.value, data.DataUnavailable)


@pytest.mark.parametrize("part", COUNTS)
def test_files_that_are_not_whole_are_named_before_any_training(root, part):
    write_both(root)
    path = root / USUAL.format(part)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UramError, match=f"{part}-00000-of-00001.parquet is damaged") as caught:
        cifar10.load("cifar10")
    assert "\n" not in str(caught.value)
    write_both(root)
    write(path, range(19))
    with pytest.raises(UramError, match=f"{part}-00000-of-00001.parquet holds 19 images, expected {COUNTS[part]}"):
        cifar10.load("cifar10")


def test_damaged_official_files_are_named_and_not_taken_for_missing_ones(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    with pytest.raises(UramError, match=r"batches-py/data_batch_1 is missing \(expected MD5 c99cafc1") as caught:
        cifar10.load("cifar10")
    assert not isinstance(caught.value, data.DataUnavailable)  # for which the embedded digits would step in
    (folder / "data_batch_1").write_bytes(b"no pictures")
    with pytest.raises(UramError, match="data_batch_1 is damaged"):
        cifar10.load("cifar10")
