"""VGG16 for 32x32 images, VGG16 with attention (Eq. 16-17, §5 "Robust to PGD attack"), and controls of its size.

Images enter every model in [0, 1] and are standardised inside it, so that attacks act on what a reader sees. Layer
sizes of the glimpse network that §4.2 leaves open are the appendix's for SVHN: 5x5, 3x3 and 3x3 filters, 64, 64, 128.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ram import RAM, Trajectory

# Configuration D of Simonyan and Zisserman (2015): filters of 3x3 convolutions, a number of them before each pooling.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
IMAGE_SIDE = 2 ** len(BLOCKS)  # pixels; the last pooling leaves one value a filter


def scaled(filters: int, width: float) -> int:
    """A layer's number of filters in a network of `width`, a share of the full one; at least 1."""
    return max(1, round(filters * width))


def channels_last(layers: nn.Module) -> nn.Module:
    """`layers` with the channels of a pixel side by side in memory: convolutions of few filters are then faster, on a
    processor up to 1.4 times."""
    return layers.to(memory_format=torch.channels_last)


class VGG16Features(nn.Module):
    """`VGG` of Eq. 16: the 13 convolutions of VGG16, each with batch normalisation and ReLU, and five 2x2 max poolings.

    image_shape: (C, 32, 32). width: share of the filters in every layer; 1 is VGG16, less makes the slim network of
    the quick preset. Raises ValueError for images of another size or a width that is not positive.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: float = 1.0):
        super().__init__()
        channels, *sides = image_shape
        if sides != [IMAGE_SIDE, IMAGE_SIDE]:
            raise ValueError(f"VGG16 takes images of {IMAGE_SIDE}x{IMAGE_SIDE}, got {sides[0]}x{sides[1]}")
        if width <= 0:
            raise ValueError(f"width must be positive, got {width}")
        layers = []
        for block in BLOCKS:
            for filters in (scaled(f, width) for f in block):
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2))
        self.layers = channels_last(nn.Sequential(*layers, nn.Flatten()))
        self.size = channels
        self.register_buffer("mean", torch.zeros(image_shape[0], 1, 1))
        self.register_buffer("std", torch.ones(image_shape[0], 1, 1))

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Measure each channel's mean and standard deviation over training images (B, C, 32, 32) in [0, 1]."""
        self.mean.copy_(images.mean((0, 2, 3)).view(-1, 1, 1))
        self.std.copy_(images.std((0, 2, 3)).clamp_min(1e-3).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, 32, 32) in [0, 1]. Returns the features after the last pooling, (B, F); F = 512 at width 1."""
        return self.layers((images - self.mean) / self.std)


class VGG16(nn.Module):
    """VGG16 with batch normalisation and one linear classifier. Arguments and errors: of `VGG16Features`."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, width: float = 1.0):
        super().__init__()
        self.features = VGG16Features(image_shape, width)
        self.classifier = nn.Linear(self.features.size, classes)

    def calibrate(self, images: Tensor, location: Tensor | None = None) -> None:
        """As `VGG16Features.calibrate`; `location`, which models with glimpses need, is left alone."""
        self.features.calibrate(images)

    def feat(self, images: Tensor) -> Tensor:
        """`feat` of Eq. 16. images: (B, C, 32, 32) in [0, 1]. Returns (B, F)."""
        return self.features(images)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, 32, 32) in [0, 1]. Returns class logits (B, K)."""
        return self.classifier(self.feat(images))


class ConvolutionalGlimpseNetwork(nn.Module):
    """f_g of §4.2: G = G_img(x) + G_loc(L). G_img: three convolutions with batch normalisation, ReLU and 2x2 max
    pooling, then one fully connected layer; G_loc: one fully connected layer; both end in ReLU.

    Pooling follows the first two convolutions: of 12x12 it leaves 3x3, which cannot be halved again.
    channels: of a patch, scales times colours; patch_size: its side in pixels; glimpse: size of G.
    """

    def __init__(self, channels: int, patch_size: int, glimpse: int = 256, width: float = 1.0):
        super().__init__()
        self.patch_shape = (channels, patch_size, patch_size)
        filters = [scaled(f, width) for f in (64, 64, 128)]
        layers = []
        for i, (before, after) in enumerate(pairwise((channels, *filters))):
            size = 3 if i else 5
            layers += [nn.Conv2d(before, after, size, padding=size // 2), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * (i < 2)
        layers += [nn.Flatten(), nn.Linear(filters[-1] * (patch_size // 4) ** 2, glimpse)]
        self.patch = channels_last(nn.Sequential(*layers))
        self.location = nn.Linear(2, glimpse)

    def forward(self, patch: Tensor, location: Tensor) -> Tensor:
        """patch: (B, C * g * g) standardised values, as `RAM` hands them over; location: (B, 2). Returns (B, G)."""
        image = F.relu(self.patch(patch.unflatten(1, self.patch_shape)))  # (B, G), G_img
        return image + F.relu(self.location(location))


class AttentiveVGG(RAM):
    """RAM whose classifier also sees VGG16's features of the whole image (Eq. 16-17; ledger H4): one scale.

    Arguments: of `RAM` and, `width`, of `VGG16Features`; the glimpse network is slimmed alike.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        glimpses: int,
        sigma: float,
        patch_size: int = 12,
        core: str = "relu",
        hidden: int = 256,
        context: bool = False,
        reinforce_into_core: bool = True,
        width: float = 1.0,
    ):
        super().__init__(
            image_shape, classes, glimpses, patch_size, 1, sigma, core, hidden, context, reinforce_into_core
        )
        self.glimpse_network = ConvolutionalGlimpseNetwork(image_shape[0], patch_size, width=width)
        self.features = VGG16Features(image_shape, width)
        # f_y of Eq. 17 is one matrix on [H_t, feat]: the sum of RAM's `classifier` on H_t and of this on feat.
        self.feature_classifier = nn.Linear(self.features.size, classes, bias=False)

    def calibrate(self, images: Tensor, location: Tensor) -> None:
        """Measure the constants that standardise patches (as in `RAM`) and whole images (as in `VGG16`)."""
        super().calibrate(images, location)
        self.features.calibrate(images)

    def feat(self, images: Tensor) -> Tensor:
        """`feat` of Eq. 16. images: (B, C, 32, 32) in [0, 1]. Returns (B, F)."""
        return self.features(images)

    def forward(
        self,
        images: Tensor,
        start: Tensor,
        noise: Tensor | None = None,
        features_only: bool = False,
        through_locations: bool = False,
    ) -> Trajectory:
        """images: (B, C, 32, 32) in [0, 1]; start, noise: as `RAM` takes them, or those of S rollouts an image,
        (S * B, ...), the first B of the first rollouts; the features, which all share, are then computed once.

        Returns the trajectory of the (S *) B rollouts. Differentiable in the images through the features and through
        the glimpses' pixels; with `features_only` the pixels are detached: the weaker attack of ledger H5. Locations
        carry no gradient, as in training, but with `through_locations`: then nothing is left out of the gradient.
        """
        rollouts = len(start) // len(images)  # S
        seen = (images.detach() if features_only else images).repeat(rollouts, 1, 1, 1)  # (S * B, C, 32, 32)
        trajectory = super().forward(seen, start, noise, through_locations)
        from_features = self.feature_classifier(self.feat(images)).repeat(rollouts, 1)  # (S * B, K)
        return trajectory._replace(class_logits=trajectory.class_logits + from_features[:, None])  # (S * B, T, K)


class RandomGlimpseVGG(AttentiveVGG):
    """Control: `AttentiveVGG` that looks at uniform places instead of chosen ones. Arguments: of `AttentiveVGG`."""

    always_sampled = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.location_network  # nothing to learn: the places do not depend on what was seen

    def forward(self, images: Tensor, start: Tensor, noise: Tensor | None = None, **paths: bool) -> Trajectory:
        """As `AttentiveVGG`, but `noise`, (B, T - 1, 2) standard normal, is what the uniform locations are made of.
        Raises ValueError without it: there is no mean policy to fall back on."""
        if noise is None and self.glimpses > 1:
            raise ValueError("random glimpses need noise, (B, T - 1, 2)")
        if noise is not None:
            uniform = torch.erf(noise / math.sqrt(2))  # 2 Phi(noise) - 1: uniform on (-1, 1)
            noise = uniform / self.sigma  # which RAM multiplies by sigma and adds to the mean, here 0
        return super().forward(images, start, noise, **paths)

    def locate(self, hidden: Tensor) -> Tensor:
        return hidden.new_zeros(len(hidden), 2)

    def log_prob(self, samples: list[Tensor], means: list[Tensor], like: Tensor) -> Tensor:
        """log of the uniform density, 1/4, of every action, (B, T - 1): a constant, so REINFORCE moves nothing."""
        return like.new_full((len(like), len(samples)), -math.log(4))


class MLPVGG(VGG16):
    """Control: VGG16 with a perceptron on its features in place of the attention; Eq. 17 with H = MLP(feat).

    parameters: how many the model shall have; the size of the perceptron's first layer follows. output: its second's,
    in the place of H. Raises ValueError where VGG16 alone has as many; otherwise as `VGG16Features`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        parameters: int,
        output: int = 256,
        width: float = 1.0,
    ):
        super().__init__(image_shape, classes, width)
        size = self.features.size
        self.classifier = nn.Linear(output + size, classes)
        # Of `hidden` units, each has size weights in, output weights out and a bias; the second layer has biases, too.
        spare = parameters - count_parameters(self) - output
        hidden = round(spare / (size + 1 + output))
        if hidden < 1:
            raise ValueError(f"no room for a perceptron in {parameters} parameters")
        self.perceptron = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, output), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, 32, 32) in [0, 1]. Returns class logits (B, K)."""
        feat = self.feat(images)  # (B, F)
        return self.classifier(torch.cat((self.perceptron(feat), feat), -1))


class FixedRollout(nn.Module):
    """`model`, an `AttentiveVGG`, under fixed draws: a function of the images alone, to be attacked.

    start: (B, 2) and noise: (B, T - 1, 2) or None, of the very images that will be asked for; or those of S rollouts an
    image, (S * B, ...), as `AttentiveVGG` takes them. features_only, through_locations: the way of the gradients.
    """

    def __init__(
        self,
        model: AttentiveVGG,
        start: Tensor,
        noise: Tensor | None = None,
        features_only: bool = False,
        through_locations: bool = False,
    ):
        super().__init__()
        self.model, self.start, self.noise = model, start, noise
        self.paths = {"features_only": features_only, "through_locations": through_locations}

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, 32, 32) in [0, 1]. Returns the class logits after the last glimpse, (B, K), or (S, B, K)."""
        logits = self.model(images, self.start, self.noise, **self.paths).class_logits[:, -1]  # (S * B, K)
        return logits.unflatten(0, (-1, len(images))) if len(logits) > len(images) else logits


def under(model: nn.Module, start: Tensor | None = None, noise: Tensor | None = None, **paths: bool) -> nn.Module:
    """`model` as a function of images alone: under these draws (`FixedRollout`, whose further arguments are `paths`),
    or itself where it draws nothing."""
    return model if start is None else FixedRollout(model, start, noise, **paths)


def count_parameters(model: nn.Module) -> int:
    """Parameters that a prediction uses: all but the heads that serve training alone (f_c and the baseline)."""
    training_only = [getattr(model, name, None) for name in ("context_network", "baseline_network")]
    skipped = sum(p.numel() for head in training_only if head is not None for p in head.parameters())
    return sum(p.numel() for p in model.parameters()) - skipped
