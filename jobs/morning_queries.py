"""What the morning page asks a night's file."""

BINS_PER_DECADE = 4

FRESHNESS = """
select behaviour, count(*) as users, sum(events)::bigint as events, max(last_at) as newest,
       round((epoch(any_value(as_of)) - epoch(newest)) / 3600, 1) as "hours before as_of"
from user_behaviours, runs group by behaviour order by newest desc, behaviour
"""

# All that did not pass, all of behaviours, and of the many of features those nearest a bound.
GATES = """
with judged as (
    select *, subject in (select behaviour from predictions) as of_behaviour,
           row_number() over (
               partition by gate, passed
               order by least(value - low, high - value) / (high - low), subject
           ) as nearest
    from gates
)
select gate, subject as of, value as figure, low as least, high as most,
       case when passed then 'passed' when overridden_by is null then 'refused'
            else 'overridden by ' || overridden_by end as outcome
from judged where not passed or of_behaviour or nearest <= 3
order by passed, gate, subject
"""

# The night before the one that the file is of, where it holds one.
BEFORE = "(select run_id from mart.runs_v1 where not is_current order by as_of desc limit 1)"

QUARANTINE = f"""
select source, rule, "column", count(*) filter (is_current) as tonight,
       count(*) filter (run_id = {BEFORE}) as "night before"
from mart.quarantine_v1 group by all having tonight > 0 or "night before" > 0
order by source, rule, "column"
"""

NIGHTS = """
select run_id as run, as_of, started_at as started, finished_at as finished,
       model_version as model, predictions as "pairs scored", coalesce(bad, 0) as quarantined
from mart.runs_v1
left join (select run_id, count(*) as bad from mart.quarantine_v1 group by run_id) using (run_id)
order by as_of desc
"""

# Rounded, as the order of a sum decides its last digits.
EXPECTED = """
select as_of, behaviour, 'pairs' as what, round(sum(expected), 4) as expected
from mart.item_demand_v1 where level = 'item' group by all
union all
select as_of, behaviour, 'users', round(sum(probability), 4)
from mart.user_propensity_v1 group by all
order by as_of, behaviour, what
"""

METRICS = """
select behaviour, as_of as night, model, metric, value
from mart.metrics_v1
where segment = 'all' and (is_current or model = 'nightrank')
order by behaviour, night desc, model <> 'nightrank', model, metric
"""

# Of earlier nights a file holds the first places of each list, so those are compared.
SPREAD = f"""
with compared as (
    select behaviour, is_current, position,
           least(floor({BINS_PER_DECADE} * log10(greatest(probability, 1e-9))), -1)::integer as bin
    from mart.predictions_v1 where is_current or run_id = {BEFORE}
)
select behaviour, bin, count(*) filter (is_current) as tonight,
       count(*) filter (not is_current) as "night before"
from compared
where position <= (select coalesce(max(position) filter (not is_current), max(position))
                   from compared)
group by all order by behaviour, bin
"""

WATERFALL = f"""
select campaign, step, reason, coalesce(sum(users) filter (is_current), 0)::bigint as users,
       coalesce(sum(lines) filter (is_current), 0)::bigint as lines,
       sum(lines) filter (run_id = {BEFORE})::bigint as "lines the night before"
from mart.campaign_waterfall_v1
where campaign in (select campaign from campaign_waterfall) group by all
having users > 0 or lines > 0 or "lines the night before" > 0
       or reason in ('eligible', 'final', 'refused')
order by campaign, step
"""

# The busiest user, one with as many events as half of those who have any, and one without.
EXAMPLES = """
with counted as (
    select user_id, coalesce(sum(events), 0)::bigint as events
    from (select distinct user_id from predictions) left join user_behaviours using (user_id)
    group by user_id
),
placed as (
    select *, row_number() over (partition by events > 0 order by events, user_id) as place,
           count(*) over (partition by events > 0) as users
    from counted
),
chosen as (
    select 1 as number, 'most events' as example, user_id, events
    from placed where events > 0 and place = users
    union all
    select 2, 'as many events as the middle user', user_id, events
    from placed where events > 0 and place = (users + 1) // 2
    union all
    select 3, 'no event yet', user_id, events from placed where events = 0 and place = 1
)
select number, example, if(contains(user_id::varchar, '@'), 'an address, not shown',
                           user_id::varchar) as user, events, behaviour, position,
       item_id::varchar as item, probability, array_to_string(generators, ' ') as generators,
       reason
from chosen join predictions using (user_id) where position <= 5
order by number, behaviour, position
"""
