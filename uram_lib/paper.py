"""The paper's facts: every reported number, the stated hyper-parameters, the claims; and what others report for RAM.
Typed in here and nowhere else."""

from dataclasses import dataclass

TITLE = "Unifying Top-down and Bottom-up Recurrent Attention Model for Visual Recognition"

# §5, "Experiments", and the appendix.
LEARNING_RATE = 3e-4
BATCH_SIZE = 128
ENTROPY_OFFSET = 0.5  # lambda of Eq. 12
BETA1 = 1.0  # weight of the context term in Eq. 14
BETA2 = 0.01  # weight of the policy term in Eq. 14
SIGMA = 0.15  # called "variance"; read as the standard deviation (ledger B4)
GLIMPSES, PATCH_SIZE = 6, 12  # of Table 4's model
PGD_STEPS, PGD_EPSILON = 30, 0.3  # "step = 30 and epsilon = 0.3 in Eq. 15", without a unit (ledger H2)
GLIMPSES_A_PLACE = 3  # of a number, at each digit and at its end: 18 for five digits
TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE = 54_000, 6_000, 10_000  # MNIST


@dataclass(frozen=True)
class Row:
    """One line of a table. value: percent, of test error or (Table 4) robust accuracy."""

    table: str
    row: str
    label: str
    value: float
    metric: str = "error"


ROWS = (
    Row("table1", "fc", "FC, 2 layers (256 hiddens each)", 1.69),
    Row("table1", "cnn2", "Convolutional networks, 2 layers", 1.21),
    Row("table1", "ram-6", "RAM, 6 glimpses, 8×8, 1 scale", 1.12),
    Row("table1", "ram-7", "RAM, 7 glimpses, 8×8, 1 scale", 1.07),
    Row("table1", "entropy-6", "Our method (Entropy), 6 glimpses, 8×8, 1 scale", 1.05),
    Row("table1", "entropy-context-6", "Our method (Entropy+Context), 6 glimpses, 8×8, 1 scale", 1.01),
    Row("table2", "fc", "FC, 2 layers (256 hiddens each)", 57.3),
    Row("table2", "cnn5", "Convolutional, 5 layers", 49.5),
    Row("table2", "ram-1-8x8", "RAM, 1 glimpse, 8×8, 1 scale", 88.6),
    Row("table2", "ram-1-12x12", "RAM, 1 glimpse, 12×12, 1 scale", 87.3),
    Row("table2", "ram-6-8x8", "RAM, 6 glimpses, 8×8, 1 scale", 79.3),
    Row("table2", "ram-6", "RAM, 6 glimpses, 12×12, 4 scales", 29.8),
    Row("table2", "ram-8", "RAM, 8 glimpses, 12×12, 4 scales", 24.7),
    Row("table2", "ours-6", "Our method, 6 glimpses, 12×12, 4 scales", 26.3),
    Row("table2", "ours-6-entropy", "Our method (Entropy), 6 glimpses, 12×12, 4 scales", 23.6),
    Row("table2", "ours-6-entropy-context", "Our method (Entropy+Context), 6 glimpses, 12×12, 4 scales", 20.3),
    Row("table2", "ours-8", "Our method, 8 glimpses, 12×12, 4 scales", 20.7),
    Row("table2", "ours-8-entropy-context", "Our method (Entropy+Context), 8 glimpses, 12×12, 4 scales", 17.3),
    Row("table3", "cnn11", "11-layer CNN (Goodfellow et al., 2014)", 3.96),
    Row("table3", "cnn10", "10-layer CNN (Ba et al., 2015)", 4.11),
    Row("table3", "dram", "Single DRAM (Ba et al., 2015), 18 glimpses, 12×12, 2 scales", 5.1),
    Row("table3", "entropy", "Our method (Entropy), 18 glimpses, 12×12, 2 scales", 4.58),
    Row("table3", "entropy-context", "Our method (Entropy+Context), 18 glimpses, 12×12, 2 scales", 4.03),
    Row("table4", "vgg16-pgd", "VGG16 + PGD", 47.76, "robust_accuracy"),
    Row("table4", "ours-vgg16-pgd", "Our method + VGG16 + PGD", 54.3, "robust_accuracy"),
)

CAPTIONS = {
    "table1": "28 × 28 MNIST classification",
    "table2": "100 × 100 Cluttered Translated MNIST classification",
    "table3": "Whole sequence recognition error rates on 54 × 54 multi-digit SVHN",
    "table4": "The recognition accuracy on CIFAR-10 with PGD attack",
}

# What others report for RAM with patches of 12 x 12 on cluttered canvases, in percent of test error: source -> canvases
# -> row of Table 2 with as many glimpses. All have 3 scales, but Mnih et al. on arXiv have 4 on 100 x 100 px; the paper
# quotes their proceedings in Table 1. The last two are public code.
RAM_ELSEWHERE = {
    "Mnih et al., proceedings": {
        "clutter60-4": {"ram-6": 4.08, "ram-8": 4.04},
        "clutter100-8": {"ram-6": 8.31, "ram-8": 8.11},
    },
    "Mnih et al., arXiv": {
        "clutter60-4": {"ram-6": 5.88, "ram-8": 5.23},
        "clutter100-8": {"ram-6": 11.58, "ram-8": 10.83},
    },
    "PrincipalComponent/ram": {
        "clutter60-4": {"ram-6": 3.75, "ram-8": 4.82},
        "clutter100-8": {"ram-6": 4.62, "ram-8": 2.68},
    },
    "slundqui/tfRAM": {
        "clutter60-4": {"ram-6": 3.33, "ram-8": 2.63},
        "clutter100-8": {"ram-6": 8.3, "ram-8": 5.9},
    },
}

# The data set that the paper's numbers belong to.
DATASETS = {"table1": "mnist", "table2": "clutter100-10", "table3": "svhn", "table4": "cifar10"}


@dataclass(frozen=True)
class Contrast:
    """One measurable part of a claim: within `table`, `better` is said to beat `worse` (row names).

    measure: in what. `outcome` is the table's own metric, for which the paper has numbers; the others are what it says
    in words alone (`tables.MEASURES`), and lower is better.
    """

    part: str
    table: str
    worse: str
    better: str
    measure: str = "outcome"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper. Claims without contrasts are measured otherwise (see `how`)."""

    claim: str
    statement: str
    contrasts: tuple[Contrast, ...] = ()
    how: str = ""


CLAIMS = (
    Claim("C1", "The entropy constraint helps on MNIST",
          (Contrast("6 glimpses", "table1", "ram-6", "entropy-6"),)),
    Claim("C2", "The context constraint helps further on MNIST",
          (Contrast("6 glimpses", "table1", "entropy-6", "entropy-context-6"),)),
    Claim("C3", "Top-down initialisation gains almost 3 % on cluttered MNIST",
          (Contrast("6 glimpses", "table2", "ram-6", "ours-6"), Contrast("8 glimpses", "table2", "ram-8", "ours-8"))),
    Claim("C4", "Entropy and context constraints gain another 3 %",
          (Contrast("entropy, 6 glimpses", "table2", "ours-6", "ours-6-entropy"),
           Contrast("context, 6 glimpses", "table2", "ours-6-entropy", "ours-6-entropy-context"),
           Contrast("both, 6 glimpses", "table2", "ours-6", "ours-6-entropy-context"),
           Contrast("both, 8 glimpses", "table2", "ours-8", "ours-8-entropy-context"))),
    Claim("C5", "More glimpses help",
          (Contrast("MNIST, RAM 6 to 7", "table1", "ram-6", "ram-7"),
           Contrast("RAM 6 to 8", "table2", "ram-6", "ram-8"),
           Contrast("ours 6 to 8", "table2", "ours-6", "ours-8"),
           Contrast("ours with both constraints 6 to 8", "table2", "ours-6-entropy-context",
                    "ours-8-entropy-context"))),
    Claim("C6", "Entropy and context constraints help on house numbers",
          (Contrast("entropy", "table3", "dram", "entropy"),
           Contrast("context", "table3", "entropy", "entropy-context"))),
    Claim("C7", "The method beats the 10-layer CNN on house numbers",
          (Contrast("10-layer CNN", "table3", "cnn10", "entropy-context"),)),
    Claim("C8", "Attention makes VGG16 more robust to PGD",
          (Contrast("robust accuracy", "table4", "vgg16-pgd", "ours-vgg16-pgd"),)),
    Claim("C9", "Cost does not grow with image size", how="make bench"),
    Claim("C10", "Random start locations make learning unstable and high-variance; top-down makes it stable",
          (Contrast("spread over seeds, 6 glimpses", "table2", "ram-6", "ours-6", "spread over seeds"),
           Contrast("spread over seeds, 8 glimpses", "table2", "ram-8", "ours-8", "spread over seeds"),
           Contrast("answers that hang on the start, 6 glimpses", "table2", "ram-6", "ours-6", "hang on the start"),
           Contrast("answers that hang on the start, 8 glimpses", "table2", "ram-8", "ours-8", "hang on the start"))),
    Claim("C11", "The method outperforms CNNs",
          (Contrast("MNIST", "table1", "cnn2", "entropy-context-6"),
           Contrast("cluttered MNIST", "table2", "cnn5", "ours-8-entropy-context"))),
    Claim("C12", "The entropy term keeps glimpses off blank regions",
          (Contrast("MNIST", "table1", "ram-6", "entropy-6", "blank patches"),
           Contrast("cluttered MNIST", "table2", "ours-6", "ours-6-entropy", "blank patches"))),
    Claim("C13", "Fewer glimpses suffice",
          (Contrast("MNIST, ours with 6 against RAM with 7", "table1", "ram-7", "entropy-context-6"),
           Contrast("ours with 6 against RAM with 8", "table2", "ram-8", "ours-6-entropy-context"))),
    Claim("C14", "Attention suffers less from clutter",
          (Contrast("8 to 10 pieces, ours against CNN", "table2", "cnn5", "ours-8-entropy-context", "harm of clutter"),
           Contrast("8 to 10 pieces, ours against FC", "table2", "fc", "ours-8-entropy-context", "harm of clutter"),
           Contrast("8 to 10 pieces, RAM against CNN", "table2", "cnn5", "ram-6", "harm of clutter"),
           Contrast("8 to 10 pieces, RAM against FC", "table2", "fc", "ram-6", "harm of clutter"))),
)  # fmt: skip


def metric(table: str) -> str:
    """What a table's numbers are, in percent: `error`, or `robust_accuracy`, of which more is better."""
    return next((row.metric for row in ROWS if row.table == table), "error")


def place(table: str, name: str) -> int:
    """Where a row stands among all of the paper's; rows that the paper does not have come last."""
    order = [(r.table, r.row) for r in ROWS]
    return order.index((table, name)) if (table, name) in order else len(order)


def row(table: str, name: str) -> Row | None:
    """The paper's line, or None for rows that the paper does not have (controls)."""
    return next((r for r in ROWS if (r.table, r.row) == (table, name)), None)
