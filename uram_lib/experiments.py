"""Every row of every table as plain data: what makes the row, what its preset adds, and the readings of it.

A reading takes one decision of the paper otherwise. It is a row named `row@reading`, as in `ours-6@region-centre`.
PyTorch is not imported here, so a wrong name is refused at once.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from . import paper
from .common import CHECKPOINTS, UramError, check
from .config import Config, Protocol

PRESETS = {
    "smoke": "a few hundred steps on the embedded digits; shows that the machinery works, and no more",
    "quick": "the strong recipe with few epochs, for a reader's machine",
    "paper": "what the paper states, with our main reading of what it leaves open",
    "strong": "the best recipe we found on validation, shared by all rows that are compared",
}


def _looking(model: str, glimpses: int, patch_size: int, scales: int, **others) -> dict:
    return {"model": model, "glimpses": glimpses, "patch_size": patch_size, "scales": scales, **others}


BOTH = {"entropy": "literal", "context": "attended"}
CLEAN = {"attack": "none", "attack_steps": 0}  # trained on clean images, all else alike

ROWS = {
    "table1": {
        "fc": {"model": "fc"},
        "cnn2": {"model": "cnn2"},
        "ram-6": _looking("ram", 6, 8, 1),
        "ram-7": _looking("ram", 7, 8, 1),
        "entropy-6": _looking("ram", 6, 8, 1, entropy="literal"),
        "entropy-context-6": _looking("ram", 6, 8, 1, **BOTH),
    },
    "table2": {
        "fc": {"model": "fc"},
        "cnn5": {"model": "cnn5"},
        "ram-1-8x8": _looking("ram", 1, 8, 1),
        "ram-1-12x12": _looking("ram", 1, 12, 1),
        "ram-6-8x8": _looking("ram", 6, 8, 1),
        "ram-6": _looking("ram", 6, 12, 4),
        "ram-8": _looking("ram", 8, 12, 4),
        "ours-6": _looking("unified", 6, 12, 4),
        "ours-6-entropy": _looking("unified", 6, 12, 4, entropy="literal"),
        "ours-6-entropy-context": _looking("unified", 6, 12, 4, **BOTH),
        "ours-8": _looking("unified", 8, 12, 4),
        "ours-8-entropy-context": _looking("unified", 8, 12, 4, **BOTH),
        # The cells of top-down x entropy x context that the paper leaves out (ledger G).
        "ram-6-entropy": _looking("ram", 6, 12, 4, entropy="literal"),
        "ram-6-context": _looking("ram", 6, 12, 4, context="attended"),
        "ram-6-entropy-context": _looking("ram", 6, 12, 4, **BOTH),
        "ours-6-context": _looking("unified", 6, 12, 4, context="attended"),
    },
    "table3": {
        "cnn11": {"model": "cnn11"},
        "cnn10": {"model": "cnn10"},
        "dram": _looking("dram", 18, 12, 2),
        "entropy": _looking("dram", 18, 12, 2, entropy="literal"),
        "entropy-context": _looking("dram", 18, 12, 2, **BOTH),
    },
    "table4": {
        "vgg16-pgd": {"model": "vgg16"},
        "ours-vgg16-pgd": _looking("vgg16-attention", paper.GLIMPSES, paper.PATCH_SIZE, 1, **BOTH),
        "vgg16-undefended": {"model": "vgg16", **CLEAN},
        "ours-vgg16-undefended": _looking("vgg16-attention", paper.GLIMPSES, paper.PATCH_SIZE, 1, **BOTH, **CLEAN),
        "vgg16-random-glimpses": _looking("vgg16-random-glimpses", paper.GLIMPSES, paper.PATCH_SIZE, 1, **BOTH),
        "vgg16-mlp": _looking("vgg16-mlp", paper.GLIMPSES, paper.PATCH_SIZE, 1),
    },
}

# Rows that the paper does not have, in words like its own.
CONTROLS = {
    "table2/ram-6-entropy": "RAM with entropy, 6 glimpses, 12×12, 4 scales",
    "table2/ram-6-context": "RAM with context, 6 glimpses, 12×12, 4 scales",
    "table2/ram-6-entropy-context": "RAM with entropy and context, 6 glimpses, 12×12, 4 scales",
    "table2/ours-6-context": "URAM (Context), 6 glimpses, 12×12, 4 scales",
    "table4/vgg16-undefended": "VGG16, trained on clean images",
    "table4/ours-vgg16-undefended": "URAM + VGG16, trained on clean images",
    "table4/vgg16-random-glimpses": "Random glimpses + VGG16 + PGD",
    "table4/vgg16-mlp": "Perceptron + VGG16 + PGD",  # as many parameters as the model with attention
}
START_SEEDS = 5  # start locations per test image (ledger B7)
# Rows of Table 4 from whose networks the transfer attacks on the others start, each of the same seed.
TRANSFER_FROM = ("vgg16-undefended", "vgg16-pgd")


@dataclass(frozen=True)
class Reading:
    """One decision of the paper taken otherwise, in the rows that it concerns. ledger: its entry there."""

    label: str
    ledger: str
    rows: tuple[str, ...]
    changes: dict
    table: str = "table2"


_START, _TOP_DOWN, _FOUR = ("ram-6",), ("ours-6",), ("ram-6", "ours-6", "ours-6-entropy", "ours-6-entropy-context")
_ENTROPY, _CONTEXT = ("ours-6-entropy",), ("ours-6-entropy-context",)
_PAIR = ("ram-6", "ours-6")

READINGS = {
    # Top-down: how the chooser decides and what it is rewarded for.
    "two-levels": Reading("two decisions, the second within the quarter", "A1", _TOP_DOWN, {"levels": 2}),
    "signed-reward": Reading("the chooser is rewarded with 1 or −1", "A4", _TOP_DOWN, {"chooser_reward": "signed"}),
    "outcome-reward": Reading("the chooser is rewarded for the outcome", "A4'", _TOP_DOWN,
                              {"chooser_reward": "outcome"}),
    "early-reward": Reading("the chooser is rewarded for the second glimpse", "A4'", _TOP_DOWN,
                            {"chooser_reward": "early"}),
    "softmax": Reading("the chooser explores by softmax", "A5", _TOP_DOWN, {"behaviour": "softmax"}),
    "greedy": Reading("the chooser never explores", "A5", _TOP_DOWN, {"behaviour": "greedy"}),
    "region-centre": Reading("start at the chosen quarter's centre", "A7", _TOP_DOWN, {"region_start": "centre"}),
    "nine-regions": Reading("nine regions instead of four quarters", "A1", _TOP_DOWN, {"regions": 3}),
    "chooser-first": Reading("the chooser is trained alone first", "A10", _TOP_DOWN, {"chooser_alone_epochs": 3}),
    # Bounds of what a start can gain.
    "image-centre": Reading("start at the image's centre", "A8", _START, {"start": "image-centre"}),
    "quadrant-centre": Reading("start at the centre of a random quarter", "A8", _START, {"start": "quadrant-centre"}),
    "true-quadrant": Reading("start in the digit's quarter", "A8", _START, {"start": "true-quadrant"}),
    "true-quadrant-centre": Reading("start at the centre of the digit's quarter", "A8", _START,
                                    {"start": "true-quadrant-centre"}),
    "true-centre": Reading("start at the digit's centre", "A8", _START, {"start": "true-centre"}),
    "farthest-quadrant": Reading("start in the quarter farthest from the digit", "A8", _START,
                                 {"start": "farthest-quadrant"}),
    # Entropy.
    "intent": Reading("Eq. 12 as it seems meant, (H + λ)R − b", "D3",
                      (*_ENTROPY, *_CONTEXT, "ram-6-entropy"), {"entropy": "intent"}),
    "patch-before": Reading("the patch seen before the action", "D2", _ENTROPY, {"entropy_patch": "before"}),
    "constant-weight": Reading("a constant weight as large as H + λ on average", "D4", _ENTROPY,
                               {"entropy": "constant"}),
    "threshold-0.3": Reading("pixels count as lit from 0.3", "D5", _ENTROPY, {"entropy_threshold": 0.3}),
    "threshold-0.7": Reading("pixels count as lit from 0.7", "D5", _ENTROPY, {"entropy_threshold": 0.7}),
    "all-scales": Reading("entropy of all scales", "D5", _ENTROPY, {"entropy_scales": "all"}),
    # Context.
    "detached-weights": Reading("no gradient through the context's weights", "K3", _CONTEXT, {"context": "detached"}),
    "confidence": Reading("context by confidence, without the label", "K2'", _CONTEXT, {"context": "confidence"}),
    "normalised": Reading("context weights that sum to 1 over time", "K2", _CONTEXT, {"context": "normalised"}),
    "equal-weights": Reading("context with equal weights", "K3", _CONTEXT, {"context": "uniform"}),
    "each-step": Reading("each step's cross entropy instead of context", "K3", _CONTEXT, {"context": "each-step"}),
    "literal-context": Reading("Eq. 11 as printed", "K2'", _CONTEXT, {"context": "attended"}),
    # Shared by all four rows.
    "sigma-0.05": Reading("σ = 0.05", "B4", _FOUR, {"sigma": 0.05}),
    "core-detached": Reading("REINFORCE kept out of the core", "B6", _FOUR, {"reinforce_into_core": False}),
    "8-pieces": Reading("8 pieces of clutter", "F1", (*_FOUR, "ram-8", "cnn5", "fc", "ours-8-entropy-context"),
                        {"dataset": "clutter100-8"}),
    "4-pieces": Reading("4 pieces of clutter", "F1", ("ram-6", "ram-8", "cnn5", "ours-8-entropy-context"),
                        {"dataset": "clutter100-4"}),
    "fixed-set": Reading("a fixed set of 54,000 canvases", "F3", _FOUR, {"dataset": "clutter100-10-fixed"}),
    "lstm": Reading("an LSTM core", "B1", _PAIR, {"core": "lstm"}),
    "raw-scales": Reading("patches not standardised", "B9", _PAIR, {"standardise": False}),
    "linear-mean": Reading("a linear mean of the policy", "B5", _PAIR, {"bounded_mean": False}),
    "noise-h0": Reading("the first hidden state drawn at random", "B3", _PAIR, {"initial_hidden": "noise"}),
    "printed-sign": Reading("Eq. 14's sign as printed", "D8", _PAIR, {"beta2": -paper.BETA2}),
}  # fmt: skip
READINGS["mnist-literal-context"] = replace(READINGS["literal-context"], rows=("entropy-context-6",), table="table1")

# How each preset trains a table's rows. The book's section "What made RAM learn" shows how `strong` was found.
_LEARNING = {"reward": "probability", "each_step": 0.3, "location_scale": 0.1, "beta2": 0.3}
_SEEKING = {"core": "lstm", "forget_bias": 1.0, "sigma": 0.25, "last_sigma": 0.05}
_READER = {"beta2": 0.1, "forget_bias": 1.0, "explore_epochs": 1, "adam_epsilon": 1e-3, "batch_size": 32}
_MNIST = {"learning_rate": 1e-3, "clip_norm": 1.0}
_CLUTTER = {"learning_rate": 1e-3, "clip_norm": 5.0}
_NUMBERS = {"learning_rate": 2e-3, "clip_norm": 5.0, "dataset": "composed", "width": 0.25}
_ROBUST = {"learning_rate": 1e-3, "clip_norm": 5.0, "augment": True, "attack": "fast"}
_PAPER = {"learning_rate": paper.LEARNING_RATE, "schedule": "constant"}

_LOOKING_1 = _LEARNING | {"last_sigma": 0.03}
_LOOKING_2 = _LEARNING | _SEEKING
_LOOKING_3 = _LOOKING_1 | _READER

# What all rows have, and what those with glimpses have beside that.
RECIPES = {
    ("table1", "strong"): (_MNIST | {"epochs": 240}, _LOOKING_1),
    ("table1", "quick"): (_MNIST | {"epochs": 12}, _LOOKING_1),
    ("table1", "smoke"): (_MNIST | {"epochs": 8, "dataset": "digits"}, _LOOKING_1),
    # Epochs of `paper`: where the validation error of ram-6 comes nearest to the paper's 29.8 % (seed 1000).
    ("table2", "paper"): (_PAPER | {"epochs": 22}, {}),
    ("table2", "strong"): (_CLUTTER | {"epochs": 60}, _LOOKING_2 | {"curriculum_epochs": 10}),
    ("table2", "quick"): (_CLUTTER | {"epochs": 6}, _LOOKING_2 | {"curriculum_epochs": 2}),
    ("table2", "smoke"): (_CLUTTER | {"epochs": 3, "dataset": "digits-clutter60-4"},
                          _LOOKING_2 | {"curriculum_epochs": 1}),
    ("table3", "paper"): (_PAPER | {"epochs": 30}, {"reward": "cumulative"}),
    ("table3", "strong"): (_NUMBERS | {"epochs": 40}, _LOOKING_3 | {"curriculum_epochs": 8}),
    ("table3", "quick"): (_NUMBERS | {"epochs": 5}, _LOOKING_3 | {"curriculum_epochs": 4}),
    ("table3", "smoke"): (_NUMBERS | {"epochs": 2, "dataset": "digits-composed", "width": 1 / 16},
                          _LOOKING_3 | {"explore_epochs": 0, "curriculum_epochs": 1}),
    ("table4", "paper"): (_PAPER | {"epochs": 30, "augment": True, "attack": "pgd", "attack_steps": 10}, {}),
    ("table4", "strong"): (_ROBUST | {"epochs": 20, "width": 1 / 4, "precision": "bfloat16"}, {}),
    ("table4", "quick"): (_ROBUST | {"epochs": 4, "width": 1 / 8}, {}),
    # Few images: small batches and large steps. Mirrored digits would be other signs.
    ("table4", "smoke"): (_ROBUST | {"epochs": 3, "width": 1 / 8, "dataset": "digits-colour", "batch_size": 32,
                                     "learning_rate": 3e-3, "augment": False}, {}),
}  # fmt: skip
# Exceptions of single rows, each for the time that an epoch takes.
ROW_RECIPES = {
    ("table1", "strong", "fc"): {"epochs": 50},
    ("table1", "strong", "cnn2"): {"epochs": 6},
    ("table1", "quick", "cnn2"): {"epochs": 3},
    ("table2", "paper", "fc"): {"epochs": 60},
    ("table2", "strong", "fc"): {"epochs": 40},
    ("table2", "paper", "cnn5"): {"epochs": 4, "precision": "bfloat16"},
    ("table2", "strong", "cnn5"): {"epochs": 4, "precision": "bfloat16"},
    ("table2", "quick", "cnn5"): {"epochs": 1},
    ("table3", "strong", "cnn11"): {"epochs": 10},
    ("table3", "strong", "cnn10"): {"epochs": 10},
}
PROTOCOLS = {
    "paper": Protocol(images=0),
    "strong": Protocol(),
    "quick": Protocol(
        images=200, fewer=100, restarts=2, draws=10, queries=300, draws_studied=(1, 10), steps_studied=(10, 30),
        epsilons=(0, 2 / 255, 8 / 255, paper.PGD_EPSILON, 1),
    ),
    "smoke": Protocol(
        images=50, fewer=20, steps=5, restarts=2, draws=4, queries=50, draws_studied=(1, 2, 4),
        steps_studied=(2, 5, 10), epsilons=(0, 8 / 255, paper.PGD_EPSILON, 1),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """A configuration with its place in the book; protocol: how it is attacked, in Table 4."""

    table: str
    row: str
    preset: str
    config: Config
    protocol: Protocol | None = None


def experiment(
    table: str, row: str, preset: str, dataset: str | None = None, settings: dict[str, str] | None = None
) -> Experiment:
    """The experiment of a row, or of a reading of it. dataset: in place of the recipe's own; settings: fields of the
    configuration changed by hand, as text, also in the row's name. Raises UramError for what is unknown."""
    check("table", table, ROWS)
    base, _, reading = row.partition("@")
    check("row", base, ROWS[table], f" of {table}")
    presets = [name for owner, name in RECIPES if owner == table]
    check("preset", preset, presets, f" of {table}")
    shared, looking = RECIPES[table, preset]
    own = ROWS[table][base]
    found = {"dataset": paper.DATASETS[table]} | shared | (looking if "glimpses" in own else {}) | own
    # In all presets but `paper` the context constraint takes the form that does not tell the label, and the chooser is
    # rewarded for what makes it find the digit. Both are chosen for their mechanism, not for the error they give.
    if preset != "paper" and found.get("context") == "attended":
        found["context"] = "confidence"
    if preset != "paper" and found["model"] == "unified":
        found["chooser_reward"] = "early"
    found |= ROW_RECIPES.get((table, preset, base), {})
    if "@" in row:
        check("reading", row, readings_of(table), f" of {table}")
        if dataset and READINGS[reading].changes.get("dataset", dataset) != dataset:
            raise UramError(f"{row} has a data set of its own: leave out --dataset")
        found |= READINGS[reading].changes
    config = Config(**found | ({"dataset": dataset} if dataset else {})).with_settings(settings or {})
    if settings:
        row += "+" + ",".join(f"{name}={str(getattr(config, name)).lower()}" for name in sorted(settings))
    return Experiment(table, row, preset, config, protocol=PROTOCOLS[preset] if table == "table4" else None)


def experiments(table: str, preset: str, rows: list[str] | None = None, **options) -> list[Experiment]:
    """The experiments of `rows`, each once. Among them `all`, as when None, stands for all rows of the table and
    `readings` for its readings. options: of `experiment`. Raises UramError for one text as `rows`, and for no row."""
    check("table", table, ROWS)
    sets = {"all": ROWS[table], "readings": readings_of(table, preset)}
    if isinstance(rows, str):
        raise UramError(f"rows must be a list of names, got {rows!r}")
    named = dict.fromkeys(row for name in rows or ["all"] for row in sets.get(name, [name]))
    if not named:
        raise UramError(f"{table} has no readings at {preset} settings; rows: {', '.join(ROWS[table])}")
    return [experiment(table, row, preset, **options) for row in named]


def published_weights(table: str, row: str, preset: str, seed: int, dataset: str | None = None) -> Path:
    """The published checkpoint of a row. Raises UramError where there is none, listing the rows that have one."""
    experiment(table, row, preset, dataset)
    every = sorted((CHECKPOINTS / table / preset).glob("*/*/seed-*.safetensors"))
    if dataset and every:
        check("data set", dataset, dict.fromkeys(path.parts[-3] for path in every), f" of {table}'s {preset} weights")
    there = [path for path in every if dataset in (None, path.parts[-3])]
    found = [path for path in there if (path.parent.name, path.stem) == (row, f"seed-{seed}")]
    if not found:
        have = sorted({f"{path.parent.name} (seed {path.stem[5:]})" for path in there}) or ["none"]
        where = f" on {dataset}" if dataset else ""
        wanted = f"no weights of {table}/{row}{where}, {preset}, seed {seed} are published"
        raise UramError(f"{wanted}; rows that have: {', '.join(have)}")
    return found[0]


def readings_of(table: str, preset: str | None = None) -> list[str]:
    """The readings of a table as rows, as in `ours-6@softmax`; with a preset, those that change something there."""
    found = [f"{row}@{name}" for name, reading in READINGS.items() if reading.table == table for row in reading.rows]
    config = lambda row: experiment(table, row, preset).config  # noqa: E731
    return [row for row in found if preset is None or config(row) != config(row.partition("@")[0])]


def label_of(table: str, row: str) -> str:
    """What a reader calls a row: the paper's words, or a control's own, and what is read otherwise."""
    row, _, by_hand = row.partition("+")
    base, _, reading = row.partition("@")
    known = paper.row(table, base)
    read = READINGS[reading].label if reading in READINGS else ""
    return "; ".join(filter(None, [known.label if known else CONTROLS.get(f"{table}/{base}", base), read, by_hand]))
