"""The bottom-up recurrent attention model, RAM (§4.2, Eq. 10; layer sizes from the appendix).

Modules carry the paper's names: f_g `glimpse_network`, f_h `core`, f_l `location_network`, f_y `classifier`,
f_c `context_network`; `baseline_network` predicts b of Eq. 4. Randomness comes in as tensors (the start location
and standard normal noise), so a rollout is a plain function of its inputs.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..common import UramError
from ..glimpse import GlimpseSensor, binary_entropy_of_patch, pixel_to_location
from ..objectives import hybrid_loss
from .layers import CORES, GLIMPSE, HIDDEN, Draws, GlimpseNetwork, Model, State, Trajectory, context_layers
from .topdown import actions_to, place_within, rectangle


class RAM(Model):
    """RAM with T = `glimpses` crops, the first at the given start location.

    config: a `Config`; sigma, the standard deviation of the Gaussian policy, is that of its last epoch. image_shape:
    (C, H, W). hidden: units D of H_t. f_c is there where the context constraint is: only Eq. 11, in training, uses it.
    """

    given = 1  # locations at the start that are not chosen

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int, hidden: int = HIDDEN):
        super().__init__(config, image_shape)
        scales, size = config.scales, config.patch_size
        self.glimpses, self.actions = config.glimpses, config.glimpses - self.given
        self.sigma = config.at(config.epochs).sigma
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
        for core in self.modules():
            if isinstance(core, nn.LSTMCell):  # its forget gate's bias, so that early glimpses last (Gers et al., 2000)
                core.bias_ih[core.hidden_size : 2 * core.hidden_size] += self.config.forget_bias
        for values in self.location_network.parameters():
            values *= self.config.location_scale
        return self

    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        """Measure each scale's mean and standard deviation over training patches (ledger B9)."""
        if self.config.standardise:
            patch = self.sensor(self.sensor.pyramid(images), locations)  # (B, S, C, g, g)
            self.patch_mean.copy_(patch.mean((0, 2, 3, 4)).view(-1, 1, 1, 1))
            self.patch_std.copy_(patch.std((0, 2, 3, 4)).clamp_min(1e-3).view(-1, 1, 1, 1))

    def draws(self, count, streams, centres=None, sampled=True, epsilon=0.0) -> Draws:
        """`start`: (B, 2), L_0, where it is given; `noise`: (B, A, 2) standard normal, where locations are sampled;
        `hidden`: (B, D), where H_0 is drawn (ledger B3)."""
        found, device = {}, streams["policy"].device
        if self.given:
            uniform = uniform_start(count, streams["start"])
            found["start"] = start_location(self.config.start, uniform, centres, *self.image_shape[1:])
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
        noise = images.new_zeros(shape) if noise is None else noise
        if noise.ndim != 3 or noise.shape != (shape[0], min(noise.shape[1], shape[1]), 2):
            raise ValueError(f"noise must be {shape}, got {tuple(noise.shape)}")
        if self.given and start is None:
            raise ValueError("start must be given: (B, 2) in [-1, 1]")
        sigma = self.sigma if sigma is None else sigma
        hidden = images.new_zeros(len(images), self.core.hidden_size) if hidden is None else hidden
        state, location, pyramid = (hidden, torch.zeros_like(hidden)), start, self.sensor.pyramid(images)
        (patch_mean, patch_std), policy = self.overview(images)
        looks, choices = [], []  # by glimpse and by action
        for t in range(self.given + noise.shape[1]):
            if t > 0:
                seen = hidden if self.config.reinforce_into_core else hidden.detach()  # ledger B6
                policy = self.follow(seen, policy)
            if t >= self.given:
                mean = self.locate(policy[0])  # (B, 2), Eq. 10c
                drawn = mean + sigma * noise[:, t - self.given]
                sample = drawn.detach()
                choices.append((policy[0], mean, sample))
                # Clamped only after its log-probability is fixed: the density is the sample's, not the border's (T3).
                location = (drawn if through_locations else sample).clamp(-1, 1)
            patch = self.sensor(pyramid, location, through_locations)  # (B, S, C, g, g)
            # Standardised after cropping, so what lies outside the image is black, not grey (T10).
            glimpse = self.glimpse_network((patch - patch_mean) / patch_std, location)  # (B, G), Eq. 10a
            state = self.core(glimpse, state)
            hidden = state[0]  # (B, D), Eq. 10b
            looks.append((location, patch if self.config.entropy_scales == "all" else patch[:, :1], hidden))
        locations, patches, hiddens = (torch.stack(values, 1) for values in zip(*looks, strict=True))  # (B, T, ...)
        # A RAM of one glimpse chooses nothing: (B, 0, D), of which only the 0 matters.
        seen_by_policy, means, samples = [hiddens[:, :0].detach()] * 3
        if choices:
            seen_by_policy, means, samples = (torch.stack(values, 1) for values in zip(*choices, strict=True))
        return Trajectory(
            locations,
            binary_entropy_of_patch(patches, self.config.entropy_threshold).mean(-1),  # (B, T)
            hiddens,
            self.classifier(hiddens),  # (B, T, K), Eq. 10d
            self.log_prob(samples, means, sigma),
            # The baseline learns from its own regression alone: no gradient into the core (ledger B8).
            self.baseline_network(seen_by_policy.detach())[..., 0],  # (B, A)
        )

    def overview(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], State | None]:
        """What whole images tell: mean and deviation by which their patches (B, S, C, g, g) are standardised, and where
        the first location is chosen, the state that it is chosen from."""
        return (self.patch_mean, self.patch_std), None

    def follow(self, hidden: Tensor, policy: State | None) -> State:
        """The state that the next location is chosen from; `locate` sees its first part: in RAM H_t itself."""
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
    true = pixel_to_location(centres.to(uniform), height, width)
    if where == "true-centre":
        return true
    quadrant = actions_to(true, 1)  # (B, 1)
    if where == "farthest-quadrant":
        quadrant = 3 - quadrant  # the one across the centre
    within = 0.5 if where == "true-quadrant-centre" else (uniform + 1) / 2
    return place_within(rectangle(quadrant, uniform.dtype), within)
