"""The bottom-up recurrent attention model, RAM (§4.2, Eq. 10; layer sizes from the appendix).

Modules carry the paper's names: f_g `glimpse_network`, f_h `core`, f_l `location_network`, f_y `classifier`,
f_c `context_network`; `baseline_network` predicts b of Eq. 4. Randomness comes in as tensors (the start location
and standard normal noise), so a rollout is a plain function of its inputs.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from .. import UramError
from ..glimpse import GlimpseSensor, binary_entropy_of_patch, pixel_to_location
from ..objectives import hybrid_loss
from .layers import CORES, GLIMPSE, HIDDEN, Draws, GlimpseNetwork, Model, Trajectory, context_layers
from .topdown import actions_to, place_within, rectangle


class RAM(Model):
    """RAM with T = `glimpses` crops, the first at the given start location.

    config: a `Config`; sigma, the standard deviation of the Gaussian policy, is that of its last epoch. image_shape:
    (C, H, W). hidden: units D of H_t. f_c is there where the context constraint is: only Eq. 11, in training, uses it.
    """

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int, hidden: int = HIDDEN):
        super().__init__(config, image_shape)
        scales, size = config.scales, config.patch_size
        self.glimpses, self.actions, self.sigma = config.glimpses, config.glimpses - 1, config.at(config.epochs).sigma
        self.sensor = GlimpseSensor(size, scales)
        self.register_buffer("patch_mean", torch.zeros(scales, 1, 1, 1))
        self.register_buffer("patch_std", torch.ones(scales, 1, 1, 1))
        self.glimpse_network = GlimpseNetwork(scales * image_shape[0] * size**2)
        self.core = CORES[config.core](GLIMPSE, hidden)
        self.location_network = nn.Linear(hidden, 2)
        self.baseline_network = nn.Linear(hidden, 1)
        self.classifier = nn.Linear(hidden, classes)
        self.context_network = context_layers(hidden, classes) if config.context != "none" else None

    @torch.no_grad()
    def initialise(self, seed: int) -> "RAM":
        super().initialise(seed)
        if self.config.forget_bias:
            self.core.remember(self.config.forget_bias)
        for values in self.location_network.parameters():
            values *= self.config.location_scale
        return self

    @torch.no_grad()
    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        """Measure each scale's mean and standard deviation over training patches (ledger B9)."""
        if self.config.standardise:
            patch = self.sensor(self.sensor.pyramid(images), locations)  # (B, S, C, g, g)
            self.patch_mean.copy_(patch.mean((0, 2, 3, 4)).view(-1, 1, 1, 1))
            self.patch_std.copy_(patch.std((0, 2, 3, 4)).clamp_min(1e-3).view(-1, 1, 1, 1))

    def draws(self, count, streams, centres=None, sampled=True, epsilon=0.0) -> Draws:
        """`start`: (B, 2), L_0; `noise`: (B, A, 2) standard normal, where locations are sampled; `hidden`: (B, D),
        where H_0 is drawn (ledger B3)."""
        device, uniform = streams["start"].device, uniform_start(count, streams["start"])
        found = {"start": start_location(self.config.start, uniform, centres, *self.image_shape[1:])}
        if sampled:
            found["noise"] = torch.randn(count, self.actions, 2, generator=streams["policy"], device=device)
        if self.config.initial_hidden == "noise":
            found["hidden"] = torch.randn(count, self.core.hidden_size, generator=streams["start"], device=device)
        return found

    def rollout(self, images: Tensor, draws: Draws, sigma: float | None = None, **paths) -> Trajectory:
        return self(images, draws.get("start"), draws.get("noise"), sigma, draws.get("hidden"), **paths)

    def loss(self, images: Tensor, labels: Tensor, draws: Draws, config) -> tuple[Tensor, dict]:
        return hybrid_loss(self.rollout(images, draws, config.sigma), labels, self.context_network, config)

    def forward(
        self,
        images: Tensor,
        start: Tensor | None = None,
        noise: Tensor | None = None,
        sigma: float | None = None,
        hidden: Tensor | None = None,
        through_locations: bool = False,
    ) -> Trajectory:
        """images: (B, C, H, W) in [0, 1]; start: (B, 2) in [-1, 1], None where it is chosen; noise: (B, A, 2) standard
        normal, or None for the mean policy, as in testing (ledger B7); noise for fewer actions: no more are taken;
        sigma: by default the model's own; hidden: (B, D), H_0, zeros when None (ledger B3); through_locations: whether
        gradients pass through chosen locations: an attack may use them, training must not (T4).
        Raises ValueError for noise of another shape, and where RAM is given no start."""
        shape = (len(images), self.actions, 2)
        if noise is not None and (noise.ndim != 3 or noise.shape != (shape[0], min(noise.shape[1], shape[1]), 2)):
            raise ValueError(f"noise must be {shape}, got {tuple(noise.shape)}")
        given = self.glimpses - self.actions  # locations that are not chosen
        if given and start is None:
            raise ValueError("start must be given: (B, 2) in [-1, 1]")
        sigma = self.sigma if sigma is None else sigma
        pyramid, (patch_mean, patch_std) = self.sensor.pyramid(images), self.standards(images)
        if hidden is None:
            hidden = images.new_zeros(len(images), self.core.hidden_size)
        state, policy = self.core.state(hidden), self.policy_state(images)
        location = start
        locations, patches, hiddens, seen_by_policy, means, samples = [], [], [], [], [], []
        for t in range(self.glimpses if noise is None else given + noise.shape[1]):
            if t > 0:
                seen = hidden if self.config.reinforce_into_core else hidden.detach()  # ledger B6
                policy = self.follow(seen, policy)
            if t >= given:
                mean = self.locate(policy[0])  # (B, 2), Eq. 10c
                drawn = mean if noise is None else mean + sigma * noise[:, t - given]
                sample = drawn.detach()
                seen_by_policy.append(policy[0])
                means.append(mean)
                samples.append(sample)
                # Clamped only after its log-probability is fixed: the density is the sample's, not the border's (T3).
                location = (drawn if through_locations else sample).clamp(-1, 1)
            patch = self.sensor(pyramid, location, through_locations)  # (B, S, C, g, g)
            # Standardised after cropping, so what lies outside the image is black, not grey (T10).
            glimpse = self.glimpse_network((patch - patch_mean) / patch_std, location)  # (B, G), Eq. 10a
            hidden, state = self.core(glimpse, state)  # (B, D), Eq. 10b
            locations.append(location)
            patches.append(patch if self.config.entropy_scales == "all" else patch[:, :1])
            hiddens.append(hidden)
        hiddens = torch.stack(hiddens, 1)  # (B, T, D)
        none = hiddens[:, :0].detach()  # a RAM of one glimpse chooses nothing: (B, 0, D), of which only the 0 matters
        seen_by_policy, means, samples = (torch.stack(v, 1) if v else none for v in (seen_by_policy, means, samples))
        return Trajectory(
            torch.stack(locations, 1),
            binary_entropy_of_patch(torch.stack(patches, 1), self.config.entropy_threshold).mean(-1),  # (B, T)
            hiddens,
            self.classifier(hiddens),  # (B, T, K), Eq. 10d
            self.log_prob(samples, means, sigma),
            # The baseline learns from its own regression alone: no gradient into the core (ledger B8).
            self.baseline_network(seen_by_policy.detach())[..., 0],  # (B, A)
        )

    def standards(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation by which patches (B, S, C, g, g) of these images are standardised."""
        return self.patch_mean, self.patch_std

    def policy_state(self, images: Tensor) -> tuple[Tensor, ...] | None:
        """The state that the first location is chosen from; its first part, (B, D), is what `locate` sees."""
        return None

    def follow(self, hidden: Tensor, policy: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        """The state that the next location is chosen from: in RAM H_t itself."""
        return (hidden,)

    def locate(self, hidden: Tensor) -> Tensor:
        """Mean of the next location, (B, 2), in [-1, 1] where it is bounded: f_l(H_t) (ledger B5)."""
        mean = self.location_network(hidden)
        return torch.tanh(mean) if self.config.bounded_mean else mean

    def log_prob(self, samples: Tensor, means: Tensor, sigma: float) -> Tensor:
        """log N(l_t; mean_t, sigma^2 I), summed over x and y: (B, A), from samples and means (B, A, 2)."""
        return Normal(means, sigma, validate_args=False).log_prob(samples).sum(-1)


def uniform_start(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) start locations, uniform over the image, as RAM starts."""
    return torch.rand(count, 2, generator=generator, device=generator.device) * 2 - 1


def start_location(where: str, uniform: Tensor, centres: Tensor | None, height: int, width: int) -> Tensor:
    """L_0 for a RAM that starts at `where`, a choice of `Config.start`: (B, 2), x then y.

    uniform: (B, 2) in [-1, 1], a uniform start, and the draw of the place in a quadrant. centres: (B, 2) in pixels, the
    objects of images of `height` x `width`. Raises UramError where the true place is asked for without centres.
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
