"""The unified model (Algorithm 1): the top-down model chooses where the bottom-up model starts; and what to ask of it.

The reward of the top-down model is the bottom-up model's success, so the two are joined by their losses alone:
`objectives.hybrid_loss` trains RAM and `objectives.q_loss` the Q-network, and neither has a gradient into the other.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..glimpse import pixel_to_location
from ..objectives import chooser_rewards, hybrid_loss, q_loss
from ..seeding import initialise
from .layers import Draws, Model, Trajectory
from .ram import RAM
from .topdown import TopDown, TopDownOutcome, actions_to


class Unified(Model):
    """A `TopDown` and a `RAM` for the same images. The start is the centre of the chosen region where the configuration
    says so, else a uniform place in it (ledger A7)."""

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int):
        super().__init__(config, image_shape)
        self.topdown = TopDown(image_shape, config.levels, config.regions, config.behaviour)
        self.ram = RAM(config, image_shape, classes)

    def initialise(self, seed: int) -> "Unified":
        """Part by part: its RAM starts from the same weights as the plain RAM of the same seed."""
        self.ram.initialise(seed)
        initialise(self.topdown, seed).sync_target()
        return self

    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        self.ram.calibrate(images, locations)

    def begin_epoch(self) -> None:
        self.topdown.sync_target()  # once per epoch (ledger A3)

    def draws(self, count, streams, centres=None, sampled=True, epsilon=0.0) -> Draws:
        """Those of RAM, whose `start` gives the place in the region; and in training `explore`, (B, L, 2) uniform, and
        `epsilon`, (B,)."""
        found = self.ram.draws(count, streams, centres, sampled)
        if sampled and (explore := streams.get("explore")):
            found["explore"] = torch.rand(count, self.topdown.levels, 2, generator=explore, device=explore.device)
            found["epsilon"] = torch.full((count,), epsilon, device=explore.device)
        return found

    def both(self, images: Tensor, draws: dict, sigma: float | None = None) -> tuple[Trajectory, TopDownOutcome]:
        """What both parts do on images (B, C, H, W) in [0, 1]. draws: of `draws`; without `explore` and `noise` it is
        the policy of testing: arg max Q, then mean locations."""
        within = 0.5 if self.config.region_start == "centre" else (draws["start"] + 1) / 2
        outcome = self.topdown(images, within, draws.get("explore"), draws.get("epsilon"))
        return self.ram.rollout(images, draws | {"start": outcome.start}, sigma), outcome

    def rollout(self, images: Tensor, draws: Draws, sigma: float | None = None) -> Trajectory:
        return self.both(images, draws, sigma)[0]

    def loss(self, images: Tensor, labels: Tensor, draws: Draws, config) -> tuple[Tensor, dict]:
        trajectory, outcome = self.both(images, draws, config.sigma)
        loss, parts = hybrid_loss(trajectory, labels, self.ram.context_network, config)
        rewards = chooser_rewards(trajectory, labels, config.chooser_reward)
        q = q_loss(outcome.values, outcome.actions, rewards, outcome.next_values)
        parts["q"] = q.detach()
        return (q if config.chooser_alone_epochs else loss + q), parts

    def describe(self, images: Tensor, centres: Tensor) -> dict:
        """`top_down`: `action_histogram`, shares (L lists of A); `q_values`, means (L lists of A); and
        `in_region_percent`, images whose object has its centre in the chosen region. In testing the choices are
        arg max, so they do not depend on the start's draw."""
        parts = [self.topdown(some) for some in images.split(500)]  # the convolution of all at once would take 1 GB
        outcome = TopDownOutcome(*map(torch.cat, zip(*parts, strict=True)))
        histogram, values = action_histogram(outcome).tolist(), outcome.values.mean(0).tolist()
        percent = 100 * share_in_region(outcome, centres, *images.shape[-2:]).item()
        return {"top_down": {"action_histogram": histogram, "q_values": values, "in_region_percent": percent}}


def action_histogram(outcome: TopDownOutcome) -> Tensor:
    """The share of images that chose each region, (L, A), each level summing to 1."""
    return F.one_hot(outcome.actions, outcome.values.shape[-1]).to(outcome.values.dtype).mean(0)


def share_in_region(outcome: TopDownOutcome, centres: Tensor, height: int, width: int) -> Tensor:
    """The share of images, a scalar in [0, 1], whose object has its centre, (B, 2) in pixels, in the chosen region."""
    side = math.isqrt(outcome.values.shape[-1])
    right = actions_to(pixel_to_location(centres, height, width), outcome.actions.shape[1], side)  # (B, L)
    return (right == outcome.actions).all(1).to(outcome.values.dtype).mean()
