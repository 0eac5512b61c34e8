"""What tests of models share: draws from named streams, a small reader of numbers, and equality of weights."""

import torch
from torch import Tensor

from uram_lib.config import Config
from uram_lib.models import DRAM, Model
from uram_lib.seeding import stream
from uram_lib.training import STREAMS

SHAPE = (3, 31, 45)  # not square, so that x and y cannot be swapped unseen


def streams(seed: int = 0, epoch: int = 1) -> dict[str, torch.Generator]:
    """The streams that training opens in an epoch."""
    return {name: stream(seed, name, epoch) for name in STREAMS}


def drawn(model: Model, count: int, sampled: bool = True, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What rollouts of `count` images draw; the chooser explores every other time."""
    found = model.draws(count, streams(), torch.full((count, 2), 14.0), sampled, epsilon=0.5)
    return {name: value.to(dtype) for name, value in found.items()}


def small_dram(seed: int = 0, **changes) -> DRAM:
    """A reader whose sizes all differ, so that swapped arguments cannot hide; two glimpses per place."""
    sizes = {"glimpses": 12, "patch_size": 9, "scales": 2, "width": 0.05, "reward": "whole"} | changes
    return DRAM(Config("digits", "dram", 1, **sizes), SHAPE, 11).initialise(seed)


def equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models are the same bit for bit."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
