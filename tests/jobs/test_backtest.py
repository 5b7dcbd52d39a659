from datetime import datetime, timedelta

import polars as pl
import pytest
from nights import AS_OF, SHOP, make_material, write_night
from polars.testing import assert_frame_equal

from embed import Encoder
from jobs.backtest import backtest, check_groups, differences, spreads
from jobs.errors import ConfigError
from jobs.nightly import Night
from jobs.state import Material
from jobs.training import train_models
from rank.calibrate import CannotCalibrate
from rank.features import GROUPS
from rank.trees import TooFewPositives

# All pairs are learnt from: which are drawn into a sample depends on where ids stand among all.
QUICK = SHOP.replace("max_rounds = 60", "max_rounds = 8\nnegative_share = 1.0")
EARLIER = AS_OF - timedelta(days=14)


def make_figures(*rows: tuple[str, int, str, str, str, float]) -> pl.DataFrame:
    names = ["variant", "day", "model", "segment", "metric", "value"]
    frame = pl.DataFrame(list(rows), names, orient="row")
    as_of = pl.datetime(2024, 1, pl.col("day"))
    return frame.select(
        "variant", as_of.alias("as_of"), pl.lit("buy").alias("behaviour"), *names[2:]
    )


def test_means_and_spreads_by_hand() -> None:
    nan = float("nan")
    figures = make_figures(
        ("full", 1, "nightrank", "all", "auc", 0.6),
        ("full", 1, "popularity", "all", "auc", 0.5),
        ("full", 1, "nightrank", "user:cold", "auc", nan),
        ("full", 1, "nightrank", "all", "recall@10", 0.1),
        ("full", 2, "nightrank", "all", "auc", 0.9),
        ("full", 2, "popularity", "all", "auc", 0.5),
        ("full", 2, "nightrank", "user:cold", "auc", 0.7),
        ("full", 2, "nightrank", "all", "recall@10", 0.2),
        ("full", 3, "nightrank", "all", "auc", 0.6),
        ("full", 3, "popularity", "all", "auc", 0.8),
        ("full", 3, "nightrank", "all", "recall@10", 0.3),
    )
    expected = pl.DataFrame(
        {
            "behaviour": ["buy"] * 3,
            "segment": ["all", "user:cold", "all"],
            "metric": ["auc", "auc", "recall@10"],
            "windows": [3, 1, 3],
            "nightrank": [0.7, 0.7, 0.2],
            "nightrank ±": [0.15, 0.0, 0.1],
            "popularity": [0.6, None, None],
            "popularity ±": [0.15, None, None],
        }
    )
    assert_frame_equal(spreads(figures), expected, check_dtypes=False)


def test_differences_are_paired_by_window() -> None:
    figures = make_figures(
        ("full", 1, "nightrank", "all", "auc", 0.6),
        ("full", 1, "popularity", "all", "auc", 0.9),
        ("without", 1, "nightrank", "all", "auc", 0.5),
        ("full", 2, "nightrank", "all", "auc", 0.9),
        ("without", 2, "nightrank", "all", "auc", 0.7),
        ("full", 3, "nightrank", "all", "auc", 0.9),
        ("without", 3, "nightrank", "all", "auc", float("nan")),
        ("full", 3, "nightrank", "item:cold", "auc", 0.9),
    )
    expected = pl.DataFrame(
        {
            "behaviour": ["buy"],
            "segment": ["all"],
            "metric": ["auc"],
            "windows": [2],
            "full": [0.75],
            "without": [0.6],
            "difference": [0.15],
            "difference ±": [0.05],
        }
    )
    assert_frame_equal(differences(figures), expected, check_dtypes=False)


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    check_groups([*GROUPS, "text"])
    with pytest.raises(ConfigError, match=r"'colours' is no group .*similarity.*, text$"):
        check_groups(["price", "colours"])


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return write_night(tmp_path_factory.mktemp("backtest"), QUICK)


@pytest.fixture(scope="module")
def material(night: Night, static_encoder: Encoder) -> Material:
    return make_material(night, static_encoder)


@pytest.fixture(scope="module")
def rolled(material: Material) -> pl.DataFrame:
    return backtest(material, AS_OF, windows=2, without=["text", "price"])


def test_an_earlier_window_is_that_of_a_night_that_ends_there(
    rolled: pl.DataFrame, night: Night, static_encoder: Encoder
) -> None:
    """Rows at and after the earlier time change nothing of what is measured there."""
    then = Night(config=night.config, as_of=EARLIER, root=night.root, home=night.home)
    trained = train_models(make_material(then, static_encoder), EARLIER)
    measured = rolled.filter(pl.col("variant") == "full", pl.col("as_of") == EARLIER)
    assert_frame_equal(measured.drop("variant", "as_of"), trained.metrics, check_exact=True)


def test_each_time_is_done_with_and_without(rolled: pl.DataFrame, material: Material) -> None:
    done = rolled.select("as_of", "variant").unique(maintain_order=True)
    assert done.rows() == [
        (time, variant) for time in (EARLIER, AS_OF) for variant in ("full", "without")
    ]
    trained = train_models(material.without_text(), AS_OF, without=["price"])
    measured = rolled.filter(pl.col("variant") == "without", pl.col("as_of") == AS_OF)
    assert_frame_equal(measured.drop("variant", "as_of"), trained.metrics, check_exact=True)
    text = rolled.filter(segment="generator:nearest", metric="candidate_recall")
    assert text.filter(variant="without").get_column("value").max() == 0
    assert text.filter(variant="full").get_column("value").min() > 0


@pytest.mark.parametrize("days", [100, 130, 1000])
def test_a_time_too_early_is_named(material: Material, days: int) -> None:
    time: datetime = AS_OF - timedelta(days=days)
    with pytest.raises((TooFewPositives, CannotCalibrate), match=f"as_of {time:%Y-%m-%d}: "):
        train_models(material, time)


def test_the_summary_of_a_backtest_and_of_an_ablation(
    rolled: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs import summary

    summary.show_backtest(rolled.filter(pl.col("variant") == "full"), [])
    said = capsys.readouterr().out
    assert "Means over the windows (± half the distance of the extremes): purchase" in said
    for word in ("nightrank ±", "popularity ±", "user:cold", "item:long_tail", "recall@20"):
        assert word in said
    summary.show_backtest(rolled, ["text", "price"])
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if "text and price: full minus without" in line]
    assert len(lines) == 2  # clicks and purchases
    compared = differences(rolled).filter(
        behaviour="purchase", segment="all", metric="candidate_recall"
    )
    mean, spread = compared.select("difference", "difference ±").row(0)
    (line,) = (line for line in lines if "purchase" in line)
    assert f"{mean:+.4f} ± {spread:.4f}" in line


def test_one_window_is_shown_as_before(
    rolled: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs import summary

    once = rolled.filter(pl.col("variant") == "full", pl.col("as_of") == AS_OF)
    summary.show_metrics(once.drop("variant", "as_of"))
    expected = capsys.readouterr().out
    summary.show_backtest(once, [])
    assert capsys.readouterr().out == expected
    assert "Test window: purchase" in expected
    assert "±" not in expected


def test_an_ablation_of_one_window_needs_no_second(rolled: pl.DataFrame) -> None:
    compared = differences(rolled.filter(pl.col("as_of") == AS_OF))
    assert set(compared.get_column("windows")) == {1}
    assert set(compared.get_column("difference ±")) == {0.0}
