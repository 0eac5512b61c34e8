"""Adversarial training (Table 4): the augmentation, the attack on each batch, and the error that an epoch is chosen by.

Rows that are compared share all of it: the images of a batch and how they are shifted come from streams that do not
depend on the model, and so does where the attack starts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attacks import fgsm, frozen, pgd
from .data import Split
from .evaluation import draws_in_testing, stratified
from .experiments import Config
from .models import under

SHIFT = 4  # pixels of black around an image before it is cropped again
FAST_STEP = 1.25  # in epsilons, from a random start (Wong et al., 2020)
CHOICE_IMAGES, CHOICE_STEPS = 1_000, 5  # validation images and PGD's steps that an epoch is chosen by


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) shifted by up to `SHIFT` pixels along each axis, black coming in, half of them mirrored."""
    batch, channels, height, width = images.shape
    device = images.device
    draw = lambda high, *shape: torch.randint(high, shape, generator=generator, device=device)  # noqa: E731
    corner, mirror = draw(2 * SHIFT + 1, batch, 2, 1), draw(2, batch, 1).bool()
    column = torch.arange(width, device=device)
    x = corner[:, 0] + torch.where(mirror, width - 1 - column, column)  # (B, W)
    y = corner[:, 1] + torch.arange(height, device=device)  # (B, H)
    image = torch.arange(batch, device=device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return F.pad(images, [SHIFT] * 4)[image, channel, y[:, None, :, None], x[:, None, None, :]]


def attacked(
    model: nn.Module,
    config: Config,
    images: Tensor,
    labels: Tensor,
    draws: tuple[Tensor, ...],
    generator: torch.Generator,
) -> Tensor:
    """The batch as training sees it: within `config.attack_radius` of images (B, C, H, W), and within [0, 1].

    draws: those that the training step makes with the result, so for a model with attention the attack goes through its
    features and through the glimpses' pixels, with sampled locations. It raises the cross entropy of the last
    prediction, the first term of Eq. 14. Weights get no gradient. Batch normalisation stands in evaluation mode: the
    network that is attacked is the one that is tested, its running statistics see the step's images alone and not the
    attack's way there, and an image's perturbation does not depend on its neighbours.
    """
    victim = under(model, *draws)
    if config.attack == "fast":
        return fgsm(victim, images, labels, config.attack_radius, FAST_STEP * config.attack_radius, generator=generator)
    return pgd(victim, images, labels, config.attack_radius, config.attack_steps, generator=generator)


def prepared(
    model: nn.Module,
    config: Config,
    images: Tensor,
    labels: Tensor,
    draws: tuple[Tensor, ...],
    streams: dict[str, torch.Generator],
) -> Tensor:
    """Training images (B, C, H, W) augmented and attacked as `config` says, with draws of their own."""
    if config.augment:
        images = augmented(images, streams["augment"])
    if config.attack != "none":
        images = attacked(model, config, images, labels, draws, streams["attack"])
    return images


def robust_error(model: nn.Module, config: Config, split: Split) -> float:
    """Percent of `CHOICE_IMAGES` images of `split` that are wrong under PGD of `CHOICE_STEPS` steps: cheap, the same
    images and draws for all rows, and enough to see robustness collapse. Not what a table reports."""
    index = stratified(split.labels, CHOICE_IMAGES)
    images, labels = split.images[index].to(torch.float32) / 255, split.labels[index]
    victim = under(model, *draws_in_testing(model, images))
    found = pgd(victim, images, labels, config.attack_radius, CHOICE_STEPS)
    with frozen(victim), torch.no_grad():
        return 100 * (victim(found).argmax(-1) != labels).float().mean().item()
