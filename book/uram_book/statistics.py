"""Intervals, paired comparisons and verdicts: for every table and claim, computed from per-image outcomes.

An error rate is a mean over seeds (another training run would give another network) and over test images (another
test set would give another score). Both vary, so both stand in the interval: each gives one of its own, and the squares
of their half-widths are added (Zou and Donner, 2008). So an interval is never narrower than the seeds alone make it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
FLAT = 0.1  # exponent below which a cost counts as not growing: a hundredfold size then costs less than 1.6-fold
FEWEST = 3  # pairs of runs that a verdict takes: two that happen to agree make a narrow interval of next to nothing


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval, in percent unless said otherwise; n: seeds."""

    mean: float
    low: float
    high: float
    n: int


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's interval of a proportion, as fractions of 1."""
    z = stats.norm.ppf(0.5 + CONFIDENCE / 2)
    p = successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    return centre - half, centre + half


def crossed_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and interval of values (seeds, images), both seen as samples. At least two seeds.

    The half-width is the root of the sum of two squares: that of the t interval over the seeds' means, and that of the
    t interval over the images' means. Degrees of freedom combined after Satterthwaite would give with three seeds an
    interval that a second source of chance can make narrower, and cover the truth in about 93 % of simulations, not 95;
    this one covers it in 95 to 98 %. The seed-by-image interaction is in both terms, which errs on the wide side, too.
    """
    seeds, images = values.shape
    if seeds < 2:
        raise ValueError("an interval over seeds needs at least two")
    mean = values.mean()
    half = math.hypot(t_half_width(values.mean(1)), t_half_width(values.mean(0)))
    return mean, mean - half, mean + half


def t_half_width(values: np.ndarray) -> float:
    """Half the width of the t interval of a mean. At least two values."""
    return stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * stats.sem(values)


def estimate(wrong: np.ndarray) -> Estimate:
    """The error rate in percent from wrong (seeds, images), each entry the share of that seed's test passes in which
    the image was misread. One seed: Wilson's interval, over images alone."""
    if len(wrong) == 1:
        low, high = wilson(wrong.sum(), wrong.shape[1])
        return Estimate(100 * wrong.mean(), 100 * low, 100 * high, 1)
    mean, low, high = crossed_interval(wrong)
    return Estimate(100 * mean, max(0.0, 100 * low), min(100.0, 100 * high), len(wrong))


def paired_difference(better: np.ndarray, worse: np.ndarray) -> Estimate:
    """Mean of better - worse in percentage points, paired by seed and by test image; both (seeds, images).

    One seed: a normal interval over images alone, which leaves out the variation between trainings.
    """
    difference = better - worse
    if len(difference) == 1:
        mean = difference.mean()
        half = stats.norm.ppf(0.5 + CONFIDENCE / 2) * difference.std(ddof=1) / math.sqrt(difference.shape[1])
        return Estimate(100 * mean, 100 * (mean - half), 100 * (mean + half), 1)
    return Estimate(*(100 * value for value in crossed_interval(difference)), len(difference))


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of one value per seed, in the values' own unit, with the t interval over seeds. At least two."""
    values = np.asarray(values, float)
    if len(values) < 2:
        raise ValueError("an interval over seeds needs at least two")
    half = t_half_width(values)
    return Estimate(values.mean(), values.mean() - half, values.mean() + half, len(values))


def spread_change(better: Sequence[float], worse: Sequence[float]) -> Estimate:
    """By how many percent the standard deviation of `better` exceeds that of `worse` (-50: half of it), from one value
    per run, as many runs on either side; at least two.

    The interval follows from the F distribution of the ratio of two sample variances, which takes the runs as
    independent and normal. Three runs a side leave a factor of 6 either way.
    """
    (n,) = {len(better), len(worse)}
    if n < 2 or np.ptp(worse) == 0:
        raise ValueError("a change of spread needs two values a side, and a spread to compare with")
    ratio = np.std(better) / np.std(worse)
    factor = math.sqrt(stats.f.ppf(0.5 + CONFIDENCE / 2, n - 1, n - 1))  # its lower quantile is one over this
    return Estimate(*(100 * (value - 1) for value in (ratio, ratio / factor, ratio * factor)), n)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> Estimate:
    """The p of cost ~ size**p, with the t interval of a least squares fit on logarithmic axes: 0 where the cost does
    not depend on the size, 1 where it grows in proportion. n: measurements; at least three."""
    if len(sizes) < 3:
        raise ValueError("the interval of an exponent needs at least three sizes")
    freedom = len(sizes) - 2
    x, y = (values - values.mean() for values in (np.log(sizes), np.log(costs)))
    slope = x @ y / (x @ x)
    # By hand: scipy's linregress gives no interval where all costs are equal.
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.linalg.norm(y - slope * x) / math.sqrt(freedom * (x @ x))
    return Estimate(slope, slope - half, slope + half, len(sizes))


def growth_verdict(ours: Estimate) -> str:
    """Judge the claim that a cost does not grow, from its `exponent`: `supported` below FLAT, `opposite` above."""
    if ours.low <= FLAT <= ours.high:
        return "undecided"
    return "supported" if ours.high < FLAT else "opposite"


def row_verdict(ours: Estimate, paper: float, test_size: int, higher_is_better: bool = False) -> str:
    """`matches` where the paper's value lies in our interval widened by the paper's own test-set noise, or `too wide to
    tell` where our interval is wider than the value itself; else `better` or `worse`. The paper gives no spread over
    trainings, so the luck of its own seed is not in it."""
    share = paper / 100
    noise = 100 * stats.norm.ppf(0.5 + CONFIDENCE / 2) * math.sqrt(share * (1 - share) / test_size)
    below, above = math.hypot(ours.mean - ours.low, noise), math.hypot(ours.high - ours.mean, noise)
    if ours.mean - below <= paper <= ours.mean + above:
        return "too wide to tell" if ours.high - ours.low > paper else "matches"
    return "better" if (ours.mean > paper) == higher_is_better else "worse"


def claim_verdict(ours: Estimate, paper_effect: float) -> str:
    """Judge a paired effect against the paper's, both signed alike (an effect of the paper's sign is claimed).

    `supported`: the interval lies beyond 0 on the claimed side; `opposite`: beyond 0 on the other;
    `not supported`: holds 0 and excludes the paper's effect; `undecided`: holds both, or there are fewer than FEWEST
    pairs of runs, which cannot tell an effect from the luck of a seed.
    """
    if ours.n < FEWEST:
        return "undecided"
    sign = math.copysign(1, paper_effect)
    low, high = sorted((sign * ours.low, sign * ours.high))
    if low > 0:
        return "supported"
    if high < 0:
        return "opposite"
    return "undecided" if low <= abs(paper_effect) <= high else "not supported"


def direction_verdict(ours: Estimate) -> str:
    """Judge an effect of which the paper says the sign alone, below 0: with no size given, none can be excluded, so
    an interval that holds 0 is `undecided`."""
    if ours.n < FEWEST or ours.low <= 0 <= ours.high:
        return "undecided"
    return "supported" if ours.high < 0 else "opposite"


def pooled_spread(groups: Sequence[Sequence[float]]) -> tuple[float, int, float]:
    """The standard deviation of paired differences over seeds, pooled over the readings of one effect: its value, its
    degrees of freedom, and the p-value of Bartlett's test that the readings spread alike.

    groups: for each reading, one difference per seed; those with a single seed add nothing. Three seeds give a poor
    estimate of a spread; 15 readings of three give a good one, if they have it in common. A small p-value says not.
    Levene's test of medians cannot say it with three seeds: it rejects 4 in 100 times where one reading of ten spreads
    five times as widely, Bartlett's 60 in 100 (and 5 where all spread alike).
    Raises ValueError where no group has two values.
    """
    groups = [np.asarray(group, float) for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        raise ValueError("a pooled spread needs a reading with two seeds")
    spread = math.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / freedom)
    varied = len(groups) > 1 and all(np.ptp(group) > 0 for group in groups)
    alike = stats.bartlett(*groups).pvalue if varied else 1.0
    return spread, freedom, float(alike)


def pooled_interval(values: Sequence[float], spread: float, freedom: int) -> Estimate:
    """The mean of one reading's differences with an interval from the pooled spread."""
    mean, half = float(np.mean(values)), stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * spread / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half, len(values))
