"""Attacks: oracle 11 and closed forms on linear models, what fools weak attacks and not strong ones, bad arguments."""

import math

import pytest
import torch
from conftest import Linear, linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from uram_lib.adversarial.attacks import cross_entropy, fgsm, frozen, literal_pgd, look, margin, pgd, sign_noise, square
from uram_lib.seeding import initialise

SHAPE = (2, 4, 4)
SIZE = math.prod(SHAPE)


def two_sided(height: Tensor) -> Tensor:
    """Logits (B, 2) of opposite sign from one value, (B, 1)."""
    return torch.cat((-height, height), -1)


def draw(seed: int, batch: int = 6, classes: int = 3):
    """(a network of two layers, images, labels that it gets right)."""
    g = torch.Generator().manual_seed(seed)
    network = initialise(nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 20), nn.ReLU(), nn.Linear(20, classes)), seed)
    images = torch.rand(batch, *SHAPE, generator=g)
    return network, images, network(images).argmax(-1)


def uphill(model: Linear, labels: Tensor) -> Tensor:
    """The sign of the loss's gradient in each image, (B, C, H, W)."""
    return (1 - 2 * labels).view(-1, 1, 1, 1) * model.weight.detach().sign()


def all_attacks(epsilon: float, seed: int = 0, steps: int = 5):
    """Every attack of the module, as functions of (model, images, labels)."""
    g = torch.Generator().manual_seed(seed)
    return {
        "fgsm": lambda m, x, y: fgsm(m, x, y, epsilon),
        "random fgsm": lambda m, x, y: fgsm(m, x, y, epsilon, g),
        "literal": lambda m, x, y: literal_pgd(m, x, y, epsilon, steps),
        "full steps": lambda m, x, y: literal_pgd(m, x, y, epsilon, steps, "x^t"),
        "pgd": lambda m, x, y: pgd(m, x, y, epsilon, steps),
        "random pgd": lambda m, x, y: pgd(m, x, y, epsilon, steps, g, loss=margin),
        "wild": lambda m, x, y: pgd(m, x, y, epsilon, steps, step_size=3.0),
        "square": lambda m, x, y: square(m, x, y, epsilon, g, queries=30),
        "noise": lambda m, x, y: sign_noise(m, x, y, epsilon, g),
    }


@pytest.mark.parametrize("name", ["fgsm", "literal", "full steps", "pgd", "random pgd"])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.2])
def test_oracle11_the_optimum_of_a_linear_model_is_x_plus_epsilon_sign_w(name, epsilon):
    """Closed form: label 1 is attacked by -epsilon sign(w), label 0 by +epsilon sign(w), the margin falls by
    epsilon |w|_1, and the robust accuracy is the share of images with a clean margin above that.

    Equality with a public implementation was checked once, outside the project: PGD of torchattacks (repository
    Harry24k/adversarial-attacks-pytorch, commit 005d51c, without its random start) against the last point that `pgd`
    visits, on 4 networks of two layers x 50 images in double precision, with (epsilon, step, steps) of
    (8/255, 2/255, 10), (0.3, 0.025, 30) and (0.1, 0.1, 1): no value differs by more than 6.0e-8, which is `ROUNDING`.
    """
    model, images, labels = linear(3)
    adversarial = all_attacks(epsilon, steps=20)[name](model, images, labels)
    torch.testing.assert_close(adversarial, images + epsilon * uphill(model, labels), rtol=0, atol=2e-7)
    reach = epsilon * model.weight.detach().abs().sum()
    truth = model.margin(images).detach().abs() > reach
    assert (model(adversarial).argmax(-1) == labels).tolist() == truth.tolist()
    assert 0 < truth.float().mean() < 1 or epsilon == 0.2


@pytest.mark.parametrize("name", ["fgsm", "literal", "full steps", "pgd"])
def test_oracle11_clipped_to_the_images_range(name):
    """Where [0, 1] cuts the ball, the optimum is clip(x + epsilon sign): a cube's corner is the linear optimum."""
    model, _, _ = linear(3)
    images = torch.rand(50, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels = (model.margin(images) > 0).long()
    optimum = (images + 0.3 * uphill(model, labels)).clamp(0, 1)
    found = all_attacks(0.3, steps=10)[name](model, images, labels)
    torch.testing.assert_close(found, optimum, rtol=0, atol=2e-7)


def test_oracle11_multi_class_softmax_linear():
    """By hand, three classes: with the margin loss one step follows the strongest rival k, and the margin grows by
    epsilon |w_k - w_y|_1 exactly; cross entropy's gradient is sum_k p_k w_k - w_y."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(3, SIZE, generator=g)
    images = 0.3 + 0.4 * torch.rand(9, *SHAPE, generator=g)

    def model(x):
        return x.flatten(1) @ weight.T

    logits, epsilon = model(images), 1e-3
    labels, rival = logits.argsort(-1, descending=True)[:, :2].unbind(-1)
    difference = weight[rival] - weight[labels]
    found = pgd(model, images, labels, epsilon, 1, step_size=epsilon, loss=margin)
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
    """Exactly: in double precision, where a difference of two float32 numbers does not round."""
    network, images, labels = draw(seed, batch=3)
    images = images.round() if corners else images
    for attack in all_attacks(epsilon, seed, steps=3).values():
        found = attack(network, images, labels)
        assert found.shape == images.shape and found.dtype == images.dtype
        assert (found.double() - images.double()).abs().max() <= epsilon
        assert found.min() >= 0 and found.max() <= 1


def test_oracle11_pgd_is_monotone_in_epsilon():
    network, images, labels = draw(1, batch=60)
    ladder = [margin(network(pgd(network, images, labels, e, 20)), labels).mean() for e in (0, 0.01, 0.03, 0.1, 0.3)]
    assert ladder == sorted(ladder) and ladder[0] < ladder[-1]


@given(seed=st.integers(0, 10**6), epsilon=st.floats(0, 1), steps=st.integers(1, 30))
def test_equation_15_with_its_gradient_at_x_is_fgsm(seed, epsilon, steps):
    """Ledger H1: to the last bit and for any number of steps."""
    network, images, labels = draw(seed, batch=3)
    assert torch.equal(literal_pgd(network, images, labels, epsilon, steps), fgsm(network, images, labels, epsilon))


def watched(model, asked: list[Tensor]):
    """The model, which notes in `asked` what it is asked about."""
    return lambda x: asked.append(x.detach().clone()) or model(x)


@given(seed=st.integers(0, 10**6), steps=st.integers(1, 8))
def test_equation_15_with_its_gradient_at_x_t_takes_full_steps(seed, steps):
    """It is PGD with steps of epsilon, its last point and not its best; one step is FGSM; no value lies between
    x - epsilon, x and x + epsilon where [0, 1] cuts nothing."""
    network, images, labels = draw(seed, batch=3)
    images, path = 0.3 + 0.4 * images, []
    found = literal_pgd(network, images, labels, 0.2, steps, "x^t")
    pgd(watched(network, path), images, labels, 0.2, steps, step_size=0.2)
    assert torch.equal(found, path[-1]) and len(path) == steps + 1
    assert steps > 1 or torch.equal(found, fgsm(network, images, labels, 0.2))
    moved = (found - images).abs()
    assert ((moved < 1e-6) | ((moved - 0.2).abs() < 1e-6)).all()


def test_pgd_by_hand():
    """Up a parabola, from 0.5 with steps of 0.04 to 0.54, 0.58, 0.62 and back to 0.58. The best point is kept, wherever
    on the path it lies; the default step is 2.5 epsilon / steps."""
    path, one = [], (torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]))

    def parabola(x):
        return two_sided(-((x.flatten(1) - 0.6) ** 2))

    best = pgd(watched(parabola, path), *one, 0.3, 4, step_size=0.04, loss=margin)
    assert [x.item() for x in path] == pytest.approx([0.5, 0.54, 0.58, 0.62, 0.58])
    assert best.item() == pytest.approx(0.58)
    assert pgd(parabola, *one, 0.3, 1, step_size=0.3).item() == 0.5
    path.clear()
    pgd(watched(parabola, path), *one, 0.1, 25, loss=margin)
    assert path[1].item() == pytest.approx(0.51)
    # Full steps go past the top to 0.8, back, to 0.8; many small ones find what one cannot.
    places = [literal_pgd(parabola, *one, 0.3, steps, "x^t").item() for steps in (1, 2, 3)]
    assert places == pytest.approx([0.8, 0.5, 0.8], abs=1e-6)
    assert pgd(parabola, *one, 0.3).item() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("loss", [cross_entropy, margin], ids=["cross entropy", "margin"])
def test_eot_breaks_a_randomised_model_that_one_draw_does_not(loss):
    """Margin w x + s c (v x) with s = +-1, v at right angles to x and to sign(w), and c so large that one draw's
    gradient tells of s v alone, while the mean over both draws is w: -0.1 everywhere is the answer."""
    weight, noise = torch.ones(4), 5 * torch.tensor([1.0, -1.0, 1.0, -1.0])
    images, labels = torch.full((2, 1, 2, 2), 0.5), torch.tensor([1, 1])

    def under(*signs):  # (S, B, K), or (B, K) of one draw
        logits = [lambda x, s=s: two_sided(((x.flatten(1) - 0.45) @ (weight + s * noise))[:, None]) for s in signs]
        return (lambda x: torch.stack([one(x) for one in logits])) if len(signs) > 1 else logits[0]

    single = under(1), under(-1)
    assert all((model(images).argmax(-1) == labels).all() for model in single)
    for model in single:
        found = pgd(model, images, labels, 0.1, 10, loss=loss)
        assert sum((other(found).argmax(-1) == 1).all().item() for other in single) == 1  # the other is right
    for both in (under(1, -1), under(1, -1, 1, -1, 1, -1)):
        found = pgd(both, images, labels, 0.1, 10, loss=loss)
        torch.testing.assert_close(found, images - 0.1, rtol=0, atol=2e-7)
        assert not any(model(found).argmax(-1).any() for model in single)
    assert torch.equal(fgsm(under(1, -1), images, labels, 0.1), found)
    for together, *apart in zip(*(look(model, images, labels, loss) for model in (both, *single)), strict=True):
        torch.testing.assert_close(together, sum(apart) / 2)


def test_square_attack_reaches_the_linear_closed_form_without_gradients():
    """It breaks no image that epsilon |w|_1 cannot reach, and nearly all that can be reached with a little to spare."""
    model, images, labels = linear(6)
    epsilon = 0.1
    share = model.margin(images).detach().abs() / (epsilon * model.weight.detach().abs().sum())
    unseen = torch.no_grad()(model.forward)
    found = square(unseen, images, labels, epsilon, torch.Generator().manual_seed(0), queries=300)
    broken = unseen(found).argmax(-1) != labels
    assert not broken[share > 1].any() and (share > 1).sum() > 20
    assert broken[share < 0.9].float().mean() > 0.95 and (share < 0.9).sum() > 20
    noise = sign_noise(None, images, labels, epsilon, torch.Generator().manual_seed(0))
    moved = (noise - images).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, epsilon))
    assert 0.45 < (noise > images).float().mean() < 0.55
    assert (unseen(noise).argmax(-1) != labels).sum() < broken.sum() / 2


def test_squares_shrink_as_the_queries_go_and_asking_stops_when_all_are_broken():
    """By hand for 100 queries on 8x8 pixels: 0.8 of 64 is halved after 0.1, 0.5, 2, 5, 10 ... queries, so sides are
    sqrt(12.8), sqrt(6.4), sqrt(3.2), then about 1. A model that no query improves shows each candidate's square."""
    asked = []
    model = watched(lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), -1), asked)
    images, labels = torch.full((60, 1, 8, 8), 0.5), torch.zeros(60, dtype=torch.long)
    square(model, images, labels, 0.1, torch.Generator().manual_seed(0), queries=100)
    rows = [(candidate != asked[0]).any(-1)[:, 0].long().sum(-1).max().item() for candidate in asked[1:]]
    assert rows[:15] == [4] * 2 + [3] * 3 + [2] * 5 + [1] * 5 and set(rows[15:]) == {1} and len(asked) == 100
    asked.clear()
    square(model, images, 1 - labels, 0.1, torch.Generator(), queries=50)
    assert len(asked) == 1


def test_a_model_is_frozen_while_attacked_and_restored_after(generator):
    layers = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3)
    network, seen = initialise(nn.Sequential(*layers), 0), []
    network[0].weight.requires_grad_(False)
    network[1].eval()

    def state() -> list[bool]:
        return [m.training for m in network.modules()] + [p.requires_grad for p in network.parameters()]

    before, statistics = state(), network[1].running_mean.clone()
    network.register_forward_pre_hook(lambda *_: seen.append(any(state())))
    images, labels = torch.rand(4, *SHAPE, generator=generator), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():  # where gradients are off they work, too
        assert not any(attack(network, images, labels).requires_grad for attack in all_attacks(0.1).values())
    assert len(seen) > 20 and not any(seen)

    def fail(*_):
        raise RuntimeError("planted")

    network[4].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        pgd(network, images, labels, 0.1)
    with pytest.raises(RuntimeError, match="planted"), frozen(network), frozen(network[1]), frozen(lambda x: x):
        fail()
    assert before == state() and all(p.grad is None for p in network.parameters())
    assert torch.equal(network[1].running_mean, statistics)


@pytest.mark.parametrize("name", list(all_attacks(0.1)))
def test_attacks_refuse_a_bad_epsilon_and_bad_images(name):
    network, images, labels = draw(0)
    bad = [(e, images, "epsilon must be from 0 to 1, in units of the images' range") for e in (8.0, -0.1, math.nan)]
    bad += [(0.1, x, r"images must be floats in \[0, 1\]") for x in (images - 1, 255 * images, images.round().byte())]
    for epsilon, x, said in [*bad, (0.1, images[:0], "there is no image to attack")]:
        with pytest.raises(ValueError, match=said):
            all_attacks(epsilon)[name](network, x, labels)
