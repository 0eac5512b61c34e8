"""The top-down and the unified model: Q-learning against exact solutions (oracle 5), regions against brute force, and
where gradients may and may not go (ledger A1-A7)."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, stack_module_state

from uram_lib.glimpse import location_to_pixel, pixel_to_location
from uram_lib.models import RAM, TopDown, TopDownOutcome, Unified
from uram_lib.models.topdown import (
    QNetwork,
    actions_to,
    chosen_region,
    place_within,
    pyramid,
    rectangle,
)
from uram_lib.models.unified import action_histogram, share_in_region, start_distance_px
from uram_lib.objectives import correctness, hybrid_loss, q_loss
from uram_lib.seeding import initialise

HEIGHT, WIDTH = 24, 40  # not square, so that x and y cannot be swapped unseen


def top_down(levels: int = 1, seed: int = 0, shape=(3, HEIGHT, WIDTH), **sizes) -> TopDown:
    model = initialise(TopDown(shape, levels, **sizes), seed).double()
    model.sync_target()
    return model


def unified(levels: int = 1, seed: int = 0) -> Unified:
    ram = RAM((3, HEIGHT, WIDTH), 11, glimpses=3, patch_size=5, scales=2, sigma=0.15, hidden=32, context=True)
    return Unified(top_down(levels, seed), initialise(ram, seed).double())


def inputs(levels: int = 1, batch: int = 7, seed: int = 0):
    """images, within, noise, explore, epsilon, labels for `unified`."""
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    noise = torch.randn(batch, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(11, (batch,), generator=generator)
    epsilon = torch.tensor(0.5, dtype=torch.float64)
    return rand(batch, 3, HEIGHT, WIDTH), rand(batch, 2), noise, rand(batch, levels, 2), epsilon, labels


def forced(actions: torch.Tensor) -> torch.Tensor:
    """Draws (B, L, 2) which, with epsilon 1, make the policy take `actions` (B, L)."""
    return torch.stack((torch.zeros_like(actions), (actions + 0.5) / 4), -1).double()


def has_gradient(module: nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.any()) for p in module.parameters()]


# --- oracle 5 ---------------------------------------------------------------------------------------------------


def test_oracle05_contextual_bandit_converges_to_the_success_rates():
    """Five images, four regions, known success rates p(s, a), rewards drawn from them: Q must become p.

    Plain minibatch descent on Eq. 9 with an exploring policy, as in training, the step size falling to 0.
    """
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(5, 1, 8, 8, generator=generator, dtype=torch.float64)
    p = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    model = top_down(shape=(1, 8, 8))
    optimizer = torch.optim.Adam(model.online.parameters())
    steps, repeats = 800, 40
    context = torch.arange(5).repeat(repeats)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        explore = torch.rand(5 * repeats, 1, 2, generator=generator)
        outcome = model(images[context], 0.5, explore, 1.0)
        success = p[context, outcome.actions[:, 0]]
        rewards = (torch.rand(len(success), generator=generator) < success).double()
        optimizer.zero_grad()
        q_loss(outcome.values, outcome.actions, rewards, outcome.next_values, 0.99).backward()
        optimizer.step()
    found = model(images)
    assert (found.values[:, 0] - p).abs().max() < 0.05
    assert (found.values[:, 0] - p).abs().mean() < 0.02
    # What it is for: in testing it chooses the best region.
    torch.testing.assert_close(p.gather(1, found.actions)[:, 0], p.amax(1), rtol=0, atol=0.05)


def value_iteration(p: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Q of the tree's root (4,) and of its four children (4, 4), by iterating Bellman's equation over all states.

    Its own bookkeeping: state 0 is the root, 1-4 its children, 5 the end.
    """
    following = np.array([[1, 2, 3, 4]] + [[5] * 4] * 4 + [[5] * 4])
    reward = np.vstack([np.zeros(4), p, np.zeros(4)])
    q = np.zeros((6, 4))
    for _ in range(10):
        q = reward + gamma * q.max(1)[following] * (following < 5)
    return q[0], q[1:5]


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_oracle05_two_level_tree_agrees_with_value_iteration(gamma):
    """One image, 4 x 4 paths, the mean reward of each path known. Repeated Q updates, the frozen network following
    after each, through the library's own model and loss, must reach dynamic programming to 1e-3."""
    p = torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = top_down(2, shape=(1, 16, 16))
    images = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    images = images.expand(16, -1, -1, -1)
    explore = forced(torch.cartesian_prod(torch.arange(4), torch.arange(4)))

    def loss() -> torch.Tensor:
        outcome = model(images, 0.5, explore, 1.0)
        return q_loss(outcome.values, outcome.actions, p.flatten(), outcome.next_values, gamma)

    for _ in range(3):
        optimizer = torch.optim.LBFGS(model.online.parameters(), max_iter=120, line_search_fn="strong_wolfe")

        def closure(optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)
        model.sync_target()

    values = model(images, 0.5, explore, 1.0).values.detach()
    root, children = value_iteration(p.numpy(), gamma)
    np.testing.assert_allclose(values[0, 0], root, rtol=0, atol=1e-3)
    np.testing.assert_allclose(values[::4, 1], children, rtol=0, atol=1e-3)
    if gamma > 0:  # with gamma 0 the root learns nothing, whatever it chooses
        best = model(images[:1]).actions[0].tolist()
        assert best == list(divmod(int(p.argmax()), 4))


def test_oracle05_frozen_network_lags_until_it_is_synchronised():
    """Ledger A3: it answers with the old weights after any number of updates, and with the new ones after the sync."""
    model = top_down(2)
    images, within, _, explore, epsilon, _ = inputs(2)
    frozen = [p.clone() for p in model.target.parameters()]
    before = model(images, within, explore, epsilon)
    torch.testing.assert_close(before.next_values[:, 0], before.values[:, 1].amax(-1))  # in step at the start
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        outcome = model(images, within, explore, 1.0)
        optimizer.zero_grad()
        q_loss(outcome.values, outcome.actions, torch.ones(7).double(), outcome.next_values, 0.9).backward()
        optimizer.step()
    moved = model(images, within, explore, 1.0)
    assert all(torch.equal(p, q) for p, q in zip(model.target.parameters(), frozen, strict=True))
    assert torch.equal(moved.next_values, outcome.next_values)
    assert not torch.allclose(moved.next_values[:, 0], moved.values[:, 1].amax(-1), rtol=1e-3)
    model.sync_target()
    synced = model(images, within, explore, 1.0)
    torch.testing.assert_close(synced.next_values[:, 0], synced.values[:, 1].detach().amax(-1))
    # A copy, not the same tensors.
    assert {p.data_ptr() for p in model.target.parameters()}.isdisjoint(p.data_ptr() for p in model.online.parameters())


def test_ledger_A2_one_decision_knows_neither_gamma_nor_the_frozen_weights():
    """Bit for bit, with frozen weights that would spoil whatever they touch."""
    images, within, _, explore, epsilon, _ = inputs()
    found = []
    for gamma, spoilt in [(0.99, False), (0.0, False), (1.0, True), (float("nan"), True)]:
        model = top_down()
        if spoilt:
            for p in model.target.parameters():
                p.fill_(float("nan"))
        outcome = model(images, within, explore, epsilon)
        assert outcome.next_values.shape == (7, 0)
        loss = q_loss(outcome.values, outcome.actions, torch.arange(7).double() % 2, outcome.next_values, gamma)
        found.append((loss, *torch.autograd.grad(loss, model.online.parameters()), outcome.start))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    # The test would see it: with two decisions both matter.
    assert not q_loss(torch.zeros(1, 2, 4), torch.zeros(1, 2).long(), torch.zeros(1), torch.ones(1, 1), 0.5).eq(0)


# --- the loss ---------------------------------------------------------------------------------------------------


def test_q_loss_by_hand():
    """Two images, two levels, gamma 1/2. Targets: (1/2 * 0.8, 1) and (1/2 * 0.6, 0)."""
    values = torch.full((2, 2, 4), 0.9)  # what was not chosen is worth more, and does not enter
    values[0, 0, 2], values[0, 1, 3] = 0.1, 0.7  # errors -0.3 and -0.3
    values[1, 0, 0], values[1, 1, 1] = 0.5, 0.4  # errors 0.2 and 0.4
    values.requires_grad_()
    next_values = torch.tensor([[0.8], [0.6]], requires_grad=True)
    rewards = torch.tensor([1.0, 0.0], requires_grad=True)
    loss = q_loss(values, torch.tensor([[2, 3], [0, 1]]), rewards, next_values, 0.5)
    assert loss.item() == pytest.approx((0.09 + 0.09 + 0.04 + 0.16) / 4)
    loss.backward()
    assert next_values.grad is None and rewards.grad is None  # y is a constant
    expected = torch.zeros(2, 2, 4)
    expected[0, 0, 2], expected[0, 1, 3], expected[1, 0, 0], expected[1, 1, 1] = -0.15, -0.15, 0.1, 0.2
    torch.testing.assert_close(values.grad, expected)  # and regions that were not chosen learn nothing


def test_q_loss_refuses_what_would_broadcast():
    good = [torch.zeros(3, 2, 4), torch.zeros(3, 2).long(), torch.zeros(3), torch.zeros(3, 1)]
    assert q_loss(*good, 0.9).item() == 0
    for place, wrong in [(0, torch.zeros(3, 1, 4)), (2, torch.zeros(3, 1)), (2, torch.zeros(1)),
                         (3, torch.zeros(3)), (3, torch.zeros(3, 2)), (3, torch.zeros(1, 1))]:  # fmt: skip
        with pytest.raises(ValueError, match="shapes differ"):
            q_loss(*good[:place], wrong, *good[place + 1 :], 0.9)


# --- regions ----------------------------------------------------------------------------------------------------


def paths(levels: int) -> torch.Tensor:
    """All 4**L sequences of choices, (4**L, L)."""
    return torch.cartesian_prod(*[torch.arange(4)] * levels).view(-1, levels)


def quadrant_by_hand(array: np.ndarray, action: int) -> np.ndarray:
    rows, columns = np.array(array.shape[-2:]) // 2
    return array[..., :rows, :columns] if action == 0 else array[..., :rows, columns:] if action == 1 else \
        array[..., rows:, :columns] if action == 2 else array[..., rows:, columns:]  # fmt: skip


@given(levels=st.integers(1, 3), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_every_pixel_lies_in_exactly_one_leaf_the_one_that_slicing_finds(levels, rows, columns):
    """Brute force: an array of pixel numbers is cut in half and half again, by hand."""
    height, width = rows * 2**levels, columns * 2**levels
    numbers = np.arange(height * width).reshape(height, width)
    leaves = paths(levels)
    corners = location_to_pixel(rectangle(leaves, torch.float64), height, width)  # (4**L, 2, 2)
    assert (corners == corners.round()).all()
    seen = np.zeros(height * width, int)
    for leaf, ((left, top), (right, bottom)) in zip(leaves.tolist(), corners.int().tolist(), strict=True):
        expected = numbers
        for action in leaf:
            expected = quadrant_by_hand(expected, action)
        np.testing.assert_array_equal(numbers[top:bottom, left:right], expected)
        seen[expected.ravel()] += 1
    assert (seen == 1).all()
    # The inverse: from the middle of each pixel to its leaf.
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    middles = pixel_to_location(torch.stack((x, y), -1).view(-1, 2) + 0.5, height, width)
    back = location_to_pixel(rectangle(actions_to(middles, levels), torch.float64), height, width)
    inside = (torch.stack((x, y), -1).view(-1, 2) + 0.5)[:, None]
    assert (back[:, :1] < inside).all() and (inside < back[:, 1:]).all()


@given(
    actions=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    within=st.tuples(*[st.floats(0, 1, exclude_max=True, width=32)] * 2),
)
def test_start_lies_in_its_region_whatever_is_drawn(actions, within):
    region = rectangle(torch.tensor([actions]))
    start = place_within(region, torch.tensor([within]))
    assert (region[:, 0] <= start).all() and (start <= region[:, 1]).all()
    assert start.abs().max() <= 1
    centre = place_within(region, 0.5)
    torch.testing.assert_close(centre, region.mean(1), rtol=0, atol=0)
    assert actions_to(centre, len(actions)).tolist() == [actions]


def test_uniform_draws_start_uniformly_in_the_region(generator):
    """Ledger A7, against scipy's Kolmogorov-Smirnov test."""
    actions = torch.tensor([[1, 2]]).expand(4000, -1)  # the top right region's bottom left
    start = place_within(rectangle(actions), torch.rand(4000, 2, generator=generator))
    assert scipy.stats.kstest(start[:, 0], scipy.stats.uniform(0, 0.5).cdf).pvalue > 0.01
    assert scipy.stats.kstest(start[:, 1], scipy.stats.uniform(-0.5, 0.5).cdf).pvalue > 0.01


def test_regions_touch_at_edges_that_belong_to_the_right_and_lower_one():
    on_edges = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [1.0, 1.0], [0.0, -0.5], [-0.5, 0.0]])
    assert actions_to(on_edges, 1)[:, 0].tolist() == [3, 0, 3, 1, 2]


def test_pyramid_is_the_exact_mean_over_boxes(generator):
    images = torch.rand(2, 3, 24, 40, generator=generator, dtype=torch.float64)
    levels = pyramid(images, 3)
    assert [tuple(level.shape) for level in levels] == [(2, 3, 6, 10), (2, 3, 12, 20), (2, 3, 24, 40)]
    assert levels[2] is images
    for level, side in zip(levels, (4, 2, 1), strict=True):
        boxes = images.numpy().reshape(2, 3, 24 // side, side, 40 // side, side)
        np.testing.assert_allclose(level, boxes.mean((3, 5)), rtol=0, atol=1e-15)


def test_each_image_gets_its_own_region(generator):
    images = torch.rand(4, 3, 6, 10, generator=generator)
    found = chosen_region(images, torch.tensor([3, 0, 2, 1]))
    for image, action, own in zip(images, (3, 0, 2, 1), found, strict=True):
        np.testing.assert_array_equal(own, quadrant_by_hand(image.numpy(), action))


@pytest.mark.parametrize("levels, seen", [(1, [(12, 20)]), (2, [(12, 20)] * 2), (3, [(6, 10)] * 3)])
def test_what_is_seen_at_each_level_is_the_chosen_region_of_the_finer_image(levels, seen):
    """Ledger A1. One decision looks at the half-resolution image; of two, the second looks at the image itself."""
    model = top_down(levels)
    states = []
    model.online.register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
    images, within, _, explore, _, _ = inputs(levels)
    outcome = model(images, within, explore, 1.0)
    assert [tuple(state.shape[-2:]) for state in states] == seen
    for i, image in enumerate(images.numpy()):
        region = image
        for level in range(levels):
            side = region.shape[-1] // seen[level][1]
            mean = region.reshape(3, seen[level][0], side, seen[level][1], side).mean((2, 4))
            np.testing.assert_allclose(states[level][i], mean, rtol=0, atol=1e-15)
            region = quadrant_by_hand(region, outcome.actions[i, level])


def test_RAM_started_at_a_regions_centre_sees_that_region():
    """The two conventions are one: black everywhere but in one region, the glimpse at its centre is white."""
    model = unified()
    for action in range(4):
        images = torch.zeros(1, 3, HEIGHT, WIDTH, dtype=torch.float64)
        quadrant_by_hand(images, action).fill_(1)
        trajectory, outcome = model(images, 0.5, None, forced(torch.tensor([[action]])), 1.0)
        assert outcome.actions.item() == action
        torch.testing.assert_close(trajectory.locations[:, 0], outcome.start)
        patch = model.ram.sensor(model.ram.sensor.pyramid(images), outcome.start)
        assert (patch == 1).all()


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels, features, hidden", [(1, 16, 0), (3, 5, 0), (1, 16, 64), (2, 3, 7)])
def test_ledger_A6_parameter_count(channels, features, hidden):
    count = sum(p.numel() for p in QNetwork(channels, features, hidden).parameters())
    last = 4 * (4 * features + 1) if not hidden else hidden * (4 * features + 1) + 4 * (hidden + 1)
    assert count == features * (9 * channels + 1) + last


def test_ledger_A6_region_vectors_against_scipy(generator):
    """Eq. 6, one filter and one region at a time, with scipy's correlation."""
    network = initialise(QNetwork(2, 3), 0).double()
    image = torch.rand(1, 2, 6, 10, generator=generator, dtype=torch.float64)
    found = network.region_vectors(image)[0].detach()
    assert found.shape == (4, 3)
    weight, bias = (p.detach().numpy() for p in (network.convolution.weight, network.convolution.bias))
    for n in range(3):
        response = bias[n] + sum(
            scipy.ndimage.correlate(image[0, c].numpy(), weight[n, c], mode="constant") for c in range(2)
        )
        for action in range(4):
            mean = quadrant_by_hand(np.maximum(response, 0), action).mean()
            assert found[action, n].item() == pytest.approx(mean, abs=1e-12)


@given(order=st.permutations(range(4)))
def test_ledger_A6_permuted_regions_permute_their_vectors(order):
    """Regions with a black rim do not see each other through the convolution: permuted regions are permuted vectors,
    and a last layer that treats all regions alike permutes the values."""
    generator = torch.Generator().manual_seed(1)
    network = initialise(QNetwork(2, 3), 0).double()
    tiles = torch.zeros(4, 2, 6, 10, dtype=torch.float64)
    tiles[..., 1:-1, 1:-1] = torch.rand(4, 2, 4, 8, generator=generator, dtype=torch.float64)

    def assemble(t: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.cat((t[0], t[1]), -1), torch.cat((t[2], t[3]), -1)), -2)[None]

    canvas = assemble(tiles).expand(4, -1, -1, -1)
    torch.testing.assert_close(chosen_region(canvas, torch.arange(4)), tiles, rtol=0, atol=0)
    order = list(order)
    before, after = network.region_vectors(assemble(tiles)), network.region_vectors(assemble(tiles[order]))
    torch.testing.assert_close(after, before[:, order], rtol=0, atol=1e-14)
    own, others = torch.rand(2, 1, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        blocks = torch.where(torch.eye(4, dtype=torch.bool)[..., None], own, others)  # (4, 4, N)
        network.values.weight.copy_(blocks.flatten(1))
        network.values.bias.fill_(0.3)
    torch.testing.assert_close(network(assemble(tiles[order])), network(assemble(tiles))[:, order])
    # The layer itself is free to tell regions apart: which of them is best may depend on where it lies.
    initialise(network, 0)
    values, permuted = network(assemble(tiles))[:, order], network(assemble(tiles[order]))
    assert order == [0, 1, 2, 3] or not torch.allclose(permuted, values)


def test_ledger_A6_a_region_vector_depends_on_its_own_region_and_one_pixel_around(generator):
    network = initialise(QNetwork(1, 3), 0).double()
    nn.init.constant_(network.convolution.bias, 10)  # no unit is silent
    image = torch.rand(1, 1, 12, 20, generator=generator, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(network.region_vectors(image)[0, 1].sum(), image)[0][0, 0]  # top right
    assert gradient[:7, 9:].all()
    assert not gradient[7:].any() and not gradient[:, :9].any()


# --- the policy -------------------------------------------------------------------------------------------------


def test_ledger_A5_without_draws_and_with_epsilon_0_it_is_arg_max():
    model = top_down(2)
    images, within, _, explore, _, _ = inputs(2, batch=60)
    greedy = model(images, within)
    torch.testing.assert_close(greedy.actions, greedy.values.argmax(-1))
    for a, b in zip(model(images, within, explore, torch.tensor(0.0)), greedy, strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(greedy.values.amax(-1), greedy.values.gather(-1, greedy.actions[..., None])[..., 0])


def test_ledger_A5_epsilon_1_chooses_every_path_alike(generator):
    model, images = top_down(2, shape=(1, 4, 4)), torch.ones(8000, 1, 4, 4, dtype=torch.float64)
    explore = torch.rand(8000, 2, 2, generator=generator)
    actions = model(images, 0.5, explore, torch.tensor(1.0)).actions
    leaves = torch.bincount(actions[:, 0] * 4 + actions[:, 1], minlength=16)
    assert scipy.stats.chisquare(leaves).pvalue > 0.01


def test_ledger_A5_epsilon_is_the_share_that_explores(generator):
    """A region is picked at random with probability epsilon, so another than the best with 3/4 of that."""
    model, images = top_down(shape=(1, 4, 4)), torch.ones(8000, 1, 4, 4, dtype=torch.float64)
    outcome = model(images, 0.5, torch.rand(8000, 1, 2, generator=generator), torch.tensor(0.3))
    others = int((outcome.actions != outcome.values.argmax(-1)).sum())
    assert scipy.stats.binomtest(others, 8000, 0.3 * 0.75).pvalue > 0.01
    # An epsilon for each image: only those of the first half explore.
    each = (torch.arange(8000) < 4000).double()
    outcome = model(images, 0.5, torch.rand(8000, 1, 2, generator=generator), each)
    best = (outcome.actions == outcome.values.argmax(-1))[:, 0]
    assert best[4000:].all() and scipy.stats.binomtest(int(best[:4000].sum()), 4000, 0.25).pvalue > 0.01


# --- the unified model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2])
def test_shapes_types_and_the_start(levels):
    model = unified(levels)
    images, within, noise, explore, epsilon, _ = inputs(levels)
    trajectory, outcome = model(images, within, noise, explore, epsilon)
    assert outcome.actions.shape == (7, levels) and outcome.actions.dtype == torch.int64
    assert outcome.values.shape == (7, levels, 4) and outcome.next_values.shape == (7, levels - 1)
    assert outcome.region.shape == (7, 2, 2) and outcome.start.shape == (7, 2)
    assert outcome.start.dtype == outcome.region.dtype == images.dtype
    assert trajectory.class_logits.shape == (7, 3, 11)
    torch.testing.assert_close(trajectory.locations[:, 0], outcome.start)
    torch.testing.assert_close(actions_to(outcome.start, levels), outcome.actions)
    # The RAM inside is RAM.
    for a, b in zip(model.ram(images, outcome.start, noise), trajectory, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("levels", [1, 2])
def test_T16_a_batch_of_one_gives_what_it_gives_within_a_batch(levels):
    model = unified(levels)
    images, within, noise, explore, epsilon, _ = inputs(levels)
    whole = model(images, within, noise, explore, epsilon)
    one = model(images[:1], within[:1], noise[:1], explore[:1], epsilon)
    for part, own in zip(whole, one, strict=True):
        for a, b in zip(part, own, strict=True):
            torch.testing.assert_close(a[:1], b)


@pytest.mark.parametrize("levels", [1, 2])
def test_q_loss_reaches_the_online_network_alone(levels):
    """Neither the frozen network nor RAM, however the reward came about."""
    model = unified(levels)
    images, within, noise, explore, epsilon, labels = inputs(levels)
    trajectory, outcome = model(images, within, noise, explore, epsilon)
    rewards = correctness(trajectory, labels)
    q_loss(outcome.values, outcome.actions, rewards, outcome.next_values, 0.99).backward()
    assert all(has_gradient(model.topdown.online))
    assert not any(has_gradient(model.topdown.target)) and not any(has_gradient(model.ram))


@pytest.mark.parametrize("levels", [1, 2])
def test_hybrid_loss_reaches_RAM_alone(levels):
    model = unified(levels)
    images, within, noise, explore, epsilon, labels = inputs(levels)
    trajectory, _ = model(images, within, noise, explore, epsilon)
    loss, _ = hybrid_loss(trajectory, labels, model.ram.context_network, 1.0, 0.01, "literal", 0.5)
    loss.backward()
    assert all(has_gradient(model.ram))
    assert not any(has_gradient(model.topdown))


def test_next_values_carry_no_gradient():
    outcome = top_down(2)(inputs(2)[0])
    assert outcome.values.requires_grad and not outcome.next_values.requires_grad


def test_ledger_A4_the_reward_is_1_for_a_right_last_prediction_and_0_for_a_wrong_one():
    model = unified()
    images, within, noise, explore, epsilon, _ = inputs()
    trajectory, _ = model(images, within, noise, explore, epsilon)
    trajectory = trajectory._replace(class_logits=torch.eye(11)[torch.tensor([[3, 5], [5, 3], [5, 5]])])
    rewards = correctness(trajectory, torch.tensor([5, 5, 5]))
    assert rewards.tolist() == [1, 0, 1] and rewards.dtype == torch.float32
    _, parts = hybrid_loss(
        trajectory._replace(log_probs=torch.zeros(3, 1), baselines=torch.zeros(3, 1)), torch.tensor([5, 5, 5]), None,
        1.0, 0.01, "none", 0.5,
    )  # fmt: skip
    assert parts["reward"].item() == pytest.approx(2 / 3)


class Losses(nn.Module):
    """Both losses as a module, as `functional_call` wants it."""

    def __init__(self, model: Unified):
        super().__init__()
        self.model = model

    def forward(self, images, within, noise, explore, epsilon, labels):
        trajectory, outcome = self.model(images, within, noise, explore, epsilon)
        hybrid, _ = hybrid_loss(trajectory, labels, self.model.ram.context_network, 1.0, 0.01, "literal", 0.5)
        rewards = correctness(trajectory, labels)
        return hybrid + q_loss(outcome.values, outcome.actions, rewards, outcome.next_values, 0.9), outcome


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_three_replicas_under_vmap_equal_three_alone(levels):
    """Losses, outcomes and gradients, with weights, images, draws and epsilon of their own."""
    models = [Losses(unified(levels, seed)) for seed in range(3)]
    batches = [inputs(levels, seed=seed) for seed in range(3)]
    for seed, model in enumerate(models):
        initialise(model.model.topdown.target, 100 + seed)  # a frozen network that lags
        batches[seed][4].fill_(seed / 2)
    alone = []
    for model, batch in zip(models, batches, strict=True):
        loss, outcome = model(*batch)
        loss.backward()
        alone.append((loss, outcome, {name: p.grad for name, p in model.named_parameters()}))
    parameters, buffers = stack_module_state(models)
    stacked = [torch.stack(tensors) for tensors in zip(*batches, strict=True)]
    losses, outcomes = torch.vmap(lambda p, b, *batch: functional_call(models[0], (p, b), batch))(
        parameters, buffers, *stacked
    )
    losses.sum().backward()
    for r, (loss, outcome, gradients) in enumerate(alone):
        torch.testing.assert_close(losses[r], loss, rtol=1e-12, atol=1e-12)
        for found, expected in zip(outcomes, outcome, strict=True):
            torch.testing.assert_close(found[r], expected, rtol=1e-12, atol=1e-12)
        for name, gradient in gradients.items():
            if gradient is None:
                assert parameters[name].grad is None and ".target." in name
            else:
                torch.testing.assert_close(parameters[name].grad[r], gradient, rtol=1e-9, atol=1e-11)


def test_the_frozen_network_follows_when_weights_are_views_into_a_stack():
    """Models trained side by side live in stacked tensors: a sync of one must reach its own slice, and no other."""
    models = [top_down(2, seed) for seed in range(3)]
    parameters, _ = stack_module_state(models)
    for r, model in enumerate(models):
        for name, p in model.named_parameters():
            p.data = parameters[name].data[r]
    with torch.no_grad():
        parameters["online.values.weight"].add_(1)
    models[1].sync_target()
    same = (parameters["target.values.weight"] == parameters["online.values.weight"]).flatten(1).all(1)
    assert same.tolist() == [False, True, False]
    assert not parameters["target.values.weight"].requires_grad


# --- diagnostics ------------------------------------------------------------------------------------------------


def outcome_of(actions: list[list[int]], within: float = 0.5) -> TopDownOutcome:
    actions = torch.tensor(actions)
    region = rectangle(actions)
    return TopDownOutcome(
        actions, torch.zeros(*actions.shape, 4), torch.zeros(len(actions), 0), region, place_within(region, within)
    )


def test_action_histogram_counts_each_level():
    found = action_histogram(outcome_of([[0, 3], [0, 3], [1, 3], [3, 2]]))
    assert found.tolist() == [[0.5, 0.25, 0, 0.25], [0, 0, 0.25, 0.75]]


def test_share_in_region_and_distance_by_hand():
    """On 60 rows x 100 columns. Centres of the four quarters: (25, 15), (75, 15), (25, 45), (75, 45)."""
    outcome = outcome_of([[0], [1], [2], [3]])
    centres = torch.tensor([[25.0, 15.0], [49.0, 15.0], [25.0, 30.0], [72.0, 41.0]])
    assert share_in_region(outcome, centres, 60, 100).item() == 0.75  # all but the second
    torch.testing.assert_close(start_distance_px(outcome, centres, 60, 100), torch.tensor([0.0, 26, 15, 5]))
    deep = outcome_of([[0, 0], [1, 2], [2, 1], [3, 3]])
    # Pixel columns 50-75 and rows 15-30 for the second, 25-50 and 30-45 for the third.
    centres = torch.tensor([[24.0, 14.0], [50.0, 29.0], [24.0, 31.0], [74.0, 46.0]])
    assert share_in_region(deep, centres, 60, 100).item() == 0.5


def test_ledger_A8_distances_of_the_bounding_starts(generator):
    """The ledger's numbers for digit centres uniform in {14..86} on 100 px, from the library's own pieces: 24 px
    uniform in the true quadrant, 16 px at its centre, 46 px uniform in a random one."""
    centres = torch.randint(14, 87, (20_000, 2), generator=generator).float()
    true = actions_to(pixel_to_location(centres, 100, 100), 1)
    uniform = torch.rand(20_000, 2, generator=generator)
    for actions, within, expected in [(true, uniform, 24), (true, 0.5, 16),
                                      (torch.randint(4, (20_000, 1), generator=generator), uniform, 46)]:  # fmt: skip
        start = place_within(rectangle(actions), within)
        outcome = outcome_of([[0]])._replace(actions=actions, start=start)
        assert start_distance_px(outcome, centres, 100, 100).mean().item() == pytest.approx(expected, abs=0.6)
    assert share_in_region(outcome, centres, 100, 100).item() == pytest.approx(0.25, abs=0.02)


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes, said", [
    ({"levels": 0}, "at least 1"),
    ({"features": 0}, "at least 1"),
    ({"hidden": -1}, "hidden at least 0"),
    ({"image_shape": (1, 30, 40)}, "whose sides 4 divides, got 30 x 40"),
    ({"image_shape": (1, 40, 30)}, "whose sides 4 divides, got 40 x 30"),
    ({"image_shape": (1, 100, 100), "levels": 3}, "whose sides 8 divides, got 100 x 100"),
])  # fmt: skip
def test_impossible_settings_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        TopDown(**{"image_shape": (1, 40, 40)} | changes)


def test_draws_of_another_shape_are_refused():
    model, images = top_down(2), torch.zeros(3, 3, HEIGHT, WIDTH, dtype=torch.float64)
    for explore, epsilon in [(torch.zeros(3, 2, 2), None), (torch.zeros(3, 1, 2), 0.5), (torch.zeros(1, 2, 2), 0.5),
                             (torch.zeros(3, 2), 0.5)]:  # fmt: skip
        with pytest.raises(ValueError, match=r"explore must be \(3, 2, 2\) and come with epsilon"):
            model(images, 0.5, explore, epsilon)
