"""What must hold before a night is published."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs import publish
from jobs.config_sections import GatesConfig
from jobs.console import log
from jobs.errors import GateRefused

SCHEMA = {
    "gate": pl.String,
    "subject": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}
# gate, of what (a behaviour or a feature), figure, least, most
Gate = tuple[str, str, float, float, float]

BINS = 10
# An empty bin counts as so small a share, so that the logarithm is defined.
LEAST_SHARE = 1e-4


def check(
    bounds: GatesConfig, *, metrics: pl.DataFrame, shards: Path, features: pl.DataFrame, last: Path
) -> pl.DataFrame:
    """Every figure that is checked, with its bounds.

    Args:
        bounds: what is allowed.
        metrics: of the models on their test window.
        shards: folder of Parquet files with tonight's predictions.
        features: `feature`, `null_share`, `outside_share` of tonight; see `rank.health.shares`.
        last: the file of the last good night; without it there is nothing to compare with.

    Returns:
        gate, subject (behaviour or feature), value, low, high, passed. A value that is not
        defined, such as predicted over observed where nothing happened, does not pass.
    """
    found = [*_of_metrics(bounds, metrics)]
    if last.exists():
        found += [*_of_predictions(bounds, shards, last), *_of_features(bounds, features, last)]
    frame = pl.DataFrame(found, SCHEMA, orient="row")
    value = pl.col("value").fill_nan(None)
    return frame.with_columns(passed=value.is_between("low", "high").fill_null(False))


def overridden(checked: pl.DataFrame, *, override: str | None) -> pl.DataFrame:
    """The gates with `overridden_by`: what was given where a gate did not pass, else null."""
    by = pl.when(~pl.col("passed")).then(pl.lit(override, dtype=pl.String))
    return checked.with_columns(overridden_by=by)


def enforce(checked: pl.DataFrame) -> None:
    """Let nothing pass that a gate refuses and nobody takes on them.

    Raises:
        GateRefused: there is such a gate.
    """
    failed = checked.filter(~pl.col("passed"))
    said = [
        f"{row['gate']} of {row['subject']} is {row['value']:.4g}, allowed are "
        f"{row['low']:.4g} to {row['high']:.4g}"
        for row in failed.iter_rows(named=True)
    ]
    if failed.get_column("overridden_by").has_nulls():
        raise GateRefused(
            "not published, the last good night stays current: "
            + "; ".join(said)
            + ". Look for the cause in the inputs; change [gates] if the bound is wrong, or "
            "publish all the same with --force 'NAME: REASON'",
            checked,
        )
    for line, by in zip(said, failed.get_column("overridden_by"), strict=True):
        log.warning("gate overridden", figure=line, by=by)


def _of_metrics(bounds: GatesConfig, metrics: pl.DataFrame) -> Iterator[Gate]:
    ours = metrics.filter(pl.col("model") == "nightrank", pl.col("segment") == "all")
    for (behaviour,), rows in ours.group_by("behaviour", maintain_order=True):
        values = dict(rows.select("metric", "value").iter_rows())
        if values["positives"] < bounds.least_positives:  # chance alone would break the bounds
            continue
        name = "predicted_over_observed"
        yield name, str(behaviour), values[name], *bounds.predicted_over_observed
        name = "normalised_entropy"
        yield name, str(behaviour), values[name], 0.0, bounds.normalised_entropy
        error = values["calibration_error"] / values["base_rate"]
        yield "calibration_error", str(behaviour), error, 0.0, bounds.calibration_error


def _of_features(bounds: GatesConfig, features: pl.DataFrame, last: Path) -> Iterator[Gate]:
    with publish.open_scores(last) as connection:
        tables = connection.sql("select table_name from duckdb_tables()").fetchall()
        if ("features",) not in tables:  # of an older version
            return
        before = connection.sql("select feature, null_share, outside_share from features").pl()
    both = features.join(before, on="feature", suffix="_before", maintain_order="left")
    most = {"null_share": bounds.null_share_risen, "outside_share": bounds.outside_share_risen}
    for row in both.iter_rows(named=True):
        for name, bound in most.items():
            risen = row[name] - row[f"{name}_before"]
            yield f"{name}_risen", row["feature"], risen, -1.0, bound


def _of_predictions(bounds: GatesConfig, shards: Path, last: Path) -> Iterator[Gate]:
    tonight = pl.scan_parquet(shards / "*.parquet").select("behaviour", "probability").collect()
    with publish.open_scores(last) as connection:
        before = connection.sql("select behaviour, probability from predictions").pl()
    for (behaviour,), rows in tonight.group_by("behaviour", maintain_order=True):
        old = before.filter(pl.col("behaviour") == behaviour).get_column("probability")
        if len(old):
            now = rows.get_column("probability")
            yield "rows_over_last", str(behaviour), len(now) / len(old), *bounds.rows_over_last
            drift = stability_index(old.to_numpy(), now.to_numpy())
            yield "score_drift", str(behaviour), drift, 0.0, bounds.score_drift


def stability_index(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Population stability index over ten bins that held equal shares `before`.

    Sum of (share now - share before) ln(share now / share before); Siddiqi, Credit risk
    scorecards, 2006, who calls more than .25 a shift.

    >>> stability_index(np.arange(100.0), np.arange(100.0))
    0.0
    """
    edges = np.quantile(before, np.arange(1, BINS) / BINS)
    shares = [
        np.maximum(np.bincount(np.searchsorted(edges, x), minlength=BINS) / len(x), LEAST_SHARE)
        for x in (before, now)
    ]
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))
