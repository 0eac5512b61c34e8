"""The models, and `build`, which makes the one that a configuration names."""

from ..common import UramError
from ..seeding import DRAWING
from .dram import DRAM
from .feedforward import Classifier, NumberCNN
from .layers import Answer, Model, Trajectory, count_parameters
from .ram import RAM
from .topdown import TopDown
from .unified import Unified
from .vgg import MLPVGG, VGG16, AttentiveVGG, RandomGlimpseVGG

__all__ = ["DRAM", "RAM", "VGG16", "Answer", "Model", "TopDown", "Trajectory", "Unified", "build", "count_parameters"]

MODELS = {
    "fc": Classifier,
    "cnn2": Classifier,
    "cnn5": Classifier,
    "cnn10": NumberCNN,
    "cnn11": NumberCNN,
    "ram": RAM,
    "unified": Unified,
    "dram": DRAM,
    "vgg16": VGG16,
    "vgg16-attention": AttentiveVGG,
    "vgg16-random-glimpses": RandomGlimpseVGG,
    "vgg16-mlp": MLPVGG,
}


def build(config, image_shape: tuple[int, int, int], classes: int) -> Model:
    """The model of `config` (a `Config`) for images of (C, H, W); its weights are yet to be drawn.

    Raises UramError where the model cannot read images, or patches, of that size.
    """
    try:
        with DRAWING:  # every layer draws weights when it is made, if only to be drawn anew
            return MODELS[config.model](config, image_shape, classes)
    except ValueError as error:
        raise UramError(f"model={config.model} does not go with {config.dataset}: {error}") from error
