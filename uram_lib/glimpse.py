"""The glimpse sensor (retina): concentric square patches around a location, each averaged down to one size (§3.2, §5).

Scale k of a g x g sensor covers a square of side g * 2**k pixels; each of its g x g values is the exact mean of the
image over a 2**k x 2**k box. The image is zero outside its edges. A box may lie at a fractional position; a pixel then
counts with the area that the box covers.

Locations l are (x, y), each in [-1, 1]: l = -1 and l = +1 are the edges of the image, (0, 0) its centre, (1, 1) its
bottom right corner. The pixel coordinate is (l + 1) / 2 * width, and pixel i covers [i, i + 1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def location_to_pixel(location: Tensor, height: int, width: int) -> Tensor:
    """(..., 2) locations in [-1, 1] to (..., 2) pixel coordinates (x, y) in [0, width] x [0, height]."""
    return (location + 1) / 2 * location.new_tensor([width, height])


def pixel_to_location(pixel: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `location_to_pixel`."""
    return pixel / pixel.new_tensor([width, height]) * 2 - 1


class GlimpseSensor:
    """Extracts `scales` concentric patches of `size` x `size` values around each location of a batch.

    `pyramid(images)` is computed once per batch and costs in proportion to the image;
    a glimpse at it (`sensor(pyramid, location)`) costs the same whatever the image's size (claim C9).
    """

    def __init__(self, size: int, scales: int = 1):
        self.size, self.scales = size, scales
        self.margin = 2 ** (scales - 1) - 1  # pixels of black around the coarser levels: the widest box, less one pixel

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """images: (B, C, H, W). Returns the image itself (scale 0), and for each scale k > 0 its sums over boxes of
        side s = 2**k at every pixel, (B, C, H + 2 margin - s + 1, W + 2 margin - s + 1): entry (i, j) is the box whose
        first row is i - margin and first column j - margin; outside the image lie zeros."""
        levels = [images]
        box = F.pad(images, [self.margin] * 4)
        for k in range(1, self.scales):
            half = 2 ** (k - 1)
            box = box[..., half:, :] + box[..., :-half, :]  # a box of side 2h is the sum of four boxes of side h
            box = box[..., half:] + box[..., :-half]
            levels.append(box)
        return levels

    def __call__(self, pyramid: list[Tensor], location: Tensor, through_location: bool = False) -> Tensor:
        """pyramid: of `pyramid()`; location: (B, 2), x then y, in [-1, 1] (values beyond are clamped).

        Returns patches (B, scales, C, size, size), finest scale first. Differentiable in the image, and in the location
        only where an attack asks for it (`through_location`): where to look is learned by REINFORCE alone.
        """
        height, width = pyramid[0].shape[-2:]
        location = location if through_location else location.detach()
        centre = location_to_pixel(location.clamp(-1, 1), height, width)  # (B, 2)
        patches = []
        for k, level in enumerate(pyramid):
            side = 2**k
            first = centre - self.size / 2 * side + (self.margin if k else 0)  # (B, 2): entry of the first box
            patches.append(interpolate(level, first, side, self.size) / side**2)  # (B, C, g, g), from sums to means
        return torch.stack(patches, 1)  # (B, scales, C, g, g)


def interpolate(level: Tensor, first: Tensor, side: int, size: int) -> Tensor:
    """Read `level` (B, C, H, W) at `size` x `size` entries, `side` apart, zeros beyond its edge: (B, C, size, size).

    first: (B, 2), x then y, of the top left entry; between whole numbers the four nearest are interpolated.
    """
    rows, columns = level.shape[-2:]
    x, y = (first[:, :, None] + side * torch.arange(size, device=first.device, dtype=first.dtype)).unbind(1)  # (B, g)
    # grid_sample(align_corners=False) puts entry i at (2i + 1) / n - 1.
    x, y = (2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1
    grid = torch.stack((x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)), -1)
    return F.grid_sample(level, grid, padding_mode="zeros", align_corners=False)


def binary_entropy_of_patch(patch: Tensor, threshold: float = 0.5) -> Tensor:
    """Entropy in bits of a patch whose pixels are binarised at `threshold` (`entropy(x_t)` of Eq. 12, §4.2 (2)).

    patch: (..., C, g, g) with values in [0, 1], the finest scale, before any normalisation; colour is averaged to
    grey. Returns (...) in [0, 1]: 0 for an all-black or all-white patch, 1 for half and half.
    """
    lit = (patch.mean(-3) > threshold).to(patch.dtype).mean((-2, -1))
    return -(torch.xlogy(lit, lit) + torch.xlogy(1 - lit, 1 - lit)) / torch.log(torch.tensor(2.0, dtype=patch.dtype))
