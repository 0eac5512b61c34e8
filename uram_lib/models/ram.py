"""The bottom-up recurrent attention model, RAM (§4.2, Eq. 10; layer sizes from the appendix).

Modules carry the paper's names: f_g `glimpse_network`, f_h `core`, f_l `location_network`, f_y `classifier`,
f_c `context_network`; `baseline_network` predicts b of Eq. 4. Randomness comes in as tensors (the start location
and standard normal noise), so a rollout is a plain function of its inputs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..glimpse import GlimpseSensor, binary_entropy_of_patch


class Trajectory(NamedTuple):
    """One rollout of T glimpses a image: T locations, the last A of them chosen by the policy. A is T - 1 for RAM,
    whose first location is given (ledger B2), and T for `DRAM`, which chooses all."""

    locations: Tensor  # (B, T, 2), each in [-1, 1], x then y; [:, 0] is the start
    patch_entropies: Tensor  # (B, T), bits
    hiddens: Tensor  # (B, T, D)
    class_logits: Tensor  # (B, T, K): log alpha_t up to a constant (Eq. 10d)
    log_probs: Tensor  # (B, A): log pi(l_t) of the unclamped samples
    baselines: Tensor  # (B, A): b at the moment the action is taken


class GlimpseNetwork(nn.Module):
    """f_g of the appendix: G = ReLU(W_g h_g + W_l h_l + b), h_g and h_l of 128 units, G of 256."""

    def __init__(self, patch_features: int, features: int = 128, glimpse: int = 256):
        super().__init__()
        self.patch = nn.Linear(patch_features, features)
        self.location = nn.Linear(2, features)
        # One matrix on [h_g, h_l] is the sum of RAM's two separate maps (ledger B1) at the cost of one product.
        self.combine = nn.Linear(2 * features, glimpse)

    def forward(self, patch: Tensor, location: Tensor) -> Tensor:
        """patch: (B, F) standardised values; location: (B, 2). Returns the glimpse vector G_t, (B, 256)."""
        h_g = F.relu(self.patch(patch))  # (B, 128)
        h_l = F.relu(self.location(location))  # (B, 128)
        return F.relu(self.combine(torch.cat((h_g, h_l), -1)))  # (B, 256)


class ReLUCore(nn.Module):
    """f_h of the appendix: H_t = ReLU(W_h H_{t-1} + W_g G_t + b).

    W_h starts as the identity (Le, Jaitly and Hinton, 2015), so that early glimpses are remembered from the first
    step on; PyTorch's default would fade them by a factor of about three a glimpse. The paper names no initialisation.
    """

    def __init__(self, glimpse: int, hidden: int):
        super().__init__()
        self.hidden_size = hidden
        self.from_glimpse = nn.Linear(glimpse, hidden)
        self.from_hidden = nn.Parameter(torch.empty(hidden, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.eye_(self.from_hidden)

    def initial_state(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, self.hidden_size)  # ledger B3

    def forward(self, glimpse: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """glimpse: (B, G); state: (B, D). Returns (H_t, next state)."""
        hidden = F.relu(torch.addmm(self.from_glimpse(glimpse), state, self.from_hidden.T))  # (B, D)
        return hidden, hidden


class LSTMCore(nn.Module):
    """f_h as one LSTM cell, as RAM used it for moving images; the state is (hidden, cell)."""

    def __init__(self, glimpse: int, hidden: int):
        super().__init__()
        self.hidden_size = hidden
        self.cell = nn.LSTMCell(glimpse, hidden)

    def initial_state(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        zeros = like.new_zeros(batch, self.hidden_size)
        return zeros, zeros

    def forward(self, glimpse: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """glimpse: (B, G); state: two of (B, D). Returns (H_t, next state)."""
        hidden, memory = state
        cell = self.cell  # its weights, in PyTorch's layout; written out because `vmap` does not know the fused cell
        gates = F.linear(glimpse, cell.weight_ih, cell.bias_ih) + F.linear(hidden, cell.weight_hh, cell.bias_hh)
        i, f, g, o = gates.chunk(4, -1)  # (B, D) each: input gate, forget gate, candidate, output gate
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * memory.tanh()
        return hidden, (hidden, memory)


CORES = {"relu": ReLUCore, "lstm": LSTMCore}
# Where RAM starts: as it does; and, to bound what a choice of the start can gain (ledger A8), in the image's centre or
# where only one who knows the object's place can.
STARTS = ("uniform", "image-centre", "true-quadrant", "true-quadrant-centre", "true-centre")


class RAM(nn.Module):
    """RAM with `glimpses` crops, the first at the given start location.

    image_shape: (C, H, W) of the images. sigma: standard deviation of the Gaussian policy in location units (B4).
    context: adds f_c, used by Eq. 11 in training alone. reinforce_into_core: whether the location network's gradient
    flows into the hidden state (ledger B6). start: one of STARTS, for whoever draws the start location.
    standardise: whether patches are brought to comparable magnitude (ledger B9).
    """

    always_sampled = False
    """Whether the policy has no mean to test it by (ledger B7)."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        glimpses: int,
        patch_size: int,
        scales: int,
        sigma: float,
        core: str = "relu",
        hidden: int = 256,
        context: bool = False,
        reinforce_into_core: bool = True,
        start: str = "uniform",
        standardise: bool = True,
    ):
        super().__init__()
        if start not in STARTS:
            raise ValueError(f"unknown start {start!r}; one of: {', '.join(STARTS)}")
        if glimpses < 1 or sigma <= 0:
            raise ValueError(f"glimpses must be at least 1 and sigma positive, got {glimpses} and {sigma}")
        if core not in CORES:
            raise ValueError(f"unknown core {core!r}; one of: {', '.join(CORES)}")
        self.glimpses, self.sigma, self.reinforce_into_core = glimpses, sigma, reinforce_into_core
        self.start, self.standardise = start, standardise
        self.sensor = GlimpseSensor(patch_size, scales)
        channels = image_shape[0]
        self.register_buffer("patch_mean", torch.zeros(scales, 1, 1, 1))
        self.register_buffer("patch_std", torch.ones(scales, 1, 1, 1))
        self.glimpse_network = GlimpseNetwork(scales * channels * patch_size**2)
        self.core = CORES[core](256, hidden)
        self.location_network = nn.Linear(hidden, 2)
        self.baseline_network = nn.Linear(hidden, 1)
        self.classifier = nn.Linear(hidden, classes)
        self.context_network = (
            nn.Sequential(nn.Linear(hidden, 256), nn.ReLU(), nn.Linear(256, classes)) if context else None
        )

    @torch.no_grad()
    def calibrate(self, images: Tensor, location: Tensor) -> None:
        """Measure each scale's mean and standard deviation over training patches (ledger B9).

        images: (B, C, H, W) in [0, 1]; location: (B, 2). Standardising happens after cropping, so what lies outside
        the image is still black, not grey.
        """
        if not self.standardise:
            return
        patch = self.sensor(self.sensor.pyramid(images), location)  # (B, S, C, g, g)
        self.patch_mean.copy_(patch.mean((0, 2, 3, 4)).view(-1, 1, 1, 1))
        self.patch_std.copy_(patch.std((0, 2, 3, 4)).clamp_min(1e-3).view(-1, 1, 1, 1))

    def forward(
        self, images: Tensor, start: Tensor, noise: Tensor | None = None, through_locations: bool = False
    ) -> Trajectory:
        """images: (B, C, H, W) in [0, 1]; start: (B, 2) in [-1, 1]; noise: (B, T - 1, 2) standard normal, or None for
        the mean policy, as in testing (ledger B7). through_locations: whether gradients pass through the chosen
        locations: an attack on the images may use them, training must not (T4)."""
        pyramid = self.sensor.pyramid(images)
        state = self.core.initial_state(len(images), images)
        location = start
        locations, patches, hiddens, means, samples = [], [], [], [], []
        for t in range(self.glimpses):
            patch = self.sensor(pyramid, location, through_locations)  # (B, S, C, g, g)
            standardised = (patch - self.patch_mean) / self.patch_std
            glimpse = self.glimpse_network(standardised.flatten(1), location)  # (B, 256), Eq. 10a
            hidden, state = self.core(glimpse, state)  # (B, D), Eq. 10b
            locations.append(location)
            patches.append(patch[:, 0])
            hiddens.append(hidden)
            if t < self.glimpses - 1:
                mean = self.locate(hidden)  # (B, 2), Eq. 10c
                drawn = mean if noise is None else mean + self.sigma * noise[:, t]
                sample = drawn.detach()
                means.append(mean)
                samples.append(sample)
                # Clamped only after its log-probability is fixed: the density is the sample's, not the border's (T3).
                location = (drawn if through_locations else sample).clamp(-1, 1)
        hiddens = torch.stack(hiddens, 1)  # (B, T, D)
        return Trajectory(
            torch.stack(locations, 1),
            binary_entropy_of_patch(torch.stack(patches, 1)),
            hiddens,
            self.classifier(hiddens),  # (B, T, K), Eq. 10d
            self.log_prob(samples, means, images),
            # The baseline learns from its own regression alone: no gradient into the core (ledger B8).
            self.baseline_network(hiddens[:, :-1].detach())[..., 0],  # (B, T - 1)
        )

    def locate(self, hidden: Tensor) -> Tensor:
        """Mean of the next location, (B, 2) in [-1, 1]: f_l(H_t), bounded by tanh (ledger B5)."""
        return torch.tanh(self.location_network(hidden if self.reinforce_into_core else hidden.detach()))

    def log_prob(self, samples: list[Tensor], means: list[Tensor], like: Tensor) -> Tensor:
        """log N(l_t; mean_t, sigma^2 I), summed over x and y: (B, T - 1)."""
        if not means:
            return like.new_zeros(len(like), 0)
        policy = torch.distributions.Normal(torch.stack(means, 1), self.sigma, validate_args=False)
        return policy.log_prob(torch.stack(samples, 1)).sum(-1)
