"""Testing a model: whole splits, three ways of testing, starts that every row shares (ledger B7, A8)."""

import copy
import dataclasses

import pytest
import torch
from conftest import small_config
from drawing import drawn, equal_weights
from hypothesis import given
from hypothesis import strategies as st

from uram_lib import UramError
from uram_lib.config import CHOICES
from uram_lib.data import load
from uram_lib.data.base import Split
from uram_lib.evaluation import AVERAGED, BATCH, evaluate, label_leak, mean_error, rollouts, stratified, uniform_start
from uram_lib.glimpse import location_to_pixel
from uram_lib.models.ram import start_location
from uram_lib.models.topdown import actions_to
from uram_lib.seeding import stream
from uram_lib.training import new_model, train


@pytest.fixture(scope="module")
def ram(few_digits):
    """Trained a little: an untrained RAM names one class from everywhere, and many a bug would not show."""
    return train(small_config(), 0, few_digits).model.eval()


def test_evaluation_counts_every_image_once_whatever_the_batches(ram, digits):
    """The training split has more images than a batch; the truth is one pass over all of them at once."""
    split = digits.train
    assert len(split) > 2 * BATCH and len(split) % BATCH
    found = evaluate(ram, split, start_seeds=2)
    assert found.correct.shape == (2, len(split)) and found.sampled_correct is None
    for k in (0, 1):
        starts = uniform_start(len(split), stream(0, "start", k))
        predicted = ram(split.floats(), starts).class_logits[:, -1].argmax(-1)
        agreed = (found.correct[k] == (predicted == split.labels)).float().mean()
        assert agreed > 0.999  # sums in another order may tip an image that stands on the border
    assert found.error == pytest.approx(100 * (1 - found.correct.float().mean().item()))
    assert mean_error(ram, split) == evaluate(ram, split).error  # what validation measures after each epoch


def test_three_ways_of_testing_and_what_the_record_says_of_them(ram, digits):
    """The mean path from each start; one sampled pass; class probabilities averaged over ten sampled passes."""
    split = digits.validation
    found, again = evaluate(ram, split, 3, sampled=True), evaluate(ram, split, 3, sampled=True)
    for name in ("correct", "sampled_correct", "averaged_correct"):
        assert torch.equal(getattr(found, name), getattr(again, name)), name
    assert not torch.equal(found.correct[0], found.correct[1])
    images, right = split.floats(), lambda answers: answers.argmax(-1) == split.labels
    mean, sampled = rollouts(ram, images, 0), [rollouts(ram, images, k, sampled=True) for k in range(AVERAGED)]
    assert torch.equal(mean.locations[:, 0], sampled[0].locations[:, 0])
    assert not torch.equal(mean.locations[:, 1], sampled[0].locations[:, 1])
    assert not torch.equal(sampled[0].locations[:, 0], sampled[1].locations[:, 0])  # other starts, too
    assert torch.equal(found.sampled_correct, right(sampled[0].class_logits[:, -1]))
    averaged = sum(one.class_logits[:, -1].softmax(-1) for one in sampled)
    assert torch.equal(found.averaged_correct, right(averaged))
    metrics, percent = found.metrics(), lambda correct: pytest.approx(100 * (~correct).float().mean().item())
    assert metrics["test_error_by_start"] == [percent(one) for one in found.correct]
    assert metrics["test_error"] == percent(found.correct)
    assert metrics["test_error_sampled"] == percent(found.sampled_correct)
    assert metrics["test_error_averaged"] == percent(found.averaged_correct)
    assert "3 starts" in metrics["test"] and "test_error_sampled" not in evaluate(ram, split).metrics()


def test_diagnostics_by_hand(ram, digits):
    """Distance in pixels from the digit's centre (14, 14), entropy in bits, share of patches without a lit pixel."""
    split = digits.validation
    found, trajectory = evaluate(ram, split, 1).metrics(), rollouts(ram, split.floats(), 0)
    distance = (((trajectory.locations + 1) * 14 - 14) ** 2).sum(-1).sqrt().mean(0)
    assert found["glimpse_distance_px"] == pytest.approx(distance.tolist(), rel=1e-5)
    assert found["patch_entropy_bits"] == pytest.approx(trajectory.patch_entropies.mean(0).tolist(), rel=1e-5)
    blank = (trajectory.patch_entropies == 0).float().mean(0) * 100
    assert found["blank_patch_percent"] == pytest.approx(blank.tolist(), rel=1e-5) and blank[0] > 0


def test_a_choosers_diagnostics_agree_with_what_the_rollouts_do(small_config):
    cluttered = load("digits-clutter60-4")
    model = new_model(small_config(model="unified", dataset=cluttered.name), 1, cluttered).eval()
    split = cluttered.validation.at(slice(100))
    found = evaluate(model, split, 2).metrics()["top_down"]
    (histogram,), (values,) = found["action_histogram"], found["q_values"]
    assert sum(histogram) == pytest.approx(1) and len(values) == 4
    chosen = actions_to(rollouts(model, split.floats(), 0).locations[:, 0], 1)[:, 0]  # the quadrant of the start
    assert histogram == pytest.approx([(chosen == a).float().mean().item() for a in range(4)])
    right = actions_to(split.centres / 30 - 1, 1)[:, 0]
    assert found["in_region_percent"] == pytest.approx(100 * (chosen == right).float().mean().item())


def test_evaluation_does_not_train_or_draw_from_the_global_generator(ram, digits):
    before, state = copy.deepcopy(ram), torch.get_rng_state()
    evaluate(ram, digits.validation, 2, sampled=True)
    assert torch.equal(torch.get_rng_state(), state) and equal_weights(before, ram)


def test_fewer_images_hold_all_classes_alike():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100, generator=stream(0, "labels"))]
    for count in (3, 12, 60):
        index = stratified(labels, count)
        assert len(set(index.tolist())) == count and (labels[index].bincount() == count // 3).all()
        assert torch.equal(index, stratified(labels)[:count])
    assert sorted(stratified(labels, 1_000).tolist()) == list(range(100))


@pytest.fixture(scope="module")
def leaking(few_digits):
    """A RAM trained with the context constraint; its Z has learnt to read the label from the weights."""
    return train(small_config(context="attended", epochs=12), 0, few_digits).model.eval()


def test_ledger_K1_predictions_do_not_depend_on_labels(leaking, few_digits):
    """The context uses the true label, so it is a training loss alone: whatever label is told in testing, an image is
    called one same class. The control: what Z says does change with the label that it is told."""
    split = few_digits.validation
    told = [Split(split.images, torch.full_like(split.labels, k), split.centres) for k in range(10)]
    correct = torch.stack([evaluate(leaking, one, 2).correct for one in told]).int()  # (label told, start, image)
    assert (correct.sum(0) == 1).all() and len(correct.argmax(0).unique()) > 5
    assert torch.equal(correct.argmax(0) == split.labels, evaluate(leaking, split, 2).correct)
    matrix = label_leak(leaking, split)[1]
    assert (matrix != matrix[0]).any()


def test_the_label_leak_is_what_z_says_of_labels_that_are_told_to_it(leaking, few_digits):
    """Eq. 11 written out; then a Z that hears nothing, which repeats what it is told by chance."""
    ram, split = copy.deepcopy(leaking), few_digits.validation
    found, matrix = label_leak(ram, split)
    seen = rollouts(ram, split.floats(), 0)
    context = torch.einsum("itk,ith->kih", seen.class_logits.softmax(-1), seen.hiddens)  # label told x image x h
    spoken = ram.context_network(context).argmax(-1)
    shares = torch.stack([(spoken == said).float().mean(1) for said in range(10)], 1)
    torch.testing.assert_close(matrix, 100 * shares, atol=1.01, rtol=0)  # one image on the border
    truth = spoken[split.labels, torch.arange(len(split))] == split.labels
    assert found["Z"] == pytest.approx(100 * (~truth).float().mean().item(), abs=1.01)
    answers = seen.class_logits[:, -1].argmax(-1)
    assert found["answer"] == pytest.approx(100 * (answers != split.labels).float().mean().item())
    assert found["chance"] == pytest.approx(found["answer"] / 9)
    last = ram.context_network[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.eye(10)[3]
    deaf, matrix = label_leak(ram, split, "detached")
    assert deaf["Z"] == pytest.approx(100 * (split.labels != 3).float().mean().item())
    assert deaf["repeats"] < 25 and (matrix[:, 3] == 100).all()


@given(x=st.floats(0, 99.9), y=st.floats(0, 59.9), u=st.floats(-1, 1), v=st.floats(-1, 1))
def test_ledger_A7_A8_starts_that_bound_the_choice_of_a_region(x, y, u, v):
    """By hand, on an image of 60 x 100 (height x width), in pixels."""
    uniform, centres = torch.tensor([[u, v]]), torch.tensor([[x, y]])
    left, top = 50 * (x >= 50), 30 * (y >= 30)
    right, low = (uniform[0] + 1 >= 1).tolist()
    by_hand = {
        "uniform": [(u + 1) * 50, (v + 1) * 30],
        "image-centre": [50, 30],
        "quadrant-centre": [25 + 50 * right, 15 + 30 * low],
        "true-quadrant": [left + (u + 1) * 25, top + (v + 1) * 15],
        "true-quadrant-centre": [left + 25, top + 15],
        "true-centre": [x, y],
        "farthest-quadrant": [50 - left + (u + 1) * 25, 30 - top + (v + 1) * 15],
    }
    assert by_hand.keys() == set(CHOICES["start"])
    for where, expected in by_hand.items():
        found = location_to_pixel(start_location(where, uniform, centres, 60, 100), 60, 100)[0]
        assert found.tolist() == pytest.approx(expected, abs=1e-3), where


def test_a_model_that_starts_at_the_object_is_trained_and_tested_there(small_config):
    cluttered = load("digits-clutter60-4")
    config = small_config(dataset=cluttered.name, start="true-centre", epochs=1)
    model, split = new_model(config, 0, cluttered), cluttered.validation
    start = drawn(model, 6)["start"]  # its objects lie at (14, 14)
    torch.testing.assert_close(location_to_pixel(start, 60, 60), torch.full((6, 2), 14.0))
    assert evaluate(model, split, 2, sampled=True).looks["glimpse_distance_px"][0] == pytest.approx(0, abs=1e-4)
    plain = new_model(dataclasses.replace(config, start="uniform"), 0, cluttered)
    assert evaluate(plain, split).looks["glimpse_distance_px"][0] > 15
    there = rollouts(plain, split.floats(), 0, centres=split.centres, start="true-centre")
    assert split.glimpse_distances(there.locations)[:, 0].max() < 1e-3
    with pytest.raises(UramError, match="a start at 'true-centre' takes the objects' centres"):
        rollouts(plain, split.floats(), 0, start="true-centre")
    assert (rollouts(plain, split.floats(), 0, start="image-centre").locations[:, 0] == 0).all()
