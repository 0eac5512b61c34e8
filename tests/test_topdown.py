"""The top-down and the unified model: Q-learning against exact solutions (oracle 5), regions against brute force, and
where gradients may and may not go (ledger A1-A8)."""

import dataclasses
import functools

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from uram_lib.config import Config
from uram_lib.glimpse import location_to_pixel, pixel_to_location
from uram_lib.models import TopDown, Unified
from uram_lib.models.topdown import QNetwork, TopDownOutcome, actions_to, rectangle
from uram_lib.models.unified import action_histogram, share_in_region
from uram_lib.objectives import chooser_rewards, correctness, hybrid_loss, q_loss
from uram_lib.seeding import initialise

HEIGHT, WIDTH = 24, 40  # not square, so that x and y cannot be swapped unseen


def top_down(levels: int = 1, shape=(3, HEIGHT, WIDTH), **others) -> TopDown:
    model = initialise(TopDown(shape, levels, **others), 0).double()
    model.sync_target()
    return model


def inputs(levels: int = 1, batch: int = 7) -> tuple[list, torch.Tensor]:
    """(images, within, noise, explore, epsilon) and labels."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    shapes = ((batch, 3, HEIGHT, WIDTH), (batch, 2), (batch, levels, 2), (batch,))
    noise = torch.randn(batch, 2, 2, **options)
    images, within, explore, epsilon = (torch.rand(shape, **options) for shape in shapes)
    return [images, within, noise, explore, epsilon], torch.randint(11, (batch,), generator=generator)


def learns(module: torch.nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.any()) for p in module.parameters()]


def test_oracle05_contextual_bandit_converges_to_the_success_rates():
    """Five images, four regions, known success rates p(s, a), rewards drawn from them: Q must become p.

    Plain minibatch descent on Eq. 9 with an exploring policy, as in training, the step size falling to 0.
    """
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(5, 1, 8, 8, generator=generator, dtype=torch.float64)
    p = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    model, steps, repeats = top_down(shape=(1, 8, 8)), 600, 40
    optimizer = torch.optim.Adam(model.online.parameters())
    context = torch.arange(5).repeat(repeats)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        outcome = model(images[context], 0.5, torch.rand(5 * repeats, 1, 2, generator=generator), 1.0)
        success = p[context, outcome.actions[:, 0]]
        rewards = (torch.rand(len(success), generator=generator) < success).double()
        optimizer.zero_grad()
        q_loss(outcome.values, outcome.actions, rewards, outcome.next_values).backward()
        optimizer.step()
    found = model(images)
    away = (found.values[:, 0] - p).abs()
    assert away.max() < 0.05 and away.mean() < 0.02
    torch.testing.assert_close(p.gather(1, found.actions)[:, 0], p.amax(1), rtol=0, atol=0.05)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_oracle05_two_level_tree_agrees_with_value_iteration(gamma):
    """One image, 4 x 4 paths, the mean reward of each path known. Repeated Q updates, the frozen network following
    after each, through the library's own model and loss, must reach Bellman's equation to 1e-3: a child is worth what
    it pays, and the root gamma times its best child."""
    p = torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = top_down(2, shape=(1, 16, 16))
    images = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    paths = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    # Draws that, with epsilon 1, make the policy take each path once.
    images, explore = images.expand(16, -1, -1, -1), torch.stack((torch.zeros(16, 2), (paths + 0.5) / 4), -1).double()
    for _ in range(3):
        optimizer = torch.optim.LBFGS(model.online.parameters(), max_iter=120, line_search_fn="strong_wolfe")

        def closure(optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            outcome = model(images, 0.5, explore, 1.0)
            loss = q_loss(outcome.values, outcome.actions, p.flatten(), outcome.next_values, gamma)
            loss.backward()
            return loss

        optimizer.step(closure)
        model.sync_target()
    values = model(images, 0.5, explore, 1.0).values.detach()
    torch.testing.assert_close(values[0, 0], gamma * p.amax(1), rtol=0, atol=1e-3)
    torch.testing.assert_close(values[::4, 1], p, rtol=0, atol=1e-3)
    if gamma > 0:  # with gamma 0 the root learns nothing, whatever it chooses
        assert model(images[:1]).actions[0].tolist() == list(divmod(int(p.argmax()), 4))


def test_oracle05_frozen_network_lags_until_it_is_synchronised():
    """Ledger A3: it answers with the old weights after an update, and with the new ones after the sync."""
    model = top_down(2)
    (images, within, _, explore, _), _ = inputs(2)
    look = functools.partial(model, images, within, explore, 1.0)
    before = look()
    torch.testing.assert_close(before.next_values[:, 0], before.values[:, 1].amax(-1))  # in step at the start
    assert before.values.requires_grad and not before.next_values.requires_grad
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    q_loss(before.values, before.actions, torch.ones(7).double(), before.next_values, 0.9).backward()
    optimizer.step()
    moved = look()
    assert torch.equal(moved.next_values, before.next_values)  # the same draws lead to the same regions
    assert not torch.allclose(moved.next_values[:, 0], moved.values[:, 1].amax(-1), rtol=1e-3)
    model.sync_target()
    synced = look()
    torch.testing.assert_close(synced.next_values[:, 0], synced.values[:, 1].detach().amax(-1))


def test_ledger_A2_one_decision_knows_neither_gamma_nor_the_frozen_weights():
    """Bit for bit, with frozen weights that would spoil whatever they touch."""
    (images, within, _, explore, epsilon), _ = inputs()
    found = []
    for gamma, spoilt in [(0.99, False), (0.0, False), (1.0, True), (float("nan"), True)]:
        model = top_down()
        for p in model.target.parameters():
            p.fill_(float("nan") if spoilt else 0.5)
        outcome = model(images, within, explore, epsilon)
        assert outcome.next_values.shape == (7, 0)
        loss = q_loss(outcome.values, outcome.actions, torch.arange(7).double() % 2, outcome.next_values, gamma)
        found.append((loss, *torch.autograd.grad(loss, model.online.parameters()), outcome.start))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_q_loss_by_hand():
    """Two images, two levels, gamma 1/2. Targets: (1/2 * 0.8, 1) and (1/2 * 0.6, 0)."""
    actions, errors = torch.tensor([[2, 3], [0, 1]]), torch.tensor([[-0.3, -0.3], [0.2, 0.4]])
    chosen = torch.tensor([[0.4, 1.0], [0.3, 0.0]]) + errors
    # What was not chosen is worth more, and does not enter.
    values = torch.full((2, 2, 4), 0.9).scatter(2, actions[..., None], chosen[..., None]).requires_grad_()
    next_values = torch.tensor([[0.8], [0.6]], requires_grad=True)
    rewards = torch.tensor([1.0, 0.0], requires_grad=True)
    loss = q_loss(values, actions, rewards, next_values, 0.5)
    torch.testing.assert_close(loss, errors.square().mean())
    loss.backward()
    assert next_values.grad is None and rewards.grad is None  # y is a constant
    torch.testing.assert_close(values.grad, torch.zeros(2, 2, 4).scatter(2, actions[..., None], errors[..., None] / 2))


def test_q_loss_refuses_what_would_broadcast():
    good = [torch.zeros(3, 2, 4), torch.zeros(3, 2).long(), torch.zeros(3), torch.zeros(3, 1)]
    assert q_loss(*good, 0.9).item() == 0
    for place, shape in ((0, (3, 1, 4)), (2, (3, 1)), (2, (1,)), (3, (3,)), (3, (3, 2)), (3, (1, 1))):
        with pytest.raises(ValueError, match="shapes differ"):
            q_loss(*good[:place], torch.zeros(shape), *good[place + 1 :], 0.9)


def region_by_hand(array: np.ndarray, action: int, side: int = 2) -> np.ndarray:
    """One of side x side equal tiles of (..., H, W), by slicing."""
    row, column = divmod(int(action), side)
    rows, columns = array.shape[-2] // side, array.shape[-1] // side
    return array[..., row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]


@given(side=st.integers(2, 3), levels=st.integers(1, 3), rows=st.integers(1, 3), columns=st.integers(1, 3))
def test_every_pixel_lies_in_exactly_one_leaf_the_one_that_slicing_finds(side, levels, rows, columns):
    """Brute force: an array of pixel numbers is cut again and again, by hand; `actions_to` is the way back."""
    levels = min(levels, 2) if side == 3 else levels
    height, width = rows * side**levels, columns * side**levels
    numbers = np.arange(height * width).reshape(height, width)
    leaves = torch.cartesian_prod(*[torch.arange(side**2)] * levels).view(-1, levels)
    corners = location_to_pixel(rectangle(leaves, torch.float64, side), height, width)  # (side**2L, 2, 2)
    torch.testing.assert_close(corners, corners.round())
    seen = np.zeros(height * width, int)
    for leaf, ((left, top), (right, bottom)) in zip(leaves.tolist(), corners.round().int().tolist(), strict=True):
        expected = numbers
        for action in leaf:
            expected = region_by_hand(expected, action, side)
        np.testing.assert_array_equal(numbers[top:bottom, left:right], expected)
        seen[expected.ravel()] += 1
    assert (seen == 1).all()
    # From the middle of each pixel to its leaf.
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    middles = torch.stack((x, y), -1).view(-1, 1, 2).double()
    found = actions_to(pixel_to_location(middles[:, 0], height, width), levels, side)
    back = location_to_pixel(rectangle(found, torch.float64, side), height, width)
    assert (back[:, :1] < middles).all() and (middles < back[:, 1:]).all()


def test_regions_touch_at_edges_that_belong_to_the_right_and_lower_one():
    on_edges = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [1.0, 1.0], [0.0, -0.5], [-0.5, 0.0]])
    assert actions_to(on_edges, 1)[:, 0].tolist() == [3, 0, 3, 1, 2]
    assert actions_to(on_edges, 1, 3)[:, 0].tolist() == [4, 0, 8, 1, 3]


@pytest.mark.parametrize("levels, seen", [(1, [(12, 20)]), (2, [(12, 20)] * 2), (3, [(6, 10)] * 3)])
def test_ledger_A1_what_is_seen_at_each_level_is_the_chosen_region_of_the_finer_image(levels, seen):
    """One decision looks at the half-resolution image; of two, the second looks at the image itself."""
    model, states = top_down(levels), []
    model.online.register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
    (images, within, _, explore, _), _ = inputs(levels)
    outcome = model(images, within, explore, 1.0)
    for i, region in enumerate(images):
        for level, size in enumerate(seen):
            mean = torch.nn.functional.adaptive_avg_pool2d(region, size)
            torch.testing.assert_close(states[level][i], mean, rtol=0, atol=1e-15)
            region = region_by_hand(region, outcome.actions[i, level])


@pytest.mark.parametrize("side", [2, 3])
def test_ledger_A6_region_vectors_against_scipy(generator, side):
    """Eq. 6, one filter and one region at a time, with scipy's correlation; and how many parameters there are."""
    network = initialise(QNetwork(2, 3, side), 0).double()
    assert sum(p.numel() for p in network.parameters()) == 3 * (9 * 2 + 1) + side**2 * (side**2 * 3 + 1)
    image = torch.rand(1, 2, 6, 12, generator=generator, dtype=torch.float64)
    found = network.region_vectors(image)[0].detach()
    weight, bias = (p.detach().numpy() for p in (network.convolution.weight, network.convolution.bias))
    for n in range(3):
        response = bias[n] + sum(
            scipy.ndimage.correlate(image[0, c].numpy(), weight[n, c], mode="constant") for c in range(2)
        )
        for action in range(side**2):
            mean = region_by_hand(np.maximum(response, 0), action, side).mean()
            assert found[action, n].item() == pytest.approx(mean, abs=1e-12)
    values = torch.nn.functional.linear(found.flatten(), network.values.weight, network.values.bias)  # Eq. 7
    torch.testing.assert_close(network(image)[0], values)


def test_ledger_A5_without_draws_with_epsilon_0_and_when_greedy_it_is_arg_max():
    (images, within, _, explore, _), _ = inputs(2, batch=60)
    best = top_down(2)(images, within)
    torch.testing.assert_close(best.actions, best.values.argmax(-1))
    for behaviour, epsilon in (("epsilon", 0.0), ("greedy", 1.0)):
        for a, b in zip(top_down(2, behaviour=behaviour)(images, within, explore, epsilon), best, strict=True):
            assert torch.equal(a, b)
    untold = top_down(2, behaviour="softmax")(images, within)  # in testing
    assert torch.equal(untold.actions, best.actions)


def choices(count: int, epsilon=1.0, levels: int = 1, **others) -> TopDownOutcome:
    """`count` descents over one and the same image."""
    explore = torch.rand(count, levels, 2, generator=torch.Generator().manual_seed(20_211), dtype=torch.float64)
    model = top_down(levels, shape=(1, 4, 4), **others)
    with torch.no_grad():
        model.online.values.bias += torch.arange(len(model.online.values.bias)) / 4  # values that differ enough to see
    return model(torch.ones(count, 1, 4, 4, dtype=torch.float64), 0.5, explore, epsilon)


def test_ledger_A5_epsilon_1_chooses_every_path_alike_and_less_explores_that_share():
    """A region is picked at random with probability epsilon, so another than the best with 3/4 of that."""
    actions = choices(8000, levels=2).actions
    leaves = torch.bincount(actions[:, 0] * 4 + actions[:, 1], minlength=16)
    assert scipy.stats.chisquare(leaves).pvalue > 0.01
    outcome = choices(8000, 0.3)
    others = int((outcome.actions != outcome.values.argmax(-1)).sum())
    assert scipy.stats.binomtest(others, 8000, 0.3 * 0.75).pvalue > 0.01
    # An epsilon for each image: only those of the first half explore.
    outcome = choices(8000, (torch.arange(8000) < 4000).double())
    best = (outcome.actions == outcome.values.argmax(-1))[:, 0]
    assert best[4000:].all() and scipy.stats.binomtest(int(best[:4000].sum()), 4000, 0.25).pvalue > 0.01


@pytest.mark.parametrize("side", [2, 3])
def test_ledger_A5_softmax_chooses_each_region_as_often_as_its_value_says(side):
    """Frequencies against the softmax of Q, within 3 standard errors, whatever epsilon is."""
    outcome = choices(8000, 0.0, side=side, behaviour="softmax")
    expected = scipy.special.softmax(outcome.values[0, 0].detach().numpy())
    assert expected.max() > 1.5 * expected.min()
    found = np.bincount(outcome.actions[:, 0], minlength=side**2) / 8000
    assert (np.abs(found - expected) < 3 * np.sqrt(expected * (1 - expected) / 8000)).all()


@pytest.mark.parametrize("levels", [1, 2])
def test_the_chooser_starts_RAM_and_each_loss_teaches_its_own_part_alone(levels):
    """The RAM inside is RAM; neither loss reaches the frozen network."""
    sizes = {"glimpses": 3, "patch_size": 5, "scales": 2, "levels": levels}
    config = Config("digits", "unified", 1, **sizes, context="attended", entropy="literal")
    model = Unified(config, (3, HEIGHT, WIDTH), 11).initialise(0).double()
    (images, within, noise, explore, epsilon), labels = inputs(levels)
    draws = {"start": 2 * within - 1, "noise": noise, "explore": explore, "epsilon": epsilon}
    trajectory, outcome = model.both(images, draws)
    assert outcome.start.dtype == torch.float64 and torch.equal(actions_to(outcome.start, levels), outcome.actions)
    for a, b in zip(model.ram(images, outcome.start, noise), trajectory, strict=True):
        assert torch.equal(a, b)
    q_loss(outcome.values, outcome.actions, correctness(trajectory, labels), outcome.next_values).backward()
    assert all(learns(model.topdown.online)) and not any(learns(model.topdown.target) + learns(model.ram))
    model.zero_grad()
    hybrid_loss(trajectory, labels, model.ram.context_network, config)[0].backward()
    assert all(learns(model.ram)) and not any(learns(model.topdown))
    for paid in ("outcome", "early"):
        rewards = chooser_rewards(trajectory, labels, paid)
        expected = q_loss(outcome.values, outcome.actions, rewards, outcome.next_values)
        parts = model.loss(images, labels, draws, dataclasses.replace(config, chooser_reward=paid))[1]
        torch.testing.assert_close(parts["q"], expected.detach())


def outcome_of(*actions: list[int], regions: int = 4) -> TopDownOutcome:
    actions = torch.tensor(actions)
    return TopDownOutcome(actions, torch.zeros(*actions.shape, regions), None, None, None)


def test_diagnostics_by_hand():
    """On 60 rows x 100 columns. Centres of the four quarters: (25, 15), (75, 15), (25, 45), (75, 45)."""
    histogram = action_histogram(outcome_of([0, 3], [0, 3], [1, 3], [3, 2]))
    assert histogram.tolist() == [[0.5, 0.25, 0, 0.25], [0, 0, 0.25, 0.75]]
    for outcome, centres, share in (
        (outcome_of([0], [1], [2], [3]), [[25, 15], [49, 15], [25, 30], [72, 41]], 3 / 4),  # all but the second
        # Pixel columns 50-75 and rows 15-30 for the second, 25-50 and 30-45 for the third.
        (outcome_of([0, 0], [1, 2], [2, 1], [3, 3]), [[24, 14], [50, 29], [24, 31], [74, 46]], 1 / 2),
        (outcome_of([4], [5], [6], regions=9), [[40, 30], [60, 30], [30, 41]], 2 / 3),
    ):
        found = share_in_region(outcome, torch.tensor(centres).float(), 60, 100)
        assert found.item() == pytest.approx(share)


def test_images_that_do_not_divide_into_regions_are_refused():
    for height, width, levels, whole in ((30, 40, 1, 4), (40, 30, 1, 4), (100, 100, 3, 8)):
        with pytest.raises(ValueError, match=f"whose sides {whole} divides, got {height} x {width}"):
            TopDown((1, height, width), levels)


def test_draws_of_another_shape_are_refused():
    model, images = top_down(2), torch.zeros(3, 3, HEIGHT, WIDTH, dtype=torch.float64)
    for shape, epsilon in (((3, 2, 2), None), ((3, 1, 2), 0.5), ((1, 2, 2), 0.5), ((3, 2), 0.5)):
        explore = torch.zeros(shape)
        with pytest.raises(ValueError, match=r"explore must be \(3, 2, 2\) and come with epsilon"):
            model(images, 0.5, explore, epsilon)
