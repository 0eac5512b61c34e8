"""The networks without glimpses: classifiers of Tables 1 and 2 (ledger I), readers of numbers of Table 3.

`ElevenLayerCNN` follows the description of Goodfellow et al. (2014): eight convolutions (48, 64, 128, 160 and four
times 192 filters of 5 x 5, zero padding), a locally connected layer of 192 units a place and two fully connected ones
of 3,072; maxout of three in the first layer, ReLU elsewhere; in each convolutional layer 2 x 2 max pooling, with
strides 2 and 1 in turn, and subtractive normalisation over 3 x 3; the mean of each image is taken away; a softmax for
the length and one a digit. Assumed beyond that: the order convolution, rectifier, pooling, normalisation; filters of
5 x 5 in the locally connected layer, too; He's initialisation. Left out: dropout, as composed training images never
come twice.

Of their ten-layer CNN Ba et al. (2015) give an error and, as far as we know, no layers. `TenLayerCNN` is our
assumption: the same network without maxout and without the locally connected layer.
"""

import functools
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import LONGEST, PLACES, TERMINAL
from ..objectives import length_and_digits_loss
from .layers import HeConv2d, HeLinear, Model, Trajectory, scaled

FILTERS = (48, 64, 128, 160, 192, 192, 192, 192)
SIDE = 5  # of a filter
LOCAL, DENSE = 192, 3_072
PIECES = 3  # of a maxout unit


class FullyConnected(Model):
    """Two hidden layers of 256 ReLU units on the flattened image."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int):
        super().__init__()
        self.image_shape = tuple(image_shape)
        channels, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * width, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) in [0, 1]. Returns class logits (B, K)."""
        return self.layers(images)


class TwoLayerCNN(Model):
    """Two 5x5 convolutions (32, 64 filters), each with ReLU and 2x2 max pooling, then FC 256 (ledger I)."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int):
        super().__init__()
        self.image_shape = tuple(image_shape)
        channels, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 256),
            nn.ReLU(),
            nn.Linear(256, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) in [0, 1]. Returns class logits (B, K)."""
        return self.layers(images)


class FiveLayerCNN(Model):
    """Five 3x3 convolutions (32, 64, 64, 128, 128 filters) with ReLU, 2x2 max pooling after the first four, then
    FC 256 (ledger I)."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int):
        super().__init__()
        self.image_shape = tuple(image_shape)
        channels, height, width = image_shape
        layers, filters = [], (32, 64, 64, 128, 128)
        for i, (before, after) in enumerate(zip((channels, *filters), filters, strict=False)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()] + [nn.MaxPool2d(2)] * (i < 4)
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(filters[-1] * (height // 16) * (width // 16), 256),
            nn.ReLU(),
            nn.Linear(256, classes),
        ).to(memory_format=torch.channels_last)  # which the activations take over: faster

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) in [0, 1], H and W at least 16. Returns class logits (B, K)."""
        return self.layers(images)


class LengthAndDigits(NamedTuple):
    """Logits of a number's parts, which count as independent given the image."""

    length_logits: Tensor  # (B, 5): of 1 to 5 digits
    digit_logits: Tensor  # (B, 5, 10): of the digit at each place, whether or not the number is as long


class SubtractiveNorm(nn.Module):
    """Takes away the mean over all channels of the 3 x 3 places around each (inside the image)."""

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, C, H, W), and so is what is returned."""
        mean = features.mean(1, keepdim=True)
        return features - F.avg_pool2d(mean, 3, stride=1, padding=1, count_include_pad=False)


class Maxout(nn.Module):
    """The largest of `PIECES` channels: of C units, unit c of the channels c, C + c, ..."""

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, PIECES C, H, W). Returns (B, C, H, W)."""
        return functools.reduce(torch.maximum, features.chunk(PIECES, 1))


class MaxPool(nn.Module):
    """2 x 2 max pooling; with stride 1 the size stays (beyond the last row and column lie zeros, as no value after a
    ReLU is smaller)."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, C, H, W). Returns (B, C, H // 2, W // 2), or (B, C, H, W) with stride 1."""
        if self.stride == 1:
            features = F.pad(features, (0, 1, 0, 1))
        return F.max_pool2d(features, 2, self.stride)


class LocallyConnected(nn.Module):
    """A convolution with zero padding and other weights at each place. grid: (H, W), the places."""

    def __init__(self, before: int, after: int, grid: tuple[int, int]):
        super().__init__()
        places = grid[0] * grid[1]
        self.weight = nn.Parameter(torch.empty(places, before * SIDE**2, after))
        self.bias = nn.Parameter(torch.empty(places, after))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=(2 / self.weight.shape[1]) ** 0.5)  # He et al. (2015)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, before, H, W). Returns (B, H W, after)."""
        windows = F.unfold(features, SIDE, padding=SIDE // 2)  # (B, before 5 5, H W)
        return torch.einsum("bkp,pko->bpo", windows, self.weight) + self.bias


class ElevenLayerCNN(Model):
    """The network of Goodfellow et al. image_shape: (C, H, W), at least 16 x 16; classes: 11, ten digits and the end,
    which the length takes care of here; width: share of the filters and units in every layer."""

    maxout, local = True, True

    def __init__(self, image_shape: tuple[int, int, int], classes: int, width: float = 1.0):
        super().__init__()
        self.image_shape = tuple(image_shape)
        channels, height, grid_width = image_shape
        counts = [channels, *(scaled(count, width) for count in FILTERS)]
        layers = []
        for i, (before, after) in enumerate(pairwise(counts)):
            pieces = PIECES if self.maxout and i == 0 else 1
            layers.append(HeConv2d(before, pieces * after, SIDE, padding=SIDE // 2))
            layers.append(Maxout() if pieces > 1 else nn.ReLU())
            layers += [MaxPool(1 if i % 2 else 2), SubtractiveNorm()]
        grid = height // 16, grid_width // 16
        values = counts[-1] * grid[0] * grid[1]
        if self.local:
            layers += [LocallyConnected(counts[-1], scaled(LOCAL, width), grid), nn.ReLU()]
            values = scaled(LOCAL, width) * grid[0] * grid[1]
        dense = scaled(DENSE, width)
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), HeLinear(values, dense), nn.ReLU(), HeLinear(dense, dense), nn.ReLU()
        ).to(memory_format=torch.channels_last)  # in which convolutions of large images are faster
        self.length = nn.Linear(dense, LONGEST)
        self.digits = nn.Linear(dense, LONGEST * (classes - 1))

    def forward(self, images: Tensor) -> LengthAndDigits:
        """images: (B, C, H, W) in [0, 1]."""
        features = self.layers(images - images.mean((1, 2, 3), keepdim=True))  # (B, dense)
        return LengthAndDigits(self.length(features), self.digits(features).unflatten(1, (LONGEST, -1)))

    def rollout(self, images: Tensor, draws: dict[str, Tensor], sigma: float | None = None) -> Trajectory:
        """Its one look; class logits (B, 6, 11) are 0 at the most probable number's digits and -inf elsewhere."""
        number = most_probable(self(images))  # (B, 6)
        none = images.new_zeros(len(images), 0)
        certain = F.one_hot(number, TERMINAL + 1).to(images.dtype).log()
        return Trajectory(none[..., None].expand(-1, 0, 2), none, none[:, None], certain, none, none)

    def loss(self, images: Tensor, labels: Tensor, draws: dict[str, Tensor], config) -> tuple[Tensor, dict]:
        heads = self(images)
        loss = length_and_digits_loss(heads, labels)
        right = (most_probable(heads) == labels).all(1)  # (B,)
        return loss, {"cross_entropy": loss.detach(), "reward": right.float().mean()}

    def probabilities(self, trajectory: Trajectory) -> Tensor:
        return trajectory.class_logits.softmax(-1)

    def decode(self, probabilities: Tensor) -> Tensor:
        return probabilities.argmax(-1)  # already a number: the end is followed by the end


class TenLayerCNN(ElevenLayerCNN):
    """Eight convolutions and two fully connected layers. Arguments: of `ElevenLayerCNN`."""

    maxout, local = False, False


def most_probable(heads: LengthAndDigits) -> Tensor:
    """The number of the highest probability, as labels (B, 6): of each length the best digits, of these the best
    length (Goodfellow et al., 2014, their appendix on inference)."""
    score, digits = heads.digit_logits.log_softmax(-1).max(-1)  # (B, 5) each
    length = 1 + (heads.length_logits.log_softmax(-1) + score.cumsum(1)).argmax(-1, keepdim=True)  # (B, 1)
    beyond = torch.arange(PLACES, device=digits.device) >= length  # (B, 6)
    return F.pad(digits, (0, 1)).masked_fill(beyond, TERMINAL)
