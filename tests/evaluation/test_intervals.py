"""Intervals: whether they hold the truth as often as they say, and small cases by hand."""

import numpy as np
import pytest

from recsys_jax.errors import InputError
from recsys_jax.evaluation import bootstrap as intervals
from recsys_jax.evaluation.queries import gini, top_lists


def purchases(rng, customers=80, effect=1.0, noise=1.0):
    """Customers of 1 to 6 queries each; what a customer is like concerns all of them. The true mean is 0."""
    each = rng.integers(1, 7, customers)
    row = np.repeat(np.arange(customers), each)
    return effect * rng.standard_normal(customers)[row] + noise * rng.standard_normal(len(row)), row


def test_an_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = naive = 0
    for trial in range(400):
        values, row = purchases(rng)
        found = intervals.mean_interval(values, row, count=400, seed=trial)
        held += found.low <= 0 <= found.high
        alone = intervals.mean_interval(values, np.arange(len(row)), count=400, seed=trial)
        naive += alone.low <= 0 <= alone.high
    assert 0.92 <= held / 400 <= 0.98
    assert naive / 400 < 0.85  # queries taken for independent promise too much


def width(interval):
    return interval.high - interval.low


def test_what_customers_share_widens_and_pairing_narrows():
    rng = np.random.default_rng(1)
    values, row = purchases(rng)
    assert width(intervals.mean_interval(values, row)) > 1.3 * width(
        intervals.mean_interval(values, np.arange(len(row)))
    )
    better = values + 0.3 + 0.3 * rng.standard_normal(len(row))
    apart = [intervals.mean_interval(one, row) for one in (better, values)]
    paired = intervals.mean_interval(better - values, row)
    assert apart[0].low < apart[1].high  # they overlap
    assert paired.clear
    assert not intervals.mean_interval(values - values, row).clear
    assert width(paired) < width(apart[0]) / 3
    assert paired.mean == pytest.approx(apart[0].mean - apart[1].mean)


def test_with_one_query_each_it_is_the_standard_error():
    rng = np.random.default_rng(2)
    values = rng.standard_normal(2000)
    found = intervals.mean_interval(values, np.arange(2000), count=4000)
    assert width(found) == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.05)


def test_a_resample_is_a_ratio_of_sums():
    """Two customers, values 1 and 0, 0, 0: drawn are both (1 / 4), the first alone (1) or the second alone (0)."""
    values, row = np.array([1.0, 0.0, 0.0, 0.0]), np.array([5, 9, 9, 9])
    found = intervals.mean_interval(values, row)
    assert (found.mean, found.low, found.high, found.n) == (0.25, 0.0, 1.0, 4)
    weights = next(intervals.resamples(2))
    means = (weights @ [1, 0]) / (weights @ [1, 3])
    assert set(np.unique(means)) == {0.0, 0.25, 1.0}
    assert (found.low, found.high) == tuple(np.quantile(means, [0.025, 0.975]))


def test_resamples_are_of_the_seed_and_not_of_the_blocks():
    whole = np.concatenate(list(intervals.resamples(7, count=50, seed=3)))
    for block in (1, 7, 13, 80):
        parts = list(intervals.resamples(7, count=50, seed=3, block=block))
        assert max(map(len, parts)) <= block
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert (whole.sum(axis=1) == 7).all()
    assert not np.array_equal(whole, np.concatenate(list(intervals.resamples(7, count=50, seed=4))))
    many = np.concatenate(list(intervals.resamples(5, count=20000)))
    np.testing.assert_allclose(many.mean(axis=0), 1.0, atol=0.03)
    np.testing.assert_allclose(np.cov(many.T), np.eye(5) - 0.2, atol=0.03)  # of a multinomial
    # Large ones come in blocks of themselves.
    assert next(intervals.resamples(2**21)).shape == (2, 2**21)


def test_columns_are_the_columns_alone():
    rng = np.random.default_rng(4)
    values, row = purchases(rng, customers=30)
    table = np.stack([values, -values, np.where(row < 10, values, np.nan)], axis=1)
    found = intervals.mean_intervals(table, row, seed=8)
    assert found == intervals.mean_intervals(table, row, seed=8)
    for column, interval in enumerate(found):
        alone = intervals.mean_interval(table[:, column], row, seed=8)
        assert interval.n == alone.n
        np.testing.assert_allclose(
            [interval.mean, interval.low, interval.high], [alone.mean, alone.low, alone.high], atol=1e-12
        )
    assert found[2].n == (row < 10).sum()
    assert found[2].mean == pytest.approx(values[row < 10].mean())
    assert found[0] != intervals.mean_intervals(table, row, seed=9)[0]
    # The customers' numbers and the order of the queries are no matter.
    order = rng.permutation(len(row))
    moved = intervals.mean_interval(values[order], 100 + 7 * row[order], seed=8)
    np.testing.assert_allclose([moved.low, moved.high], [found[0].low, found[0].high], atol=1e-12)


def test_one_customer_says_nothing_of_others():
    one = intervals.mean_interval(np.array([1.0, 0.0]), np.array([4, 4]))
    assert (one.mean, one.n, one.clear) == (0.5, 2, False)
    assert np.isnan([one.low, one.high]).all()
    # Nor does one customer among those without a value, though they may all be left out of a resample.
    rare = intervals.mean_interval(np.array([1.0, np.nan, np.nan]), np.arange(3))
    assert (rare.mean, rare.n) == (1.0, 1)
    assert np.isnan(rare.low)
    none = intervals.mean_interval(np.zeros(0), np.zeros(0, int))
    assert none.n == 0
    assert np.isnan([none.mean, none.low, none.high]).all()


def test_training_noise_adds_its_variance():
    rng = np.random.default_rng(5)
    values, row = purchases(rng, customers=300, effect=0.1, noise=0.1)
    for models in (3, 12):
        noise = rng.standard_normal(models)[:, None]
        found = intervals.seeds_interval(values + noise, row, count=4000)
        of_customers = intervals.mean_interval(np.mean(values + noise, axis=0), row, count=4000)
        assert found.mean == of_customers.mean
        z = 2 * 1.96
        wanted = np.hypot(width(of_customers) / z, noise.std(ddof=1) / np.sqrt(models))
        assert width(found) / z == pytest.approx(wanted, rel=0.1)


def test_seeds_that_agree_add_nothing():
    values, row = purchases(np.random.default_rng(6))
    values[3] = np.nan
    found, of_customers = intervals.seeds_interval(np.stack([values] * 4), row), intervals.mean_interval(values, row)
    np.testing.assert_allclose([found.low, found.high], [of_customers.low, of_customers.high], atol=1e-9)
    assert found.n == len(values) - 1
    assert intervals.seeds_interval(values[None], row) == of_customers


def test_coverage_lies_within_its_interval():
    rng = np.random.default_rng(7)
    lists = top_lists(rng.standard_normal((60, 300)) + rng.standard_normal(300), k=3)
    of_coverage, of_gini = intervals.list_intervals(lists)
    assert of_coverage.mean == lists.shown().mean()
    assert of_gini.mean == gini(lists.exposure())
    assert of_coverage.n == 60
    for one in (of_coverage, of_gini):
        assert 0 <= one.low < one.mean < one.high <= 1
    resampled = np.concatenate([lists.shown(weights).mean(axis=1) for weights in intervals.resamples(60)])
    assert np.quantile(resampled, 0.975) < of_coverage.mean  # why these are no percentiles
    assert of_coverage.high == pytest.approx(of_coverage.mean + 1.96 * resampled.std(ddof=1), rel=1e-4)
    # The expectation of random lists is the same whoever asks.
    random = top_lists(np.zeros((60, 300)), k=3)
    assert width(intervals.list_intervals(random)[0]) == pytest.approx(0, abs=1e-12)
    alone = intervals.list_intervals(random.of(np.array([0])))
    assert alone[0].mean == pytest.approx(3 / 300)
    assert np.isnan(alone[1].low)


def test_what_cannot_be_used_is_said():
    with pytest.raises(InputError, match=r"count: found 1; allowed: 2 resamples or more"):
        intervals.mean_interval(np.array([1.0]), np.array([0]), count=1)
