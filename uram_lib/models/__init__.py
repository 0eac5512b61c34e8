"""The models, and `build`, which makes the one that a configuration names."""

import torch

from ..seeding import DRAWING
from .dram import DRAM
from .feedforward import ElevenLayerCNN, FiveLayerCNN, FullyConnected, TenLayerCNN, TwoLayerCNN
from .layers import Model, Reading, Trajectory, count_parameters
from .ram import RAM
from .topdown import TopDown
from .unified import Unified
from .vgg import MLPVGG, VGG16, AttentiveVGG, RandomGlimpseVGG

__all__ = ["DRAM", "RAM", "VGG16", "Model", "Reading", "TopDown", "Trajectory", "Unified", "build", "count_parameters"]

FEEDFORWARD = {"fc": FullyConnected, "cnn2": TwoLayerCNN, "cnn5": FiveLayerCNN}
WIDE = {"cnn10": TenLayerCNN, "cnn11": ElevenLayerCNN, "vgg16": VGG16}
ATTENTIVE = {"vgg16-attention": AttentiveVGG, "vgg16-random-glimpses": RandomGlimpseVGG}
LOOKING = ("core", "reinforce_into_core", "start", "standardise", "forget_bias", "location_scale", "bounded_mean",
           "initial_hidden", "entropy_threshold", "entropy_scales")  # fmt: skip


def build(config, image_shape: tuple[int, int, int], classes: int) -> Model:
    """The model of `config` (a `Config`) for images of (C, H, W); its weights are yet to be drawn, and its policy is as
    wide as at the end of training.

    Raises ValueError where the model cannot read images of that size.
    """
    with DRAWING:  # every layer draws weights when it is made, if only to be drawn anew
        return _build(config, image_shape, classes)


def _build(config, image_shape: tuple[int, int, int], classes: int) -> Model:
    if config.model in FEEDFORWARD:
        return FEEDFORWARD[config.model](image_shape, classes)
    if config.model in WIDE:
        return WIDE[config.model](image_shape, classes, config.width)
    sigma, settings = config.at(config.epochs).sigma, {name: getattr(config, name) for name in LOOKING}
    settings["context"] = config.context != "none"
    sizes = (image_shape, classes, config.glimpses, sigma, config.patch_size, config.width)
    if config.model in ATTENTIVE:
        return ATTENTIVE[config.model](*sizes, **settings)
    if config.model == "vgg16-mlp":
        with torch.device("meta"):  # only to be counted
            size = count_parameters(AttentiveVGG(*sizes, **settings))
        return MLPVGG(image_shape, classes, size, width=config.width)
    sizes = (image_shape, classes, config.glimpses, config.patch_size, config.scales, sigma)
    if config.model == "dram":
        own = {name: value for name, value in settings.items() if name not in ("core", "standardise")}
        return DRAM(*sizes, width=config.width, **own)
    ram = RAM(*sizes, **settings)
    if config.model == "ram":
        return ram
    topdown = TopDown(image_shape, config.levels, side=config.regions, behaviour=config.behaviour)
    return Unified(topdown, ram, config.region_start == "centre")
