"""Data sets: the registry, splits, ranges, checksums, lineage (T13), MNIST's files and the embedded default."""

import dataclasses
import gzip
import hashlib
import re
import shutil
import struct
from unittest import mock

import numpy as np
import pytest
import sklearn.datasets
import torch

from uram_lib import UramError, cli, data, training
from uram_lib.data import digits as digits_module
from uram_lib.data import files
from uram_lib.data import mnist as mnist_module
from uram_lib.data.base import Split
from uram_lib.evaluation import evaluate


def as_rows(split) -> list[bytes]:
    """Each image with its label as bytes, for counting and comparing."""
    return [image.numpy().tobytes() + bytes([label]) for image, label in zip(split.images, split.labels, strict=True)]


def check_split(split, size: int):
    assert len(split) == len(split.centres) == size and split.images.shape == (size, 1, 28, 28)
    assert split.images.dtype == torch.uint8
    assert split.labels.dtype == torch.int64 and set(split.labels.tolist()) == set(range(10))
    assert (split.centres == 14).all() and split.lengths is None
    floats = split.floats()
    assert floats.dtype == torch.float32 and floats.min() == 0 and floats.max() == 1


# The registry


@pytest.mark.parametrize("ask", [data.load, data.shape_of, data.available, data.kind_of, data.about])
def test_unknown_names_list_the_known_ones(ask):
    with pytest.raises(UramError, match="unknown data set 'cifar'; one of: .*digits.*mnist"):
        ask("cifar")


def test_every_name_has_its_classes_its_embedded_form_and_known_fallbacks():
    assert {"mnist", "svhn", "clutter100-4", "clutter100-10-fixed", "digits-clutter100-10-fixed"} <= set(data.NAMES)
    for name in data.NAMES:
        reads_numbers = name == "svhn" or "composed" in name  # ten digits and the class that ends a number
        assert data.shape_of(name)[1] == 10 + reads_numbers and (data.kind_of(name) == "whole numbers") == reads_numbers
        fallbacks = data.about(name).fallbacks
        assert data.is_embedded(name) == (not fallbacks)
        assert not fallbacks or data.is_embedded(fallbacks[-1])
        assert all(data.shape_of(other) == data.shape_of(name) for other in fallbacks)


@pytest.mark.parametrize("name", ["digits", "digits-colour", "digits-clutter60-4", "digits-composed"])
def test_what_is_known_without_reading_agrees_with_the_data(name):
    found = data.load(name)
    test = found.load_test()
    assert data.shape_of(name) == (tuple(test.images.shape[1:]), int(test.labels.max()) + 1)
    assert (found.image_shape, found.classes) == data.shape_of(name)
    sizes = {"train": 1_297, "validation": 200, "test": 300}
    variant = name.removeprefix("digits").removeprefix("-")
    described = {"name": "digits", "variant": variant, "sizes": sizes, "checksum": found.checksum}
    assert found.describe() == described and re.fullmatch("md5:[0-9a-f]{32}", found.checksum)


# Splits


def test_an_empty_split_is_refused_in_one_line():
    with pytest.raises(UramError, match="at least one example"):
        Split(torch.zeros(0, 1, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.long), torch.zeros(0, 2))


def test_training_batch_is_the_indexed_images_in_zero_to_one(digits):
    index = torch.tensor([5, 0, 5])
    images, labels, _ = digits.training_batch(index, torch.Generator())
    torch.testing.assert_close(images, digits.train.floats()[index])
    assert images.dtype == torch.float32 and torch.equal(labels, digits.train.labels[index])


# T13


def test_T13_digits_splits_are_disjoint_and_together_scikit_learns(digits):
    """Independent truth: the multiset of scikit-learn's labels; its 1,797 digits all differ, so no image is twice."""
    bunch = sklearn.datasets.load_digits()
    splits = (digits.train, digits.validation, digits.load_test())
    for split, size in zip(splits, (1_297, 200, 300), strict=True):
        check_split(split, size)
    labels = torch.cat([split.labels for split in splits])
    assert torch.equal(labels.bincount(), torch.from_numpy(np.bincount(bunch.target)))
    everything = [row for split in splits for row in as_rows(split)]
    assert len(set(everything)) == len(everything) == 1_797
    assert digits.test_size == 300 and torch.equal(digits_module.load("digits").train.images, digits.train.images)


def test_T13_mnist_validation_and_train_are_disjoint_and_together_the_sixty_thousand(mnist):
    """Independent truth: the idx file itself, read here with struct and numpy."""
    check_split(mnist.train, 54_000)
    check_split(mnist.validation, 6_000)
    read = lambda name: mnist_module.find(name).read_bytes()  # noqa: E731
    raw = read("train-images-idx3-ubyte")
    assert struct.unpack(">4i", raw[:16]) == (2051, 60_000, 28, 28)
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(60_000, -1)
    labels = np.frombuffer(read("train-labels-idx1-ubyte"), np.uint8, offset=8)
    file = sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))
    assert sorted(as_rows(mnist.train) + as_rows(mnist.validation)) == file
    # MNIST's training images are all different, so a shared image would show here.
    assert len(set(file)) == 60_000

    test = mnist.load_test()
    check_split(test, 10_000)
    # Counts of the digits 0 to 9 in the test split, as published with the data.
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert not set(file) & set(as_rows(test))


def test_T13_training_and_model_selection_never_read_the_test_split(few_digits, small_config, tmp_path):
    def forbidden():
        raise AssertionError("the test split was read during training")

    guarded = dataclasses.replace(few_digits, load_test=forbidden)
    config = small_config(epochs=5, learning_rate=0.03, schedule="constant")  # too large: the error goes up and down
    runs = (training.train(config, seed, guarded, state_path=tmp_path / f"{seed}.pt") for seed in range(10))
    trained = next(run for run in runs if run.best_epoch < 5)
    # The epoch is chosen by validation error, measured anew here with the weights that were kept.
    errors = trained.curves["val_error"]
    assert len(errors) == 5 and trained.val_error == min(errors)
    assert trained.best_epoch == max(e for e in range(1, 6) if errors[e - 1] == min(errors))
    assert evaluate(trained.model, few_digits.validation).error == pytest.approx(trained.val_error)


def test_T13_digits_in_colour_are_the_digits_splits_painted(digits):
    """No digit is in two splits, and its shape is to be seen: ink is brighter than any ground, in every channel."""
    colour = data.load("digits-colour")
    pairs = ((colour.train, digits.train), (colour.validation, digits.validation))
    for painted, bare in (*pairs, (colour.load_test(), digits.load_test())):
        assert painted.images.shape == (len(bare), 3, 32, 32) and torch.equal(painted.labels, bare.labels)
        assert (painted.centres == 16).all()
        cover = torch.nn.functional.pad(bare.images, [2] * 4)[:, 0]
        for channel in painted.images.unbind(1):
            assert channel[cover == 255].min() >= 170 and channel[cover == 0].max() <= 128
        assert painted.images.float().std((0, 1)).min() > 10  # every pixel's colour differs from image to image
    painted = (colour.train, colour.validation, colour.load_test())
    digest = hashlib.md5(b"".join(split.images.numpy().tobytes() for split in painted)).hexdigest()
    assert colour.checksum == "md5:" + digest == "md5:c28a579d9e8cf62f41c9e95e660c22fc"


# Where files are missing


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A single data root, which is empty; downloads are allowed, but there is no network. Nothing is loaded yet."""
    monkeypatch.setenv("URAM_DATA", str(tmp_path))
    monkeypatch.delenv("URAM_OFFLINE")
    monkeypatch.setattr(files, "data_roots", lambda: [tmp_path])
    monkeypatch.setattr(files, "_failed", {})
    data.load.cache_clear()
    yield tmp_path
    data.load.cache_clear()


def test_a_failed_download_is_one_line_tried_once_and_said_once(nowhere, monkeypatch):
    refuse = mock.Mock(side_effect=RuntimeError("Error downloading train-images:\nTried there:\n<urlopen error>"))
    monkeypatch.setattr("torchvision.datasets.MNIST", refuse)
    with pytest.warns(UserWarning, match="NOT comparable") as caught:
        assert data.available("mnist") == "digits"
    said = str(caught[0].message)
    assert "cannot be downloaded (Error downloading train-images: Tried there" in said
    assert "Running on embedded digits (scikit-learn) instead. EMBEDDED DEFAULT" in said
    monkeypatch.setattr(files, "data_roots", lambda: [nowhere, nowhere / "other"])  # a line names both
    monkeypatch.setattr(files, "_failed", {})
    refuse.reset_mock()
    lines = list(data.overview(["mnist", "clutter100-10", "clutter60-4", "digits", "svhn"]))
    assert [line.split(":")[0] for line in lines] == ["mnist", "clutter100-10", "clutter60-4", "digits", "svhn"]
    assert sum("cannot be downloaded" in line for line in lines) == 1 == refuse.call_count
    assert re.search(r"no MNIST/raw/train-images-idx3-ubyte\[.gz\] in .*other \(holds nothing\); it", lines[0])
    assert lines[1] == "clutter100-10: not here. See mnist."
    assert "1,297 / 200 / 300 train / validation / test, md5:" in lines[3] and "`uram data svhn`" in lines[4]
    monkeypatch.setenv("URAM_OFFLINE", "1")
    (nowhere / "MNIST").mkdir()
    for name in ("MNIST/train.csv", *(f"other-{i}" for i in range(9))):
        (nowhere / name).touch()
    seen = r"holds MNIST, other-0, .*other-4, 4 more\), \S+MNIST \(holds train.csv\).*; URAM_OFFLINE forbids"
    with pytest.raises(data.DataUnavailable, match=rf"^MNIST is not on this machine: no .* \({seen}"):
        data.load("mnist")


def test_where_cifar10_is_not_its_copy_is_taken_and_else_the_digits_in_colour(monkeypatch):
    here = {"digits-colour"}

    def load(name):
        if name not in here:
            raise data.DataUnavailable("none here")

    monkeypatch.setattr(data, "load", load)
    with pytest.warns(UserWarning, match="NOT comparable"):
        assert data.available("cifar10") == "digits-colour"
    here.add("cifar10-jpeg")
    with pytest.warns(UserWarning, match="none here Running on CIFAR-10 .JPEG re-encoded. instead.$"):
        assert data.available("cifar10") == "cifar10-jpeg"
    here.clear()
    with pytest.raises(data.DataUnavailable, match="none here"):
        data.available("cifar10")
    monkeypatch.setattr(data, "load", mock.Mock(side_effect=UramError("damaged")))
    with pytest.raises(UramError, match="^damaged$"):  # which is no reason to take other data
        data.available("cifar10")


def test_one_damaged_data_set_does_not_hide_the_others(nowhere, monkeypatch, capsys):
    monkeypatch.setenv("URAM_OFFLINE", "1")
    (nowhere / "MNIST/raw").mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (nowhere / f"MNIST/raw/{part}-{kind}-ubyte").write_bytes(b"cut")
    assert cli.main(["data"]) == 1
    shown = capsys.readouterr()
    lines = dict(line.split(": ", 1) for line in shown.out.splitlines())
    assert list(lines) == list(data.NAMES) and "is damaged" in lines["mnist"]
    assert "train / validation / test" in lines["digits"] and "not here" in lines["cifar10"]
    assert shown.err.startswith("uram: error: cannot be read: mnist, composed, ")


def test_where_no_data_root_can_be_written_to_they_are_named(tmp_path, monkeypatch):
    (tmp_path / "closed").write_text("a file, so no folder can be made here")
    monkeypatch.setattr(files, "data_roots", lambda: [tmp_path / "closed"])
    with pytest.raises(UramError, match="no data folder can be written to: .*closed; set URAM_DATA"):
        files.writable("svhn")


# MNIST's files


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch):
    """Small idx files, 20 training and 10 test images of random bytes, with their own MD5."""
    folder, random = tmp_path / "data" / "MNIST" / "raw", np.random.default_rng(0)
    folder.mkdir(parents=True)
    sums = {}
    for name in mnist_module.MD5:
        count = 20 if name.startswith("train") else 10
        shape = (count, 28, 28) if "images" in name else (count,)
        raw = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}i", *shape)
        (folder / name).write_bytes(raw + random.integers(0, 10, shape).astype(np.uint8).tobytes())
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(mnist_module, "MD5", sums)
    monkeypatch.setattr(mnist_module, "VALIDATION", 5)
    monkeypatch.setattr(files, "data_roots", lambda: [tmp_path / "data"])
    return folder


def compress(folder):
    for path in folder.iterdir():
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def with_a_dot(folder):
    for path in folder.iterdir():
        path.rename(folder / path.name.replace("-idx", ".idx"))


@pytest.mark.parametrize("change", [lambda folder: None, compress, with_a_dot], ids=["plain", "gz", "dot"])
@pytest.mark.parametrize(
    "place, root", [("MNIST/raw", ""), ("MNIST", ""), ("raw", ""), ("", ""), ("MNIST/raw", "MNIST"), ("raw", "raw")]
)
def test_mnist_is_found_in_the_layouts_that_people_have(fake_mnist, tmp_path, monkeypatch, place, root, change):
    expected = mnist_module.load("mnist")
    change(fake_mnist)
    folder = tmp_path / "given" / place
    folder.mkdir(parents=True, exist_ok=True)
    for path in fake_mnist.iterdir():
        shutil.copy(path, folder)
    monkeypatch.setattr(files, "data_roots", lambda: [tmp_path / "given" / root, tmp_path / "data"])
    assert {mnist_module.find(name).parent for name in mnist_module.MD5} == {folder}
    found = mnist_module.load("mnist")
    assert (len(found.train), len(found.validation), found.test_size) == (15, 5, 10)
    assert torch.equal(found.train.images, expected.train.images) and found.checksum == expected.checksum
    assert torch.equal(found.load_test().labels, expected.load_test().labels)


@pytest.mark.parametrize("change", [lambda folder: None, compress], ids=["plain", "gz"])
@pytest.mark.parametrize("damage", [lambda raw: raw[:-5], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: b""])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_mnist_files_are_named_with_the_expected_checksum_and_missing_ones_too(
    fake_mnist, change, damage, name
):
    change(fake_mnist)
    path = mnist_module.find(name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UramError, match="is damaged") as caught:
        mnist_module.load("mnist")
    assert name in str(caught.value) and mnist_module.MD5[name] in str(caught.value)
    assert not isinstance(caught.value, data.DataUnavailable)
    path.unlink()
    with pytest.raises(UramError, match=rf"A part of MNIST is not on this machine: no {name}\[.gz\]"):
        mnist_module.load("mnist")
