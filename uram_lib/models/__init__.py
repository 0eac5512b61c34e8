"""The models, and `build`, which makes the one that a configuration names."""

from torch import nn

from ..glimpse import GlimpseSensor
from .baselines import FiveLayerCNN, FullyConnected, TwoLayerCNN
from .ram import RAM, Trajectory
from .topdown import TopDown, TopDownOutcome
from .unified import Unified
from .vgg import MLPVGG, VGG16, AttentiveVGG, FixedRollout, RandomGlimpseVGG

__all__ = [
    "MLPVGG",
    "RAM",
    "VGG16",
    "AttentiveVGG",
    "FiveLayerCNN",
    "FixedRollout",
    "FullyConnected",
    "GlimpseSensor",
    "RandomGlimpseVGG",
    "TopDown",
    "TopDownOutcome",
    "Trajectory",
    "TwoLayerCNN",
    "Unified",
    "bottom_up",
    "build",
]

FEEDFORWARD = {"fc": FullyConnected, "cnn2": TwoLayerCNN, "cnn5": FiveLayerCNN}


def build(config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The model of `config` (an `experiments.Config`) for images of (C, H, W); its weights are yet to be drawn,
    and its policy is as wide as at the end of training."""
    if config.model in FEEDFORWARD:
        return FEEDFORWARD[config.model](image_shape, classes)
    ram = RAM(
        image_shape,
        classes,
        glimpses=config.glimpses,
        patch_size=config.patch_size,
        scales=config.scales,
        sigma=config.sigma_at(config.epochs),
        core=config.core,
        context=config.context,
        reinforce_into_core=config.reinforce_into_core,
        start=config.start,
        standardise=config.standardise,
    )
    if config.model == "ram":
        return ram
    return Unified(TopDown(image_shape, config.levels, hidden=config.q_hidden), ram, config.region_start == "centre")


def bottom_up(model: nn.Module) -> RAM | None:
    """The recurrent attention model in `model`: itself, that of the unified model, or None of a feed-forward one."""
    return model.ram if isinstance(model, Unified) else model if isinstance(model, RAM) else None
