"""Rolls the whole training over earlier times, with and without groups of features."""

from collections.abc import Collection
from datetime import datetime, timedelta

import polars as pl

from index.snapshot import Snapshot
from jobs.errors import ConfigError
from jobs.state import Material
from jobs.training import OnProgress, train_models
from rank.features import GROUPS

# Not a group of features: all that is known from texts, generators and profiles included.
TEXT = "text"
FULL, WITHOUT = "full", "without"
KEYS = ("behaviour", "segment", "metric")


def check_groups(without: Collection[str]) -> None:
    """Refuse names that are no group of features, nor `text`.

    Raises:
        ConfigError: names the first that is not known, and all that are.
    """
    known = (*GROUPS, TEXT)
    if unknown := [name for name in without if name not in known]:
        raise ConfigError(
            f"--without {unknown[0]!r} is no group of features: give one of {', '.join(known)}"
        )


def backtest(
    material: Material,
    as_of: datetime,
    *,
    windows: int,
    without: Collection[str] = (),
    on_progress: OnProgress = lambda _: None,
) -> pl.DataFrame:
    """Train and test anew at several times, each a longest horizon before the next.

    Args:
        material: rows before the last of these times.
        as_of: that last time.
        windows: how many times.
        without: names for `check_groups`; if there are any, each time is done with them as well
            as without all of them.
        on_progress: called with a line for every step.

    Returns:
        variant (`full` or `without`), as_of, and the columns of `jobs.training.Trained.metrics`;
        the earliest time first: that is the one with the fewest rows to learn from.

    Raises:
        rank.trees.TooFewPositives: as by `train_models`.
        rank.calibrate.CannotCalibrate: likewise.
    """
    horizon = timedelta(days=material.config.longest_horizon_days)
    variants: dict[str, tuple[Material, Collection[str]]] = {FULL: (material, ())}
    if without:
        rows = material.without_text() if TEXT in without else material
        variants[WITHOUT] = rows, [name for name in without if name != TEXT]
    figures = []
    # One window serves several times: its matrices and two-tower model are made once.
    snapshots = {variant: dict[datetime, Snapshot]() for variant in variants}
    for n in reversed(range(windows)):
        time = as_of - n * horizon
        for variant, (rows, groups) in variants.items():
            on_progress(f"as_of {time:%Y-%m-%d}, {variant}")
            kept = snapshots[FULL if rows is material else WITHOUT]
            trained = train_models(
                rows, time, without=groups, snapshots=kept, on_progress=on_progress
            )
            named = (pl.lit(variant).alias("variant"), pl.lit(time).alias("as_of"))
            figures.append(trained.metrics.select(*named, pl.all()))
    return pl.concat(figures)


def spreads(figures: pl.DataFrame) -> pl.DataFrame:
    """Mean and spread over the windows of what `backtest` gives.

    Returns:
        behaviour, segment, metric, `windows` (that had the figure), and for each model its mean,
        named as the model, and `<model> ±`, half the distance of its extremes.
    """
    models = figures.get_column("model").unique(maintain_order=True).to_list()
    means = [part for model in models for part in (pl.col(model).mean(), _spread(model))]
    had = pl.max_horizontal(pl.col(models).count())
    return (
        _side_by_side(figures, "model")
        .group_by(KEYS, maintain_order=True)
        .agg(had.alias("windows"), *means)
    )


def differences(figures: pl.DataFrame) -> pl.DataFrame:
    """The ablation of the model, over the windows in which a figure is defined both ways.

    Returns:
        behaviour, segment, metric, `windows`, the means of `full`, `without` and `difference`
        (full minus without, window by window), and `difference ±`, its spread as of `spreads`.
    """
    wide = _side_by_side(figures.filter(pl.col("model") == "nightrank"), "variant")
    paired = wide.drop_nulls([FULL, WITHOUT]).with_columns(
        difference=pl.col(FULL) - pl.col(WITHOUT)
    )
    means = pl.col(FULL, WITHOUT, "difference").mean()
    return paired.group_by(KEYS, maintain_order=True).agg(
        pl.len().alias("windows"), means, _spread("difference")
    )


def _side_by_side(figures: pl.DataFrame, column: str) -> pl.DataFrame:
    """A column for each value of `column`; null where a figure is missing or not defined."""
    values = figures.with_columns(pl.col("value").fill_nan(None))
    return values.pivot(column, index=["as_of", *KEYS], values="value", maintain_order=True)


def _spread(name: str) -> pl.Expr:
    return ((pl.col(name).max() - pl.col(name).min()) / 2).alias(f"{name} ±")
