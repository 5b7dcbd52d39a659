"""What messages caused: users on lists that were sent, against those who were held out."""

from datetime import datetime
from pathlib import Path

import polars as pl

from jobs.campaigns import records
from jobs.campaigns.feedback import messages, sent_lists
from jobs.campaigns.files import audience_path
from jobs.connections import connect
from jobs.ingest import Inputs

LIFT = {
    "campaign": pl.String,
    "behaviour": pl.String,
    "decile": pl.Int32,
    "lists": pl.Int64,
    "mailed": pl.Int64,
    "mailed_sent": pl.Int64,
    "mailed_did": pl.Int64,
    "holdout": pl.Int64,
    "holdout_did": pl.Int64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}

# The interval is Newcombe's for the difference of two proportions, from Wilson's of each
# (Statistics in Medicine 17, 1998, method 10); z is the 97.5% quantile of the normal.
_LIFT = """
with
done as (
    select distinct campaign, run_id, user_id
    from audiences join events using (user_id, behaviour)
    where ts >= sent_at and ts < sent_at + to_days(horizon_days)
),
people as (
    select campaign, run_id, behaviour, decile, arm = 'mailed' as mailed,
           (campaign, run_id, user_id) in (from done) as did,
           (campaign, run_id, user_id) in (from sent) as sent
    from audiences
),
counts as (
    select campaign, behaviour, coalesce(decile, 0)::integer as decile,
           count(distinct run_id) as lists,
           count(*) filter (mailed) as mailed, count(*) filter (mailed and sent) as mailed_sent,
           count(*) filter (mailed and did) as mailed_did,
           count(*) filter (not mailed) as holdout,
           count(*) filter (not mailed and did) as holdout_did
    from people
    group by grouping sets ((campaign, behaviour), (campaign, behaviour, decile))
),
shares as (
    select *, mailed_did / nullif(mailed, 0) as p, holdout_did / nullif(holdout, 0) as q,
           1.959963984540054 as z
    from counts
),
wilson as (
    select *, (p + z*z / (2*mailed)) / (1 + z*z / mailed) as p_middle,
           z / (1 + z*z / mailed) * sqrt(p * (1-p) / mailed + z*z / (4 * mailed**2)) as p_half,
           (q + z*z / (2*holdout)) / (1 + z*z / holdout) as q_middle,
           z / (1 + z*z / holdout) * sqrt(q * (1-q) / holdout + z*z / (4 * holdout**2)) as q_half
    from shares
)
select campaign, behaviour, decile, lists, mailed, mailed_sent, mailed_did, holdout, holdout_did,
       p - q as difference,
       p - q - sqrt((p - p_middle + p_half)**2 + (q_middle + q_half - q)**2) as low,
       p - q + sqrt((p_middle + p_half - p)**2 + (q - q_middle + q_half)**2) as high
from wilson order by campaign, behaviour, decile
"""


def campaign_lift(home: Path, inputs: Inputs, *, as_of: datetime) -> pl.DataFrame:
    """Compare mailed users with held-out ones on lists whose horizon is over.

    Everybody on the list counts as mailed, whether the message arrived or not: only so are the two
    groups alike. Somebody did it who did the behaviour, on any item, within `horizon_days` after
    the first message of the list went out. Who is on several lists counts on each.

    Returns:
        campaign, behaviour, decile (of the probability within each list, 10 the likeliest; 0: all),
        lists, mailed, mailed_sent (of them, those with a message known as sent), mailed_did,
        holdout, holdout_did, difference (of the shares), low, high (95% interval).

    Raises:
        Damaged: see `records.read`.
    """
    audiences = _audiences(home, as_of)
    if audiences is None:
        return pl.DataFrame(schema=LIFT)
    ids = inputs.users.get_column("user_id").cast(pl.String)
    first = audiences.get_column("sent_at").min()
    recent = inputs.events.filter(pl.col("ts") >= first)
    events = recent.select(
        ids.gather(recent.get_column("user")), pl.col("behaviour").cast(pl.String), "ts"
    )
    sent = messages(home).filter(pl.col("event") == "sent")
    with connect() as connection:
        connection.register("audiences", audiences.to_arrow())
        connection.register("events", events.to_arrow())
        connection.register("sent", sent.select("campaign", "run_id", "user_id").to_arrow())
        found: pl.DataFrame = connection.sql(_LIFT).pl()
    return found


def _audiences(home: Path, as_of: datetime) -> pl.DataFrame | None:
    """Those of the lists that were sent and whose horizon is over, with sent_at."""
    found = []
    for folder in sorted((home / "feedback" / "audiences").glob("*")):
        for run_id, sent_at in sent_lists(home, folder.name).items():
            audience = records.read(audience_path(home, folder.name, run_id))
            if audience is None:  # it was removed: the list cannot be judged
                continue
            over = pl.lit(sent_at) + pl.duration(days="horizon_days") <= pl.lit(as_of)
            columns = ("campaign", "run_id", "behaviour", "horizon_days", "arm", "decile")
            found.append(
                audience.filter(over).select(
                    *columns, pl.col("user_id").cast(pl.String), pl.lit(sent_at).alias("sent_at")
                )
            )
    filled = [audience for audience in found if len(audience)]
    return pl.concat(filled) if filled else None
