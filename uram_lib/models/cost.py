"""What a prediction costs: the paper argues that attention needs fewer parameters and less work (§5, Table 3)."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def multiply_adds(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of the matrix products and convolutions in one forward pass for one image of (C, H, W).

    For models that take images alone. Of a reader of numbers these are all its glimpses, as many as the longest takes.
    """
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *image_shape))
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two
