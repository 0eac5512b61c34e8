"""The models, and `build`, which makes the one that a configuration names."""

from torch import nn

from ..glimpse import GlimpseSensor
from .baselines import FullyConnected, TwoLayerCNN
from .ram import RAM, Trajectory

__all__ = ["RAM", "FullyConnected", "GlimpseSensor", "Trajectory", "TwoLayerCNN", "build"]

FEEDFORWARD = {"fc": FullyConnected, "cnn2": TwoLayerCNN}


def build(config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The model of `config` (an `experiments.Config`) for images of (C, H, W); its weights are yet to be drawn."""
    if config.model in FEEDFORWARD:
        return FEEDFORWARD[config.model](image_shape, classes)
    return RAM(
        image_shape,
        classes,
        glimpses=config.glimpses,
        patch_size=config.patch_size,
        scales=config.scales,
        sigma=config.sigma,
        core=config.core,
        context=config.context,
        reinforce_into_core=config.reinforce_into_core,
    )
