"""Testing a model: whole splits, the mean policy, starts that every row shares (ledger B7)."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uram_lib.data import load
from uram_lib.evaluation import BATCH, evaluate, label_leak, rollouts, uniform_start
from uram_lib.glimpse import location_to_pixel
from uram_lib.models import build
from uram_lib.models.ram import STARTS
from uram_lib.models.unified import start_location
from uram_lib.seeding import initialise, stream
from uram_lib.training import STREAMS, draws_of, new_model, train


@pytest.fixture
def ram(small_config, few_digits):
    """Trained a little: an untrained RAM names one class from everywhere, and many a bug would not show."""
    return train(small_config(), 0, few_digits).model.eval()


def test_uniform_start_covers_the_image():
    starts = uniform_start(20_000, stream(0, "start"))
    assert starts.shape == (20_000, 2) and starts.min() >= -1 and starts.max() <= 1
    counts = torch.histc(starts[:, 0], 10, -1, 1)
    assert ((counts - 2_000).abs() < 5 * 2_000**0.5).all()  # five standard deviations of a count


def test_evaluation_counts_every_image_once_whatever_the_batches(ram, digits):
    """The training split has more images than a batch; the truth is one pass over all of them at once."""
    split = digits.train
    assert len(split) > 2 * BATCH["cpu"] and len(split) % BATCH["cpu"]
    found = evaluate(ram, split, start_seeds=2)
    assert found.correct.shape == (2, len(split))
    for k in (0, 1):
        starts = uniform_start(len(split), stream(0, "start", k))
        with torch.no_grad():
            predicted = ram(split.floats(), starts).class_logits[:, -1].argmax(-1)
        agreed = (found.correct[k] == (predicted == split.labels)).float().mean()
        assert agreed > 0.999  # sums in another order may tip an image that stands on the border
    assert found.error == pytest.approx(100 * (1 - found.correct.float().mean().item()))


def test_the_label_leak_is_what_z_says_of_labels_that_are_told_to_it(small_config, few_digits):
    """Image by image, with Eq. 11 written out; then a Z that hears nothing, which repeats what it is told by chance."""
    ram = train(small_config(context=True), 0, few_digits).model.eval()
    split = few_digits.validation
    found = label_leak(ram, split)
    seen = rollouts(ram, split.floats(), 0)
    answers = seen.class_logits[:, -1].argmax(-1)
    spoken = []
    for states, logits, label in zip(seen.hiddens, seen.class_logits, split.labels, strict=True):
        context = sum(logits[t].softmax(0)[label] * states[t] for t in range(len(states)))
        spoken.append(ram.context_network(context[None]).argmax().item())
    wrong = [one != truth for one, truth in zip(spoken, split.labels.tolist(), strict=True)]
    assert found["Z"] == pytest.approx(100 * sum(wrong) / len(wrong))
    assert found["answer"] == pytest.approx(100 * (answers != split.labels).float().mean().item())
    assert found["chance"] == pytest.approx(found["answer"] / 9)
    last = ram.context_network[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.eye(10)[3]
    deaf = label_leak(ram, split)
    assert deaf["Z"] == pytest.approx(100 * (split.labels != 3).float().mean().item())
    assert deaf["repeats"] < 25 and label_leak(ram, split) == deaf


def test_start_seeds_differ_and_evaluation_repeats(ram, digits):
    split = digits.validation
    first, again = evaluate(ram, split, 3, monte_carlo=True), evaluate(ram, split, 3, monte_carlo=True)
    assert torch.equal(first.correct, again.correct)
    assert torch.equal(first.monte_carlo_correct, again.monte_carlo_correct)
    assert not torch.equal(first.correct[0], first.correct[1])
    images = split.floats()
    assert not torch.equal(rollouts(ram, images, 0).locations, rollouts(ram, images, 1).locations)
    mean, sampled = rollouts(ram, images, 0), rollouts(ram, images, 0, sampled=True)
    assert torch.equal(mean.locations[:, 0], sampled.locations[:, 0])
    assert not torch.equal(mean.locations[:, 1], sampled.locations[:, 1])


def test_diagnostics_by_hand(ram, digits):
    """Distance in pixels from the digit's centre (14, 14), entropy in bits, share of patches without a lit pixel."""
    split = digits.validation
    found = evaluate(ram, split, 1)
    trajectory = rollouts(ram, split.floats(), 0)
    pixels = (trajectory.locations + 1) * 14
    distance = ((pixels - 14) ** 2).sum(-1).sqrt().mean(0)
    assert found.glimpse_distance_px == pytest.approx(distance.tolist(), rel=1e-5)
    assert found.patch_entropy_bits == pytest.approx(trajectory.patch_entropies.mean(0).tolist(), rel=1e-5)
    blank = (trajectory.patch_entropies == 0).float().mean(0) * 100
    assert found.blank_patch_percent == pytest.approx(blank.tolist(), rel=1e-5) and blank[0] > 0
    assert len(found.glimpse_distance_px) == ram.glimpses


def test_evaluation_does_not_train_or_draw_from_the_global_generator(ram, digits):
    before = {name: value.clone() for name, value in ram.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    evaluate(ram, digits.validation, 2, monte_carlo=True)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, ram.state_dict()[name]) for name, value in before.items())


def test_feedforward_models_have_one_pass_and_no_glimpses(small_config, few_digits):
    model = initialise(build(small_config(model="fc"), few_digits.image_shape, 10), 0)
    split = few_digits.validation
    found = evaluate(model, split, start_seeds=5, monte_carlo=True)
    with torch.no_grad():
        truth = model(split.floats()).argmax(-1) == split.labels
    assert torch.equal(found.correct, truth[None]) and found.monte_carlo_correct is None
    assert found.glimpse_distance_px == found.patch_entropy_bits == found.blank_patch_percent == []


@given(x=st.floats(0, 99.9), y=st.floats(0, 59.9), u=st.floats(-1, 1), v=st.floats(-1, 1))
def test_starts_that_bound_the_choice_of_a_region(x, y, u, v):
    """By hand, on an image of 60 x 100 (height x width), in pixels."""
    uniform, centres = torch.tensor([[u, v]]), torch.tensor([[x, y]])
    pixels = {
        where: location_to_pixel(start_location(where, uniform, centres, 60, 100), 60, 100)[0] for where in STARTS
    }
    left, top = 50 * (x >= 50), 30 * (y >= 30)
    assert pixels["uniform"].tolist() == pytest.approx([(u + 1) * 50, (v + 1) * 30], abs=1e-3)
    assert pixels["image-centre"].tolist() == [50, 30]
    assert pixels["true-quadrant-centre"].tolist() == pytest.approx([left + 25, top + 15], abs=1e-3)
    assert pixels["true-quadrant"].tolist() == pytest.approx([left + (u + 1) * 25, top + (v + 1) * 15], abs=1e-3)
    assert pixels["true-centre"].tolist() == pytest.approx([x, y], abs=1e-3)


def test_a_model_that_starts_at_the_object_is_trained_and_tested_there(small_config):
    cluttered = load("digits-clutter60-4")
    config = small_config(dataset=cluttered.name, start="true-centre", epochs=1)
    model = new_model(config, 0, cluttered)
    starts = []
    model.register_forward_pre_hook(lambda _, inputs: starts.append(inputs[1]))
    images, centres = cluttered.validation.floats()[:6], cluttered.validation.centres[:6]
    start, _ = draws_of(model, images, centres, {name: stream(0, name) for name in STREAMS})
    torch.testing.assert_close(location_to_pixel(start, 60, 60), centres.float())
    found = evaluate(model, cluttered.validation, 2, monte_carlo=True)
    assert found.glimpse_distance_px[0] == pytest.approx(0, abs=1e-4) and len(starts) >= 4
    plain = evaluate(new_model(dataclasses.replace(config, start="uniform"), 0, cluttered), cluttered.validation)
    assert plain.glimpse_distance_px[0] > 15
    with pytest.raises(ValueError, match="unknown start 'middle'; one of: uniform, "):
        build(dataclasses.replace(config, start="middle"), (1, 60, 60), 10)


def test_scales_as_they_are_stay_unstandardised(small_config, few_digits):
    model = new_model(small_config(standardise=False), 0, few_digits)
    assert (model.patch_mean == 0).all() and (model.patch_std == 1).all()


def test_a_start_that_needs_centres_is_refused_without_them(ram, digits):
    images = digits.validation.floats()
    with pytest.raises(ValueError, match="a start at 'true-centre' takes the objects' centres"):
        rollouts(ram, images, 0, start="true-centre")
    assert (rollouts(ram, images, 0, start="image-centre").locations[:, 0] == 0).all()
