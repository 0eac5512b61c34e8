"""The glimpse sensor against references that share no code with it (oracles 6 and 7; bugs T7-T11, T18)."""

import functools

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st

from uram_lib.glimpse import GlimpseSensor, binary_entropy_of_patch, location_to_pixel, pixel_to_location

CORNERS = [(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)]
inside = st.floats(-1, 1)


def glimpse_at(image: np.ndarray, location: tuple[float, float], size: int, scales: int) -> np.ndarray:
    """The library's patches of one image (C, H, W): (scales, C, size, size), in double precision."""
    sensor = GlimpseSensor(size, scales)
    images = torch.from_numpy(image).double()[None]
    return sensor(sensor.pyramid(images), torch.tensor([location], dtype=torch.float64))[0].numpy()


def covered(start: float, end: float, pixel: int) -> float:
    """The length of [pixel, pixel + 1) that lies in [start, end)."""
    return max(0.0, min(end, pixel + 1) - max(start, pixel))


def reference(image: np.ndarray, location: tuple[float, float], size: int, scale: int) -> np.ndarray:
    """One patch by its definition alone: explicit zero padding, then loops over rows, columns and covered pixels.

    Independent truth: area integrals of a piecewise constant image; no interpolation, no running means.
    """
    channels, height, width = image.shape
    side = 2**scale
    margin = size * side + 1
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)))
    left = (location[0] + 1) / 2 * width - size * side / 2 + margin
    top = (location[1] + 1) / 2 * height - size * side / 2 + margin
    patch = np.zeros((channels, size, size))
    for i in range(size):
        for j in range(size):
            y, x = top + i * side, left + j * side
            for row in range(int(np.floor(y)), int(np.floor(y)) + side + 1):
                for column in range(int(np.floor(x)), int(np.floor(x)) + side + 1):
                    area = covered(y, y + side, row) * covered(x, x + side, column)
                    patch[:, i, j] += area * padded[:, row, column]
    return patch / side**2


sides = st.tuples(st.integers(3, 14), st.integers(3, 14))


@given(seed=st.integers(0, 2**31), sides=sides, x=inside, y=inside, size=st.integers(1, 6), scales=st.integers(1, 3))
def test_oracle07_patches_are_exact_area_averages_anywhere(seed, sides, x, y, size, scales):
    image = np.random.default_rng(seed).random((2, *sides))
    found = glimpse_at(image, (x, y), size, scales)
    np.testing.assert_allclose(found, [reference(image, (x, y), size, k) for k in range(scales)], atol=1e-9)


def test_oracle07_single_precision_batch_on_a_large_canvas(generator):
    """As the tables use it: float32, many images at once, four scales of 12 on 100 pixels."""
    images = torch.rand(5, 1, 100, 100, generator=generator)
    locations = torch.rand(5, 2, generator=generator) * 2 - 1
    sensor = GlimpseSensor(12, 4)
    found = sensor(sensor.pyramid(images), locations)
    for image, location, patches in zip(images.numpy(), locations.double().tolist(), found.numpy(), strict=True):
        np.testing.assert_allclose(patches, [reference(image, location, 12, k) for k in range(4)], atol=3e-5)


@pytest.mark.parametrize("size, scales", [(4, 3), (7, 1), (8, 4), (12, 4)])
def test_oracle07_T18_patches_at_whole_pixels_are_slices_and_coarser_ones_average_pooling(size, scales):
    """A half-pixel shift in grid_sample would blur every patch. Truth: plain slices of the zero-padded image, pooled
    by torch. The patches begin at whole pixels, an odd one's centre lies in the middle of a pixel."""
    image = np.random.default_rng(1).random((3, 31, 45))
    padded = np.pad(image, ((0, 0), (64, 64), (64, 64)))
    for x, y in [(14, 14), (0, 0), (44, 5), (9, 30), (size // 2, size // 2), (45 - size, 31 - size)]:
        centre = torch.tensor([x + size % 2 / 2, y + size % 2 / 2]).double()
        patches = glimpse_at(image, tuple(pixel_to_location(centre, 31, 45).tolist()), size, scales)
        for k, side in enumerate(size * 2**k for k in range(scales)):
            left, top = x - side // 2 + 64, y - side // 2 + 64
            square = torch.from_numpy(padded[:, top : top + side, left : left + side])
            np.testing.assert_allclose(patches[k], F.avg_pool2d(square, 2**k), atol=1e-12)


@pytest.mark.parametrize("size", [7, 8, 12])
@pytest.mark.parametrize("corner", CORNERS)
def test_T07_every_size_is_whole_at_the_corners(size, corner):
    """Odd sizes were cropped short at the border: shape, the quarter that lies inside, and zeros elsewhere."""
    patch = glimpse_at(np.ones((1, 28, 28)), corner, size, 1)[0, 0]
    assert patch.shape == (size, size)
    assert patch.sum() == pytest.approx((size / 2) ** 2)  # a quarter of the square's area
    outer = 0 if corner[1] < 0 else -1, 0 if corner[0] < 0 else -1
    assert patch[outer] == 0 and patch[-1 - outer[0], -1 - outer[1]] == 1


def test_T08_scales_share_one_centre_and_double_in_side():
    """On a ramp (value = pixel centre) the mean of a patch is its centre and its step is its pixels' side."""
    ramps = np.stack(np.meshgrid(np.arange(120) + 0.5, np.arange(120) + 0.5))  # along x, along y
    for pixel in (60.0, 57.25):
        for k, (along_x, along_y) in enumerate(glimpse_at(ramps, (pixel / 60 - 1,) * 2, 12, 4)):
            assert along_x.mean() == pytest.approx(pixel, abs=1e-9) == along_y.mean()
            for steps in (np.diff(along_x, axis=1), np.diff(along_y, axis=0)):
                np.testing.assert_allclose(steps, 2**k, atol=1e-9)


@pytest.mark.parametrize("scale", range(4))
def test_T09_scale_k_covers_exactly_g_times_two_to_the_k_pixels(scale):
    """Which pixels a patch depends on, and how strongly, by automatic differentiation: a 96-pixel square for k = 3."""
    images = torch.rand(1, 1, 130, 130, dtype=torch.float64, requires_grad=True)
    sensor = GlimpseSensor(12, 4)
    sensor(sensor.pyramid(images), torch.zeros(1, 2, dtype=torch.float64))[0, scale].sum().backward()
    half, expected = 6 * 2**scale, torch.zeros_like(images)
    expected[..., 65 - half : 65 + half, 65 - half : 65 + half] = 1 / 4**scale
    torch.testing.assert_close(images.grad, expected)


def test_T10_what_lies_outside_is_black_even_after_standardising(small_ram):
    """A black image looks the same from everywhere; padding after the normalisation would turn its outside grey."""
    model = small_ram(glimpses=1)
    bright = torch.rand(50, 3, 31, 45, generator=torch.Generator().manual_seed(3))
    model.calibrate(bright, torch.rand(50, 2, generator=torch.Generator().manual_seed(4)) * 2 - 1)
    assert (model.patch_mean > 0.1).all()  # else grey and black would be the same
    seen = []
    model.glimpse_network.patch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    starts = torch.tensor([(0.0, 0.0), *CORNERS, (0.3, -0.97)])
    model(torch.zeros(len(starts), 3, 31, 45), starts)
    values = seen[0].view(len(starts), 2, -1)  # (B, scales, values)
    torch.testing.assert_close(values, values[:1, :, :1].expand_as(values), rtol=0, atol=1e-6)
    torch.testing.assert_close(values[0, :, 0], (-model.patch_mean / model.patch_std).flatten())


def test_T11_x_is_the_column_and_y_is_the_row():
    """One bright pixel at row 3, column 20 of an image that is not square."""
    image = np.zeros((1, 28, 40))
    image[0, 3, 20] = 1
    location = pixel_to_location(torch.tensor([20.5, 3.5]).double(), 28, 40)
    assert location.tolist() == pytest.approx([20.5 / 40 * 2 - 1, 3.5 / 28 * 2 - 1])
    patch = glimpse_at(image, tuple(location.tolist()), 7, 1)[0, 0]
    assert patch[3, 3] == pytest.approx(1) and patch.sum() == pytest.approx(1)
    beside = glimpse_at(image, (location[0].item() + 2 * 2 / 40, location[1].item()), 7, 1)[0, 0]
    assert beside[3, 1] == pytest.approx(1)  # looking 2 pixels further right moves the pixel 2 columns to the left


@given(x=inside, y=inside, height=st.integers(1, 200), width=st.integers(1, 200))
def test_locations_and_pixels_are_inverse(x, y, height, width):
    location = torch.tensor([x, y], dtype=torch.float64)
    pixel = location_to_pixel(location, height, width)
    assert pixel.tolist() == pytest.approx([(x + 1) / 2 * width, (y + 1) / 2 * height])
    assert pixel_to_location(pixel, height, width).tolist() == pytest.approx([x, y], abs=1e-12)


def test_locations_beyond_the_edge_are_clamped():
    image = np.random.default_rng(5).random((1, 20, 20))
    np.testing.assert_array_equal(glimpse_at(image, (1.7, -3), 6, 2), glimpse_at(image, (1, -1), 6, 2))


def test_the_location_gets_no_gradient_from_the_sensor(generator):
    """Where to look is learned by REINFORCE alone; attacks need the image's gradient."""
    images = torch.rand(1, 1, 9, 9, generator=generator, requires_grad=True)
    location = torch.zeros(1, 2, requires_grad=True)
    sensor = GlimpseSensor(4, 2)
    sensor(sensor.pyramid(images), location).sum().backward()
    assert location.grad is None and images.grad.abs().sum() > 0


def test_an_attack_may_ask_for_the_gradient_in_the_location(generator):
    """Against central differences, at places where no box's edge lies on a pixel's."""
    images = torch.rand(3, 2, 20, 17, generator=generator, dtype=torch.float64)
    location = (torch.rand(3, 2, generator=generator, dtype=torch.float64) - 0.5).requires_grad_()
    sensor = GlimpseSensor(4, 2)
    look = functools.partial(sensor, sensor.pyramid(images), through_location=True)
    assert torch.autograd.gradcheck(look, location, eps=1e-6, atol=1e-6)


@given(lit=st.integers(0, 64), seed=st.integers(0, 2**31))
@example(lit=0, seed=0)
@example(lit=16, seed=0)
@example(lit=64, seed=0)
def test_oracle06_entropy_agrees_with_scipy(lit, seed):
    """Independent truth: scipy's entropy of the two shares, in bits, wherever the lit pixels lie."""
    values = np.where(np.arange(64) < lit, 0.51 + 0.49 * np.arange(64) / 64, 0.5 * np.arange(64) / 64)
    patch = np.random.default_rng(seed).permutation(values).reshape(1, 8, 8)
    found = binary_entropy_of_patch(torch.from_numpy(patch)).item()
    assert found == pytest.approx(scipy.stats.entropy([lit / 64, 1 - lit / 64], base=2), abs=1e-7)
    assert lit not in (16, 48) or round(found, 4) == 0.8113


def test_oracle06_entropy_is_of_the_grey_patch_and_exactly_half_is_dark():
    red = torch.zeros(2, 3, 4, 4)
    red[0, 0] = 1  # grey value 1/3 everywhere: dark, entropy 0, though a third of all channel values is lit
    red[1, :, :2] = 0.5  # the threshold itself is not above the threshold
    assert binary_entropy_of_patch(red).tolist() == [0, 0]
    red[1, :, :2] = 0.6
    assert binary_entropy_of_patch(red).tolist() == [0, 1]
