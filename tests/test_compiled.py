"""The compiled loops against the PyTorch code that they stand in for, and where they must not be used."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uram_lib import compiled
from uram_lib.data.clutter import compose
from uram_lib.glimpse import GlimpseSensor, interpolate
from uram_lib.models import build
from uram_lib.models.topdown import QNetwork
from uram_lib.replicas import Objective
from uram_lib.seeding import initialise
from uram_lib.training import use_wide_products


@pytest.fixture(autouse=True)
def loops(monkeypatch):
    monkeypatch.setattr(compiled, "in_use", True)


@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    channels=st.integers(1, 3),
    size=st.integers(1, 6),
    side=st.sampled_from((1, 2, 4, 8)),
    far=st.floats(0, 40),
)
def test_patch_reads_what_interpolate_reads(seed, height, width, channels, size, side, far):
    """Anywhere, the far outside included."""
    draw = torch.Generator().manual_seed(seed)
    level = torch.rand(3, channels, height, width, generator=draw, dtype=torch.float64)
    first = (torch.rand(3, 2, generator=draw, dtype=torch.float64) * 2 - 1) * far
    found = compiled.patch(level, first, side, size)
    torch.testing.assert_close(found, interpolate(level, first, side, size), rtol=0, atol=1e-9)


def test_the_loop_is_plain_python_too():
    """Uncompiled, by hand: a box start a quarter to the right of entry (1, 0) and half below it."""
    level = np.array([[[[0.0, 1, 2], [4, 8, 12], [100, 100, 100]]]])
    found = np.empty((1, 1, 1, 1))
    compiled.fill_patch(level, np.array([[0.25, 0.5]]), 1, found)
    assert found.item() == pytest.approx(0.5 * 0.25 + 0.5 * 5)


def test_single_precision_stays_single_and_close():
    draw = torch.Generator().manual_seed(0)
    images, location = torch.rand(4, 1, 100, 100, generator=draw), torch.rand(4, 2, generator=draw) * 2 - 1
    sensor = GlimpseSensor(12, 4)
    found = sensor(sensor.pyramid(images), location)
    assert found.dtype == torch.float32
    with_gradient = sensor(sensor.pyramid(images.requires_grad_()), location)  # by grid_sample
    assert with_gradient.requires_grad and not found.requires_grad
    torch.testing.assert_close(found, with_gradient.detach(), rtol=0, atol=2e-5)


@given(seed=st.integers(0, 2**31), pieces=st.integers(0, 6), side=st.integers(28, 40), spread=st.floats(0, 1))
def test_canvases_are_those_that_paint_makes(seed, pieces, side, spread):
    """Bit for bit, and from the same draws."""
    draw = lambda: torch.Generator().manual_seed(seed)  # noqa: E731
    digits = torch.randint(256, (5, 1, 28, 28), generator=draw(), dtype=torch.uint8)
    own = torch.tensor([0, 3, 3])
    fast = compose(digits, own, side, pieces, draw(), spread)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compiled, "in_use", False)
        plain = compose(digits, own, side, pieces, draw(), spread)
    assert torch.equal(fast[0], plain[0]) and torch.equal(fast[1], plain[1])


@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 9),
    width=st.integers(1, 12),
    channels=st.integers(1, 3),
    features=st.integers(1, 4),
)
def test_region_vectors_and_their_gradients_are_those_of_pytorch(seed, height, width, channels, features):
    """Of rows that fill whole vectors and of rows that do not; in float64."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.rand(3, channels, 2 * height, 2 * width, generator=draw, dtype=torch.float64)
    weights = torch.randn(3, 4, features, generator=draw, dtype=torch.float64)
    network = initialise(QNetwork(channels, features), seed).double()

    def vectors_and_gradients() -> list[torch.Tensor]:
        vectors = network.region_vectors(image)
        return [vectors.detach(), *torch.autograd.grad((vectors * weights).sum(), network.convolution.parameters())]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compiled, "in_use", False)
        plain = vectors_and_gradients()
    found = network.region_vectors(image)
    assert found.grad_fn.name() == "RegionMeansBackward"
    torch.testing.assert_close(vectors_and_gradients(), plain, rtol=1e-9, atol=1e-12)


def test_gradients_and_seeds_side_by_side_are_left_to_pytorch():
    level, first = torch.rand(2, 1, 5, 5), torch.zeros(2, 2)
    assert compiled.patch(level, first, 1, 3) is not None
    assert compiled.patch(level.clone().requires_grad_(), first, 1, 3) is None
    with torch.no_grad():
        assert compiled.patch(level.clone().requires_grad_(), first, 1, 3) is not None
    refused = []
    torch.vmap(lambda one, f: refused.append(compiled.patch(one, f, 1, 3)) or one)(level[None], first[None])
    assert refused == [None]
    image, weight, bias = torch.rand(2, 1, 4, 4), torch.rand(3, 1, 3, 3), torch.rand(3)
    assert compiled.region_means(image, weight, bias) is not None
    assert compiled.region_means(image.clone().requires_grad_(), weight, bias) is None
    torch.vmap(lambda w, b: refused.append(compiled.region_means(image, w, b)) or w)(weight[None], bias[None])
    assert refused == [None, None]


def test_without_numba_there_is_a_notice_and_the_same_patch(monkeypatch):
    draw = torch.Generator().manual_seed(1)
    images, location = torch.rand(2, 1, 20, 20, generator=draw), torch.rand(2, 2, generator=draw)
    sensor = GlimpseSensor(8, 2)
    fast = sensor(sensor.pyramid(images), location)
    monkeypatch.setattr(compiled, "in_use", False)
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it fails
    with pytest.warns(UserWarning, match="numba is not installed"):
        compiled.use_loops()
    assert not compiled.in_use
    slow = sensor(sensor.pyramid(images), location)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)


def test_products_as_in_training_are_single_precision():
    """Whatever library multiplies: bfloat16, which the setting's name allows, would be off by 4e-3."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    draw = torch.Generator().manual_seed(2)
    a, b = torch.randn(128, 576, generator=draw), torch.randn(576, 256, generator=draw)
    exact = a.double() @ b.double()
    use_wide_products()
    try:
        for found in (a @ b, torch.nn.functional.linear(a, b.T, torch.zeros(256)), (b.T @ a.T).T):
            assert ((found - exact).abs().max() / exact.abs().max()).item() < 5e-6
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_a_training_step_has_the_same_gradients_with_and_without_the_loops(small_config, monkeypatch):
    """In float64, over every parameter: where the patches come from changes no gradient."""
    config = small_config(dataset="digits", patch_size=7, scales=3, context=True, entropy="literal")
    draw = torch.Generator().manual_seed(3)
    images = torch.rand(6, 1, 28, 28, generator=draw, dtype=torch.float64)
    start, noise = torch.rand(6, 2, generator=draw).double(), torch.randn(6, 2, 2, generator=draw).double()
    labels = torch.randint(10, (6,), generator=draw)

    def gradients() -> list[torch.Tensor]:
        model = initialise(build(config, (1, 28, 28), 10), 0).double()
        loss, _ = Objective(model, config)(images, labels, start, noise)
        loss.backward()
        return [p.grad for p in model.parameters()]

    with_loops = gradients()
    monkeypatch.setattr(compiled, "in_use", False)
    plain = gradients()
    assert all(g is not None and g.abs().sum() > 0 for g in plain)
    torch.testing.assert_close(with_loops, plain, rtol=1e-9, atol=1e-12)
