"""Mistakes and damage through the real command line: one clear line that says what is allowed, a non-zero exit, and
nothing lost. Each case is a process of its own."""

import dataclasses
import os
import shutil
import subprocess
import sys

import pytest
import torch

from uram_lib import UramError, checkpoints, experiments, paths, records, training
from uram_lib.data import mnist as mnist_module
from uram_lib.models import build

SMOKE = ("run", "table1", "--preset", "smoke", "--rows", "ram-6", "--device", "cpu")


@pytest.fixture
def existing(local, write_made):
    """A finished record that bad input must leave alone; returns a function that tells whether it still is."""
    (path,) = write_made(
        local / "runs", {("fc", 3): torch.ones(5, 30, dtype=torch.bool)}, preset="smoke", dataset="digits"
    )
    before = path.read_bytes()
    return lambda: path.read_bytes() == before and list((local / "runs").rglob("*.json")) == [path]


def refused(done, *said: str) -> None:
    """One line on stderr, and it names all of `said`."""
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("uram: error: "), done.stderr
    assert all(word in lines[0] for word in said), (said, lines[0])
    assert "seed-" not in done.stdout  # at most the announcement, never the path of a record


@pytest.mark.parametrize(
    "words, said",
    [
        (("run", "table9"), ("unknown table 'table9'", "table1")),
        (("run", "table1", "--preset", "fast"), ("unknown preset 'fast'", "smoke", "quick", "converged")),
        (("run", "table1", "--rows", "ram-6,ram-66"), ("unknown row 'ram-66'", "fc", "cnn2", "ram-6", "ram-7")),
        (("run", "table1", "--seeds", "1,x"), ("cannot read seeds '1,x'", "0-9", "0,2,5")),
        (("run", "table1", "--device", "tpu"), ("unknown device 'tpu'", "auto, cpu, cuda, mps")),
        (("run", "table1", "--dataset", "mnits"), ("unknown data set 'mnits'", "digits", "mnist")),
        (("run", "table1", "--jobs", "0"), ("jobs must be a whole number from 1 on", "0")),
        (("data", "mnits"), ("unknown data set 'mnits'", "digits", "mnist")),
        (("data", ""), ("unknown data set ''", "digits", "mnist")),
        (("run", "table1", "--rows", ""), ("unknown row ''", "fc", "cnn2", "ram-6", "ram-7")),
    ],
    ids=lambda value: value[-1] if value[0] in ("run", "data") else "",
)
def test_unknown_names_are_refused_with_the_valid_ones(uram, existing, words, said):
    refused(uram(*words), *said)
    assert existing()


@pytest.mark.parametrize("words", [("walk",), ("run", "table1", "--speed", "9")], ids=str)
def test_words_that_are_no_command_show_the_usage(uram, words):
    done = uram(*words)
    assert done.returncode == 2 and done.stderr.startswith("usage: uram") and "Traceback" not in done.stderr
    assert "error:" in done.stderr.splitlines()[-1]


@pytest.fixture
def mnist_copy(tmp_path):
    """MNIST's files in a folder that a test may damage; files of the right names where MNIST is not here."""
    found, folder = mnist_module.find(), tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in mnist_module.MD5:
        if found is not None:
            shutil.copy(found / name, folder / name)
        else:
            (folder / name).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 10]) + bytes(10))
    return folder


TRAIN_IMAGES = "train-images-idx3-ubyte"


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_damaged_mnist_stops_a_run_with_the_files_name(uram, existing, mnist_copy, damage):
    path = mnist_copy / TRAIN_IMAGES
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(raw[:-1] if damage == "truncated" else raw[:-1] + bytes([raw[-1] ^ 255]))
    done = uram("run", "table1", "--preset", "quick", "--rows", "fc", URAM_DATA=str(mnist_copy.parents[1]))
    refused(done, TRAIN_IMAGES, "missing" if damage == "missing" else mnist_module.MD5[TRAIN_IMAGES])
    assert existing()
    assert not damage == "missing" or not path.exists()  # nothing is fetched behind the reader's back


def test_a_results_folder_that_cannot_be_made_is_named(uram, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    refused(uram(*SMOKE, URAM_LOCAL=str(tmp_path / "file" / "results")), "cannot write to", "Not a directory")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_sweep_into_a_folder_that_cannot_be_made_names_folder_and_reason(uram, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = uram(*SMOKE, "--jobs", "2", URAM_LOCAL=str(tmp_path / "file" / "results"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("uram: error: cannot write to") and "/ram-6: " in last and "Not a directory" in last


def state_of(experiment: experiments.Experiment, seed: int, dataset) -> bytes:
    """A true training state of one epoch, at the place where another run expects its own."""
    short = training.train(dataclasses.replace(experiment.config, epochs=1), seed, dataset)
    path = records.state_path(experiment, 0)
    training.save_state(path, experiment.config, seed, {"epoch": 1, "model": short.model.state_dict()})
    return path.read_bytes()


def test_the_training_state_of_another_run_is_refused(uram, existing, few_digits, local):
    experiment = experiments.experiment("table1", "ram-6", "smoke")
    before = state_of(experiment, 1, few_digits)  # seed 1's state under seed 0's name
    refused(uram(*SMOKE), "is the state of another run", "delete it to start afresh")
    assert records.state_path(experiment, 0).read_bytes() == before and existing()


def test_a_damaged_training_state_is_refused(uram, existing, local):
    path = records.state_path(experiments.experiment("table1", "ram-6", "smoke"), 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"garbage")
    refused(uram(*SMOKE), path.name, "cannot be read as a training state", "delete it")
    assert path.read_bytes() == b"garbage" and existing()


@pytest.mark.parametrize("content, said", [('{"schema": 99}', "schema 99"), ("{ cut", "is not a run record")])
def test_a_record_from_elsewhere_in_a_runs_place_stops_it_and_is_kept(uram, local, content, said):
    path = records.record_path(experiments.experiment("table1", "ram-6", "smoke"), 0, published=False)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    refused(uram(*SMOKE), "seed-0.json", said)
    assert path.read_text() == content


def test_a_foreign_record_among_the_published_stops_the_tables_and_leaves_them(uram, copy_of_project):
    results = copy_of_project / "results"
    foreign = results / "runs" / "table1" / "converged" / "mnist" / "fc" / "seed-0.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"schema": 0}')
    (results / "tables").mkdir()
    (results / "tables" / "table1.csv").write_text("as it was\n")
    refused(uram("tables", cwd=copy_of_project), "fc/seed-0.json", "schema 0", "reads schema 1")
    assert (results / "tables" / "table1.csv").read_text() == "as it was\n" and not (results / "claims.csv").exists()


def test_a_full_disk_stops_a_run_in_one_line(local, existing, tmp_path):
    """`ulimit -f` makes the writes really fail, for a reader without root too."""
    command = f"ulimit -f 100; exec {sys.executable} -m uram_lib.cli {' '.join(SMOKE)}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=paths.ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300
    )
    refused(done, "cannot write", "ram-6", "File too large")
    assert existing() and not list((local / "state").glob("*.pt"))
    assert not [path for path in local.rglob(".*") if path.is_file()]  # no half-written temporary file either


@pytest.fixture
def ram_checkpoint(small_config, tmp_path):
    config = small_config()
    path = tmp_path / "weights.safetensors"
    checkpoints.save(path, build(config, (1, 28, 28), 10), config, 0)
    return path, config


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(ram_checkpoint, small_config):
    path, _ = ram_checkpoint
    with pytest.raises(UramError, match="is a checkpoint of another model") as caught:
        checkpoints.load(path, small_config(glimpses=7, sigma=0.3))
    assert "glimpses=3 (wanted 7)" in one_line(caught) and "sigma=0.15 (wanted 0.3)" in one_line(caught)
    assert "patch_size" not in one_line(caught)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64], ids=["empty", "text", "bytes"])
def test_a_garbage_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(UramError, match="weights.safetensors cannot be read as a checkpoint") as caught:
        checkpoints.load(path)
    one_line(caught)
    assert path.read_bytes() == content


def test_a_truncated_checkpoint_is_refused(ram_checkpoint):
    path, config = ram_checkpoint
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UramError, match="cannot be read as a checkpoint") as caught:
        checkpoints.load(path, config)
    one_line(caught)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UramError, match="absent.safetensors cannot be read as a checkpoint"):
        checkpoints.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"config": "{ cut"}, {"config": "[1]"},
                                      {"config": '{"colour": "blue"}'}], ids=str)  # fmt: skip
def test_foreign_safetensors_are_refused(tmp_path, metadata):
    from safetensors.torch import save_file

    path = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(3)}, path, metadata)
    with pytest.raises(UramError, match="foreign.safetensors is not a checkpoint of this project") as caught:
        checkpoints.load(path)
    one_line(caught)


def test_weights_that_do_not_fit_their_own_configuration_are_refused(small_config, tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoints.save(path, build(small_config(patch_size=12), (1, 28, 28), 10), small_config(patch_size=8), 0)
    with pytest.raises(UramError, match="does not fit its own configuration") as caught:
        checkpoints.load(path)
    one_line(caught)


def test_a_checkpoint_comes_back_as_it_was(ram_checkpoint, small_config):
    path, config = ram_checkpoint
    model, found = checkpoints.load(path, config)
    assert found == config and not model.training
    fresh = build(config, (1, 28, 28), 10)
    checkpoints.save(path, fresh, config, 0)
    again, _ = checkpoints.load(path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_a_full_disk_leaves_the_old_checkpoint(ram_checkpoint, full_disk, small_config):
    path, config = ram_checkpoint
    before = path.read_bytes()
    with full_disk(10_000), pytest.raises(UramError, match="cannot write .*weights.safetensors: File too large"):
        checkpoints.save(path, build(config, (1, 28, 28), 10), config, 0)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_data_folder_that_is_none_is_named_and_what_is_asked_for_and_not_here_is_a_failure(uram, tmp_path):
    refused(uram("data", "mnist", URAM_DATA=str(tmp_path / "dta")), "URAM_DATA names", "dta, which is no folder")
    refused(uram("data", "svhn", URAM_DATA=str(tmp_path), URAM_OFFLINE="1"), "URAM_OFFLINE")


def test_output_that_nobody_reads_and_a_terminal_without_our_characters(local, tmp_path):
    read, write = os.pipe()
    os.close(read)  # nobody reads
    closed = subprocess.run([sys.executable, "-m", "uram_lib.cli", "data", "digits"], stdout=write,
                            stderr=subprocess.PIPE, text=True, cwd=paths.ROOT, timeout=60)  # fmt: skip
    os.close(write)
    assert closed.returncode == 1 and closed.stderr == ""
    script = "import sys; from uram_lib.cli import exit_status; sys.exit(exit_status(lambda: print('8 × 8')))"
    plain = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=paths.ROOT, timeout=60,
                           env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})  # fmt: skip
    assert plain.returncode == 0 and plain.stdout.split() == [b"8", b"?", b"8"]


def test_a_relative_results_folder_is_the_same_from_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("URAM_LOCAL", "results/mine")
    monkeypatch.chdir(tmp_path)
    assert paths.local() == paths.ROOT / "results" / "mine"
    monkeypatch.setenv("URAM_LOCAL", "")
    assert paths.local() == paths.RESULTS / "local"
    monkeypatch.setenv("URAM_LOCAL", "~nobody-of-this-name/x")
    with pytest.raises(UramError, match="URAM_LOCAL names ~nobody"):
        paths.local()
