import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from rank.metrics import calibration_error
from rank.reliability import SCHEMA, bin_ratios, binomial_interval, reliability

outcomes = st.lists(st.tuples(st.booleans(), st.floats(1e-6, 1)), min_size=1, max_size=60)


def of(bins: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(bins=bins)


def test_bins_by_hand() -> None:
    probability = np.array([0.6, 0.1, 0.2, 0.1])
    happened = np.array([True, False, True, False])
    found = reliability(happened, probability, bins=2)
    # Equal sizes: {.1, .1} and {.2, .6}. Equal sums, .5 each: the middle of .6's share of the sum,
    # .4 to 1, is .7, so it has a bin for itself.
    assert found.select("bins", "bin", "pairs", "positives").rows() == [
        ("pairs", 1, 2, 0), ("pairs", 2, 2, 2), ("expected", 1, 3, 1), ("expected", 2, 1, 1),
    ]  # fmt: skip
    predicted, observed = (found.get_column(n).to_list() for n in ("predicted", "observed"))
    assert predicted == pytest.approx([0.1, 0.4, 0.4 / 3, 0.6])
    assert observed == pytest.approx([0.0, 1.0, 1 / 3, 1.0])


def test_equal_sizes_are_the_quantiles_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    probability = rng.beta(1, 20, 1000)
    happened = rng.random(1000) < probability
    observed, predicted = calibration_curve(happened, probability, n_bins=10, strategy="quantile")
    found = of("pairs", reliability(happened, probability))
    np.testing.assert_allclose(found.get_column("observed"), observed)
    np.testing.assert_allclose(found.get_column("predicted"), predicted)
    assert found.get_column("pairs").to_list() == [100] * 10


def test_bins_equal_sql() -> None:
    rng = np.random.default_rng(4)
    probability = rng.beta(1, 50, 5000)
    happened = rng.random(5000) < probability
    rows = pl.DataFrame({"p": probability, "y": happened}).to_arrow()
    with duckdb.connect() as connection:
        connection.register("pairs", rows)
        expected = connection.sql(
            """
            with ranked as (select p, y, ntile(10) over (order by p) as decile,
                                   sum(p) over (order by p) as up_to, sum(p) over () as total
                            from pairs),
                 cut as (select p, y, unnest(['pairs', 'expected']) as bins,
                                unnest([decile, 1 + floor(10 * (up_to - p / 2) / total)]) as bin
                         from ranked)
            select bins, bin, count(*) as pairs, sum(y::int) as positives, avg(p) as predicted,
                   avg(y::int) as observed
            from cut group by bins, bin order by bins desc, bin
            """
        ).pl()
    found = reliability(happened, probability)
    assert len(found) == 20
    for name in ("bin", "pairs", "positives", "predicted", "observed"):
        np.testing.assert_allclose(found.get_column(name), expected.get_column(name).cast(float))
    counts = of("expected", found)
    sums = (counts["predicted"] * counts["pairs"]).to_numpy()
    np.testing.assert_allclose(sums, probability.sum() / 10, rtol=0.02)


@settings(max_examples=60)
@given(outcomes)
def test_both_cuts_hold_every_pair_once_and_never_fall(rows: list[tuple[bool, float]]) -> None:
    happened, probability = (np.array(column) for column in zip(*rows, strict=True))
    found = reliability(happened, probability)
    assert found.schema == SCHEMA
    for bins in ("pairs", "expected"):
        part = of(bins, found)
        assert part["pairs"].sum() == len(rows)
        assert part["positives"].sum() == happened.sum()
        assert (part["predicted"] * part["pairs"]).sum() == pytest.approx(probability.sum())
        assert part["bin"].is_sorted()
        assert part["bin"].is_between(1, 10).all()
        assert (part["predicted"].diff().drop_nulls() >= -1e-12).all()
    part = of("pairs", found)
    gaps = ((part["predicted"] - part["observed"]) * part["pairs"]).abs().sum() / len(rows)
    assert gaps == pytest.approx(calibration_error(happened, probability))
    inside = (found["low"] <= found["observed"]) & (found["observed"] <= found["high"])
    assert inside.all()


def test_without_pairs_there_is_no_bin() -> None:
    found = reliability(np.zeros(0, dtype=bool), np.zeros(0))
    assert found.is_empty()
    assert found.schema == SCHEMA


def test_probabilities_of_zero_are_in_one_bin_of_the_expected() -> None:
    found = of("expected", reliability(np.array([True, False]), np.zeros(2)))
    assert found.select("pairs", "positives").rows() == [(2, 1)]


@pytest.mark.parametrize(
    ("positives", "pairs"), [(0, 1), (1, 1), (0, 50), (3, 50), (50, 50), (7, 2_500_000)]
)
def test_intervals_are_those_of_scipy(positives: int, pairs: int) -> None:
    exact = binomtest(positives, pairs).proportion_ci(0.95, method="exact")
    low, high = binomial_interval(np.array([positives]), np.array([pairs]))
    assert (low[0], high[0]) == pytest.approx((exact.low, exact.high), rel=1e-9)


def test_intervals_hold_as_often_as_they_say() -> None:
    draws = np.random.default_rng(5).binomial(200, 0.02, 20_000)
    low, high = binomial_interval(draws, np.full(20_000, 200))
    assert 0.95 <= np.mean((low <= 0.02) & (high >= 0.02)) < 0.99


def test_the_worst_bins_are_among_those_with_enough_positives() -> None:
    bins = pl.DataFrame(
        {
            "positives": [49, 50, 80, 60],
            "predicted": [0.9, 0.02, 0.03, 0.05],
            "observed": [0.1, 0.025, 0.02, 0.05],
        }
    )
    assert bin_ratios(bins) == pytest.approx({"bin_ratio_low": 0.8, "bin_ratio_high": 1.5})
    assert np.isnan(list(bin_ratios(bins, least=81).values())).all()
