"""A night's tables, small enough to read, and campaigns on them."""

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from jobs.campaigns.selection import Selection, select_lists
from jobs.config import Config

AS_OF = datetime(2025, 6, 1)
RUN = "20250601"

# Users 1 to 6 agreed, 7 did not, 8 said nothing. Each has the items a, b, c, d in this order.
TABLES = f"""
create table runs as select '{RUN}' as run_id, timestamp '2025-06-01' as as_of;
create table users as from (values
    (1, true, 'DE', 'h1'), (2, true, 'DE', 'h1'), (3, true, 'FR', 'h3'), (4, true, 'FR', null),
    (5, true, null, null), (6, true, 'DE', 'h6'), (7, false, 'DE', 'h7'), (8, null, 'DE', 'h8')
) t(user_id, consent, country, address);
create table items as from (values
    ('a', '=cmd()', 'shoes', 'Up', 10.0::double, true), ('b', 'Bowl', 'home', 'Up', 20, true),
    ('c', null, 'shoes', 'Down', null, true), ('d', 'Dish', 'home', null, 40, false)
) t(item_id, title, category, brand, price, available);
create table predictions as
select r.run_id, r.as_of, u.user_id, i.item_id, 'buy' as behaviour, 14 as horizon_days, i.position,
       0.0::double as score, i.probability + u.user_id / 100 as probability,
       ['nearest', 'popular'] as generators, if(i.position = 1, 'So.', null) as reason
from runs r, users u, (values
    ('a', 1, 0.4::double), ('b', 2, 0.3), ('c', 3, 0.2), ('d', 4, 0.1)
) i(item_id, position, probability);
create table user_behaviours as from (values
    (4, 'buy', 1, timestamp '2025-05-28'), (1, 'click', 9, timestamp '2025-05-31')
) t(user_id, behaviour, events, last_at);
"""
ANYBODY = {"require_consent": False, "only_available": False}


def small_night(path: str = ":memory:") -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(path)
    connection.execute(TABLES)
    return connection


def shop(*campaigns: dict[str, Any], **sources: Any) -> Config:
    """A configuration with campaigns c0, c1, ... on buying."""
    return Config(
        name="shop",
        sources={"items": "i.csv", "events": "e.csv", "users": "u.csv"} | sources,
        users={"attributes": ["country"], "columns": ["address"]},
        events={"weights": {"buy": 1, "click": 1}},
        predict=[{"behaviour": "buy", "horizon_days": 14}],
        campaign=[
            {"name": f"c{n}", "behaviour": "buy"} | campaign for n, campaign in enumerate(campaigns)
        ],
    )


def sent_to(*messages: tuple[int, datetime]) -> pl.DataFrame:
    schema = {"user_id": pl.Int32, "sent_at": pl.Datetime("us")}
    return pl.DataFrame(list(messages), schema, orient="row")


def chosen(
    night: duckdb.DuckDBPyConnection,
    *campaigns: dict[str, Any],
    root: Path = Path(),
    sent: pl.DataFrame | None = None,
    **sources: Any,
) -> list[Selection]:
    return select_lists(
        night,
        shop(*campaigns, **sources),
        root=root,
        now=AS_OF,
        sent=sent_to() if sent is None else sent,
    )


def users_of(selection: Selection) -> list[int]:
    return selection.lines.get_column("user_id").unique().sort().to_list()


def items_of(selection: Selection) -> list[str]:
    """The items of the first user."""
    first = selection.lines.filter(pl.col("user_id") == pl.col("user_id").first())
    return first.get_column("item_id").to_list()


def removed(selection: Selection) -> dict[str, tuple[int, int]]:
    """Users and lines of each step of the waterfall that took any away."""
    rows = selection.waterfall.select("reason", "users", "lines").rows()
    return {reason: (users, lines) for reason, users, lines in rows if lines}
