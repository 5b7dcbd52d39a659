"""Behaviours that imply each other: nobody is likelier to buy than to look."""

from collections.abc import Iterator, Mapping

import polars as pl

from jobs.config import Config


def implications(config: Config) -> Iterator[tuple[str, str]]:
    """Each predicted behaviour with the nearest one that bounds its probability.

    Nearest along `events.implies` that is predicted too, over no shorter a horizon: a purchase
    within 30 days says nothing of a view within 7.
    """
    horizons = {wanted.behaviour: wanted.horizon_days for wanted in config.predict}
    for behaviour, horizon in horizons.items():
        for implied in config.events.implied_by(behaviour):
            if horizons.get(implied, 0) >= horizon:
                yield behaviour, implied
                break


def order_metrics(config: Config, outcomes: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
    """Whether probabilities keep the order of the behaviours that imply each other.

    Args:
        config: of which `events.implies` counts.
        outcomes: by behaviour, every candidate: user, item, probability, happened.

    Returns:
        behaviour, model, segment (`implies:<behaviour>`), metric, value, over the pairs that are
        candidates for both: pairs, order_violations (share whose probability is above that of the
        implied behaviour), order_excess (mean of what it is above, 0 where it is not) and
        order_observed (share of those where the behaviour happened in which the implied one did
        too: under 1, the statement itself does not hold).
    """
    rows = []
    for behaviour, implied in implications(config):
        values = _order(outcomes[behaviour], outcomes[implied])
        segment = f"implies:{implied}"
        rows += [(behaviour, "nightrank", segment, name, v) for name, v in values.items()]
    schema = dict.fromkeys(("behaviour", "model", "segment", "metric"), pl.String)
    return pl.DataFrame(rows, schema | {"value": pl.Float64}, orient="row")


def _order(outcome: pl.LazyFrame, implied: pl.LazyFrame) -> dict[str, float]:
    columns = ("user", "item", "probability", "happened")
    mine, others = (frame.select(columns).collect() for frame in (outcome, implied))
    joined = mine.join(others, on=["user", "item"], suffix="_implied", maintain_order="left")
    both = joined.rechunk()  # parts that end elsewhere would be added up in another order
    excess = pl.col("probability") - pl.col("probability_implied")
    followed = pl.col("happened_implied").filter(pl.col("happened"))
    values = both.select(
        pairs=pl.len().cast(pl.Float64),
        order_violations=(excess > 0).mean(),
        order_excess=excess.clip(lower_bound=0.0).mean(),
        order_observed=followed.mean(),
    )
    return values.fill_null(float("nan")).row(0, named=True)
