"""The unified model (Algorithm 1): the top-down model chooses where the bottom-up model starts; and what to ask of it.

The reward of the top-down model is the bottom-up model's success, so the two are joined by their losses alone:
`objectives.hybrid_loss` trains RAM and `objectives.q_loss` the Q-network, and neither has a gradient into the other.
"""

import torch
from torch import Tensor, nn

from ..glimpse import location_to_pixel, pixel_to_location
from .ram import RAM, Trajectory
from .topdown import REGIONS, TopDown, TopDownOutcome, actions_to, place_within, rectangle


class Unified(nn.Module):
    """A `TopDown` and a `RAM` for the same images. centred: start in the centre of the chosen region, not at a uniform
    place in it (ledger A7)."""

    def __init__(self, topdown: TopDown, ram: RAM, centred: bool = False):
        super().__init__()
        self.topdown, self.ram, self.centred = topdown, ram, centred

    def forward(
        self,
        images: Tensor,
        within: Tensor | float = 0.5,
        noise: Tensor | None = None,
        explore: Tensor | None = None,
        epsilon: Tensor | float | None = None,
    ) -> tuple[Trajectory, TopDownOutcome]:
        """images: (B, C, H, W) in [0, 1]; within, explore and epsilon: as `TopDown` takes them; noise: as `RAM` does.

        Without noise and explore it is the policy of testing: arg max Q, then mean locations.
        """
        outcome = self.topdown(images, 0.5 if self.centred else within, explore, epsilon)
        return self.ram(images, outcome.start, noise), outcome


def start_location(where: str, uniform: Tensor, centres: Tensor, height: int, width: int) -> Tensor:
    """L_0 for a RAM that starts at `where`, one of `ram.STARTS`: (B, 2), x then y.

    uniform: (B, 2) in [-1, 1], what a uniform start would be; also the draw of the place in a quadrant, as the unified
    model uses it. centres: (B, 2) in pixels, x then y, the objects of images of `height` x `width`.
    """
    if where == "uniform":
        return uniform
    if where == "image-centre":
        return torch.zeros_like(uniform)
    true = pixel_to_location(centres.to(uniform.dtype), height, width)
    if where == "true-centre":
        return true
    within = 0.5 if where == "true-quadrant-centre" else (uniform + 1) / 2
    return place_within(rectangle(actions_to(true, 1), uniform.dtype), within)


def action_histogram(outcome: TopDownOutcome) -> Tensor:
    """The share of images that chose each region, (L, 4), each level summing to 1."""
    regions = torch.arange(REGIONS, device=outcome.actions.device)
    return (outcome.actions[:, :, None] == regions).to(outcome.values.dtype).mean(0)


def share_in_region(outcome: TopDownOutcome, centres: Tensor, height: int, width: int) -> Tensor:
    """The share of images, a scalar in [0, 1], whose object has its centre in the chosen region.

    centres: (B, 2) in pixels, x then y, of images of `height` x `width`.
    """
    right = actions_to(pixel_to_location(centres, height, width), outcome.actions.shape[1])  # (B, L)
    return (right == outcome.actions).all(1).to(outcome.values.dtype).mean()


def start_distance_px(outcome: TopDownOutcome, centres: Tensor, height: int, width: int) -> Tensor:
    """The distance in pixels from L_0 to the object's centre, (B,). Arguments as in `share_in_region`."""
    return (location_to_pixel(outcome.start, height, width) - centres).norm(dim=-1)
