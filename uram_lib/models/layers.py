"""What models are made of: the glimpse networks, the recurrent cores, and what every model can do (`Model`)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import seeding
from ..common import UramError

GLIMPSE = HIDDEN = 256  # units of G_t (appendix) and of H_t (not stated)
FILTERS = ((5, 64), (3, 64), (3, 128))  # side and number of the appendix's convolutions for SVHN

State = tuple[Tensor, ...]  # of a core, (B, D) each; the first is H_t
Draws = dict[str, Tensor]  # what rollouts of B images draw at random, by name, each (B, ...)
Streams = dict[str, torch.Generator]


class Trajectory(NamedTuple):
    """One rollout of T glimpses per image, the last A of their locations chosen by the policy: T - 1 by RAM, whose
    first location is given (ledger B2), T by `DRAM`. A network without glimpses has no locations, and
    T = 1, or 6 where it reads numbers."""

    locations: Tensor  #: (B, T, 2), each in [-1, 1], x then y; [:, 0] is the start
    patch_entropies: Tensor  #: (B, T), bits
    hiddens: Tensor  #: (B, T, D)
    class_logits: Tensor  #: (B, T, K): log alpha_t up to a constant (Eq. 10d)
    log_probs: Tensor  #: (B, A): log pi(l_t) of the unclamped samples
    baselines: Tensor  #: (B, A): b at the moment the action is taken


def unseeing(class_logits: Tensor) -> Trajectory:
    """The trajectory of a network without glimpses. class_logits: (B, T, K)."""
    none = class_logits.new_zeros(len(class_logits), 0)
    return Trajectory(none[..., None].expand(-1, 0, 2), none, none[:, None], class_logits, none, none)


class Answer(NamedTuple):
    """What a model says of images."""

    labels: Tensor  #: (B,) classes, or (B, 6) of numbers: the digits, then class 10 to the end
    probabilities: Tensor  #: (B, K), or (B, 6, 11)
    locations: Tensor  #: (B, T, 2), x then y in [-1, 1]: where it looked


class Model(nn.Module):
    """What training, testing and a reader ask of every model for images of `image_shape`, (C, H, W). Networks without
    glimpses need only `forward`, from images (B, C, H, W) in [0, 1] to class logits (B, K); others override the rest.
    """

    def __init__(self, config, image_shape: tuple[int, int, int]):
        super().__init__()
        self.config, self.image_shape = config, tuple(image_shape)

    def initialise(self, seed: int) -> "Model":
        """Draw the first weights, each layer's from its own named stream; returns the model."""
        return seeding.initialise(self, seed)

    def calibrate(self, images: Tensor, locations: Tensor) -> None:
        """Measure what standardises the input, on training images (B, C, H, W) and locations (B, 2)."""

    def begin_epoch(self) -> None:
        """Called before each epoch of training."""

    def draws(
        self, count: int, streams: Streams, centres: Tensor | None = None, sampled: bool = True, epsilon: float = 0.0
    ) -> Draws:
        """What rollouts of `count` images draw from `streams`. centres: (count, 2), the objects' in pixels, for a model
        that starts there. sampled: whether locations are sampled, as in training, or the policy's means. epsilon: a
        chooser's share of random choices."""
        return {}

    def rollout(self, images: Tensor, draws: Draws, sigma: float | None = None) -> Trajectory:
        """Look at images (B, C, H, W) in [0, 1] under `draws`; sigma: of the policy, the last epoch's when None."""
        return unseeing(self(images)[:, None])

    def loss(self, images: Tensor, labels: Tensor, draws: Draws, config) -> tuple[Tensor, dict]:
        """What a step of training minimises, a scalar, and its detached parts, among them the mean `reward`. labels:
        (B,), or (B, n + 1) of numbers; config: `Config.at` the epoch."""
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        return loss, {"cross_entropy": loss.detach(), "reward": (logits.argmax(-1) == labels).float().mean()}

    def probabilities(self, trajectory: Trajectory) -> Tensor:
        """Of the answer: (B, K), or (B, 6, 11) of numbers."""
        return trajectory.class_logits[:, -1].softmax(-1)

    def decode(self, probabilities: Tensor) -> Tensor:
        """The answer, (B,) classes or (B, 6) of numbers, from its probabilities."""
        return probabilities.argmax(-1)

    def describe(self, images: Tensor, centres: Tensor) -> dict:
        """What a record notes beside the glimpses; images: a whole split."""
        return {}

    @torch.no_grad()
    def read(self, images: Tensor, seed: int = 0) -> Answer:
        """Read images (B, C, H, W), floats in [0, 1], of `image_shape`. seed: of the start, which all images share.
        Raises UramError for any other input, saying how to convert it."""
        check_images(images, self.image_shape, next(self.parameters()).dtype)
        self.eval()
        streams = {name: seeding.stream(0, name, seed) for name in ("start", "policy")}
        drawn = self.draws(1, streams, sampled=False)
        draws = {name: value.to(images.device).expand(len(images), *value.shape[1:]) for name, value in drawn.items()}
        trajectory = self.rollout(images, draws)
        probabilities = self.probabilities(trajectory)
        return Answer(self.decode(probabilities), probabilities, trajectory.locations)


def check_images(images: Tensor, shape: tuple[int, int, int], kind: torch.dtype) -> None:
    """Raise UramError unless images are floats of this kind in [0, 1] of shape (B, C, H, W); shape: (C, H, W)."""
    if not isinstance(images, Tensor):
        got = type(images).__name__
        raise UramError(f"images must be a torch.Tensor, got {got}; convert with torch.as_tensor(...).float()")
    if images.dtype != kind:
        how = f"images.to({kind})" if images.is_floating_point() else "images.float() / 255"
        raise UramError(f"images must be floats in [0, 1] ({kind}), got {images.dtype}; convert with {how}")
    if images.ndim != 4 or images.shape[1:] != shape:
        sizes = ", ".join(map(str, shape))
        raise UramError(
            f"images must be (B, {sizes}), got {tuple(images.shape)}; add axes with images.view(-1, {sizes}), average "
            "colours with images.mean(1, keepdim=True), pad small images with torch.nn.functional.pad"
        )
    if not len(images):
        raise UramError("images must hold at least one image, got none")
    least, most = images.min().item(), images.max().item()
    if not (least >= 0 and most <= 1):  # also refuses nan
        raise UramError(f"images must lie in [0, 1], got {least:.3g} to {most:.3g}; divide values of 0 to 255 by 255")


class GlimpseNetwork(nn.Module):
    """f_g of the appendix: G = ReLU(W_g h_g + W_l h_l + b), h_g and h_l of 128 units, G of 256."""

    def __init__(self, patch_values: int):
        super().__init__()
        self.patch = nn.Linear(patch_values, 128)
        self.location = nn.Linear(2, 128)
        # One matrix on [h_g, h_l] is the sum of RAM's two separate maps (ledger B1) at the cost of one product.
        self.combine = nn.Linear(2 * 128, GLIMPSE)

    def forward(self, patch: Tensor, location: Tensor) -> Tensor:
        """patch: (B, S, C, g, g), standardised; location: (B, 2). Returns the glimpse vector G_t, (B, 256)."""
        h_g = F.relu(self.patch(patch.flatten(1)))  # (B, 128)
        h_l = F.relu(self.location(location))  # (B, 128)
        return F.relu(self.combine(torch.cat((h_g, h_l), -1)))  # (B, 256)


class ConvolutionalGlimpse(nn.Module):
    """f_g of the appendix for SVHN and of §4.2: G = ReLU(W_g convolutions(x)) + ReLU(W_l L), G of `glimpse` units.
    convolutions, then patch: what x, (B, S C, g, g), passes through, to (B, G)."""

    def __init__(self, convolutions: nn.Module, patch: nn.Module, glimpse: int):
        super().__init__()
        self.convolutions, self.patch, self.location = convolutions, patch, nn.Linear(2, glimpse)

    def forward(self, patch: Tensor, location: Tensor) -> Tensor:
        """patch: (B, S, C, g, g) standardised values; location: (B, 2). Returns the glimpse vector G_t, (B, G)."""
        return F.relu(self.patch(self.convolutions(patch.flatten(1, 2)))) + F.relu(self.location(location))


class ReLUCore(nn.Module):
    """f_h of the appendix: H_t = ReLU(W_h H_{t-1} + W_g G_t + b). W_h starts as the identity (Le, Jaitly and Hinton,
    2015), which remembers early glimpses; the paper names no initialisation."""

    def __init__(self, glimpse: int, hidden: int):
        super().__init__()
        self.hidden_size = hidden
        self.from_glimpse = nn.Linear(glimpse, hidden)
        self.from_hidden = nn.Parameter(torch.empty(hidden, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.eye_(self.from_hidden)

    def forward(self, glimpse: Tensor, state: State) -> State:
        """glimpse: (B, G). Returns the next state, H_t alone."""
        return (F.relu(torch.addmm(self.from_glimpse(glimpse), state[0], self.from_hidden.T)),)


class LSTMCore(nn.Module):
    """f_h as one LSTM cell, as RAM used it for moving images; its state is H_t and a memory."""

    def __init__(self, glimpse: int, hidden: int):
        super().__init__()
        self.hidden_size = hidden
        self.cell = nn.LSTMCell(glimpse, hidden)

    def forward(self, glimpse: Tensor, state: State) -> State:
        """glimpse: (B, G). Returns the next state."""
        hidden, memory = state
        cell = self.cell  # written out: PyTorch's cell is slower on a processor in training
        gates = F.linear(glimpse, cell.weight_ih, cell.bias_ih) + F.linear(hidden, cell.weight_hh, cell.bias_hh)
        i, f, g, o = gates.chunk(4, -1)  # (B, D) each: input gate, forget gate, candidate, output gate
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory


CORES = {"relu": ReLUCore, "lstm": LSTMCore}


def scaled(filters: int, width: float) -> int:
    """A layer's number of filters in a network of `width`, a share of the full one; at least 1."""
    return max(1, round(filters * width))


class HeConv2d(nn.Conv2d):
    """A convolution that starts as He et al. (2015) propose: PyTorch's default fades signals by more than half per
    layer, and the deep networks of Table 3 have no normalisation that would bring them back."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.bias)


class HeLinear(nn.Linear):
    """A fully connected layer that starts so."""

    reset_parameters = HeConv2d.reset_parameters


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


def context_layers(hidden: int, classes: int, units: int = 256) -> nn.Sequential:
    """f_c: a fully connected layer with ReLU and one that gives class logits (ledger K4)."""
    return nn.Sequential(nn.Linear(hidden, units), nn.ReLU(), nn.Linear(units, classes))


def predicts(name: str) -> bool:
    """Whether a parameter of this name serves prediction, and not training alone, as f_c (Eq. 11), the baseline (Eq. 4)
    and the frozen Q-network (Eq. 8) do."""
    return not name.removeprefix("ram.").startswith(("context_network.", "baseline_network.", "topdown.target."))


def count_parameters(model: nn.Module) -> int:
    """Parameters that a prediction uses."""
    return sum(p.numel() for name, p in model.named_parameters() if predicts(name))
