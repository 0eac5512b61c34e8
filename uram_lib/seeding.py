"""Random streams, each derived from one seed by name.

A stream depends on its seed and name alone, so rows with the same seed share all that they have in common, adding a
module changes no other draw, and a resumed run needs no stored generator state: it asks for the next epoch's streams.
"""

import hashlib
import threading

import torch
from torch import nn

# Layers draw their weights from the one generator of the process; no two threads (of a cluster's worker) may be at it.
DRAWING = threading.RLock()


def stream_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for the stream `names` (for example `"order", 12`) of run seed `seed`."""
    key = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1


def stream(seed: int, *names: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator for one named stream, on `device`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))


def initialise(model: nn.Module, seed: int) -> nn.Module:
    """Draw every layer's first weights, by its `reset_parameters`, from the stream of its name; returns the model."""
    with DRAWING, torch.random.fork_rng(devices=[]):
        for name, module in model.named_modules():
            if hasattr(module, "reset_parameters"):
                torch.manual_seed(stream_seed(seed, "init", name))
                module.reset_parameters()
    return model
