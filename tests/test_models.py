"""What every model owes (`layers.Model`): draws, rollouts, a loss, answers; and `read`, the public face (T15, T16)."""

import pytest
import torch
from drawing import SHAPE, drawn, streams

from uram_lib import UramError, data
from uram_lib.config import CHOICES, Config
from uram_lib.models import build, count_parameters

LOOKS = {"glimpses": 3, "patch_size": 12, "scales": 2}
CASES = {
    "fc": {},
    "cnn2": {},
    "cnn5": {},
    "ram": LOOKS | {"context": "confidence", "each_step": 0.3, "reward": "probability"},
    "ram, LSTM, other H0": LOOKS | {"core": "lstm", "initial_hidden": "noise", "forget_bias": 1.0},
    "unified": LOOKS | {"context": "attended", "entropy": "literal"},
    "unified, two levels": LOOKS | {"levels": 2, "region_start": "centre", "behaviour": "softmax"},
    "unified, nine regions": LOOKS | {"regions": 3, "chooser_reward": "early"},
    "dram": LOOKS | {"glimpses": 18, "reward": "cumulative", "context": "attended", "width": 0.03},
    "cnn10": {"width": 0.03},
    "cnn11": {"width": 0.03},
    "vgg16": {"width": 0.05},
    "vgg16-attention": LOOKS | {"width": 0.05, "context": "attended"},
    "vgg16-random-glimpses": LOOKS | {"width": 0.05, "context": "attended", "core": "lstm"},
    "vgg16-mlp": LOOKS | {"width": 0.05, "context": "attended"},
}
NUMBERS = ("dram", "cnn10", "cnn11")
assert {name.split(",")[0] for name in CASES} == set(CHOICES["model"])  # every kind of model is here


class Case:
    """A model of some kind with five images and their labels, in float64."""

    def __init__(self, name: str):
        kind = name.split(",")[0]
        dataset = "digits-composed" if kind in NUMBERS else "digits-colour" if kind.startswith("vgg") else "digits"
        self.config = Config(dataset, kind, 2, **CASES[name])
        self.shape, self.classes = data.shape_of(dataset)
        self.model = build(self.config, self.shape, self.classes).initialise(3).double().eval()
        split = data.load(dataset).validation.at(slice(5))
        self.images, self.labels = split.floats().double(), split.labels
        self.glimpses = self.config.glimpses if kind != "vgg16-mlp" else 0
        self.draws = drawn(self.model, 5, dtype=torch.float64)
        self.answer = (6, 11) if kind in NUMBERS else (self.classes,)


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def test_draws_are_one_per_image_and_repeat(case):
    again = drawn(case.model, 5, dtype=torch.float64)
    assert all(len(value) == 5 and torch.equal(value, again[name]) for name, value in case.draws.items())
    assert bool(case.draws) == bool(case.glimpses)
    tested = case.model.draws(5, {name: streams()[name] for name in ("start", "policy")}, sampled=False)
    assert tested.keys() <= {"start", "hidden"} or case.config.model == "vgg16-random-glimpses"


def test_a_rollout_has_the_shapes_that_are_promised_and_an_answer_for_each_image(case):
    seen, looks = case.model.rollout(case.images, case.draws), case.glimpses
    steps = looks or (6 if case.config.model in NUMBERS else 1)
    assert seen.locations.shape == (5, looks, 2) and seen.patch_entropies.shape == (5, looks)
    assert seen.class_logits.shape == (5, steps, case.classes)
    actions = looks if case.config.model == "dram" else max(looks - 1, 0)
    assert seen.log_probs.shape == seen.baselines.shape == (5, actions)
    probabilities = case.model.probabilities(seen)
    assert probabilities.shape == (5, *case.answer)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones_like(probabilities.sum(-1)))
    labels = case.model.decode(probabilities)
    assert labels.shape == case.labels.shape and labels.dtype == torch.int64
    assert labels.min() >= 0 and labels.max() < case.classes


def test_T16_a_batch_of_one_gives_what_it_gives_within_a_batch(case):
    whole = case.model.rollout(case.images, case.draws)
    one = case.model.rollout(case.images[:1], {name: value[:1] for name, value in case.draws.items()})
    for name, field in one._asdict().items():
        torch.testing.assert_close(field, getattr(whole, name)[:1], msg=name)
    loss, _ = case.model.loss(case.images[:1], case.labels[:1], {n: v[:1] for n, v in case.draws.items()}, case.config)
    assert loss.shape == () and loss.isfinite()


def test_the_whole_loss_reaches_every_parameter_and_says_what_it_is_made_of(case):
    case.model.train()
    loss, parts = case.model.loss(case.images, case.labels, case.draws, case.config.at(1))
    loss.backward()
    idle = {name for name, p in case.model.named_parameters() if p.grad is None or not p.grad.any()}
    # The frozen Q-network learns nothing by itself; batch normalisation takes the bias before it away.
    assert all("target" in name or (".bias" in name and "vgg" in case.config.model) for name in idle), idle
    assert loss.shape == () and 0 <= parts["reward"] <= 1
    assert all(part.shape == () and not part.requires_grad for part in parts.values())


def test_one_image_is_read_as_within_a_batch(case):
    model, images = case.model.float().train(), case.images.float()
    whole, again = model.read(images), model.read(images)
    assert not model.training and all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert whole.labels.shape == case.labels.shape and whole.locations.shape == (5, case.glimpses, 2)
    assert whole.probabilities.shape == (5, *case.answer) and not whole.probabilities.requires_grad
    for i in range(5):
        one = model.read(images[i : i + 1])
        torch.testing.assert_close(one.probabilities[0], whole.probabilities[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.locations[0], whole.locations[i], rtol=1e-4, atol=1e-4)
    if "start" in case.draws and case.config.model != "unified":
        assert not torch.equal(model.read(images, seed=1).locations, whole.locations)


@pytest.mark.parametrize("name", ["fc", "cnn2", "cnn5"])
def test_T15_feedforward_models_take_images_that_are_not_square(name):
    assert build(Config("digits", name, 1), SHAPE, 11)(torch.rand(2, *SHAPE)).shape == (2, 11)


GREY = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("images, said", [
    ((255 * GREY).byte(), "must be floats in .* .torch.float32., got torch.uint8; convert with images.float.. / 255"),
    (255 * GREY, "must lie in .0, 1., got .* divide values of 0 to 255 by 255"),
    (GREY - 0.5, "must lie in .0, 1., got -0.5"),
    (GREY.masked_fill(GREY > 0.9, torch.nan), "must lie in .0, 1., got nan"),
    (GREY.double(), "must be floats in .* .torch.float32., got torch.float64; convert with images.to.torch.float32"),
    (GREY[..., 1:], r"must be \(B, 1, 28, 28\), got \(2, 1, 28, 27\); .*pad"),
    (GREY.expand(-1, 3, -1, -1), r"must be \(B, 1, 28, 28\), got \(2, 3, 28, 28\); .*average colours"),
    (GREY[0], r"must be \(B, 1, 28, 28\), got \(1, 28, 28\); add axes with"),
    (GREY[:0], "must hold at least one image, got none"),
    (GREY.numpy(), "must be a torch.Tensor, got ndarray"), ([[0.0]], "must be a torch.Tensor, got list"),
])  # fmt: skip
def test_what_is_no_image_is_refused_in_one_line_that_says_how_to_convert_it(images, said):
    with pytest.raises(UramError, match=f"^images {said}"):
        build(Config("digits", "ram", 1, **LOOKS), (1, 28, 28), 10).read(images)


def test_a_start_at_the_object_cannot_be_read():
    with pytest.raises(UramError, match="a start at 'true-centre' takes the objects' centres"):
        build(Config("digits", "ram", 1, start="true-centre", **LOOKS), (1, 28, 28), 10).read(GREY)


def test_what_serves_training_alone_is_not_counted():
    ram, both = (Case(name).model for name in ("ram", "unified"))
    size, whole, chooser, *heads = (
        sum(p.numel() for p in part.parameters())
        for part in (both.ram, ram, both.topdown.online, ram.context_network, ram.baseline_network)
    )
    assert size == whole and count_parameters(ram) == whole - sum(heads)
    assert count_parameters(both) == count_parameters(ram) + chooser
