"""What the lessons share: checked parameters, the embedded digits, a short training, the library's source.

The lessons run on the embedded digits at every preset, so that their stored outputs agree on every machine.
"""

import inspect
import textwrap
from dataclasses import dataclass

import torch
from IPython.display import Markdown

from uram_lib import data
from uram_lib.common import check
from uram_lib.config import Config
from uram_lib.data.base import Dataset
from uram_lib.experiments import PRESETS
from uram_lib.runs.machine import pick_device
from uram_lib.runs.plan import parse_seeds
from uram_lib.training import Trained, train

LONGER = 3  # a lesson's trainings last this many times as long at every preset but `smoke`


@dataclass(frozen=True)
class Settings:
    """A lesson's checked parameters. Prints as a line for the reader."""

    preset: str
    seeds: tuple[int, ...]
    device: torch.device

    def epochs(self, smoke: int) -> int:
        """How many epochs to train where the smoke preset trains `smoke`."""
        return smoke if self.preset == "smoke" else LONGER * smoke

    def __str__(self) -> str:
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"
        return f"preset {self.preset}, {seeds}, device {self.device.type}\n{data.BANNER}"


def parameters(preset: str, seeds, device: str) -> Settings:
    """Check what the `parameters` cell holds, as papermill passes anything. Raises UramError, naming what is valid."""
    check("preset", preset, PRESETS)
    return Settings(preset, parse_seeds(seeds), pick_device(device))


def digits() -> Dataset:
    """The embedded digits: 28 x 28, the digit in the middle."""
    return data.load(data.EMBEDDED)


def train_briefly(settings: Settings, seed: int, epochs: int, **changes) -> Trained:
    """Train a RAM on the embedded digits with the library's loop, for `epochs` at the smoke preset; returns it with its
    model on the CPU. changes: fields of `Config`, over a recipe for so few images."""
    recipe = {"model": "ram", "glimpses": 4, "patch_size": 8, "scales": 1, "batch_size": 32} | changes
    trained = train(Config(data.EMBEDDED, epochs=settings.epochs(epochs), **recipe), seed, digits(), settings.device)
    trained.model.cpu()
    return trained


def source(*objects: object) -> Markdown:
    """The source of functions, methods or classes as the library has it, to stand beneath their equations."""
    code = "\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in objects)
    return Markdown(f"```python\n{code}\n```")
