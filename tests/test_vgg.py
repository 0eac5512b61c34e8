"""VGG16, VGG16 with attention (Eq. 16-17) and its controls: sizes, equality with torchvision, where gradients go."""

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
import torchvision
from conftest import warmed

from uram_lib.adversarial.attacks import Under
from uram_lib.config import Config
from uram_lib.glimpse import location_to_pixel
from uram_lib.models.layers import count_parameters
from uram_lib.models.vgg import MLPVGG, VGG16, AttentiveVGG, ConvolutionalGlimpseNetwork, RandomGlimpseVGG

SHAPE = (3, 32, 32)
SLIM = 1 / 32


def settings_of(width: float = SLIM, **changes) -> Config:
    return Config("digits", "vgg16", 1, width=width, **{"glimpses": 3, "patch_size": 12, "scales": 1} | changes)


def attentive(kind=AttentiveVGG, **changes):
    """A slim model of 7 classes and 3 glimpses, all sizes different."""
    return kind(settings_of(**changes), SHAPE, 7, hidden=48).initialise(0).double()


def vgg16(width: float = SLIM, shape=SHAPE) -> VGG16:
    return VGG16(settings_of(width), shape, 10)


@pytest.fixture
def inputs(generator):
    """(images, draws, labels) of 5 images for `attentive`, in double precision."""
    images = torch.rand(5, *SHAPE, generator=generator).double()
    start = torch.rand(5, 2, generator=generator).double() * 2 - 1
    noise = torch.randn(5, 2, 2, generator=generator).double()
    return images, {"start": start, "noise": noise}, torch.randint(7, (5,), generator=generator)


def size(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_vgg16_equals_torchvision_with_its_weights():
    """torchvision's own 44 layers, in evaluation mode with statistics that are not the trivial ones."""
    theirs = torchvision.models.vgg16_bn(init_weights=False).features.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in theirs:
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.1, 0.3)
        images = torch.rand(2, *SHAPE)
    model = vgg16(1.0).eval()
    model.features.layers.load_state_dict(theirs.state_dict())
    model.features.mean.fill_(0.4)
    model.features.std.fill_(0.25)
    with torch.no_grad():
        expected = theirs((images - 0.4) / 0.25).flatten(1)
        torch.testing.assert_close(model.features(images), expected)
        assert expected.shape == (2, 512) and expected.std() > 1e-3
        torch.testing.assert_close(model(images), F.linear(expected, model.classifier.weight, model.classifier.bias))


@pytest.mark.parametrize("kind", [VGG16, AttentiveVGG])
def test_whole_images_are_standardised_inside_with_what_was_measured(generator, kind):
    images, starts = torch.rand(40, *SHAPE, generator=generator), torch.zeros(40, 2)
    images *= torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1)
    model, seen = kind(settings_of(), SHAPE, 10).initialise(0), []
    model.calibrate(images, starts)
    assert kind is VGG16 or (0 < model.patch_mean.item() < 1 and model.patch_std.item() != 1)
    model.features.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.rollout(images, {"start": starts})
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[0].std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)


def test_vgg16_refuses_other_sizes_and_has_its_share_of_filters():
    for height, width in ((28, 28), (32, 16)):
        with pytest.raises(ValueError, match=f"{height}x{width}"):
            vgg16(shape=(3, height, width))
    for width, filters in ((0.25, 128), (1e-3, 1)):
        assert vgg16(width).features.size == filters


def test_glimpse_network_sums_image_and_location(generator):
    """§4.2: G = G_img + G_loc, with the appendix's filter sizes and numbers, 12 -> 6 -> 3 pixels."""
    network = ConvolutionalGlimpseNetwork(3, 12, 1.0).eval()
    convolutions = [layer for layer in network.patch if isinstance(layer, torch.nn.Conv2d)]
    assert [(c.kernel_size[0], c.out_channels) for c in convolutions] == [(5, 64), (3, 64), (3, 128)]
    assert network.patch[-1].in_features == 128 * 3 * 3
    patch, location = torch.rand(2, 1, 3, 12, 12, generator=generator), torch.rand(2, 2, generator=generator)
    image = network.patch(patch[:, 0]).relu()
    torch.testing.assert_close(network(patch, location), image + network.location(location).relu())


def test_attention_parameters_in_closed_form():
    with torch.device("meta"):
        model = AttentiveVGG(settings_of(1.0, context="attended"), SHAPE, 10)
    glimpse = (25 * 3 + 1) * 64 + (9 * 64 + 1) * 64 + (9 * 64 + 1) * 128 + 2 * 256 + (9 * 128 + 1) * 256 + 3 * 256
    core = (2 * 256 + 1) * 256
    heads = 257 * 2 + 257 + 256 * 10 + 10 + 512 * 10
    context = 257 * 256 + 257 * 10
    assert size(model) == 14_723_136 + glimpse + core + heads + context
    assert count_parameters(model) == size(model) - context - 257  # without f_c and the baseline


@pytest.mark.parametrize("width", [1, 0.25, SLIM])
def test_controls_have_as_many_parameters(width):
    """The perceptron to within half of one of its hidden units."""
    config, kinds = settings_of(width, context="attended"), (VGG16, AttentiveVGG, RandomGlimpseVGG, MLPVGG)
    with torch.device("meta"):
        models = [kind(config, SHAPE, 10) for kind in kinds]
    plain, ours, random, mlp = map(count_parameters, models)
    assert random == pytest.approx(ours, rel=0.02)
    assert abs(mlp - ours) <= (models[0].features.size + 1 + 256) / 2 < 0.02 * ours
    assert plain < 0.98 * ours  # so a control is needed


def test_equation_17_is_one_matrix_on_the_concatenation(inputs):
    images, draws, _ = inputs
    model = warmed(attentive(), images, draws)
    trajectory = model.rollout(images, draws)
    both = torch.cat((trajectory.hiddens[:, -1], model.features(images)), -1)  # (5, 48 + 16)
    weight = torch.cat((model.classifier.weight, model.feature_classifier.weight), -1)
    logits = F.linear(both, weight, model.classifier.bias)
    torch.testing.assert_close(trajectory.class_logits[:, -1], logits)
    for paths in ({}, {"features_only": True}, {"sigma": model.sigma}):  # which change no prediction
        torch.testing.assert_close(Under(model, draws, **paths)(images), logits)


def test_gradient_reaches_the_pixels_by_both_paths(inputs):
    """Ledger H5. The logits are a sum of two terms, so the gradient is the sum of two; the one through the glimpses
    lies within the 12x12 crops, the one through the features everywhere."""
    images, draws, labels = inputs
    model = warmed(attentive(), images, draws)
    images.requires_grad_()

    def gradient(features_only: bool) -> torch.Tensor:
        logits = Under(model, draws, features_only=features_only)(images)
        return torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), images)[0]

    full, through_features = gradient(False), gradient(True)
    through_glimpses = full - through_features
    assert through_features.any() and through_glimpses.any()
    centres = location_to_pixel(model.rollout(images, draws).locations, 32, 32)  # (5, 3, 2), x then y
    pixel = torch.arange(32) + 0.5
    # One pixel more than half a patch: crops lie at fractional places.
    near = ((pixel - centres[..., None]).abs() < 7).double()  # (5, 3, 2, 32)
    seen = torch.einsum("btx,bty->byx", near[:, :, 0], near[:, :, 1]) > 0
    blind = ~seen[:, None].expand_as(full)
    assert blind.any() and through_features[blind].any()
    assert through_glimpses[blind].abs().max() < 1e-12 < through_glimpses.abs().max()
    with torch.no_grad():
        model.feature_classifier.weight.zero_()
    assert not gradient(True).any()  # nothing but the features carries it
    torch.testing.assert_close(gradient(False), through_glimpses)


@pytest.mark.parametrize("sampled", [False, True])
def test_through_locations_the_gradient_is_whole(inputs, sampled):
    """Under fixed draws the logits are a function of the pixels, so their slopes can be measured: by central
    differences along 20 directions. A change of a pixel also moves the glimpses; the gradient that leaves this out is
    another one, and the predictions are the same."""
    images, draws, labels = inputs
    model = warmed(attentive(), images, draws)
    if not sampled:
        del draws["noise"]
    with torch.no_grad():
        model.location_network.weight.mul_(10)

    def value(x, whole):
        return Under(model, draws, through_locations=whole)(x).gather(1, labels[:, None]).sum()

    torch.testing.assert_close(value(images, True), value(images, False), rtol=1e-9, atol=1e-9)
    point = images.clone().requires_grad_()
    whole, partial = (torch.autograd.grad(value(point, through), point)[0] for through in (True, False))
    directions = torch.randn(20, *images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-8
    with torch.no_grad():
        slopes = [(value(images + step * d, False) - value(images - step * d, False)) / (2 * step) for d in directions]
    slopes = torch.stack(slopes)
    whole, partial = ((gradient * directions).sum((1, 2, 3, 4)) for gradient in (whole, partial))
    torch.testing.assert_close(whole, slopes, rtol=1e-4, atol=1e-6)
    assert (partial - slopes).norm() > 0.01 * slopes.norm()


@pytest.mark.parametrize("kind", [AttentiveVGG, RandomGlimpseVGG])
def test_several_rollouts_of_an_image_share_its_features_and_nothing_else(inputs, kind):
    """Three rollouts at once give what each gives alone, gradients in the pixels included."""
    images, draws, _ = inputs
    model, asked = warmed(attentive(kind), images, draws), []
    images.requires_grad_()
    start, noise = draws.values()
    three = [{"start": start * a, "noise": noise * b} for a, b in ((1, 1), (-1, 1), (-1, -1))]
    model.features.register_forward_hook(lambda *_: asked.append(1))
    logits = Under(model, {name: torch.cat([one[name] for one in three]) for name in draws})(images)  # (S, B, K)
    assert logits.shape == (3, 5, 7) and asked == [1]
    one_by_one = [Under(model, one)(images) for one in three]
    torch.testing.assert_close(logits, torch.stack(one_by_one))
    assert not torch.equal(logits[0], logits[1]) and not torch.equal(logits[1], logits[2])
    gradients = [torch.autograd.grad(sum(draw.sum() for draw in part), images)[0] for part in (logits, one_by_one)]
    torch.testing.assert_close(*gradients)


def test_random_glimpses_are_uniform_and_learn_nothing(generator):
    """Kolmogorov-Smirnov against the uniform distribution; the density is 1/4 on a square of side 2."""
    model = attentive(RandomGlimpseVGG, glimpses=41).float().eval()
    noise = torch.randn(20, 40, 2, generator=generator)
    with torch.no_grad():
        trajectory = model(torch.rand(20, *SHAPE, generator=generator), torch.zeros(20, 2), noise)
    chosen = trajectory.locations[:, 1:].flatten()
    assert scipy.stats.kstest(chosen, scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    torch.testing.assert_close(trajectory.log_probs.exp(), torch.full((20, 40), 0.25))
    streams = {name: torch.Generator().manual_seed(0) for name in ("start", "policy")}
    assert model.draws(2, streams, sampled=False)["noise"].shape == (2, 40, 2)  # no mean policy to be tested by
