"""The top-down model (§4.1, Eq. 6-9): Q-learning over an image pyramid chooses the region in which RAM starts.

An image is divided into 2 x 2 regions (a reading has 3 x 3), numbered row by row; the chosen one is divided again on
the next, finer level. Randomness comes in as tensors, as for RAM.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 2  # regions per side, so A = 4


class TopDownOutcome(NamedTuple):
    """One descent through L levels, for each image."""

    actions: Tensor  #: (B, L), int64 in {0, ..., A - 1}: the region chosen at each level
    values: Tensor  #: (B, L, A): Q(s_l, a; theta_q) of all regions
    next_values: Tensor  #: (B, L - 1): max_a Q(s_{l+1}, a) of the frozen network, without gradient
    region: Tensor  #: (B, 2, 2): the last region's top left and bottom right corners, locations, x then y
    start: Tensor  #: (B, 2): L_0, in the last region, x then y


def pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """The image pyramid of `levels` tensors, coarsest first; the last is the images, (B, C, H, W), and a pixel of each
    level the mean of 2 x 2 of the next. H and W are divisible by 2**(levels - 1)."""
    found = [images]
    for _ in range(levels - 1):
        found.insert(0, F.avg_pool2d(found[0], 2))
    return found


def grid(images: Tensor) -> Tensor:
    """View (..., H, W) with even H and W as its 2 x 2 regions: (..., 2, H / 2, 2, W / 2)."""
    height, width = images.shape[-2:]
    return images.unflatten(-1, (2, width // 2)).unflatten(-3, (2, height // 2))


def chosen_region(images: Tensor, action: Tensor) -> Tensor:
    """images: (B, C, H, W); action: (B,) in {0, 1, 2, 3}. Returns each image's own region, (B, C, H / 2, W / 2)."""
    regions = grid(images).transpose(-3, -2).flatten(-4, -3)  # (B, C, 4, H / 2, W / 2)
    return regions.take_along_dim(action[:, None, None, None, None], 2)[:, :, 0]


def rectangle(actions: Tensor, dtype: torch.dtype = torch.float32, side: int = SIDE) -> Tensor:
    """The region of the canvas that choices (B, L) in {0, ..., side**2 - 1}, coarsest level first, lead to: (B, 2, 2),
    its top left and bottom right corner in [-1, 1], x then y. It holds its top and left edge, but not the others."""
    steps = torch.stack((actions % side, actions // side), -1).to(dtype)  # (B, L, 2): column and row
    levels = torch.arange(1, actions.shape[1] + 1, dtype=dtype, device=actions.device)
    sides = 2 / side**levels  # (L,): a region's side at each level, of the 2 of [-1, 1]
    corner = (steps * sides[:, None]).sum(1) - 1  # (B, 2)
    return torch.stack((corner, corner + sides[-1]), 1)


def actions_to(location: Tensor, levels: int, side: int = SIDE) -> Tensor:
    """The inverse of `rectangle`: the choices, (B, levels), to the region that holds a location (B, 2), x then y."""
    cells = side**levels
    cell = ((location + 1) / 2 * cells).long().clamp(0, cells - 1)  # (B, 2): column and row among all cells
    place = side ** torch.arange(levels - 1, -1, -1, device=location.device)  # (levels,): of the digits to base `side`
    column, row = (cell[:, :, None] // place % side).unbind(1)  # (B, L) each
    return side * row + column


def place_within(region: Tensor, within: Tensor | float) -> Tensor:
    """A location (B, 2) in each region of `rectangle` (ledger A7). within: (B, 2) in [0, 1), x then y, the share of its
    width and height that lies before it; uniform draws give a uniform location, 0.5 the centre."""
    top_left, bottom_right = region.unbind(1)  # (B, 2) each
    return top_left + within * (bottom_right - top_left)


class QNetwork(nn.Module):
    """Q(s, a; theta_q): a 3 x 3 convolution, the mean of each region, one fully connected layer: the paper's "two-layer
    neural network (one convolution layer followed with fully connected layer)" (Eq. 6-7; ledger A6).

    Parameters: N (9 C + 1) for N features of C channels, and A (A N + 1).
    """

    def __init__(self, channels: int, features: int = 16, side: int = SIDE):
        super().__init__()
        self.side = side
        self.convolution = nn.Conv2d(channels, features, 3, padding=1)
        self.values = nn.Linear(side**2 * features, side**2)

    def region_vectors(self, image: Tensor) -> Tensor:
        """v_1 ... v_A of Eq. 6: (B, A, N), from images (B, C, h, w). Where `side` does not divide h or w, regions
        share the rows and columns between them."""
        features = F.relu(self.convolution(image))  # (B, N, h, w)
        if self.side == SIDE:  # the gradient of `mean` would make a training step a tenth longer
            means = grid(features).sum((-3, -1)) / (features[0, 0].numel() / 4)
        else:
            means = F.adaptive_avg_pool2d(features, self.side)
        return means.flatten(2).transpose(1, 2)

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, C, h, w) in [0, 1], what is seen at one level. Returns the values of its regions, (B, A)."""
        return self.values(self.region_vectors(image).flatten(1))  # Eq. 7: s has A N values


class TopDown(nn.Module):
    """L = `levels` choices of one region out of side x side, each on a level of the pyramid, by one network.

    The pyramid has two levels, as in §5, the half-resolution image and the image itself, and more only where there are
    more choices. With L = 1 the one choice is made on the half-resolution image; with L = 2 the second is made on the
    chosen quarter of the image itself (ledger A1). What is seen has the same size at each level.

    `target` is the frozen network of Eq. 8 (ledger A3). It follows only when `sync_target` is called, which belongs
    after the weights are drawn, too. With L = 1 it is never asked.
    Raises ValueError where 2**max(L, 2) does not divide H and W of image_shape (C, H, W).
    """

    def __init__(self, image_shape: tuple[int, int, int], levels: int = 1, side: int = SIDE, behaviour="epsilon"):
        super().__init__()
        channels, height, width = image_shape
        self.levels, self.pyramid_levels, self.side, self.behaviour = levels, max(levels, 2), side, behaviour
        whole = 2**self.pyramid_levels
        if height % whole or width % whole:
            raise ValueError(f"{levels} levels need an image whose sides {whole} divides, got {height} x {width}")
        self.online = QNetwork(channels, side=side)
        self.target = QNetwork(channels, side=side).requires_grad_(False)
        self.sync_target()

    def sync_target(self) -> None:
        """Copy the weights of the online network into the frozen one."""
        self.target.load_state_dict(self.online.state_dict())

    def forward(
        self,
        images: Tensor,
        within: Tensor | float = 0.5,
        explore: Tensor | None = None,
        epsilon: Tensor | float | None = None,
    ) -> TopDownOutcome:
        """images: (B, C, H, W) in [0, 1]; within: where in the last region to start, as for `place_within`.

        explore: (B, L, 2) uniform in [0, 1), for training with `epsilon` in [0, 1], of shape () or (B,): where the
        first number is below epsilon, the second picks the region; elsewhere, and without `explore`, as in testing, it
        is arg max Q (ledger A5). With the behaviour `softmax` the second number picks by softmax(Q); with `greedy` both
        are ignored. Raises ValueError for `explore` without `epsilon` or of another shape.
        """
        shape = (len(images), self.levels, 2)
        if explore is not None and (epsilon is None or explore.shape != shape):
            raise ValueError(f"explore must be {shape} and come with epsilon, got {tuple(explore.shape)}")
        finer = pyramid(images, self.pyramid_levels)[: self.levels]
        actions, values, next_values = [], [], []
        for level in range(self.levels):
            image, *finer = finer  # (B, C, h, w), s_l
            values.append(self.online(image))
            if level > 0:
                next_values.append(self.target(image).detach().amax(-1))
            action = values[-1].argmax(-1)  # (B,)
            if explore is not None and self.behaviour != "greedy":
                action = self.explored(action, values[-1].detach(), explore[:, level], epsilon)
            actions.append(action)
            finer = [chosen_region(image, action) for image in finer]
        actions, values = torch.stack(actions, 1), torch.stack(values, 1)
        next_values = torch.stack(next_values, 1) if next_values else images.new_zeros(len(images), 0)
        region = rectangle(actions, images.dtype, self.side)
        return TopDownOutcome(actions, values, next_values, region, place_within(region, within))

    def explored(self, best: Tensor, values: Tensor, explore: Tensor, epsilon: Tensor | float) -> Tensor:
        """The region that training takes, (B,). best: (B,), arg max of the values (B, A); explore: (B, 2)."""
        chance, pick = explore.unbind(-1)  # (B,) each
        if self.behaviour == "softmax":
            return (values.softmax(-1).cumsum(-1) < pick[:, None]).sum(-1).clamp(max=self.side**2 - 1)
        return torch.where(chance < epsilon, (pick * self.side**2).long(), best)
