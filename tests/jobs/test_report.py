"""The page of a training, looked at by a browser where there is one."""

import os
import signal
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pages import cells, measured, outside, seen, tables_of
from selectolax.lexbor import LexborHTMLParser

from jobs import charts
from jobs.errors import ResourceError
from jobs.figures import by_generator
from jobs.judging import CONTEST
from jobs.page import cell
from jobs.report import by_group, by_segment, gains, render, write_report
from jobs.training import Trained
from jobs.workers import at_work
from rank.examples import Example
from rank.metrics import probability_metrics
from rank.model import Model
from rank.projection import Projection
from rank.reliability import reliability
from rank.trees import Hyperparameters, grow

STRANGE = '<b>buy</b> & "go"'
SEGMENTS = ("all", "user:warm", "user:cold", "generator:nearest", "top_10")


def grown(rng: np.random.Generator) -> Model:
    """Trees on two features, of which the first says much and the second nothing."""
    features = pl.DataFrame(rng.normal(size=(400, 2)).astype(np.float32), ["known", "noise"])
    happened = rng.random(400) < 1 / (1 + np.exp(-2 * features["known"].to_numpy()))
    example = Example(
        features, np.arange(400, dtype=np.int32) // 20, happened, np.ones(400, np.float32)
    )
    parameters = Hyperparameters(
        learning_rate=0.3, num_leaves=4, min_rows_per_leaf=10, min_positives_per_leaf=1.0,
        max_rounds=5, early_stopping_rounds=5, seed=0, threads=1, l2=0.0,
        feature_fraction=0.7, bagging_fraction=0.8, rankers=1,
    )  # fmt: skip
    trees = [
        grow([example], [], objective=objective, parameters=parameters)
        for objective in ("binary", "lambdarank")
    ]
    return Model(STRANGE, 14, *trees, negative_share=1.0)


def make_trained(*, scale: float) -> Trained:
    """A training whose test window holds `scale` times what its truth says."""
    rng = np.random.default_rng(0)
    model = grown(rng)
    rows, bins = [], []
    for contestant, noise in (("nightrank", 0.1), ("popularity", 1.0)):
        truth = rng.beta(0.3, 30, 20_000)
        said = truth * np.exp(rng.normal(0, noise, 20_000))
        happened = rng.random(20_000) < scale * truth
        for n, segment in enumerate(SEGMENTS):
            part = slice(n, None, n + 1)
            values = probability_metrics(happened[part], said[part], threshold=0.1)
            rows += [(STRANGE, contestant, segment, *pair) for pair in values.items()]
            found = reliability(happened[part], said[part])
            named = {"behaviour": STRANGE, "model": contestant, "segment": segment}
            bins.append(found.select(*(pl.lit(v).alias(k) for k, v in named.items()), pl.all()))
    if scale:
        rows += [(STRANGE, "nightrank", "generator:nearest", "candidate_recall", 0.25)]
    rows += [(STRANGE, "nightrank", "implies:view", "order_violations", 0.5)]
    columns = ["behaviour", "model", "segment", "metric", "value"]
    return Trained(
        as_of=datetime(2025, 6, 1),
        models=(model,),
        propensities=(),
        projection=Projection(np.zeros(2, np.float32), np.zeros((1, 2), np.float32)),
        metrics=pl.DataFrame(rows, columns, orient="row"),
        calibration=pl.concat(bins),
        importance=model.importance({"known": "similarity", "noise": "price"}),
        misses=pl.DataFrame(),
        contest=pl.DataFrame(schema=CONTEST),
    )


@pytest.fixture(scope="module")
def trained() -> Trained:
    return make_trained(scale=1.0)


def check_figures(page: LexborHTMLParser, trained: Trained) -> None:
    """Every figure of the page is that of the tables, and every one of the tables is there."""
    tables = tables_of(page)
    metrics = trained.metrics
    shown = tables["Metrics, all candidates"].unpivot(
        index="metric", variable_name="model", value_name="shown"
    )
    expected = metrics.filter(segment="all").select("metric", "model", "value")
    compare(shown, expected, on=["metric", "model"])
    shown = tables["By segment"].unpivot(
        index=["segment", "model"], variable_name="metric", value_name="shown"
    )
    kept = metrics.filter(pl.col("metric").is_in(shown["metric"].unique().implode()))
    compare(shown, kept, on=["segment", "model", "metric"])
    bins = tables["Predicted and observed by bin"]
    expected = trained.calibration.filter(
        pl.col("model") == "nightrank", pl.col("segment").is_in(["all", "top_10"])
    ).select(bins.columns)
    assert [list(row) for row in bins.iter_rows()] == [
        [cell(value) for value in row] for row in expected.iter_rows()
    ]


def compare(shown: pl.DataFrame, expected: pl.DataFrame, *, on: list[str]) -> None:
    both = expected.join(shown, on=on, how="full", coalesce=True, validate="1:1")
    assert both.null_count().sum_horizontal().item() == 0
    numbers = both["shown"].str.replace_all(",", "").cast(pl.Float64).to_numpy()
    np.testing.assert_allclose(numbers, both["value"].to_numpy(), rtol=5e-4, atol=0.5e-12)


def test_the_page_holds_the_figures_of_the_tables(trained: Trained) -> None:
    page = LexborHTMLParser(render(trained))
    assert page.css_first("h1").text() == f"Training {trained.version}"
    assert len(page.css("figure svg")) == 6
    check_figures(page, trained)


def test_names_are_text_and_never_markup(trained: Trained) -> None:
    text = render(trained)
    page = LexborHTMLParser(text)
    assert page.css_first("h2").text() == f"{STRANGE} within 14 days"
    assert page.css("h2 b") == []
    assert page.css_first("section").attributes["data-behaviour"] == STRANGE


def test_the_engine_that_draws_is_not_in_this_process(trained: Trained) -> None:
    assert "<svg" in render(trained)
    assert "vl_convert" not in sys.modules
    assert charts.drawn([]) == []
    with pytest.raises(RuntimeError, match=r"(?s)cannot be drawn: .*conversion failed"):
        charts.drawn([{"mark": {"type": "nothing"}, "data": {"values": []}, "encoding": {"x": 1}}])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_all_processes_does_not_end_the_one_that_draws(
    trained: Trained, number: signal.Signals
) -> None:
    def signal_it() -> None:
        while not at_work:
            time.sleep(0.001)
        os.kill(next(pid for pid in at_work if pid), number)

    thread = threading.Thread(target=signal_it)
    thread.start()
    if number == signal.SIGKILL:
        with pytest.raises(ResourceError, match="ended by SIGKILL"):
            render(trained)
    else:
        assert "<svg" in render(trained)
    thread.join()
    assert not at_work


def test_the_page_names_nothing_outside_itself(trained: Trained) -> None:
    assert outside(render(trained)) == []


def test_the_same_training_gives_the_same_page(trained: Trained, tmp_path: Path) -> None:
    first = write_report(trained, tmp_path)
    assert first == tmp_path / "report.html"
    assert first.read_text("utf-8") == render(trained)


def test_a_window_in_which_nothing_happened_has_a_page_too() -> None:
    page = LexborHTMLParser(render(make_trained(scale=0.0)))
    assert len(page.css("figure svg")) == 6
    shown = cells(page.css_first("table"))
    assert shown.filter(metric="auc").rows() == [("auc", "–", "–")]
    assert shown.filter(metric="positives").rows() == [("positives", "0", "0")]


def test_gains_by_hand() -> None:
    # Two bins of 10 pairs with 1 and 3 positives; by expected counts, 16 with 2 and 4 with 2.
    bins = pl.DataFrame(
        {
            "model": "nightrank",
            "segment": ["all"] * 4 + ["top_10"],
            "bins": ["pairs", "pairs", "expected", "expected", "pairs"],
            "bin": [1, 2, 1, 2, 1],
            "pairs": [10, 10, 16, 4, 5],
            "positives": [1, 3, 2, 2, 1],
        }
    )
    assert gains(bins).rows() == [
        ("nightrank", 0.2, 0.5), ("nightrank", 0.5, 0.75), ("nightrank", 1.0, 1.0),
    ]  # fmt: skip


def test_importance_adds_up_by_group(trained: Trained) -> None:
    found = by_group(trained.importance)
    assert found.columns == ["group", "part", "gain"]
    assert found["group"].to_list()[0] == "similarity"
    for part in ("classifier", "ranker"):
        shares = dict(found.filter(part=part).select("group", "gain").rows())
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["similarity"] > 0.5


def test_segments_without_pairs_have_no_line_and_recall_has_one_for_each_generator(
    trained: Trained,
) -> None:
    assert set(by_segment(trained.metrics)["segment"]) == set(SEGMENTS)
    assert by_generator(trained.metrics).rows() == [("nearest", 0.25)]


def test_a_browser_shows_the_figures_and_has_nothing_to_complain_of(
    trained: Trained, browser: str, tmp_path: Path
) -> None:
    check_figures(seen(browser, write_report(trained, tmp_path), tmp_path), trained)


@pytest.mark.parametrize("width", [1400, 380])
def test_plots_fit_the_window_and_load_nothing(
    trained: Trained, browser: str, tmp_path: Path, width: int
) -> None:
    found = measured(browser, render(trained), tmp_path, width=width)
    assert found["requests"] == []
    assert found["needed"] <= found["inner"] == width
    assert len(found["rights"]) == 6
    assert max(found["rights"]) <= found["inner"]
