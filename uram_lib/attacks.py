"""L-infinity attacks on image classifiers, worst-case robust accuracy, and warnings about weak evaluations (Eq. 15;
ledger H).

A model is any function from images (B, C, H, W) in [0, 1] to class logits (B, K). One that is an `nn.Module` is put in
evaluation mode, and its parameters get no gradients, while it is attacked (`frozen`); around any other callable do so
yourself. A randomised model is attacked over its draws (expectation over transformation, EOT; Athalye et al., 2018):
give a sequence of models, one a draw, or one model that draws anew whenever it is called, with `draws` calls a step, or
one whose logits are (S, B, K), of S draws at once.

Every attack returns images within `epsilon` of the clean ones in every pixel, and within [0, 1]. A transfer attack is
any of them run on another model; an attack through the features alone, on a model whose glimpse pixels are detached.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Model = Callable[[Tensor], Tensor]

# Rounding x + radius to float32, and the radius itself, errs by half as much each: no sum ever leaves the ball.
ROUNDING = 2**-24


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax of the true class, (B,). Where the model is sure, it and its gradient underflow to 0."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best wrong logit less the true one, (B,): positive where the prediction is wrong (Carlini and Wagner, 2017).
    Its gradient does not vanish where the model is sure."""
    true = labels[:, None]  # (B, 1)
    return logits.scatter(1, true, -math.inf).amax(1) - logits.gather(1, true)[:, 0]


LOSSES = {"cross-entropy": cross_entropy, "margin": margin}


@contextlib.contextmanager
def frozen(*models: Model) -> Iterator[None]:
    """Evaluation mode and no gradients for the parameters of those `models` that are modules; afterwards, also after
    an exception, all is as it was."""
    roots = [model for model in models if isinstance(model, nn.Module)]
    modules = {module: module.training for root in roots for module in root.modules()}
    parameters = {p: p.requires_grad for root in roots for p in root.parameters()}
    try:
        for module in modules:
            module.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modules.items():
            module.training = training
        for parameter, requires_grad in parameters.items():
            parameter.requires_grad_(requires_grad)


def ball(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The lowest and highest values allowed, each (B, C, H, W): within epsilon of the images and within [0, 1].

    Raises ValueError for a negative epsilon or images outside [0, 1].
    """
    if epsilon < 0:
        raise ValueError(f"epsilon must not be negative, got {epsilon}")
    if not ((images >= 0) & (images <= 1)).all():
        raise ValueError("images must lie in [0, 1]")
    radius = max(epsilon - ROUNDING, 0.0)
    return (images - radius).clamp_min(0), (images + radius).clamp_max(1)


class Point(NamedTuple):
    """Where an attack stands: the images, (B, C, H, W), and there, averaged over the model's draws, the loss and the
    margin, each (B,)."""

    images: Tensor
    loss: Tensor
    margin: Tensor


def _draws(model: Model | Sequence[Model], draws: int) -> list[Model]:
    """The models that one step asks."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    models = [model] * draws if callable(model) else list(model)
    if not models or (draws > 1 and not callable(model)):
        raise ValueError("give either one model and a number of draws, or a sequence of at least one model")
    return models


def _loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; one of: {', '.join(LOSSES)}")
    return LOSSES[name]


def _over_draws(criterion: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of `criterion` over the draws in logits, (B, K) or (S, B, K). Returns (B,)."""
    draws = logits.numel() // (len(labels) * logits.shape[-1])
    return criterion(logits.reshape(-1, logits.shape[-1]), labels.repeat(draws)).view(draws, -1).mean(0)


def _ascent(models: list[Model], images: Tensor, labels: Tensor, loss: str) -> tuple[Tensor, Point]:
    """The loss's gradient in the images, (B, C, H, W), and the point; means over `models`, one after the other."""
    criterion = _loss(loss)
    gradient, losses, margins = torch.zeros_like(images), 0.0, 0.0
    with frozen(*models), torch.enable_grad():
        point = images.detach().requires_grad_()
        for model in models:
            logits = model(point)  # (B, K) or (S, B, K)
            value = _over_draws(criterion, logits, labels)  # (B,)
            gradient += torch.autograd.grad(value.sum(), point)[0] / len(models)
            losses += value.detach() / len(models)
            margins += _over_draws(margin, logits.detach(), labels) / len(models)
    return gradient, Point(images, losses, margins)


@torch.no_grad()
def _measure(models: list[Model], images: Tensor, labels: Tensor, loss: str) -> Point:
    """The same point, without the cost of the gradient."""
    with frozen(*models):
        logits = [model(images) for model in models]
    losses, margins = (
        sum(_over_draws(criterion, values, labels) for values in logits) / len(models)
        for criterion in (_loss(loss), margin)
    )
    return Point(images, losses, margins)


def _uniform(images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """A uniform place around each of the images, (B, C, H, W), not yet clipped to [0, 1]."""
    uniform = torch.rand(images.shape, generator=generator, device=generator.device).to(images)
    return images + epsilon * (2 * uniform - 1)


def fgsm(
    model: Model | Sequence[Model],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    step_size: float | None = None,
    loss: str = "cross-entropy",
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One step, by default of size epsilon, along the sign of the gradient (Goodfellow et al., 2015).

    images: (B, C, H, W) in [0, 1]; labels: (B,); epsilon: in units of [0, 1]; loss: "cross-entropy" or "margin";
    generator: begin at a uniform place of the ball, as in fast adversarial training (Wong et al., 2020), not at the
    images. Returns (B, C, H, W). Raises ValueError for an unknown loss, a negative epsilon or images outside [0, 1].
    """
    low, high = ball(images, epsilon)
    start = images if generator is None else _uniform(images, epsilon, generator).clamp(low, high)
    gradient, _ = _ascent(_draws(model, draws), start, labels, loss)
    return (start + (epsilon if step_size is None else step_size) * gradient.sign()).clamp(low, high)


def literal_pgd(
    model: Model | Sequence[Model],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    loss: str = "cross-entropy",
    draws: int = 1,
) -> Tensor:
    """Eq. 15 by the letter: x^{t+1} = Pi_{x+S}(x^t + epsilon sign(grad l(x))), the gradient taken at x (ledger H1).

    The gradient stands at the clean x, not at x^t, so all steps point in one direction s = sign(grad l(x)). The first
    lands on Pi(x + epsilon s), where each pixel has reached the border of the ball or of [0, 1] on the side of s; the
    next ones push against that border and are projected back. So for steps >= 1 and a deterministic model the result
    is FGSM's, whatever the number of steps. Of Eq. 14, which the paper calls l, the attack takes the first term: what
    changes the prediction. Arguments and errors: of `fgsm`.
    """
    low, high = ball(images, epsilon)
    gradient, _ = _ascent(_draws(model, draws), images, labels, loss)  # of x, hence the same in every step
    point = images
    for _ in range(steps):
        point = (point + epsilon * gradient.sign()).clamp(low, high)
    return point


def pgd_path(
    model: Model | Sequence[Model],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    step_size: float | None = None,
    loss: str = "cross-entropy",
    start: Tensor | None = None,
    draws: int = 1,
) -> Iterator[Point]:
    """The steps + 1 points of one run of `pgd`, from `start` (default: the clean images) on, to be watched."""
    models, (low, high) = _draws(model, draws), ball(images, epsilon)
    step_size = 2.5 * epsilon / max(steps, 1) if step_size is None else step_size
    images = images if start is None else start.clamp(low, high)
    for _ in range(steps):
        gradient, point = _ascent(models, images, labels, loss)
        yield point
        images = (images + step_size * gradient.sign()).clamp(low, high)
    yield _measure(models, images, labels, loss)


def pgd(
    model: Model | Sequence[Model],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int = 30,
    step_size: float | None = None,
    loss: str = "cross-entropy",
    restarts: int = 1,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient ascent (Madry et al., 2018), Eq. 15 as intended: the gradient is taken at x^t (ledger H1).

    step_size: default 2.5 epsilon / steps. generator: each restart begins at a uniform place of the ball, drawn from
    it; without one, the single run begins at the clean images. Other arguments and errors: of `fgsm`; besides,
    ValueError for several restarts without a generator.
    Returns for each image the point of the largest margin among all points of all restarts, (B, C, H, W): so more
    restarts never do worse on a deterministic model, and an image is broken if any point breaks it.
    """
    if restarts < 1 or (restarts > 1 and generator is None):
        raise ValueError(f"restarts must be at least 1, and several need a generator; got {restarts}")
    best, best_margin = images, images.new_full((len(images),), -math.inf)
    for _ in range(restarts):
        start = None if generator is None else _uniform(images, epsilon, generator)
        for point in pgd_path(model, images, labels, epsilon, steps, step_size, loss, start, draws):
            better = point.margin > best_margin  # (B,)
            best = torch.where(better[:, None, None, None], point.images, best)
            best_margin = torch.where(better, point.margin, best_margin)
    return best


def sign_noise(images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """The control that knows nothing: each value moved by +epsilon or -epsilon at random. (B, C, H, W) in, and out."""
    low, high = ball(images, epsilon)
    return (images + epsilon * _signs(images.shape, images, generator)).clamp(low, high)


def _signs(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """+1 or -1, evenly at random."""
    return torch.randint(2, shape, generator=generator, device=generator.device).to(like) * 2 - 1


# Square attack: the share of the image that a square covers is halved after each of these shares of the queries.
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square(
    model: Model | Sequence[Model],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    generator: torch.Generator,
    queries: int = 1000,
    share: float = 0.8,
    draws: int = 1,
) -> Tensor:
    """Square attack (Andriushchenko et al., 2020): random search on the margin, blind to gradients.

    Begins with vertical stripes at +-epsilon; each query moves one square of every image to +-epsilon, a sign a
    channel, and keeps it where the margin grows. share: of the image that the first squares cover, shrinking as
    `HALVINGS` says. queries: how often the model is asked, each time `draws` times. Other arguments and errors: of
    `fgsm`. Returns (B, C, H, W).
    """
    low, high = ball(images, epsilon)
    models = _draws(model, draws)
    batch, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device)[:, None]  # (H, 1)
    columns = torch.arange(width, device=images.device)  # (W,)
    best = (images + epsilon * _signs((batch, channels, 1, width), images, generator)).clamp(low, high)
    best_margin = _measure(models, best, labels, "margin").margin  # (B,)
    for query in range(1, queries):
        if (best_margin > 0).all():
            break
        area = share * height * width / 2 ** sum(query > limit * queries for limit in HALVINGS)
        side = min(max(round(math.sqrt(area)), 1), height, width)
        corner = torch.rand(2, batch, 1, 1, 1, generator=generator, device=generator.device).to(images)
        top, left = (corner[0] * (height - side + 1)).long(), (corner[1] * (width - side + 1)).long()
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)  # (B, 1, H, W)
        moved = (images + epsilon * _signs((batch, channels, 1, 1), images, generator)).clamp(low, high)
        candidate = torch.where(inside, moved, best)
        candidate_margin = _measure(models, candidate, labels, "margin").margin
        better = candidate_margin > best_margin
        best = torch.where(better[:, None, None, None], candidate, best)
        best_margin = torch.where(better, candidate_margin, best_margin)
    return best


def robust_correct(
    model_for: Callable[[Tensor], Model],
    images: Tensor,
    labels: Tensor,
    attacks: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]],
    epsilon: float,
    batch_size: int = 500,
    skip_broken: bool = True,
) -> dict[str, Tensor]:
    """Which images are still classified rightly: by themselves, under each attack, and under the worst of all.

    model_for: of the (b,) indices of some images, the model that classifies them, with those images' own draws where
    it is randomised (`lambda index: network` where it is not). images: (N, C, H, W) in [0, 1]; labels: (N,).
    attacks: by name, functions of (images, labels, index), of b of the images, that return adversarial ones, like
    `lambda x, y, index: pgd(network, x, y, epsilon)`. They need not attack `model_for`'s model: see transfer.
    Returns (N,) bool each under "clean", the attacks' names, and "worst"; an image wrong when clean is wrong under all
    attacks. With `skip_broken` an attack sees only the images that all before it left standing and its vector is
    cumulative, which costs less and leaves "worst" the same; without, each attack is measured by itself.
    Raises ValueError where an attack leaves the ball or [0, 1], and for an attack named "clean" or "worst".
    """
    if taken := {"clean", "worst"} & set(attacks):
        raise ValueError(f"no attack can be named {taken.pop()!r}")

    def predicted(batch: Tensor, index: Tensor) -> Tensor:
        model = model_for(index)
        with frozen(model), torch.no_grad():
            return model(batch).argmax(-1) == labels[index]  # (b,)

    everything = torch.arange(len(images), device=images.device)
    clean = torch.cat([predicted(images[index], index) for index in everything.split(batch_size)])
    outcomes, standing = {"clean": clean}, clean.clone()
    for name, attack in attacks.items():
        correct = torch.zeros_like(clean)
        for index in (standing if skip_broken else clean).nonzero()[:, 0].split(batch_size):
            if not len(index):
                continue
            adversarial = attack(images[index], labels[index], index).detach()
            # In double precision (not every accelerator has it), so that the check does not round; NaN fails it, too.
            found, given = adversarial.cpu().double(), images[index].cpu().double()
            if not (((found - given).abs() <= epsilon) & (found >= 0) & (found <= 1)).all():
                raise ValueError(f"attack {name!r} left the ball of {epsilon:g} or [0, 1]")
            correct[index] = predicted(adversarial, index)
        outcomes[name] = correct
        standing = standing & correct
    return outcomes | {"worst": standing}


def red_flags(
    one_step: float | None = None,
    many_steps: float | None = None,
    white_box: float | None = None,
    black_box: Mapping[str, float] | None = None,
    at_epsilon_one: float | None = None,
    by_draws: Mapping[int, float] | None = None,
    by_steps: Mapping[int, float] | None = None,
    tolerance: float = 0.0,
) -> list[str]:
    """Signs that an evaluation is too weak to be believed (ledger H7), one sentence each; none is no proof.

    All accuracies are percent on the same images, each attack by itself, None where not measured. one_step,
    many_steps: under FGSM and PGD of one epsilon; white_box: under the strongest gradient attack; black_box: by name,
    under attacks without the model's gradients (transfer, Square, noise); at_epsilon_one: under a white-box attack
    that may paint any image; by_draws, by_steps: under EOT with so many draws and under PGD with so many steps, which
    must have converged. tolerance: points within which two accuracies count as equal. Raises ValueError for what is
    not a percentage.
    """
    black_box = black_box or {}
    efforts = {("More EOT keeps", "draws"): by_draws or {}, ("More steps keep", "steps"): by_steps or {}}
    measured = [one_step, many_steps, white_box, at_epsilon_one, *black_box.values()]
    measured += [accuracy for by_effort in efforts.values() for accuracy in by_effort.values()]
    if wrong := [value for value in measured if value is not None and not 0 <= value <= 100]:
        raise ValueError(f"accuracies are percentages, got {wrong[0]}")
    flags = []
    if one_step is not None and many_steps is not None and one_step < many_steps - tolerance:
        flags.append(f"One step beats many: accuracy is {one_step:.1f} % under FGSM and {many_steps:.1f} % under PGD.")
    for name, accuracy in black_box.items():
        if white_box is not None and accuracy < white_box - tolerance:
            flags.append(
                f"Black box beats white box: accuracy is {accuracy:.1f} % under {name} and {white_box:.1f} % under "
                "gradient attacks."
            )
    if at_epsilon_one is not None and at_epsilon_one > 0:
        flags.append(f"An attack that may paint any image (epsilon = 1) leaves accuracy at {at_epsilon_one:.1f} %.")
    for (more, unit), by_effort in efforts.items():
        if len(by_effort) < 2:
            continue
        fewer, most = sorted(by_effort)[-2:]
        if by_effort[most] < by_effort[fewer] - tolerance:
            flags.append(
                f"{more} lowering accuracy: {by_effort[fewer]:.1f} % with {fewer} {unit}, "
                f"{by_effort[most]:.1f} % with {most}."
            )
    return flags
