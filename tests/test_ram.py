"""RAM: where gradients may and may not go, shapes, and the policy's density (oracle 1; T1-T5, T14-T16)."""

import math

import pytest
import scipy.stats
import torch
import torch.nn.functional as F

from uram_lib import data, experiments
from uram_lib.models import RAM, build
from uram_lib.objectives import hybrid_loss, policy_objective


def test_oracle01_score_of_the_policy_is_l_minus_mu_over_variance(small_ram):
    """Independent truth: the derivative of the normal log-density on paper, and scipy for its value."""
    model = small_ram(sigma=0.15)
    means = [torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(t)) for t in range(3)]
    samples = [m + 0.15 * torch.randn_like(m) for m in means]
    means = [m.requires_grad_() for m in means]
    log_probs = model.log_prob(samples, means, means[0])
    assert log_probs.shape == (6, 3)
    truth = torch.stack([torch.from_numpy(scipy.stats.norm.logpdf(s, m.detach(), 0.15).sum(-1))
                         for s, m in zip(samples, means, strict=True)], 1)  # fmt: skip
    torch.testing.assert_close(log_probs.detach(), truth, rtol=0, atol=1e-9)
    log_probs.sum().backward()
    for sample, mean in zip(samples, means, strict=True):
        torch.testing.assert_close(mean.grad, ((sample - mean) / 0.15**2).detach(), rtol=0, atol=1e-6)


def test_T01_score_through_the_whole_model_is_exact_and_not_zero(small_ram, rollout_inputs):
    """With two glimpses there is one action, l = mu + sigma noise, so the score of mu is noise / sigma and that of the
    location network's bias, behind the tanh, noise / sigma (1 - mu^2)."""
    model = small_ram(glimpses=2).double()
    images, start, noise, _ = rollout_inputs(glimpses=2)
    trajectory = model(images.double(), start.double(), noise.double())
    trajectory.log_probs.sum().backward()
    mean = model.locate(trajectory.hiddens[:, 0]).detach()
    expected = (noise[:, 0].double() / model.sigma * (1 - mean**2)).sum(0)
    torch.testing.assert_close(model.location_network.bias.grad, expected, rtol=0, atol=1e-6)
    assert expected.abs().min() > 0.01


@pytest.mark.parametrize("core", ["relu", "lstm"])
def test_T02_reinforce_reaches_every_parameter_of_the_location_network(small_ram, rollout_inputs, core, gradients):
    model = small_ram(core=core)
    images, start, noise, _ = rollout_inputs()
    trajectory = model(images, start, noise)
    loss = -policy_objective(trajectory.log_probs, torch.arange(9).remainder(2).float(), trajectory.baselines)
    weight, bias = gradients(model, loss, "location_network")
    assert (bias != 0).all()
    # A ReLU unit that is silent on the whole batch earns no gradient; all others do.
    alive = (trajectory.hiddens[:, :-1] != 0).any(0).any(0)
    assert (weight[:, alive] != 0).all() and alive.sum() > 10


@pytest.mark.parametrize("into_core", [True, False])
def test_T02_reinforce_reaches_the_core_as_configured(small_ram, rollout_inputs, into_core, gradients):
    """Ledger B6."""
    model = small_ram(reinforce_into_core=into_core)
    images, start, noise, _ = rollout_inputs()
    trajectory = model(images, start, noise)
    loss = -policy_objective(trajectory.log_probs, torch.ones(9), trajectory.baselines)
    for part in ("core", "glimpse_network"):
        assert any(g.any() for g in gradients(model, loss, part)) == into_core
    assert all(g.any() for g in gradients(model, loss, "location_network"))


def test_T03_score_has_mean_zero_near_the_border(small_ram):
    """The density is the sample's, not that of the clamped location, which would pull the policy outward."""
    count = 20_000
    model = small_ram(glimpses=2, hidden=4).double()
    with torch.no_grad():
        model.location_network.weight.zero_()
        model.location_network.bias.copy_(torch.atanh(torch.tensor([0.98, -0.98])))
    noise = torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(1)).double()
    images, start = torch.zeros(1, 3, 31, 45).double().expand(count, -1, -1, -1), torch.zeros(count, 2).double()
    trajectory = model(images, start, noise)
    beyond = (trajectory.locations[:, 1].abs() == 1).double().mean().item()
    assert beyond == pytest.approx(scipy.stats.norm.sf(1, 0.98, model.sigma), abs=0.01)  # 45 % were clamped
    assert trajectory.locations.abs().max() <= 1
    (trajectory.log_probs.sum() / count / (1 - 0.98**2)).backward()
    standard_error = 1 / (model.sigma * math.sqrt(count))
    assert (model.location_network.bias.grad.abs() < 4 * standard_error).all()
    # The bug: the score of clamped locations is off by many standard errors.
    mean = torch.tensor([0.98, -0.98])
    clamped_score = (trajectory.locations[:, 1] - mean) / model.sigma**2
    assert (clamped_score.mean(0).abs() > 20 * standard_error).all()


@pytest.mark.parametrize("sampled", [True, False])
def test_T04_location_is_detached_before_it_enters_the_glimpse_network(small_ram, rollout_inputs, sampled, gradients):
    """Cross entropy alone leaves the location network's gradients exactly 0, and moves everything else it should."""
    model = small_ram()
    images, start, noise, labels = rollout_inputs()
    trajectory = model(images, start, noise if sampled else None)
    loss = F.cross_entropy(trajectory.class_logits[:, -1], labels)
    assert not any(g.any() for g in gradients(model, loss, "location_network"))
    assert not any(g.any() for g in gradients(model, loss, "baseline_network"))
    for part in ("classifier", "core", "glimpse_network"):
        assert all(g.any() for g in gradients(model, loss, part)), part


def test_T05_the_baseline_learns_from_its_regression_alone_and_teaches_nothing_else(
    small_ram, rollout_inputs, gradients
):
    """Ledger B8."""
    model = small_ram()
    images, start, noise, _ = rollout_inputs()
    loss = (model(images, start, noise).baselines - 1).square().mean()
    assert all(g.any() for g in gradients(model, loss, "baseline_network"))
    for part in ("core", "glimpse_network", "location_network", "classifier"):
        assert not any(g.any() for g in gradients(model, loss, part)), part


def test_context_loss_reaches_its_network_only_when_there_is_one(small_ram, rollout_inputs, gradients):
    images, start, noise, labels = rollout_inputs()
    model = small_ram(context=True)
    loss, _ = hybrid_loss(model(images, start, noise), labels, model.context_network, 1.0, 0.01, "literal", 0.5)
    assert all(g.any() for g in gradients(model, loss, "context_network"))
    plain = small_ram()
    assert plain.context_network is None
    _, parts = hybrid_loss(plain(images, start, noise), labels, None, 1.0, 0.01, "literal", 0.5)
    assert parts["context"].item() == 0


@pytest.mark.parametrize("glimpses", [1, 2, 6])
def test_T14_t_glimpses_have_t_minus_one_log_probs(small_ram, rollout_inputs, glimpses):
    """Six glimpses are six crops, the one at the start included, hence five actions (ledger B2)."""
    model = small_ram(glimpses=glimpses)
    images, start, noise, _ = rollout_inputs(glimpses=glimpses)
    crops = []
    model.glimpse_network.register_forward_hook(lambda *_: crops.append(1))
    trajectory = model(images, start, noise)
    assert len(crops) == glimpses
    assert trajectory.log_probs.shape == trajectory.baselines.shape == (9, glimpses - 1)
    assert trajectory.locations.shape == (9, glimpses, 2)
    torch.testing.assert_close(trajectory.locations[:, 0], start)


def test_T14_every_log_prob_belongs_to_the_location_that_is_looked_at_next(small_ram, rollout_inputs):
    """Recomputed with scipy from the trajectory's own locations, with samples kept small enough not to be clamped."""
    model = small_ram(sigma=0.05)
    images, start, noise, _ = rollout_inputs()
    trajectory = model(images, start, noise)
    assert trajectory.locations[:, 1:].abs().max() < 1
    means = model.locate(trajectory.hiddens[:, :-1])
    truth = scipy.stats.norm.logpdf(trajectory.locations[:, 1:], means.detach(), 0.05).sum(-1)
    torch.testing.assert_close(trajectory.log_probs.detach(), torch.from_numpy(truth).float(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("core", ["relu", "lstm"])
@pytest.mark.parametrize("context", [True, False])
def test_T15_all_sizes_differ_and_each_is_where_it_belongs(rollout_inputs, core, context):
    config = experiments.Config(
        dataset="digits", model="ram", epochs=1, glimpses=4, patch_size=7, scales=2, sigma=0.23, core=core,
        context=context, reinforce_into_core=False,
    )  # fmt: skip
    model = build(config, (3, 31, 45), 11)
    assert (model.glimpses, model.sensor.size, model.sensor.scales, model.sigma) == (4, 7, 2, 0.23)
    assert model.reinforce_into_core is False
    images, start, noise, _ = rollout_inputs()
    trajectory = model(images, start, noise)
    assert trajectory.patch_entropies.shape == (9, 4)
    assert trajectory.hiddens.shape == (9, 4, 256)
    assert trajectory.class_logits.shape == (9, 4, 11)
    assert trajectory.log_probs.shape == trajectory.baselines.shape == (9, 3)
    assert model.glimpse_network.patch.in_features == 2 * 3 * 7 * 7
    assert model.patch_mean.shape == model.patch_std.shape == (2, 1, 1, 1)
    if context:
        assert model.context_network(trajectory.hiddens[:, 0]).shape == (9, 11)


def test_T15_hidden_size_differs_from_glimpse_size(small_ram, rollout_inputs):
    images, start, noise, _ = rollout_inputs()
    for core in ("relu", "lstm"):
        assert small_ram(core=core, hidden=48, context=True)(images, start, noise).hiddens.shape == (9, 4, 48)


@pytest.mark.parametrize("name", ["fc", "cnn2", "cnn5"])
def test_T15_feedforward_models_take_images_that_are_not_square(name):
    model = build(experiments.Config(dataset="digits", model=name, epochs=1), (3, 31, 45), 11)
    assert model(torch.rand(2, 3, 31, 45)).shape == (2, 11)


@pytest.mark.parametrize("name", ["fc", "cnn2", "cnn5", "ram"])
def test_T16_a_batch_of_one_gives_what_it_gives_within_a_batch(name, few_digits, small_config):
    model = build(small_config(model=name), few_digits.image_shape, 10).double()
    images = few_digits.train.floats()[:5].double()
    if name != "ram":
        torch.testing.assert_close(model(images[:1]), model(images)[:1])
        return
    start, noise = torch.rand(5, 2).double() - 0.5, torch.randn(5, 2, 2).double()
    whole, one = model(images, start, noise), model(images[:1], start[:1], noise[:1])
    for name, field in one._asdict().items():
        torch.testing.assert_close(field, getattr(whole, name)[:1], msg=name)
    loss, _ = hybrid_loss(one, torch.tensor([3]), None, 1.0, 0.01, "intent", 0.5)
    assert loss.shape == () and loss.isfinite()


def test_mean_policy_has_no_noise_and_sampled_policy_adds_sigma_times_it(small_ram, rollout_inputs):
    """Ledger B4: sigma is a standard deviation in location units."""
    images, start, noise, _ = rollout_inputs()
    model = small_ram(sigma=0.01)
    mean, sampled = model(images, start), model(images, start, noise)
    torch.testing.assert_close(mean.locations[:, 1], model.locate(mean.hiddens[:, 0]).detach())
    torch.testing.assert_close(sampled.locations[:, 1] - mean.locations[:, 1], 0.01 * noise[:, 0], rtol=1e-3, atol=1e-6)


def test_patch_entropies_are_those_of_the_finest_scale_where_the_model_looked(small_ram):
    """Ledger D5: of the raw patch, before it is standardised."""
    model = small_ram(glimpses=2)
    images = torch.zeros(2, 3, 31, 45)
    images[1, :, :, 22:] = 1  # split near the middle: half of the finest patch is lit, the black image has nothing
    before = model(images, torch.zeros(2, 2)).patch_entropies
    assert before[0].tolist() == [0, 0]
    assert before[1, 0].item() == pytest.approx(scipy.stats.entropy([4 / 7, 3 / 7], base=2), abs=1e-5)
    model.patch_mean.fill_(5)
    model.patch_std.fill_(0.1)
    torch.testing.assert_close(model(images, torch.zeros(2, 2)).patch_entropies[:, 0], before[:, 0])


def test_relu_core_by_hand(small_ram):
    """H_t = ReLU(W_h H_{t-1} + W_g G_t + b), with W_h starting as the identity."""
    core = small_ram(hidden=5).core
    torch.testing.assert_close(core.from_hidden.detach(), torch.eye(5))
    glimpse, state = torch.randn(3, 256), torch.rand(3, 5)
    with torch.no_grad():
        core.from_hidden.copy_(torch.randn(5, 5))
        expected = (state @ core.from_hidden.T + glimpse @ core.from_glimpse.weight.T + core.from_glimpse.bias).relu()
    hidden, following = core(glimpse, state)
    torch.testing.assert_close(hidden, expected)
    assert following is hidden


def test_calibration_standardises_training_patches(few_digits, small_config):
    model = build(small_config(scales=2), few_digits.image_shape, 10)
    images = few_digits.train.floats()
    location = torch.rand(len(images), 2) * 2 - 1
    model.calibrate(images, location)
    patch = model.sensor(model.sensor.pyramid(images), location)
    standard = ((patch - model.patch_mean) / model.patch_std).transpose(0, 1).flatten(1)
    torch.testing.assert_close(standard.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(1), torch.ones(2), atol=1e-4, rtol=0)


def test_ledger_K1_predictions_do_not_depend_on_labels(few_digits, small_config):
    """The context uses the true label, so it is a training loss alone: permuted test labels change no prediction."""
    from uram_lib.evaluation import evaluate

    torch.manual_seed(0)
    model = build(small_config(context=True), few_digits.image_shape, 10)
    split = few_digits.validation
    right = evaluate(model, split, 2, monte_carlo=True)
    predicted_3 = evaluate(model, data.Split(split.images, torch.full_like(split.labels, 3), split.centres), 2)
    predicted_each = torch.stack([
        evaluate(model, data.Split(split.images, torch.full_like(split.labels, k), split.centres), 2).correct
        for k in range(10)
    ])  # fmt: skip
    assert (predicted_each.sum(0) == 1).all()  # whatever labels are given, each image is called one same class
    torch.testing.assert_close(predicted_each[3], predicted_3.correct)
    torch.testing.assert_close(predicted_each.float().argmax(0) == split.labels, right.correct)


@pytest.mark.parametrize("changes, said", [
    ({"glimpses": 0}, "glimpses must be at least 1"),
    ({"sigma": 0.0}, "sigma positive"),
    ({"core": "gru"}, "'gru'; one of: relu, lstm"),
])  # fmt: skip
def test_ram_refuses_impossible_settings(changes, said):
    with pytest.raises(ValueError, match=said):
        RAM((1, 28, 28), 10, **{"glimpses": 2, "patch_size": 8, "scales": 1, "sigma": 0.15} | changes)


def test_lstm_core_is_pytorchs_lstm_cell(generator):
    """Independent truth: PyTorch's own fused cell, over a few steps."""
    from uram_lib.models.ram import LSTMCore

    core = LSTMCore(11, 7).double()
    state = core.initial_state(5, torch.zeros(1, dtype=torch.float64))
    truth = state
    for _ in range(4):
        glimpse = torch.randn(5, 11, generator=generator, dtype=torch.float64)
        hidden, state = core(glimpse, state)
        truth = core.cell(glimpse, truth)
        torch.testing.assert_close(hidden, truth[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(state[1], truth[1], rtol=0, atol=1e-12)
