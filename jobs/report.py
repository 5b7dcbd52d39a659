"""The page of a training: one HTML file that asks nothing of the network."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from jobs import charts, figures, page
from jobs.evaluation import LISTED
from jobs.figures import Figure
from jobs.page import Section
from jobs.training import Trained
from rank.model import Model

PAGE = "report.html"
# What is shown by segment; the table `metrics` holds the rest.
BY_SEGMENT = (
    "pairs",
    "positives",
    "predicted_over_observed",
    "normalised_entropy",
    "calibration_error",
    "auc",
    "ndcg@10",
)
LEVEL = "predicted_over_observed"
TOP = f"top_{LISTED}"


def write_report(trained: Trained, folder: Path) -> Path:
    """Write `report.html` into a folder, by one rename; its path."""
    return page.write(folder / PAGE, render(trained))


def render(trained: Trained) -> str:
    """The page: for each behaviour, plots and tables of the test window."""
    return page.render(
        "report.html.jinja",
        title=f"Training {trained.version}",
        as_of=trained.as_of,
        behaviours=[model.behaviour for model in trained.models],
        sections=[_section(trained, model) for model in trained.models],
    )


def _section(trained: Trained, model: Model) -> Section:
    mine = pl.col("behaviour") == model.behaviour
    metrics, bins = trained.metrics.filter(mine), trained.calibration.filter(mine)
    columns = ("bins", "bin", "pairs", "positives", "predicted", "observed", "low", "high")
    ours = (pl.col("model") == "nightrank") & pl.col("segment").is_in(["all", TOP])
    return Section(
        f"{model.behaviour} within {model.horizon_days} days",
        figures=list(_figures(metrics, bins, trained.importance.filter(mine))),
        tables={
            "Metrics, all candidates": overall(metrics),
            "By segment": by_segment(metrics),
            "Predicted and observed by bin": bins.filter(ours).select("segment", *columns),
        },
    )


def _figures(
    metrics: pl.DataFrame, bins: pl.DataFrame, importance: pl.DataFrame
) -> Iterator[Figure]:
    for segment, what in (("all", "all candidates"), (TOP, f"first {LISTED} of each list")):
        yield figures.reliability(bins, segment=segment, what=what)
    yield Figure(
        "Gains",
        "How much of what happened lies in the likeliest pairs.",
        charts.gains_plot(gains(bins)),
    )
    yield Figure(
        "Level by segment",
        "Sum of probabilities over what happened; right of the dashed line too much was promised.",
        charts.level_plot(metrics.filter(pl.col("metric") == LEVEL)),
    )
    yield Figure(
        "Importance",
        "Share of the gain of all splits, by group of features.",
        charts.bars_plot(by_group(importance), name="group", value="gain", colour="part"),
    )
    yield figures.recall(metrics)


def overall(metrics: pl.DataFrame) -> pl.DataFrame:
    """Of segment `all`: metric, and a column for each model."""
    everything = metrics.filter(pl.col("segment") == "all")
    return everything.pivot("model", index="metric", values="value", maintain_order=True)


def by_segment(metrics: pl.DataFrame) -> pl.DataFrame:
    """A line for each segment with pairs and model, a column for each of `BY_SEGMENT`."""
    wide = metrics.filter(pl.col("metric").is_in(BY_SEGMENT)).pivot(
        "metric", index=["segment", "model"], values="value", maintain_order=True
    )
    columns = [name for name in BY_SEGMENT if name in wide.columns]
    return wide.filter(pl.col("pairs").is_not_null()).select("segment", "model", *columns)


def gains(bins: pl.DataFrame) -> pl.DataFrame:
    """Cumulated from the likeliest bin on, over both cuts of the pairs.

    Returns:
        model, pairs and positives (shares of all), ascending.
    """
    everything = bins.filter(pl.col("segment") == "all").sort("bin", descending=True)
    share = (pl.col(n).cum_sum() / pl.col(n).sum() for n in ("pairs", "positives"))
    curve = everything.select("model", *(part.over("model", "bins") for part in share))
    return curve.unique().sort("model", "pairs", "positives")


def by_group(importance: pl.DataFrame) -> pl.DataFrame:
    """group, part, gain: shares of each part, the most useful group of the classifier first."""
    summed = importance.group_by("group", "part", maintain_order=True).agg(pl.col("gain").sum())
    first = pl.col("gain").filter(pl.col("part") == "classifier").sum().over("group")
    return summed.sort(-first, "group", "part")
