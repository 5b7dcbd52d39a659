"""How tonight's features compare with those that the trees were grown on."""

import polars as pl

from rank.trees import Trees

COUNTS = {"feature": pl.String, "rows": pl.Int64, "nulls": pl.Int64, "outside": pl.Int64}


def seen_range(trees: Trees) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each feature that the trees could split on.

    LightGBM takes them from the rows that it samples to lay out its histograms.
    """
    import lightgbm

    infos = lightgbm.Booster(model_str=trees.text).dump_model()["feature_infos"]
    return {name: (info["min_value"], info["max_value"]) for name, info in infos.items() if info}


def count(features: pl.DataFrame, seen: dict[str, tuple[float, float]]) -> pl.DataFrame:
    """Of the features (n, f) of some pairs, what is not known and what was not seen in training.

    Returns:
        For each feature with a range: feature, rows (n), nulls (NaN), outside (its range).
    """
    names = [name for name in features.columns if name in seen]
    outside = [
        (pl.col(name).is_not_nan() & ~pl.col(name).is_between(*seen[name])).sum() for name in names
    ]
    nulls = features.select(pl.col(names).is_nan().sum()).row(0) if names else ()
    beyond = features.select(outside).row(0) if names else ()
    rows = zip(names, [len(features)] * len(names), nulls, beyond, strict=True)
    return pl.DataFrame(list(rows), COUNTS, orient="row")


def shares(counts: pl.DataFrame) -> pl.DataFrame:
    """feature, null_share, outside_share (of the known values) over several parts of the pairs.

    >>> counts = pl.DataFrame({"feature": "f", "rows": [3, 1], "nulls": [1, 1], "outside": [1, 0]})
    >>> shares(counts).row(0)
    ('f', 0.5, 0.5)
    """
    total = counts.group_by("feature", maintain_order=True).sum()
    known = pl.col("rows") - pl.col("nulls")
    return total.select(
        "feature",
        null_share=(pl.col("nulls") / pl.col("rows")).fill_nan(0.0),
        outside_share=(pl.col("outside") / known).fill_nan(0.0),
    )
