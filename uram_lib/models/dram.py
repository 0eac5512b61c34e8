"""The model that reads a whole number, digit by digit (§5 "Sequential multi-digit recognition", appendix "SVHN network
architecture"), after DRAM (Ba, Mnih and Kavukcuoglu, 2015).

Two LSTM layers lie one upon the other. The lower one, `core`, sees the glimpses and names a class after every third of
them; the upper one, `location_core`, sees the lower one's state and chooses where to look. What DRAM calls its context
network is here the `start_network`, as f_c is the paper's context network: it reads the coarse image once and sets the
upper layer's state, so that knowledge of the whole image guides the eye and does not reach the classes.

What neither the paper nor its appendix says, and how it is read here:

- each image is standardised by its own mean and deviation, as its brightness and contrast are the photograph's;
- convolutions without padding, as nothing else makes 12 x 12 values smaller where there is no pooling;
- 1024 units in the fully connected layer behind them, and G = G_img + G_loc as in §4.2 (DRAM multiplies the two);
- the coarse image is the whole image averaged down to the size of a patch, and the start network has convolutions like
  those of the glimpse network and one fully connected layer for the upper layer's hidden state and memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import PLACES, TERMINAL
from ..objectives import number_loss
from .layers import Draws, HeConv2d, HeLinear, LSTMCore, Trajectory, context_layers, scaled
from .ram import RAM

GLIMPSE, HIDDEN, CONTEXT = 1024, 512, 256  # units of G, of each LSTM layer (appendix) and of f_c (ledger K4)
FILTERS = ((5, 64), (3, 64), (3, 128))  # side and number of the appendix's convolutions


def convolutions(channels: int, size: int, width: float) -> tuple[nn.Sequential, int]:
    """The appendix's three convolutions, each with ReLU, for squares of (channels, size, size), and how many values
    come out of them. Raises ValueError where the squares are too small."""
    left = size - sum(side - 1 for side, _ in FILTERS)
    if left < 1:
        raise ValueError(f"three convolutions without padding need sides of at least {size - left + 1}, got {size}")
    layers = []
    for side, count in FILTERS:
        layers += [HeConv2d(channels, scaled(count, width), side), nn.ReLU()]
        channels = scaled(count, width)
    return nn.Sequential(*layers, nn.Flatten()), channels * left**2


class ConvolutionalGlimpse(nn.Module):
    """f_g of the appendix for SVHN: G = ReLU(W_g convolutions(x)) + ReLU(W_l L). channels: of a patch, scales times
    colours; size: its side; glimpse: units of G."""

    def __init__(self, channels: int, size: int, glimpse: int, width: float):
        super().__init__()
        self.convolutions, values = convolutions(channels, size, width)
        self.patch = HeLinear(values, glimpse)
        self.location = nn.Linear(2, glimpse)

    def forward(self, patch: Tensor, location: Tensor) -> Tensor:
        """patch: (B, S, C, g, g) standardised values; location: (B, 2). Returns the glimpse vector G_t, (B, G)."""
        return F.relu(self.patch(self.convolutions(patch.flatten(1, 2)))) + F.relu(self.location(location))


class StartNetwork(nn.Module):
    """Reads the coarse image and gives the state in which the upper layer, of `hidden` units, starts."""

    def __init__(self, channels: int, size: int, hidden: int, width: float):
        super().__init__()
        self.convolutions, values = convolutions(channels, size, width)
        self.state = nn.Linear(values, 2 * hidden)

    def forward(self, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """coarse: (B, C, g, g) standardised values. Returns hidden state and memory, (B, D) each."""
        hidden, memory = self.state(self.convolutions(coarse)).chunk(2, -1)
        return hidden.tanh(), memory  # an LSTM's hidden state lies within (-1, 1), its memory anywhere


class DRAM(RAM):
    """A number's reader: `glimpses` crops, as many for each of its six places (five digits and the end), all at chosen
    locations, the first one, too: the start network leads to it. Its rollout is RAM's, the lower layer in the place of
    RAM's core and the upper one where RAM chooses from H_t. Raises ValueError for patches that are too small."""

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int):
        glimpse, hidden, context = (scaled(units, config.width) for units in (GLIMPSE, HIDDEN, CONTEXT))
        super().__init__(config, image_shape, classes, hidden)
        self.actions = config.glimpses  # the first location is chosen, too
        channels, size = image_shape[0], config.patch_size
        self.glimpse_network = ConvolutionalGlimpse(config.scales * channels, size, glimpse, config.width)
        self.start_network = StartNetwork(channels, size, hidden, config.width)
        self.core = LSTMCore(glimpse, hidden)
        self.location_core = LSTMCore(hidden, hidden)
        del self.context_network  # of RAM's size; the order of parameters, this last, is part of every training state
        self.context_network = context_layers(hidden, classes, context) if config.context != "none" else None

    def initialise(self, seed: int) -> "DRAM":
        super().initialise(seed)
        if self.config.forget_bias:
            self.location_core.remember(self.config.forget_bias)
        return self

    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        """Nothing to measure: each image is standardised by itself."""

    def draws(self, count, streams, centres=None, sampled=True, epsilon=0.0) -> Draws:
        """`noise`: (B, T, 2) standard normal, where locations are sampled; else nothing, as it chooses its start."""
        if not sampled:
            return {}
        policy = streams["policy"]
        return {"noise": torch.randn(count, self.actions, 2, generator=policy, device=policy.device)}

    def standards(self, images: Tensor) -> tuple[Tensor, Tensor]:
        brightness, contrast = images.mean((1, 2, 3)), images.std((1, 2, 3)).clamp_min(1e-3)  # (B,) each
        return brightness.view(-1, 1, 1, 1, 1), contrast.view(-1, 1, 1, 1, 1)

    def policy_state(self, images: Tensor) -> tuple[Tensor, Tensor]:
        brightness, contrast = self.standards(images)
        coarse = F.adaptive_avg_pool2d(images, self.sensor.size)  # (B, C, g, g)
        return self.start_network((coarse - brightness[:, 0]) / contrast[:, 0])

    def follow(self, hidden: Tensor, policy: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.location_core(hidden, policy)[1]

    def loss(self, images: Tensor, labels: Tensor, draws: Draws, config) -> tuple[Tensor, dict]:
        """labels: (B, n + 1); only as many glimpses are made as n digits and their end need."""
        noise = draws["noise"][:, : labels.shape[1] * (self.glimpses // PLACES)]
        return number_loss(self.rollout(images, {"noise": noise}, config.sigma), labels, self.context_network, config)

    def probabilities(self, trajectory: Trajectory) -> Tensor:
        return trajectory.class_logits.unflatten(1, (PLACES, -1))[:, :, -1].softmax(-1)  # after a place's last glimpse

    def decode(self, probabilities: Tensor) -> Tensor:
        """The number that class probabilities (or logits) at its six places, (B, 6, 11), spell out: labels (B, 6)."""
        classes = probabilities.argmax(-1)
        ended = (classes == TERMINAL).cumsum(1) > 0  # from the first class 10 on
        return classes.masked_fill(ended, TERMINAL)
