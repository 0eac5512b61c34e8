"""The paper's facts, typed in here alone: numbers, hyper-parameters, claims; and what others report for RAM."""

from dataclasses import dataclass

# §5, "Experiments", and the appendix.
LEARNING_RATE = 3e-4
BATCH_SIZE = 128
ENTROPY_OFFSET = 0.5  # lambda of Eq. 12
BETA1 = 1.0  # weight of the context term in Eq. 14
BETA2 = 0.01  # weight of the policy term in Eq. 14
SIGMA = 0.15  # called "variance"; read as the standard deviation (ledger B4)
GLIMPSES, PATCH_SIZE = 6, 12  # of Table 4's model
PGD_STEPS, PGD_EPSILON = 30, 0.3  # "step = 30 and epsilon = 0.3 in Eq. 15", without a unit (ledger H2)
TRAIN_SIZE, TEST_SIZE = 54_000, 10_000  # MNIST, without the 6,000 images for validation


@dataclass(frozen=True)
class Row:
    """One line of a table. value: percent, of test error or (Table 4) robust accuracy."""

    table: str
    row: str
    label: str
    value: float


ROWS = (
    Row("table1", "fc", "FC, 2 layers (256 hiddens each)", 1.69),
    Row("table1", "cnn2", "Convolutional networks, 2 layers", 1.21),
    Row("table1", "ram-6", "RAM, 6 glimpses, 8×8, 1 scale", 1.12),
    Row("table1", "ram-7", "RAM, 7 glimpses, 8×8, 1 scale", 1.07),
    Row("table1", "entropy-6", "URAM (Entropy), 6 glimpses, 8×8, 1 scale", 1.05),
    Row("table1", "entropy-context-6", "URAM (Entropy+Context), 6 glimpses, 8×8, 1 scale", 1.01),
    Row("table2", "fc", "FC, 2 layers (256 hiddens each)", 57.3),
    Row("table2", "cnn5", "Convolutional, 5 layers", 49.5),
    Row("table2", "ram-1-8x8", "RAM, 1 glimpse, 8×8, 1 scale", 88.6),
    Row("table2", "ram-1-12x12", "RAM, 1 glimpse, 12×12, 1 scale", 87.3),
    Row("table2", "ram-6-8x8", "RAM, 6 glimpses, 8×8, 1 scale", 79.3),
    Row("table2", "ram-6", "RAM, 6 glimpses, 12×12, 4 scales", 29.8),
    Row("table2", "ram-8", "RAM, 8 glimpses, 12×12, 4 scales", 24.7),
    Row("table2", "ours-6", "URAM, 6 glimpses, 12×12, 4 scales", 26.3),
    Row("table2", "ours-6-entropy", "URAM (Entropy), 6 glimpses, 12×12, 4 scales", 23.6),
    Row("table2", "ours-6-entropy-context", "URAM (Entropy+Context), 6 glimpses, 12×12, 4 scales", 20.3),
    Row("table2", "ours-8", "URAM, 8 glimpses, 12×12, 4 scales", 20.7),
    Row("table2", "ours-8-entropy-context", "URAM (Entropy+Context), 8 glimpses, 12×12, 4 scales", 17.3),
    Row("table3", "cnn11", "11-layer CNN (Goodfellow et al., 2014)", 3.96),
    Row("table3", "cnn10", "10-layer CNN (Ba et al., 2015)", 4.11),
    Row("table3", "dram", "Single DRAM (Ba et al., 2015), 18 glimpses, 12×12, 2 scales", 5.1),
    Row("table3", "entropy", "URAM (Entropy), 18 glimpses, 12×12, 2 scales", 4.58),
    Row("table3", "entropy-context", "URAM (Entropy+Context), 18 glimpses, 12×12, 2 scales", 4.03),
    Row("table4", "vgg16-pgd", "VGG16 + PGD", 47.76),
    Row("table4", "ours-vgg16-pgd", "URAM + VGG16 + PGD", 54.3),
)

CAPTIONS = {
    "table1": "28 × 28 MNIST classification",
    "table2": "100 × 100 Cluttered Translated MNIST classification",
    "table3": "Whole sequence recognition error rates on 54 × 54 multi-digit SVHN",
    "table4": "The recognition accuracy on CIFAR-10 with PGD attack",
}


@dataclass(frozen=True)
class Rival:
    """A number that others report, with its conditions, and our rows of `table` that were tested alike, in `metric`."""

    table: str
    whose: str
    source: str  # a public address, or a key of `book/references.bib`; none where we know none
    data: str
    error: str  # percent
    tested: str
    training: str  # without the rollouts
    metric: str = ""
    rows: tuple[str, ...] = ()
    rollouts: int = 0  # of training, in millions; 0 where they are not reported

    @property
    def name(self) -> str:
        """Whose number it is, with its source, as Markdown."""
        if self.source.startswith("http"):
            return f"[{self.whose}]({self.source})"
        return f"{self.whose} {{cite}}`{self.source}`" if self.source else self.whose

    @property
    def trained(self) -> str:
        return f"{self.rollouts} million rollouts, {self.training}" if self.rollouts else self.training

    def ours(self, alike) -> str:
        """What we have under these conditions; alike: (table, row, metric) -> text."""
        return " / ".join(alike(self.table, row, self.metric) for row in self.rows) or "–"


_GITHUB, _BENTREVETT = "https://github.com/", "https://github.com/bentrevett/recurrent-attention"
_ONE, _SAMPLED, _AVERAGED = "test_error", "test_error_sampled", "test_error_averaged"
_MNIST, _EIGHT, _FOUR = "28 × 28", "100 × 100, 8 pieces", "100 × 100, 4 pieces"
_AMASKY = "800 to 1,000 epochs, SGD with momentum"
RIVALS = (
    Rival("table1", "Mnih et al. 2014, RAM-6 / RAM-7", "mnih2014ram", _MNIST, "1.12 / 1.07", "not stated",
          "not stated"),
    Rival("table1", "kevinzakka/recurrent-visual-attention, 6 glimpses",
          f"{_GITHUB}kevinzakka/recurrent-visual-attention", _MNIST, "1.21", "10 passes averaged",
          "up to 200 epochs, σ 0.05, policy gradient kept out of the core and weighted 0.01",
          _AVERAGED, ("ram-6",)),
    Rival("table1", "amasky/ram, 6 glimpses", f"{_GITHUB}amasky/ram", _MNIST, "1.11 to 1.13", "one pass", _AMASKY,
          _ONE, ("ram-6",)),
    Rival("table1", "Torch blog (dp library), 7 glimpses", "http://torch.ch/blog/2015/09/21/rmva.html", _MNIST, "0.85",
          "one pass", "853 epochs of SGD", _ONE, ("ram-7",)),
    Rival("table1", "bentrevett/recurrent-attention", _BENTREVETT, _MNIST, "1.08",
          "epoch chosen on the test set", "10 rollouts per image"),
    Rival("table2", "Mnih et al. 2014, arXiv v1, RAM-6 / RAM-8", "https://arxiv.org/abs/1406.6247v1", _EIGHT,
          "11.58 / 10.83", "not stated", "not stated"),
    Rival("table2", "Mnih et al. 2014, proceedings, RAM-6 / RAM-8", "mnih2014ram", _EIGHT, "8.31 / 8.11", "not stated",
          "not stated"),
    Rival("table2", "tfRAM, RAM-6 / RAM-8, LSTM", f"{_GITHUB}slundqui/tfRAM", _EIGHT, "8.3 / 5.9",
          "single sampled passes", "4 scales, σ 0.1, uniform start",
          _SAMPLED, ("ram-6@8-pieces", "ram-8@8-pieces"), rollouts=160),
    Rival("table2", "PrincipalComponent/ram, RAM-6 / RAM-8, LSTM", f"{_GITHUB}PrincipalComponent/ram", _FOUR,
          "4.62 / 2.68", "10 passes averaged", "3 scales, centre start, σ 0.11, forget bias 1", _AVERAGED,
          ("ram-6@4-pieces", "ram-8@4-pieces"), rollouts=19),
    Rival("table2", "PrincipalComponent/ram, DRAM-like, 6 / 8 glimpses (a whole-image network chooses the start)",
          f"{_GITHUB}PrincipalComponent/ram", _FOUR, "2.00 / 1.71", "10 passes averaged",
          "2 scales, two LSTM layers, start from the context network, σ 0.11", rollouts=32),
    Rival("table2", "bentrevett/recurrent-attention, 8 glimpses", _BENTREVETT,
          "100 × 100, 4 pieces drawn under the digit", "6.74", "epoch chosen on the test set", "10 rollouts per image"),
    Rival("table2", "dHonerkamp/ram, RAM-6", f"{_GITHUB}dHonerkamp/ram", "100 × 100, number of pieces not known to us",
          "10.1", "one pass", "step size 1e-3, decaying"),
    Rival("table2", "amasky/ram", f"{_GITHUB}amasky/ram", "60 × 60, 4 pieces", "5.1", "one pass", _AMASKY),
    Rival("table2", "plain CNNs, 3 / 6 convolutions", "", _EIGHT, "1.69 / 0.92", "one pass",
          "fresh canvases, 100 epochs"),
    Rival("table3", "Ba et al. 2015, DRAM", "ba2015", "SVHN sequences", "5.1; 4.4; 3.9",
          "one pass; Monte Carlo; both directions", "not stated"),
)  # fmt: skip

# The data set that the paper's numbers belong to.
DATASETS = {"table1": "mnist", "table2": "clutter100-10", "table3": "svhn", "table4": "cifar10"}


@dataclass(frozen=True)
class Contrast:
    """One measurable part of a claim: within `table`, `better` is said to beat `worse` (row names)."""

    part: str
    table: str
    worse: str
    better: str
    # `outcome` is the table's own metric, for which the paper has numbers; the others are what it says in words alone
    # (`uram_book.comparisons.MEASURES`), and lower is better; `cost of ...` is measured by `make bench`.
    measure: str = "outcome"
    source: str = "paper"  # for what the paper says; `ours` for what we ask beside it


@dataclass(frozen=True)
class Claim:
    """A claim and the comparisons that test it."""

    claim: str
    statement: str
    contrasts: tuple[Contrast, ...]


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
           Contrast("URAM 6 to 8", "table2", "ours-6", "ours-8", source="ours"),
           Contrast("URAM with both constraints 6 to 8", "table2", "ours-6-entropy-context",
                    "ours-8-entropy-context", source="ours"))),
    Claim("C6", "Entropy and context constraints help on house numbers",
          (Contrast("entropy", "table3", "dram", "entropy"),
           Contrast("context", "table3", "entropy", "entropy-context"))),
    Claim("C7", "The method beats the 10-layer CNN on house numbers",
          (Contrast("10-layer CNN", "table3", "cnn10", "entropy-context"),)),
    Claim("C8", "Attention makes VGG16 more robust to PGD",
          (Contrast("robust accuracy", "table4", "vgg16-pgd", "ours-vgg16-pgd"),)),
    Claim("C9", "Cost does not grow with image size",
          (Contrast("a glimpse", "table2", "", "", "cost of glimpse_ms"),
           Contrast("the pyramid, once per image", "table2", "", "", "cost of pyramid_ms", "ours"),
           Contrast("the whole of URAM", "table2", "", "", "cost of unified_ms", "ours"))),
    Claim("C10", "Random start locations make learning unstable and high-variance; top-down makes it stable",
          (Contrast("spread over seeds, 6 glimpses", "table2", "ram-6", "ours-6", "spread over seeds"),
           Contrast("spread over seeds, 8 glimpses", "table2", "ram-8", "ours-8", "spread over seeds"),
           Contrast("answers that depend on the start, 6 glimpses", "table2", "ram-6", "ours-6", "depends on the start",
                    "ours"),
           Contrast("answers that depend on the start, 8 glimpses", "table2", "ram-8", "ours-8", "depends on the start",
                    "ours"))),
    Claim("C11", "The method outperforms CNNs",
          (Contrast("MNIST", "table1", "cnn2", "entropy-context-6"),
           Contrast("cluttered MNIST", "table2", "cnn5", "ours-8-entropy-context"))),
    Claim("C12", "The entropy term keeps glimpses off blank regions",
          (Contrast("MNIST", "table1", "ram-6", "entropy-6", "blank patches"),
           Contrast("cluttered MNIST", "table2", "ours-6", "ours-6-entropy", "blank patches"))),
    Claim("C13", "Fewer glimpses suffice",
          (Contrast("MNIST, URAM with 6 against RAM with 7", "table1", "ram-7", "entropy-context-6", source="ours"),
           Contrast("URAM with 6 against RAM with 8", "table2", "ram-8", "ours-6-entropy-context", source="ours"))),
    Claim("C14", "Attention suffers less from clutter",
          (Contrast("8 to 10 pieces, URAM against CNN", "table2", "cnn5", "ours-8-entropy-context", "harm of clutter"),
           Contrast("8 to 10 pieces, URAM against FC", "table2", "fc", "ours-8-entropy-context", "harm of clutter"),
           Contrast("8 to 10 pieces, RAM against CNN", "table2", "cnn5", "ram-6", "harm of clutter", "ours"),
           Contrast("8 to 10 pieces, RAM against FC", "table2", "fc", "ram-6", "harm of clutter", "ours"))),
)  # fmt: skip


def metric(table: str) -> str:
    """What a table's numbers are, in percent: `error`, or `robust_accuracy`, of which more is better."""
    return "robust_accuracy" if table == "table4" else "error"


def rival(start: str) -> Rival:
    """The first rival whose name begins so."""
    return next(r for r in RIVALS if r.whose.startswith(start))


def row(table: str, name: str) -> Row | None:
    """The paper's line, or None for rows that the paper does not have (controls)."""
    return next((r for r in ROWS if (r.table, r.row) == (table, name)), None)
