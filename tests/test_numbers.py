"""Table 3: losses of whole numbers, the layers that read them, and their evaluation digit by digit. Where gradients go
in the reader of numbers is in `test_ram.py`."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from drawing import SHAPE, drawn, small_dram

from uram_lib import data
from uram_lib.config import Config
from uram_lib.data import TERMINAL
from uram_lib.data.base import Split, counting
from uram_lib.data.composed import compose, sources
from uram_lib.data.numbers import draw, encode
from uram_lib.evaluation import AVERAGED, evaluate, rollouts
from uram_lib.models import Trajectory, build, count_parameters
from uram_lib.models.feedforward import LengthAndDigits, LocallyConnected, SubtractiveNorm, most_probable, pooling
from uram_lib.objectives import hybrid_loss, length_and_digits_loss, number_loss, returns_of
from uram_lib.seeding import initialise, stream


def number_config(**changes) -> Config:
    settings = {"dataset": "digits-composed", "model": "dram", "epochs": 3, "batch_size": 40, "glimpses": 18}
    settings |= {"patch_size": 12, "scales": 2, "width": 0.03} | changes
    return Config(**{"reward": "cumulative"} | settings if settings["model"] == "dram" else settings)


@pytest.fixture
def read(generator):
    """read(labels, T): a rollout of T glimpses over random images by a small reader with f_c, and that reader."""
    model, images = small_dram(context="attended"), torch.rand(5, *SHAPE, generator=generator)
    noise = drawn(model, 5)["noise"]
    return model, lambda keep=slice(None), glimpses=12: model(images[keep], noise=noise[keep, :glimpses])


LABELS = torch.tensor([encode(number) for number in ([7], [1, 0], [3, 3, 9], [1, 2, 3, 4, 5], [8, 6])])


def loss_and_gradients(model, trajectory, labels, config) -> list:
    loss, parts = number_loss(trajectory, labels, model.context_network, config)
    model.zero_grad()
    loss.backward()
    return [loss.detach(), parts, *(p.grad.clone() for p in model.parameters())]


def test_labels_count_up_to_the_first_end_and_a_number_is_read_until_it_ends():
    labels = torch.tensor([encode([7]), encode([1, 0, 2]), encode([5] * 5)])
    assert counting(labels).int().tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1] * 6]
    classes = torch.tensor([[4, 2, 10, 7, 7, 7], [10, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6]])
    assert small_dram().decode(F.one_hot(classes, 11)).tolist() == [encode([4, 2]), encode([]), [1, 2, 3, 4, 5, 6]]


def test_returns_by_hand():
    right = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    counts = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    cumulative = [[1 / 4, 0, 0, 0], [1, 2 / 3, 1 / 3, 0], [0, 0, 0, 0], [1, 1 / 2, 0, 0]]
    torch.testing.assert_close(returns_of(right, counts, "cumulative"), torch.tensor(cumulative))
    assert returns_of(right, counts, "whole").tolist() == [[0] * 4, [1] * 4, [0] * 4, [1] * 4]


def test_cumulative_returns_give_the_gradient_of_the_expected_share_that_is_read():
    """Full enumeration: three places, at each a choice of two actions that are right with known probabilities."""
    logits = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64, requires_grad=True)  # of action 1 at each place
    chance = torch.tensor([[0.2, 0.9], [0.6, 0.3], [0.5, 0.7]], dtype=torch.float64)  # of being right, by action
    policy = torch.stack((-F.softplus(logits), -F.softplus(-logits)), 1)  # (3, 2): log-probabilities of the actions
    expected, surrogate = 0, 0
    for actions in itertools.product((0, 1), repeat=3):
        p = chance[range(3), list(actions)]
        chosen = policy[range(3), list(actions)]
        for right in itertools.product((False, True), repeat=3):
            probability = chosen.sum().exp() * torch.where(torch.tensor(right), p, 1 - p).prod()
            returns = returns_of(torch.tensor([right]), torch.ones(1, 3, dtype=torch.bool), "cumulative")[0].double()
            expected = expected + probability * returns[0]
            surrogate = surrogate + probability.detach() * (chosen * returns).sum()
    truth, found = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (expected, surrogate))
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-7)
    assert truth.abs().min() > 0.001


@pytest.mark.parametrize("reward", ["cumulative", "whole", "probability"])
@pytest.mark.parametrize("entropy", ["none", "literal", "intent"])
def test_the_loss_of_numbers_is_eq14_place_by_place(read, entropy, reward):
    """The sum, written in plain Python, of `hybrid_loss` over the places that count of each image alone."""
    model, roll = read
    config = number_config(beta2=0.02, entropy=entropy, reward=reward, context="attended")
    trajectory = roll()
    loss, parts = number_loss(trajectory, LABELS, model.context_network, config)
    total, right_numbers = 0, 0
    for i, label in enumerate(LABELS.tolist()):
        ends = label.index(TERMINAL) + 1 if TERMINAL in label else 6
        said = trajectory.class_logits[i, 1::2].argmax(-1).tolist()
        right = [said[n] == label[n] for n in range(ends)]
        right_numbers += all(right)
        worth = [float(all(right[: n + 1])) for n in range(ends)]
        for n in range(ends):
            value = sum(worth[n:]) / ends if reward == "cumulative" else float(all(right))
            own = Trajectory(*(field[i : i + 1, 2 * n : 2 * n + 2] for field in trajectory))
            paid = None if reward == "probability" else torch.tensor([value])
            one, _ = hybrid_loss(own, torch.tensor(label[n : n + 1]), model.context_network, config, paid)
            total = total + one / len(LABELS)
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    assert parts["reward"].item() == pytest.approx(right_numbers / len(LABELS))


def test_what_lies_behind_the_end_adds_nothing(read):
    """Neither to the value nor to any gradient, whatever is seen, said and chosen there."""
    model, roll = read
    config, found = number_config(entropy="intent", context="attended"), []
    behind = ~counting(LABELS).repeat_interleave(2, 1)  # (B, T)
    for scale in (1.0, 100.0):
        trajectory = roll()
        masks = [behind.view(*behind.shape, *[1] * (field.ndim - 2)) for field in trajectory]
        changed = [torch.where(m, f * scale + (scale - 1), f) for m, f in zip(masks, trajectory, strict=True)]
        found.append(loss_and_gradients(model, Trajectory(*changed), LABELS, config))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_a_curriculum_leaves_out_the_places_that_none_of_its_numbers_has(read):
    """The loss and its gradients are those of all places, of which the last ones are padding."""
    model, roll = read
    short, config = [0, 1, 4], number_config(entropy="literal", context="attended")  # 1, 2 and 2 digits
    whole, cut = (loss_and_gradients(model, roll(short, 2 * n), LABELS[short, :n], config) for n in (6, 3))
    torch.testing.assert_close(whole, cut)


@pytest.mark.parametrize("spread, most", [(0.1, 1), (0.3, 1), (0.5, 2), (0.85, 4), (1.0, 5)])
def test_a_curriculum_shows_short_numbers_first(spread, most):
    """Of both kinds of data set, composed ones and those that hold their images."""
    composed = data.load("digits-composed")
    whole = compose(*sources(composed.name, "train"), (1, 1, 1, 1, 1), 60, stream(0, "whole"))
    for dataset in (composed, dataclasses.replace(composed, train=whole, draw=draw)):
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
    torch.testing.assert_close(length_and_digits_loss(heads, labels), by_hand)
    heads.digit_logits[0, 2:] = 50 * torch.randn(3, 10, generator=generator)
    heads.digit_logits[1, 1:] = 50 * torch.randn(4, 10, generator=generator)
    torch.testing.assert_close(length_and_digits_loss(heads, labels), by_hand)


def test_the_most_probable_number_by_trying_them_all():
    """Numbers of one to three digits of a model whose heads know three lengths and digits 0 to 2 alone."""
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


def test_layers_of_the_cnns_by_hand(generator):
    features = torch.rand(2, 3, 4, 5, generator=generator)
    kept, halved = pooling(1)(features), pooling(2)(features)
    assert kept.shape == features.shape and halved.shape == (2, 3, 2, 2)
    assert kept[0, 1, 1, 2] == features[0, 1, 1:3, 2:4].max() and kept[1, 2, 3, 4] == features[1, 2, 3, 4]
    taken = features - SubtractiveNorm()(features)
    assert taken[0, 1, 1, 2].item() == pytest.approx(features[0, :, 0:3, 1:4].mean().item())
    assert taken[1, 0, 0, 0].item() == pytest.approx(features[1, :, 0:2, 0:2].mean().item())  # inside the image alone
    layer = initialise(torch.nn.Sequential(LocallyConnected(3, 7, 20)), 0)[0]
    found, windows, place = layer(features), F.pad(features, (2, 2, 2, 2)), 2 * 5 + 3  # row 2, column 3
    assert found.shape == (2, 20, 7)
    by_hand = torch.einsum("bk,ko->bo", windows[:, :, 2:7, 3:8].flatten(1), layer.weight[place]) + layer.bias[place]
    torch.testing.assert_close(found[:, place], by_hand)


def test_parameters_by_hand_at_full_width():
    """The appendix's sizes: 5x5, 3x3, 3x3 with 64, 64, 128 filters on 12 -> 8 -> 6 -> 4 values a side, two layers of
    512 LSTM units."""
    model = build(number_config(width=1.0, context="attended"), (1, 54, 54), 11)
    stack = lambda channels: 25 * channels * 64 + 64 + 9 * 64 * 64 + 64 + 9 * 64 * 128 + 128  # noqa: E731
    glimpse = stack(2) + 16 * 128 * 1024 + 1024 + 2 * 1024 + 1024
    lstm = lambda before: 4 * 512 * (before + 512 + 2)  # noqa: E731
    start, heads = stack(1) + 16 * 128 * 1024 + 1024, 512 * 2 + 2 + 512 * 11 + 11
    assert count_parameters(model) == glimpse + lstm(1024) + lstm(512) + start + heads
    convolutions = sum(25 * a * b + b for a, b in itertools.pairwise((48, 64, 128, 160, 192, 192, 192, 192)))
    dense = 9 * 192 * 3072 + 3072 + 3072 * 3072 + 3072 + 3072 * 5 + 5 + 3072 * 50 + 50
    for name, own in (("cnn10", 25 * 48 + 48), ("cnn11", 25 * 144 + 144 + 9 * (25 * 192 * 192 + 192))):
        cnn = build(number_config(model=name, width=1.0), (1, 54, 54), 11)
        assert count_parameters(cnn) == own + convolutions + dense


# --- evaluation, the run and its record


@pytest.fixture(scope="module")
def split() -> Split:
    """60 composed numbers of the embedded digits."""
    return data.load("digits-composed").validation.at(slice(60))


@pytest.mark.parametrize("name", ["dram", "cnn10"])
def test_errors_are_those_of_a_plain_count(split, name):
    """Whole numbers, by length, in one pass and averaged over ten, counted digit by digit in Python."""
    model = build(number_config(model=name), (1, 54, 54), 11).initialise(0).eval()
    images = split.floats()
    if name == "dram":
        with torch.no_grad():
            model.classifier.weight.mul_(100)  # so that it says many things, and not one for every image,
            logits = rollouts(model, images).class_logits[:, 2::3]
            model.classifier.bias[TERMINAL] += (logits[..., :10].amax(-1) - logits[..., 10]).median()  # ends, too
    # Half of the labels are what the model says, where that is a number.
    said = model.decode(model.probabilities(rollouts(model, images)))
    proper = (said[:, 0] != TERMINAL) & (said[:, 5] == TERMINAL) & (torch.arange(60) % 2 == 0)
    labels = torch.where(proper[:, None], said, split.labels)
    found = evaluate(model, Split(split.images, labels, split.centres), 2, sampled=True)
    by_length: dict[str, list[bool]] = {}
    for i, label in enumerate(labels.tolist()):
        number = label[: label.index(TERMINAL)] if TERMINAL in label else label[:5]
        with torch.no_grad():
            seen = model(images[i : i + 1])
        guess = (seen.class_logits[:, 2::3].argmax(-1) if name == "dram" else most_probable(seen))[0].tolist()
        guess = guess[: guess.index(TERMINAL)] if TERMINAL in guess else guess
        by_length.setdefault(str(len(number)), []).append(guess != number)
    wrong, metrics = sum(by_length.values(), []), found.metrics()
    assert 0 < sum(wrong) < 60 and found.correct.shape == (1, 60)
    assert metrics["test_error"] == pytest.approx(100 * sum(wrong) / 60)
    percent = {n: 100 * sum(w) / len(w) for n, w in by_length.items()}
    assert metrics["test_error_by_length"] == pytest.approx(percent, abs=1e-4)
    if name != "dram":
        assert found.sampled_correct is None and "glimpse_distance_px" not in metrics
        return
    rolls = [rollouts(model, images, k, sampled=True) for k in range(AVERAGED)]
    assert not torch.equal(rolls[0].locations, rolls[1].locations)
    places = [roll.class_logits[:, 2::3].softmax(-1) for roll in rolls]
    assert torch.equal(found.sampled_correct, (model.decode(places[0]) == labels).all(1))
    assert torch.equal(found.averaged_correct, (model.decode(sum(places)) == labels).all(1))


def test_glimpses_are_measured_against_the_digit_that_they_read(split):
    """In plain Python, over the digits that there are; entropies over the end's glimpses, too."""
    model = build(number_config(), (1, 54, 54), 11).initialise(0).eval()
    found, trajectory = evaluate(model, split), rollouts(model, split.floats(), 0)
    distances, entropies = [[], [], []], [[], [], []]
    for i, length in enumerate(split.lengths.tolist()):
        for t in range(3 * (length + 1)):
            place, glimpse = divmod(t, 3)
            entropies[glimpse].append(trajectory.patch_entropies[i, t].item())
            if place < length:
                x, y = ((trajectory.locations[i, t] + 1) * 27).tolist()
                distances[glimpse].append(math.dist((x, y), split.centres[i, place].tolist()))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    assert found.looks["glimpse_distance_px"] == pytest.approx([mean(d) for d in distances], rel=1e-4)
    assert found.looks["patch_entropy_bits"] == pytest.approx([mean(e) for e in entropies], rel=1e-4)
    blanks = [100 * mean([e == 0 for e in values]) for values in entropies]
    assert found.looks["blank_patch_percent"] == pytest.approx(blanks, rel=1e-4)
