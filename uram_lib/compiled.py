"""Loops compiled for the processor: what PyTorch says in many passes over memory, numba says in one.

Beside each stands PyTorch code that does the same. That is used until `use_loops` is called, as training on a processor
does, and where a gradient is asked for or seeds are side by side. The tests hold the two together.
"""

import functools
import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

in_use = False


def use_loops() -> None:
    """Use the compiled loops in this process from now on; without numba, stay with the PyTorch code and say so."""
    global in_use
    try:
        import numba  # noqa: F401
    except ImportError:
        warnings.warn("numba is not installed: training is slower, and otherwise the same", stacklevel=2)
    else:
        in_use = True


def patch(level: Tensor, first: Tensor, side: int, size: int) -> Tensor | None:
    """What `glimpse.interpolate` returns, or None where it has to do it itself."""
    if not (in_use and readable(level, first)):
        return None
    found = torch.empty(*level.shape[:2], size, size, dtype=level.dtype)
    compile_loop(fill_patch)(level.detach().numpy(), first.numpy(), side, found.numpy())
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


def canvases(
    digits: Tensor, own: Tensor, corner: Tensor, other: Tensor, window: Tensor, place: Tensor, side: int, piece: int
) -> Tensor | None:
    """What `data.clutter.paint` returns, or None where it has to do it itself."""
    if not (in_use and readable(digits)):
        return None
    found = torch.zeros(len(own), 1, side, side, dtype=torch.uint8)
    arrays = (t.numpy() for t in (digits[:, 0], own, corner, other, window, place, found[:, 0]))
    compile_loop(fill_canvases)(*arrays, piece)
    return found


def fill_canvases(
    digits: np.ndarray,
    own: np.ndarray,
    corner: np.ndarray,
    other: np.ndarray,
    window: np.ndarray,
    place: np.ndarray,
    found: np.ndarray,
    piece: int,
) -> None:
    """Add digits (N, 28, 28) and pieces of digits to `found` (B, side, side), black canvases; arguments of `paint`."""
    frame = digits.shape[-1]
    for b in range(len(own)):
        for i in range(frame):
            for j in range(frame):
                found[b, corner[b, 1] + i, corner[b, 0] + j] = digits[own[b], i, j]
        for p in range(other.shape[1]):
            for i in range(piece):
                for j in range(piece):
                    y, x = place[b, p, 1] + i, place[b, p, 0] + j
                    more = digits[other[b, p], window[b, p, 1] + i, window[b, p, 0] + j]
                    found[b, y, x] = min(int(found[b, y, x]) + int(more), 255)


def readable(*tensors: Tensor) -> bool:
    """Whether a compiled loop may read these: arrays in the processor's memory of which no gradient is asked."""
    return not any(
        t.device.type != "cpu"
        or (t.requires_grad and torch.is_grad_enabled())
        or torch._C._functorch.is_functorch_wrapped_tensor(t)
        for t in tensors
    )


@functools.cache
def compile_loop(loop: Callable) -> Callable:
    """`loop` as machine code, which is kept on disk, so that it is made once, where there is a folder for it."""
    import numba

    try:
        return numba.njit(loop, cache=True)
    except RuntimeError:
        return numba.njit(loop)
