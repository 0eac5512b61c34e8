"""Data sets: splits, ranges, checksums, lineage (T13) and the embedded default."""

import dataclasses
import json
import shutil
import struct

import numpy as np
import pytest
import sklearn.datasets
import torch

from uram_lib import UramError, data, experiments, records, sweep, training
from uram_lib.data import mnist as mnist_module
from uram_lib.evaluation import evaluate


def as_rows(split) -> list[bytes]:
    """Each image with its label as bytes, for counting and comparing."""
    return [image.numpy().tobytes() + bytes([label]) for image, label in zip(split.images, split.labels, strict=True)]


def check_split(split, size: int):
    assert len(split) == len(split.images) == len(split.centres) == size
    assert split.images.dtype == torch.uint8 and split.images.shape[1:] == (1, 28, 28)
    assert split.labels.dtype == torch.int64 and set(split.labels.tolist()) == set(range(10))
    assert (split.centres == 14).all()
    floats = split.floats()
    assert floats.dtype == torch.float32 and floats.min() == 0 and floats.max() == 1


def test_T13_digits_splits_are_disjoint_and_together_scikit_learns(digits):
    """Independent truth: the multiset of scikit-learn's labels; images are compared by the digits they came from."""
    bunch = sklearn.datasets.load_digits()
    splits = (digits.train, digits.validation, digits.load_test())
    for split, size in zip(splits, (1_297, 200, 300), strict=True):
        check_split(split, size)
    labels = torch.cat([split.labels for split in splits])
    assert torch.equal(labels.bincount(), torch.from_numpy(np.bincount(bunch.target)))
    # scikit-learn's 1,797 digits are all different, so disjoint splits show no image twice.
    assert len({image.tobytes() for image in bunch.images}) == 1_797
    everything = [row for split in splits for row in as_rows(split)]
    assert len(set(everything)) == len(everything) == 1_797
    assert digits.test_size == len(digits.load_test())


def test_digits_are_the_same_every_time(digits):
    from uram_lib.data import digits as module

    again = module.load.__wrapped__()
    assert torch.equal(again.train.images, digits.train.images) and again.checksum == digits.checksum


def test_T13_mnist_validation_and_train_are_disjoint_and_together_the_sixty_thousand(mnist):
    """Independent truth: the idx file itself, read here with struct and numpy."""
    check_split(mnist.train, 54_000)
    check_split(mnist.validation, 6_000)
    folder = mnist_module.find()
    raw = (folder / "train-images-idx3-ubyte").read_bytes()
    assert struct.unpack(">4i", raw[:16]) == (2051, 60_000, 28, 28)
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(60_000, -1)
    labels = np.frombuffer((folder / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    file = sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))
    assert sorted(as_rows(mnist.train) + as_rows(mnist.validation)) == file
    # MNIST's training images are all different, so a shared image would show here.
    assert len(set(file)) == 60_000


def test_mnist_test_split_is_the_published_one_and_shares_no_image_with_training(mnist):
    test = mnist.load_test()
    check_split(test, 10_000)
    # Counts of the digits 0 to 9 in the test split, as published with the data.
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    known = set(as_rows(mnist.train)) | set(as_rows(mnist.validation))
    assert not known & set(as_rows(test))


@pytest.fixture
def counted(digits, monkeypatch):
    """The real digits behind a counter of how often the test split is read."""
    reads = []
    load_test = lambda: reads.append(1) or digits.load_test()  # noqa: E731
    monkeypatch.setattr(data, "load", lambda name: dataclasses.replace(digits, load_test=load_test))
    return reads


def test_T13_training_and_model_selection_never_read_the_test_split(few_digits, small_config, tmp_path):
    def forbidden():
        raise AssertionError("the test split was read during training")

    guarded = dataclasses.replace(few_digits, load_test=forbidden)
    with pytest.raises(AssertionError):
        guarded.load_test()  # the guard works
    trained = training.train(small_config(), 0, guarded, state_path=tmp_path / "state.pt")
    # The epoch is chosen by validation error, measured anew here with the weights that were kept.
    errors = trained.curves["val_error"]
    assert len(errors) == 3 and trained.val_error == min(errors)
    assert trained.best_epoch == max(e for e in (1, 2, 3) if errors[e - 1] == min(errors))
    assert evaluate(trained.model, few_digits.validation).error == pytest.approx(trained.val_error)


def test_T13_one_run_reads_the_test_split_exactly_once(counted, local):
    experiment = experiments.experiment("table1", "ram-6", "smoke")
    short = dataclasses.replace(experiment, config=dataclasses.replace(experiment.config, epochs=1))
    job = sweep.Job(short, 0, publish=False)
    sweep.run_group((job,), "cpu")
    assert len(counted) == 1
    sweep.run_group((job,), "cpu")  # finished: not even once more
    assert len(counted) == 1


def test_a_run_that_was_gone_on_with_tells_of_every_session(local):
    whole = experiments.experiment("table1", "fc", "smoke")
    job = sweep.Job(dataclasses.replace(whole, config=dataclasses.replace(whole.config, epochs=2)), 0, publish=False)
    first = sweep.note_session(job, torch.device("cpu"))
    assert len(first) == 1 == len(sweep.note_session(job, torch.device("cpu")))  # without a state it starts anew

    class Stop(Exception):
        pass

    def stop(epoch, row):
        raise Stop

    with pytest.raises(Stop):
        training.train(job.experiment.config, 0, data.load("digits"), state_path=job.state, on_epoch=stop)
    dirty = [first[0] | {"git_commit": "a" * 40, "dirty": True, "started": "2026-01-01T00:00:00+00:00"}]
    job.sessions.write_text(json.dumps(dirty))
    sweep.run_group((job,), "cpu")
    made = records.read_record(job.record)["provenance"]
    assert made["dirty"] and made["started"] == "2026-01-01T00:00:00+00:00" and made["git_commit"] != "a" * 40
    assert [one["git_commit"] for one in made["sessions"]] == ["a" * 40, made["git_commit"]]
    assert not job.sessions.exists()


def test_unknown_names_list_the_known_ones():
    for ask in (data.load, data.shape_of, data.available):
        with pytest.raises(UramError, match="unknown data set 'cifar'; one of: .*digits.*mnist"):
            ask("cifar")


def test_shapes_without_reading_agree_with_the_data(digits):
    assert data.shape_of("digits") == (digits.image_shape, digits.classes)
    for name in data.loaders():
        reads_numbers = name == "svhn" or "composed" in name  # ten digits and the class that ends a number
        assert data.shape_of(name)[1] == 10 + reads_numbers


def test_shapes_without_reading_agree_with_mnist(mnist):
    assert data.shape_of("mnist") == (mnist.image_shape, mnist.classes)


def test_T13_digits_in_colour_are_the_digits_splits_painted(digits):
    """No digit is in two splits, and its shape is to be seen: ink is brighter than any ground, in every channel."""
    colour = data.load("digits-colour")
    pairs = [(colour.train, digits.train), (colour.validation, digits.validation),
             (colour.load_test(), digits.load_test())]  # fmt: skip
    for painted, bare in pairs:
        assert painted.images.shape == (len(bare), 3, 32, 32) and torch.equal(painted.labels, bare.labels)
        assert (painted.centres == 16).all()
        cover = torch.nn.functional.pad(bare.images, [2] * 4)[:, 0]
        for channel in painted.images.unbind(1):
            assert channel[cover == 255].min() >= 170 and channel[cover == 0].max() <= 128
        assert painted.images.float().std((0, 1)).min() > 10  # every pixel's colour differs from image to image
    assert data.shape_of("digits-colour") == (colour.image_shape, colour.classes) == data.shape_of("cifar10-jpeg")
    assert data.is_embedded("digits-colour") and colour.describe()["variant"] == "colour"


def test_where_cifar10_is_not_its_copy_is_taken_and_else_the_digits_in_colour(monkeypatch):
    def missing():
        raise data.DataUnavailable("none here")

    known = data.loaders() | {"cifar10": missing}
    copy = dataclasses.replace(data.load("digits-colour"), title="a copy")
    monkeypatch.setattr(data, "loaders", lambda: known | {"cifar10-jpeg": lambda: copy})
    with pytest.warns(UserWarning, match="none here Running on a copy instead"):
        assert data.available("cifar10") == "cifar10-jpeg"
    monkeypatch.setattr(data, "loaders", lambda: known | {"cifar10-jpeg": missing})
    with pytest.warns(UserWarning, match="NOT comparable"):
        assert data.available("cifar10") == "digits-colour"


def test_training_batch_is_the_indexed_images_in_zero_to_one(digits):
    index = torch.tensor([5, 0, 5])
    images, labels, _ = digits.training_batch(index, torch.Generator())
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, digits.train.floats()[index])
    assert torch.equal(labels, digits.train.labels[index])


def test_description_names_sizes_and_checksum(digits):
    assert digits.describe() == {
        "name": "digits", "variant": "", "sizes": {"train": 1_297, "validation": 200, "test": 300},
        "checksum": digits.checksum,
    }  # fmt: skip
    assert digits.checksum.startswith("md5:") and len(digits.checksum) == 36


BANNER_WORDS = "EMBEDDED DEFAULT", "NOT comparable with the paper"


def test_offline_without_data_falls_back_to_the_digits_and_says_so(uram, copy_of_project, local, tmp_path):
    """Through the real command line, in a copy of the library whose data folder is empty."""
    asked = ("run", "table1", "--preset", "quick", "--rows", "fc", "--seeds", "0", "--device", "cpu")
    (nothing := tmp_path / "nothing").mkdir()
    done = uram(*asked, cwd=copy_of_project, URAM_DATA=str(nothing))
    assert done.returncode == 0, done.stderr
    assert "URAM_OFFLINE" in done.stderr and all(words in done.stderr for words in BANNER_WORDS)
    records = list((local / "runs").glob("**/seed-*.json"))
    assert [path.parent.parent.name for path in records] == ["digits"]


def test_offline_without_data_nothing_is_published(uram, copy_of_project, tmp_path):
    """Numbers of the embedded digits must never stand in for MNIST's."""
    asked = ("run", "table1", "--preset", "quick", "--rows", "fc", "--publish")
    (nothing := tmp_path / "nothing").mkdir()
    done = uram(*asked, cwd=copy_of_project, URAM_DATA=str(nothing))
    assert done.returncode == 1 and "publishing needs mnist" in done.stderr
    assert not (copy_of_project / "results").exists()


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch):
    """A folder with the right names; the real files where MNIST is here, else idx files of random bytes."""
    found, folder = mnist_module.find(), tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in mnist_module.MD5:
        if found is not None:
            shutil.copy(found / name, folder / name)
        else:
            (folder / name).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 10]) + bytes(10))
    monkeypatch.setenv("URAM_DATA", str(tmp_path / "data"))
    return folder


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def alter_one_bit(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("damage", [truncate, alter_one_bit])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_mnist_files_are_named_with_the_expected_checksum(fake_mnist, damage, name):
    damage(fake_mnist / name)
    with pytest.raises(UramError) as caught:
        mnist_module.read(fake_mnist, name)
    assert name in str(caught.value) and mnist_module.MD5[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_mnist_file_is_named(fake_mnist):
    (fake_mnist / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UramError, match="train-labels-idx1-ubyte is missing"):
        mnist_module.read(fake_mnist, "train-labels-idx1-ubyte")


def test_URAM_DATA_comes_first(fake_mnist):
    assert mnist_module.find() == fake_mnist
