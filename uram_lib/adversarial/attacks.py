"""L-infinity attacks on image classifiers (paper Eq. 15; ledger H), and training against them.

A model here is any function from images (B, C, H, W) in [0, 1] to class logits (B, K); one that draws at random becomes
a function `Under` fixed draws. If it returns (S, B, K), those of S draws, it is attacked on average over them:
expectation over transformation, EOT (Athalye et al., 2018). A module is `frozen` while it is attacked.

Every attack takes labels (B,) and epsilon in units of [0, 1], and returns images (B, C, H, W) within epsilon of the
clean ones in every pixel, and within [0, 1]. It raises ValueError for an epsilon outside [0, 1], for images that are
none or not floats in [0, 1], and for counts below 1.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..config import ATTACK_RADIUS, Config, Protocol
from ..data.base import Split
from ..evaluation import draws_in_testing, stratified
from ..models.layers import Draws, Model, Streams

Classifier = Callable[[Tensor], Tensor]

# Rounding x + radius to float32, and the radius itself, errs by half as much each: no sum ever leaves the ball.
ROUNDING = 2**-24
SHIFT = 4  # pixels of black around an image before it is cropped again
FAST_STEP = 1.25  # in epsilons, from a random start (Wong et al., 2020)
CHOICE_IMAGES, CHOICE_STEPS = 1_000, 5  # validation images and PGD's steps that an epoch is chosen by


class Under(nn.Module):
    """`model` under fixed draws, those of the very images it will be asked about. paths: options of its rollout."""

    def __init__(self, model: Model, draws: Draws, **paths):
        super().__init__()
        self.model, self.draws, self.paths = model, draws, paths

    def forward(self, images: Tensor) -> Tensor:
        """Class logits after the last glimpse, (B, K); (S, B, K) under draws of S rollouts per image."""
        logits = self.model.rollout(images, self.draws, **self.paths).class_logits[:, -1]  # (S * B, K)
        return logits.unflatten(0, (-1, len(images))) if len(logits) > len(images) else logits


cross_entropy = partial(F.cross_entropy, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best wrong logit less the true one, (B,): positive where the answer is wrong (Carlini and Wagner, 2017).
    As a loss it has a gradient where the model is sure and that of cross entropy underflows to 0."""
    true = labels[:, None]  # (B, 1)
    return logits.scatter(1, true, -math.inf).amax(1) - logits.gather(1, true)[:, 0]


@contextlib.contextmanager
def frozen(model: Classifier) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters, if `model` is a module; afterwards all is as it was."""
    before = []
    if isinstance(model, nn.Module):
        before = [(module, "training", module.training) for module in model.modules()]
        before += [(parameter, "requires_grad", parameter.requires_grad) for parameter in model.parameters()]
    try:
        for owner, name, _ in before:
            setattr(owner, name, False)
        yield
    finally:
        for flag in before:
            setattr(*flag)


def at_least_one(**counts: int) -> None:
    """Raise ValueError for a count below 1, naming it."""
    for name, count in counts.items():
        if not count >= 1:  # also refuses nan
            raise ValueError(f"{name} must be at least 1, got {count}")


def ball(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The lowest and highest values allowed, each (B, C, H, W): within epsilon of the images and within [0, 1]."""
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must be from 0 to 1, in units of the images' range, got {epsilon}")
    if not len(images):
        raise ValueError("there is no image to attack")
    if not images.is_floating_point() or not ((images >= 0) & (images <= 1)).all():
        raise ValueError("images must be floats in [0, 1]")
    radius = max(epsilon - ROUNDING, 0.0)
    return (images - radius).clamp_min(0), (images + radius).clamp_max(1)


def look(
    model: Classifier, images: Tensor, labels: Tensor, loss: Callable = cross_entropy, ascend: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The margin at the images, (B,), and with `ascend` the loss's gradient in them, (B, C, H, W); means over draws."""
    with frozen(model), torch.set_grad_enabled(ascend):
        point = images.detach().requires_grad_(ascend)
        logits = model(point)  # (B, K) or (S, B, K)
        draws = logits.numel() // (len(labels) * logits.shape[-1])  # S
        flat, repeated = logits.reshape(-1, logits.shape[-1]), labels.repeat(draws)  # (S * B, K), (S * B,)
        gradient = None
        if ascend:
            losses = loss(flat, repeated).view(draws, -1).mean(0)  # (B,)
            (gradient,) = torch.autograd.grad(losses.sum(), point)
    return margin(flat.detach(), repeated).view(draws, -1).mean(0), gradient


def fgsm(
    model: Classifier, images: Tensor, labels: Tensor, epsilon: float, generator: Generator | None = None
) -> Tensor:
    """One step of epsilon along the sign of the gradient (Goodfellow et al., 2015). With a generator it begins at a
    uniform place of the ball and is longer, as in fast adversarial training (Wong et al., 2020)."""
    size = epsilon if generator is None else FAST_STEP * epsilon
    return pgd(model, images, labels, epsilon, 1, generator=generator, step_size=size, last=True)


def literal_pgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int = Protocol.steps,
    gradient_at: str = "x",
) -> Tensor:
    """Paper Eq. 15 with its own step size: x^{t+1} = Pi_{x+S}(x^t + epsilon sign(grad l)), the last x (ledger H1). Of
    Eq. 14, the paper's l, the loss is the first term. gradient_at: "x", as printed, where all steps have one direction
    and the result is FGSM's; or "x^t", as Madry et al. (2018) mean it, where a step crosses half the ball."""
    if gradient_at not in ("x", "x^t"):
        raise ValueError(f"unknown place of the gradient {gradient_at!r}; one of: x, x^t")
    at_least_one(steps=steps)
    return pgd(model, images, labels, epsilon, steps if gradient_at == "x^t" else 1, step_size=epsilon, last=True)


def pgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int = Protocol.steps,
    generator: Generator | None = None,
    step_size: float | None = None,
    loss: Callable = cross_entropy,
    last: bool = False,
) -> Tensor:
    """Projected gradient ascent (Madry et al., 2018), what Eq. 15 intends: gradient at x^t, small steps (ledger H1). It
    begins at the clean images, or with a generator at a uniform place of the ball. step_size: default
    2.5 epsilon / steps; loss: `cross_entropy` or `margin`. Returns for each image the point of the largest margin among
    the steps + 1, since an image is broken if any point breaks it; with `last` the last point."""
    at_least_one(steps=steps)
    low, high = ball(images, epsilon)
    step_size = 2.5 * epsilon / steps if step_size is None else step_size
    point, best, best_margin = images, images, images.new_full((len(images),), -math.inf)
    if generator is not None:
        uniform = torch.rand(images.shape, generator=generator, device=generator.device).to(images)
        point = (images + epsilon * (2 * uniform - 1)).clamp(low, high)
    for _ in range(steps):
        found, gradient = look(model, point, labels, loss)
        best, best_margin = better(best, best_margin, point, found)
        point = (point + step_size * gradient.sign()).clamp(low, high)
    return point if last else better(best, best_margin, point, look(model, point, labels, ascend=False)[0])[0]


def better(best: Tensor, best_margin: Tensor, point: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """The images (B, C, H, W) of the larger margin (B,), each of `best` or of `point`, and that margin."""
    wins = found > best_margin  # (B,)
    return torch.where(wins[:, None, None, None], point, best), torch.where(wins, found, best_margin)


def random_signs(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator, device=generator.device).to(like) * 2 - 1


def sign_noise(model, images: Tensor, labels, epsilon: float, generator: Generator) -> Tensor:
    """The control that asks no model: each value moved by +epsilon or -epsilon at random."""
    low, high = ball(images, epsilon)
    return (images + epsilon * random_signs(images.shape, images, generator)).clamp(low, high)


# Square attack: the share of the image that a square covers is halved after each of these shares of the queries.
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square(
    model: Classifier, images: Tensor, labels: Tensor, epsilon: float, generator: Generator, queries: int = 1000
) -> Tensor:
    """Square attack (Andriushchenko et al., 2020): random search on the margin, blind to gradients. It begins with
    vertical stripes at +-epsilon; each query moves one square of every image to +-epsilon, a sign per channel, and
    keeps it where the margin grows. Squares cover 0.8 of the image at first, then shrink."""
    at_least_one(queries=queries)
    low, high = ball(images, epsilon)
    batch, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device)[:, None]  # (H, 1)
    columns = torch.arange(width, device=images.device)  # (W,)
    best = (images + epsilon * random_signs((batch, channels, 1, width), images, generator)).clamp(low, high)
    best_margin = look(model, best, labels, ascend=False)[0]  # (B,)
    for query in range(1, queries):
        if (best_margin > 0).all():
            break
        area = 0.8 * height * width / 2 ** sum(query > limit * queries for limit in HALVINGS)
        side = min(max(round(math.sqrt(area)), 1), height, width)
        corner = torch.rand(2, batch, 1, 1, 1, generator=generator, device=generator.device).to(images)
        top, left = (corner[0] * (height - side + 1)).long(), (corner[1] * (width - side + 1)).long()
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)  # (B, 1, H, W)
        moved = (images + epsilon * random_signs((batch, channels, 1, 1), images, generator)).clamp(low, high)
        candidate = torch.where(inside, moved, best)
        best, best_margin = better(best, best_margin, candidate, look(model, candidate, labels, ascend=False)[0])
    return best


def augmented(images: Tensor, generator: Generator) -> Tensor:
    """Images (B, C, H, W) shifted by up to `SHIFT` pixels along each axis, black coming in, half of them mirrored."""
    batch, _, height, width = images.shape
    arange = partial(torch.arange, device=images.device)
    corner = torch.randint(2 * SHIFT + 1, (batch, 2, 1), generator=generator, device=images.device)
    mirror = torch.randint(2, (batch, 1), generator=generator, device=images.device).bool()
    x = corner[:, 0] + torch.where(mirror, width - 1 - arange(width), arange(width))  # (B, W)
    y = corner[:, 1] + arange(height)  # (B, H)
    shifted = F.pad(images, [SHIFT] * 4).movedim(1, -1)[arange(batch)[:, None, None], y[:, :, None], x[:, None]]
    return shifted.movedim(-1, 1).contiguous()


def prepared(model: Model, config: Config, images: Tensor, labels: Tensor, draws: Draws, streams: Streams) -> Tensor:
    """Training images (B, C, H, W), augmented and attacked as `config`, that of the epoch, says. draws: those of the
    training step: the attack goes through what the step will see. Streams do not depend on the model, so rows of one
    seed share shifts and starts; an image's perturbation does not depend on its neighbours."""
    if config.augment:
        images = augmented(images, streams["augment"])
    if config.attack == "none":
        return images
    attack = fgsm if config.attack == "fast" else partial(pgd, steps=config.attack_steps)
    victim = Under(model, draws, sigma=config.sigma)
    return attack(victim, images, labels, ATTACK_RADIUS, generator=streams["attack"])


def robust_error(model: Model, split: Split) -> float:
    """Percent of `CHOICE_IMAGES` images of `split` that are wrong under PGD of `CHOICE_STEPS` steps: what an epoch of
    adversarial training is chosen by. The same images and draws for all rows; not what a table reports."""
    chosen = split.at(stratified(split.labels, CHOICE_IMAGES))
    images = chosen.floats()
    victim = Under(model, draws_in_testing(model, images, centres=chosen.centres))
    found = pgd(victim, images, chosen.labels, ATTACK_RADIUS, CHOICE_STEPS)
    with frozen(victim), torch.no_grad():
        return 100 * (victim(found).argmax(-1) != chosen.labels).float().mean().item()
