"""How often each behaviour is expected, by item, category and brand."""

import duckdb
import numpy as np
import polars as pl

from rank.counts import count_interval

# Decimals add up to the same number in every order; doubles do not.
_EXPECTED = """
with pairs as (
    select item_id, category, brand, behaviour, horizon_days,
           probability::decimal(18, 15) as probability
    from predictions join items using (item_id)
)
select 'item' as level, item_id, category, brand, behaviour, horizon_days,
       count(*) as pairs, sum(probability)::double as expected
from pairs group by all
union all
select 'category', null, category, null, behaviour, horizon_days, count(*), sum(probability)::double
from pairs group by all
union all
select 'brand', null, null, brand, behaviour, horizon_days, count(*), sum(probability)::double
from pairs group by all
"""
_LEVEL = """
select behaviour, metric, value from metrics
where model = 'nightrank' and segment = 'all'
      and metric in ('predicted_over_observed', 'positives')
"""


def write_demand(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the table `item_demand` from `predictions`, `items`, `metrics` and `runs`."""
    sums = connection.sql(_EXPECTED).pl()
    spreads = level_spread(connection.sql(_LEVEL).pl())
    low, high = count_interval(
        sums.get_column("expected").to_numpy(),
        np.array([spreads.get(name, 0.0) for name in sums.get_column("behaviour")]),
    )
    rows = sums.with_columns(low=pl.Series(low), high=pl.Series(high))
    connection.register("rows", rows.to_arrow())
    connection.execute(
        "create table item_demand as select run_id, rows.* from runs, rows order by all"
    )
    connection.unregister("rows")


def level_spread(figures: pl.DataFrame) -> dict[str, float]:
    """How unsure the level of a behaviour's probabilities is, as a share of it.

    The test window stood as far from its calibration as tonight stands from its own, so how far
    off it was is one draw of how far off tonight will be: the variance is the square of
    `ln(predicted_over_observed)`, and to it comes that of the count of positives that the
    calibration rests on, 1 / positives.

    Args:
        figures: behaviour, metric, value of `predicted_over_observed` and `positives`.

    Returns:
        By behaviour; none for those where nothing happened in the window.

    >>> rows = [("buy", "predicted_over_observed", 0.9), ("buy", "positives", 100.0)]
    >>> found = level_spread(pl.DataFrame(rows, ["behaviour", "metric", "value"], orient="row"))
    >>> round(found["buy"], 4)  # ln(0.9) ** 2 is 0.0111
    0.1453
    """
    wide = figures.pivot("metric", index="behaviour", values="value")
    if wide.is_empty():
        return {}
    off, chance = pl.col("predicted_over_observed").log() ** 2, 1 / pl.col("positives")
    some = wide.filter(pl.col("positives") > 0)
    return dict(some.select("behaviour", (off + chance).sqrt()).iter_rows())
