"""Plots with what to read from them, as the pages show them."""

from dataclasses import dataclass

import polars as pl

from jobs import charts


@dataclass(frozen=True)
class Figure:
    """A plot with what to read from it."""

    title: str
    caption: str
    chart: charts.Chart


def reliability(bins: pl.DataFrame, *, segment: str, what: str) -> Figure:
    """Predicted against observed in one segment, by bins of equal expected counts.

    Args:
        bins: the rows of one behaviour of the table `calibration`.
        segment: which part of the test window.
        what: the segment in words.
    """
    shown = bins.filter(pl.col("segment") == segment, pl.col("bins") == "expected")
    return Figure(
        f"Reliability, {what}",
        "Bins of equal expected counts; bars are intervals of 95%. On the dashed line, what "
        "was predicted happened.",
        charts.reliability_plot(shown),
    )


def recall(metrics: pl.DataFrame, *, title: str = "Recall of the candidates") -> Figure:
    """What each generator proposed, from the rows of one behaviour of the table `metrics`."""
    return Figure(
        title,
        "Share of what happened that each generator proposed, before the cap.",
        charts.bars_plot(by_generator(metrics), name="generator", value="recall"),
    )


def by_generator(metrics: pl.DataFrame) -> pl.DataFrame:
    """generator, recall: the share of what happened that it proposed, the best first."""
    name = pl.col("segment").str.strip_prefix("generator:")
    found = metrics.filter(
        pl.col("segment").str.starts_with("generator:"), pl.col("metric") == "candidate_recall"
    )
    return found.select(generator=name, recall="value").sort("recall", descending=True)
