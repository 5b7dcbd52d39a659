"""Files of nights made by hand, a few rows each, with history and mart."""

from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl

from jobs import mart
from jobs.config_sections import MartConfig
from jobs.publish import STORAGE_VERSION, open_scores

FIRST = datetime(2025, 6, 1)

_TABLES = """
create table runs as select '{run}' as run_id, {as_of} as as_of, {as_of} as started_at,
       {as_of} + interval 3 hours as finished_at, '{model}' as model_version, {n} as predictions;
create table items as select '{run}' as run_id, i as item_id, 'title ' || i as title,
       ['a', 'b', null][1 + i % 3] as category, ['x', 'y'][1 + i % 2] as brand
from range({items}) t(i);
create table predictions as select '{run}' as run_id, {as_of} as as_of, u as user_id, i as item_id,
       'buy' as behaviour, 14::integer as horizon_days, (i + 1)::integer as position,
       -1.5::double as score, 0.1::double / (1 + (u + i + {night}) % 7) as probability,
       ['popular'] as generators, if(i = 0, 'as {run} says', null) as reason,
       '{model}' as model_version, {as_of} as scored_at
from range({users}) s(u), range({items}) t(i);
create table user_propensity as select '{run}' as run_id, {as_of} as as_of, u as user_id,
       'buy' as behaviour, 14::integer as horizon_days, 0.2::double as probability,
       '{model}' as model_version
from range({users}) s(u);
create table metrics as select '{run}' as run_id, 'buy' as behaviour, 'nightrank' as model,
       'all' as segment, unnest(['predicted_over_observed', 'positives']) as metric,
       unnest([0.9, 100.0]::double[]) as value;
create table calibration as select '{run}' as run_id, 'buy' as behaviour, 'nightrank' as model,
       'all' as segment, 'pairs' as bins, b::integer as bin, 10 as pairs, 1 as positives,
       0.1::double as predicted, 0.1::double as observed, 0.0::double as low, 0.4::double as high
from range(1, 11) t(b);
create table candidate_misses as select '{run}' as run_id, 'buy' as behaviour,
       {as_of} - interval 14 days as as_of, u as user_id, 0 as item_id, 'all' as generator,
       1::integer as rank, 'proposed' as reason
from range({users}) s(u);
create table quarantine as select '{run}' as run_id, 'items' as source, 'duplicate_id' as rule,
       'items.csv' as file, 7 as row, null::varchar as "column", '={night}' as value;
create table campaign_waterfall as select '{run}' as run_id, 'weekly' as campaign,
       0::integer as step, 'eligible' as reason, {users}::bigint as users, {n}::bigint as lines;
create table campaign_lift as select '{run}' as run_id, 'weekly' as campaign, 'buy' as behaviour,
       0::integer as decile, 1::bigint as lists, 8::bigint as mailed, 8::bigint as mailed_sent,
       4::bigint as mailed_did, 2::bigint as holdout, 1::bigint as holdout_did,
       0::double as difference, -0.5::double as low, 0.5::double as high;
"""


def night_file(
    folder: Path,
    night: int,
    *,
    last: Path | None = None,
    model: str = "m1",
    users: int = 4,
    items: int = 6,
    options: MartConfig | None = None,
) -> Path:
    """The file of the night `FIRST` plus so many days, after `last`."""
    path = folder / f"scores-{night}.duckdb"
    with duckdb.connect() as connection:
        connection.execute(f"attach '{path}' as scores (storage_version '{STORAGE_VERSION}')")
        connection.execute("use scores")
        connection.execute(
            _TABLES.format(
                run=f"run-{night}",
                night=night,
                as_of=f"timestamp '{FIRST + timedelta(days=night)}'",
                model=model,
                n=users * items,
                users=users,
                items=items,
            )
        )
        nothing = folder / "nothing.duckdb"
        mart.write(connection, last=last or nothing, options=options or MartConfig())
        connection.execute("use memory")
        connection.execute("checkpoint scores")
        connection.execute("detach scores")
    return path


def ask(path: Path, sql: str) -> pl.DataFrame:
    """The answer of a file to a query."""
    with open_scores(path) as connection:
        return connection.sql(sql).pl()
