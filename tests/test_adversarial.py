"""Adversarial training: the ball, what an attack must leave alone, exact resume, and what rows of one seed share."""

import dataclasses

import pytest
import torch
from torch import nn

from uram_lib import adversarial, data, training
from uram_lib.adversarial import SHIFT, attacked, augmented, robust_error
from uram_lib.attacks import pgd
from uram_lib.evaluation import draws_in_testing, stratified
from uram_lib.experiments import Config
from uram_lib.models import under
from uram_lib.replicas import Replicas
from uram_lib.seeding import stream

KINDS = ("vgg16", "vgg16-attention", "vgg16-random-glimpses", "vgg16-mlp")


@pytest.fixture(scope="module")
def colours() -> data.Dataset:
    """The embedded digits in colour, cut to 64 training and 40 validation images."""
    whole = data.load("digits-colour")
    first = lambda split, n: data.Split(split.images[:n], split.labels[:n], split.centres[:n])  # noqa: E731
    return dataclasses.replace(whole, train=first(whole.train, 64), validation=first(whole.validation, 40))


def config(model: str = "vgg16-attention", **changes) -> Config:
    """A slim network under the fast attack, two steps an epoch."""
    glimpses = {"glimpses": 3, "patch_size": 12, "scales": 1, "context": True, "entropy": "literal"}
    settings = {"epochs": 2, "batch_size": 32, "width": 1 / 32, "attack": "fast", "augment": True}
    return Config("digits-colour", model, **settings | (glimpses if model != "vgg16" else {}) | changes)


@pytest.fixture
def watched(monkeypatch):
    """Lists that grow with training: what each attack was given (images, labels, the seed of its generator), and what
    it made of it."""
    given, made = [], []
    real = adversarial.attacked

    def look(model, config, images, labels, draws, generator):
        given.append((images.clone(), labels.clone(), generator.initial_seed()))
        made.append(real(model, config, images, labels, draws, generator))
        return made[-1]

    monkeypatch.setattr(adversarial, "attacked", look)
    return given, made


def test_augmentation_shifts_and_mirrors(generator):
    """Each image is found again as one of 9 x 9 crops of itself on black, mirrored or not: by brute force."""
    images = 0.1 + 0.9 * torch.rand(60, 2, 5, 7, generator=generator)
    found = augmented(images, generator)
    assert found.shape == images.shape
    seen = []
    for image, made in zip(images, found, strict=True):
        wide = torch.zeros(2, 5 + 2 * SHIFT, 7 + 2 * SHIFT)
        wide[:, SHIFT:-SHIFT, SHIFT:-SHIFT] = image
        crops = {
            (y, x, mirror): wide[:, y : y + 5, x : x + 7].flip(-1) if mirror else wide[:, y : y + 5, x : x + 7]
            for y in range(9)
            for x in range(9)
            for mirror in (False, True)
        }
        seen.append(next(place for place, crop in crops.items() if torch.equal(crop, made)))
    ys, xs, mirrored = (set(values) for values in zip(*seen, strict=True))
    assert ys == xs == set(range(9)) and 15 < sum(mirror for *_, mirror in seen) < 45 and mirrored == {False, True}


@pytest.mark.parametrize("changes", [{"attack": "fast"}, {"attack": "pgd", "attack_steps": 2}])
@pytest.mark.parametrize("model", ["vgg16", "vgg16-attention"])
def test_training_sees_images_within_the_ball_that_are_harder(colours, watched, model, changes):
    """In double precision, where differences do not round. The attack is an attack: it raises the loss."""
    given, made = watched
    c = config(model, **changes, epochs=1)
    training.train(c, 0, colours)
    assert len(given) == 2
    for (images, _, _), found in zip(given, made, strict=True):
        assert 0 < (found.double() - images.double()).abs().max() <= c.attack_radius
        assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad


def test_the_attack_raises_the_loss_and_touches_neither_weights_nor_statistics(colours):
    c = config()
    model = training.train(dataclasses.replace(c, attack="none"), 0, colours).model.train()
    model.zero_grad(set_to_none=True)
    images, labels = colours.train.floats()[:32], colours.train.labels[:32]
    draws = draws_in_testing(model, images, sampled=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = attacked(model, c, images, labels, draws, stream(0, "attack"))
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any("running_mean" in name for name in before)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
    loss = lambda x: nn.functional.cross_entropy(under(model.eval(), *draws)(x), labels)  # noqa: E731
    assert loss(found) > loss(images)


def test_an_images_perturbation_does_not_depend_on_its_neighbours(colours):
    """Batch normalisation stands in evaluation mode while the batch is attacked."""
    c = config()
    model = training.new_model(c, 0, colours).double().train()
    images, labels = colours.train.floats()[:8].double(), colours.train.labels[:8]
    start, noise = (draw.double() for draw in draws_in_testing(model, images, sampled=True))
    together, alone = (
        attacked(model, c, images[:n], labels[:n], (start[:n], noise[:n]), stream(0, "attack")) for n in (8, 3)
    )
    torch.testing.assert_close(together[:3], alone, rtol=0, atol=1e-12)


def test_rows_of_one_seed_share_images_shifts_and_the_attacks_start(colours, watched):
    """Whatever the model: images in the same order, augmented alike, and attacked from the same stream."""
    given, _ = watched
    by_row = {}
    for model in KINDS:
        given.clear()
        training.train(config(model, epochs=1), 3, colours)
        by_row[model] = list(given)
    first = by_row.pop("vgg16")
    assert len(first) == 2 and not torch.equal(first[0][0], first[1][0])
    for rows in by_row.values():
        for (images, labels, seed), (others, their_labels, their_seed) in zip(first, rows, strict=True):
            assert torch.equal(images, others) and torch.equal(labels, their_labels) and seed == their_seed
    given.clear()
    training.train(config("vgg16", epochs=1), 4, colours)
    assert not torch.equal(given[0][0], first[0][0]) and given[0][2] != first[0][2]


@pytest.mark.parametrize("model", ["vgg16", "vgg16-attention"])
def test_resuming_gives_the_same_bits(colours, tmp_path, stopped_after, model):
    """Running statistics and the streams of augmentation and attack are part of what must come back."""
    c = config(model)
    whole = training.train(c, 0, colours)
    stopped_after(1, c, 0, colours, state_path=tmp_path / "state.pt")
    resumed = training.train(c, 0, colours, state_path=tmp_path / "state.pt")
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) and whole.curves == resumed.curves


def test_the_epoch_is_chosen_by_the_error_under_attack(colours, monkeypatch):
    """With errors under attack of 30, 10 and 20 % it is the second; clean images decide where nothing is attacked."""
    errors = iter((30.0, 10.0, 20.0))
    monkeypatch.setattr(training, "robust_error", lambda *_: next(errors))
    trained = training.train(config("vgg16", epochs=3), 0, colours)
    assert trained.best_epoch == 2 and trained.curves["val_robust_error"] == [30, 10, 20]
    assert len(trained.curves["val_error"]) == 3
    clean = training.train(config("vgg16", epochs=1, attack="none"), 0, colours)
    assert "val_robust_error" not in clean.curves


@pytest.mark.parametrize("model", ["vgg16", "vgg16-attention", "vgg16-random-glimpses"])
def test_the_error_under_attack_counts_what_pgd_leaves_wrong(colours, model):
    """The same images for all rows, and for a model with attention the starts that testing uses."""
    c = config(model)
    network = training.new_model(c, 0, colours).eval()
    index = stratified(colours.validation.labels)
    images, labels = colours.validation.floats()[index], colours.validation.labels[index]
    victim = under(network, *draws_in_testing(network, images))
    found = pgd(victim, images, labels, c.attack_radius, adversarial.CHOICE_STEPS)
    with torch.no_grad():
        wrong = (victim(found).argmax(-1) != labels).float().mean().item()
    assert robust_error(network, c, colours.validation) == pytest.approx(100 * wrong)


def test_seeds_together_train_as_each_alone(colours):
    """On an accelerator seeds are stacked; each is attacked through its own weights. One step: where a gradient is next
    to nothing, rounding decides its sign, and so the image of the step after."""
    c = config(epochs=1, batch_size=64)
    together = training.train_together(c, [0, 1], colours)
    for seed, found in enumerate(together):
        alone = training.train(c, seed, colours)
        assert found.curves["cross_entropy"] == pytest.approx(alone.curves["cross_entropy"], abs=1e-4)
        for name, value in alone.model.state_dict().items():
            if "running" in name:
                torch.testing.assert_close(found.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", KINDS)
def test_low_precision_is_of_the_training_steps_products_alone(colours, model):
    """Gradients point where single precision's do; weights, statistics and whatever is reported stay in it. Before the
    first steps they need not: batch normalisation of features that hardly differ enlarges any rounding."""
    c = config(model, width=1 / 8, epochs=8, augment=False)
    network = training.train(c, 0, colours).model.train()
    single, low = (gradient(network, dataclasses.replace(c, precision=p), colours) for p in ("float32", "bfloat16"))
    assert not torch.equal(single, low) and torch.cosine_similarity(single, low, dim=0) > 0.95
    trained = training.train(config(model, epochs=1, precision="bfloat16"), 0, colours)
    assert all(value.dtype in (torch.float32, torch.int64) for value in trained.model.state_dict().values())
    images = colours.validation.floats()
    with torch.no_grad():
        assert under(trained.model.eval(), *draws_in_testing(trained.model, images))(images).dtype == torch.float32


def test_the_share_of_right_answers_is_counted_in_single_precision(colours):
    """bfloat16 rounds most shares of 61 images."""
    c = config(precision="bfloat16", batch_size=61, epochs=1)
    replicas = Replicas([training.new_model(c, 0, colours)], c)
    images, labels, centres = colours.training_batch(torch.arange(61), stream(0, "data"))
    draws = training.draws_of(replicas.models[0], images, centres, {n: stream(0, n) for n in training.STREAMS})
    with training.mixed_precision(c, images.device):
        _, parts = replicas.loss([(images, labels, *draws)])
    right = 61 * parts["reward"].double().item()
    assert parts["reward"].dtype == torch.float32 and right > 0
    assert right == pytest.approx(round(right), abs=1e-4)


def gradient(network: nn.Module, c: Config, dataset: data.Dataset) -> torch.Tensor:
    """Of the loss of one fixed batch of 32, over all parameters."""
    replicas = Replicas([network], c)
    network.zero_grad()
    images, labels, centres = dataset.training_batch(torch.arange(32), stream(0, "data"))
    draws = training.draws_of(network, images, centres, {name: stream(0, name) for name in training.STREAMS})
    with training.mixed_precision(c, torch.device("cpu")):
        losses, _ = replicas.loss([(images, labels, *draws)])
    losses.sum().backward()
    return torch.cat([p.grad.flatten().clone() for p in network.parameters() if p.grad is not None])
