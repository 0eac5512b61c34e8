"""Intervals and verdicts against scipy, and by simulation (oracle 12)."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st
from uram_book.statistics import (
    Estimate,
    claim_verdict,
    crossed_interval,
    direction_verdict,
    estimate,
    exponent,
    growth_verdict,
    mean_over_seeds,
    paired_difference,
    pooled_interval,
    pooled_spread,
    row_verdict,
    spread_change,
    wilson,
)  # fmt: skip


def seeds_by_images(seed: int, seeds: int = 4, images: int = 60, error: float = 0.2) -> np.ndarray:
    """(seeds, images) of 0 and 1, with easy and hard images."""
    rng = np.random.default_rng(seed)
    hard = rng.beta(0.5, 0.5 * (1 / error - 1), images)
    return (rng.random((seeds, images)) < hard).astype(float)


@given(trials=st.integers(1, 20_000), share=st.floats(0, 1))
def test_oracle12_wilson_agrees_with_scipy(trials, share):
    successes = round(share * trials)
    truth = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((truth.low, truth.high), abs=1e-12)


@given(seed=st.integers(0, 10_000), seeds=st.integers(2, 10))
def test_oracle12_seeds_alone_give_the_t_interval(seed, seeds):
    """Where all images are alike, only seeds vary: scipy's one-sample t interval is the truth."""
    means = np.random.default_rng(seed).random(seeds)
    truth = scipy.stats.ttest_1samp(means, 0).confidence_interval(0.95)
    found = crossed_interval(np.repeat(means[:, None], 500, 1))
    assert found == pytest.approx((means.mean(), truth.low, truth.high), abs=1e-9)


@given(seed=st.integers(0, 10_000), images=st.integers(3, 300))
def test_oracle12_images_alone_give_the_t_interval(seed, images):
    """Where all seeds agree, only images vary."""
    values = np.random.default_rng(seed).random(images)
    truth = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = crossed_interval(np.repeat(values[None], 3, 0))
    assert found == pytest.approx((values.mean(), truth.low, truth.high), abs=1e-9)


@given(seed=st.integers(0, 10_000))
def test_oracle12_both_together_add_the_squares_of_scipys_two_intervals(seed):
    """Independent truth: scipy's t intervals of the seeds' means and of the images' means."""
    values = seeds_by_images(seed)
    values[0, 0] = 0.5  # never all alike
    spans = [scipy.stats.ttest_1samp(values.mean(axis), 0).confidence_interval(0.95) for axis in (0, 1)]
    halves = [np.ptp(span) / 2 for span in spans]
    mean, low, high = crossed_interval(values)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(np.hypot(*halves), rel=1e-9)
    assert high - mean == pytest.approx(mean - low)


@given(seed=st.integers(0, 10_000), seeds=st.integers(2, 5), images=st.integers(3, 50), spread=st.floats(0, 3))
def test_oracle12_no_source_of_chance_makes_an_interval_narrower(seed, seeds, images, spread):
    """Images that differ cannot make known what the seeds leave open: a property that combined degrees of freedom
    lack."""
    rng = np.random.default_rng(seed)
    by_seed, by_image = rng.normal(0, 1, (seeds, 1)), spread * rng.normal(0, 1, (1, images))
    seeds_alone = scipy.stats.ttest_1samp((by_seed + by_image).mean(1), 0).confidence_interval(0.95)
    _, low, high = crossed_interval(by_seed + by_image)
    assert low <= seeds_alone.low + 1e-9 and high >= seeds_alone.high - 1e-9


def simulated_coverage(seeds: int, seed_sd: float, image_sd: float, noise_sd: float, repeats: int = 1500) -> float:
    """How often the interval holds the true mean, when seeds, images and their interaction all vary."""
    rng = np.random.default_rng(17)
    hits = 0
    for _ in range(repeats):
        by_seed, by_image = rng.normal(0, seed_sd, (seeds, 1)), rng.normal(0, image_sd, (1, 80))
        _, low, high = crossed_interval(5 + by_seed + by_image + rng.normal(0, noise_sd, (seeds, 80)))
        hits += low <= 5 <= high
    return hits / repeats


@pytest.mark.parametrize("seed_sd, image_sd", [(0.1, 0.1), (0.1, 0.5), (0.1, 1.0), (0.02, 1.0)])
@pytest.mark.parametrize("seeds, most", [(10, 0.98), (3, 0.99)])
def test_oracle12_coverage_of_the_crossed_interval_does_not_fall_short(seeds, most, seed_sd, image_sd):
    """95 %, within three standard errors (1.7) of 1,500 simulations; in 3,000 it was 94.3 to 96.2 % with ten seeds, and
    95.0 to 98.0 % with three: too wide rather than too narrow where both sources count alike."""
    assert 0.933 < simulated_coverage(seeds, seed_sd, image_sd, noise_sd=0.1) < most


def test_crossed_interval_needs_two_seeds_and_allows_no_variation():
    with pytest.raises(ValueError, match="at least two"):
        crossed_interval(np.ones((1, 5)))
    assert crossed_interval(np.full((3, 5), 0.25)) == (0.25, 0.25, 0.25)


def test_oracle12_estimate_of_one_seed_is_wilson_in_percent():
    found = estimate((np.arange(200) < 30)[None].astype(float))
    truth = scipy.stats.binomtest(30, 200).proportion_ci(method="wilson")
    assert (found.mean, found.low, found.high) == pytest.approx((15, 100 * truth.low, 100 * truth.high))
    assert found.n == 1


@given(seed=st.integers(0, 10_000), error=st.floats(0.01, 0.9), seeds=st.integers(1, 4))
def test_estimate_stays_within_zero_and_a_hundred_around_its_mean(seed, error, seeds):
    wrong = seeds_by_images(seed, seeds, 12, error)
    found = estimate(wrong)
    assert found.mean == pytest.approx(100 * wrong.mean())
    assert -1e-9 <= found.low <= found.mean + 1e-9 and found.mean - 1e-9 <= found.high <= 100 + 1e-9
    assert found.n == seeds


@given(seed=st.integers(0, 10_000), seeds=st.integers(1, 5))
def test_paired_difference_is_antisymmetric(seed, seeds):
    a, b = seeds_by_images(seed, seeds), seeds_by_images(seed + 1, seeds, error=0.4)
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert (forth.mean, forth.low, forth.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert forth.mean == pytest.approx(100 * (a.mean() - b.mean())) and forth.n == seeds


@given(seed=st.integers(0, 10_000), seeds=st.integers(1, 5), shift=st.integers(-5, 5).map(lambda n: n / 5))
def test_paired_difference_of_a_shifted_copy_is_the_shift_and_certain(seed, seeds, shift):
    """Pairing removes all that two rows have in common. Shares of five test passes, as records hold them."""
    a = seeds_by_images(seed, seeds)
    found = paired_difference(a + shift, a)
    assert (found.mean, found.low, found.high) == pytest.approx((100 * shift,) * 3, abs=1e-9)


@given(seed=st.integers(0, 10_000))
def test_paired_difference_ignores_the_order_of_pairs_but_not_pairing(seed):
    a, b = seeds_by_images(seed, 4), seeds_by_images(seed, 4)
    b[:, :5] = 1 - b[:, :5]  # agree on all images but five
    rng = np.random.default_rng(seed)
    seeds, images = rng.permutation(4), rng.permutation(60)
    whole, shuffled = paired_difference(a, b), paired_difference(a[seeds][:, images], b[seeds][:, images])
    assert (whole.mean, whole.low, whole.high) == pytest.approx((shuffled.mean, shuffled.low, shuffled.high))
    broken = paired_difference(a, b[:, np.roll(np.arange(60), 30)])
    assert broken.mean == pytest.approx(whole.mean)


def test_oracle12_paired_difference_of_one_seed_agrees_with_scipys_paired_z():
    a, b = seeds_by_images(1, 1, 3000), seeds_by_images(2, 1, 3000)
    found, d = paired_difference(a, b), (a - b)[0]
    low, high = scipy.stats.norm.interval(0.95, d.mean(), scipy.stats.sem(d))
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize("mean, half, n, paper, higher_is_better, verdict", [
    (1.0, 0.1, 10, 1.05, False, "matches"),
    (1.0, 0.1, 10, 1.12, False, "matches"),  # beyond our interval, within the paper's own noise
    (1.0, 0.1, 10, 1.69, False, "better"), (2.0, 0.1, 10, 1.12, False, "worse"),
    (60, 1, 3, 54.3, True, "better"), (40, 1, 3, 47.76, True, "worse"), (47, 1, 3, 47.76, True, "matches"),
    (1.0, 0.5, 3, 1.12, False, "matches"), (9, 1, 2, 1.12, False, "worse"),
    (1.0, 1.0, 2, 1.12, False, "too wide to tell"),  # wider than the paper's very number
])  # fmt: skip
def test_row_verdicts(mean, half, n, paper, higher_is_better, verdict):
    assert row_verdict(Estimate(mean, mean - half, mean + half, n), paper, 10_000, higher_is_better) == verdict


def test_row_verdict_widens_by_the_papers_test_set_noise():
    """With a certain value of ours the border is 1.96 binomial standard errors of the paper's value, from scipy."""
    certain, paper = Estimate(1.0, 1.0, 1.0, 10), 1.2
    noise = 100 * scipy.stats.norm.ppf(0.975) * scipy.stats.binom.std(10_000, 0.012) / 10_000
    for offset, verdict in [(0.99, "matches"), (1.01, "better")]:
        assert row_verdict(Estimate(*[paper - offset * noise] * 3, 10), paper, 10_000) == verdict
    for offset, verdict in [(0.99, "matches"), (1.01, "worse")]:
        assert row_verdict(Estimate(*[paper + offset * noise] * 3, 10), paper, 10_000) == verdict
    assert row_verdict(certain, paper, 1_000) == "matches" and row_verdict(certain, paper, 1_000_000) == "better"


@given(mean=st.floats(-5, 5), below=st.floats(0, 5), above=st.floats(0, 5), paper=st.floats(0.01, 9))
@example(mean=0, below=0, above=0, paper=0.5)  # exactly nothing
@example(mean=0.5, below=0.5, above=0.5, paper=0.5)  # touches 0
@example(mean=-0.1, below=0.5, above=0.5, paper=0.5)  # holds the paper's effect with the wrong sign only
@example(mean=2, below=1, above=1, paper=9)  # smaller than claimed, yet beyond 0
def test_claim_verdict_follows_its_definition(mean, below, above, paper):
    """The four verdicts as design.md words them, whichever sign is claimed."""
    low, high = mean - below, mean + above
    holds_zero, holds_paper = low <= 0 <= high, low <= paper <= high
    expected = ("undecided" if holds_paper else "not supported") if holds_zero else "supported"
    if high < 0:
        expected = "opposite"
    assert claim_verdict(Estimate(mean, low, high, 3), paper) == expected
    assert claim_verdict(Estimate(-mean, -high, -low, 3), -paper) == expected
    assert claim_verdict(Estimate(mean, low, high, 2), paper) == "undecided"  # two pairs may agree by luck


@given(seed=st.integers(0, 10_000), runs=st.integers(2, 12))
def test_mean_over_seeds_is_scipys_t_interval(seed, runs):
    values = np.random.default_rng(seed).normal(20, 3, runs)
    truth = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_over_seeds(values.tolist())
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((values.mean(), truth.low, truth.high, runs))


@given(seed=st.integers(0, 10_000), runs=st.integers(2, 12), scale=st.floats(0.05, 20))
def test_change_of_spread_holds_zero_where_an_f_test_does_not_reject(seed, runs, scale):
    """Independent truth: the two-sided p-value of the F test of equal variances, and the means do not matter."""
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(5, scale, runs), rng.normal(-7, 1, runs)
    found = spread_change(ours, theirs)
    ratio = ours.var(ddof=1) / theirs.var(ddof=1)
    one_sided = scipy.stats.f.cdf(ratio, runs - 1, runs - 1)
    assert found.mean == pytest.approx(100 * (ratio**0.5 - 1)) and found.n == runs
    assert (found.low <= 0 <= found.high) == (2 * min(one_sided, 1 - one_sided) >= 0.05)
    back = spread_change(theirs, ours)  # the ratio turned round, end by end
    assert (1 + back.low / 100) * (1 + found.high / 100) == pytest.approx(1)


@pytest.mark.parametrize("runs", [3, 10])
def test_coverage_of_the_change_of_spread_is_nominal(runs):
    """95 %, within three standard errors (1.5) of 2,000 simulations, where the true change is +50 %."""
    rng = np.random.default_rng(5)
    found = [spread_change(rng.normal(0, 1.5, runs), rng.normal(0, 1, runs)) for _ in range(2_000)]
    assert 0.935 < np.mean([f.low <= 50 <= f.high for f in found]) < 0.965


@pytest.mark.parametrize("ours, theirs", [([1.0], [2.0]), ([1.0, 2.0], [3.0, 3.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_no_change_of_spread_without_pairs_and_a_spread_to_compare_with(ours, theirs):
    with pytest.raises(ValueError):
        spread_change(ours, theirs)


@pytest.mark.parametrize("low, high, n, verdict", [
    (-3.0, -1.0, 3, "supported"), (1.0, 3.0, 3, "opposite"), (-3.0, 0.0, 3, "undecided"),
    (-0.01, 0.01, 100, "undecided"),  # the paper gives no size that this could exclude
    (-3.0, -1.0, 1, "undecided"),  # one pair of runs
])  # fmt: skip
def test_direction_verdicts(low, high, n, verdict):
    assert direction_verdict(Estimate((low + high) / 2, low, high, n)) == verdict


def test_an_exponent_and_its_interval_are_those_of_scipy():
    sizes, costs = [1, 3, 10, 50], [2.0, 5.0, 31.0, 90.0]
    fit = scipy.stats.linregress(np.log(sizes), np.log(costs))
    found = exponent(sizes, costs)
    assert found.mean == pytest.approx(fit.slope)
    assert found.high - found.low == pytest.approx(2 * fit.stderr * scipy.stats.t.ppf(0.975, 2))
    constant = exponent([1, 10, 100], [5, 5, 5])
    assert (constant.mean, constant.low, constant.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="at least three sizes"):
        exponent([1, 2], [1, 2])


def test_growth_is_judged_by_where_the_whole_interval_lies():
    verdict = lambda *span: growth_verdict(Estimate(*span, 6))  # noqa: E731
    assert verdict(0.01, -0.02, 0.04) == "supported"
    assert verdict(0.8, 0.3, 1.3) == "opposite"
    assert verdict(0.2, 0.05, 0.4) == "undecided"


@given(seed=st.integers(0, 10_000), sizes=st.tuples(st.integers(2, 6), st.integers(2, 6)))
def test_a_pooled_spread_is_that_of_scipys_t_test_of_two_groups(seed, sizes):
    """Its statistic is the difference of the means over the pooled spread times a factor of the sizes."""
    rng = np.random.default_rng(seed)
    groups = [rng.normal(mean, 2, n) for mean, n in zip((0, 5), sizes, strict=True)]
    truth = scipy.stats.ttest_ind(*groups)
    spread, freedom, _ = pooled_spread([*map(list, groups), [17.0]])  # a single value says nothing of a spread
    difference = groups[0].mean() - groups[1].mean()
    assert spread * np.hypot(*(n**-0.5 for n in sizes)) == pytest.approx(difference / truth.statistic)
    assert freedom == truth.df


@given(seed=st.integers(0, 10_000), runs=st.integers(2, 12))
def test_an_interval_pooled_over_one_group_is_its_t_interval(seed, runs):
    values = np.random.default_rng(seed).normal(20, 3, runs)
    found, truth = pooled_interval(values, *pooled_spread([values])[:2]), mean_over_seeds(values)
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((truth.mean, truth.low, truth.high, truth.n))


def test_coverage_of_the_pooled_interval_is_nominal_also_for_a_single_run():
    """95 %, within three standard errors (1.5) of 2,000 simulations of nine groups of three and one of one."""
    rng, hits = np.random.default_rng(7), np.zeros(2)
    for _ in range(2_000):
        groups = [rng.normal(5, 2, n) for n in (3,) * 9 + (1,)]
        pooled = pooled_spread(groups)[:2]
        intervals = [pooled_interval(groups[i], *pooled) for i in (0, 9)]
        hits += [found.low <= 5 <= found.high for found in intervals]
    assert np.all((0.935 < hits / 2_000) & (hits / 2_000 < 0.965))


def test_whether_readings_spread_alike_is_asked_by_a_test_that_can_say_no():
    """With three seeds each: it rejects 1 in 20 where all ten spread alike, and mostly where one spreads ten times."""
    rng = np.random.default_rng(8)
    rejected = {
        wide: np.mean([pooled_spread([rng.normal(0, s, 3) for s in (wide, *[1] * 9)])[2] < 0.05 for _ in range(500)])
        for wide in (1, 10)
    }
    assert rejected[1] < 0.08 and rejected[10] > 0.6
    assert pooled_spread([[1.0, 2.0]])[2] == pooled_spread([[2.0, 2.0], [2.0, 2.0]])[2] == 1


def test_a_pooled_spread_needs_a_reading_with_two_seeds():
    with pytest.raises(ValueError):
        pooled_spread([[1.0], [2.0]])
