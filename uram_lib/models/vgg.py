"""VGG16 for 32x32 images, VGG16 with attention (paper Eq. 16-17), and controls of its size (Table 4; ledger H4).

Images enter every model in [0, 1] and are standardised inside it, so that attacks act on what a reader sees. Layer
sizes of the glimpse network that §4.2 leaves open are the appendix's for SVHN: 5x5, 3x3 and 3x3 filters, 64, 64, 128.
"""

import math

import torch
from torch import Tensor, nn

from .layers import FILTERS, GLIMPSE, HIDDEN, ConvolutionalGlimpse, Draws, Model, Trajectory, count_parameters, scaled
from .ram import RAM

# Configuration D of Simonyan and Zisserman (2015): filters of 3x3 convolutions, a number of them before each pooling.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
IMAGE_SIDE = 2 ** len(BLOCKS)  # pixels; the last pooling leaves one value per filter
LAYOUT = torch.channels_last  # convolutions of few filters are up to 1.4 times faster on a processor


def normalised(before: int, after: int, side: int) -> list[nn.Module]:
    """A convolution that keeps the size, with batch normalisation and ReLU."""
    return [nn.Conv2d(before, after, side, padding=side // 2), nn.BatchNorm2d(after), nn.ReLU()]


class VGG16Features(nn.Module):
    """`VGG` of Eq. 16: the 13 convolutions of VGG16, each with batch normalisation and ReLU, and five 2x2 max poolings.
    Raises ValueError for images of another size than (C, 32, 32)."""

    def __init__(self, image_shape: tuple[int, int, int], width: float):
        super().__init__()
        channels, *sides = image_shape
        if sides != [IMAGE_SIDE, IMAGE_SIDE]:
            raise ValueError(f"VGG16 takes images of {IMAGE_SIDE}x{IMAGE_SIDE}, got {sides[0]}x{sides[1]}")
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        layers = []
        for block in BLOCKS:
            for filters in (scaled(f, width) for f in block):
                layers += normalised(channels, filters, 3)
                channels = filters
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers, nn.Flatten()).to(memory_format=LAYOUT)
        self.size = channels

    def calibrate(self, images: Tensor) -> None:
        """Measure each channel's mean and standard deviation over training images (B, C, 32, 32) in [0, 1]."""
        self.mean.copy_(images.mean((0, 2, 3)).view(-1, 1, 1))
        self.std.copy_(images.std((0, 2, 3)).clamp_min(1e-3).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """`feat` of Eq. 16. images: (B, C, 32, 32) in [0, 1]. Returns (B, F), F = 512 at width 1."""
        return self.layers((images - self.mean) / self.std)


class VGG16(Model):
    """VGG16 with batch normalisation and one linear classifier. Raises as `VGG16Features`."""

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int):
        super().__init__(config, image_shape)
        self.features = VGG16Features(image_shape, config.width)
        self.classifier = nn.Linear(self.features.size, classes)

    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        self.features.calibrate(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


class MLPVGG(VGG16):
    """Control: VGG16 with a perceptron on its features in place of the attention; Eq. 17 with H = MLP(feat). Its first
    layer is so wide that the model has as many parameters as `AttentiveVGG`; its second has `output` units."""

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int, output: int = HIDDEN):
        super().__init__(config, image_shape, classes)
        size = self.features.size
        self.classifier = nn.Linear(output + size, classes)
        with torch.device("meta"):  # only to be counted
            left = count_parameters(AttentiveVGG(config, image_shape, classes)) - count_parameters(self)
        # A hidden unit has `size` weights in, `output` weights out and a bias; the second layer has biases, too.
        hidden = round((left - output) / (size + 1 + output))
        self.perceptron = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, output), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        feat = self.features(images)  # (B, F)
        return self.classifier(torch.cat((self.perceptron(feat), feat), -1))


class ConvolutionalGlimpseNetwork(ConvolutionalGlimpse):
    """f_g of §4.2: three convolutions with batch normalisation and ReLU, 2x2 max pooling after the first two (12x12
    becomes 3x3), and one fully connected layer."""

    def __init__(self, channels: int, patch_size: int, width: float):
        if patch_size < 4:
            raise ValueError(f"two poolings need patches of at least 4, got {patch_size}")
        layers = []
        for side, count in FILTERS:
            filters = scaled(count, width)
            layers += [*normalised(channels, filters, side), nn.MaxPool2d(2)]
            channels = filters
        layers[-1:] = [nn.Flatten(), nn.Linear(channels * (patch_size // 4) ** 2, GLIMPSE)]
        super().__init__(nn.Identity(), nn.Sequential(*layers).to(memory_format=LAYOUT), GLIMPSE)


class AttentiveVGG(RAM):
    """RAM whose classifier also sees VGG16's features of the whole image (Eq. 16-17; ledger H4)."""

    def __init__(self, config, image_shape: tuple[int, int, int], classes: int, hidden: int = HIDDEN):
        super().__init__(config, image_shape, classes, hidden)
        channels = config.scales * image_shape[0]
        self.glimpse_network = ConvolutionalGlimpseNetwork(channels, config.patch_size, config.width)
        self.features = VGG16Features(image_shape, config.width)
        # f_y of Eq. 17 is one matrix on [H_t, feat]: the sum of RAM's `classifier` on H_t and of this on feat.
        self.feature_classifier = nn.Linear(self.features.size, classes, bias=False)

    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        super().calibrate(images, locations)
        self.features.calibrate(images)

    def forward(self, images: Tensor, start: Tensor, *given, features_only: bool = False, **paths) -> Trajectory:
        """images: (B, C, 32, 32) in [0, 1]; other arguments and what is returned: as of `RAM`, for S rollouts an image,
        (S * B, ...), the first B of the first rollouts. All of an image's share its features.

        Gradients reach the images through the features and through the glimpses' pixels; with `features_only` the
        pixels are detached (ledger H5). Only with `through_locations` is nothing left out of the gradient.
        """
        rollouts = len(start) // len(images)  # S
        seen = (images.detach() if features_only else images).repeat(rollouts, 1, 1, 1)  # (S * B, C, 32, 32)
        trajectory = super().forward(seen, start, *given, **paths)
        from_features = self.feature_classifier(self.features(images)).repeat(rollouts, 1)  # (S * B, K)
        return trajectory._replace(class_logits=trajectory.class_logits + from_features[:, None])  # (S * B, T, K)


class RandomGlimpseVGG(AttentiveVGG):
    """Control: `AttentiveVGG` that looks at uniform places instead of chosen ones."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.location_network = nn.Identity()  # nothing to learn

    def draws(self, count, streams, centres=None, sampled=True, epsilon=0.0) -> Draws:
        """Always sampled: there is no mean policy to test it by (ledger B7)."""
        return super().draws(count, streams, centres, True, epsilon)

    def forward(self, images: Tensor, start: Tensor, noise: Tensor, sigma=None, *given, **paths) -> Trajectory:
        """As `AttentiveVGG`, but `noise`, (B, T - 1, 2) standard normal, is what the uniform locations are made of."""
        sigma = self.sigma if sigma is None else sigma
        # 2 Phi(noise) - 1 is uniform on (-1, 1); RAM multiplies by sigma and adds the mean, 0.
        return super().forward(images, start, torch.erf(noise / math.sqrt(2)) / sigma, sigma, *given, **paths)

    def locate(self, hidden: Tensor) -> Tensor:
        return hidden.new_zeros(len(hidden), 2)

    def log_prob(self, samples: Tensor, means: Tensor, sigma: float) -> Tensor:
        """log of the uniform density, 1/4, of every action, (B, T - 1): a constant, so REINFORCE moves nothing."""
        return samples.new_full(samples.shape[:2], -math.log(4))
