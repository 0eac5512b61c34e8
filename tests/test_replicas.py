"""Seeds trained side by side must get what each gets alone, whatever the model and the parts of its loss."""

import dataclasses
import json
import re

import pytest
import torch

from uram_lib import UramError, data, records, sweep, training
from uram_lib.experiments import experiment
from uram_lib.replicas import Objective, Replicas
from uram_lib.seeding import initialise, stream

MODELS = {
    "plain": {},
    "all terms": {"entropy": "literal", "context": True, "clip_norm": 0.05},
    "intent, LSTM, two scales, detached": {
        "entropy": "intent", "core": "lstm", "scales": 2, "reinforce_into_core": False, "clip_norm": 1.0,
    },
    "one glimpse": {"glimpses": 1},
    "unified": {"model": "unified", "entropy": "literal", "context": True, "clip_norm": 1.0},
    "unified, two levels, from the centre": {"model": "unified", "levels": 2, "region_start": "centre", "core": "lstm"},
    "fc": {"model": "fc"},
    "cnn2": {"model": "cnn2"},
    "cnn5": {"model": "cnn5"},
}  # fmt: skip


def models_of(config, count: int, dtype=torch.float64):
    from uram_lib.models import build

    return [initialise(build(config, (1, 28, 28), 10), seed).to(dtype) for seed in range(count)]


def batches_of(model, config, count: int):
    batches = []
    for seed in range(count):
        streams = {name: stream(seed, name) for name in training.STREAMS}
        images = torch.rand(12, 1, 28, 28, generator=stream(seed, "images"), dtype=torch.float64)
        labels = torch.randint(10, (12,), generator=stream(seed, "labels"))
        draws = training.draws_of(model, images, torch.full((12, 2), 14.0), streams, 0.3)
        batches.append((images, labels, *(draw.double() for draw in draws)))
    return batches


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_losses_and_gradients_equal_those_of_each_model_alone(small_config, changes):
    """The reference is plain autograd on the plain model, in float64."""
    config = small_config(**changes)
    models = models_of(config, 3)
    batches = batches_of(models[0], config, 3)
    alone = []
    for model, batch in zip(models, batches, strict=True):
        loss, parts = Objective(model, config)(*batch)
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        alone.append((loss.detach(), parts, gradients))
        model.zero_grad(set_to_none=True)
    replicas = Replicas(models, config)
    losses, parts = replicas.loss(batches)
    losses.sum().backward()
    for r, (loss, own_parts, gradients) in enumerate(alone):
        torch.testing.assert_close(losses[r].detach(), loss, rtol=1e-12, atol=1e-12)
        for name, part in own_parts.items():
            torch.testing.assert_close(parts[name][r], part, rtol=1e-12, atol=1e-12)
        for name, gradient in gradients.items():
            together = replicas.parameters[f"model.{name}"].grad[r]
            torch.testing.assert_close(together, gradient, rtol=1e-9, atol=1e-11)
    assert sum(g.abs().sum() for g in alone[0][2].values()) > 0


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_ten_steps_together_equal_ten_steps_alone(small_config, changes):
    """Clipping and Adam, too, are each seed's own. In float64, so that only a mistake makes a difference."""
    config = small_config(**changes)
    together = Replicas(models_of(config, 3), config)
    apart = [Replicas([model], config) for model in models_of(config, 3)]
    for step in range(10):
        batches = batches_of(together.models[0], config, 3)
        together.descend(together.loss(batches)[0], 1e-3 / (step + 1))
        for replica, batch in zip(apart, batches, strict=True):
            replica.descend(replica.loss([batch])[0], 1e-3 / (step + 1))
    start = models_of(config, 3)
    for r in range(3):
        ours, theirs, before = (model.state_dict() for model in (together.models[r], apart[r].models[0], start[r]))
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-9)
        assert any(not torch.equal(ours[name], before[name]) for name in ours)  # it did move


def test_a_whole_training_together_agrees_with_each_alone(few_digits, small_config):
    config = small_config(epochs=2)
    together = training.train_together(config, [0, 1, 2], few_digits)
    for seed, found in enumerate(together):
        alone = training.train(config, seed, few_digits)
        for name, curve in alone.curves.items():
            # An image on the border between two classes may fall to either side: one in a hundred is one percent.
            tolerance = {"val_error": 2.1, "train_error": 1.1, "reward": 0.011}.get(name, 2e-3)
            assert found.curves[name] == pytest.approx(curve, abs=tolerance)
        assert found.images == alone.images


def test_a_group_goes_on_from_its_states_even_in_other_company(few_digits, small_config, tmp_path):
    """Three seeds stop together after epoch 2; one goes on alone, two together. All end where an uncut group ends."""
    config = small_config(epochs=4)
    whole = training.train_together(config, [0, 1, 2], few_digits)
    paths = [tmp_path / f"{seed}.pt" for seed in range(3)]

    class Stopped(Exception):
        pass

    def stop(epoch, rows):
        assert len(rows) == 3
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped), pytest.MonkeyPatch.context() as patch:
        # With a clock that stands still, keeping costs nothing, so that states are kept after every epoch.
        patch.setattr(training.time, "perf_counter", lambda: 0.0)
        training.train_together(config, [0, 1, 2], few_digits, "cpu", paths, stop)
    assert all(training.load_state(path, config, seed)["epoch"] == 2 for seed, path in enumerate(paths))
    first = training.train(config, 0, few_digits, "cpu", paths[0])
    others = training.train_together(config, [1, 2], few_digits, "cpu", paths[1:])
    for expected, found in zip(whole, [first, *others], strict=True):
        assert found.curves["cross_entropy"] == pytest.approx(expected.curves["cross_entropy"], abs=2e-3)
        assert len(found.curves["val_error"]) == 4


def test_seeds_at_different_epochs_are_refused_together_and_sorted_out_by_a_sweep(local, stopped_after):
    shape = experiment("table1", "ram-6", "smoke")
    short = dataclasses.replace(shape, config=dataclasses.replace(shape.config, epochs=2))
    jobs = tuple(sweep.Job(short, seed, publish=False) for seed in range(3))
    digits = data.load("digits")

    stopped_after(1, short.config, 1, digits, state_path=jobs[1].state)  # the others have no epoch behind them
    with pytest.raises(UramError, match="seeds 0, 1, 2 stand at different epochs; train them apart"):
        training.train_together(short.config, [0, 1, 2], digits, "cpu", [job.state for job in jobs])
    sweep.run_group(jobs, "cpu")
    found = [json.loads(job.record.read_text()) for job in jobs]
    assert [record["seed"] for record in found] == [0, 1, 2]
    assert [record["provenance"]["together"] for record in found] == [2, 1, 2]
    assert not any(job.state.exists() for job in jobs)
    alone = training.train(short.config, 1, digits)
    assert found[1]["curves"]["cross_entropy"] == pytest.approx(alone.curves["cross_entropy"], abs=1e-4)  # rounded


def test_a_loss_that_is_not_finite_names_the_seed(few_digits, small_config):
    config = small_config(model="fc", learning_rate=1e30, schedule="constant", epochs=2)
    with pytest.raises(training.NotFinite, match=r"on \(seed [78]\)"):
        training.train_together(config, [7, 8], few_digits)


def test_seeds_that_diverge_together_are_tried_apart_and_named(local):
    shape = experiment("table1", "fc", "smoke")
    absurd = dataclasses.replace(shape.config, learning_rate=1e30, schedule="constant", epochs=2)
    jobs = tuple(sweep.Job(dataclasses.replace(shape, config=absurd), seed, False) for seed in (0, 1))
    with pytest.raises(UramError, match=r"^fc seed 0: the loss is .*\(seed 0\).*; fc seed 1: the loss is .*\(seed 1\)"):
        sweep.run_group(jobs, "cpu")


def test_a_run_that_fails_takes_no_other_of_its_group_with_it(local, stopped_after):
    """Seed 0 stands at another epoch and diverges, seed 1 has a damaged state, seed 2 is at another process; seed 3 is
    none the worse."""
    shape = experiment("table1", "fc", "smoke")
    short = dataclasses.replace(shape, config=dataclasses.replace(shape.config, epochs=2))
    jobs = tuple(sweep.Job(short, seed, publish=False) for seed in range(4))
    stopped_after(1, short.config, 0, data.load("digits"), state_path=jobs[0].state)
    state = torch.load(jobs[0].state, weights_only=False)
    first = next(value for value in state["model"].values() if value.is_floating_point())
    first.fill_(float("nan"))
    torch.save(state, jobs[0].state)
    jobs[1].state.write_bytes(b"no state")
    with sweep.only_one(jobs[2].lock), pytest.raises(UramError) as caught:
        sweep.run_group(jobs, "cpu")
    told = str(caught.value)
    assert "fc seed 0: the loss is not finite" in told and "fc seed 1: " in told
    assert re.search(r"fc seed 2: \S+ is being trained by another process", told) and "fc seed 3" not in told
    assert [job.finished for job in jobs] == [False, False, False, True]


def test_a_plan_forms_groups_of_a_row_longest_first(local):
    plan = sweep.plan("table1", "smoke", ["fc", "ram-7"], range(5), device="cpu", together=2)
    assert [sweep.name_of(group) for group in plan.groups] == [
        "ram-7 seeds 0, 1", "ram-7 seeds 2, 3", "ram-7 seed 4", "fc seeds 0, 1", "fc seeds 2, 3", "fc seed 4",
    ]  # fmt: skip
    assert sorted((j.experiment.row, j.seed) for group in plan.groups for j in group) == sorted(
        (j.experiment.row, j.seed) for j in plan.jobs
    )
    with pytest.raises(UramError, match="together must be a whole number from 0 on, got -1"):
        sweep.plan("table1", "smoke", together=-1)


def test_children_run_groups(local):
    plan = sweep.plan("table1", "smoke", ["fc"], range(4), device="cpu", jobs=2, together=2)
    paths = plan.run()
    assert [json.loads(path.read_text())["provenance"]["together"] for path in paths] == [2] * 4
    assert plan.groups == [] and records.load_records(root=records.runs_root(False), table="table1")
