"""Rows x seeds as processes: what is announced, made, skipped, and in what order."""

import dataclasses

import pytest

from uram_lib import UramError, checkpoints, cli, experiments, records, sweep
from uram_lib.paths import CHECKPOINTS


@pytest.mark.parametrize(
    "text, seeds", [("3", [3]), ("0,2,5", [0, 2, 5]), ("0-3", [0, 1, 2, 3]), ("5,0-2,1", [0, 1, 2, 5])]
)
def test_seeds_as_people_write_them(text, seeds):
    assert cli.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "1,", "-1", "3-", "3-1", "3-1,5", "1.5", "0-x"])
def test_seeds_that_cannot_be_read_are_refused(text):
    with pytest.raises(UramError, match="cannot read seeds"):
        cli.parse_seeds(text)


def test_a_seed_that_is_named_twice_is_run_once():
    assert sweep.plan("table1", "smoke", ["fc"], seeds=[2, 0, 2]).seeds == (2, 0)


def test_the_longest_runs_start_first_and_early_seeds_are_complete_across_rows():
    chosen = experiments.experiments("table1", "smoke")
    jobs = sweep.plan("table1", "smoke", seeds=(0, 1)).jobs
    assert len(jobs) == 2 * len(chosen) == len({(j.experiment.row, j.seed) for j in jobs})
    assert [j.cost for j in jobs] == sorted((j.cost for j in jobs), reverse=True)
    assert jobs[-1].experiment.row == "fc"
    for row in experiments.ROWS["table1"]:
        assert [j.seed for j in jobs if j.experiment.row == row] == [0, 1]


def test_a_sweep_of_two_processes_makes_every_record_and_a_second_one_none(uram, local, capsys):
    words = "run table1 --preset smoke --rows fc --seeds 0-1 --jobs 2 --device cpu".split()
    done = uram(*words)
    assert done.returncode == 0, done.stderr
    announced, *made = done.stdout.splitlines()
    for word in ("table1", "smoke", "fc", "seeds 0, 1", "digits", "device cpu", "2 of 2 runs to do", "minutes"):
        assert word in announced, word
    paths = [records.record_path(experiments.experiment("table1", "fc", "smoke"), seed, False) for seed in (0, 1)]
    assert len(made) == 2 and sorted(local.glob("runs/**/seed-*.json")) == sorted(paths)
    read = [records.read_record(path) for path in paths]
    assert [r["seed"] for r in read] == [0, 1] and read[0]["test_correct"] != read[1]["test_correct"]
    stamps = [path.stat().st_mtime_ns for path in paths]
    assert cli.main(words) == 0
    assert "0 of 2 runs to do" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in paths] == stamps


def test_a_run_that_fails_in_this_process_is_named_after_the_others_are_done(local):
    plan = sweep.plan("table1", "smoke", ["fc"], (0, 1, 2), device="cpu")
    plan.jobs[0].state.parent.mkdir(parents=True)
    plan.jobs[0].state.write_bytes(b"no state")
    with pytest.raises(UramError, match="^fc seed 0: .*cannot be read as a training state; delete it"):
        plan.run()
    assert [job.finished for job in plan.jobs] == [False, True, True]


def test_a_record_counts_where_its_network_was_attacked_by_the_same_protocol():
    e = experiments.experiment("table4", "vgg16-pgd", "converged", "cifar10-jpeg")
    assert records.finished(e, 0, published=True)
    fewer = dataclasses.replace(e, protocol=dataclasses.replace(e.protocol, restarts=e.protocol.restarts - 1))
    assert fewer.config == e.config and not records.finished(fewer, 0, published=True)


def test_arms_of_several_tables_have_each_its_tables_data(local, monkeypatch):
    rows = ["mnist-each-step", "ram-6-entropy", "mnist-each-step"]  # named twice is asked for once
    plan = sweep.plan("ablations", "smoke", rows)
    assert [e.row for e in plan.experiments] == rows[:2]
    assert plan.datasets == ["digits", "digits-clutter60-4"] and plan.embedded
    assert "data digits, digits-clutter60-4;" in plan.announce()
    stand_ins = {"mnist": "digits", "clutter100-10": "digits-clutter100-10"}
    monkeypatch.setattr(sweep.data, "available", stand_ins.get)  # as on a machine without MNIST
    plan = sweep.plan("ablations", "converged", rows)
    assert plan.datasets == ["digits", "digits-clutter100-10"]


@pytest.mark.parametrize("seeds", [0, -1, True, 2.5, "2", "[0, 1]", None, (), [-1], [True], ["0"]])
def test_seeds_are_a_number_of_them_or_which_ones(local, seeds):
    """papermill hands a notebook whatever it is given."""
    assert sweep.plan("table1", "smoke", seeds=2).seeds == sweep.plan("table1", "smoke", seeds=[0, 1]).seeds == (0, 1)
    with pytest.raises(UramError, match="^seeds must be whole numbers from 0 on, at least one, got "):
        sweep.plan("table1", "smoke", seeds=seeds)


def test_weights_are_published_of_small_networks_alone(uram, copy_of_project):
    """A fully connected layer on the whole canvas has 10 MB of them; its record is published all the same."""
    words = "run table2 --preset smoke --rows fc,ram-1-8x8 --dataset digits-clutter100-10 --device cpu --publish"
    done = uram(*words.split(), cwd=copy_of_project)
    assert done.returncode == 0, done.stderr
    results = copy_of_project / "results"
    of_rows = lambda pattern: sorted(path.parent.name for path in results.glob(pattern))  # noqa: E731
    assert of_rows("runs/**/seed-0.json") == ["fc", "ram-1-8x8"]
    assert of_rows("checkpoints/**/seed-0.safetensors") == ["ram-1-8x8"]


def test_no_published_checkpoint_is_too_large_for_git():
    header = 10_000
    sizes = {path.relative_to(CHECKPOINTS): path.stat().st_size for path in CHECKPOINTS.rglob("*.safetensors")}
    assert {path: size for path, size in sizes.items() if size > checkpoints.LARGEST + header} == {}


def test_a_data_set_of_whole_numbers_is_refused_where_single_digits_are_read():
    with pytest.raises(UramError, match="table1 reads single digits, and digits-composed holds whole numbers"):
        sweep.plan("table1", "smoke", dataset="digits-composed")
