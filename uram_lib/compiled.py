"""Loops compiled for the processor: what PyTorch says in many passes over memory, numba says in one.

Beside each stands PyTorch code that does the same. That is used on an accelerator, where a gradient is asked for, for
seeds side by side, and where numba is not installed. The tests hold the two together.
"""

import functools
import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def patch(level: Tensor, first: Tensor, side: int, size: int) -> Tensor | None:
    """What `glimpse.interpolate` returns, or None where it has to do it itself."""
    if not readable(level, first) or (look := compile_loop(fill_patch)) is None:
        return None
    found = torch.empty(*level.shape[:2], size, size, dtype=level.dtype)
    look(level.detach().numpy(), first.numpy(), side, found.numpy())
    return found


def fill_patch(level: np.ndarray, first: np.ndarray, side: int, found: np.ndarray) -> None:
    """Fill `found` (B, C, g, g) from `level` (B, C, H, W); first: (B, 2), x then y, of each image's top left entry."""
    images, channels, height, width = level.shape
    size = found.shape[-1]
    for b in range(images):
        left, top = math.floor(first[b, 0]), math.floor(first[b, 1])
        right_share, low_share = first[b, 0] - left, first[b, 1] - top
        for c in range(channels):
            for i in range(size):
                y = top + i * side
                for j in range(size):
                    x = left + j * side
                    high = high_right = low = low_right = level[0, 0, 0, 0] * 0  # zeros of the level's own type
                    if 0 <= x < width:
                        if 0 <= y < height:
                            high = level[b, c, y, x]
                        if 0 <= y + 1 < height:
                            low = level[b, c, y + 1, x]
                    if 0 <= x + 1 < width:
                        if 0 <= y < height:
                            high_right = level[b, c, y, x + 1]
                        if 0 <= y + 1 < height:
                            low_right = level[b, c, y + 1, x + 1]
                    high += right_share * (high_right - high)
                    low += right_share * (low_right - low)
                    found[b, c, i, j] = high + low_share * (low - high)


def readable(*tensors: Tensor) -> bool:
    """Whether a compiled loop may read these: arrays in the processor's memory of which no gradient is asked."""
    return not any(
        t.device.type != "cpu"
        or (t.requires_grad and torch.is_grad_enabled())
        or torch._C._functorch.is_functorch_wrapped_tensor(t)
        for t in tensors
    )


@functools.cache
def compile_loop(loop: Callable) -> Callable | None:
    """`loop` as machine code, kept on disk where that is possible; None, with a notice, where numba is missing."""
    try:
        import numba
    except ImportError:
        warnings.warn("numba is not installed: training is slower, and otherwise the same", stacklevel=2)
        return None
    try:
        return numba.njit(loop, cache=True)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(loop)
