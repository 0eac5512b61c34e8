"""Table 4's evaluation (ledger H): every attack on a trained network, the worst case image by image, and warnings.

The network is attacked as it is tested: in evaluation mode, with the mean policy and one uniform start per image (the
control with random glimpses: with random places). "PGD" knows the network, its gradients and each image's start;
"EOT-PGD" knows only how starts are drawn, and averages over rollouts. Robust accuracy is the share of images that no
attack breaks. A network that glimpses meets four attacks more than others: compare rows by `FACED_BY_ALL`, too.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from .. import paper
from ..config import Protocol
from ..data.base import Split
from ..evaluation import EVALUATION_SEED, Evaluation, draws_in_testing, evaluate, stratified
from ..models.layers import Model
from ..seeding import stream
from .attacks import Under, at_least_one, literal_pgd, margin, pgd, sign_noise, square

ROLLOUTS = 1_000  # at a time on a processor; on an accelerator ten times as many
# The names are keys of records and of random streams. The first two step by epsilon, as Eq. 15 says.
LITERAL, FULL_STEPS = "Eq. 15 by the letter", "Eq. 15, gradient at x^t"
PGD, MARGIN, FEATURES, LOCATIONS = "PGD", "PGD, margin loss", "PGD, features only", "PGD, through locations"
EOT, EOT_MARGIN, SQUARE, NOISE = "EOT-PGD", "EOT-PGD, margin loss", "Square attack", "noise"
ANY_IMAGE = "PGD, any image"
FACED_BY_ALL = (LITERAL, FULL_STEPS, PGD, MARGIN, SQUARE, NOISE)  # whatever is in the network
CURVE = (LITERAL, FULL_STEPS, PGD)  # tried at every epsilon


class Target:
    """A network, in evaluation mode, with the N test images that it gets, (N, C, H, W) in [0, 1], and its N `draws`."""

    def __init__(self, model: Model, split: Split):
        self.model, self.split, self.images = model, split, split.floats()
        self.draws = draws_in_testing(model, self.images, centres=split.centres)

    @property
    def normalised_epsilon(self) -> float:
        """The paper's epsilon if meant in units of standardised images, in units of [0, 1] (ledger H2)."""
        return round(paper.PGD_EPSILON * self.model.features.std.mean().item(), 4)

    def tested(self, index: Tensor, **paths: bool) -> Under:
        """The network for the images at `index`, (B,), as it is tested on them; paths: options of its rollout."""
        return Under(self.model, {name: value[index] for name, value in self.draws.items()}, **paths)

    def rolled_out(self, index: Tensor, rollouts: int, *names: object) -> Under:
        """The same under `rollouts` other draws per image, of stream `names`, whatever others are still attacked."""
        count, centres = len(self.split), self.split.centres.cpu().repeat(rollouts, 1)
        streams = {"start": stream(EVALUATION_SEED, "start", *names), "policy": stream(EVALUATION_SEED, *names)}
        drawn = self.model.draws(rollouts * count, streams, centres, sampled=False)
        own = (torch.arange(rollouts)[:, None] * count + index.cpu()).flatten()  # (S * B,)
        return Under(self.model, {name: value[own].to(index.device) for name, value in drawn.items()})

    @torch.no_grad()
    def right(self, images: Tensor, index: Tensor) -> Tensor:
        """Which of `images`, (B, C, H, W), in the places of those at `index`, are classified rightly, (B,)."""
        return self.tested(index)(images).argmax(-1) == self.split.labels[index]


@dataclass(frozen=True)
class Attack:
    """One line of the results, and how it is made."""

    method: Callable[..., Tensor]  # of `attacks`
    epsilon: float
    restarts: int = 0  # runs from random places, of which none may break an image; 0: one run from the image itself
    images: int = 0  # how many it is tried on, from the first; 0: all
    paths: dict = field(default_factory=dict)  # of the gradients, options of the rollout
    rollouts: int = 0  # draws that it averages over, not knowing the test's; 0: it knows them
    source: Target | None = None  # attacked in place of the target (transfer)
    study: bool = False  # looked at, not part of the worst case

    def __call__(self, target: Target, index: Tensor, restart: int, generator: torch.Generator) -> Tensor:
        """Adversarial images (B, C, H, W) for those at `index`. Raises ValueError where they leave the ball."""
        images, random = target.images[index], {"generator": generator} if self.restarts else {}
        victim = (self.source or target).tested(index, **self.paths)
        if self.rollouts:
            victim = target.rolled_out(index, self.rollouts, *(("study",) if self.study else ("EOT", restart)))
        found = self.method(victim, images, target.split.labels[index], self.epsilon, **random)
        # In double precision (not every accelerator has it), so that the check does not round; NaN fails it, too.
        there, here = found.cpu().double(), images.cpu().double()
        if not (((there - here).abs() <= self.epsilon) & (there >= 0) & (there <= 1)).all():
            raise ValueError(f"an attack left the ball of {self.epsilon:g} or [0, 1]")
        return found


def attacks_on(target: Target, p: Protocol, sources: dict[str, Model]) -> dict[str, Attack]:
    """All attacks by name, those whose worst case is the robust accuracy first. sources: to transfer from, by row."""
    climb = partial(pgd, steps=p.steps)
    by_margin = partial(climb, loss=margin)
    printed, moving = (partial(literal_pgd, steps=p.steps, gradient_at=place) for place in ("x", "x^t"))
    attack = partial(Attack, epsilon=p.epsilon, restarts=p.restarts)
    study = partial(Attack, epsilon=p.epsilon, restarts=1, images=p.fewer, study=True)
    found = {LITERAL: Attack(printed, p.epsilon), FULL_STEPS: Attack(moving, p.epsilon)}
    found |= {PGD: attack(climb), MARGIN: attack(by_margin)}
    if target.draws:
        found[FEATURES] = attack(climb, paths={"features_only": True})
        found[LOCATIONS] = attack(climb, paths={"through_locations": True})
        found |= {EOT: attack(climb, rollouts=p.draws), EOT_MARGIN: attack(by_margin, rollouts=p.draws)}
    for row, source in sources.items():
        found[f"transfer from {row}"] = attack(climb, source=Target(source, target.split))
    found[SQUARE] = attack(partial(square, queries=p.queries), restarts=1, images=p.fewer)
    found[NOISE] = attack(sign_noise, restarts=1)
    found |= {f"{PGD}, {steps} steps": study(partial(pgd, steps=steps)) for steps in p.steps_studied}
    for epsilon in {*p.epsilons, target.normalised_epsilon}:
        for name, method in zip(CURVE, (printed, moving, climb), strict=True):
            found[f"{name}, {epsilon:.4f}"] = Attack(method, epsilon, study=True)
    if target.draws:
        found |= {f"{EOT}, {draws} rollouts": study(climb, rollouts=draws) for draws in p.draws_studied}
    return found | {ANY_IMAGE: Attack(by_margin, 1.0, p.restarts, study=True)}


def outcome(target: Target, clean: Tensor, name: str, attack: Attack) -> Tensor:
    """Which of the images that `attack` is tried on are right by themselves, `clean`, and after all its runs, (n,)."""
    correct = clean[: attack.images or None].to(target.images.device, copy=True)
    size = (ROLLOUTS if correct.device.type == "cpu" else 10 * ROLLOUTS) // max(attack.rollouts, 1)
    for restart in range(attack.restarts or 1):
        generator = stream(EVALUATION_SEED, "attack", name, restart, device=correct.device)
        if correct.any():
            for index in correct.nonzero()[:, 0].split(max(size, 1)):  # those that still stand
                correct[index] = target.right(attack(target, index, restart, generator), index)
    return correct.cpu()


@dataclass(frozen=True)
class Robustness:
    """What a network withstood."""

    protocol: Protocol
    outcomes: dict[str, Tensor]  # by attack, which images it left right, (n,) bool, `clean` without any
    names: list[str]  # of the attacks that make up the worst case
    worst: Tensor  # (N,), none of them broke it
    secret: Tensor  # (N,), none that does not know the start did
    clean: Evaluation  # on the whole test set, nothing attacked
    normalised: float  # epsilon
    seconds: dict[str, float]  # by attack

    @property
    def correct(self) -> Tensor:
        """(1, N) bool: what the record's robust accuracy is the mean of."""
        return self.worst[None]

    def accuracy(self, name: str, images: int | None = None) -> float:
        """Percent right under an attack, on the first `images` of those it was tried on."""
        return percent(self.outcomes[name][:images])

    def by(self, effort: str) -> dict[int, float]:
        """Accuracy under EOT by its `draws`, or under PGD by its `steps`, least first; empty where nothing is drawn."""
        form = {"draws": f"{EOT}, {{}} rollouts", "steps": f"{PGD}, {{}} steps"}[effort]
        names = {count: form.format(count) for count in sorted(getattr(self.protocol, f"{effort}_studied"))}
        return {count: self.accuracy(name) for count, name in names.items() if name in self.outcomes}

    @property
    def flags(self) -> list[str]:
        """Signs that these attacks are too weak to be believed (ledger H7), one sentence each; none is no proof."""
        black = [name for name in self.names if name.startswith("transfer")] + [NOISE, SQUARE]
        white = [name for name in (PGD, MARGIN, FEATURES, LOCATIONS, EOT, EOT_MARGIN) if name in self.outcomes]
        compared = [(self.accuracy(LITERAL), self.accuracy(PGD), len(self.worst),
                     "One step beats many: accuracy is {:.1f} % under FGSM and {:.1f} % under PGD.")]  # fmt: skip
        for name in black:
            tried = len(self.outcomes[name])
            text = f"Black box beats white box: accuracy is {{:.1f}} % under {name}, {{:.1f}} % under gradient attacks."
            compared.append((self.accuracy(name), min(self.accuracy(own, tried) for own in white), tried, text))
        for what, efforts in (("rollouts of EOT", self.by("draws")), ("steps", self.by("steps"))):
            if len(efforts) > 1:
                (less, before), (more, after) = [*efforts.items()][-2:]
                text = f"More {what} keep lowering accuracy: {{1:.1f}} % with {less}, {{0:.1f}} % with {more}."
                compared.append((after, before, len(self.outcomes[SQUARE]), text))
        # Accuracies within one point, or two images where they are few, count as equal.
        found = [text.format(low, high) for low, high, tried, text in compared if low < high - max(1.0, 200 / tried)]
        if left := self.accuracy(ANY_IMAGE):
            found.append(f"An attack that may paint any image (epsilon = 1) leaves accuracy at {left:.1f} %.")
        return found

    def metrics(self) -> dict:
        """The record's entries; of each attack its outcomes, (n,) bool."""
        under = {name: self.accuracy(name) for name in self.names}
        whole = [name for name in self.names if len(self.outcomes[name]) == len(self.worst)]
        epsilons = sorted({*self.protocol.epsilons, self.normalised})
        shown = {name: self.outcomes[name] for name in ("clean", *self.names)}
        return {
            "robust_accuracy": percent(self.worst),
            "robust_accuracy_start_unknown": percent(self.secret),
            "clean_accuracy": 100 - self.clean.error,
            "clean_accuracy_attacked_images": self.accuracy("clean"),
            "test": f"worst case of {len(self.names)} attacks, image by image, on {len(self.worst)} test images",
            "decided_by": min(whole, key=under.get),
            "flags": self.flags,
            "accuracy_under": under,
            "by_epsilon": [{"epsilon": e, **{n: self.accuracy(f"{n}, {e:.4f}") for n in CURVE}} for e in epsilons],
            "normalised_epsilon": self.normalised,
            **{f"by_{e}": [{e: n, "accuracy": a} for n, a in self.by(e).items()] for e in ("draws", "steps")},
            "outcomes": shown | {"start unknown": self.secret},
            "protocol": dataclasses.asdict(self.protocol),
            **self.clean.looks,
        }


def percent(correct: Tensor) -> float:
    return 100 * correct.float().mean().item()


def digest(model: Model) -> str:
    """What tells a network's weights from others: outcomes of attacks belong to them alone."""
    return hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for value in model.state_dict().values())).hexdigest()


def evaluate_robustness(
    model: Model, split: Split, protocol: Protocol, sources: dict, kept: dict | None = None, save=lambda kept: None
) -> Robustness:
    """Attack `model`, of the VGG16 family, with everything, on the protocol's choice of `split`. sources: networks of
    other rows, by row, to transfer attacks from. save(kept): called after each attack with what must be given as `kept`
    to go on from there; of other weights or another protocol it is not used. Raises ValueError for counts below 1 and
    for an epsilon outside [0, 1]."""
    at_least_one(**{name: getattr(protocol, name) for name in ("steps", "restarts", "draws", "queries", "fewer")})
    target = Target(model.eval(), split.at(stratified(split.labels, protocol.images)))
    every = attacks_on(target, protocol, sources)
    settings = repr((protocol, digest(model), {row: digest(sources[row]) for row in sorted(sources)}))
    if kept is None or kept.get("settings") != settings:
        unattacked = Attack(lambda victim, images, labels, epsilon: images, 0.0)
        clean = outcome(target, torch.ones(len(target.split), dtype=torch.bool), "clean", unattacked)
        kept = {"settings": settings, "outcomes": {"clean": clean}, "seconds": {}}
    outcomes, seconds = kept["outcomes"], kept["seconds"]
    worst, secret = outcomes["clean"].clone(), outcomes["clean"].clone()
    for name, attack in every.items():
        if name not in outcomes:
            began = time.perf_counter()
            outcomes[name] = outcome(target, outcomes["clean"], name, attack)
            seconds[name] = round(time.perf_counter() - began, 2)
            save(kept)
        if not attack.study:
            worst[: len(outcomes[name])] &= outcomes[name]
            knows_draws = not (attack.rollouts or attack.source or attack.method is sign_noise)
            if not (knows_draws and target.draws):
                secret[: len(outcomes[name])] &= outcomes[name]
    names = [name for name, attack in every.items() if not attack.study]
    clean = evaluate(model, split)
    return Robustness(protocol, outcomes, names, worst, secret, clean, target.normalised_epsilon, seconds)
