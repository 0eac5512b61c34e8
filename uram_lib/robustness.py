"""Table 4's evaluation (ledger H): every attack on a trained network, the worst case image by image, and warnings.

The network is attacked as it is tested: in evaluation mode, with the mean policy and one uniform start an image (the
control with random glimpses: with random places). Every attacker but the blind ones has the network and its gradients.
"PGD" also knows each image's start; "EOT-PGD" knows only how starts are drawn, and averages over rollouts. Robust
accuracy is the share of images that no attack breaks, those that know the start included: what is random in a network
is then no shelter. A network that glimpses thus faces four gradient attacks more than one that does not, so the worst
case over `FACED_BY_ALL` is told beside it.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .attacks import literal_pgd, pgd, red_flags, robust_correct, sign_noise, square
from .data import Split
from .evaluation import EVALUATION_SEED, Evaluation, draws_in_testing, evaluate, stratified, uniform_start
from .experiments import Config, Protocol
from .models import bottom_up, under
from .paper import PGD_EPSILON
from .records import pack
from .seeding import stream
from .training import load_state, save_state

ROLLOUTS = {"cpu": 1_000}  # at a time; on an accelerator OTHER_ROLLOUTS
OTHER_ROLLOUTS = 10_000
LITERAL, PGD, MARGIN, FEATURES, LOCATIONS, EOT, EOT_MARGIN, SQUARE, NOISE = (
    "Eq. 15 by the letter", "PGD", "PGD, margin loss", "PGD, features only", "PGD, through locations", "EOT-PGD",
    "EOT-PGD, margin loss", "Square attack", "noise",
)  # fmt: skip
ANY_IMAGE = "PGD, any image"
FACED_BY_ALL = (LITERAL, PGD, MARGIN, SQUARE, NOISE)  # attacks on every row, whatever is in its network


@dataclass(frozen=True)
class Target:
    """A network with the test images it gets, (N, C, 32, 32) in [0, 1], their labels, (N,), and its draws for them."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    draws: tuple

    def tested(self, index: Tensor, **paths: bool) -> nn.Module:
        """The network for the images at `index`, (B,), as it is tested on them; paths: of `under`."""
        return under(self.model, *(None if draw is None else draw[index] for draw in self.draws), **paths)

    def rolled_out(self, index: Tensor, rollouts: int, *names: object) -> nn.Module:
        """The network for the images at `index`, (B,), under `rollouts` other draws of the stream `names`.

        The draws are made for all images, so an image's own do not depend on which others are still attacked.
        """
        count, device, ram = len(self.images), self.images.device, bottom_up(self.model)
        starts = uniform_start(rollouts * count, stream(EVALUATION_SEED, "start", *names))
        noise = None
        if ram.always_sampled:
            noise = torch.randn(rollouts * count, ram.glimpses - 1, 2, generator=stream(EVALUATION_SEED, *names))
        own = (torch.arange(rollouts)[:, None] * count + index.cpu()).flatten()  # (S * B,)
        return under(self.model, *(None if draw is None else draw[own].to(device) for draw in (starts, noise)))


Run = Callable[[Tensor, Tensor, Tensor, torch.Generator, int], Tensor]
"""Of images (B, C, H, W), labels (B,), their index (B,), a generator and the restart's number: adversarial ones."""


@dataclass(frozen=True)
class Attack:
    """One line of the results. An image stands if none of `restarts` runs breaks it. images: how many it is tried on,
    from the first; 0: all. rollouts: made of an image at a time. knows_draws: whether it is told an image's start."""

    run: Run
    epsilon: float
    restarts: int = 1
    images: int = 0
    rollouts: int = 1
    knows_draws: bool = True


def attacks(target: Target, protocol: Protocol, sources: Mapping[str, nn.Module]) -> dict[str, Attack]:
    """The attacks whose worst case is the robust accuracy, by name. sources: networks to transfer from, by row."""
    p = protocol

    def gradient(loss: str, **paths: bool) -> Run:
        return lambda x, y, index, generator, _: pgd(
            target.tested(index, **paths), x, y, p.epsilon, p.steps, loss=loss, generator=generator
        )

    def averaged(loss: str) -> Run:
        return lambda x, y, index, generator, restart: pgd(
            target.rolled_out(index, p.draws, "EOT", restart), x, y, p.epsilon, p.steps, loss=loss, generator=generator
        )

    def transferred(source: nn.Module) -> Run:
        return lambda x, y, index, generator, _: pgd(source, x, y, p.epsilon, p.steps, generator=generator)

    found = {
        LITERAL: Attack(lambda x, y, i, *_: literal_pgd(target.tested(i), x, y, p.epsilon, p.steps), p.epsilon),
        PGD: Attack(gradient("cross-entropy"), p.epsilon, p.restarts),
        MARGIN: Attack(gradient("margin"), p.epsilon, p.restarts),
    }
    if target.draws:
        found |= {
            FEATURES: Attack(gradient("cross-entropy", features_only=True), p.epsilon, p.restarts),
            LOCATIONS: Attack(gradient("cross-entropy", through_locations=True), p.epsilon, p.restarts),
            EOT: Attack(averaged("cross-entropy"), p.epsilon, p.restarts, rollouts=p.draws, knows_draws=False),
            EOT_MARGIN: Attack(averaged("margin"), p.epsilon, p.restarts, rollouts=p.draws, knows_draws=False),
        }
    found |= {
        f"transfer from {row}": Attack(transferred(source), p.epsilon, p.restarts, knows_draws=False)
        for row, source in sources.items()
    }
    blind = Attack(
        lambda x, y, i, g, _: square(target.tested(i), x, y, p.epsilon, g, p.queries), p.epsilon, images=p.fewer
    )
    noise = Attack(lambda x, y, i, g, _: sign_noise(x, p.epsilon, g), p.epsilon, knows_draws=False)
    return found | {SQUARE: blind, NOISE: noise}


def budgets(model: nn.Module, protocol: Protocol) -> list[float]:
    """The curve's epsilons, and among them `PGD_EPSILON` in units of the standard deviation of the training images (the
    mean of the three channels'), the third reading of ledger H2."""
    return sorted({*protocol.epsilons, normalised_epsilon(model)})


def normalised_epsilon(model: nn.Module) -> float:
    """`PGD_EPSILON` in units of standardised images, as one in units of [0, 1]."""
    return round(PGD_EPSILON * model.features.std.mean().item(), 4)


def studies(target: Target, protocol: Protocol) -> dict[str, Attack]:
    """Attacks that are looked at and no part of the worst case: other budgets, fewer and more rollouts and steps, any
    image."""
    p = protocol

    def at(epsilon: float, function: Callable) -> Attack:
        return Attack(lambda x, y, i, *_: function(target.tested(i), x, y, epsilon, p.steps), epsilon)

    def averaged(draws: int) -> Attack:
        run: Run = lambda x, y, i, g, _: pgd(  # noqa: E731
            target.rolled_out(i, draws, "study"), x, y, p.epsilon, p.steps, generator=g
        )
        return Attack(run, p.epsilon, images=p.fewer, rollouts=draws, knows_draws=False)

    def longer(steps: int) -> Attack:
        run: Run = lambda x, y, i, g, _: pgd(target.tested(i), x, y, p.epsilon, steps, generator=g)  # noqa: E731
        return Attack(run, p.epsilon, images=p.fewer)

    found = {f"{PGD}, {steps} steps": longer(steps) for steps in p.steps_studied}
    for epsilon in budgets(target.model, p):
        found |= {f"{LITERAL}, {epsilon:.4f}": at(epsilon, literal_pgd), f"{PGD}, {epsilon:.4f}": at(epsilon, pgd)}
    if target.draws:
        found |= {f"{EOT}, {draws} rollouts": averaged(draws) for draws in p.draws_studied}
    any_image: Run = lambda x, y, i, g, _: pgd(  # noqa: E731
        target.tested(i), x, y, 1.0, p.steps, loss="margin", generator=g
    )
    return found | {ANY_IMAGE: Attack(any_image, 1.0, p.restarts)}


def outcome(target: Target, clean: Tensor, name: str, attack: Attack) -> Tensor:
    """Which of the images that `attack` is tried on are right, (n,), by themselves and after each of its runs."""
    device = target.images.device
    correct = clean[: attack.images or None].to(device, copy=True)
    size = max(1, ROLLOUTS.get(device.type, OTHER_ROLLOUTS) // attack.rollouts)
    for restart in range(attack.restarts):
        standing = correct.nonzero()[:, 0]
        if not len(standing):
            break
        generator = stream(EVALUATION_SEED, "attack", name, restart, device=device)

        def run(x: Tensor, y: Tensor, index: Tensor, own=standing, g=generator, restart=restart) -> Tensor:
            return attack.run(x, y, own[index], g, restart)

        found = robust_correct(
            lambda index, own=standing: target.tested(own[index]),
            target.images[standing], target.labels[standing], {name: run}, attack.epsilon, size,
        )  # fmt: skip
        correct[standing] = found["worst"]
    return correct.cpu()


@dataclass(frozen=True)
class Robustness:
    """What a network withstood. outcomes: by attack or study, which images it left right, (n,) bool; worst: (N,), no
    attack broke them; secret: (N,), none that does not know the start; clean: on the whole test set, nothing attacked;
    epsilons, normalised: of `budgets`; seconds: by attack."""

    protocol: Protocol
    outcomes: dict[str, Tensor]
    worst: Tensor
    secret: Tensor
    clean: Evaluation
    names: list[str]
    epsilons: list[float]
    normalised: float
    seconds: dict[str, float]

    @property
    def correct(self) -> Tensor:
        """(1, N) bool: what the record's robust accuracy is the mean of."""
        return self.worst[None]

    def accuracy(self, name: str, images: int = 0) -> float:
        """Percent right under an attack, on the first `images` of those it was tried on."""
        return percent(self.outcomes[name][: images or None])

    @property
    def by_draws(self) -> dict[int, float]:
        """Accuracy under EOT of so many rollouts; empty for a network that draws nothing."""
        names = {draws: f"{EOT}, {draws} rollouts" for draws in self.protocol.draws_studied}
        return {draws: self.accuracy(name) for draws, name in names.items() if name in self.outcomes}

    @property
    def by_steps(self) -> dict[int, float]:
        """Accuracy under PGD of so many steps."""
        return {steps: self.accuracy(f"{PGD}, {steps} steps") for steps in self.protocol.steps_studied}

    @property
    def decided_by(self) -> str:
        """The attack that leaves the fewest of all images right."""
        whole = [name for name in self.names if len(self.outcomes[name]) == len(self.worst)]
        return min(whole, key=self.accuracy)

    @property
    def flags(self) -> list[str]:
        """Signs that these attacks are too weak (`attacks.red_flags`)."""
        white = [name for name in (PGD, MARGIN, FEATURES, LOCATIONS, EOT, EOT_MARGIN) if name in self.outcomes]
        strongest = lambda images=0: min(self.accuracy(name, images) for name in white)  # noqa: E731
        blind = [name for name in self.names if name.startswith("transfer") or name == NOISE]
        fewer = len(self.outcomes[SQUARE])
        return red_flags(
            one_step=self.accuracy(LITERAL), many_steps=self.accuracy(PGD), white_box=strongest(),
            black_box={name: self.accuracy(name) for name in blind}, at_epsilon_one=self.accuracy(ANY_IMAGE),
            tolerance=tolerance(len(self.worst)),
        ) + red_flags(
            white_box=strongest(fewer), black_box={SQUARE: self.accuracy(SQUARE)}, by_draws=self.by_draws,
            by_steps=self.by_steps, tolerance=tolerance(fewer),
        )  # fmt: skip

    def metrics(self) -> dict:
        """The record's entries."""
        curve = [
            {"epsilon": epsilon, **{name: self.accuracy(f"{name}, {epsilon:.4f}") for name in (LITERAL, PGD)}}
            for epsilon in self.epsilons
        ]
        return {
            "robust_accuracy": percent(self.worst),
            "robust_accuracy_start_unknown": percent(self.secret),
            "clean_accuracy": 100 - self.clean.error,
            "clean_accuracy_attacked_images": percent(self.outcomes["clean"]),
            "test": f"worst case of {len(self.names)} attacks, image by image, on {len(self.worst)} test images",
            "decided_by": self.decided_by,
            "flags": self.flags,
            "accuracy_under": {name: self.accuracy(name) for name in self.names},
            "by_epsilon": curve,
            "normalised_epsilon": self.normalised,
            "by_draws": [{"draws": draws, "accuracy": accuracy} for draws, accuracy in self.by_draws.items()],
            "by_steps": [{"steps": steps, "accuracy": accuracy} for steps, accuracy in self.by_steps.items()],
            "outcomes": {
                **{name: pack(self.outcomes[name]) for name in ("clean", *self.names)},
                "start unknown": pack(self.secret),
            },
            "protocol": dataclasses.asdict(self.protocol),
            **self.clean.glimpses(),
        }


def tolerance(images: int) -> float:
    """Points within which two accuracies on so many images count as equal: one, or two images where they are few."""
    return max(1.0, 200 / images)


def digest(model: nn.Module) -> str:
    """What tells a network's weights from others: outcomes of attacks belong to them alone."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def percent(correct: Tensor) -> float:
    return 100 * correct.float().mean().item()


def evaluate_robustness(
    model: nn.Module,
    split: Split,
    protocol: Protocol,
    sources: Mapping[str, nn.Module],
    resume: tuple[Path, Config, int] | None = None,
) -> Robustness:
    """Attack `model`, one of VGG16 with or without attention, with everything, on the protocol's choice of `split`.

    sources: networks of other rows, by row, to transfer attacks from. resume: where outcomes are kept after each
    attack, the run's configuration and seed; what is there already is not done again.
    """
    index = stratified(split.labels, protocol.images)
    images = split.images[index].to(torch.float32) / 255
    model = model.eval()
    target = Target(model, images, split.labels[index], draws_in_testing(model, images))
    counted = attacks(target, protocol, sources)
    every = counted | studies(target, protocol)
    settings = repr((protocol, digest(model), {row: digest(sources[row]) for row in sorted(sources)}))
    kept = (load_state(*resume) if resume else None) or {}
    if kept.get("settings") != settings:
        size = ROLLOUTS.get(images.device.type, OTHER_ROLLOUTS)
        with torch.no_grad():
            parts = torch.arange(len(index), device=images.device).split(size)
            said = torch.cat([target.tested(part)(images[part]).argmax(-1) for part in parts])
        kept = {"settings": settings, "outcomes": {"clean": (said == target.labels).cpu()}, "seconds": {}}
    outcomes, seconds = kept["outcomes"], kept["seconds"]
    with tqdm(total=len(every), initial=len(seconds), desc="attacks", unit="attack", disable=None) as bar:
        for name, attack in every.items():
            if name in outcomes:
                continue
            began = time.perf_counter()
            outcomes[name] = outcome(target, outcomes["clean"], name, attack)
            seconds[name] = round(time.perf_counter() - began, 2)
            if resume:
                save_state(*resume, kept)
            bar.update()
    worst, secret = outcomes["clean"].clone(), outcomes["clean"].clone()
    for name, attack in counted.items():
        tried = len(outcomes[name])
        worst[:tried] &= outcomes[name]
        if not (attack.knows_draws and target.draws):
            secret[:tried] &= outcomes[name]
    return Robustness(
        protocol, outcomes, worst, secret, evaluate(model, split), list(counted), budgets(model, protocol),
        normalised_epsilon(model), seconds,
    )  # fmt: skip
