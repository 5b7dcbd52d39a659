"""Writes the list of each campaign from a night's DuckDB file."""

import os
from pathlib import Path

import duckdb
import polars as pl

from jobs.config_sections import CampaignConfig

# A spreadsheet runs a cell that starts with one of these as a formula.
_FORMULA = r"^[=+\-@\t\r]"

_LIST = """
with chosen as (
    select p.*, row_number() over (partition by p.user_id order by p.position) as place
    from predictions p
    left join users u using (user_id)
    left join user_behaviours d on d.user_id = p.user_id and d.behaviour = $cool_off_after
    where p.behaviour = $behaviour
      and p.probability >= $min_probability
      and (not $require_consent or coalesce(u.consent, false))
      and (d.last_at is null or d.last_at < p.as_of - to_days($cool_off_days::integer))
)
select $campaign as campaign, c.run_id, c.as_of, c.user_id, c.place::integer as place, c.item_id,
       i.title, c.behaviour, c.horizon_days, c.probability,
       array_to_string(c.generators, ' ') as generators, c.reason
from chosen c join items i using (item_id)
where c.place <= $items_per_user
order by c.user_id, c.place
"""


def select_list(connection: duckdb.DuckDBPyConnection, campaign: CampaignConfig) -> pl.DataFrame:
    """The lines of one campaign: one for each user and item, the user's best first.

    Args:
        connection: open on a night's file.
        campaign: who may be on the list, and how many items each.

    Returns:
        campaign, run_id, as_of, user_id, place, item_id, title, behaviour, horizon_days,
        probability, generators, reason.
    """
    lines: pl.DataFrame = connection.sql(
        _LIST,
        params={
            "campaign": campaign.name,
            "behaviour": campaign.behaviour,
            "min_probability": campaign.min_probability,
            "require_consent": campaign.require_consent,
            "cool_off_after": campaign.cool_off_after or campaign.behaviour,
            "cool_off_days": campaign.cool_off_days,
            "items_per_user": campaign.items_per_user,
        },
    ).pl()
    return lines


def export(
    connection: duckdb.DuckDBPyConnection, campaign: CampaignConfig, *, home: Path, run_id: str
) -> tuple[Path, int]:
    """Write `campaigns/<name>/<run_id>.parquet` and `.csv`, each by one rename.

    In the CSV, a text that a spreadsheet would run as a formula gets a leading apostrophe; the
    Parquet file holds the texts as they are.

    Returns:
        The path of the CSV and its number of lines.
    """
    lines = select_list(connection, campaign)
    folder = home / "campaigns" / campaign.name
    folder.mkdir(parents=True, exist_ok=True)
    harmless = lines.with_columns(
        pl.when(pl.col(pl.String).str.contains(_FORMULA))
        .then("'" + pl.col(pl.String))
        .otherwise(pl.col(pl.String))
        .name.keep()
    )
    building = folder / f".{run_id}.building"
    lines.write_parquet(building)
    os.replace(building, folder / f"{run_id}.parquet")
    harmless.write_csv(building, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    os.replace(building, folder / f"{run_id}.csv")
    return folder / f"{run_id}.csv", len(lines)
