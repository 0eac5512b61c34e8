"""RAM and the reader of numbers, which is one: where gradients may and may not go, the policy's density, what the
glimpses and cores are (oracle 1; T1-T5, T10, T14, T15)."""

import math

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from drawing import SHAPE, drawn, small_dram

from uram_lib.config import Config
from uram_lib.models import DRAM, RAM, build
from uram_lib.models.layers import LSTMCore
from uram_lib.objectives import policy_objective

POLICY = {RAM: ("location_network",), DRAM: ("location_network", "location_core", "start_network")}
READING = ("core", "glimpse_network", "classifier")
ALL, NONE = {True}, {False}


@pytest.fixture(params=["ram", "dram"])
def looker(request, small_ram):
    """Builder of a RAM or a reader of numbers for images of `SHAPE`, whose sizes all differ."""
    return small_ram if request.param == "ram" else small_dram


@pytest.fixture
def images(generator):
    return torch.rand(9, *SHAPE, generator=generator)


def reached(model, loss) -> dict[str, set[bool]]:
    """Whether a loss gives a gradient to each part of a model: to all (ALL), none (NONE) or some of its parameters."""
    loss.backward()
    parts = {part: getattr(model, part).parameters() for part in (*POLICY[type(model)], *READING, "baseline_network")}
    return {part: {p.grad is not None and bool(p.grad.any()) for p in parameters} for part, parameters in parts.items()}


def test_oracle01_score_of_the_policy_is_l_minus_mu_over_variance(small_ram):
    """Independent truth: the derivative of the normal log-density on paper, and scipy for its value."""
    model = small_ram()
    means = torch.rand(6, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    samples = means + 0.15 * torch.randn_like(means)
    truth = torch.from_numpy(scipy.stats.norm.logpdf(samples, means, 0.15).sum(-1))
    log_probs = model.log_prob(samples, means.requires_grad_(), 0.15)
    torch.testing.assert_close(log_probs.detach(), truth, rtol=0, atol=1e-9)
    log_probs.sum().backward()
    torch.testing.assert_close(means.grad, ((samples - means) / 0.15**2).detach(), rtol=0, atol=1e-6)


def test_T01_score_through_the_whole_model_is_exact_and_not_zero(looker, images):
    """Of the first action, l = mu + sigma noise: the score of mu is noise / sigma, and that of the location network's
    bias, behind the tanh, noise / sigma (1 - mu^2)."""
    model, means = looker().double(), []
    model.location_network.register_forward_hook(lambda *found: means.append(found[2].detach().tanh()))
    draws = drawn(model, 9, dtype=torch.float64)
    model.rollout(images.double(), draws).log_probs[:, 0].sum().backward()
    expected = (draws["noise"][:, 0] / model.sigma * (1 - means[0] ** 2)).sum(0)
    torch.testing.assert_close(model.location_network.bias.grad, expected, rtol=0, atol=1e-6)
    assert expected.abs().min() > 0.01


@pytest.mark.parametrize("into_core", [True, False])
def test_T02_T05_reinforce_reaches_the_policy_always_the_core_as_configured_and_the_baseline_never(
    looker, images, into_core
):
    """Ledger B6. The upper layer of a reader of numbers is the policy's own; the lower one is shared with classes."""
    model = looker(reinforce_into_core=into_core)
    trajectory = model.rollout(images, drawn(model, 9))
    found = reached(model, -policy_objective(trajectory.log_probs, torch.ones(9), trajectory.baselines))
    assert all(found[part] == ALL for part in POLICY[type(model)])
    assert all((found[part] != NONE) == into_core for part in ("core", "glimpse_network"))
    assert found["baseline_network"] == found["classifier"] == NONE


def test_T03_score_has_mean_zero_near_the_border(small_ram):
    """The density is the sample's, not that of the clamped location, which would pull the policy outward."""
    count = 8_000
    model = small_ram(glimpses=2, hidden=4, patch_size=3, scales=1).double()
    with torch.no_grad():
        model.location_network.weight.zero_()
        model.location_network.bias.copy_(torch.atanh(torch.tensor([0.98, -0.98])))
    noise = torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(1)).double()
    trajectory = model(torch.zeros(1, *SHAPE).double().expand(count, -1, -1, -1), torch.zeros(count, 2).double(), noise)
    beyond = (trajectory.locations[:, 1].abs() == 1).double().mean().item()
    assert beyond == pytest.approx(scipy.stats.norm.sf(1, 0.98, model.sigma), abs=0.02)  # 45 % were clamped
    assert trajectory.locations.abs().max() <= 1
    (trajectory.log_probs.sum() / count / (1 - 0.98**2)).backward()
    standard_error = 1 / (model.sigma * math.sqrt(count))
    assert (model.location_network.bias.grad.abs() < 4 * standard_error).all()


@pytest.mark.parametrize("sampled", [True, False])
def test_T04_location_is_detached_before_it_enters_the_glimpse_network(looker, images, sampled):
    """Cross entropy alone leaves the policy's gradients exactly 0, and moves everything else it should. The coarse
    image of a reader of numbers reaches the classes only through where it looks."""
    model = looker()
    trajectory = model.rollout(images, drawn(model, 9, sampled))
    found = reached(model, F.cross_entropy(trajectory.class_logits[:, -1], torch.arange(9)))
    assert all(found[part] == NONE for part in (*POLICY[type(model)], "baseline_network"))
    assert all(found[part] == ALL for part in READING)


def test_T05_the_baseline_learns_from_its_regression_alone_and_teaches_nothing_else(looker, images):
    """Ledger B8."""
    model = looker()
    found = reached(model, (model.rollout(images, drawn(model, 9)).baselines - 1).square().mean())
    assert [part for part, how in found.items() if how != NONE] == ["baseline_network"]


@pytest.mark.parametrize("glimpses", [1, 2, 6])
def test_T14_every_action_has_one_log_prob_that_of_the_location_looked_at_next(looker, images, glimpses):
    """Six glimpses are six crops. RAM's first is given, hence five actions (ledger B2); readers of numbers choose all.
    Recomputed with scipy from the trajectory's own locations, with samples kept small enough not to be clamped."""
    glimpses *= 6 if looker is small_dram else 1
    model, crops, means = looker(glimpses=glimpses, sigma=0.05), [], []
    model.glimpse_network.register_forward_hook(lambda *_: crops.append(1))
    model.location_network.register_forward_hook(lambda *found: means.append(found[2].detach().tanh()))
    draws = drawn(model, 9)
    trajectory = model.rollout(images, draws)
    actions = glimpses if looker is small_dram else glimpses - 1
    assert (len(crops), len(means)) == (glimpses, actions) and trajectory.locations.shape == (9, glimpses, 2)
    assert trajectory.log_probs.shape == trajectory.baselines.shape == (9, actions)
    if "start" in draws:
        torch.testing.assert_close(trajectory.locations[:, 0], draws["start"])
    chosen = trajectory.locations[:, glimpses - actions :]
    assert not actions or chosen.abs().max() < 1
    truth = [scipy.stats.norm.logpdf(chosen[:, t], mean, 0.05).sum(-1).tolist() for t, mean in enumerate(means)]
    found = trajectory.log_probs.detach().T
    torch.testing.assert_close(found, torch.tensor(truth).view_as(found), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("core", ["relu", "lstm"])
@pytest.mark.parametrize("context", ["none", "attended"])
def test_T15_a_ram_has_what_its_configuration_says(images, core, context):
    """All sizes differ, so that none can be in another's place."""
    config = Config("digits", "ram", 2, glimpses=4, patch_size=7, scales=2, sigma=0.23, last_sigma=0.11, core=core,
                    context=context, start="image-centre")  # fmt: skip
    model = RAM(config, SHAPE, 11, hidden=48)
    assert (model.glimpses, model.sensor.size, model.sensor.scales, model.sigma) == (4, 7, 2, 0.11)
    trajectory = model.rollout(images, drawn(model, 9))
    assert trajectory.hiddens.shape == (9, 4, 48) and trajectory.class_logits.shape == (9, 4, 11)
    assert (trajectory.locations[:, 0] == 0).all() and model.glimpse_network.patch.in_features == 2 * 3 * 7 * 7
    assert (model.context_network is None) == (context == "none")
    assert context == "none" or model.context_network(trajectory.hiddens[:, 0]).shape == (9, 11)


def test_mean_policy_has_no_noise_and_sampled_policy_adds_sigma_times_it(small_ram, rollout_inputs):
    """Ledger B4: sigma is a standard deviation in location units; that of the epoch goes before the model's own."""
    images, start, noise, _ = rollout_inputs()
    model = small_ram(sigma=0.01)
    mean, sampled, wider = (model(images, start, *rest) for rest in ((), (noise,), (noise, 0.03)))
    torch.testing.assert_close(mean.locations[:, 1], model.locate(mean.hiddens[:, 0]).detach())
    for found, sigma in ((sampled, 0.01), (wider, 0.03)):
        away = found.locations[:, 1] - mean.locations[:, 1]
        torch.testing.assert_close(away, sigma * noise[:, 0], rtol=1e-3, atol=1e-6)


def test_ledger_B5_a_linear_mean_is_not_squashed(small_ram):
    hidden = torch.randn(9, 48, generator=torch.Generator().manual_seed(0)) * 20
    bounded, linear = small_ram().locate(hidden), small_ram(bounded_mean=False).locate(hidden)
    torch.testing.assert_close(bounded, linear.tanh())
    assert linear.abs().max() > 2 and bounded.abs().max() <= 1


def test_ledger_B3_the_first_hidden_state_is_zero_or_drawn(small_ram, images):
    """Standard normal where it is drawn, and the first state of the core."""
    model, states = small_ram(initial_hidden="noise"), []
    draws = drawn(model, 9)
    assert "hidden" not in drawn(small_ram(), 9) and draws["hidden"].shape == (9, 48)
    assert scipy.stats.kstest(drawn(model, 500)["hidden"].flatten(), "norm").pvalue > 0.01
    model.core.register_forward_pre_hook(lambda _, inputs: states.append(inputs[1]))
    for first, expected in ((draws["hidden"], draws["hidden"]), (None, torch.zeros(9, 48))):
        states.clear()
        model.rollout(images, draws | {"hidden": first})
        assert torch.equal(states[0][0], expected)


@pytest.mark.parametrize("small, changes, differing", [
    ("small_ram", {"location_scale": 0.1}, {"location_network.weight", "location_network.bias"}),
    ("small_ram", {"core": "lstm", "forget_bias": 1.0}, {"core.cell.bias_ih"}),
    ("small_dram", {"forget_bias": 1.0}, {"core.cell.bias_ih", "location_core.cell.bias_ih"}),
])  # fmt: skip
def test_settings_of_the_first_weights_change_these_weights_alone(small_ram, small, changes, differing):
    make, plain = small_ram if small == "small_ram" else small_dram, {k: v for k, v in changes.items() if k == "core"}
    one, other = (make(**settings).state_dict() for settings in (plain, changes))
    assert {key for key in one if not torch.equal(one[key], other[key])} == differing
    for key in differing:
        if "forget_bias" in changes:  # PyTorch's order of gates: input, forget, candidate, output
            added = torch.tensor([0.0, 1, 0, 0]).repeat_interleave(len(one[key]) // 4)
            torch.testing.assert_close(other[key] - one[key], added)
        else:
            assert torch.equal(other[key], 0.1 * one[key])


def test_patch_entropies_are_those_of_the_finest_scale_or_the_mean_of_all(small_ram):
    """Ledger D5: of the raw patch, before it is standardised."""
    images = torch.zeros(2, *SHAPE)
    images[1, :, :, 22:] = 0.6  # split near the middle: half of the patch is lit, the black image has nothing
    bits = scipy.stats.entropy([4 / 7, 3 / 7], base=2)
    # Of the second scale, too, 4 of 7 are lit.
    for changes, expected in (({}, bits), ({"entropy_scales": "all"}, bits), ({"entropy_threshold": 0.7}, 0)):
        model = small_ram(glimpses=2, **changes)
        before = model(images, torch.zeros(2, 2)).patch_entropies
        assert before[0].tolist() == [0, 0] and before[1, 0].item() == pytest.approx(expected, abs=1e-5)
        model.patch_mean.fill_(5)
        model.patch_std.fill_(0.1)
        torch.testing.assert_close(model(images, torch.zeros(2, 2)).patch_entropies[:, 0], before[:, 0])


def test_relu_core_by_hand(small_ram):
    """H_t = ReLU(W_h H_{t-1} + W_g G_t + b), with W_h starting as the identity."""
    core = small_ram(hidden=5).core
    torch.testing.assert_close(core.from_hidden.detach(), torch.eye(5))
    glimpse, state = torch.randn(3, 256), torch.rand(3, 5)
    torch.nn.init.normal_(core.from_hidden)
    expected = (state @ core.from_hidden.T + glimpse @ core.from_glimpse.weight.T + core.from_glimpse.bias).relu()
    torch.testing.assert_close(core(glimpse, (state,)), (expected,))


def test_lstm_core_is_pytorchs_lstm_cell(generator):
    """Independent truth: PyTorch's own fused cell, over a few steps."""
    core = LSTMCore(11, 7).double()
    state = truth = (torch.zeros(5, 7, dtype=torch.float64), torch.zeros(5, 7, dtype=torch.float64))
    for _ in range(4):
        glimpse = torch.randn(5, 11, generator=generator, dtype=torch.float64)
        state = core(glimpse, state)
        truth = core.cell(glimpse, truth)
        torch.testing.assert_close(state, truth, rtol=0, atol=1e-12)


def test_calibration_standardises_training_patches_unless_told_not_to(few_digits, small_config):
    """Ledger B9."""
    images, location = few_digits.train.floats(), torch.rand(len(few_digits.train), 2) * 2 - 1
    model, raw = (build(small_config(scales=2, standardise=s), few_digits.image_shape, 10) for s in (True, False))
    model.calibrate(images, location)
    patch = model.sensor(model.sensor.pyramid(images), location)
    standard = ((patch - model.patch_mean) / model.patch_std).transpose(0, 1).flatten(1)
    found = torch.stack((standard.mean(1), standard.std(1)))
    torch.testing.assert_close(found, torch.tensor([[0.0] * 2, [1.0] * 2]), atol=1e-4, rtol=0)
    raw.calibrate(images, location)
    assert (raw.patch_mean == 0).all() and (raw.patch_std == 1).all()


def test_brightness_and_contrast_of_a_photograph_of_numbers_do_not_matter(images):
    """Where no glimpse meets the border, beyond which it is black whatever the photograph's exposure."""
    model = small_dram(sigma=1e-6, scales=1)
    one, other = model(images), model(0.2 + 0.5 * images)
    assert one.locations.abs().max() < 0.5
    torch.testing.assert_close(one.class_logits, other.class_logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.locations, other.locations, rtol=1e-3, atol=1e-4)
    assert not torch.equal(one.patch_entropies, other.patch_entropies)  # these are of the raw patch (ledger D5)


def test_noise_for_another_number_of_actions_is_refused(small_ram, rollout_inputs):
    images, start, _, _ = rollout_inputs()
    for shape in ((9, 4, 2), (1, 3, 2), (9, 3)):  # one per glimpse, one for all, no axes
        with pytest.raises(ValueError, match=r"noise must be \(9, 3, 2\), got"):
            small_ram()(images, start, torch.zeros(shape))
