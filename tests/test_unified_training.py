"""The unified model in the training loop: pairing with RAM, the frozen network's pace, exact resume, what is told."""

import dataclasses

import pytest
import torch

from uram_lib import data, records, sweep, training
from uram_lib.evaluation import Evaluation, evaluate, rollouts
from uram_lib.experiments import experiment
from uram_lib.models import RAM, Unified
from uram_lib.models.topdown import actions_to


@pytest.fixture(scope="module")
def cluttered():
    """The embedded digits on 60 px canvases, cut to 200 training and 100 validation images."""
    whole = data.load("digits-clutter60-4")
    first = lambda split, n: data.Split(split.images[:n], split.labels[:n], split.centres[:n])  # noqa: E731
    return dataclasses.replace(whole, train=first(whole.train, 200), validation=first(whole.validation, 100))


@pytest.fixture
def unified_config(small_config):
    return small_config(model="unified", dataset="digits-clutter60-4", patch_size=12, scales=2, curriculum_epochs=2)


def test_a_unified_model_starts_from_the_weights_of_the_ram_of_its_seed(cluttered, unified_config):
    """Rows are paired by seed: what two models share must be equal, the order of images and the start's draw too."""
    unified = training.new_model(unified_config, 3, cluttered)
    ram = training.new_model(dataclasses.replace(unified_config, model="ram"), 3, cluttered)
    assert isinstance(unified, Unified) and isinstance(ram, RAM)
    ours, theirs = unified.ram.state_dict(), ram.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    for online, target in zip(unified.topdown.online.parameters(), unified.topdown.target.parameters(), strict=True):
        assert torch.equal(online, target)
    streams = lambda: {name: training.stream(3, name, 1) for name in training.STREAMS}  # noqa: E731
    eight = cluttered.validation.floats()[:8], cluttered.validation.centres[:8]
    start, noise = training.draws_of(ram, *eight, streams())
    within, same_noise, explore, epsilon = training.draws_of(unified, *eight, streams(), 0.25)
    torch.testing.assert_close(within, (start + 1) / 2)
    assert torch.equal(noise, same_noise) and explore.shape == (8, 1, 2) and epsilon == 0.25


def test_the_frozen_network_follows_once_an_epoch(cluttered, unified_config):
    """After an epoch it holds the weights that the online network had when the epoch began."""
    seen = []

    def look(epoch, row):
        replicas = seen_by["replicas"]
        topdown = replicas.models[0].topdown
        seen.append([{n: p.clone() for n, p in part.state_dict().items()} for part in (topdown.online, topdown.target)])

    seen_by = {}
    made = training.Replicas

    class Watched(made):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            seen_by["replicas"] = self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Replicas", Watched)
        training.train(unified_config, 0, cluttered, on_epoch=look)
    for (online, _), (_, target) in zip(seen, seen[1:], strict=False):
        assert all(torch.equal(online[name], target[name]) for name in online)
    last_online, last_target = seen[-1]
    assert any(not torch.equal(last_online[name], last_target[name]) for name in last_online)


def test_resuming_gives_the_same_bits(cluttered, unified_config, tmp_path, stopped_after):
    whole = training.train(unified_config, 0, cluttered)
    stopped_after(2, unified_config, 0, cluttered, state_path=tmp_path / "state.pt")
    resumed = training.train(unified_config, 0, cluttered, state_path=tmp_path / "state.pt")
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) and whole.curves == resumed.curves
    assert set(whole.curves) >= {"q", "reward", "policy", "val_error"}


def test_diagnostics_agree_with_what_the_rollouts_do(cluttered, unified_config):
    model = training.new_model(unified_config, 1, cluttered).eval()
    split = cluttered.validation
    found = evaluate(model, split, 2)
    assert isinstance(found, Evaluation)
    (histogram,), (values,) = found.top_down["action_histogram"], found.top_down["q_values"]
    assert sum(histogram) == pytest.approx(1) and len(values) == 4
    trajectory = rollouts(model, split.floats(), 0)
    chosen = actions_to(trajectory.locations[:, 0], 1)[:, 0]  # the quadrant that the start lies in
    assert histogram == pytest.approx([(chosen == a).float().mean().item() for a in range(4)])
    right = actions_to(split.centres / 30 - 1, 1)[:, 0]
    assert found.top_down["in_region_percent"] == pytest.approx(100 * (chosen == right).float().mean().item())


def test_a_run_writes_a_record_with_the_diagnostics_and_a_checkpoint_that_loads(local):
    from uram_lib import checkpoints

    shape = experiment("table2", "ours-6", "smoke")
    short = dataclasses.replace(shape, config=dataclasses.replace(shape.config, epochs=1, glimpses=2))
    job = sweep.Job(short, 0, publish=False)
    sweep.run_group((job,), "cpu")
    record = records.read_record(job.record)
    assert set(record["metrics"]["top_down"]) == {"action_histogram", "q_values", "in_region_percent"}
    assert len(record["metrics"]["glimpse_distance_px"]) == 2 and record["dataset"]["variant"] == "clutter60-4"
    model, config = checkpoints.load(records.checkpoint_path(short, 0, False), short.config)
    assert isinstance(model, Unified) and config == short.config
