"""Intervals, paired comparisons and verdicts: for every table and claim, computed from per-image outcomes.

An error rate is a mean over seeds (another training run would give another network) and over test images (another
test set would give another score). Both vary, so both stand in the interval: each gives one of its own, and the squares
of their half-widths are added (Zou and Donner, 2008). So an interval is never narrower than the seeds alone make it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
Z = stats.norm.ppf(0.5 + CONFIDENCE / 2)
FLAT = 0.1  # exponent below which a cost counts as not growing: a hundredfold size then costs less than 1.6-fold
FEWEST = 3  # pairs of runs that a verdict takes: two that happen to agree make a narrow interval of next to nothing


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval, in percent or percentage points unless said otherwise; n: seeds or pairs; NaN
    is what is not known. verdict and paper: how it is judged, and against which number."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    verdict: str = ""
    paper: float = math.nan

    def __format__(self, sign: str) -> str:
        """As in `1.09 [0.98, 1.20], 3 seeds`; sign: "+" for a difference."""
        mean, low, high = (f"{value:{sign}.2f}" for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}], {self.n} seed{'' if self.n == 1 else 's'}".replace("-", "−")


def around(mean: float, error: float, n: int, freedom: float = math.inf) -> Estimate:
    """A mean with its t interval from its standard error; the normal interval where no degrees of freedom are given."""
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * error
    return Estimate(mean, mean - half, mean + half, n)


def t_interval(values: Sequence[float]) -> Estimate:
    """Mean of a sample, in its own unit, with its t interval. Raises ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError("an interval over seeds needs at least two")
    return around(np.mean(values), stats.sem(values), len(values), len(values) - 1)


def crossed(values: np.ndarray) -> Estimate:
    """Mean and interval of values (seeds, images), in their own unit, both seen as samples. Raises ValueError for fewer
    than two seeds.

    It covers the truth in 95 to 98 % of simulations with three seeds. Degrees of freedom combined after Satterthwaite
    cover it in 93 %, and a second source of chance can then make an interval narrower.
    """
    return widened(t_interval(values.mean(1)), t_interval(values.mean(0)))


def widened(found: Estimate, other: Estimate) -> Estimate:
    """An estimate whose interval also holds another one's chance: the squares of the half-widths are added."""
    half = math.hypot(found.high - found.mean, other.high - other.mean)
    return replace(found, low=found.mean - half, high=found.mean + half)


def estimate(wrong: np.ndarray) -> Estimate:
    """The error rate in percent from wrong (seeds, images), each entry the share of that seed's test passes in which
    the image was misread. One seed, or nothing that varies: Wilson's interval, over images alone."""
    if len(wrong) > 1 and np.ptp(wrong):
        found = crossed(100 * wrong)
        return replace(found, low=max(0.0, found.low), high=min(100.0, found.high))
    images, p = wrong.shape[1], wrong.mean()
    centre = (p + Z**2 / (2 * images)) / (1 + Z**2 / images)
    half = Z / (1 + Z**2 / images) * math.sqrt(p * (1 - p) / images + Z**2 / (4 * images**2))
    return Estimate(100 * p, 100 * (centre - half), 100 * (centre + half), len(wrong))


def paired_difference(better: np.ndarray, worse: np.ndarray) -> Estimate:
    """Mean of better - worse in percentage points, paired by seed and by test image; both (seeds, images). One seed: a
    normal interval over images alone, which leaves out the variation between trainings."""
    difference = 100 * (better - worse)
    if len(difference) > 1:
        return crossed(difference)
    return around(difference.mean(), stats.sem(difference[0]), 1)


def spread_change(better: Sequence[float], worse: Sequence[float]) -> Estimate:
    """By how many percent the standard deviation of `better` exceeds that of `worse` (-50: half of it), from one value
    per run, as many runs on either side. Raises ValueError for fewer than two, or where `worse` does not vary.

    The interval is that of an F test, for independent and normal runs. Three a side leave a factor of 6 either way.
    """
    (n,) = {len(better), len(worse)}
    if n < 2 or np.ptp(worse) == 0:
        raise ValueError("a change of spread needs two values a side, and a spread to compare with")
    ratio = np.std(better) / np.std(worse)
    factor = math.sqrt(stats.f.ppf(0.5 + CONFIDENCE / 2, n - 1, n - 1))  # its lower quantile is one over this
    return Estimate(*(100 * (value - 1) for value in (ratio, ratio / factor, ratio * factor)), n)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> Estimate:
    """The p of cost ~ size**p, with the t interval of a least squares fit on logarithmic axes: 0 where the cost does
    not depend on the size, 1 where it grows in proportion. n: measurements. Raises ValueError for fewer than three."""
    if len(sizes) < 3:
        raise ValueError("the interval of an exponent needs at least three sizes")
    freedom = len(sizes) - 2
    x, y = (values - values.mean() for values in (np.log(sizes), np.log(costs)))
    slope = x @ y / (x @ x)
    # By hand: scipy's linregress gives no interval where all costs are equal.
    error = np.linalg.norm(y - slope * x) / math.sqrt(freedom * (x @ x))
    return around(slope, error, len(sizes), freedom)


def row_verdict(ours: Estimate, paper: float, test_size: int, higher_is_better: bool = False) -> str:
    """`matches` where the paper's value lies in our interval widened by the paper's test-set noise (not the luck of its
    seed), or `too wide to tell` where our interval is wider than the value itself; else `better` or `worse`."""
    share = paper / 100
    noise = 100 * Z * math.sqrt(share * (1 - share) / test_size)
    below, above = math.hypot(ours.mean - ours.low, noise), math.hypot(ours.high - ours.mean, noise)
    if ours.mean - below <= paper <= ours.mean + above:
        return "too wide to tell" if ours.high - ours.low > paper else "matches"
    return "better" if (ours.mean > paper) == higher_is_better else "worse"


def direction_verdict(ours: Estimate, border: float = 0) -> str:
    """Judge a statement without a size, that an effect lies below `border` (0, or FLAT for the exponent of a cost that
    does not grow): `supported` or `opposite` where the whole interval lies on one side. With fewer than FEWEST pairs of
    runs, which cannot tell an effect from the luck of a seed, `undecided`."""
    if ours.n < FEWEST or ours.low <= border <= ours.high:
        return "undecided"
    return "supported" if ours.high < border else "opposite"


def claim_verdict(ours: Estimate, paper_effect: float) -> str:
    """Judge a paired effect against the paper's, both signed alike (an effect of the paper's sign is claimed), as
    `direction_verdict`; but an interval that holds 0 and excludes the paper's effect is `not supported`."""
    if ours.n >= FEWEST and ours.low <= 0 <= ours.high and not ours.low <= paper_effect <= ours.high:
        return "not supported"
    return direction_verdict(ours if paper_effect < 0 else Estimate(-ours.mean, -ours.high, -ours.low, ours.n))
