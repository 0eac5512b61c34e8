"""Attacks: oracle 11 and closed forms on linear models, what fools weak attacks and not strong ones, and the flags."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from uram_lib.attacks import (
    LOSSES,
    ball,
    cross_entropy,
    fgsm,
    frozen,
    literal_pgd,
    margin,
    pgd,
    pgd_path,
    red_flags,
    robust_correct,
    sign_noise,
    square,
)
from uram_lib.seeding import initialise

SHAPE = (2, 4, 4)
SIZE = math.prod(SHAPE)


class Linear(nn.Module):
    """Logits (-m, m) with m = w x + b: class 1 where m > 0."""

    def __init__(self, weight: Tensor, bias: float = 0.0):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def margin(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight + self.bias

    def forward(self, images: Tensor) -> Tensor:
        m = self.margin(images)
        return torch.stack((-m, m), -1)


def draw(seed: int, batch: int = 6, classes: int = 3):
    """(a network of two layers, images, labels that it gets right)."""
    g = torch.Generator().manual_seed(seed)
    network = initialise(nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 20), nn.ReLU(), nn.Linear(20, classes)), seed)
    images = torch.rand(batch, *SHAPE, generator=g)
    return network, images, network(images).argmax(-1)


def linear(seed: int, batch: int = 200):
    """(a linear model, images that no epsilon up to 0.2 pushes out of [0, 1], their labels); the margins spread over
    what such epsilons reach."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(SIZE, generator=g)
    along = 0.4 * torch.rand(batch, 1, generator=g) - 0.2  # (B, 1)
    images = (0.45 + 0.1 * torch.rand(batch, SIZE, generator=g) + along * weight.sign()).view(batch, *SHAPE)
    model = Linear(weight, -0.5 * weight.sum().item())
    return model, images, (model.margin(images) > 0).long()


def all_attacks(epsilon: float, seed: int = 0, steps: int = 5):
    """Every attack of the module, as functions of (model, images, labels)."""
    g = torch.Generator().manual_seed(seed)
    return {
        "fgsm": lambda m, x, y: fgsm(m, x, y, epsilon),
        "random fgsm": lambda m, x, y: fgsm(m, x, y, epsilon, 1.25 * epsilon, generator=g),
        "literal": lambda m, x, y: literal_pgd(m, x, y, epsilon, steps),
        "pgd": lambda m, x, y: pgd(m, x, y, epsilon, steps),
        "restarted": lambda m, x, y: pgd(m, x, y, epsilon, steps, loss="margin", restarts=2, generator=g),
        "wild": lambda m, x, y: pgd(m, x, y, epsilon, steps, step_size=3.0),
        "square": lambda m, x, y: square(m, x, y, epsilon, g, queries=30),
        "noise": lambda m, x, y: sign_noise(x, epsilon, g),
    }


def assert_in_ball(adversarial: Tensor, images: Tensor, epsilon: float):
    """Exactly: in double precision, where a difference of two float32 numbers does not round."""
    assert adversarial.shape == images.shape and adversarial.dtype == images.dtype
    assert (adversarial.double() - images.double()).abs().max() <= epsilon
    assert adversarial.min() >= 0 and adversarial.max() <= 1


@pytest.mark.parametrize("name", ["fgsm", "literal", "pgd", "restarted"])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.2])
def test_oracle11_the_optimum_of_a_linear_model_is_x_plus_epsilon_sign_w(name, epsilon):
    """Closed form: label 1 is attacked by -epsilon sign(w), label 0 by +epsilon sign(w), the margin falls by
    epsilon |w|_1, and the robust accuracy is the share of images with a clean margin above that.

    Equality with a public implementation was checked once, outside the project: PGD of torchattacks (repository
    Harry24k/adversarial-attacks-pytorch, commit 005d51c, without its random start) against the last point of
    `pgd_path`, on 4 networks of two layers x 50 images in double precision, with (epsilon, step, steps) of
    (8/255, 2/255, 10), (0.3, 0.025, 30) and (0.1, 0.1, 1): no value differs by more than 6.0e-8, which is `ROUNDING`.
    """
    model, images, labels = linear(3)
    sign = (1 - 2 * labels).view(-1, 1, 1, 1) * model.weight.detach().sign().view(1, *SHAPE)
    adversarial = all_attacks(epsilon, steps=20)[name](model, images, labels)
    torch.testing.assert_close(adversarial, images + epsilon * sign, rtol=0, atol=2e-7)
    reach = epsilon * model.weight.detach().abs().sum()
    truth = model.margin(images).detach().abs() > reach
    assert (model(adversarial).argmax(-1) == labels).tolist() == truth.tolist()
    assert 0 < truth.float().mean() < 1 or epsilon == 0.2


def test_oracle11_clipped_to_the_images_range():
    """Where [0, 1] cuts the ball, the optimum is clip(x + epsilon sign): a cube's corner is the linear optimum."""
    model, _, _ = linear(3)
    images = torch.rand(50, *SHAPE, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    labels = (model.margin(images) > 0).long()
    sign = (1 - 2 * labels).view(-1, 1, 1, 1) * model.weight.detach().sign().view(1, *SHAPE)
    optimum = (images + 0.3 * sign).clamp(0, 1)
    assert (optimum != images + 0.3 * sign).any()
    for name in ("fgsm", "literal", "pgd"):
        found = all_attacks(0.3, steps=10)[name](model, images, labels)
        torch.testing.assert_close(found, optimum, rtol=0, atol=2e-7)


def test_oracle11_multi_class_softmax_linear():
    """By hand, three classes: with the margin loss one step follows the strongest rival k, and the margin grows by
    epsilon |w_k - w_y|_1 exactly; cross entropy's gradient is sum_k p_k w_k - w_y."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(3, SIZE, generator=g)
    images = 0.3 + 0.4 * torch.rand(9, *SHAPE, generator=g)
    logits = images.flatten(1) @ weight.T
    labels, rival = logits.argsort(-1, descending=True)[:, :2].unbind(-1)

    def model(x):
        return x.flatten(1) @ weight.T

    epsilon = 1e-3
    difference = weight[rival] - weight[labels]
    found = fgsm(model, images, labels, epsilon, loss="margin")
    torch.testing.assert_close(found, images + epsilon * difference.sign().view_as(images), rtol=0, atol=2e-7)
    growth = margin(model(found), labels) - margin(logits, labels)
    torch.testing.assert_close(growth, epsilon * difference.abs().sum(-1), rtol=1e-2, atol=1e-5)
    gradient = logits.softmax(-1) @ weight - weight[labels]
    found = fgsm(model, images, labels, epsilon)
    torch.testing.assert_close(found, images + epsilon * gradient.sign().view_as(images), rtol=0, atol=2e-7)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    epsilon=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 8 / 255, 0.3, 1.0])),
    corners=st.booleans(),
)
def test_oracle11_no_attack_ever_leaves_the_ball_or_the_images_range(seed, epsilon, corners):
    network, images, labels = draw(seed, batch=3)
    images = images.round() if corners else images
    for attack in all_attacks(epsilon, seed, steps=3).values():
        assert_in_ball(attack(network, images, labels), images, epsilon)


def test_oracle11_pgd_is_monotone_in_epsilon_and_restarts():
    network, images, labels = draw(1, batch=60)
    ladder = [margin(network(pgd(network, images, labels, e, 20)), labels).mean() for e in (0, 0.01, 0.03, 0.1, 0.3)]
    assert ladder == sorted(ladder) and ladder[0] < ladder[-1]
    found = []
    for restarts in (1, 2, 5):  # the first runs of each are the same
        g = torch.Generator().manual_seed(0)
        found.append(margin(network(pgd(network, images, labels, 0.05, 3, restarts=restarts, generator=g)), labels))
    assert (found[0] <= found[1]).all() and (found[1] <= found[2]).all() and (found[0] < found[2]).any()


@pytest.mark.parametrize("loss", list(LOSSES))
def test_more_steps_are_at_least_as_strong_on_a_convex_case(loss):
    """Linear models: a step of a twentieth of epsilon needs twenty; each step gains the same."""
    model, images, labels = linear(2)
    margins = [
        margin(model(pgd(model, images, labels, 0.1, steps, step_size=0.005, loss=loss)), labels)
        for steps in (0, 1, 5, 20, 40)
    ]
    for fewer, more in itertools.pairwise(margins):
        assert (more >= fewer).all()
    torch.testing.assert_close(margins[2] - margins[0], 5 * (margins[1] - margins[0]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(margins[3], margins[4], rtol=0, atol=1e-5)


@given(seed=st.integers(0, 10**6), epsilon=st.floats(0, 1), steps=st.integers(1, 30))
def test_equation_15_by_the_letter_is_fgsm(seed, epsilon, steps):
    """Ledger H1: to the last bit and for any number of steps, on a network where PGD's 30 steps go elsewhere."""
    network, images, labels = draw(seed, batch=3)
    assert torch.equal(literal_pgd(network, images, labels, epsilon, steps), fgsm(network, images, labels, epsilon))


def test_many_steps_find_what_one_cannot():
    """A roof: the full step climbs one slope and slides down the other; small steps stop near the ridge."""

    def model(x):
        height = (x.flatten(1) - 0.5).sum(1, keepdim=True)
        gain = 0.05 - (height - 0.05).abs()  # (B, 1), largest at a height of 0.05, 0 at 0 and at 0.1
        return torch.cat((-gain + 0.06, gain), -1)

    image, label = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    before, one, many = (margin(model(x), label).item() for x in
                         (image, fgsm(model, image, label, 0.1), pgd(model, image, label, 0.1)))  # fmt: skip
    assert before == pytest.approx(-0.06, abs=1e-6) == one and many == pytest.approx(0.04, abs=0.01)


def test_pgd_path_by_hand():
    """A parabola in one value: loss -(x - 0.6)^2, from 0.5 with steps of 0.04 to 0.54, 0.58, 0.62 and back to 0.58."""

    def model(x):
        height = -((x.flatten(1) - 0.6) ** 2)  # (1, 1)
        return torch.cat((-height, height), -1)

    image = torch.full((1, 1, 1, 1), 0.5)
    path = list(pgd_path(model, image, torch.tensor([0]), 0.3, 4, step_size=0.04, loss="margin"))
    places = [0.5, 0.54, 0.58, 0.62, 0.58]
    assert [p.images.item() for p in path] == pytest.approx(places)
    assert [p.margin.item() for p in path] == pytest.approx([-2 * (x - 0.6) ** 2 for x in places], abs=1e-7)
    assert [p.loss.item() for p in path] == [p.margin.item() for p in path]
    # The best point is kept, wherever on the path it lies; the default step is 2.5 epsilon / steps.
    assert pgd(model, image, torch.tensor([0]), 0.3, 1, step_size=0.3).item() == 0.5
    second = list(pgd_path(model, image, torch.tensor([0]), 0.1, 25, loss="margin"))[1]
    assert second.images.item() == pytest.approx(0.51)


def test_saturated_logits_hide_from_cross_entropy_but_not_from_the_margin():
    """Scaled by 1,000 the model is so sure that 1 - p underflows: the gradient is exactly 0, the accuracy untouched."""
    model, images, labels = linear(4)
    sure = margin(model(images), labels) < -1
    images, labels = images[sure], labels[sure]
    assert len(images) > 20

    def masked(x):
        return 1000 * model(x)

    assert cross_entropy(masked(images), labels).max() == 0
    assert torch.equal(pgd(masked, images, labels, 0.1, 10), images)
    reach = 0.1 * model.weight.detach().abs().sum()
    broken = masked(pgd(masked, images, labels, 0.1, 10, loss="margin")).argmax(-1) != labels
    assert broken.tolist() == (model.margin(images).abs() < reach).tolist() and 0.2 < broken.float().mean() < 0.8


class Randomised:
    """Margin w x + s c (v x) with s = +-1, v at right angles to x and to sign(w), and c so large that one draw's
    gradient tells of s v alone, while the mean over both draws is w."""

    def __init__(self, signs):
        self.weight = torch.tensor([1.0, 1.0, 1.0, 1.0])
        self.noise = 5 * torch.tensor([1.0, -1.0, 1.0, -1.0])
        self.signs = itertools.cycle(signs)

    def __call__(self, images: Tensor) -> Tensor:
        x = images.flatten(1) - 0.45
        m = x @ (self.weight + next(self.signs) * self.noise)
        return torch.stack((-m, m), -1)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_eot_breaks_a_randomised_model_that_one_draw_does_not(loss):
    images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
    draws = [Randomised([1]), Randomised([-1])]
    assert all(model(images).argmax(-1) == labels for model in draws)
    for single in draws:
        found = pgd(single, images, labels, 0.1, 10, loss=loss)
        assert [model(found).argmax(-1).item() for model in draws].count(1) == 1  # the other draw is as right as ever
    # Whether its draws come as a sequence or anew with every call, the mean gradient is w: -0.1 everywhere.
    for model, count in [(draws, 1), (Randomised([1, -1]), 2), (Randomised([1, -1]), 6)]:
        found = pgd(model, images, labels, 0.1, 10, loss=loss, draws=count)
        torch.testing.assert_close(found, images - 0.1, rtol=0, atol=2e-7)
        assert not any(model(found).argmax(-1).item() for model in draws)
    assert torch.equal(fgsm(draws, images, labels, 0.1), found)


def test_logits_of_several_draws_at_once_count_as_that_many_models():
    images, labels = torch.full((2, 1, 2, 2), 0.5), torch.tensor([1, 0])
    draws = [Randomised([1]), Randomised([-1])]

    def both(x):
        return torch.stack([model(x) for model in draws])  # (S, B, K)

    for loss in LOSSES:
        for one, other in zip(*(pgd_path(m, images, labels, 0.1, 3, loss=loss) for m in (both, draws)), strict=True):
            for field, same in zip(one, other, strict=True):
                torch.testing.assert_close(field, same)
    assert torch.equal(pgd(both, images, labels, 0.1, 10), pgd(draws, images, labels, 0.1, 10))


def test_draws_are_one_model_asked_often_or_a_sequence():
    images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
    for model, draws in [([], 1), ([Randomised([1])], 2), (Randomised([1]), 0)]:
        with pytest.raises(ValueError, match="draws"):
            pgd(model, images, labels, 0.1, draws=draws)


def test_square_attack_reaches_the_linear_closed_form_without_gradients():
    """It breaks no image that epsilon |w|_1 cannot reach, and nearly all that can be reached with a little to spare."""
    model, images, labels = linear(6)
    epsilon = 0.1
    share = model.margin(images).detach().abs() / (epsilon * model.weight.detach().abs().sum())

    def blind(x):
        with torch.no_grad():
            return model(x)

    found = square(blind, images, labels, epsilon, torch.Generator().manual_seed(0), queries=300)
    broken = blind(found).argmax(-1) != labels
    assert not broken[share > 1].any() and (share > 1).sum() > 20
    assert broken[share < 0.9].float().mean() > 0.95 and (share < 0.9).sum() > 20
    noise = sign_noise(images, epsilon, torch.Generator().manual_seed(0))
    moved = (noise - images).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, epsilon))
    assert 0.45 < (noise > images).float().mean() < 0.55
    assert (blind(noise).argmax(-1) != labels).sum() < broken.sum() / 2


def test_squares_shrink_as_the_queries_go():
    """By hand for 100 queries on 8x8 pixels: 0.8 of 64 is halved after 0.1, 0.5, 2, 5, 10 ... queries, so sides are
    sqrt(12.8), sqrt(6.4), sqrt(3.2), then about 1. A model that no query improves shows each candidate's square."""
    asked = []

    def model(x):
        asked.append(x)
        return torch.tensor([[1.0, 0.0]]).expand(len(x), -1)

    images, labels = torch.full((60, 1, 8, 8), 0.5), torch.zeros(60, dtype=torch.long)
    square(model, images, labels, 0.1, torch.Generator().manual_seed(0), queries=100)
    rows = [(candidate != asked[0]).any(-1)[:, 0].long().sum(-1).max().item() for candidate in asked[1:]]
    assert rows[:15] == [4] * 2 + [3] * 3 + [2] * 5 + [1] * 5 and set(rows[15:]) == {1} and len(asked) == 100


def test_square_attack_stops_asking_when_all_are_broken():
    asked = []

    def model(x):
        asked.append(len(x))
        return torch.tensor([[1.0, 0.0]]).expand(len(x), -1)

    square(model, torch.rand(3, *SHAPE), torch.ones(3, dtype=torch.long), 0.1, torch.Generator(), queries=50)
    assert asked == [3]


def test_a_model_is_frozen_while_attacked_and_restored_after(generator):
    layers = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3)
    network = initialise(nn.Sequential(*layers), 0)
    network[0].weight.requires_grad_(False)
    network[1].eval()
    before = [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]
    statistics = network[1].running_mean.clone()
    seen = []

    def look(module, inputs):
        seen.append(any(m.training for m in module.modules()) or any(p.requires_grad for p in module.parameters()))

    network.register_forward_pre_hook(look)
    images, labels = torch.rand(4, *SHAPE, generator=generator), torch.tensor([0, 1, 2, 0])
    for attack in all_attacks(0.1).values():
        attack(network, images, labels)
    assert len(seen) > 20 and not any(seen)

    def fail(*_):
        raise RuntimeError("planted")

    network[4].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        pgd(network, images, labels, 0.1)
    with pytest.raises(RuntimeError, match="planted"), frozen(network, network[1], lambda x: x):
        fail()
    assert before == ([m.training for m in network.modules()], [p.requires_grad for p in network.parameters()])
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(network[1].running_mean, statistics)


def test_attacks_work_where_gradients_are_off():
    network, images, labels = draw(0)
    with torch.no_grad():
        found = pgd(network, images, labels, 0.1)
    assert not torch.equal(found, images) and not found.requires_grad


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), batch_size=st.integers(1, 15), skip_broken=st.booleans())
def test_robust_correct_equals_brute_force(seed, batch_size, skip_broken):
    """Against one image at a time, for deterministic attacks and a transfer from another model."""
    network, images, labels = draw(seed, batch=10)
    other = draw(seed + 1)[0]
    labels = labels.clone()
    labels[::5] = (labels[::5] + 1) % 3  # some are wrong from the start
    epsilon = 0.05
    attacks = {
        "fgsm": lambda x, y, _: fgsm(network, x, y, epsilon),
        "transfer": lambda x, y, _: pgd(other, x, y, epsilon, 3),
        "pgd": lambda x, y, _: pgd(network, x, y, epsilon, 3, loss="margin"),
        "none": lambda x, y, _: x,  # the weakest comes last: the worst case is not the last attack's
    }
    outcomes = robust_correct(lambda _: network, images, labels, attacks, epsilon, batch_size, skip_broken)

    def right(image, label):
        return (network(image).argmax(-1) == label).item()

    pairs = [(images[i : i + 1], labels[i : i + 1]) for i in range(10)]
    clean = [right(x, y) for x, y in pairs]
    alone = {name: [c and right(attack(x, y, None), y) for c, (x, y) in zip(clean, pairs, strict=True)]
             for name, attack in attacks.items()}  # fmt: skip
    assert list(outcomes) == ["clean", "fgsm", "transfer", "pgd", "none", "worst"]
    assert outcomes["clean"].tolist() == clean and not all(clean)
    standing = clean
    for name in attacks:
        standing = [a and b for a, b in zip(standing, alone[name], strict=True)]
        assert outcomes[name].tolist() == (standing if skip_broken else alone[name])
    assert outcomes["worst"].tolist() == standing


def test_robust_correct_gives_each_image_its_own_draws_and_spares_the_broken():
    """A model whose offset is the image's own draw; the first attack breaks the even images."""
    images, labels = torch.full((10, 1, 1, 1), 0.5), torch.ones(10, dtype=torch.long)
    offsets = 0.01 * torch.arange(10)
    asked = {"first": [], "second": []}

    def model_for(index):
        def model(x):
            m = x.flatten(1) - 0.455 + offsets[index, None]
            return torch.cat((-m, m), -1)

        return model

    def first(x, y, index):
        asked["first"] += index.tolist()
        return torch.where(index.view(-1, 1, 1, 1) % 2 == 0, x - 0.2, x)

    def second(x, y, index):
        asked["second"] += index.tolist()
        return x - 0.1

    outcomes = robust_correct(model_for, images, labels, {"first": first, "second": second}, 0.25, batch_size=3)
    assert asked == {"first": list(range(10)), "second": [1, 3, 5, 7, 9]}
    assert outcomes["first"].tolist() == [i % 2 == 1 for i in range(10)]
    assert outcomes["worst"].tolist() == [i in (7, 9) for i in range(10)]  # 0.4 - 0.455 + 0.01 i > 0 from i = 6 on


@pytest.mark.parametrize("bad", [lambda x: x + 0.11, lambda x: x * math.nan, lambda x: (x + 1) / 2 + 0.26])
def test_robust_correct_refuses_an_attack_that_cheats(bad):
    images, labels = torch.full((2, 1, 1, 1), 0.5), torch.ones(2, dtype=torch.long)

    def model(x):
        return torch.tensor([[0.0, 1.0]]).expand(len(x), -1)

    with pytest.raises(ValueError, match="attack 'bad' left the ball of 0.1 or"):
        robust_correct(lambda _: model, images, labels, {"bad": lambda x, *_: bad(x)}, 0.1)
    with pytest.raises(ValueError, match="no attack can be named 'worst'"):
        robust_correct(lambda _: model, images, labels, {"worst": lambda x, *_: x}, 0.1)


def test_robust_correct_predicts_in_evaluation_mode():
    """In training mode dropout of 1 would make all logits equal."""
    network = nn.Sequential(nn.Flatten(), nn.Dropout(1.0), nn.Linear(4, 4, bias=False))
    nn.init.eye_(network[2].weight)
    images = torch.eye(4).view(4, 1, 2, 2)
    outcomes = robust_correct(lambda _: network, images, torch.arange(4), {"none": lambda x, *_: x}, 0.0)
    assert outcomes["clean"].all() and outcomes["worst"].all() and network.training


def test_attacks_refuse_bad_arguments():
    network, images, labels = draw(0)
    with pytest.raises(ValueError, match="unknown loss 'hinge'; one of: cross-entropy, margin"):
        pgd(network, images, labels, 0.1, loss="hinge")
    with pytest.raises(ValueError, match="negative"):
        fgsm(network, images, labels, -0.1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ball(images - 1, 0.1)
    for restarts, generator in [(0, torch.Generator()), (2, None)]:
        with pytest.raises(ValueError, match="restarts must be at least 1, and several need a generator"):
            pgd(network, images, labels, 0.1, restarts=restarts, generator=generator)


@pytest.mark.parametrize(
    "measured, sentence",
    [
        ({"one_step": 20.0, "many_steps": 30.0}, "One step beats many: accuracy is 20.0 % under FGSM and 30.0 %"),
        ({"white_box": 50.0, "black_box": {"transfer": 60.0, "Square": 40.0}}, "is 40.0 % under Square and 50.0 %"),
        ({"at_epsilon_one": 3.0}, "An attack that may paint any image (epsilon = 1) leaves accuracy at 3.0 %."),
        ({"by_draws": {20: 44.0, 1: 60.0, 10: 47.0}}, "EOT keeps lowering accuracy: 47.0 % with 10 draws, 44.0 %"),
        ({"by_steps": {100: 44.0, 30: 47.0}}, "steps keep lowering accuracy: 47.0 % with 30 steps, 44.0 %"),
    ],
)
def test_each_flag_is_raised_by_a_planted_case(measured, sentence):
    (flag,) = red_flags(**measured)
    assert sentence in flag and flag.endswith(".")
    assert red_flags(**measured, tolerance=20) == ([flag] if "at_epsilon_one" in measured else [])


def test_no_flag_on_a_sound_evaluation_and_all_on_a_masked_one():
    sound = {"one_step": 40.0, "many_steps": 35.0, "white_box": 35.0, "black_box": {"Square": 45.0, "noise": 70.0},
             "at_epsilon_one": 0.0, "by_draws": {1: 50.0, 10: 35.0, 20: 35.0},
             "by_steps": {10: 40.0, 30: 35.0, 100: 35.0}}  # fmt: skip
    assert red_flags(**sound) == red_flags() == []
    masked = {"one_step": 40.0, "many_steps": 75.0, "white_box": 75.0, "black_box": {"Square": 45.0, "noise": 70.0},
              "at_epsilon_one": 10.0, "by_draws": {10: 50.0, 20: 49.0}, "by_steps": {30: 50.0, 100: 40.0}}  # fmt: skip
    assert len(red_flags(**masked)) == 6
    assert red_flags(by_draws={20: 30.0}, by_steps={30: 30.0}) == []  # one number tells of no convergence
    for bad in ({"one_step": 101.0}, {"black_box": {"noise": -1.0}}, {"at_epsilon_one": math.nan}):
        with pytest.raises(ValueError, match="percentages"):
            red_flags(**bad)
