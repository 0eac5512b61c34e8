"""Testing a model: the mean policy from several start locations over a whole split (ledger B7)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import Split
from .glimpse import location_to_pixel
from .models import RAM, Trajectory
from .seeding import stream

BATCH = 500
EVALUATION_SEED = 0  # test-time draws do not depend on the run's seed, so that all rows see the same starts


def uniform_start(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) start locations, uniform over the image, as RAM starts."""
    return torch.rand(count, 2, generator=generator, device=generator.device) * 2 - 1


@dataclass(frozen=True)
class Evaluation:
    """correct: (S, N) bool for S start seeds; monte_carlo_correct: (N,) after averaging the S sampled rollouts, or
    None; the rest are means over images by glimpse (T,), empty for models without glimpses."""

    correct: Tensor
    monte_carlo_correct: Tensor | None
    glimpse_distance_px: list[float]
    patch_entropy_bits: list[float]
    blank_patch_percent: list[float]

    @property
    def error(self) -> float:
        """Percent, mean over start seeds."""
        return 100 * (1 - self.correct.float().mean().item())


@torch.no_grad()
def rollouts(model: RAM, images: Tensor, start_seed: int, sampled: bool = False) -> Trajectory:
    """Roll the policy out from uniform start `start_seed`, on all of `images` (N, C, H, W) in batches.

    The mean policy, or with `sampled` the Gaussian one. Returns the trajectory of all N.
    """
    generator = stream(EVALUATION_SEED, "start", start_seed)
    starts = uniform_start(len(images), generator).to(images.device)
    noise = None
    if sampled:
        generator = stream(EVALUATION_SEED, "policy", start_seed)
        noise = torch.randn(len(images), model.glimpses - 1, 2, generator=generator).to(images.device)
    parts = [
        model(images[i : i + BATCH], starts[i : i + BATCH], None if noise is None else noise[i : i + BATCH])
        for i in range(0, len(images), BATCH)
    ]
    return Trajectory(*(torch.cat(field) for field in zip(*parts, strict=True)))


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, start_seeds: int = 1, monte_carlo: bool = False) -> Evaluation:
    """Test `model` on all of `split`, in evaluation mode.

    start_seeds: rollouts an image, each from another uniform start; feed-forward models have one. monte_carlo: also
    classify by the mean class probability of as many sampled rollouts.
    """
    model.eval()
    images, labels = split.floats(), split.labels
    if not isinstance(model, RAM):
        logits = torch.cat([model(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
        return Evaluation((logits.argmax(-1) == labels)[None], None, [], [], [])
    correct, distances, entropies, blanks = [], [], [], []
    probability = 0
    for k in range(start_seeds):
        trajectory = rollouts(model, images, k)
        correct.append(trajectory.class_logits[:, -1].argmax(-1) == labels)
        pixels = location_to_pixel(trajectory.locations, *images.shape[-2:])  # (N, T, 2)
        distances.append((pixels - split.centres[:, None]).norm(dim=-1).mean(0))  # (T,)
        entropies.append(trajectory.patch_entropies.mean(0))
        blanks.append((trajectory.patch_entropies == 0).float().mean(0) * 100)
        if monte_carlo:
            probability = probability + rollouts(model, images, k, sampled=True).class_logits[:, -1].softmax(-1)
    mean = lambda parts: torch.stack(parts).mean(0).tolist()  # noqa: E731
    return Evaluation(
        torch.stack(correct),
        probability.argmax(-1) == labels if monte_carlo else None,
        mean(distances),
        mean(entropies),
        mean(blanks),
    )
