"""What a run is: `Config` holds everything but the seed that can change its weights, `Protocol` how Table 4 tests them.
PyTorch is not imported here, so a wrong setting is refused at once."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin

from . import paper
from .common import UramError, check

#: Goes into every configuration's hash. Raise it when a change of the code changes the weights that a seed gives.
ENGINE = 1
FIRST_SPREAD = 0.3  # where a curriculum begins: the central 30 % of the range of translations
LAST_EPSILON = 0.05  # where the chooser's exploration ends (ledger A5)
ATTACK_RADIUS = 8 / 255  # of adversarial training, in units of [0, 1] (ledger H2)

LOOKING = ("ram", "unified", "vgg16-attention", "vgg16-random-glimpses", "vgg16-mlp")  # need glimpses
WITHOUT_EFFECT = {  # model -> fields that it does not use; `unified` chooses its start itself
    "dram": ("core", "standardise", "entropy_patch", "initial_hidden", "start"),
    "unified": ("start",),
}


@dataclass(frozen=True)
class Config:
    """Everything that can change a run's weights, but its seed. Raises UramError where a field is none of its choices
    or outside its limits, the least and greatest value allowed, and for fields that do not go together."""

    dataset: str  #: Data set and variant, as `uram_lib.data.load` knows it.
    #: `unified` is RAM that starts where the top-down model says; `dram` reads whole numbers.
    model: Literal[
        "fc", "cnn2", "cnn5", "ram", "unified", "cnn10", "cnn11", "dram",
        "vgg16", "vgg16-attention", "vgg16-random-glimpses", "vgg16-mlp",
    ]  # fmt: skip
    epochs: Annotated[int, 1, 10_000]  #: Passes over the training split.
    learning_rate: Annotated[float, 1e-9, 10] = 1e-3  #: Adam's first step size.
    schedule: Literal["cosine", "constant"] = "cosine"  #: Of the step size: `cosine` falls to 0, step by step.
    clip_norm: Annotated[float, 0, 1e6] = 0.0  #: Largest norm of the gradient over all parameters; 0 leaves it alone.
    batch_size: Annotated[int, 1, 100_000] = paper.BATCH_SIZE  #: Images per step.
    glimpses: Annotated[int, 0, 100] = 0  #: T, crops per image, the one at the start included (ledger B2).
    patch_size: Annotated[int, 0, 1_000] = 0  #: g: a patch has g x g values per scale.
    scales: Annotated[int, 0, 8] = 0  #: Concentric patches per glimpse; scale k covers g * 2**k pixels.
    core: Literal["relu", "lstm"] = "relu"  #: The recurrent network: `relu` (appendix) or `lstm`.
    forget_bias: Annotated[float, -10, 10] = 0.0  #: Added to the bias of an LSTM's forget gate at the start.
    sigma: Annotated[float, 1e-6, 10] = paper.SIGMA  #: Standard deviation of the policy, in location units (ledger B4).
    last_sigma: Annotated[float, 0, 10] = 0.0  #: That of the last epoch, to which it falls linearly; 0: it stays.
    location_scale: Annotated[float, 0, 10] = 1.0  #: What the location network's first weights are multiplied by.
    bounded_mean: bool = True  #: Whether the mean location passes through tanh (ledger B5).
    initial_hidden: Literal["zeros", "noise"] = "zeros"  #: H_0: `zeros` or standard normal `noise` (ledger B3).
    standardise: bool = True  #: Whether each scale of a patch is brought to comparable magnitude (ledger B9).
    #: Where plain RAM starts; the true places bound what top-down attention can gain (ledger A8).
    start: Literal[
        "uniform", "image-centre", "quadrant-centre", "true-quadrant", "true-quadrant-centre", "true-centre",
        "farthest-quadrant",
    ] = "uniform"  # fmt: skip
    entropy: Literal["none", "literal", "intent", "constant"] = "none"  #: Form of Eq. 12's constraint (ledger D3, D4).
    #: Whose entropy weighs an action: that of the patch it leads to, or of the one seen `before` (ledger D2).
    entropy_patch: Literal["after", "before"] = "after"
    entropy_threshold: Annotated[float, 0, 1] = 0.5  #: Grey value above which a pixel counts as lit (ledger D5).
    entropy_scales: Literal["finest", "all"] = "finest"  #: Of the `finest` scale, or the mean over `all` (ledger D5).
    #: Form of the context constraint (Eq. 11; ledger K2, K3).
    context: Literal["none", "attended", "detached", "confidence", "normalised", "uniform", "each-step"] = "none"
    beta2: Annotated[float, -100, 100] = paper.BETA2  #: Of Eq. 14's policy term; negative: sign as printed (ledger D8).
    #: The policy's reward: the `outcome` (1 or 0 at the end), or after every glimpse the `probability` of the right
    #: class. Of numbers: `cumulative` (a digit counts while all before it are right), `whole`, or `probability`.
    reward: Literal["outcome", "probability", "cumulative", "whole"] = "outcome"
    each_step: Annotated[float, 0, 100] = 0.0  #: Weight of the mean cross entropy of all predictions but the last.
    reinforce_into_core: bool = True  #: Whether REINFORCE's gradient reaches the core (ledger B6).
    #: Epochs over which the range of translations, or of lengths of numbers, widens to all of it; 0: all at once.
    curriculum_epochs: Annotated[int, 0, 10_000] = 0
    explore_epochs: Annotated[int, 0, 10_000] = 0  #: Epochs before the policy is trained.
    levels: Literal[1, 2] = 1  #: L, decisions of the top-down model (ledger A1).
    regions: Literal[2, 3] = 2  #: Regions per side among which it decides: 2 makes quadrants.
    region_start: Literal["uniform", "centre"] = "uniform"  #: Where in the chosen region RAM starts (ledger A7).
    #: How the chooser explores in training: `epsilon`-greedy, `softmax` over Q, or not at all, `greedy` (ledger A5).
    behaviour: Literal["epsilon", "softmax", "greedy"] = "epsilon"
    #: Its reward: the `outcome` (1 or 0), the same `signed` (1 or -1, ledger A4), or the probability of the right
    #: class after the second glimpse, `early` (ledger A4').
    chooser_reward: Literal["outcome", "signed", "early"] = "outcome"
    chooser_alone_epochs: Annotated[int, 0, 10_000] = 0  #: First epochs in which the chooser alone is trained.
    adam_epsilon: Annotated[float, 1e-12, 1] = 1e-8  #: A large one slows the parameters whose gradient is small.
    width: Annotated[float, 1e-3, 4] = 1.0  #: Share of the filters and units of the networks of Tables 3 and 4.
    augment: bool = False  #: Whether training images are shifted by up to 4 pixels and mirrored at random.
    attack: Literal["none", "fast", "pgd"] = "none"  #: In training; `fast`: FGSM with a random start (ledger H3).
    attack_steps: Annotated[int, 0, 1_000] = 0  #: Of `pgd`.
    precision: Literal["float32", "bfloat16"] = "float32"  #: Of products in training; what is reported is in float32.

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            check(name.replace("_", " "), getattr(self, name), allowed)
        for name, (least, most) in LIMITS.items():
            if not least <= getattr(self, name) <= most:  # also refuses nan
                raise UramError(f"{name} must be from {least} to {most}, got {getattr(self, name)}")
        if self.attack == "pgd" and self.attack_steps < 1:
            raise UramError(f"training on attacks by pgd takes attack_steps of 1 or more, got {self.attack_steps}")
        numbers = self.model == "dram"
        if numbers or self.model in LOOKING:
            for name in ("glimpses", "patch_size", "scales"):
                if getattr(self, name) < 1:
                    raise UramError(f"{name} must be at least 1 for model={self.model}, got {getattr(self, name)}")
        if self.reward != "probability" and numbers != (self.reward in ("cumulative", "whole")):
            raise UramError(f"reward={self.reward} does not go with model={self.model}")
        if numbers and self.glimpses % 6:
            raise UramError(f"glimpses must be a multiple of 6 for model=dram, got {self.glimpses}")
        idle = WITHOUT_EFFECT.get(self.model, ())
        if odd := [name for name in idle if getattr(self, name) != getattr(Config, name)]:
            raise UramError(f"{odd[0]} has no effect on model={self.model}: leave it out")
        if 0 < self.last_sigma < 1e-6:
            raise UramError(f"last_sigma must be 0 or from 1e-06 to 10, got {self.last_sigma}")
        if self.forget_bias and self.core != "lstm" and self.model != "dram":
            raise UramError("forget_bias is for LSTMs: it goes with core=lstm or model=dram")
        if self.levels > 1 and self.regions > 2:
            raise UramError("two decisions are made on quadrants: levels=2 goes with regions=2")

    @property
    def hash(self) -> str:
        """12 hexadecimal digits of SHA-256 over the engine's version and every field that is not at its default."""
        found = ((f, getattr(self, f.name)) for f in dataclasses.fields(self))
        settings = {f.name: float(v) if isinstance(f.default, float) else v for f, v in found if v != f.default}
        canonical = json.dumps({"engine": ENGINE, **settings}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def at(self, epoch: int) -> "Config":
        """The configuration of `epoch` (from 1): sigma, whether the chooser trains alone, no policy term at first."""
        sigma = self.sigma
        if self.last_sigma:
            passed = (epoch - 1) / (self.epochs - 1) if self.epochs > 1 else 1.0
            sigma += (self.last_sigma - self.sigma) * passed
        alone = self.chooser_alone_epochs if epoch <= self.chooser_alone_epochs else 0
        beta2 = self.beta2 if epoch > self.explore_epochs else 0.0
        return dataclasses.replace(self, sigma=sigma, beta2=beta2, chooser_alone_epochs=alone)

    def spread(self, epoch: int) -> float:
        """The share (0 to 1) of the range of translations or lengths that training images of `epoch` (from 1) use."""
        if epoch > self.curriculum_epochs:
            return 1.0
        return FIRST_SPREAD + (1 - FIRST_SPREAD) * (epoch - 1) / self.curriculum_epochs

    def epsilon(self, step: int, steps: int) -> float:
        """The share of random choices of the chooser at `step` of `steps`: falls over the first half (ledger A5)."""
        return max(LAST_EPSILON, 1 - (1 - LAST_EPSILON) * step / (steps / 2))

    @classmethod
    def read(cls, settings: dict) -> "Config":
        """What a record or checkpoint holds, also an old one. Raises UramError for fields without meaning here."""
        settings = dict(settings)
        if isinstance(settings.get("context"), bool):  # of old: a switch and a form
            form = settings.pop("context_form", "attended")
            settings["context"] = form if settings["context"] else "none"
        if settings.get("reward") == "cumulative" and settings.get("model") != "dram":
            del settings["reward"]  # of old: a default without effect
        unknown = settings.keys() - {f.name for f in dataclasses.fields(cls)}
        if odd := [name for name in sorted(unknown) if settings[name] != DROPPED.get(name)]:
            raise UramError(f"unknown setting {odd[0]}={settings[odd[0]]!r}")
        return cls(**{name: value for name, value in settings.items() if name not in unknown})

    def with_settings(self, texts: dict[str, str]) -> "Config":
        """A copy with fields set from text, as `--set sigma=0.3` gives it. Raises UramError for an unknown field or a
        value of another kind."""
        kinds = {f.name: type(getattr(self, f.name)) for f in dataclasses.fields(self)}
        values = {}
        for name, text in texts.items():
            check("setting", name, kinds)
            kind, text = kinds[name], str(text)
            try:
                values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
            except (ValueError, KeyError):
                what = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
                raise UramError(f"{name} must be {what}, got {text!r}") from None
        return dataclasses.replace(self, **values)


CHOICES = {f.name: get_args(f.type) for f in dataclasses.fields(Config) if get_origin(f.type) is Literal}
LIMITS = {f.name: get_args(f.type)[1:] for f in dataclasses.fields(Config) if get_origin(f.type) is Annotated}
# Fields of old records that had one value in all of them; it is now the only one.
DROPPED = {
    "entropy_offset": paper.ENTROPY_OFFSET, "beta1": paper.BETA1, "q_hidden": 0, "gamma": 0.99,
    "last_epsilon": LAST_EPSILON, "attack_radius": ATTACK_RADIUS, "context_form": "attended",
}  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """How a row of Table 4 is tested (ledger H)."""

    images: int = 1_000  #: Test images: a fixed choice that holds all classes alike; 0: all of them.
    fewer: int = 200  #: The first so many of these, for what costs much: the gradient-free attack and the studies.
    epsilon: float = 8 / 255  #: The budget of every attack, in units of [0, 1] (ledger H2).
    steps: int = paper.PGD_STEPS  #: Of PGD.
    restarts: int = 5  #: Runs of PGD per image and loss, each from a random place of the ball.
    draws: int = 20  #: Rollouts that a step of EOT averages over.
    queries: int = 1_000  #: Of the gradient-free attack.
    draws_studied: tuple[int, ...] = (1, 5, 10, 20, 40)  #: Rollouts at which the convergence of EOT is looked at.
    steps_studied: tuple[int, ...] = (10, 30, 100)  #: Steps at which that of PGD is.
    #: Budgets of the curve over epsilon; `PGD_EPSILON` in normalised units joins them.
    epsilons: tuple[float, ...] = (0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255, paper.PGD_EPSILON, 1)
