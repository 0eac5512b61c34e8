"""Table 3's models, their losses and their evaluation: whole numbers read digit by digit (T1, T2, T4, T5, T14-T16)."""

import dataclasses
import itertools
import math

import pandas as pd
import pytest
import scipy.stats
import torch
import torch.nn.functional as F

from uram_lib import UramError, checkpoints, data, experiments, pages, records, replicas, sweep, tables, training
from uram_lib.data.composed import compose
from uram_lib.data.sequences import TERMINAL, SequenceDataset, Sequences, counting, encode
from uram_lib.evaluation import evaluate, read_out, rollouts, spoken
from uram_lib.models import DRAM, ElevenLayerCNN, Trajectory, build
from uram_lib.models.cost import multiply_adds
from uram_lib.models.number_cnns import (
    LengthAndDigits,
    LocallyConnected,
    MaxPool,
    SubtractiveNorm,
    most_probable,
)
from uram_lib.models.vgg import count_parameters
from uram_lib.objectives import (
    hybrid_loss,
    length_and_digits_loss,
    number_loss,
    policy_objective,
    returns_of,
)
from uram_lib.seeding import initialise, stream

SHAPE = (3, 31, 45)
BATCH, GLIMPSES = 5, 12  # two glimpses a place
PLAIN = (1.0, 0.01, "none", 0.5, "cumulative")  # beta1, beta2, entropy, lambda, reward


def small_dram(seed: int = 0, **changes) -> DRAM:
    """A reader whose sizes all differ, so that swapped arguments cannot hide."""
    sizes = {"glimpses": GLIMPSES, "patch_size": 9, "scales": 2, "sigma": 0.15, "width": 0.05} | changes
    return initialise(DRAM(SHAPE, 11, **sizes), seed)


@pytest.fixture
def inputs(generator):
    """(images, noise, labels) for `small_dram`; the numbers have 1, 2, 3, 5 and 2 digits."""
    labels = torch.tensor([encode(number) for number in ([7], [1, 0], [3, 3, 9], [1, 2, 3, 4, 5], [8, 6])])
    images = torch.rand(BATCH, *SHAPE, generator=generator)
    return images, torch.randn(BATCH, GLIMPSES, 2, generator=generator), labels


@pytest.fixture(scope="module")
def numbers():
    """Composed numbers of the embedded digits, cut to 120 training and 60 validation images."""
    whole = data.load("digits-composed")
    bare = data.Split(whole.train.images[:120], whole.train.labels[:120], whole.train.centres[:120])
    return dataclasses.replace(whole, train=bare, validation=whole.validation.at(torch.arange(60)))


def number_config(**changes) -> experiments.Config:
    settings = {"dataset": "digits-composed", "model": "dram", "epochs": 3, "batch_size": 40, "glimpses": 18}
    return experiments.Config(**settings | {"patch_size": 12, "scales": 2, "width": 0.03} | changes)


# --- where gradients may and may not go


def test_T01_score_through_the_whole_model_is_exact_and_not_zero(inputs):
    """The first location is the start network's: its score, behind the tanh, is noise / sigma (1 - mu^2)."""
    model = small_dram().double()
    images, noise, _ = inputs
    trajectory = model(images.double(), noise.double())
    coarse = F.adaptive_avg_pool2d(images.double(), 9)
    coarse = (coarse - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)
    mean = model.locate(model.start_network(coarse)[0]).detach()
    expected = (noise[:, 0].double() / model.sigma * (1 - mean**2)).sum(0)
    trajectory.log_probs[:, 0].sum().backward()
    torch.testing.assert_close(model.location_network.bias.grad, expected, rtol=0, atol=1e-6)
    assert expected.abs().min() > 0.01


@pytest.mark.parametrize("into_core", [True, False])
def test_T02_reinforce_reaches_start_network_and_upper_layer_always_and_the_lower_as_configured(
    inputs, into_core, gradients
):
    """Ledger B6: the upper layer is the policy's own; the lower one is shared with the classes."""
    model = small_dram(reinforce_into_core=into_core)
    trajectory = model(*inputs[:2])
    loss = -policy_objective(trajectory.log_probs, torch.arange(BATCH).remainder(2).float(), trajectory.baselines)
    for part in ("location_network", "location_core", "start_network"):
        assert all(g.any() for g in gradients(model, loss, part)), part
    for part in ("core", "glimpse_network"):
        assert any(g.any() for g in gradients(model, loss, part)) == into_core, part
    assert not any(g.any() for g in gradients(model, loss, "baseline_network"))


@pytest.mark.parametrize("sampled", [True, False])
def test_T04_classes_teach_nothing_about_where_to_look(inputs, sampled, gradients):
    """Locations are detached, and the coarse image does not leak into the classes but through where the model looks."""
    model = small_dram()
    images, noise, labels = inputs
    trajectory = model(images, noise if sampled else None)
    loss = F.cross_entropy(trajectory.class_logits[:, -1], labels[:, -1])
    for part in ("location_network", "location_core", "start_network", "baseline_network"):
        assert not any(g.any() for g in gradients(model, loss, part)), part
    for part in ("classifier", "core", "glimpse_network"):
        assert all(g.any() for g in gradients(model, loss, part)), part


def test_T05_the_baseline_learns_from_its_regression_alone_and_teaches_nothing_else(inputs, gradients):
    model = small_dram()
    loss = (model(*inputs[:2]).baselines - 1).square().mean()
    assert all(g.any() for g in gradients(model, loss, "baseline_network"))
    for part in ("core", "location_core", "start_network", "glimpse_network", "location_network", "classifier"):
        assert not any(g.any() for g in gradients(model, loss, part)), part


@pytest.mark.parametrize("context", [True, False])
def test_the_whole_loss_reaches_every_parameter(inputs, context):
    model = small_dram(context=context)
    images, noise, labels = inputs
    loss, _ = number_loss(model(images, noise), labels, model.context_network, *PLAIN)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_brightness_and_contrast_of_the_photograph_do_not_matter(inputs):
    """Where no glimpse meets the border, beyond which it is black whatever the photograph's exposure."""
    model = small_dram(sigma=1e-6, patch_size=9, scales=1)
    images = inputs[0]
    one, other = model(images), model(0.2 + 0.5 * images)
    assert one.locations.abs().max() < 0.5
    torch.testing.assert_close(one.class_logits, other.class_logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.locations, other.locations, rtol=1e-3, atol=1e-4)
    assert not torch.equal(one.patch_entropies, other.patch_entropies)  # these are of the raw patch (ledger D5)


def test_T10_outside_a_black_image_is_black(inputs):
    seen = []
    model = small_dram(sigma=1.0)
    model.glimpse_network.register_forward_hook(lambda module, given, found: seen.append(given[0]))
    model(torch.zeros(BATCH, *SHAPE), inputs[1])
    assert all((patch == patch.flatten()[0]).all() for patch in seen) and len(seen) == GLIMPSES


# --- shapes


def test_T14_every_glimpse_is_chosen_and_has_its_own_log_prob(inputs):
    """Recomputed with scipy from the trajectory's own locations, with samples kept small enough not to be clamped."""
    model = small_dram(sigma=0.05)
    images, noise, _ = inputs
    crops, means = [], []
    model.glimpse_network.register_forward_hook(lambda *_: crops.append(1))
    model.location_network.register_forward_hook(lambda *found: means.append(found[2].tanh().detach()))
    trajectory = model(images, noise)
    assert len(crops) == len(means) == GLIMPSES
    assert trajectory.log_probs.shape == trajectory.baselines.shape == (BATCH, GLIMPSES)
    assert trajectory.locations.abs().max() < 1
    truth = scipy.stats.norm.logpdf(trajectory.locations, torch.stack(means, 1), 0.05).sum(-1)
    torch.testing.assert_close(trajectory.log_probs.detach(), torch.from_numpy(truth).float(), rtol=1e-4, atol=1e-3)


def test_T15_all_sizes_differ_and_each_is_where_it_belongs(inputs):
    model = small_dram(context=True, width=0.07)
    filters, glimpse, hidden = [4, 4, 9], 72, 36  # 7 % of 64, 64, 128, of 1024 and of 512
    for convolutions, channels in ((model.glimpse_network, 2 * 3), (model.start_network, 3)):
        layers = [layer for layer in convolutions.convolutions if isinstance(layer, torch.nn.Conv2d)]
        assert [layer.out_channels for layer in layers] == filters and layers[0].in_channels == channels
        assert [layer.kernel_size for layer in layers] == [(5, 5), (3, 3), (3, 3)]
    assert (model.glimpse_network.patch.in_features, model.glimpse_network.patch.out_features) == (9, glimpse)
    assert (model.core.cell.input_size, model.core.cell.hidden_size) == (glimpse, hidden)
    assert (model.location_core.cell.input_size, model.location_core.cell.hidden_size) == (hidden, hidden)
    trajectory = model(*inputs[:2])
    assert trajectory.locations.shape == (BATCH, GLIMPSES, 2) and trajectory.hiddens.shape == (BATCH, GLIMPSES, hidden)
    assert trajectory.patch_entropies.shape == (BATCH, GLIMPSES)
    assert trajectory.class_logits.shape == (BATCH, GLIMPSES, 11)
    assert model.context_network(trajectory.hiddens).shape == (BATCH, GLIMPSES, 11)


def test_T15_a_configuration_builds_what_it_says():
    config = number_config(sigma=0.23, context=True, reinforce_into_core=False, width=0.5)
    model = build(config, (1, 54, 54), 11)
    assert isinstance(model, DRAM) and (model.glimpses, model.sigma, model.reinforce_into_core) == (18, 0.23, False)
    assert (model.sensor.size, model.sensor.scales) == (12, 2) and model.core.hidden_size == 256
    assert model.context_network is not None and build(number_config(), (1, 54, 54), 11).context_network is None
    assert build(number_config(model="cnn10", width=0.5), (1, 54, 54), 11).digits.in_features == 1_536


@pytest.mark.parametrize("name", ["dram", "cnn10", "cnn11"])
def test_T16_a_batch_of_one_gives_what_it_gives_within_a_batch(name):
    model = initialise(build(number_config(model=name), (1, 54, 54), 11), 0).double()
    images, labels = torch.rand(3, 1, 54, 54).double(), torch.tensor([encode([4, 2])])
    if name != "dram":
        one = model(images[:1])
        for field, whole in zip(one, model(images), strict=True):
            torch.testing.assert_close(field, whole[:1])
        loss, _ = length_and_digits_loss(one, labels)
        assert loss.shape == () and loss.isfinite() and most_probable(one).shape == (1, 6)
        return
    noise = torch.randn(3, 18, 2).double()
    one, whole = model(images[:1], noise[:1]), model(images, noise)
    for name, field in one._asdict().items():
        torch.testing.assert_close(field, getattr(whole, name)[:1], msg=name)
    loss, _ = number_loss(one, labels, None, *PLAIN)
    assert loss.shape == () and loss.isfinite()


@pytest.mark.parametrize(
    "changes, said", [({"glimpses": 13}, "multiple of 6, got 13"), ({"patch_size": 8}, "at least 9, got 8")]
)
def test_dram_refuses_impossible_settings(changes, said):
    with pytest.raises(ValueError, match=said):
        small_dram(**changes)


# --- what a prediction costs, by hand, at full width


def test_parameters_and_multiply_adds_of_dram_by_hand():
    """The appendix's sizes: 5x5, 3x3, 3x3 with 64, 64, 128 filters on 12 -> 8 -> 6 -> 4 values a side, two layers of
    512 LSTM units."""
    model = DRAM((1, 54, 54), 11, 18, 12, 2, 0.15, context=True)
    stack = lambda channels: 25 * channels * 64 + 64 + 9 * 64 * 64 + 64 + 9 * 64 * 128 + 128  # noqa: E731
    glimpse = stack(2) + 16 * 128 * 1024 + 1024 + 2 * 1024 + 1024
    lstm = lambda before: 4 * 512 * (before + 512 + 2)  # noqa: E731
    start = stack(1) + 16 * 128 * 1024 + 1024
    heads = 512 * 2 + 2 + 512 * 11 + 11
    assert count_parameters(model) == glimpse + lstm(1024) + lstm(512) + start + heads
    products = lambda channels: 64 * 25 * channels * 64 + 36 * 9 * 64 * 64 + 16 * 9 * 64 * 128 + 2048 * 1024  # noqa: E731
    # Eq. 10a, the lower layer of 10b, 10c, b and 10d at each glimpse; the upper layer between two glimpses.
    every = products(2) + 2 * 1024 + 4 * 512 * (1024 + 512) + 512 * (2 + 1 + 11)
    assert multiply_adds(model, (1, 54, 54)) == products(1) + 18 * every + 17 * 4 * 512 * (512 + 512)


def test_parameters_of_the_cnns_by_hand():
    """54 -> 27 -> 27 -> 13 -> 13 -> 6 -> 6 -> 3 -> 3 places a side."""
    convolutions = [25 * a * b + b for a, b in ((48, 64), (64, 128), (128, 160), (160, 192), *[(192, 192)] * 3)]
    dense = 9 * 192 * 3072 + 3072 + 3072 * 3072 + 3072 + 3072 * 5 + 5 + 3072 * 50 + 50
    ten = build(number_config(model="cnn10", width=1.0), (1, 54, 54), 11)
    assert count_parameters(ten) == 25 * 48 + 48 + sum(convolutions) + dense
    eleven = build(number_config(model="cnn11", width=1.0), (1, 54, 54), 11)
    local = 9 * (25 * 192 * 192 + 192)
    assert count_parameters(eleven) == 25 * 144 + 144 + sum(convolutions) + local + dense


# --- objectives


def test_labels_count_up_to_the_first_end():
    labels = torch.tensor([encode([7]), encode([1, 0, 2]), encode([5] * 5)])
    assert counting(labels).int().tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1] * 6]


def test_returns_by_hand():
    right = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    counts = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    cumulative = [[1 / 4, 0, 0, 0], [1, 2 / 3, 1 / 3, 0], [0, 0, 0, 0], [1, 1 / 2, 0, 0]]
    torch.testing.assert_close(returns_of(right, counts, "cumulative"), torch.tensor(cumulative))
    assert returns_of(right, counts, "whole").tolist() == [[0] * 4, [1] * 4, [0] * 4, [1] * 4]
    with pytest.raises(ValueError, match="unknown reward 'each'; one of: cumulative, whole"):
        returns_of(right, counts, "each")


def test_cumulative_returns_give_the_gradient_of_the_expected_share_that_is_read():
    """Full enumeration: three places, at each a choice of two actions that are right with known probabilities."""
    logits = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64, requires_grad=True)  # of action 1 at each place
    chance = torch.tensor([[0.2, 0.9], [0.6, 0.3], [0.5, 0.7]], dtype=torch.float64)  # of being right, by action
    policy = torch.stack((-F.softplus(logits), -F.softplus(-logits)), 1)  # (3, 2): log-probabilities of the actions
    counts = torch.ones(1, 3, dtype=torch.bool)
    expected, surrogate = 0, 0
    for actions in itertools.product((0, 1), repeat=3):
        for right in itertools.product((False, True), repeat=3):
            p_right = math.prod(chance[n, a] if r else 1 - chance[n, a] for n, (a, r) in enumerate(zip(actions, right)))  # noqa: B905
            chosen = torch.stack([policy[n, a] for n, a in enumerate(actions)])
            probability = chosen.sum().exp() * p_right
            returns = returns_of(torch.tensor([right]), counts, "cumulative")[0].double()
            expected = expected + probability * returns[0]
            surrogate = surrogate + probability.detach() * (chosen * returns).sum()
    truth = torch.autograd.grad(expected, logits, retain_graph=True)[0]
    found = torch.autograd.grad(surrogate, logits)[0]
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-7)
    assert truth.abs().min() > 0.001


@pytest.mark.parametrize("reward", ["cumulative", "whole"])
@pytest.mark.parametrize("entropy", ["none", "literal", "intent"])
def test_the_loss_of_numbers_is_eq14_place_by_place(inputs, entropy, reward):
    """The sum, written in plain Python, of `hybrid_loss` over the places that count of each image alone."""
    model = small_dram(context=True)
    images, noise, labels = inputs
    trajectory = model(images, noise)
    settings = (0.7, 0.02, entropy, 0.4)
    loss, parts = number_loss(trajectory, labels, model.context_network, *settings, reward)
    total, right_numbers = 0, 0
    for i, label in enumerate(labels.tolist()):
        ends = label.index(TERMINAL) + 1 if TERMINAL in label else 6
        said = trajectory.class_logits[i, 1::2].argmax(-1).tolist()
        right = [said[n] == label[n] for n in range(ends)]
        right_numbers += all(right)
        worth = [float(all(right[: n + 1])) for n in range(ends)]
        for n in range(ends):
            value = sum(worth[n:]) / ends if reward == "cumulative" else float(all(right))
            own = Trajectory(*(field[i : i + 1, 2 * n : 2 * n + 2] for field in trajectory))
            one, _ = hybrid_loss(
                own, torch.tensor(label[n : n + 1]), model.context_network, *settings, rewards=torch.tensor([value])
            )
            total = total + one / len(labels)
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    assert parts["reward"].item() == pytest.approx(right_numbers / len(labels))


def test_what_lies_behind_the_end_adds_nothing(inputs):
    """Neither to the value nor to any gradient, whatever is seen, said and chosen there."""
    model = small_dram(context=True)
    images, noise, labels = inputs
    found = []
    for scale in (1.0, 100.0):
        trajectory = model(images, noise)
        behind = ~counting(labels).repeat_interleave(2, 1)  # (B, T)
        changed = []
        for field in trajectory:
            mask = behind.view(*behind.shape, *[1] * (field.ndim - 2))
            changed.append(torch.where(mask, field * scale + (scale - 1), field))
        loss, parts = number_loss(
            Trajectory(*changed), labels, model.context_network, 1.0, 0.01, "intent", 0.5, "cumulative"
        )
        model.zero_grad()
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in model.parameters()], parts))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_a_curriculum_leaves_out_the_places_that_none_of_its_numbers_has(inputs):
    """The loss and its gradients are those of all places, of which the last ones are padding."""
    model = small_dram(context=True)
    images, noise, labels = (part[[0, 1, 4]] for part in inputs)  # 1, 2 and 2 digits
    found = []
    for places in (6, 3):
        trajectory = model(images, noise[:, : 2 * places])
        assert trajectory.locations.shape[1] == 2 * places
        settings = (0.7, 0.02, "literal", 0.4, "cumulative")
        loss, parts = number_loss(trajectory, labels[:, :places], model.context_network, *settings)
        model.zero_grad()
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in model.parameters()], parts))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("spread, most", [(0.1, 1), (0.3, 1), (0.5, 2), (0.85, 4), (1.0, 5)])
def test_a_curriculum_shows_short_numbers_first(spread, most):
    """Of both kinds of data set, composed ones and those that hold their images."""
    composed = data.load("digits-composed")
    whole = compose(composed.source, (1, 1, 1, 1, 1), 60, stream(0, "whole"))
    kept = SequenceDataset(**{f.name: getattr(composed, f.name) for f in dataclasses.fields(SequenceDataset)})
    for dataset in (composed, dataclasses.replace(kept, train=whole)):
        images, labels, centres = dataset.training_batch(torch.arange(60), stream(0, "data"), spread)
        assert images.shape == (60, 1, 54, 54) and labels.shape == (60, most + 1) and centres.shape == (60, 5, 2)
        assert (labels[:, -1] == TERMINAL).all()
        lengths = set((labels != TERMINAL).sum(1).tolist())
        assert lengths <= set(range(1, most + 1)) and (most == 5 or most in lengths)


def test_length_and_digits_loss_by_hand():
    """Two numbers, 42 and 7; digits beyond the length do not enter."""
    generator = torch.Generator().manual_seed(3)
    heads = LengthAndDigits(torch.randn(2, 5, generator=generator), torch.randn(2, 5, 10, generator=generator))
    labels = torch.tensor([encode([4, 2]), encode([7])])
    length, digit = (logits.log_softmax(-1) for logits in heads)
    by_hand = -(length[0, 1] + digit[0, 0, 4] + digit[0, 1, 2] + length[1, 0] + digit[1, 0, 7]) / 2
    torch.testing.assert_close(length_and_digits_loss(heads, labels)[0], by_hand)
    heads.digit_logits[0, 2:] = 50 * torch.randn(3, 10, generator=generator)
    heads.digit_logits[1, 1:] = 50 * torch.randn(4, 10, generator=generator)
    torch.testing.assert_close(length_and_digits_loss(heads, labels)[0], by_hand)


def test_the_most_probable_number_by_trying_them_all():
    """Numbers of one to three digits of a model whose heads know two lengths and digits 0 to 2 alone."""
    logits = torch.randn(20, 5, 10, generator=torch.Generator().manual_seed(1))
    lengths = torch.randn(20, 5, generator=torch.Generator().manual_seed(2))
    logits[..., 3:], lengths[:, 3:] = -1e4, -1e4
    found = most_probable(LengthAndDigits(lengths, logits))
    length, digit = lengths.log_softmax(-1), logits.log_softmax(-1)
    for i in range(20):
        scores = {
            number: length[i, n - 1] + sum(digit[i, place, d] for place, d in enumerate(number))
            for n in (1, 2, 3)
            for number in itertools.product(range(3), repeat=n)
        }
        assert found[i].tolist() == encode(list(max(scores, key=scores.get)))


# --- the layers of the CNNs


def test_layers_of_the_cnns_by_hand(generator):
    features = torch.rand(2, 3, 4, 5, generator=generator)
    kept, halved = MaxPool(1)(features), MaxPool(2)(features)
    assert kept.shape == features.shape and halved.shape == (2, 3, 2, 2)
    assert kept[0, 1, 1, 2] == features[0, 1, 1:3, 2:4].max() and kept[1, 2, 3, 4] == features[1, 2, 3, 4]
    taken = features - SubtractiveNorm()(features)
    assert taken[0, 1, 1, 2].item() == pytest.approx(features[0, :, 0:3, 1:4].mean().item())
    assert taken[1, 0, 0, 0].item() == pytest.approx(features[1, :, 0:2, 0:2].mean().item())  # inside the image alone
    layer = initialise(torch.nn.Sequential(LocallyConnected(3, 7, (4, 5))), 0)[0]
    found = layer(features)
    assert found.shape == (2, 20, 7)
    windows = F.pad(features, (2, 2, 2, 2))
    place = 2 * 5 + 3  # row 2, column 3
    by_hand = torch.einsum("bk,ko->bo", windows[:, :, 2:7, 3:8].flatten(1), layer.weight[place]) + layer.bias[place]
    torch.testing.assert_close(found[:, place], by_hand)


# --- training and evaluation


@pytest.mark.parametrize("changes", [{"context": True, "entropy": "literal"}, {"model": "cnn11"}])
def test_resuming_gives_the_same_bits(numbers, tmp_path, stopped_after, changes):
    config = number_config(**changes)
    whole = training.train(config, 0, numbers)
    stopped_after(2, config, 0, numbers, state_path=tmp_path / "state.pt")
    resumed = training.train(config, 0, numbers, state_path=tmp_path / "state.pt")
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) and whole.curves == resumed.curves
    assert whole.curves["train_error"] == pytest.approx([100 * (1 - r) for r in whole.curves["reward"]])


@pytest.mark.parametrize("changes", [{"context": True, "entropy": "literal"}, {"model": "cnn11"}])
def test_seeds_side_by_side_have_the_loss_and_gradients_that_they_have_alone(numbers, changes):
    config = number_config(**changes)
    streams = {name: training.stream(0, name, 1) for name in training.STREAMS}
    images, labels, centres = numbers.training_batch(torch.arange(6), streams["data"])
    models = [training.new_model(config, seed, numbers) for seed in (0, 1)]
    batch = (images, labels, *training.draws_of(models[0], images, centres, streams))
    alone = [replicas.Replicas([training.new_model(config, seed, numbers)], config) for seed in (0, 1)]
    together = replicas.Replicas(models, config)
    losses, parts = together.loss([batch, batch])
    losses.sum().backward()
    for r, one in enumerate(alone):
        loss, own = one.loss([batch])
        loss.sum().backward()
        torch.testing.assert_close(losses[r], loss[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(parts["reward"][r], own["reward"][0])
        for name, parameter in one.parameters.items():
            torch.testing.assert_close(together.parameters[name].grad[r], parameter.grad, rtol=1e-3, atol=1e-4)


def test_rows_of_one_seed_start_from_the_same_weights_and_see_the_same_draws(numbers):
    plain, full = (training.new_model(number_config(context=context), 3, numbers) for context in (False, True))
    theirs = full.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in plain.state_dict().items())
    images, _, centres = numbers.training_batch(torch.arange(8), training.stream(3, "data", 1))
    policy = lambda: {"policy": training.stream(3, "policy", 1)}  # noqa: E731
    draws = [training.draws_of(model, images, centres, policy()) for model in (plain, full)]
    assert torch.equal(*(noise for (noise,) in draws)) and draws[0][0].shape == (8, 18, 2)


def test_a_number_is_read_until_it_ends():
    classes = torch.tensor([[4, 2, 10, 7, 7, 7], [10, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6]])
    assert read_out(F.one_hot(classes, 11)).tolist() == [encode([4, 2]), encode([]), [1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("name", ["dram", "cnn10"])
def test_errors_are_those_of_a_plain_count(numbers, name):
    """Whole numbers, by length, single pass and Monte Carlo, counted digit by digit in Python."""
    model = initialise(build(number_config(model=name), (1, 54, 54), 11), 0).eval()
    split = numbers.validation
    with torch.no_grad():
        if name == "dram":
            model.classifier.weight.mul_(100)  # so that it says many things, and not one for every image,
            logits = spoken(rollouts(model, split.floats(), 0), 6)
            model.classifier.bias[TERMINAL] += (
                logits[..., :TERMINAL].amax(-1) - logits[..., TERMINAL]
            ).median()  # ends too
            said = read_out(spoken(rollouts(model, split.floats(), 0), 6))
        else:
            said = most_probable(model(split.floats()))
    # Half of the labels are what the model says, where that is a number.
    proper = (said[:, 0] != TERMINAL) & (said[:, 5] == TERMINAL) & (torch.arange(len(said)) % 2 == 0)
    labels = torch.where(proper[:, None], said, split.labels)
    split = Sequences(split.images, labels, split.centres)
    found = evaluate(model, split, 2, monte_carlo=True)
    by_length: dict[int, list[bool]] = {}
    wrong = 0
    for i, label in enumerate(labels.tolist()):
        number = label[: label.index(TERMINAL)] if TERMINAL in label else label[:5]
        with torch.no_grad():
            if name == "dram":
                guesses = model(split.floats()[i : i + 1]).class_logits[0, 2::3].argmax(-1).tolist()
                guess = guesses[: guesses.index(TERMINAL)] if TERMINAL in guesses else guesses
            else:
                guess = [d for d in most_probable(model(split.floats()[i : i + 1]))[0].tolist() if d != TERMINAL]
        wrong += guess != number
        by_length.setdefault(len(number), []).append(guess != number)
    assert 0 < wrong < len(labels)
    assert found.error == pytest.approx(100 * wrong / len(labels))
    assert found.error_by_length == pytest.approx({n: 100 * sum(w) / len(w) for n, w in by_length.items()})
    assert found.correct.shape == (1, len(labels))
    if name != "dram":
        assert found.monte_carlo_correct is None and found.glimpse_distance_px == []
        return
    rolls = [rollouts(model, split.floats(), k, sampled=True) for k in range(2)]
    assert not torch.equal(rolls[0].locations, rolls[1].locations)
    mean = sum(spoken(roll, 6).softmax(-1) for roll in rolls)
    assert torch.equal(found.monte_carlo_correct, (read_out(mean) == labels).all(1))
    assert evaluate(model, split).monte_carlo_correct is None


def test_glimpses_are_measured_against_the_digit_that_they_read(numbers):
    """In plain Python, over the digits that there are; entropies over the end's glimpses, too."""
    model = initialise(build(number_config(), (1, 54, 54), 11), 0).eval()
    split = numbers.validation
    found = evaluate(model, split)
    trajectory = rollouts(model, split.floats(), 0)
    distances, entropies = [[], [], []], [[], [], []]
    for i, length in enumerate(split.lengths.tolist()):
        for t in range(3 * (length + 1)):
            place, glimpse = divmod(t, 3)
            entropies[glimpse].append(trajectory.patch_entropies[i, t].item())
            if place < length:
                x, y = ((trajectory.locations[i, t] + 1) * 27).tolist()
                distances[glimpse].append(math.dist((x, y), split.centres[i, place].tolist()))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    assert found.glimpse_distance_px == pytest.approx([mean(d) for d in distances], rel=1e-4)
    assert found.patch_entropy_bits == pytest.approx([mean(e) for e in entropies], rel=1e-4)
    blank = [100 * mean([e == 0 for e in values]) for values in entropies]
    assert found.blank_patch_percent == pytest.approx(blank, rel=1e-4)


def test_without_a_policy_to_train_the_eye_stays_where_it_is(numbers):
    """While `explore_epochs` last, nothing moves but what reads and the baseline; then the rest moves, too."""
    before = training.new_model(number_config(), 0, numbers).state_dict()
    for explore, parts in ((1, ("location", "start_network")), (0, ())):
        after = training.train(number_config(epochs=1, explore_epochs=explore), 0, numbers).model.state_dict()
        kept = {name for name in before if torch.equal(before[name], after[name]) and "patch_" not in name}
        assert kept == {name for name in before if name.startswith(parts) and parts}


# --- the run, its record and the tables


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records and paths of short runs of three rows, through the sweep."""
    folder = tmp_path_factory.mktemp("numbers")
    jobs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("URAM_LOCAL", str(folder))
        for row in ("cnn10", "dram", "entropy-context"):
            whole = experiments.experiment("table3", row, "smoke")
            config = dataclasses.replace(whole.config, epochs=1, width=1 / 32)
            short = dataclasses.replace(whole, config=config, start_seeds=2)
            jobs.append(sweep.Job(short, 0, publish=False))
            sweep.run_group((jobs[-1],), "cpu")
        checkpoint = records.checkpoint_path(jobs[-1].experiment, 0, False)
        return {job.experiment.row: records.read_record(job.record) for job in jobs}, jobs[-1].experiment, checkpoint


def test_a_run_writes_a_record_with_its_errors_and_a_checkpoint_that_loads(made):
    found, experiment, checkpoint = made
    metrics = found["entropy-context"]["metrics"]
    assert metrics["test"] == "mean policy, one pass an image, whole test set"
    assert len(metrics["glimpse_distance_px"]) == 3 and 0 <= metrics["test_error_monte_carlo"] <= 100
    assert set(metrics["test_error_by_length"]) <= set("12345")
    correct = records.unpack(found["entropy-context"]["test_correct"])
    assert correct.shape == (1, 300) and metrics["test_error"] == pytest.approx(100 * (1 - correct.mean()), abs=1e-3)
    assert "test_error_monte_carlo" not in found["cnn10"]["metrics"]
    model, config = checkpoints.load(checkpoint, experiment.config)
    assert isinstance(model, DRAM) and model.context_network is not None and config == experiment.config


def test_details_hold_cost_and_error_by_length(made):
    lines = tables.details("table3", list(made[0].values()))
    value = {(line.row, line.quantity): line.value for line in lines.itertuples()}
    lengths = made[0]["dram"]["metrics"]["test_error_by_length"]
    assert value["dram", "test error, numbers of 1 digit"] == lengths["1"]
    assert value["dram", "test error, numbers of 2 digits"] == lengths["2"]
    # f_c serves training alone.
    assert value["dram", "parameters"] == value["entropy-context", "parameters"] < value["cnn10", "parameters"]
    assert value["dram", "multiply-adds"] > 1e5 and not lines["value"].isna().any()


def on(record: dict, name: str, preset: str = "converged") -> dict:
    """The same record as if made on another data set at another preset."""
    name, _, variant = name.partition("-")
    return record | {"preset": preset, "dataset": record["dataset"] | {"name": name, "variant": variant}}


def test_generated_numbers_never_decide_a_claim(made):
    """Their effect stands beside the verdict; with SVHN's records there is a verdict of its own."""
    pair = [made[0]["cnn10"], made[0]["entropy-context"]]
    composed = [on(record, "composed-jpeg") for record in pair]
    (c7,) = tables.claims(composed).to_dict("records")
    assert (c7["claim"], c7["verdict"]) == ("C7", "not testable here") and "/composed-jpeg/" in c7["evidence"]
    difference = 100 * (records.wrong(pair[1:]).mean() - records.wrong(pair[:1]).mean())
    assert c7["our_effect"] == pytest.approx(difference) and c7["paper_effect"] == pytest.approx(4.03 - 4.11)
    assert list(tables.table("table3", composed)["verdict"]) == ["", ""]
    assert list(tables.claims([on(record, "svhn") for record in pair] + composed)["verdict"]) == ["undecided"]
    assert not len(tables.claims(pair))  # embedded digits say nothing


def test_the_comparison_takes_what_stands_in_for_svhn(made):
    chosen = [experiments.experiment("table3", row, "smoke") for row in ("cnn10", "dram")]
    shown = tables.compare(chosen, [on(made[0]["dram"], "composed-jpeg")], [], "smoke")
    assert shown.loc["cnn10", "published"] == "–" and "1 seed" in shown.loc["dram", "published"]
    assert list(shown["paper"]) == ["4.11", "5.10"]


def test_the_pages_say_that_published_numbers_are_generated_ones(made, tmp_path):
    composed = [on(record, "composed-jpeg") for record in made[0].values()]
    tables.table("table3", composed).to_csv(tmp_path / "table3.csv", index=False)
    ((name, frame),) = pages.tables_here(tmp_path).items()
    assert (name, pages.stand_in(name, frame)) == ("table3", "generated data, `composed-jpeg`")
    sentence = pages.table_sentence(name, frame, tables.claims(composed))
    assert "on generated data, `composed-jpeg`, with 1 seed a row, no row can be held against the paper's" in sentence
    shown = pages.headline_table(name, frame, tables.claims(composed), composed, tmp_path)
    assert "generated data, `composed-jpeg`, and not comparable with the paper's" in shown
    lines = pages.table_lines(frame)
    assert list(lines["Paper"]) == ["4.11", "5.10", "4.03"] and "–" not in set(lines["Ours at `converged`"])
    real = pd.concat([frame, frame.assign(dataset="svhn")])
    real.to_csv(tmp_path / "table3.csv", index=False)
    assert pages.stand_in("table3", pages.tables_here(tmp_path)["table3"]) == ""


def test_table3_refuses_data_sets_of_single_digits():
    with pytest.raises(UramError, match="table3 reads whole numbers, and digits holds single digits"):
        sweep.plan("table3", "smoke", dataset="digits")
    assert isinstance(build(number_config(model="cnn11"), (1, 54, 54), 11), ElevenLayerCNN)


def test_the_papers_eighteen_glimpses():
    """§5: three glimpses a digit, up to five digits, and three for the end."""
    for preset in experiments.RECIPES["table3"]:
        for row in ("dram", "entropy", "entropy-context"):
            config = experiments.experiment("table3", row, preset).config
            assert (config.glimpses, config.patch_size, config.scales) == (18, 12, 2)
    assert experiments.experiment("table3", "dram", "paper").config.width == 1
