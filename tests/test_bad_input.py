"""Mistakes and damage: one clear line that says what is wrong and what is allowed, a non-zero exit, and nothing lost.

Arguments are checked in this process, where that costs nothing; a few real commands show that the line is all there is.
"""

import os
import re
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from conftest import python

from uram_lib import UramError, checkpoints, cli, common
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
    lines = [line for line in done.stderr.strip().splitlines() if not re.match(r"1 run |note: |\d+ %", line)]
    assert len(lines) == 1 and lines[0].startswith("uram: error: "), done.stderr
    assert all(word in lines[0] for word in said), (said, lines[0])


RUN = "run table1 --preset smoke"
MANY = (
    "sigma last_sigma location_scale beta2 each_step entropy_threshold learning_rate clip_norm width adam_epsilon"
).split()
# A command's words -> what its one line must name.
WRONG = {
    "run table9": ("unknown table 'table9'", "table1"),
    "run table1 --preset fast": ("unknown preset 'fast'", "smoke", "quick", "strong"),
    "run table1 --preset paper": ("unknown preset 'paper' of table1", "strong"),
    f"{RUN} --rows ram-6,ram-66": ("unknown row 'ram-66'", "fc", "cnn2", "ram-7"),
    f"{RUN} --rows ours-6": ("unknown row 'ours-6' of table1", "entropy-6"),
    f"{RUN} --rows ram-6@nowhere": ("unknown reading 'ram-6@nowhere'", "mnist-literal-context"),
    "run table2 --rows ram-8@region-centre": ("unknown reading", "ours-6@region-centre"),
    f"{RUN} --seeds 1,x": ("cannot read seeds '1,x'", "0,2,5", "4-9", "at least one", "at most 1000"),
    f"{RUN} --device tpu": ("unknown device 'tpu'", "auto, cpu, cuda, mps"),
    f"{RUN} --dataset mnits": ("unknown data set 'mnits'", "digits", "mnist"),
    f"{RUN} --dataset digits-composed": ("table1 reads grey digits, and digits-composed holds whole numbers",),
    "run table3 --preset smoke --dataset digits": ("table3 reads whole numbers, and digits holds grey digits",),
    "run table4 --preset smoke --dataset digits": ("table4 reads colour pictures, and digits holds grey digits",),
    f"{RUN} --dataset digits-colour": ("table1 reads grey digits, and digits-colour holds colour pictures",),
    f"{RUN} --jobs 0": ("jobs must be a whole number from 1 to 1000", "0"),
    f"{RUN} --scheduler localhost": ("scheduler must be an address such as tcp://host:8786",),
    f"{RUN} --set sigma": ("--set takes NAME=VALUE", "sigma=0.3"),
    f"{RUN} --set sigma=0.1 --set sigma=0.2": ("sigma twice, 0.1 and 0.2",),
    f"{RUN} --set sgima=0.3": ("unknown setting 'sgima'", "sigma"),
    f"{RUN} --rows ram-6 --set sigma=wide": ("sigma must be a number, got 'wide'",),
    f"{RUN} --rows ram-6 --set glimpses=2.5": ("glimpses must be a whole number",),
    f"{RUN} --rows ram-6 --set core=gru": ("unknown core 'gru'", "relu, lstm"),
    f"{RUN} --rows ram-6 --set standardise=perhaps": ("standardise must be true or false",),
    f"{RUN} --rows ram-6 --set sigma=0.3 --publish": ("never published",),
    f"{RUN} --rows ram-6 --set model=vgg16": ("model=vgg16 does not go with digits", "takes images of 32x32"),
    "run table3 --preset smoke --rows dram --set patch_size=6": ("model=dram", "need sides of at least 9, got 6"),
    f"{RUN} --rows ,": ("rows are names with commas between them, got ','",),
    f"{RUN} --rows fc@": ("unknown reading 'fc@'",),
    "run table3 --preset smoke --rows readings": ("table3 has no readings at smoke settings", "dram"),
    "run table2 --preset quick --rows ram-6@8-pieces --dataset digits": ("a data set of its own", "--dataset"),
    "run table2 --preset smoke --rows ours-6 --set start=true-centre": ("start has no effect on model=unified",),
    f"{RUN} --rows fc --set model=cnn10": ("table1 reads grey digits, which model=cnn10 does not",),
    "run table3 --preset smoke --rows dram --set attack=fast": ("attack is for models that name one class",),
    "run table4 --preset smoke --rows vgg16-pgd --set model=fc": ("table4 attacks vgg16", "model=fc is none"),
    "run table4 --preset smoke --rows ours-vgg16-pgd --set patch_size=3": ("patches of at least 4, got 3",),
    f"{RUN} --rows ram-6 --set last_sigma=1e-9": ("last_sigma must be 0 or from 1e-06 to 10",),
    f"{RUN} --rows fc --seeds 9999999999": ("cannot read seeds '9999999999'",),
    f"{RUN} --rows fc {' '.join(f'--set {name}=0.123456789' for name in MANY)}": ("too long for a file",),
    "data mnits": ("unknown data set 'mnits'", "digits", "mnist"),
    "data digits --skip-missing": ("--skip-missing is for svhn alone",),
}


@pytest.mark.parametrize("words, said", WRONG.items(), ids=WRONG)
def test_a_wrong_argument_is_one_line_with_what_is_allowed(existing, capsys, words, said):
    assert cli.main(words.split()) == 1
    shown = capsys.readouterr()
    (line,) = shown.err.strip().splitlines()
    assert line.startswith("uram: error: ") and all(word in line for word in said), line
    assert shown.out == "" and existing()


def test_help_and_mistakes_answer_without_loading_pytorch():
    """Those of `uram read` are in test_pictures."""
    commands = (["run", "table9"], ["run", "table2", "--rows", "ours-7"], ["data", "mnits"], ["--help"])
    script = "import sys; from uram_lib import cli, experiments; assert 'numpy' not in sys.modules\n"
    script += "from uram_lib import data; data.shape_of('mnist'); data.kind_of('svhn')\n"
    script += f"try: [cli.main(words) for words in {commands}]\n"
    script += "finally: assert 'torch' not in sys.modules"
    done = python("-c", script)
    assert done.returncode == 0 and "usage: uram" in done.stdout, done.stderr
    assert [line[:20] for line in done.stderr.splitlines()] == ["uram: error: unknown"] * 3


def test_words_that_are_no_command_get_one_line(capsys):
    for words in (
        ["walk"],
        ["run", "table1", "--speed", "9"],
        ["run", "table1", "--jobs", "two"],
        ["run", "table1", "--seed", "5"],
        [],
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "error:" in line and "--help" in line


def test_a_results_folder_that_cannot_be_made_is_named(uram, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    refused(uram(*SMOKE, URAM_LOCAL=str(tmp_path / "file" / "results")), "cannot write to", "Not a directory")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_full_disk_stops_a_run_in_one_line(local, existing, tmp_path):
    """`ulimit -f` makes the writes really fail, for a reader without root too."""
    command = f"ulimit -f 100; exec {sys.executable} -m uram_lib.cli {' '.join(SMOKE)}"
    done = subprocess.run(["bash", "-c", command], cwd=common.ROOT, capture_output=True, text=True, timeout=300)
    refused(done, "cannot write", "ram-6", "File too large")
    assert existing() and not list((local / "state").glob("*.pt"))
    assert not [path for path in local.rglob(".*") if path.is_file()]  # no half-written temporary file either


def test_a_checkpoint_comes_back_also_after_a_full_disk_and_that_of_another_model_is_refused(
    tmp_path, full_disk, small_config
):
    model, path = build(small_config(), (1, 28, 28), 10), tmp_path / "weights.safetensors"
    checkpoints.save(path, model, small_config(), 0)
    with full_disk(10_000), pytest.raises(UramError, match="cannot write .*weights.safetensors: File too large"):
        checkpoints.save(path, model, small_config(), 1)
    assert list(tmp_path.iterdir()) == [path]
    loaded, found = checkpoints.load(path, small_config())
    assert found == small_config() and not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(UramError, match="is a checkpoint of another model") as caught:
        checkpoints.load(path, small_config(glimpses=7, sigma=0.3))
    assert str(caught.value).endswith("glimpses=3 (wanted 7), sigma=0.15 (wanted 0.3)")


def foreign(metadata) -> bytes:
    return safetensors.torch.save({"layer.weight": torch.zeros(3)}, metadata)


@pytest.mark.parametrize("content, said", [
    (None, "cannot be read as a checkpoint"), (b"garbage", "cannot be read as a checkpoint"),
    (foreign(None)[:-1], "cannot be read as a checkpoint"),
    (foreign(None), "is not a checkpoint of this project"),
    (foreign({"format": "pt"}), "is not a checkpoint of this project"),
    (foreign({"uram": "{ cut"}), "is not a checkpoint of this project"),
    (foreign({"uram": "[1]"}), "is not a checkpoint of this project"),
    (foreign({"uram": '{"config": {"colour": "blue"}}'}), "is not a checkpoint of this project"),
    (foreign({"uram": '{"config": {"dataset": "digits", "model": "fc", "epochs": 1}}'}), "does not fit its own config"),
], ids=range(9))  # fmt: skip
def test_what_is_no_whole_checkpoint_is_refused_in_one_line_and_kept(tmp_path, content, said):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UramError, match=f"weights.safetensors {said}"):
        checkpoints.load(path)
    assert content is None or path.read_bytes() == content


def test_a_data_folder_that_is_none_is_named(local, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("URAM_DATA", str(tmp_path / "dta"))
    assert cli.main(["data", "digits-colour"]) == 0  # embedded: it takes no folder
    assert capsys.readouterr().err == "" and cli.main(["data", "svhn"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("dta, which is no folder")


def test_output_that_nobody_reads_and_a_terminal_without_our_characters(local, tmp_path):
    read, write = os.pipe()
    os.close(read)  # nobody reads
    closed = subprocess.run([sys.executable, "-m", "uram_lib.cli", "data", "digits"], stdout=write,
                            stderr=subprocess.PIPE, text=True, cwd=common.ROOT, timeout=60)  # fmt: skip
    os.close(write)
    assert closed.returncode == 1 and closed.stderr == ""
    script = "import sys; from uram_lib.cli import exit_status; sys.exit(exit_status(lambda: print('8 × 8')))"
    plain = python("-c", script, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert plain.returncode == 0 and plain.stdout.split() == ["8", "?", "8"]


def test_a_relative_results_folder_is_the_same_from_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("URAM_LOCAL", "results/mine")
    monkeypatch.chdir(tmp_path)
    assert common.local() == common.ROOT / "results" / "mine"
    monkeypatch.setenv("URAM_LOCAL", "")
    assert common.local() == common.RESULTS / "local"
    monkeypatch.setenv("URAM_LOCAL", "~nobody-of-this-name/x")
    with pytest.raises(UramError, match="URAM_LOCAL names ~nobody"):
        common.local()


def test_text_is_utf8_whatever_the_locale(copy_of_project):
    """Labels have a multiplication sign; a locale of plain ASCII must not stop a record from being written."""
    script = (
        "from uram_lib.runs import plan, records; run = plan.make_plan('table1', 'smoke', ['fc']).runs[0]; "
        "records.write_record(run.record, {'label': '8\\u00d78'}); print(run.record.read_bytes().count(b'\\xc3\\x97'))"
    )
    done = python("-c", script, cwd=copy_of_project, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.stdout.strip() == "1", done.stderr
