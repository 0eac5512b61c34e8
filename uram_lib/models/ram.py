"""The bottom-up recurrent attention model, RAM (§4.2, Eq. 10; layer sizes from the appendix).

Modules carry the paper's names: f_g `glimpse_network`, f_h `core`, f_l `location_network`, f_y `classifier`,
f_c `context_network`; `baseline_network` predicts b of Eq. 4. Randomness comes in as tensors (the start location
and standard normal noise), so a rollout is a plain function of its inputs.
"""

import torch
from torch import Tensor, nn

from .. import UramError
from ..glimpse import GlimpseSensor, binary_entropy_of_patch, pixel_to_location
from ..objectives import hybrid_loss
from .layers import CORES, GLIMPSE, HIDDEN, GlimpseNetwork, Model, Trajectory, context_layers
from .topdown import actions_to, place_within, rectangle


class RAM(Model):
    """RAM with `glimpses` crops, the first at the given start location.

    image_shape: (C, H, W) of the images. sigma: standard deviation of the Gaussian policy in location units (B4).
    context: adds f_c, used by Eq. 11 in training alone. reinforce_into_core: whether the location network's gradient
    flows into the hidden state (ledger B6). Other arguments: as the fields of `Config` say.
    Raises ValueError for no glimpses or a sigma that is not positive.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        glimpses: int,
        patch_size: int,
        scales: int,
        sigma: float,
        core: str = "relu",
        context: bool = False,
        reinforce_into_core: bool = True,
        start: str = "uniform",
        standardise: bool = True,
        forget_bias: float = 0.0,
        location_scale: float = 1.0,
        bounded_mean: bool = True,
        initial_hidden: str = "zeros",
        entropy_threshold: float = 0.5,
        entropy_scales: str = "finest",
        hidden: int = HIDDEN,
    ):
        super().__init__()
        if glimpses < 1 or sigma <= 0:
            raise ValueError(f"glimpses must be at least 1 and sigma positive, got {glimpses} and {sigma}")
        self.image_shape, self.glimpses, self.actions, self.sigma = tuple(image_shape), glimpses, glimpses - 1, sigma
        self.reinforce_into_core, self.start, self.standardise = reinforce_into_core, start, standardise
        self.forget_bias, self.location_scale, self.bounded_mean = forget_bias, location_scale, bounded_mean
        self.initial_hidden, self.entropy_threshold = initial_hidden, entropy_threshold
        self.entropy_scales = scales if entropy_scales == "all" else 1
        self.sensor = GlimpseSensor(patch_size, scales)
        self.register_buffer("patch_mean", torch.zeros(scales, 1, 1, 1))
        self.register_buffer("patch_std", torch.ones(scales, 1, 1, 1))
        self.glimpse_network = GlimpseNetwork(scales * image_shape[0] * patch_size**2)
        self.core = CORES[core](GLIMPSE, hidden)
        self.location_network = nn.Linear(hidden, 2)
        self.baseline_network = nn.Linear(hidden, 1)
        self.classifier = nn.Linear(hidden, classes)
        self.context_network = context_layers(hidden, classes) if context else None

    @torch.no_grad()
    def initialise(self, seed: int) -> "RAM":
        super().initialise(seed)
        if self.forget_bias:
            self.core.remember(self.forget_bias)
        for values in self.location_network.parameters():
            values *= self.location_scale
        return self

    @torch.no_grad()
    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        """Measure each scale's mean and standard deviation over training patches (ledger B9). Standardising happens
        after cropping, so what lies outside the image is still black, not grey."""
        if self.standardise:
            patch = self.sensor(self.sensor.pyramid(images), locations)  # (B, S, C, g, g)
            self.patch_mean.copy_(patch.mean((0, 2, 3, 4)).view(-1, 1, 1, 1))
            self.patch_std.copy_(patch.std((0, 2, 3, 4)).clamp_min(1e-3).view(-1, 1, 1, 1))

    def draws(self, count, streams, centres=None, sampled=True, epsilon=0.0) -> dict[str, Tensor]:
        """`start`: (B, 2), L_0; `noise`: (B, A, 2) standard normal, where locations are sampled; `hidden`: (B, D),
        where H_0 is drawn (ledger B3)."""
        device = streams["start"].device
        uniform = torch.rand(count, 2, generator=streams["start"], device=device) * 2 - 1
        found = {"start": start_location(self.start, uniform, centres, *self.image_shape[1:])}
        if sampled:
            found["noise"] = torch.randn(count, self.actions, 2, generator=streams["policy"], device=device)
        if self.initial_hidden == "noise":
            found["hidden"] = torch.randn(count, self.core.hidden_size, generator=streams["start"], device=device)
        return found

    def rollout(self, images: Tensor, draws: dict[str, Tensor], sigma: float | None = None, **paths) -> Trajectory:
        drawn = {name: draws.get(name) for name in ("noise", "hidden")}
        return self(images, draws["start"], **drawn, sigma=sigma, **paths)

    def loss(self, images: Tensor, labels: Tensor, draws: dict[str, Tensor], config) -> tuple[Tensor, dict]:
        return hybrid_loss(self.rollout(images, draws, config.sigma), labels, self.context_network, config)

    def forward(
        self,
        images: Tensor,
        start: Tensor,
        noise: Tensor | None = None,
        sigma: float | None = None,
        through_locations: bool = False,
        hidden: Tensor | None = None,
    ) -> Trajectory:
        """images: (B, C, H, W) in [0, 1]; start: (B, 2) in [-1, 1]; noise: (B, T - 1, 2) standard normal, or None for
        the mean policy, as in testing (ledger B7); sigma: by default the model's own; hidden: (B, D), H_0, zeros when
        None (ledger B3). through_locations: whether gradients pass through the chosen locations: an attack may use
        them, training must not (T4). Raises ValueError for noise of another length."""
        if noise is not None and noise.shape != (len(start), self.actions, 2):
            raise ValueError(f"noise must be {(len(start), self.actions, 2)}, got {tuple(noise.shape)}")
        sigma = self.sigma if sigma is None else sigma
        pyramid = self.sensor.pyramid(images)
        if hidden is None:
            hidden = images.new_zeros(len(images), self.core.hidden_size)
        state = self.core.state(hidden)
        location = start
        locations, patches, hiddens, means, samples = [], [], [], [], []
        for t in range(self.glimpses):
            patch = self.sensor(pyramid, location, through_locations)  # (B, S, C, g, g)
            standardised = (patch - self.patch_mean) / self.patch_std
            glimpse = self.glimpse_network(standardised.flatten(1), location)  # (B, 256), Eq. 10a
            hidden, state = self.core(glimpse, state)  # (B, D), Eq. 10b
            locations.append(location)
            patches.append(patch[:, : self.entropy_scales])
            hiddens.append(hidden)
            if t < self.actions:
                mean = self.locate(hidden)  # (B, 2), Eq. 10c
                drawn = mean if noise is None else mean + sigma * noise[:, t]
                sample = drawn.detach()
                means.append(mean)
                samples.append(sample)
                # Clamped only after its log-probability is fixed: the density is the sample's, not the border's (T3).
                location = (drawn if through_locations else sample).clamp(-1, 1)
        hiddens = torch.stack(hiddens, 1)  # (B, T, D)
        return Trajectory(
            torch.stack(locations, 1),
            binary_entropy_of_patch(torch.stack(patches, 1), self.entropy_threshold).mean(-1),  # (B, T)
            hiddens,
            self.classifier(hiddens),  # (B, T, K), Eq. 10d
            self.log_prob(samples, means, sigma, images),
            # The baseline learns from its own regression alone: no gradient into the core (ledger B8).
            self.baseline_network(hiddens[:, :-1].detach())[..., 0],  # (B, T - 1)
        )

    def locate(self, hidden: Tensor) -> Tensor:
        """Mean of the next location, (B, 2), in [-1, 1] where it is bounded: f_l(H_t) (ledger B5)."""
        mean = self.location_network(hidden if self.reinforce_into_core else hidden.detach())
        return torch.tanh(mean) if self.bounded_mean else mean

    def log_prob(self, samples: list[Tensor], means: list[Tensor], sigma: float, like: Tensor) -> Tensor:
        """log N(l_t; mean_t, sigma^2 I), summed over x and y: (B, T - 1)."""
        if not means:
            return like.new_zeros(len(like), 0)
        policy = torch.distributions.Normal(torch.stack(means, 1), sigma, validate_args=False)
        return policy.log_prob(torch.stack(samples, 1)).sum(-1)


def start_location(where: str, uniform: Tensor, centres: Tensor | None, height: int, width: int) -> Tensor:
    """L_0 for a RAM that starts at `where`, a choice of `Config.start`: (B, 2), x then y.

    uniform: (B, 2) in [-1, 1], what a uniform start would be; also the draw of the place in a quadrant, as in the
    unified model. centres: (B, 2) in pixels, x then y, the objects of images of `height` x `width`.
    Raises UramError where the true place is asked for without centres.
    """
    if where == "uniform":
        return uniform
    if where == "image-centre":
        return torch.zeros_like(uniform)
    if where == "quadrant-centre":  # of a random one
        return place_within(rectangle(actions_to(uniform, 1), uniform.dtype), 0.5)
    if centres is None:
        raise UramError(f"a start at {where!r} takes the objects' centres")
    true = pixel_to_location(centres.to(uniform.dtype), height, width)
    if where == "true-centre":
        return true
    quadrant = actions_to(true, 1)  # (B, 1)
    if where == "farthest-quadrant":
        quadrant = 3 - quadrant  # the one across the centre
    within = 0.5 if where == "true-quadrant-centre" else (uniform + 1) / 2
    return place_within(rectangle(quadrant, uniform.dtype), within)
