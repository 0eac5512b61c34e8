"""Adversarial training: the ball, what an attack must leave alone, exact resume, and what rows of one seed share."""

import copy
import dataclasses

import pytest
import torch
from conftest import linear, warmed
from drawing import equal_weights
from torch import nn

from uram_lib import data, training
from uram_lib.adversarial import attacks
from uram_lib.adversarial.attacks import SHIFT, Under, augmented, prepared
from uram_lib.config import ATTACK_RADIUS, Config
from uram_lib.data.base import Dataset, Split
from uram_lib.evaluation import draws_in_testing, evaluate, stratified
from uram_lib.seeding import stream

KINDS = ("vgg16", "vgg16-attention", "vgg16-random-glimpses", "vgg16-mlp")


@pytest.fixture(scope="module")
def colours() -> Dataset:
    """The embedded digits in colour, cut to 64 training and 40 validation images."""
    whole = data.load("digits-colour")
    return dataclasses.replace(whole, train=whole.train.at(slice(64)), validation=whole.validation.at(slice(40)))


def config(model: str = "vgg16-attention", **changes) -> Config:
    """A slim network under the fast attack, two steps per epoch."""
    glimpses = {"glimpses": 3, "patch_size": 12, "scales": 1, "context": "attended", "entropy": "literal"}
    settings = {"epochs": 2, "batch_size": 32, "width": 1 / 32, "attack": "fast", "augment": True}
    return Config("digits-colour", model, **settings | (glimpses if model != "vgg16" else {}) | changes)


def test_augmentation_shifts_and_mirrors(generator):
    """Each image is found again as one of 9 x 9 crops of itself on black, mirrored or not: by brute force."""
    images = 0.1 + 0.9 * torch.rand(60, 2, 5, 7, generator=generator)
    found = augmented(images, generator)
    assert found.shape == images.shape
    seen = []
    for image, made in zip(images, found, strict=True):
        wide = nn.functional.pad(image, [SHIFT] * 4)
        crops = {(y, x): wide[:, y : y + 5, x : x + 7] for y in range(9) for x in range(9)}
        seen.append(next((*place, mirror) for place, crop in crops.items() for mirror in (False, True)
                         if torch.equal(crop.flip(-1) if mirror else crop, made)))  # fmt: skip
    ys, xs, mirrored = zip(*seen, strict=True)
    assert set(ys) == set(xs) == set(range(9)) and 15 < sum(mirrored) < 45


@pytest.mark.parametrize("attack", [{"attack": "fast"}, {"attack": "pgd", "attack_steps": 2}], ids=str)
def test_the_attack_raises_the_loss_within_the_ball_and_touches_neither_weights_nor_statistics(colours, attack):
    """The ball in double precision, where differences do not round."""
    model = training.train(config(attack="none"), 0, colours).model.train()
    model.zero_grad(set_to_none=True)
    images, labels = colours.train.floats()[:32], colours.train.labels[:32]
    draws = draws_in_testing(model, images, sampled=True)
    before = copy.deepcopy(model)
    found = prepared(model, config(augment=False, **attack), images, labels, draws, {"attack": stream(0, "attack")})
    assert 0 < (found.double() - images.double()).abs().max() <= ATTACK_RADIUS
    assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad
    assert equal_weights(before, model)  # running statistics among them
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
    clean, attacked = (nn.functional.cross_entropy(Under(model.eval(), draws)(x), labels) for x in (images, found))
    assert attacked > clean


def test_an_images_perturbation_does_not_depend_on_its_neighbours(colours):
    """Batch normalisation is in evaluation mode while the batch is attacked."""
    c = config(augment=False)
    model = training.new_model(c, 0, colours).double().train()
    images, labels = colours.train.floats()[:8].double(), colours.train.labels[:8]
    draws = {name: value.double() for name, value in draws_in_testing(model, images, sampled=True).items()}
    found = []
    for count in (8, 3):
        own, start = {name: value[:count] for name, value in draws.items()}, {"attack": stream(0, "attack")}
        found.append(prepared(model, c, images[:count], labels[:count], own, start))
    torch.testing.assert_close(found[0][:3], found[1], rtol=0, atol=1e-12)


def test_the_attack_meets_the_policy_of_the_epoch(colours, monkeypatch):
    """Its sigma is that of the configuration it is given, not the model's own, which is the last epoch's."""
    c = config(sigma=0.3, last_sigma=0.1, augment=False)
    model, seen = training.new_model(c, 0, colours), []
    real, images, labels = model.rollout, colours.train.floats()[:4], colours.train.labels[:4]
    monkeypatch.setattr(model, "rollout", lambda x, draws, sigma: seen.append(sigma) or real(x, draws, sigma))
    for epoch in (1, 2):
        prepared(model, c.at(epoch), images, labels, draws_in_testing(model, images), {"attack": stream(0, "attack")})
    assert model.sigma == pytest.approx(0.1) and seen == pytest.approx([0.3, 0.1])


def test_rows_of_one_seed_share_images_shifts_and_the_attacks_start(colours, monkeypatch):
    """Whatever the model: images in the same order, augmented alike, and attacked from the same stream. The attack that
    chooses the epoch has no generator and is left out."""
    given, real = [], attacks.pgd  # `fgsm` is one step of it

    def look(model, images, labels, *sizes, generator=None, **steps):
        if generator is not None:
            given.append((images.clone(), labels.clone(), generator.initial_seed()))
        return real(model, images, labels, *sizes, generator=generator, **steps)

    monkeypatch.setattr(attacks, "pgd", look)

    def row(model: str, seed: int) -> list[tuple]:
        given.clear()
        training.train(config(model, epochs=1), seed, colours)
        return list(given)

    first, *others = (row(model, 3) for model in KINDS)
    assert len(first) == 2 and not torch.equal(first[0][0], first[1][0])
    for other in others:
        for (images, labels, seed), (same, their_labels, their_seed) in zip(first, other, strict=True):
            assert torch.equal(images, same) and torch.equal(labels, their_labels) and seed == their_seed
    another = row("vgg16", 4)
    assert not torch.equal(another[0][0], first[0][0]) and another[0][2] != first[0][2]


def test_the_epoch_is_chosen_by_the_error_under_attack(colours, monkeypatch):
    """With errors under attack of 30, 10 and 20 % it is the second; clean images decide where nothing is attacked."""
    errors = iter((30.0, 10.0, 20.0))
    monkeypatch.setattr(training, "robust_error", lambda *_: next(errors))
    trained = training.train(config("vgg16", epochs=3), 0, colours)
    assert trained.best_epoch == 2 and trained.curves["val_robust_error"] == [30, 10, 20]
    assert len(trained.curves["val_error"]) == 3
    clean = training.train(config("vgg16", epochs=1, attack="none"), 0, colours)
    assert "val_robust_error" not in clean.curves


def test_the_error_under_attack_is_that_of_the_closed_form_on_a_share_of_every_class():
    """Independent truth: an image of a linear model stands if its margin exceeds epsilon |w|_1. Of 1,200 images, two in
    three of one class, 1,000 are attacked, and all of the rarer class are among them."""
    model, images, right = linear(3)
    ones = right.nonzero()[:80, 0].repeat(5)
    index = torch.cat(((1 - right).nonzero()[:80, 0].repeat(10), ones))
    images = (255 * images[index]).round().to(torch.uint8)
    labels = right[index]
    labels[::10] = 1 - labels[::10]
    split = Split(images, labels, torch.zeros(len(index), 2))
    margins = (2 * labels - 1) * model.margin(split.floats()).detach()
    broken = margins <= ATTACK_RADIUS * model.weight.detach().abs().sum()
    chosen = stratified(labels, 1_000)
    assert len(split) > len(chosen) == 1_000 and (labels[chosen] == 1).sum() == (labels == 1).sum()
    assert 0.2 < broken.float().mean() < 0.8 and broken[chosen].float().mean() != broken.float().mean()
    assert attacks.robust_error(model, split) == pytest.approx(100 * broken[chosen].float().mean().item())


def test_the_error_under_attack_is_from_the_starts_that_testing_uses(colours, monkeypatch):
    """With no ball to move in it is the error of testing from its first start, which another start changes."""
    monkeypatch.setattr(attacks, "ATTACK_RADIUS", 0.0)
    split, network = colours.validation, training.new_model(config(), 0, colours)
    network = warmed(network, split.floats(), draws_in_testing(network, split.floats(), sampled=True))
    with torch.no_grad():
        network.classifier.weight.mul_(10)  # so that what is seen in glimpses matters
    differ = []
    for label in range(10):  # how many images are called so depends on the start
        same = dataclasses.replace(split, labels=torch.full_like(split.labels, label))
        first, second = evaluate(network, same.at(stratified(same.labels)), 2).metrics()["test_error_by_start"]
        assert attacks.robust_error(network, same) == pytest.approx(first, abs=1e-4)
        differ.append(abs(first - second) > 1)
    assert any(differ)


def step(network: nn.Module, c: Config, dataset: Dataset, count: int) -> tuple[torch.Tensor, dict]:
    """The loss of one fixed batch, in the precision of training, and its parts."""
    images, labels, centres = dataset.training_batch(torch.arange(count), stream(0, "data"))
    draws = network.draws(count, {name: stream(0, name) for name in training.STREAMS}, centres)
    with torch.autocast("cpu", torch.bfloat16, enabled=c.precision == "bfloat16"):
        return network.loss(images, labels, draws, c)


@pytest.mark.parametrize("model", KINDS)
def test_low_precision_is_of_the_training_steps_products_alone(colours, model):
    """Gradients point where single precision's do; weights, statistics and whatever is reported stay in it. Before the
    first steps they need not: batch normalisation of features that hardly differ enlarges any rounding."""
    c = config(model, width=1 / 8, epochs=8, augment=False)
    network = training.train(c, 0, colours).model.train()
    gradients = []
    for precision in ("float32", "bfloat16"):
        network.zero_grad()
        step(network, dataclasses.replace(c, precision=precision), colours, 32)[0].backward()
        gradients.append(torch.cat([p.grad.flatten().clone() for p in network.parameters() if p.grad is not None]))
    assert not torch.equal(*gradients) and torch.cosine_similarity(*gradients, dim=0) > 0.95
    trained = training.train(config(model, epochs=1, precision="bfloat16"), 0, colours).model.eval()
    assert all(value.dtype in (torch.float32, torch.int64) for value in trained.state_dict().values())
    images = colours.validation.floats()
    with torch.no_grad():
        assert Under(trained, draws_in_testing(trained, images))(images).dtype == torch.float32


def test_the_share_of_right_answers_is_counted_in_single_precision(colours):
    """bfloat16 rounds most shares of 61 images."""
    c = config(precision="bfloat16")
    _, parts = step(training.new_model(c, 0, colours), c, colours, 61)
    right = 61 * parts["reward"].double().item()
    assert parts["reward"].dtype == torch.float32 and right > 0
    assert right == pytest.approx(round(right), abs=1e-4)
