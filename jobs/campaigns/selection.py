"""Chooses the lines of every campaign from a night's tables, and says why the others are not."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl

from jobs.campaigns.contacts import read_contacts
from jobs.campaigns.segments import members
from jobs.casts import named
from jobs.config import Config
from jobs.config_sections import CampaignConfig
from jobs.erasing.tombstones import Tombstones
from jobs.errors import NightrankError

# Steps of the waterfall after `eligible`: a line leaves at the first that applies.
REASONS = (
    "segment",
    "no_consent",
    "suppressed",
    "cooling_off",
    "frequency_cap",
    "priority",
    "stock",
    "category",
    "brand",
    "price",
    "probability",
    "category_limit",
    "brand_limit",
    "items_per_user",
    "same_contact",
    "top_share",
    "holdout",
    "final",
)
WATERFALL = {
    "campaign": pl.String,
    "step": pl.Int32,
    "reason": pl.String,
    "users": pl.Int64,
    "lines": pl.Int64,
}
_JUDGE = Path(__file__).with_name("select.sql").read_text("utf-8")

_LINES = """
select $campaign as campaign, p.run_id, p.as_of, p.user_id, j.place::integer as place, p.item_id,
       i.title, p.behaviour, p.horizon_days, p.probability,
       array_to_string(p.generators, ' ') as generators, p.reason
from judged j
join predictions p on p.user_id = j.user_id and p.item_id = j.item_id and p.behaviour = $behaviour
join items i on i.item_id = j.item_id
where j.reason = 'final'
order by p.user_id, j.place
"""

_AUDIENCE = """
select $campaign as campaign, r.run_id, r.as_of, $behaviour as behaviour,
       $horizon_days::integer as horizon_days, user_id,
       if(reason = 'final', 'mailed', 'holdout') as arm, best as probability,
       ntile(10) over (order by best, user_id)::integer as decile
from (select distinct user_id, best, reason from judged where reason in ('final', 'holdout'))
cross join runs r
order by user_id
"""

# A user leaves where the last of the user's lines does.
_WATERFALL = """
with steps as (
    select unnest($reasons) as reason, generate_subscripts($reasons, 1) as step
),
lines as (select user_id, step from judged join steps using (reason)),
users as (select user_id, max(step) as step from lines group by user_id)
select $campaign as campaign, 0::integer as step, 'eligible' as reason,
       (select count(*) from users) as users, (select count(*) from lines) as lines
union all
select $campaign, step::integer, reason, (select count(*) from users u where u.step = s.step),
       (select count(*) from lines l where l.step = s.step)
from steps s
order by step
"""


@dataclass(frozen=True)
class Selection:
    """What was chosen for one campaign; nothing, where it was refused.

    Attributes:
        campaign: its configuration.
        lines: campaign, run_id, as_of, user_id, place, item_id, title, behaviour, horizon_days,
            probability, generators, reason: one for each user and item on the list.
        audience: campaign, run_id, as_of, behaviour, horizon_days, user_id, arm (mailed or
            holdout), probability (of the likeliest item listed), decile (10: the likeliest).
        waterfall: campaign, step, reason, users, lines: `eligible`, what each step took away,
            `final`. Of a refused campaign, one row `refused`.
        refused: why there is no list.
    """

    campaign: CampaignConfig
    lines: pl.DataFrame
    audience: pl.DataFrame
    waterfall: pl.DataFrame
    refused: NightrankError | None = None


def select_lists(
    connection: duckdb.DuckDBPyConnection,
    config: Config,
    *,
    root: Path,
    now: datetime,
    sent: pl.DataFrame,
    erased: Tombstones | None = None,
) -> list[Selection]:
    """Choose for every campaign, those of less `priority` first.

    Args:
        connection: open on a night's file; gets temporary tables.
        config: the campaigns, and the sources of consent and suppression.
        root: folder that relative paths of these start from.
        now: naive UTC; what their age is counted from.
        sent: user_id, sent_at: a row for each message that was sent; see `feedback.sent_messages`.
        erased: whose consent and suppression are not looked at.

    Returns:
        In the order of the configuration.
    """
    connection.register("sent", sent.to_arrow())
    connection.execute("create or replace temp table tonight as select user_id from users limit 0")
    contacts, missing = _contacts(
        connection, config, root=root, now=now, erased=erased or Tombstones()
    )
    for name, frame in contacts.items():
        connection.register(name, frame.to_arrow())
    chosen = {}
    for campaign in sorted(config.campaign, key=lambda campaign: campaign.priority):
        needed = ["suppression", *(["consent"] if campaign.require_consent else [])]
        refused = next((missing[source] for source in needed if source in missing), None)
        chosen[campaign.name] = (
            _refused(campaign, refused) if refused else _select(connection, config, campaign)
        )
    return [chosen[campaign.name] for campaign in config.campaign]


def _contacts(
    connection: duckdb.DuckDBPyConnection,
    config: Config,
    *,
    root: Path,
    now: datetime,
    erased: Tombstones,
) -> tuple[dict[str, pl.DataFrame], dict[str, NightrankError]]:
    """The tables consents and suppressions, and why one of their sources cannot be used."""
    users = connection.sql("select user_id, null::varchar as campaign, consent from users").pl()
    found = {"consents": users, "suppressions": users.drop("consent").clear()}
    missing: dict[str, NightrankError] = {}
    for source, name in (("consent", "consents"), ("suppression", "suppressions")):
        if getattr(config.sources, source) is not None:
            try:
                found[name] = read_contacts(
                    config, source, root=root, now=now, users=users, erased=erased
                )
            except NightrankError as error:
                missing[source] = error
    return found, missing


def _select(
    connection: duckdb.DuckDBPyConnection, config: Config, campaign: CampaignConfig
) -> Selection:
    users = connection.sql("from users").pl()
    as_of = connection.sql("select as_of from runs").pl().item()
    try:
        segment = members(users, campaign.segment, as_of=as_of, name=campaign.name)
    except NightrankError as error:
        return _refused(campaign, error)
    connection.register("segment", segment.to_frame().to_arrow())
    key = f"{named(campaign.deduplicate_by)}::varchar" if campaign.deduplicate_by else "null"
    connection.execute(_JUDGE.format(key=key), _parameters(campaign, as_of))
    about = {"campaign": campaign.name, "behaviour": campaign.behaviour}
    horizon = {"horizon_days": config.prediction(campaign.behaviour).horizon_days}
    lines = connection.sql(_LINES, params=about).pl()
    audience = connection.sql(_AUDIENCE, params=about | horizon).pl()
    waterfall = connection.sql(
        _WATERFALL, params={"campaign": campaign.name, "reasons": list(REASONS)}
    ).pl()
    connection.execute(
        "insert into tonight select distinct user_id from judged where reason = 'final'"
    )
    return Selection(campaign, lines, audience, waterfall)


def _parameters(campaign: CampaignConfig, as_of: datetime) -> Mapping[str, object]:
    same = (
        "behaviour", "items_per_user", "min_probability", "top_share", "require_consent",
        "cool_off_days", "cap_messages", "cap_days", "only_available", "exclude_categories",
        "exclude_brands", "min_price", "max_price", "max_per_category", "max_per_brand",
        "holdout_share",
    )  # fmt: skip
    return {name: getattr(campaign, name) for name in same} | {
        "campaign": campaign.name,
        "as_of": as_of,
        "cool_off_after": campaign.cool_off_after or campaign.behaviour,
        "holdout_salt": campaign.holdout_salt or campaign.name,
    }


def _refused(campaign: CampaignConfig, error: NightrankError) -> Selection:
    row = [(campaign.name, 0, "refused", 0, 0)]
    nothing = pl.DataFrame()
    return Selection(campaign, nothing, nothing, pl.DataFrame(row, WATERFALL, orient="row"), error)
