"""What a run is: `Config` holds everything but the seed that can change its weights, `Protocol` how Table 4 tests them.

PyTorch is not imported here, so a wrong setting is refused at once.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from . import UramError, paper

ENGINE = 1
"""Goes into every configuration's hash. Raise it when a change of the code changes the weights that a seed gives."""

FIRST_SPREAD = 0.3  # where a curriculum begins: the central 30 % of the range of translations
LAST_EPSILON = 0.05  # where the chooser's exploration ends (ledger A5)
ATTACK_RADIUS = 8 / 255  # of adversarial training, in units of [0, 1] (ledger H2)

CHOICES = {
    "model": (
        "fc", "cnn2", "cnn5", "ram", "unified", "cnn10", "cnn11", "dram",
        "vgg16", "vgg16-attention", "vgg16-random-glimpses", "vgg16-mlp",
    ),
    "schedule": ("cosine", "constant"),
    "core": ("relu", "lstm"),
    "entropy": ("none", "literal", "intent", "constant"),
    "entropy_patch": ("after", "before"),
    "entropy_scales": ("finest", "all"),
    "context": ("none", "attended", "detached", "confidence", "normalised", "uniform", "each-step"),
    "reward": ("outcome", "probability", "cumulative", "whole"),
    "initial_hidden": ("zeros", "noise"),
    "start": (
        "uniform", "image-centre", "quadrant-centre", "true-quadrant", "true-quadrant-centre", "true-centre",
        "farthest-quadrant",
    ),
    "levels": (1, 2),
    "regions": (2, 3),
    "region_start": ("uniform", "centre"),
    "behaviour": ("epsilon", "softmax", "greedy"),
    "chooser_reward": ("outcome", "signed", "early"),
    "attack": ("none", "fast", "pgd"),
    "precision": ("float32", "bfloat16"),
}  # fmt: skip
LOOKING = ("ram", "unified", "vgg16-attention", "vgg16-random-glimpses", "vgg16-mlp")  # need glimpses
WITHOUT_EFFECT = ("entropy_patch", "bounded_mean", "initial_hidden", "start")  # on the reader of numbers
# Least and greatest value of the fields that are numbers. All are shares, counts, weights or step sizes.
LIMITS = {
    "epochs": (1, 10_000), "batch_size": (1, 100_000), "learning_rate": (1e-9, 10), "clip_norm": (0, 1e6),
    "glimpses": (0, 100), "patch_size": (0, 1_000), "scales": (0, 8), "sigma": (1e-6, 10), "last_sigma": (0, 10),
    "beta2": (-100, 100), "entropy_threshold": (0, 1), "each_step": (0, 100), "forget_bias": (-10, 10),
    "location_scale": (0, 10), "curriculum_epochs": (0, 10_000), "explore_epochs": (0, 10_000),
    "chooser_alone_epochs": (0, 10_000), "adam_epsilon": (1e-12, 1), "width": (1e-3, 4), "attack_steps": (0, 1_000),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that can change a run's weights, but its seed.

    Raises UramError where a field is none of `CHOICES` or outside `LIMITS`.
    """

    dataset: str
    """Data set and variant, as `uram_lib.data.load` knows it."""
    model: str
    """`unified` is RAM that starts where the top-down model says; `dram` reads whole numbers."""
    epochs: int
    """Passes over the training split."""
    learning_rate: float = 1e-3
    """Adam's first step size."""
    schedule: str = "cosine"
    """`cosine` (falls to 0, step by step) or `constant`."""
    clip_norm: float = 0.0
    """Largest norm of the gradient over all parameters; 0 leaves it alone."""
    batch_size: int = paper.BATCH_SIZE
    """Images per step."""
    glimpses: int = 0
    """T, crops per image, the one at the start included (ledger B2)."""
    patch_size: int = 0
    """g: a patch has g x g values per scale."""
    scales: int = 0
    """Concentric patches per glimpse; scale k covers g * 2**k pixels."""
    core: str = "relu"
    """The recurrent network: `relu` (appendix) or `lstm`."""
    forget_bias: float = 0.0
    """Added to the bias of an LSTM's forget gate at the start."""
    sigma: float = paper.SIGMA
    """Standard deviation of the location policy, in location units (ledger B4)."""
    last_sigma: float = 0.0
    """That of the last epoch, to which it falls linearly; 0: it stays."""
    location_scale: float = 1.0
    """What the location network's first weights are multiplied by."""
    bounded_mean: bool = True
    """Whether the mean location passes through tanh (ledger B5)."""
    initial_hidden: str = "zeros"
    """H_0: `zeros` or standard normal `noise` (ledger B3)."""
    standardise: bool = True
    """Whether each scale of a patch is brought to comparable magnitude (ledger B9)."""
    start: str = "uniform"
    """Where plain RAM starts; the true places bound what top-down attention can gain (ledger A8)."""
    entropy: str = "none"
    """Form of the entropy constraint (Eq. 12; ledger D3, D4)."""
    entropy_patch: str = "after"
    """Whose entropy weighs an action: that of the patch it leads to, or of the one seen `before` (ledger D2)."""
    entropy_threshold: float = 0.5
    """Grey value above which a pixel counts as lit (ledger D5)."""
    entropy_scales: str = "finest"
    """Entropy of the `finest` scale, or the mean over `all` (ledger D5)."""
    context: str = "none"
    """Form of the context constraint (Eq. 11; ledger K2, K3)."""
    beta2: float = paper.BETA2
    """Weight of the policy term in Eq. 14. Negative: the sign as printed (ledger D8)."""
    reward: str = "outcome"
    """What the policy is paid: the `outcome` (1 or 0 at the end), or after every glimpse the `probability` of the right
    class. Of numbers: `cumulative` (a digit counts while all before it are right), `whole`, or `probability`."""
    each_step: float = 0.0
    """Weight of the mean cross entropy of all predictions but the last."""
    reinforce_into_core: bool = True
    """Whether REINFORCE's gradient reaches the core (ledger B6)."""
    curriculum_epochs: int = 0
    """Epochs over which the range of translations, or of lengths of numbers, widens to all of it; 0: all at once."""
    explore_epochs: int = 0
    """Epochs before the policy is trained."""
    levels: int = 1
    """L, decisions of the top-down model (ledger A1)."""
    regions: int = 2
    """Regions per side among which it decides: 2 makes quadrants."""
    region_start: str = "uniform"
    """Where in the chosen region RAM starts: `uniform` or `centre` (ledger A7)."""
    behaviour: str = "epsilon"
    """How the chooser explores in training: `epsilon`-greedy, `softmax` over Q, or not at all, `greedy` (ledger A5)."""
    chooser_reward: str = "outcome"
    """What it is paid: the `outcome` (1 or 0), the same `signed` (1 or -1, ledger A4), or the probability of the right
    class after the second glimpse, `early` (ledger A4')."""
    chooser_alone_epochs: int = 0
    """First epochs in which the chooser alone is trained."""
    adam_epsilon: float = 1e-8
    """A large one slows the parameters whose gradient is small."""
    width: float = 1.0
    """Share of the filters and units in every layer of the networks of Tables 3 and 4."""
    augment: bool = False
    """Whether training images are shifted by up to 4 pixels and mirrored at random."""
    attack: str = "none"
    """What perturbs training images: `none`, `fast` (FGSM with a random start) or `pgd` (ledger H3)."""
    attack_steps: int = 0
    """Steps of `pgd`."""
    precision: str = "float32"
    """Of products in training: `float32` or `bfloat16`. Whatever is reported is computed in float32."""

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UramError(
                    f"unknown {name.replace('_', ' ')} {getattr(self, name)!r}; one of: {', '.join(map(str, allowed))}"
                )
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
        if numbers and (odd := [name for name in WITHOUT_EFFECT if getattr(self, name) != getattr(Config, name)]):
            raise UramError(f"{odd[0]} has no effect on model=dram: leave it out")
        if self.forget_bias and self.core != "lstm" and self.model != "dram":
            raise UramError("forget_bias is for LSTMs: it goes with core=lstm or model=dram")
        if self.levels > 1 and self.regions > 2:
            raise UramError("two decisions are made on quadrants: levels=2 goes with regions=2")

    @property
    def hash(self) -> str:
        """12 hexadecimal digits of SHA-256 over the engine's version and every field that is not at its default."""
        settings = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value != f.default:
                settings[f.name] = float(value) if isinstance(f.default, float) else value
        canonical = json.dumps({"engine": ENGINE, **settings}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def at(self, epoch: int) -> "Config":
        """The configuration of `epoch` (from 1): its sigma, whether the chooser is trained alone, and no policy term
        while the policy only explores."""
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
        """The configuration that a record or checkpoint holds, also one of the first version. Raises UramError for
        fields without meaning here."""
        settings = dict(settings)
        if settings.get("model") == "dram":
            settings.setdefault("reward", "cumulative")  # of old: the only reward there was
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
            if name not in kinds:
                raise UramError(f"unknown setting {name!r}; one of: {', '.join(kinds)}")
            kind = kinds[name]
            try:
                values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
            except (ValueError, KeyError):
                what = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
                raise UramError(f"{name} must be {what}, got {text!r}") from None
        return dataclasses.replace(self, **values)


# Fields of old records that had one value in all of them; it is now the only one.
DROPPED = {
    "entropy_offset": paper.ENTROPY_OFFSET, "beta1": paper.BETA1, "q_hidden": 0, "gamma": 0.99,
    "last_epsilon": LAST_EPSILON, "attack_radius": ATTACK_RADIUS, "context_form": "attended",
}  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """How a row of Table 4 is tested (ledger H)."""

    images: int = 1_000
    """Test images: a fixed choice that holds all classes alike; 0: all of them."""
    fewer: int = 200
    """Of these, the first so many for what costs much: the gradient-free attack and the studies of convergence."""
    epsilon: float = 8 / 255
    """The budget of every attack, in units of [0, 1] (ledger H2)."""
    steps: int = paper.PGD_STEPS
    """Of PGD."""
    restarts: int = 5
    """Runs of PGD per image and loss, each from a random place of the ball."""
    draws: int = 20
    """Rollouts that a step of EOT averages over."""
    queries: int = 1_000
    """Of the gradient-free attack."""
    draws_studied: tuple[int, ...] = (1, 5, 10, 20, 40)
    """Numbers of rollouts at which the convergence of EOT is looked at."""
    steps_studied: tuple[int, ...] = (10, 30, 100)
    """Numbers of steps at which that of PGD is."""
    epsilons: tuple[float, ...] = (0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255, paper.PGD_EPSILON, 1)
    """Budgets of the curve over epsilon; `PGD_EPSILON` in normalised units joins them."""
