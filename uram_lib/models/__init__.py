"""The models, and `build`, which makes the one that a configuration names."""

import torch

from ..seeding import DRAWING
from .dram import DRAM
from .feedforward import ElevenLayerCNN, TenLayerCNN, five_layer_cnn, fully_connected, two_layer_cnn
from .layers import Model, Reading, Trajectory, count_parameters
from .ram import RAM
from .topdown import TopDown
from .unified import Unified
from .vgg import MLPVGG, VGG16, AttentiveVGG, RandomGlimpseVGG

__all__ = ["DRAM", "RAM", "VGG16", "Model", "Reading", "TopDown", "Trajectory", "Unified", "build", "count_parameters"]

FEEDFORWARD = {"fc": fully_connected, "cnn2": two_layer_cnn, "cnn5": five_layer_cnn}
WIDE = {"cnn10": TenLayerCNN, "cnn11": ElevenLayerCNN, "vgg16": VGG16}
ATTENTIVE = {"vgg16-attention": AttentiveVGG, "vgg16-random-glimpses": RandomGlimpseVGG}
# Fields of a configuration that are arguments of models with glimpses: how they look, how they learn, and RAM's own.
LOOKING = ("glimpses", "patch_size", "start", "initial_hidden", "entropy_threshold", "entropy_scales")
LEARNING = ("reinforce_into_core", "forget_bias", "location_scale", "bounded_mean")
OF_RAM = ("core", "standardise")


def build(config, image_shape: tuple[int, int, int], classes: int) -> Model:
    """The model of `config` (a `Config`) for images of (C, H, W); its weights are yet to be drawn, and its policy is as
    wide as at the end of training.

    Raises ValueError where the model cannot read images of that size.
    """
    name, width = config.model, config.width
    looking = {field: getattr(config, field) for field in LOOKING + LEARNING}
    looking |= {"sigma": config.at(config.epochs).sigma, "context": config.context != "none"}
    of_ram = {field: getattr(config, field) for field in OF_RAM}
    with DRAWING:  # every layer draws weights when it is made, if only to be drawn anew
        if name in FEEDFORWARD:
            return FEEDFORWARD[name](image_shape, classes)
        if name in WIDE:
            return WIDE[name](image_shape, classes, width)
        if name in ATTENTIVE:
            return ATTENTIVE[name](image_shape, classes, width=width, **looking, **of_ram)
        if name == "vgg16-mlp":
            with torch.device("meta"):  # only to be counted
                size = count_parameters(AttentiveVGG(image_shape, classes, width=width, **looking, **of_ram))
            return MLPVGG(image_shape, classes, size, width=width)
        looking["scales"] = config.scales
        if name == "dram":
            return DRAM(image_shape, classes, width=width, **looking)
        ram = RAM(image_shape, classes, **looking, **of_ram)
        if name == "ram":
            return ram
        topdown = TopDown(image_shape, config.levels, config.regions, config.behaviour)
        return Unified(topdown, ram, config.region_start == "centre")
