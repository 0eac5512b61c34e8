"""The models, and `build`, which makes the one that a configuration names."""

import torch
from torch import nn

from ..glimpse import GlimpseSensor
from ..seeding import DRAWING
from .baselines import FiveLayerCNN, FullyConnected, TwoLayerCNN
from .dram import DRAM
from .number_cnns import ElevenLayerCNN, TenLayerCNN
from .ram import RAM, Trajectory
from .topdown import TopDown, TopDownOutcome
from .unified import Unified
from .vgg import MLPVGG, VGG16, AttentiveVGG, FixedRollout, RandomGlimpseVGG, count_parameters, under

__all__ = [
    "DRAM",
    "MLPVGG",
    "RAM",
    "VGG16",
    "AttentiveVGG",
    "ElevenLayerCNN",
    "FiveLayerCNN",
    "FixedRollout",
    "FullyConnected",
    "GlimpseSensor",
    "RandomGlimpseVGG",
    "TenLayerCNN",
    "TopDown",
    "TopDownOutcome",
    "Trajectory",
    "TwoLayerCNN",
    "Unified",
    "bottom_up",
    "build",
    "under",
]

FEEDFORWARD = {"fc": FullyConnected, "cnn2": TwoLayerCNN, "cnn5": FiveLayerCNN}
ATTENTIVE = {"vgg16-attention": AttentiveVGG, "vgg16-random-glimpses": RandomGlimpseVGG}
NUMBER_CNNS = {"cnn10": TenLayerCNN, "cnn11": ElevenLayerCNN}


def build(config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The model of `config` (an `experiments.Config`) for images of (C, H, W); its weights are yet to be drawn,
    and its policy is as wide as at the end of training.

    Raises ValueError where VGG16 is asked to read images of another size than 32 x 32.
    """
    with DRAWING:  # every layer draws weights when it is made, if only to be drawn anew
        return _build(config, image_shape, classes)


def _build(config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    if config.model in FEEDFORWARD:
        return FEEDFORWARD[config.model](image_shape, classes)
    if config.model == "vgg16":
        return VGG16(image_shape, classes, config.width)
    if config.model in ATTENTIVE:
        return _attentive(config, image_shape, classes)
    if config.model == "vgg16-mlp":
        with torch.device("meta"):  # only to be counted
            size = count_parameters(_attentive(config, image_shape, classes))
        return MLPVGG(image_shape, classes, size, width=config.width)
    if config.model in NUMBER_CNNS:
        return NUMBER_CNNS[config.model](image_shape, classes, config.width)
    looking = {
        "glimpses": config.glimpses, "patch_size": config.patch_size, "scales": config.scales,
        "sigma": config.sigma_at(config.epochs), "context": config.context,
        "reinforce_into_core": config.reinforce_into_core,
    }  # fmt: skip
    if config.model == "dram":
        return DRAM(image_shape, classes, **looking, width=config.width)
    ram = RAM(image_shape, classes, **looking, core=config.core, start=config.start, standardise=config.standardise)
    if config.model == "ram":
        return ram
    return Unified(TopDown(image_shape, config.levels, hidden=config.q_hidden), ram, config.region_start == "centre")


def _attentive(config, image_shape: tuple[int, int, int], classes: int) -> AttentiveVGG:
    return ATTENTIVE.get(config.model, AttentiveVGG)(
        image_shape,
        classes,
        glimpses=config.glimpses,
        sigma=config.sigma_at(config.epochs),
        patch_size=config.patch_size,
        core=config.core,
        context=config.context,
        reinforce_into_core=config.reinforce_into_core,
        width=config.width,
    )


def bottom_up(model: nn.Module) -> RAM | None:
    """The recurrent attention model in `model`: itself, that of the unified model, or None of a feed-forward one."""
    return model.ram if isinstance(model, Unified) else model if isinstance(model, RAM) else None
