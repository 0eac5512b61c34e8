"""A plan on a real Dask cluster, one of whose workers, or all of which, is killed in mid-run."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait_for

from uram_lib.runs import plan, records

pytest.importorskip("distributed", reason="the optional extra 'cluster' is not installed")
PATIENCE_S = 400


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def cluster(tmp_path, local):
    """Address of a scheduler with two workers, and the processes, the scheduler's last; all ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    with open(tmp_path / "cluster.log", "w") as log:

        def spawn(name: str, *words: str) -> subprocess.Popen:
            command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *words, "--no-dashboard"]
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)

        scheduler = spawn("scheduler", "--host", "127.0.0.1", "--port", str(port))
        workers = [spawn("worker", address, "--nthreads", "1", "--no-nanny") for _ in range(2)]
        try:
            wait_for(lambda: answers(port), "the scheduler's start")
            yield address, [*workers, scheduler]
        finally:
            for process in (*workers, scheduler):
                process.kill()
                process.wait()


def begin(address: str, local: Path) -> subprocess.Popen:
    """A sweep on the cluster, one of whose runs is under way: a state file is there, so what is killed now dies between
    epochs or within one."""
    words = ["run", "table1", "--preset", "smoke", "--rows", "ram-6,fc", "--seeds", "2", "--scheduler", address]
    command, pipe = [sys.executable, "-m", "uram_lib.cli", *words], subprocess.PIPE
    runner = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    wait_for(lambda: list(local.glob("state/*.pt")) or runner.poll() is not None, "a first epoch")
    assert runner.poll() is None, runner.stderr.read()
    return runner


def test_a_killed_worker_loses_and_doubles_no_run(cluster, local):
    address, processes = cluster
    runner = begin(address, local)
    processes[0].kill()
    out, said = runner.communicate(timeout=PATIENCE_S)
    assert runner.returncode == 0, said
    made_plan = plan.make_plan("table1", "smoke", ["ram-6", "fc"], 2)
    assert made_plan.waiting == []
    made = sorted(local.glob("runs/**/*.json"))
    assert made == sorted(run.record for run in made_plan.runs)
    for path in made:  # each is whole, and of this configuration
        assert records.read_record(path)["metrics"]["best_epoch"] >= 1
    assert not list(local.glob("state/*.pt")), "a finished run leaves no state behind"


def test_runs_made_on_a_cluster_equal_runs_made_here(cluster, local, tmp_path, monkeypatch):
    address, _ = cluster
    (path,) = plan.make_plan("table1", "smoke", ["fc"], [3], scheduler=address).run()
    there = records.read_record(path)
    monkeypatch.setenv("URAM_LOCAL", str(tmp_path / "elsewhere"))
    (path,) = plan.make_plan("table1", "smoke", ["fc"], [3], device="cpu").run()
    here = records.read_record(path)
    assert {k: v for k, v in there.items() if k != "provenance"} == {k: v for k, v in here.items() if k != "provenance"}


def test_a_cluster_that_dies_is_no_success(cluster, local):
    address, processes = cluster
    runner = begin(address, local)
    for process in reversed(processes):  # the scheduler first
        process.kill()
    _, said = runner.communicate(timeout=PATIENCE_S)
    last = said.strip().splitlines()[-1]
    assert runner.returncode == 1 and "uram: error: " in last
    assert "ram-6 seed 0: " in last and "start the same command again" in last and "Traceback" not in last


def test_no_scheduler_is_one_line(uram):
    done = uram("run", "table1", "--preset", "smoke", "--rows", "fc", "--scheduler", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "uram: error: no Dask scheduler answers at tcp://127.0.0.1:9"
