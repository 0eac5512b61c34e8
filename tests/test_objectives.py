"""The objectives against exact gradients: enumeration, closed forms, arithmetic by hand (oracles 2-4 and 8; T5, T6).
Every gradient is taken through the library's own functions."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

from uram_lib.models.layers import Trajectory
from uram_lib.objectives import (
    attended_context,
    baseline_loss,
    chooser_rewards,
    context_loss,
    cross_entropy,
    hybrid_loss,
    policy_objective,
    rewards_to_go,
)
from uram_lib.paper import BETA1, ENTROPY_OFFSET

# A one-step bandit with a Gaussian policy: a reward of 1 within WIDTH of CENTRE.
MU, SIGMA, CENTRE, WIDTH = 0.1, 0.15, 0.3, 0.12


def bandit_success(mu: float) -> float:
    """E[R], exactly: the policy's mass between the two borders."""
    return scipy.stats.norm.cdf(CENTRE + WIDTH, mu, SIGMA) - scipy.stats.norm.cdf(CENTRE - WIDTH, mu, SIGMA)


# dE[R]/dmu, by a central difference of scipy's distribution function.
GRADIENT = (bandit_success(MU + 1e-5) - bandit_success(MU - 1e-5)) / 2e-5


def play(mu: torch.Tensor, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities (..., count, 1) that depend on mu (...), and rewards (..., count)."""
    noise = torch.randn(*mu.shape, count, 1, generator=generator, dtype=mu.dtype)
    samples = mu.detach()[..., None, None] + SIGMA * noise
    rewards = ((samples[..., 0] - CENTRE).abs() < WIDTH).to(mu.dtype)
    return torch.distributions.Normal(mu[..., None, None], SIGMA).log_prob(samples), rewards


@functools.cache
def batch_gradients(baseline: float) -> np.ndarray:
    """The gradient of the library's surrogate in each of many independent batches, the same actions at any baseline.

    Pooled over seeds 0 to 9, because a single seed is a lottery: of 60 seeds tried with no baseline, number 7 strays
    by 3.4 standard errors, while all 60 together are unbiased (mean z -0.04 +- 0.13, sd 1.09). It stays in the pool.
    """
    found, level = [], torch.full((400, 1), baseline, dtype=torch.float64)
    for seed in range(10):
        mu = torch.full((300,), MU, dtype=torch.float64, requires_grad=True)  # one for each batch
        played = play(mu, 400, torch.Generator().manual_seed(seed))
        sum(policy_objective(*batch, level) for batch in zip(*played, strict=True)).backward()
        found.append(mu.grad.numpy())
    return np.concatenate(found)


@pytest.mark.parametrize("baseline", [0.0, bandit_success(MU), 1.5])
def test_oracle02_monte_carlo_surrogate_agrees_with_the_exact_gradient(baseline):
    found = batch_gradients(baseline)
    error = found.std(ddof=1) / math.sqrt(len(found))
    assert error < 0.02 * GRADIENT  # else three standard errors would allow anything
    assert abs(found.mean() - GRADIENT) < 3 * error


def test_oracle02_a_good_baseline_lowers_the_variance_and_a_bad_one_raises_it():
    plain, good, bad = (batch_gradients(b).var(ddof=1) for b in (0.0, bandit_success(MU), 1.5))
    assert good < 0.95 * plain < plain < bad


@pytest.mark.parametrize("to_go", [False, True])
def test_oracle03_two_step_policy_agrees_with_full_enumeration(to_go):
    """All probabilities are multiples of 1/4, so a batch of 16 episodes holds each exactly as often as it happens, and
    the surrogate's gradient must be the exact one. Independent truth: E[R] by enumeration, differentiated. Paid at
    each step, an action answers for its own reward and the later ones alone."""
    first = torch.log(torch.tensor([1 / 2, 1 / 4, 1 / 4], dtype=torch.float64)).requires_grad_()
    second = torch.log(torch.tensor([[1, 3], [2, 2], [3, 1]], dtype=torch.float64) / 4).requires_grad_()
    early = torch.tensor([0.3, 0.9, -0.5], dtype=torch.float64)
    late = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    p = first.softmax(0)[:, None] * second.softmax(1)  # (3, 2)
    exact = torch.autograd.grad((p * (early[:, None] + late)).sum(), (first, second))
    assert all(gradient.abs().max() > 0.01 for gradient in exact)
    episodes = [(a, b) for a, b in itertools.product(range(3), range(2)) for _ in range(round(16 * p[a, b].item()))]
    a, b = torch.tensor(episodes).T
    assert len(episodes) == 16
    log_probs = torch.stack((first.log_softmax(0)[a], second.log_softmax(1)[a, b]), 1)  # (16, 2)
    whole = early[a] + late[a, b]
    rewards = torch.stack((whole, late[a, b]), 1) if to_go else whole
    # Any baseline that does not know the action yet leaves the expectation alone: here one by step and state.
    state_values = torch.tensor([0.9, -0.4, 0.2], dtype=torch.float64)
    baselines = torch.stack((torch.full((16,), 0.7, dtype=torch.float64), state_values[a]), 1)
    for b in (torch.zeros_like(baselines), baselines):
        found = torch.autograd.grad(policy_objective(log_probs, rewards, b), (first, second), retain_graph=True)
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "form, baseline, gradient",
    [("literal", 0.6, 0.0), ("literal", 0.4, 0.035), ("literal", 0.8, -0.035)]
    + [("intent", b, 0.105) for b in (0.4, 0.6, 0.8)]
    + [(form, b, 0.0) for b in (0.4, 0.6, 0.8) for form in ("none", "constant")],
)
def test_oracle04_entropy_bandit(form, baseline, gradient):
    """Two arms chosen with equal odds, success 0.6 on both, patch entropies 0.2 and 0.9 bits (ledger D3): the gradient
    toward the richer arm. Ten pulls hold every outcome exactly as often as it happens. By hand: dp/dlogit = 1/4, so
    literal gives (1.4 - 0.7)(0.6 - b) / 4 and intent (1.4 - 0.7) 0.6 / 4."""
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    arm = torch.tensor([0] * 5 + [1] * 5)
    rewards = torch.tensor([1.0, 1, 1, 0, 0] * 2, dtype=torch.float64)
    log_probs = torch.stack((F.logsigmoid(-logit), F.logsigmoid(logit)))[arm][:, None]
    entropies = torch.tensor([0.2, 0.9], dtype=torch.float64)[arm][:, None]
    policy_objective(log_probs, rewards, torch.full_like(log_probs, baseline), entropies, form, 0.5).backward()
    assert logit.grad.item() == pytest.approx(gradient, abs=1e-9)


def test_ledger_D4_a_constant_weight_is_as_large_as_the_others_on_average():
    log_probs, baselines, entropies = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0))
    given = log_probs, torch.tensor([1.0, 0, 1, 1]), baselines
    weight = entropies.mean() + 0.3
    torch.testing.assert_close(policy_objective(*given, entropies, "constant", 0.3), weight * policy_objective(*given))


@pytest.mark.parametrize("entropy", ["none", "literal", "intent", "constant"])
def test_oracle04_one_step_on_the_hybrid_loss_raises_the_exact_reward_and_the_printed_sign_lowers_it(
    entropy, small_config
):
    """Ledger D8: Eq. 14 adds +beta2 J to what is minimised. Independent truth: E[R] from scipy's normal."""
    after = {}
    for beta2 in (0.01, -0.01):
        mu = torch.tensor(MU, dtype=torch.float64, requires_grad=True)
        log_probs, rewards = play(mu, 20_000, torch.Generator().manual_seed(11))
        # Two glimpses; the classifier is right (label 1) where the action was rewarded.
        logits = torch.stack((1 - rewards, rewards), 1)[:, None].repeat(1, 2, 1)
        entropies = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(12), dtype=mu.dtype)
        trajectory = Trajectory(None, entropies, None, logits, log_probs, torch.full_like(log_probs, 0.2))
        config = small_config(beta2=beta2, entropy=entropy)
        loss, parts = hybrid_loss(trajectory, torch.ones(20_000, dtype=torch.long), None, config)
        loss.backward()
        assert parts["reward"].item() == pytest.approx(bandit_success(MU), abs=0.02)
        after[beta2] = bandit_success(mu.item() - 2.0 * mu.grad.item())
    assert after[0.01] > bandit_success(MU) + 1e-3
    assert after[-0.01] < bandit_success(MU) - 1e-3


@pytest.mark.parametrize("patch, first", [("after", 1), ("before", 0)])
def test_hybrid_loss_is_the_weighted_sum_of_its_parts(small_ram, rollout_inputs, small_config, patch, first):
    """Eq. 14 as the ledger reads it (D2, D8, B8), each part computed here from the trajectory alone. An action's patch
    is the one that it leads to, or the one seen before it."""
    model = small_ram(context="attended", glimpses=4)
    images, start, noise, labels = rollout_inputs()
    seen = model(images, start, noise)
    config = small_config(beta2=0.3, entropy="literal", entropy_patch=patch, context="confidence", each_step=0.7)
    loss, parts = hybrid_loss(seen, labels, model.context_network, config)
    last = seen.class_logits[:, -1]
    reward = (last.argmax(-1) == labels).float()
    weight = seen.patch_entropies[:, first : first + 3] + ENTROPY_OFFSET
    said = seen.class_logits.log_softmax(-1)[torch.arange(9), :, labels]  # (B, T)
    expected = {
        "cross_entropy": -said[:, -1].mean(),
        "context": context_loss(seen.hiddens, seen.class_logits, labels, model.context_network, "confidence"),
        "policy": (seen.log_probs * weight * (reward[:, None] - seen.baselines)).sum() / 9,
        "baseline": ((seen.baselines - reward[:, None]) ** 2).mean(),
        "each_step": -said[:, :-1].mean(),
        "reward": reward.mean(),
    }
    assert not any(value.requires_grad for value in parts.values())
    torch.testing.assert_close(parts, {name: value.detach() for name, value in expected.items()})
    factors = {"cross_entropy": 1, "context": BETA1, "policy": -0.3, "baseline": 1, "each_step": 0.7}
    torch.testing.assert_close(loss, sum(factor * expected[name] for name, factor in factors.items()))


@pytest.mark.parametrize("reward", ["outcome", "probability"])
def test_the_baseline_learns_the_return_that_its_action_is_paid(small_ram, rollout_inputs, small_config, reward):
    """(H + lambda) R - b is centred only where b predicts (H + lambda) R; and b of each action its own return."""
    images, start, noise, _ = rollout_inputs()
    seen = small_ram()(images, start, noise)
    labels = seen.class_logits[:, -1].argmax(-1)  # all right, so that rewards are not all 0
    returns = rewards_to_go(seen, labels) if reward == "probability" else torch.ones(9, 3)
    _, parts = hybrid_loss(seen, labels, None, small_config(entropy="intent", reward=reward))
    target = (seen.patch_entropies[:, 1:] + ENTROPY_OFFSET) * returns
    torch.testing.assert_close(parts["baseline"], ((seen.baselines - target) ** 2).mean().detach())
    objective = (seen.log_probs * (target - seen.baselines)).sum(1).mean().detach()
    torch.testing.assert_close(parts["policy"], objective)


# Probabilities of the right class after each of three glimpses, of two images whose labels are 0 and 1.
RIGHT = torch.tensor([[0.9, 0.2, 0.6], [0.4, 0.8, 0.3]])


def believing(right: torch.Tensor, actions: int) -> tuple[Trajectory, torch.Tensor]:
    probabilities = torch.stack((right, 1 - right), -1)
    probabilities[1] = probabilities[1].flip(-1)
    baselines = torch.zeros(2, actions)
    return Trajectory(None, None, None, probabilities.log().requires_grad_(), baselines, baselines), torch.arange(2)


def test_rewards_to_go_by_hand():
    """The mean of what an action can still change: RAM's first glimpse is given, a reader of numbers chooses all."""
    two, three = (rewards_to_go(*believing(RIGHT, actions)) for actions in (2, 3))
    torch.testing.assert_close(two, torch.tensor([[0.4, 0.6], [0.55, 0.3]]))
    torch.testing.assert_close(three, torch.tensor([[1.7 / 3, 0.4, 0.6], [0.5, 0.55, 0.3]]))
    assert not two.requires_grad and rewards_to_go(*believing(RIGHT[:, :1], 0)).shape == (2, 0)


def test_ledger_A4_what_the_chooser_is_paid_by_hand():
    """The last answer is right with 0.6 and wrong with 0.3; early is the probability after the second glimpse."""
    trajectory, labels = believing(RIGHT, 2)
    for kind, paid in (("outcome", [1, 0]), ("signed", [1, -1]), ("early", [0.2, 0.8])):
        found = chooser_rewards(trajectory, labels, kind)
        assert found.tolist() == pytest.approx(paid) and found.dtype == torch.float32 and not found.requires_grad
    one, labels = believing(RIGHT[:, :1], 0)  # the only glimpse is the start
    assert chooser_rewards(one, labels, "early").tolist() == pytest.approx([0.9, 0.4])


@pytest.mark.parametrize("rewards, advantage", [
    ([1.0, 0.0], [[0.9, 0.8, 0.7], [-0.4, -0.5, -0.6]]),
    ([[1.0, 0.5, 0.0], [0.0, 1.0, 0.6]], [[0.9, 0.3, -0.3], [-0.4, 0.5, 0.0]]),
])  # fmt: skip
def test_T05_advantage_of_a_two_by_three_batch_by_hand(rewards, advantage):
    """B = 2 episodes of 3 actions: (B,) against (B, T) must not broadcast over actions, nor the baseline learn here."""
    rewards, advantage = torch.tensor(rewards), torch.tensor(advantage)
    log_probs = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    baselines = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], requires_grad=True)
    objective = policy_objective(log_probs, rewards, baselines)
    torch.testing.assert_close(objective, (log_probs * advantage).sum() / 2)
    objective.backward()
    torch.testing.assert_close(log_probs.grad, advantage / 2)
    assert baselines.grad is None
    weighted = policy_objective(log_probs, rewards, baselines, weights=torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(weighted, (log_probs * advantage)[0].sum())


def test_T05_entropy_weights_are_constants():
    """Neither the entropy nor the baseline gets a gradient from J."""
    for form, factor in (("literal", (0.2 + 0.5) * 0.9), ("intent", (0.2 + 0.5) - 0.1)):
        log_probs, entropies, baselines = (torch.tensor([[v]], requires_grad=True) for v in (1.5, 0.2, 0.1))
        policy_objective(log_probs, torch.ones(1), baselines, entropies, form, 0.5).backward()
        assert log_probs.grad.item() == pytest.approx(factor)
        assert entropies.grad is None and baselines.grad is None


def test_T06_two_rollouts_of_an_image_count_each_with_its_own_reward(small_ram, rollout_inputs):
    """The gradient of M = 2 is the mean of two M = 1 gradients; averaging log-probs and rewards first is not."""
    model, (images, start, _, _) = small_ram(), rollout_inputs()
    noises = [torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(k)) for k in (0, 1)]
    rewards = [torch.arange(9).remainder(2).float(), torch.arange(9).remainder(3).eq(0).float()]

    def gradient(seen: Trajectory, reward: torch.Tensor) -> torch.Tensor:
        objective = policy_objective(seen.log_probs, reward, seen.baselines)
        return torch.autograd.grad(objective, model.location_network.weight, retain_graph=True)[0]

    pair = [model(images, start, noise) for noise in noises]
    together = model(images.repeat(2, 1, 1, 1), start.repeat(2, 1), torch.cat(noises))
    both = gradient(together, torch.cat(rewards))
    torch.testing.assert_close(both, sum(map(gradient, pair, rewards)) / 2)
    averaged = pair[0]._replace(log_probs=(pair[0].log_probs + pair[1].log_probs) / 2)
    assert not torch.allclose(both, gradient(averaged, (rewards[0] + rewards[1]) / 2), rtol=0.05)


@pytest.mark.parametrize("changes, message", [
    ({"rewards": torch.zeros(2)}, "shapes differ"),
    ({"rewards": torch.zeros(3, 1)}, "shapes differ"),
    ({"baselines": torch.zeros(3)}, "shapes differ"),
    ({"entropy": "sum", "patch_entropies": torch.ones(3, 3)}, "'sum'; one of: none, literal, intent, constant"),
    ({"entropy": "literal"}, "shapes differ: .*None"),
    ({"entropy": "intent", "patch_entropies": torch.ones(3)}, "shapes differ"),
])  # fmt: skip
def test_T05_what_would_broadcast_over_actions_is_refused(changes, message):
    """Three images and three actions: a wrong shape would fit."""
    square = torch.ones(3, 3)
    with pytest.raises(ValueError, match=message):
        policy_objective(**{"log_probs": square, "rewards": torch.ones(3), "baselines": square} | changes)


def test_baseline_loss_and_cross_entropy_by_hand():
    baselines = torch.tensor([[0.5, 1.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = baseline_loss(baselines, targets)
    assert loss.item() == pytest.approx((0.25 + 1) / 2)
    loss.backward()
    assert baselines.grad is not None and targets.grad is None
    assert baseline_loss(torch.zeros(4, 0), torch.zeros(4, 0)).item() == 0  # one glimpse: no mean over nothing
    twice = torch.cat((baselines, baselines + 9)), targets.repeat(2, 1)
    torch.testing.assert_close(baseline_loss(*twice, torch.tensor([2.0, 0])), loss)
    logits, label = LOGITS.repeat(2, 1, 1), torch.tensor([1, 0])
    by_label = [-(math.log(3 / 4) + math.log(1 / 5)) / 2, -(math.log(1 / 4) + math.log(4 / 5)) / 2]
    assert cross_entropy(logits, label).item() == pytest.approx(sum(by_label) / 2)
    assert cross_entropy(logits, label, torch.tensor([0.0, 2])).item() == pytest.approx(by_label[1])


# T = 2 glimpses, K = 2 classes: alpha_1 = (1/4, 3/4), alpha_2 = (4/5, 1/5). f_c is the identity.
HIDDENS = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
LOGITS = torch.tensor([[[0.0, math.log(3)], [math.log(4), 0.0]]])


@pytest.mark.parametrize("form, contexts", [
    ("attended", [(2.65, 3.7), (1.35, 2.3)]),  # label 0: 1/4 (1, 2) + 4/5 (3, 4); label 1: 3/4 (1, 2) + 1/5 (3, 4)
    ("detached", [(2.65, 3.7), (1.35, 2.3)]),
    ("normalised", [(2.65 / 1.05, 3.7 / 1.05), (1.35 / 0.95, 2.3 / 0.95)]),
    ("confidence", [(3.15, 4.7)] * 2),  # 3/4 (1, 2) + 4/5 (3, 4), whatever the label (ledger K2')
    ("uniform", [(2.0, 3.0)] * 2),
])  # fmt: skip
def test_oracle08_context_by_hand(form, contexts):
    """Ledger K2, K3. The weights of the label's own probability tell it; confidence and equal weights cannot."""
    for label, context in enumerate(contexts):
        y = torch.tensor([label])
        assert attended_context(HIDDENS, LOGITS, y, form)[0].tolist() == pytest.approx(context)
        other = context[1 - label] - context[label]
        loss = context_loss(HIDDENS, LOGITS, y, nn.Identity(), form)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(other)), abs=1e-6)


def test_oracle08_gradient_flows_through_the_weights_too_unless_they_are_detached():
    """Ledger K3. By hand for label 1: dL/dC = (q, -q) with q = 1 / (1 + e^0.95), and dC/dlogit by the softmax."""
    q = 1 / (1 + math.exp(0.95))
    for form in ("attended", "detached"):
        hiddens, logits = (value.clone().requires_grad_() for value in (HIDDENS, LOGITS))
        context_loss(hiddens, logits, torch.tensor([1]), nn.Identity(), form).backward()
        torch.testing.assert_close(hiddens.grad[0], torch.tensor([[0.75 * q, -0.75 * q], [0.2 * q, -0.2 * q]]))
        if form == "attended":
            # dL/dalpha_t = q (H_t[0] - H_t[1]) = -q at both steps; dalpha/dlogit_1 = alpha (1 - alpha).
            expected = [[q * 3 / 16, -q * 3 / 16], [q * 4 / 25, -q * 4 / 25]]
            torch.testing.assert_close(logits.grad[0], torch.tensor(expected))
    assert logits.grad is None


def test_each_steps_cross_entropy_is_another_form_and_unknown_forms_are_refused():
    each = context_loss(HIDDENS, LOGITS, torch.tensor([1]), nn.Identity(), "each-step")
    assert each.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 5)) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="unknown form of the context 'none'"):
        context_loss(HIDDENS, LOGITS, torch.tensor([1]), nn.Identity(), "none")
