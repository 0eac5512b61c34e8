"""The training loop: same bits, resuming after SIGKILL, two at once, a loss that leaves the finite numbers."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from uram_lib import UramError, experiments, records, training
from uram_lib.evaluation import evaluate
from uram_lib.models import RAM
from uram_lib.paths import ROOT

RUN = "run table1 --preset smoke --rows ram-6 --seeds 0 --device cpu".split()


def equal_weights(one, other) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("changes", [{}, {"core": "lstm", "entropy": "intent", "context": True}, {"model": "fc"}])
def test_same_seed_same_bits_and_another_seed_others(few_digits, small_config, changes):
    config = small_config(**changes)
    first, second, other = (training.train(config, seed, few_digits) for seed in (0, 0, 1))
    assert equal_weights(first.model, second.model) and first.curves == second.curves
    assert not equal_weights(first.model, other.model)


def test_training_learns_the_embedded_digits(digits, small_config):
    """Chance is 90 % error; the real machinery gets far below in a few seconds."""
    trained = training.train(small_config(epochs=6), 0, digits)
    assert trained.val_error < 50
    assert trained.curves["cross_entropy"][-1] < 0.75 * trained.curves["cross_entropy"][0]
    assert trained.images == 6 * len(digits.train)


def test_resuming_in_process_gives_the_same_bits(few_digits, small_config, tmp_path, stopped_after):
    config = small_config(epochs=4, context=True, entropy="literal", sigma=0.3, last_sigma=0.1)
    whole = training.train(config, 0, few_digits)
    stopped_after(2, config, 0, few_digits, state_path=tmp_path / "state.pt")
    epochs = []
    resumed = training.train(
        config, 0, few_digits, state_path=tmp_path / "state.pt", on_epoch=lambda e, _: epochs.append(e)
    )
    assert epochs == [3, 4]  # it did go on and not start afresh
    assert equal_weights(whole.model, resumed.model) and whole.curves == resumed.curves
    assert whole.best_epoch == resumed.best_epoch


def test_the_policy_is_as_wide_as_its_epoch_says_and_tested_as_wide_as_at_the_end(few_digits, small_config):
    config = small_config(epochs=3, sigma=0.3, last_sigma=0.1, learning_rate=0.0)
    widths = []
    original = RAM.log_prob

    def seen(ram, samples, means, like):
        widths.append(ram.sigma)
        return original(ram, samples, means, like)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RAM, "log_prob", seen)
        trained = training.train(config, 0, few_digits)
    assert sorted(set(widths), reverse=True) == pytest.approx([0.3, 0.2, 0.1])
    assert trained.model.sigma == pytest.approx(0.1)


def test_the_kept_weights_are_those_of_the_best_epoch_and_not_of_the_last(few_digits, small_config):
    """With a step far too large the error goes up and down, so the best epoch is rarely the last."""
    for seed in range(10):
        trained = training.train(small_config(epochs=5, learning_rate=0.03, schedule="constant"), seed, few_digits)
        if trained.best_epoch < 5:
            break
    assert trained.best_epoch < 5
    assert evaluate(trained.model, few_digits.validation).error == pytest.approx(min(trained.curves["val_error"]))


def test_learning_rate_schedules_in_closed_form(small_config):
    cosine, constant = small_config(learning_rate=0.2), small_config(learning_rate=0.2, schedule="constant")
    assert training.learning_rate_at(cosine, 0, 100) == 0.2
    assert training.learning_rate_at(cosine, 50, 100) == pytest.approx(0.1)
    assert training.learning_rate_at(cosine, 100, 100) == pytest.approx(0, abs=1e-12)
    assert [training.learning_rate_at(constant, step, 100) for step in (0, 50, 100)] == [0.2] * 3


def start(local, *words: str) -> subprocess.Popen:
    environment = os.environ | {"URAM_LOCAL": str(local)}
    return subprocess.Popen(
        [sys.executable, "-m", "uram_lib.cli", *(words or RUN)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, said = process.communicate(timeout=180)
    return process.returncode, said


def outcome(local) -> tuple[dict, dict[str, bytes], dict[str, str]]:
    """The one record without what belongs to the machine and the clock, the bytes of each weight, and the checkpoint's
    metadata (whose order in the file is safetensors' own and not fixed, so whole files are not compared)."""
    (record,), (checkpoint,) = local.glob("runs/**/seed-0.json"), local.glob("checkpoints/**/*.safetensors")
    content = records.read_record(record)
    assert content.pop("provenance")
    weights = {name: value.numpy().tobytes() for name, value in load_file(checkpoint).items()}
    with safe_open(checkpoint, "pt") as file:
        return content, weights, file.metadata()


def wait_for(condition, process: subprocess.Popen, seconds: float = 90) -> bool:
    """Whether `condition` came true while the process lived."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False


@pytest.fixture(scope="module")
def uninterrupted_folder(tmp_path_factory):
    local = tmp_path_factory.mktemp("uninterrupted")
    status, said = finish(start(local))
    assert status == 0, said
    return local


@pytest.fixture(scope="module")
def uninterrupted(uninterrupted_folder):
    return outcome(uninterrupted_folder)


def test_a_run_killed_at_random_moments_resumes_to_the_same_bits(uninterrupted, tmp_path):
    """`kill -9` first before any epoch is done, then thrice after at least one more was, so that something is there
    to resume each time."""
    draw = random.Random(2021)
    states, kills, progress = tmp_path / "state", 0, []
    process = start(tmp_path)
    assert wait_for(lambda: any(states.glob("*.lock")), process)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    for _ in range(3):
        process = start(tmp_path)
        known = {path: path.stat().st_mtime_ns for path in states.glob("*.pt")}
        renewed = lambda known=known: any(p.stat().st_mtime_ns != known.get(p) for p in states.glob("*.pt"))  # noqa: E731
        try:
            if wait_for(renewed, process):
                time.sleep(draw.uniform(0, 0.15))  # anywhere within an epoch, or within the writing of its state
        finally:
            process.send_signal(signal.SIGKILL)
            kills += finish(process)[0] == -signal.SIGKILL
        for state in states.glob("*.pt"):  # what is there is whole
            progress.append(torch.load(state, weights_only=True)["epoch"])
        for record in tmp_path.glob("runs/**/seed-*.json"):
            records.read_record(record)
    assert kills >= 2 and len(progress) >= 2
    assert progress == sorted(set(progress)), "each start went on from the one before"
    status, said = finish(start(tmp_path))
    assert status == 0, said
    assert len(uninterrupted[1]) > 10 and outcome(tmp_path) == uninterrupted
    assert not list(states.glob("*.pt"))  # nothing is left to resume


def test_two_processes_at_one_run_do_not_corrupt_each_other(uninterrupted, tmp_path):
    """The second is refused with one clear line while the first trains, and the first ends as if alone.

    The first is held still while the second starts, so that a busy machine cannot let it finish too early.
    """
    first = start(tmp_path)
    assert wait_for(lambda: any(tmp_path.glob("state/*.lock")), first)
    assert wait_for(lambda: any(tmp_path.glob("state/*.pt")), first)  # an epoch is done, so it holds the lock
    first.send_signal(signal.SIGSTOP)
    try:
        status, said = finish(start(tmp_path))
    finally:
        first.send_signal(signal.SIGCONT)
        first_status, first_said = finish(first)
    assert status == 1 and len(said.splitlines()) == 1 and "Traceback" not in said
    assert "table1-ram-6" in said and "seed-0 is being trained by another process" in said
    assert first_status == 0, first_said
    assert outcome(tmp_path) == uninterrupted


def test_a_finished_run_is_left_as_it_is(uninterrupted_folder):
    seen = lambda: {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in uninterrupted_folder.glob("[rc]*/**/seed-0.*")}  # noqa: E731
    before = seen()
    assert len(before) == 2
    assert finish(start(uninterrupted_folder))[0] == 0
    assert seen() == before


def test_a_loss_that_is_not_finite_stops_with_epoch_and_step(few_digits, small_config, tmp_path):
    """Caused for real, by an absurd step size."""
    state = tmp_path / "state.pt"
    config = small_config(learning_rate=1e38)
    with pytest.raises(training.NotFinite, match=r"from epoch 1, step \d of 4, on \(seed 5\)") as caught:
        training.train(config, 5, few_digits, state_path=state)
    assert "\n" not in str(caught.value) and isinstance(caught.value, UramError)
    assert not state.exists()  # there was no good epoch


def test_weights_ruined_by_the_last_step_of_an_epoch_are_not_kept(few_digits, small_config, tmp_path):
    """One step an epoch, whose loss is fine; the step goes beyond the largest float."""
    config = small_config(learning_rate=3e38, schedule="constant", batch_size=len(few_digits.train), epochs=1)
    state = tmp_path / "state.pt"
    with pytest.raises(training.NotFinite, match=r"^the weights are not finite after epoch 1 \(seed 3\)$"):
        training.train(config, 3, few_digits, state_path=state)
    assert not state.exists()


def test_a_loss_that_is_not_finite_later_on_keeps_the_last_good_state(few_digits, small_config, tmp_path):
    """One step an epoch: the first loss is fine, the absurd step after it ruins the second."""
    config = small_config(learning_rate=1e30, batch_size=len(few_digits.train))
    state = tmp_path / "state.pt"
    with pytest.raises(training.NotFinite) as caught:
        training.train(config, 0, few_digits, state_path=state)
    said = str(caught.value)
    assert "the loss is not finite from epoch 2, step 1 of 1, on (seed 0); epoch 1 is kept in" in said
    assert "state.pt" in said and "\n" not in said
    kept = training.load_state(state, config, 0, torch.device("cpu"))
    assert kept["epoch"] == 1 and all(math.isfinite(loss) for loss in kept["curves"]["loss"])
    before = state.read_bytes()
    with pytest.raises(training.NotFinite):  # going on meets the same end, and still loses nothing
        training.train(config, 0, few_digits, state_path=state)
    assert state.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip file"])
def test_an_unreadable_state_is_named_and_left(few_digits, small_config, tmp_path, content):
    state = tmp_path / "state.pt"
    state.write_bytes(content)
    with pytest.raises(UramError, match="state.pt cannot be read as a training state; delete it"):
        training.train(small_config(), 0, few_digits, state_path=state)
    assert state.read_bytes() == content


@pytest.mark.parametrize("config, seed", [({}, 1), ({"sigma": 0.2}, 0)])
def test_a_state_of_another_run_is_refused(few_digits, small_config, tmp_path, config, seed):
    state = tmp_path / "state.pt"
    training.train(small_config(epochs=1), 0, few_digits, state_path=state)
    before = state.read_bytes()
    with pytest.raises(UramError, match="is the state of another run; delete it"):
        training.train(small_config(epochs=1, **config), seed, few_digits, state_path=state)
    assert state.read_bytes() == before


def test_a_state_that_would_run_code_is_not_unpickled(few_digits, small_config, tmp_path):
    """Nothing is unpickled: a state with an object in it is refused and its code does not run."""

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    state = tmp_path / "state.pt"
    torch.save({"run": Trap()}, state)
    with pytest.raises(UramError, match="cannot be read as a training state"):
        training.train(small_config(), 0, few_digits, state_path=state)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_stops_training_in_one_line_and_leaves_the_last_state(
    few_digits, small_config, tmp_path, full_disk
):
    state = tmp_path / "state.pt"
    config = small_config()
    full = []

    def fill(epoch, row):
        full.append(state.read_bytes())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(config, 0, few_digits, state_path=state, on_epoch=fill)
    with full_disk(10_000), pytest.raises(UramError, match="cannot write .*state.pt: File too large") as caught:
        training.train(config, 0, few_digits, state_path=state)
    assert "\n" not in str(caught.value)
    assert state.read_bytes() == full[0] and [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_an_accelerator_rounds_no_convolution(monkeypatch):
    backends = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [backend.fp32_precision for backend in backends]  # monkeypatch cannot restore these
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    try:
        for backend in backends:
            backend.fp32_precision = "tf32"
        training.be_deterministic(torch.device("cpu"))
        assert [backend.fp32_precision for backend in backends] == ["tf32"] * 2  # no business of a processor's run
        training.be_deterministic(torch.device("cuda"))
        assert [backend.fp32_precision for backend in backends] == ["ieee"] * 2
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
        training.be_deterministic(torch.device("cpu"))  # its warnings are errors again


def test_devices():
    assert training.pick_device("cpu").type == "cpu"
    assert training.pick_device("auto").type in ("cuda", "mps", "cpu")
    with pytest.raises(UramError, match="unknown device 'tpu'; one of: auto, cpu, cuda, mps"):
        training.pick_device("tpu")
    absent = [name for name, here in [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
              if not here]  # fmt: skip
    assert absent  # no machine has both
    for name in absent:
        with pytest.raises(UramError, match=f"'{name}' is not available on this machine; here: .*cpu"):
            training.pick_device(name)


def test_the_record_is_plain_json_with_all_that_design_asks_for(uninterrupted):
    record = uninterrupted[0]
    assert json.loads(json.dumps(record)) == record
    assert {"schema", "table", "row", "seed", "preset", "dataset", "config", "config_hash", "metrics", "test_correct",
            "curves"} == record.keys()  # fmt: skip
    assert record["config_hash"] == experiments.experiment("table1", "ram-6", "smoke").config.hash
    assert records.unpack(record["test_correct"]).shape == (5, 300)
    error = 100 * (1 - records.unpack(record["test_correct"]).mean())
    assert record["metrics"]["test_error"] == pytest.approx(error, abs=1e-3)
    assert len(record["curves"]["val_error"]) == record["config"]["epochs"]
