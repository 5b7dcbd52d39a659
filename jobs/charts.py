"""Static plots, by Vega-Lite and as SVG: what the pages of a training and of a night show."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from jobs.errors import ResourceError
from jobs.signals import unsignalled
from jobs.workers import at_work

if TYPE_CHECKING:
    import altair as alt

WIDTH, HEIGHT, LOW = 330, 250, 160
# A plot in Vega-Lite's words.
Chart = dict[str, Any]
_DRAW = """
import json, sys, vl_convert
version, charts = json.load(sys.stdin)
json.dump([vl_convert.vegalite_to_svg(chart, vl_version=version) for chart in charts], sys.stdout)
"""
_PIPES: dict[str, Any] = {
    **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
    "text": True,
    "errors": "replace",
}
# The palette of Okabe and Ito, which colour-blind people tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def drawn(charts: Sequence[Chart]) -> list[str]:
    """The plots as SVG.

    In a process of its own, as what draws them is a browser's engine, whose memory would stay.

    Raises:
        ResourceError: the process was killed.
    """
    if not charts:
        return []
    import altair as alt

    asked = json.dumps([".".join(alt.SCHEMA_VERSION.split(".")[:2]), charts])
    with unsignalled():
        child = subprocess.Popen([sys.executable, "-P", "-c", _DRAW], **_PIPES)
    at_work.add(child.pid)
    try:
        answer, said = child.communicate(asked)
    finally:
        at_work.discard(child.pid)
    if child.returncode < 0:
        how = signal.Signals(-child.returncode).name
        raise ResourceError(f"the process that draws the plots was ended by {how}: run again")
    if child.returncode:
        raise RuntimeError(f"the plots cannot be drawn: {said}")
    found: list[str] = json.loads(answer)
    return found


def reliability_plot(bins: pl.DataFrame) -> Chart:
    """Predicted against observed share with its interval, both by logarithms.

    Args:
        bins: model, predicted, observed, low, high; those where nothing happened have no place
            on a logarithmic scale.
    """
    import altair as alt

    shown = bins.filter(pl.col("observed") > 0, pl.col("predicted") > 0)
    ends = [*shown.get_column("predicted"), *shown.get_column("observed")] or [0.001, 1.0]
    equal = pl.DataFrame({"predicted": [min(ends), max(ends)]})
    scale = alt.Scale(type="log")
    x = alt.X("predicted:Q", scale=scale, title="mean probability")
    line = alt.Chart(equal).mark_line(color="grey", strokeDash=[4, 3])
    # predicted = observed: the same column on both axes
    diagonal = line.encode(x=x, y=alt.Y("predicted:Q", scale=scale, title="share that happened"))
    base = alt.Chart(shown).encode(x=x, color=_by("model", bins))
    points = base.mark_line(point=True).encode(y=alt.Y("observed:Q", scale=scale))
    whiskers = base.mark_rule().encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    return _sized(alt.layer(diagonal, whiskers, points))


def gains_plot(curve: pl.DataFrame) -> Chart:
    """Which share of what happened lies in the most probable pairs.

    Args:
        curve: model, pairs, positives: shares up to each point.
    """
    import altair as alt

    x = alt.X("pairs:Q", scale=alt.Scale(type="log"), title="share of the pairs, likeliest first")
    y = alt.Y("positives:Q", scale=alt.Scale(domain=[0, 1]), title="share of what happened")
    chart = alt.Chart(curve).mark_line(point=True)
    return _sized(chart.encode(x=x, y=y, color=_by("model", curve)))


def level_plot(levels: pl.DataFrame) -> Chart:
    """Predicted over observed by segment, by logarithms.

    Args:
        levels: model, segment, value.
    """
    import altair as alt

    shown = levels.filter(pl.col("value").is_finite(), pl.col("value") > 0)
    scale = alt.Scale(type="log", nice=False, padding=12)
    x = alt.X("value:Q", scale=scale, title="predicted / observed")
    y = alt.Y("segment:N", sort=_listed(levels, "segment"), title=None)
    points = alt.Chart(shown).mark_point(filled=True, size=60)
    one = alt.Chart(pl.DataFrame({"value": [1.0]})).mark_rule(color="grey", strokeDash=[4, 3])
    layers = one.encode(x=x), points.encode(x=x, y=y, color=_by("model", levels))
    return _sized(alt.layer(*layers), height=_tall(levels, "segment"))


def bars_plot(rows: pl.DataFrame, *, name: str, value: str, colour: str | None = None) -> Chart:
    """Bars from left to right, one for each name, or one for each name and colour.

    Args:
        rows: in the order of reading, with the columns that the others name.
        name: column of the labels.
        value: column of the lengths.
        colour: column that tells bars of the same name apart.
    """
    import altair as alt

    x = alt.X(f"{value}:Q", title=value)
    y = alt.Y(f"{name}:N", sort=_listed(rows, name), title=None)
    bars = alt.Chart(rows).mark_bar(color=COLOURS[0]).encode(x=x, y=y)
    height = _tall(rows, name)
    if colour is None:
        return _sized(bars, height=height)
    offset = alt.YOffset(f"{colour}:N", sort=_listed(rows, colour))
    return _sized(bars.encode(yOffset=offset, color=_by(colour, rows)), height=2 * height)


def nights_plot(rows: pl.DataFrame, *, value: str, colour: str | None = None) -> Chart:
    """A line over the nights, or one for each colour.

    Args:
        rows: in the order of time, with night (its label) and the columns that the others name.
        value: what is drawn; its name is the title of the axis.
        colour: column that tells lines apart.
    """
    import altair as alt

    x = alt.X("night:O", sort=_listed(rows, "night"), title=None)
    y = alt.Y(f"{value}:Q", scale=alt.Scale(zero=False, padding=12))
    lines = alt.Chart(rows).mark_line(color=COLOURS[0], point=alt.OverlayMarkDef(color=COLOURS[0]))
    if colour is None:
        return _sized(lines.encode(x=x, y=y), height=LOW)
    coloured = alt.Chart(rows).mark_line(point=True)
    return _sized(coloured.encode(x=x, y=y, color=_by(colour, rows)), height=LOW)


def shares_plot(bins: pl.DataFrame) -> Chart:
    """How pairs are spread over probabilities, by logarithms, a line for each night.

    Args:
        bins: night (its label), from (lower end of the bin), share; of each night ascending.
    """
    import altair as alt

    x = alt.X("from:Q", scale=alt.Scale(type="log"), title="probability")
    y = alt.Y("share:Q", title="share of the pairs")
    chart = alt.Chart(bins).mark_line(interpolate="step-after", point=True)
    return _sized(chart.encode(x=x, y=y, color=_by("night", bins)), height=LOW)


def _by(column: str, rows: pl.DataFrame) -> alt.Color:
    import altair as alt

    scale = alt.Scale(domain=_listed(rows, column), range=list(COLOURS))
    return alt.Color(f"{column}:N", scale=scale, legend=alt.Legend(orient="top", title=None))


def _listed(rows: pl.DataFrame, column: str) -> Sequence[str]:
    return rows.get_column(column).unique(maintain_order=True).to_list()


def _tall(rows: pl.DataFrame, column: str) -> int:
    return max(60, 16 * rows.get_column(column).n_unique())


def _sized(chart: alt.Chart | alt.LayerChart | alt.FacetChart, *, height: int = HEIGHT) -> Chart:
    import altair as alt

    sized = chart.properties(width=WIDTH, height=height)
    axes = sized.configure_axis(labelLimit=200).configure_axisX(
        labelOverlap="greedy", labelSeparation=6
    )
    with alt.data_transformers.disable_max_rows():
        found: Chart = axes.to_dict()
    return found
