"""The model that reads a whole number, digit by digit (§5 "Sequential multi-digit recognition", appendix "SVHN network
architecture"), after DRAM (Ba, Mnih and Kavukcuoglu, 2015).

Two LSTM layers lie one upon the other. The lower one, `core`, sees the glimpses and names a class after every third of
them; the upper one, `location_core`, sees the lower one's state and chooses where to look. What DRAM calls its context
network is here the `start_network`, as f_c is the paper's context network: it reads the coarse image once and sets the
upper layer's state, so that knowledge of the whole image guides the eye and does not reach the classes.

What neither the paper nor its appendix says, and how it is read here:

- each image is standardised by its own mean and deviation, as its brightness and contrast are the photograph's; this
  happens after cropping, so what lies outside the image is black, not grey;
- convolutions without padding, as nothing else makes 12 x 12 values smaller where there is no pooling;
- 1024 units in the fully connected layer behind them, and G = G_img + G_loc as in §4.2 (DRAM multiplies the two);
- the coarse image is the whole image averaged down to the size of a patch, and the start network has convolutions like
  those of the glimpse network and one fully connected layer for the upper layer's hidden state and memory;
- location, baseline and classes are linear maps of their layer's state, as in RAM, the location's bounded by tanh.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import PLACES, TERMINAL
from ..glimpse import binary_entropy_of_patch
from ..objectives import number_loss
from .layers import HeLinear, LSTMCore, Trajectory, context_layers, convolutions, scaled
from .ram import RAM

GLIMPSE, HIDDEN, CONTEXT = 1024, 512, 256  # units of G, of each LSTM layer (appendix) and of f_c (ledger K4)


class ConvolutionalGlimpse(nn.Module):
    """f_g of the appendix for SVHN: G = ReLU(W_g convolutions(x)) + ReLU(W_l L).

    channels: of a patch, scales times colours; size: its side; glimpse: units of G.
    """

    def __init__(self, channels: int, size: int, glimpse: int, width: float):
        super().__init__()
        self.convolutions, values = convolutions(channels, size, width)
        self.patch = HeLinear(values, glimpse)
        self.location = nn.Linear(2, glimpse)

    def forward(self, patch: Tensor, location: Tensor) -> Tensor:
        """patch: (B, S C, g, g) standardised values; location: (B, 2). Returns the glimpse vector G_t, (B, G)."""
        return F.relu(self.patch(self.convolutions(patch))) + F.relu(self.location(location))


class StartNetwork(nn.Module):
    """Reads the coarse image and gives the state in which the upper layer starts. Arguments: of `ConvolutionalGlimpse`;
    hidden: units of that layer."""

    def __init__(self, channels: int, size: int, hidden: int, width: float):
        super().__init__()
        self.convolutions, values = convolutions(channels, size, width)
        self.state = nn.Linear(values, 2 * hidden)

    def forward(self, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """coarse: (B, C, g, g) standardised values. Returns hidden state and memory, (B, D) each."""
        hidden, memory = self.state(self.convolutions(coarse)).chunk(2, -1)
        return hidden.tanh(), memory  # an LSTM's hidden state lies within (-1, 1), its memory anywhere


class DRAM(RAM):
    """A number's reader: `glimpses` crops, as many for each of its six places, all at chosen locations.

    A place is one of the five digits or the end. The first location, too, is an action: the start network leads to it.
    width: share of the filters and units in every layer, 1 for the appendix's sizes. Other arguments: of `RAM`.
    reinforce_into_core: whether the gradient of the locations flows into the lower layer (ledger B6).
    Raises ValueError as `RAM` does and for glimpses that the places do not divide.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        glimpses: int,
        patch_size: int,
        scales: int,
        sigma: float,
        context: bool = False,
        width: float = 1.0,
        **others,
    ):
        glimpse, hidden, context_units = (scaled(units, width) for units in (GLIMPSE, HIDDEN, CONTEXT))
        super().__init__(
            image_shape, classes, glimpses, patch_size, scales, sigma, hidden=hidden, standardise=False, **others
        )
        if glimpses % PLACES:
            raise ValueError(f"glimpses must be a multiple of {PLACES}, got {glimpses}")
        self.actions = glimpses  # the first location is chosen, too
        channels = image_shape[0]
        self.glimpse_network = ConvolutionalGlimpse(scales * channels, patch_size, glimpse, width)
        self.start_network = StartNetwork(channels, patch_size, hidden, width)
        self.core = LSTMCore(glimpse, hidden)
        self.location_core = LSTMCore(hidden, hidden)
        if context:
            self.context_network = context_layers(hidden, classes, context_units)

    def initialise(self, seed: int) -> "DRAM":
        super().initialise(seed)
        if self.forget_bias:
            self.location_core.remember(self.forget_bias)
        return self

    def draws(self, count, streams, centres=None, sampled=True, epsilon=0.0) -> dict[str, Tensor]:
        """`noise`: (B, T, 2) standard normal, where locations are sampled; else nothing, as it chooses its start."""
        if not sampled:
            return {}
        policy = streams["policy"]
        return {"noise": torch.randn(count, self.actions, 2, generator=policy, device=policy.device)}

    def rollout(self, images: Tensor, draws: dict[str, Tensor], sigma: float | None = None) -> Trajectory:
        return self(images, draws.get("noise"), sigma)

    def loss(self, images: Tensor, labels: Tensor, draws: dict[str, Tensor], config) -> tuple[Tensor, dict]:
        """labels: (B, n + 1); only as many glimpses are made as n digits and their end need."""
        noise = draws["noise"][:, : labels.shape[1] * (self.glimpses // PLACES)]
        return number_loss(self(images, noise, config.sigma), labels, self.context_network, config)

    def probabilities(self, trajectory: Trajectory) -> Tensor:
        return trajectory.class_logits.unflatten(1, (PLACES, -1))[:, :, -1].softmax(-1)  # after a place's last glimpse

    def decode(self, probabilities: Tensor) -> Tensor:
        return read_out(probabilities)

    def forward(self, images: Tensor, noise: Tensor | None = None, sigma: float | None = None) -> Trajectory:
        """images: (B, C, H, W) in [0, 1]; noise: (B, T, 2) standard normal, or None for the mean policy, as in testing.
        T is `glimpses`; with noise for fewer, only so many are made, which is enough for shorter numbers.

        Returns a trajectory of T glimpses and T actions, whose hidden states are those of the lower layer.
        """
        sigma = self.sigma if sigma is None else sigma
        brightness = images.mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        contrast = images.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
        pyramid = self.sensor.pyramid(images)
        coarse = F.adaptive_avg_pool2d(images, self.sensor.size)  # (B, C, g, g)
        upper_state = self.start_network((coarse - brightness) / contrast)
        upper = upper_state[0]  # (B, D)
        state = self.core.state(images.new_zeros(len(images), self.core.hidden_size))
        locations, patches, hiddens, uppers, means, samples = [], [], [], [], [], []
        for t in range(self.glimpses if noise is None else noise.shape[1]):
            if t > 0:
                seen = hiddens[-1] if self.reinforce_into_core else hiddens[-1].detach()
                upper, upper_state = self.location_core(seen, upper_state)
            mean = self.locate(upper)  # (B, 2), Eq. 10c
            sample = mean.detach() if noise is None else (mean + sigma * noise[:, t]).detach()
            location = sample.clamp(-1, 1)  # as in RAM, only after its log-probability is fixed (T3)
            patch = self.sensor(pyramid, location)  # (B, S, C, g, g)
            standardised = (patch.flatten(1, 2) - brightness) / contrast  # (B, S C, g, g)
            glimpse = self.glimpse_network(standardised, location)  # (B, G), Eq. 10a
            hidden, state = self.core(glimpse, state)  # (B, D), Eq. 10b
            locations.append(location)
            patches.append(patch[:, : self.entropy_scales])
            hiddens.append(hidden)
            uppers.append(upper)
            means.append(mean)
            samples.append(sample)
        hiddens = torch.stack(hiddens, 1)  # (B, T, D)
        return Trajectory(
            torch.stack(locations, 1),
            binary_entropy_of_patch(torch.stack(patches, 1), self.entropy_threshold).mean(-1),
            hiddens,
            self.classifier(hiddens),  # (B, T, K), Eq. 10d
            self.log_prob(samples, means, sigma, images),  # (B, T)
            self.baseline_network(torch.stack(uppers, 1).detach())[..., 0],  # (B, T), ledger B8
        )

    def locate(self, hidden: Tensor) -> Tensor:
        """Mean of the next location, (B, 2) in [-1, 1], from the upper layer's hidden state (ledger B5)."""
        return torch.tanh(self.location_network(hidden))


def read_out(probabilities: Tensor) -> Tensor:
    """The number that class probabilities (or logits) at its six places, (B, 6, 11), spell out, as labels (B, 6)."""
    classes = probabilities.argmax(-1)
    ended = (classes == TERMINAL).cumsum(1) > 0  # from the first class 10 on
    return classes.masked_fill(ended, TERMINAL)
