"""Rows x seeds as processes: what is planned, announced, made, skipped, resumed, and what a killed process loses."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import wait_for

import uram_lib
from uram_lib import UramError, checkpoints, cli, data, evaluation, experiments
from uram_lib.common import CHECKPOINTS
from uram_lib.runs import plan, progress, records
from uram_lib.runs.progress import Progress
from uram_lib.runs.run import LARGEST, Busy, Run, only_one, sources, train_and_test


@pytest.mark.parametrize("asked, seeds", [
    ("3", (0, 1, 2)), (3, (0, 1, 2)), ("0,2,5", (0, 2, 5)), ("5,0-2,1", (0, 1, 2, 5)), ("4-6", (4, 5, 6)),
    ("0, 2", (0, 2)), ([2, 0, 2], (0, 2)), ("7,", (7,)),
])  # fmt: skip
def test_seeds_mean_the_same_everywhere(asked, seeds):
    assert plan.parse_seeds(asked) == seeds


@pytest.mark.parametrize("asked", ["", "x", "-1", "3-", "3-1", "3-1,5", "1.5", "0-x", 0, True, None, (), [-1], 2.5,
                                   "0-99999999", "100000000", "0 1 2", 5000 * "9"])  # fmt: skip
def test_seeds_that_cannot_be_read_are_refused(asked):
    with pytest.raises(UramError, match="cannot read seeds .* at least one and at most 1000$"):
        plan.parse_seeds(asked)


def test_early_seeds_are_complete_across_rows_and_sources_of_attacks_come_first():
    made = plan.make_plan("table4", "smoke", seeds=2).runs
    assert [run.seed for run in made] == [0] * 6 + [1] * 6
    assert {run.experiment.row for run in made[:2]} == set(experiments.TRANSFER_FROM)


def test_transfer_attacks_start_from_the_plans_own_networks_also_where_its_epochs_are_fewer():
    made = plan.make_plan("table4", "quick", ["vgg16-pgd", "ours-vgg16-pgd"], dataset="digits-colour")
    few = [dataclasses.replace(e, config=dataclasses.replace(e.config, epochs=2)) for e in made.experiments]
    own, ours = dataclasses.replace(made, experiments=tuple(few)).runs
    undefended, defended = sources(ours)
    assert defended == own and sources(own) == [undefended] and undefended.experiment.config.epochs == 2
    assert sources(plan.make_plan("table1", "quick", ["ram-6"]).runs[0]) == []


def test_a_row_that_is_named_twice_is_run_once_and_readings_are_rows():
    found = plan.make_plan("table2", "smoke", ["ram-6", "ours-6@region-centre", "ram-6"])
    assert [e.row for e in found.experiments] == ["ram-6", "ours-6@region-centre"]
    assert found.experiments[1].config.region_start == "centre"
    for preset, alike in (("smoke", "ours-6@early-reward"), ("paper", "ours-6@outcome-reward")):
        readings, every = experiments.readings_of("table2", preset), experiments.readings_of("table2")
        assert set(every) - set(readings) >= {alike}  # the main reading there: it is not run a second time
        asked = plan.make_plan("table2", preset, ["all", "ram-6", "readings"]).experiments
        assert [e.row for e in asked] == [*experiments.ROWS["table2"], *readings]


def test_two_processes_make_every_record_and_a_second_command_none(uram, local, capsys):
    words = "run table1 --preset smoke --rows fc --seeds 2 --jobs 2 --device cpu".split()
    done = uram(*words)
    assert done.returncode == 0, done.stderr
    announced, *said = done.stdout.splitlines()
    for word in ("table1", "smoke", "fc", "seeds 0, 1", "digits", "2 of 2 runs to do", "minute"):
        assert word in announced, word
    paths = [Run(experiments.experiment("table1", "fc", "smoke"), seed).record for seed in (0, 1)]
    assert sorted(local.glob("runs/**/seed-*.json")) == sorted(paths)
    read = [records.read_record(path) for path in paths]
    assert [r["seed"] for r in read] == [0, 1] and read[0]["test_correct"] != read[1]["test_correct"]
    assert all(r["test_correct"]["shape"] == [1, r["dataset"]["sizes"]["test"]] for r in read)
    for line, record in zip(said, read, strict=False):  # the error rate and where the record is
        assert f"{record['metrics']['test_error']:.2f} %" in line and "seed-" in line
    assert "EMBEDDED" in said[-1] and "progress every" in done.stderr
    stamps = [path.stat().st_mtime_ns for path in paths]
    assert cli.main(words) == 0
    assert "0 of 2 runs to do: nothing to do" in capsys.readouterr().out
    assert uram_lib.run("table1", "smoke", ["fc"], 2, device="cpu") == read
    assert [path.stat().st_mtime_ns for path in paths] == stamps


def test_doctor_says_what_this_machine_has(capsys):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert uram_lib.__version__ in said and f"torch {torch.__version__}" in said and "cpu" in said
    assert "\ndigits: embedded digits (scikit-learn), 1,297 / 200 / 300 train" in said


def test_a_run_that_fails_is_named_after_the_others_are_done(local):
    found = plan.make_plan("table1", "smoke", ["fc"], 3, device="cpu", jobs=2)
    found.runs[0].state.parent.mkdir(parents=True)
    found.runs[0].state.write_bytes(b"no state")
    with pytest.raises(UramError, match="^fc seed 0: .*cannot be read as a training state; delete it"):
        found.run()
    assert [run.finished for run in found.runs] == [False, True, True]


def workers_of(pid: int) -> list[int]:
    """Processes of the pool that process `pid` made."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def test_a_killed_worker_is_tried_again_and_a_stopped_command_goes_on_to_the_same_bits(local, tmp_path, monkeypatch):
    words = f"{sys.executable} -m uram_lib.cli run table1 --preset smoke --rows ram-6 --device cpu --jobs 2".split()
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (what runs in the background may ignore it)
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    wait_for(lambda: list(local.glob("state/*.pt")))  # an epoch is kept
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 130 and "start the same command again to go on" in said
    assert list(local.glob("state/*.pt")) and not list(local.glob("runs/**/*.json"))
    again = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    (lock,) = local.glob("state/*.lock")
    before = lock.read_text()
    wait_for(lambda: again.poll() is not None or lock.read_text() != before)  # it trains
    killed = workers_of(again.pid)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert "goes on from" in said[1]
    run = plan.make_plan("table1", "smoke", ["ram-6"], device="cpu").runs[0]
    record = records.read_record(run.record)
    assert killed and len(record["provenance"]["sessions"]) == 3
    assert record["test_correct"]["shape"] == [experiments.START_SEEDS, record["dataset"]["sizes"]["test"]]
    assert {"test_error_sampled", "test_error_averaged"} <= record["metrics"].keys()
    monkeypatch.setenv("URAM_LOCAL", str(tmp_path / "elsewhere"))
    straight = plan.make_plan("table1", "smoke", ["ram-6"], device="cpu").runs[0]
    train_and_test(straight, "cpu", threads=1)
    other = records.read_record(straight.record)
    assert other["curves"] == record["curves"] and other["test_correct"] == record["test_correct"]


def test_ctrl_c_while_the_workers_start_is_one_line(local):
    words = f"{sys.executable} -m uram_lib.cli run table1 --preset smoke --rows ram-6 --device cpu".split()
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    run = subprocess.Popen(words, stdout=-1, stderr=-1, text=True, preexec_fn=heard, start_new_session=True)
    wait_for(lambda: workers_of(run.pid))
    time.sleep(0.3)  # the worker is at its imports
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to all of them
    said = run.communicate(timeout=60)[1]
    assert run.returncode in (130, -signal.SIGINT) and "stopped" in said and "Traceback" not in said


def test_two_processes_cannot_be_at_one_run(local):
    run = plan.make_plan("table1", "smoke", ["fc"]).runs[0]
    with only_one(run.lock), pytest.raises(Busy, match="is being trained by another process"):
        train_and_test(run, "cpu")
    assert not run.record.exists()


def test_a_record_counts_where_its_network_was_attacked_by_the_same_protocol():
    e = experiments.experiment("table4", "vgg16-pgd", "strong", "cifar10-jpeg")
    assert Run(e, 0, publish=True).finished
    fewer = dataclasses.replace(e, protocol=dataclasses.replace(e.protocol, restarts=e.protocol.restarts - 1))
    assert fewer.config == e.config and not Run(fewer, 0, publish=True).finished


def test_weights_are_published_of_small_networks_alone(local, tmp_path, monkeypatch):
    """A fully connected layer on the whole canvas has 10 MB of them; its record is published all the same."""
    monkeypatch.setattr(records, "PUBLISHED", tmp_path / "runs")
    monkeypatch.setattr("uram_lib.runs.run.CHECKPOINTS", tmp_path / "checkpoints")
    (run,) = plan.make_plan("table1", "smoke", ["fc"], device="cpu", publish=True).runs
    for largest in (0, LARGEST):
        monkeypatch.setattr("uram_lib.runs.run.LARGEST", largest)
        run.record.unlink(missing_ok=True)
        train_and_test(run, "cpu", threads=1)
        assert run.record.is_relative_to(tmp_path) and run.record.exists() and run.weights.exists() == (largest > 0)


def test_a_published_model_is_loaded_and_reads():
    (path,) = CHECKPOINTS.glob("table2/paper/*/ram-6/seed-0.safetensors")
    model = uram_lib.load("table2", "ram-6", "paper")
    image = torch.zeros(2, *model.image_shape)
    reading = model.read(image)
    assert reading.labels.shape == (2,) and torch.allclose(reading.probabilities.sum(1), torch.ones(2))
    with pytest.raises(UramError, match="no weights of table2/fc, paper, seed 0 are published; rows that have: "):
        uram_lib.load("table2", "fc", "paper")
    with pytest.raises(UramError, match="unknown data set 'nope' of table2's paper weights; one of: clutter100-10"):
        uram_lib.load("table2", "ram-6", "paper", dataset="nope")
    assert checkpoints.load(path)[1] == experiments.experiment("table2", "ram-6", "paper").config


def test_what_is_of_another_data_set_is_not_published(monkeypatch):
    monkeypatch.setattr(plan.data, "available", lambda name: "digits")  # as on a machine without MNIST
    assert plan.make_plan("table1", "strong", ["ram-6"]).experiments[0].config.dataset == "digits"
    with pytest.raises(UramError, match="publishing needs mnist, which cannot be had here"):
        plan.make_plan("table1", "strong", ["ram-6"], publish=True)


def test_progress_counts_steps_and_says_from_where_a_run_goes_on(local):
    made = plan.make_plan("table1", "smoke", ["fc"], 2, device="cpu").runs
    made[0].lock.parent.mkdir(parents=True)
    for run in made:
        run.lock.write_text("[50, 100, 12.5]", encoding="utf-8")
    made[0].state.touch()  # of the second no epoch was kept: it starts afresh
    out = io.StringIO()
    with Progress(made, out) as progress:
        for _ in range(2):
            progress.said -= 100  # as if half a minute had passed
            progress.show()
            os.utime(made[1].lock, (progress.started + 9, progress.started + 9))  # it is at work now
    lines = out.getvalue().splitlines()
    assert "fc seed 0: goes on from 50 %" in lines[1] and not any("fc seed 1: goes on" in line for line in lines)
    assert lines[-2].startswith("25 %") and lines[-2].count(" seed ") == 1
    assert lines[-1].startswith("50 %") and "validation error 12.5 %" in lines[-1]


def test_announced_seconds_count_rounds_of_runs_and_the_test(local, monkeypatch):
    """Three runs on two processes take two rounds; a model with glimpses is tested in many passes."""
    monkeypatch.setattr(progress, "seconds_per_image", lambda config, device: 1e-3)
    digits = data.load("digits")
    for row in ("fc", "ram-6"):
        made = plan.make_plan("table1", "smoke", [row], 3, device="cpu").runs
        e = made[0].experiment
        images = e.config.epochs * len(digits.train)
        if row == "ram-6":
            images += digits.test_size * (experiments.START_SEEDS + evaluation.AVERAGED) / progress.FORWARD
        assert progress.seconds_of(made, "cpu", 2) == pytest.approx(2 * progress.SLACK * 1e-3 * images)
        assert progress.seconds_of(made, "cpu", 3) == pytest.approx(progress.SLACK * 1e-3 * images)
