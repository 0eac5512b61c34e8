"""Loops compiled for the processor: what PyTorch says in many passes over memory, numba says in one.

Beside each stands PyTorch code that does the same. That is used until `use_loops` is called, as training on a processor
does, and where seeds are side by side or a gradient is asked for that the loop does not give. The tests hold the two
together.
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


def region_means(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor | None:
    """The means over each of 2 x 2 regions of ReLU(convolution of 3 x 3), (B, 4, N): `QNetwork.region_vectors`, or None
    where it has to do that itself. image: (B, C, h, w) with even h and w; weight: (N, C, 3, 3); bias: (N,), both of
    which get gradients."""
    if not (in_use and readable(image) and readable(weight.detach(), bias.detach())):
        return None
    return RegionMeans.apply(image, weight, bias)


class RegionMeans(torch.autograd.Function):
    """`region_means` with its gradient. The features, 16 numbers a pixel, are never written to memory; the backward
    pass computes them again, which is cheaper than reading them."""

    @staticmethod
    def forward(ctx, image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(image, weight, bias)
        found = torch.empty(len(image), 4, len(weight), dtype=image.dtype)
        compile_loop(fill_region_means)(*(t.detach().numpy() for t in (image, weight, bias, found)))
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        image, weight, bias = (t.detach() for t in ctx.saved_tensors)
        d_weight, d_bias = torch.empty_like(weight), torch.empty_like(bias)
        arrays = (t.numpy() for t in (image, weight, bias, gradient.contiguous(), d_weight, d_bias))
        compile_loop(fill_region_gradients)(*arrays)
        return None, d_weight, d_bias


VECTOR = 8  # rows are padded to whole vectors of so many numbers


def fill_region_means(image: np.ndarray, weight: np.ndarray, bias: np.ndarray, found: np.ndarray) -> None:
    """Fill `found` (B, 4, N); arguments of `region_means`."""
    images, channels, height, width = image.shape
    length, middle = (width + VECTOR - 1) // VECTOR * VECTOR, width // 2
    padded = np.zeros((channels, height + 2, length + 2), image.dtype)
    row, column = np.empty(length, image.dtype), np.empty(length, image.dtype)
    for b in range(images):
        padded[:, 1 : height + 1, 1 : width + 1] = image[b]
        for n in range(len(weight)):
            for half in range(2):
                column[:] = 0
                for y in range(half * (height // 2), (half + 1) * (height // 2)):
                    row[:] = bias[n]
                    for c in range(channels):
                        for i in range(3):
                            left, centre, right = weight[n, c, i, 0], weight[n, c, i, 1], weight[n, c, i, 2]
                            line = padded[c, y + i]
                            for x in range(length):
                                row[x] += left * line[x] + centre * line[x + 1] + right * line[x + 2]
                    for x in range(length):
                        column[x] += max(row[x], 0)
                found[b, 2 * half, n] = column[:middle].sum() / (middle * (height // 2))
                found[b, 2 * half + 1, n] = column[middle:width].sum() / (middle * (height // 2))


def fill_region_gradients(
    image: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    gradient: np.ndarray,
    d_weight: np.ndarray,
    d_bias: np.ndarray,
) -> None:
    """Fill `d_weight` (N, C, 3, 3) and `d_bias` (N,), the gradients of a loss of which `gradient` (B, 4, N) is that
    with respect to the means."""
    images, channels, height, width = image.shape
    length, middle = (width + VECTOR - 1) // VECTOR * VECTOR, width // 2
    padded = np.zeros((channels, height + 2, length + 2), image.dtype)
    row, share = np.empty(length, image.dtype), np.zeros(length, image.dtype)
    # Sums over images and rows alone; those over a row's entries wait for the end, so that the loops are of vectors.
    sums, sums_bias = np.zeros((len(weight), channels, 3, 3, length), image.dtype), np.zeros_like(share)
    d_bias[:] = 0
    for b in range(images):
        padded[:, 1 : height + 1, 1 : width + 1] = image[b]
        for n in range(len(weight)):
            sums_bias[:] = 0
            for half in range(2):
                share[:middle] = gradient[b, 2 * half, n] / (middle * (height // 2))
                share[middle:width] = gradient[b, 2 * half + 1, n] / (middle * (height // 2))
                for y in range(half * (height // 2), (half + 1) * (height // 2)):
                    row[:] = bias[n]
                    for c in range(channels):
                        for i in range(3):
                            left, centre, right = weight[n, c, i, 0], weight[n, c, i, 1], weight[n, c, i, 2]
                            line = padded[c, y + i]
                            for x in range(length):
                                row[x] += left * line[x] + centre * line[x + 1] + right * line[x + 2]
                    for x in range(length):
                        row[x] = share[x] if row[x] > 0 else 0
                        sums_bias[x] += row[x]
                    for c in range(channels):
                        for i in range(3):
                            line = padded[c, y + i]
                            first, second, third = sums[n, c, i, 0], sums[n, c, i, 1], sums[n, c, i, 2]
                            for x in range(length):
                                first[x] += row[x] * line[x]
                                second[x] += row[x] * line[x + 1]
                                third[x] += row[x] * line[x + 2]
            d_bias[n] += sums_bias.sum()
    for n in range(len(weight)):
        for c in range(channels):
            for i in range(3):
                for j in range(3):
                    d_weight[n, c, i, j] = sums[n, c, i, j].sum()


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
