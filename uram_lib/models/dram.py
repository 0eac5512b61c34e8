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

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from ..data import PLACES, TERMINAL
from ..objectives import number_loss
from .layers import ConvolutionalGlimpse, HeLinear, LSTMCore, State, Trajectory, context_layers, convolutions, scaled
from .ram import RAM

GLIMPSE, HIDDEN, CONTEXT = 1024, 512, 256  # units of G, of each LSTM layer (appendix) and of f_c (ledger K4)


class DRAM(RAM):
    """A number's reader: `glimpses` crops, as many for each of its six places (five digits and the end), all at chosen
    locations, the first one, too: the start network leads to it. Its rollout is RAM's, the lower layer in the place of
    RAM's core and the upper one where RAM chooses from H_t. Raises ValueError for patches that are too small."""

    given = 0

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int):
        glimpse, hidden, context = (scaled(units, config.width) for units in (GLIMPSE, HIDDEN, CONTEXT))
        super().__init__(config, image_shape, classes, hidden)
        channels, size = image_shape[0], config.patch_size
        crops, values = convolutions(config.scales * channels, size, config.width)
        self.glimpse_network = ConvolutionalGlimpse(crops, HeLinear(values, glimpse), glimpse)
        whole, values = convolutions(channels, size, config.width)
        self.start_network = nn.Sequential(OrderedDict(convolutions=whole, state=nn.Linear(values, 2 * hidden)))
        self.core = LSTMCore(glimpse, hidden)
        self.location_core = LSTMCore(hidden, hidden)
        del self.context_network  # of RAM's size; the order of parameters, this last, is part of every training state
        self.context_network = context_layers(hidden, classes, context) if config.context != "none" else None

    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        """Nothing to measure: each image is standardised by itself."""

    def overview(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], State]:
        mean = images.mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        deviation = images.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
        coarse = F.adaptive_avg_pool2d(images, self.sensor.size)  # (B, C, g, g)
        hidden, memory = self.start_network((coarse - mean) / deviation).chunk(2, -1)  # (B, D) each
        # An LSTM's hidden state lies within (-1, 1), its memory anywhere.
        return (mean[:, None], deviation[:, None]), (hidden.tanh(), memory)

    def follow(self, hidden: Tensor, policy: State) -> State:
        return self.location_core(hidden, policy)

    def loss(self, images: Tensor, labels: Tensor, draws: dict, config) -> tuple[Tensor, dict]:
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
