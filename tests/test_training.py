"""The training loop: same bits, resuming after SIGKILL, what an epoch trains, a loss that leaves the finite numbers."""

import copy
import dataclasses
import math
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from drawing import equal_weights
from safetensors.torch import load_file

from uram_lib import UramError, checkpoints, data, experiments, training
from uram_lib.config import Config
from uram_lib.data.base import Dataset
from uram_lib.models import RAM
from uram_lib.runs import machine, records
from uram_lib.runs.run import Run, train_and_test

LOOKS = {"epochs": 4, "batch_size": 50, "glimpses": 3, "patch_size": 12, "scales": 2}
NUMBERS = LOOKS | {"width": 0.03, "batch_size": 40}
KINDS = {
    "ram": Config("digits", "ram", **LOOKS, context="attended", entropy="literal", sigma=0.3, last_sigma=0.1),
    "lstm": Config("digits", "ram", **LOOKS, core="lstm", entropy="intent", reward="probability", clip_norm=1.0),
    "fc": Config("digits", "fc", 4, batch_size=50),
    "unified": Config("digits-clutter60-4", "unified", **LOOKS, curriculum_epochs=2),
    "dram": Config("digits-composed", "dram", **NUMBERS | {"glimpses": 18}, reward="cumulative", context="confidence"),
    "cnn11": Config("digits-composed", "cnn11", **NUMBERS),
    "attacked": Config("digits-colour", "vgg16-attention", **NUMBERS | {"scales": 1}, attack="fast", augment=True),
}


def few(name: str) -> Dataset:
    """A data set cut to 200 training and 60 validation images."""
    whole = data.load(name)
    return dataclasses.replace(whole, train=whole.train.at(slice(200)), validation=whole.validation.at(slice(60)))


@pytest.mark.parametrize("name", KINDS)
def test_a_run_gives_the_same_bits_again_and_resumed_and_another_seed_others(name, tmp_path):
    config, dataset, steps, state = KINDS[name], few(KINDS[name].dataset), [], tmp_path / "state.pt"
    whole = training.train(config, 0, dataset, on_step=lambda *said: steps.append(said))
    total = 4 * math.ceil(200 / config.batch_size)
    errors = [None, *whole.curves["val_error"]]
    assert steps == [(k + 1, total, errors[k // (total // 4)]) for k in range(total)]
    assert whole.rollouts == 4 * 200 and whole.seconds > 0

    def stop(done: int, *_) -> None:
        if done > total // 2:  # two epochs are kept
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(config, 0, dataset, state_path=state, on_step=stop)
    went_on = []
    resumed = training.train(config, 0, dataset, state_path=state, on_step=lambda *said: went_on.append(said))
    assert went_on == steps[total // 2 :]
    assert equal_weights(whole.model, resumed.model) and whole.curves == resumed.curves
    assert (whole.best_epoch, whole.rollouts) == (resumed.best_epoch, resumed.rollouts)
    short = dataclasses.replace(config, epochs=1)
    one, other = (training.train(short, seed, dataset).model for seed in (0, 1))
    assert not equal_weights(one, other)


def test_the_policy_is_as_wide_as_its_epoch_says_and_tested_as_wide_as_at_the_end(few_digits, small_config):
    config, widths, original = small_config(sigma=0.3, last_sigma=0.1), [], RAM.log_prob
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RAM, "log_prob", lambda ram, *given: widths.append(given[2]) or original(ram, *given))
        trained = training.train(config, 0, few_digits)
    assert widths == pytest.approx([0.3] * 4 + [0.1] + [0.2] * 4 + [0.1] + [0.1] * 5)  # four steps, then the test
    assert trained.model.sigma == pytest.approx(0.1)


def test_each_step_has_its_step_size_its_share_of_the_range_its_exploration_and_a_clipped_gradient(monkeypatch):
    """What reaches the real step of each of 4 x 4 steps, against closed forms."""
    settings = {"learning_rate": 0.01, "clip_norm": 0.05, "adam_epsilon": 1e-4}
    config, real, seen = dataclasses.replace(KINDS["unified"], **settings), training.step, []

    def step(model, now, optimizer, dataset, index, streams, spread, epsilon):
        found = real(model, now, optimizer, dataset, index, streams, spread, epsilon)
        (group,) = optimizer.param_groups
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        seen.append((group["lr"].item(), group["eps"], spread, epsilon, torch.cat(gradients).norm().item()))
        return found

    monkeypatch.setattr(training, "step", step)
    training.train(config, 0, few(config.dataset))
    expected = [
        (0.005 * (1 + math.cos(math.pi * k / 16)), 1e-4, (0.3, 0.65, 1, 1)[k // 4], max(0.05, 1 - 0.95 * k / 8), 0.05)
        for k in range(16)
    ]
    torch.testing.assert_close(torch.tensor(seen), torch.tensor(expected), rtol=1e-3, atol=1e-9)
    assert training.learning_rate_at(dataclasses.replace(config, schedule="constant"), 15, 16) == config.learning_rate


@pytest.fixture
def epoch_by_epoch(monkeypatch):
    """Train on few images and return the model's weights before training and after each epoch."""
    made, seen, original = [], [], training.new_model

    def new_model(*given):
        made.append(original(*given))
        seen.append(copy.deepcopy(made[0].state_dict()))
        return made[0]

    def run(config: Config) -> list[dict[str, torch.Tensor]]:
        def look(done: int, total: int, error: float | None) -> None:
            if done % (total // config.epochs) == 0:
                seen.append(copy.deepcopy(made[0].state_dict()))

        monkeypatch.setattr(training, "new_model", new_model)
        training.train(config, 0, few(config.dataset), on_step=look)
        return seen

    return run


def moved(before: dict, after: dict, part: str) -> set[bool]:
    """Whether the parameters of a part moved, as the set of answers."""
    return {not torch.equal(before[name], after[name]) for name in before if name.startswith(part)}


def test_ledger_A3_the_frozen_network_follows_once_an_epoch(epoch_by_epoch):
    """After an epoch it holds the weights that the online network had when the epoch began."""
    seen = epoch_by_epoch(KINDS["unified"])
    for before, after in zip(seen, seen[1:], strict=False):
        pairs = [(name, name.replace("online", "target")) for name in before if "online" in name]
        assert pairs and all(torch.equal(before[online], after[target]) for online, target in pairs)
        assert any(not torch.equal(after[online], after[target]) for online, target in pairs)


def test_ledger_A10_a_chooser_that_is_trained_alone_leaves_RAM_where_it_is_and_then_both_learn(epoch_by_epoch):
    seen = epoch_by_epoch(dataclasses.replace(KINDS["unified"], chooser_alone_epochs=2))
    for epoch, alone in ((1, True), (2, True), (3, False), (4, False)):
        before, after = seen[epoch - 1 : epoch + 1]
        assert moved(before, after, "topdown.online") == {True}
        assert (True in moved(before, after, "ram")) != alone
    assert moved(*seen[2:4], "ram.classifier") == {True}


def test_without_a_policy_to_train_the_eye_stays_where_it_is(epoch_by_epoch):
    """While `explore_epochs` last, nothing moves but what reads and the baseline; then the rest moves, too."""
    seen = epoch_by_epoch(dataclasses.replace(KINDS["dram"], epochs=2, explore_epochs=1))
    for part in ("location_core", "location_network", "start_network"):
        assert (moved(*seen[:2], part), moved(*seen[1:], part)) == ({False}, {True})
    assert moved(*seen[:2], "classifier") == moved(*seen[:2], "baseline_network") == {True}


def published(folder: Path) -> tuple[dict, dict[str, bytes]]:
    """The one record without what belongs to the machine and the clock, and the bytes of each weight."""
    (record,), (checkpoint,) = folder.glob("runs/**/seed-0.json"), folder.glob("checkpoints/**/*.safetensors")
    content = records.read_record(record)
    assert content.pop("provenance")
    return content, {name: value.numpy().tobytes() for name, value in load_file(checkpoint).items()}


def in_a_process(folder: str) -> None:
    os.environ["URAM_LOCAL"] = folder
    smoke = experiments.experiment("table1", "ram-6", "smoke")
    short = dataclasses.replace(smoke, config=dataclasses.replace(smoke.config, epochs=8, glimpses=2))
    train_and_test(Run(short, 0), "cpu", 1)


def test_a_run_killed_at_random_moments_resumes_to_the_same_bits(tmp_path):
    """`kill -9` first before any epoch is done, then thrice after at least one more was, so that something is there
    to resume each time."""
    context, draw, states = multiprocessing.get_context("forkserver"), random.Random(2021), tmp_path / "cut" / "state"
    # What each run would import, once for all.
    context.set_forkserver_preload(["uram_lib.adversarial.robustness", "torch._dynamo", "sklearn.datasets", "pytest"])

    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in states.glob("*.pt")}

    def start(name: str) -> multiprocessing.Process:
        process = context.Process(target=in_a_process, args=(str(tmp_path / name),))
        process.start()
        return process

    done, kills, whole = [], 0, start("whole")
    for attempt in range(4):
        known, process = stamps(), start("cut")
        while process.is_alive() and not (any(states.glob("*.lock")) if attempt == 0 else stamps() != known):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.15) if attempt else 0)  # anywhere within an epoch, or the writing of its state
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        done += [torch.load(state, weights_only=True)["epoch"] for state in states.glob("*.pt")]  # whole, if there
    assert kills >= 3 and len(done) >= 2 and done == sorted(set(done)), "each start went on from the one before"
    last = start("cut")
    for process in (last, whole):
        process.join(180)
        assert process.exitcode == 0
    assert published(tmp_path / "cut") == published(tmp_path / "whole")
    assert not list(states.glob("*.pt"))  # nothing is left to resume


@pytest.mark.parametrize("rate, batch, said, kept", [
    (1e38, 50, r"from epoch 1, step \d of 4, on \(seed 5\)", 0),
    (3e38, 200, r"^the weights are not finite after epoch 1 \(seed 5\)$", 0),
    (1e30, 200, r"from epoch 2, step 1 of 1, on \(seed 5\); epoch 1 is kept in .*state.pt$", 1),
])  # fmt: skip
def test_what_is_not_finite_stops_with_epoch_and_step_and_keeps_the_last_good_state(
    few_digits, small_config, tmp_path, monkeypatch, rate, batch, said, kept
):
    """Caused for real, by an absurd step size: the loss of a later step; the last step of an epoch, whose own loss was
    fine; and the first loss of the next epoch. Going on meets the same end, and still loses nothing."""
    monkeypatch.setattr(training, "learning_rate_at", lambda *_: rate)
    config, state = small_config(batch_size=batch), tmp_path / "state.pt"
    for _ in range(2):
        with pytest.raises(training.NotFinite, match=said) as caught:
            training.train(config, 5, few_digits, state_path=state)
        assert isinstance(caught.value, UramError)
        assert state.exists() == bool(kept)
        if kept:
            found = checkpoints.load_state(state, config, 5)
            assert found["epoch"] == 1 and all(math.isfinite(loss) for loss in found["curves"]["loss"])


class Trap:  # which must not be unpickled
    def __reduce__(self):
        return (os.abort, ())


@pytest.mark.parametrize("write, said", [
    (lambda state, _: state.write_bytes(b""), "cannot be read as a training state"),
    (lambda state, _: state.write_bytes(b"PK\x03\x04 half a zip file"), "cannot be read as a training state"),
    (lambda state, _: torch.save({"run": Trap()}, state), "cannot be read as a training state"),
    (lambda state, _: torch.save([1, 2], state), "is the state of another run"),
    (lambda state, train: train(1, state), "is the state of another run"),
    (lambda state, train: train(0, state, sigma=0.2), "is the state of another run"),
])  # fmt: skip
def test_a_state_that_is_none_of_this_run_is_named_and_left(few_digits, small_config, tmp_path, write, said):
    def train(seed: int, state: Path, **changes) -> None:
        training.train(small_config(epochs=1, **changes), seed, few_digits, state_path=state)

    state = tmp_path / "state.pt"
    write(state, train)
    before = state.read_bytes()
    with pytest.raises(UramError, match=f"state.pt {said}; delete it"):
        train(0, state)
    assert state.read_bytes() == before


def test_a_process_is_prepared_for_its_device(monkeypatch):
    """An accelerator rounds no product; a processor's run leaves its settings alone and has its threads."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    cuda = convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    backends = *cuda, torch.backends.mkldnn.matmul
    before, threads = [backend.fp32_precision for backend in backends], torch.get_num_threads()
    try:
        convolutions.fp32_precision = products.fp32_precision = "tf32"
        machine.prepare_process("cpu", 2)
        assert convolutions.fp32_precision == products.fp32_precision == "tf32" and torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
        machine.prepare_process("cuda")
        assert convolutions.fp32_precision == products.fp32_precision == "ieee" and torch.get_num_threads() == 2
    finally:  # monkeypatch cannot put these back
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
        machine.prepare_process("cpu", threads)


def test_devices():
    assert machine.pick_device("cpu").type == "cpu"
    assert machine.pick_device("auto").type in machine.devices_here() and "cpu" in machine.devices_here()
    with pytest.raises(UramError, match="unknown device 'tpu'; one of: auto, cpu, cuda, mps"):
        machine.pick_device("tpu")
    absent = {"cuda", "mps"} - set(machine.devices_here())
    assert absent  # no machine has both
    for name in absent:
        with pytest.raises(UramError, match=f"'{name}' is not available on this machine; here: .*cpu"):
            machine.pick_device(name)
