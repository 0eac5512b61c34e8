"""The networks without glimpses: classifiers of Tables 1 and 2 (ledger I), readers of numbers of Table 3.

The eleven-layer CNN follows the description of Goodfellow et al. (2014): eight 5 x 5 convolutions, a locally connected
layer and two fully connected ones; maxout of three in the first layer, ReLU elsewhere; in each convolutional layer max
pooling over 2 x 2, with strides 2 and 1 in turn, and subtractive normalisation over 3 x 3; each image less its mean; a
softmax for the length and one a digit. Assumed beyond that: the order convolution, rectifier, pooling, normalisation;
5 x 5 in the locally connected layer, too; He's initialisation. Left out: dropout, as composed images never come twice.
Ba et al. (2015) name no layers of their ten-layer CNN. We assume the same without maxout and locally connected layer.
"""

import math
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import LONGEST, PLACES, TERMINAL
from ..objectives import length_and_digits_loss
from .layers import Draws, HeConv2d, HeLinear, Model, Trajectory, scaled, unseeing

# A filter's side, the filters of each convolution, the units of each fully connected layer, and the layout in memory,
# channels' for large images: activations take it over, and convolutions are faster.
CLASSIFIERS = {
    "fc": (0, (), (256, 256), torch.contiguous_format),
    "cnn2": (5, (32, 64), (256,), torch.contiguous_format),
    "cnn5": (3, (32, 64, 64, 128, 128), (256,), torch.channels_last),
}
FILTERS = (48, 64, 128, 160, 192, 192, 192, 192)
SIDE = 5  # of a filter
LOCAL, DENSE = 192, 3_072
PIECES = 3  # of a maxout unit


class Classifier(Model):
    """The layers of `CLASSIFIERS`, each with ReLU, the first four convolutions with 2x2 max pooling; then logits."""

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int):
        super().__init__(config, image_shape)
        side, filters, dense, layout = CLASSIFIERS[config.model]
        channels, *sides = image_shape
        counts, layers = (channels, *filters), []
        for i, (before, after) in enumerate(pairwise(counts)):
            layers += [nn.Conv2d(before, after, side, padding=side // 2), nn.ReLU()] + [nn.MaxPool2d(2)] * (i < 4)
        values = counts[-1] * math.prod(length // 2 ** min(len(filters), 4) for length in sides)
        layers.append(nn.Flatten())
        for before, after in pairwise((values, *dense)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(dense[-1], classes)).to(memory_format=layout)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class LengthAndDigits(NamedTuple):
    """Logits of a number's parts, which count as independent given the image."""

    length_logits: Tensor  #: (B, 5): of 1 to 5 digits
    digit_logits: Tensor  #: (B, 5, 10): of the digit at each place, whether or not the number is as long


class SubtractiveNorm(nn.Module):
    """Takes away the mean over all channels of the 3 x 3 places around each (inside the image)."""

    def forward(self, features: Tensor) -> Tensor:  # (B, C, H, W) to (B, C, H, W)
        return features - F.avg_pool2d(features.mean(1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False)


class Maxout(nn.Module):
    """The largest of `PIECES` channels: of C units, unit c of the channels c, C + c, ..."""

    def forward(self, features: Tensor) -> Tensor:  # (B, PIECES C, H, W) to (B, C, H, W)
        return reduce(torch.maximum, features.chunk(PIECES, 1))


def pooling(stride: int) -> nn.Module:
    """2 x 2 max pooling. With stride 1 the size stays: zeros follow the last row and column, harmless after a ReLU."""
    pool = nn.MaxPool2d(2, stride)
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), pool) if stride == 1 else pool


class LocallyConnected(nn.Module):
    """A convolution with zero padding and other weights at each of `places`, H W."""

    def __init__(self, before: int, after: int, places: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(places, before * SIDE**2, after))
        self.bias = nn.Parameter(torch.empty(places, after))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=(2 / self.weight.shape[1]) ** 0.5)  # He et al. (2015)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:  # (B, before, H, W) to (B, H W, after)
        windows = F.unfold(features, SIDE, padding=SIDE // 2)  # (B, before 5 5, H W)
        return torch.einsum("bkp,pko->bpo", windows, self.weight) + self.bias


class NumberCNN(Model):
    """`cnn11`, the network of Goodfellow et al., and `cnn10`, for images of at least 16 x 16. classes: 11, ten digits
    and the end, which the length takes care of here."""

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int):
        super().__init__(config, image_shape)
        eleven, width = config.model == "cnn11", config.width
        counts = [image_shape[0], *(scaled(count, width) for count in FILTERS)]
        layers = []
        for i, (before, after) in enumerate(pairwise(counts)):
            pieces = PIECES if eleven and i == 0 else 1
            layers.append(HeConv2d(before, pieces * after, SIDE, padding=SIDE // 2))
            layers += [Maxout() if pieces > 1 else nn.ReLU(), pooling(1 if i % 2 else 2), SubtractiveNorm()]
        places, units, dense = (image_shape[1] // 16) * (image_shape[2] // 16), counts[-1], scaled(DENSE, width)
        if eleven:
            units = scaled(LOCAL, width)
            layers += [LocallyConnected(counts[-1], units, places), nn.ReLU()]
        layers += [nn.Flatten(), HeLinear(units * places, dense), nn.ReLU(), HeLinear(dense, dense), nn.ReLU()]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.length = nn.Linear(dense, LONGEST)
        self.digits = nn.Linear(dense, LONGEST * (classes - 1))

    def forward(self, images: Tensor) -> LengthAndDigits:
        """images: (B, C, H, W) in [0, 1]."""
        features = self.layers(images - images.mean((1, 2, 3), keepdim=True))  # (B, dense)
        return LengthAndDigits(self.length(features), self.digits(features).unflatten(1, (LONGEST, -1)))

    def rollout(self, images: Tensor, draws: Draws, sigma: float | None = None) -> Trajectory:
        """Its one look; class logits (B, 6, 11) are 0 at the most probable number's digits and -inf elsewhere."""
        number = most_probable(self(images))  # (B, 6)
        return unseeing(F.one_hot(number, TERMINAL + 1).to(images.dtype).log())

    def loss(self, images: Tensor, labels: Tensor, draws: Draws, config) -> tuple[Tensor, dict]:
        heads = self(images)
        loss = length_and_digits_loss(heads, labels)
        right = (most_probable(heads) == labels).all(1)  # (B,)
        return loss, {"cross_entropy": loss.detach(), "reward": right.float().mean()}

    def probabilities(self, trajectory: Trajectory) -> Tensor:
        return trajectory.class_logits.softmax(-1)


def most_probable(heads: LengthAndDigits) -> Tensor:
    """The number of the highest probability, as labels (B, 6): of each length the best digits, of these the best
    length (Goodfellow et al., 2014, their appendix on inference)."""
    score, digits = heads.digit_logits.log_softmax(-1).max(-1)  # (B, 5) each
    length = 1 + (heads.length_logits.log_softmax(-1) + score.cumsum(1)).argmax(-1, keepdim=True)  # (B, 1)
    beyond = torch.arange(PLACES, device=digits.device) >= length  # (B, 6)
    return F.pad(digits, (0, 1)).masked_fill(beyond, TERMINAL)
