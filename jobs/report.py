"""The page of a training: one HTML file that asks nothing of the network."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from math import isnan
from pathlib import Path

import polars as pl
from markupsafe import Markup

from jobs import charts
from jobs.evaluation import LISTED
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


@dataclass(frozen=True)
class Figure:
    """A plot with what to read from it."""

    title: str
    caption: str
    svg: str

    @property
    def markup(self) -> Markup:
        """The plot as it goes into the page; Vega has escaped its texts."""
        return Markup(self.svg)


def write_report(trained: Trained, folder: Path) -> Path:
    """Write `report.html` into a folder, by one rename; its path."""
    building = folder / f".{PAGE}.building"
    building.write_text(render(trained), encoding="utf-8")
    return building.replace(folder / PAGE)


def render(trained: Trained) -> str:
    """The page: for each behaviour, plots and tables of the test window."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure
    source = files("jobs").joinpath("report.html.jinja").read_text(encoding="utf-8")
    sections = [_section(trained, model) for model in trained.models]
    return environment.from_string(source).render(trained=trained, sections=sections)


def figure(value: object) -> str:
    """A cell: counts in full, other numbers to four digits.

    >>> [figure(value) for value in (12345.0, 0.00123456, float("nan"), "all")]
    ['12,345', '0.001235', '–', 'all']
    """
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isnan(value):
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _section(trained: Trained, model: Model) -> dict[str, object]:
    mine = pl.col("behaviour") == model.behaviour
    metrics, bins = trained.metrics.filter(mine), trained.calibration.filter(mine)
    columns = ("bins", "bin", "pairs", "positives", "predicted", "observed", "low", "high")
    ours = (pl.col("model") == "nightrank") & pl.col("segment").is_in(["all", TOP])
    return {
        "model": model,
        "figures": list(_figures(metrics, bins, trained.importance.filter(mine))),
        "tables": {
            "Metrics, all candidates": overall(metrics),
            "By segment": by_segment(metrics),
            "Predicted and observed by bin": bins.filter(ours).select("segment", *columns),
        },
    }


def _figures(
    metrics: pl.DataFrame, bins: pl.DataFrame, importance: pl.DataFrame
) -> Iterator[Figure]:
    for segment, what in (("all", "all candidates"), (TOP, f"first {LISTED} of each list")):
        shown = bins.filter(pl.col("segment") == segment, pl.col("bins") == "expected")
        yield Figure(
            f"Reliability, {what}",
            "Bins of equal expected counts; bars are intervals of 95%. On the dashed line, what "
            "was predicted happened.",
            charts.reliability_plot(shown),
        )
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
    yield Figure(
        "Recall of the candidates",
        "Share of what happened that each generator proposed, before the cap.",
        charts.bars_plot(by_generator(metrics), name="generator", value="recall"),
    )


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


def by_generator(metrics: pl.DataFrame) -> pl.DataFrame:
    """generator, recall: the share of what happened that it proposed, the best first."""
    name = pl.col("segment").str.strip_prefix("generator:")
    found = metrics.filter(
        pl.col("segment").str.starts_with("generator:"), pl.col("metric") == "candidate_recall"
    )
    return found.select(generator=name, recall="value").sort("recall", descending=True)
