-- What business intelligence sees of the nights. The columns of a view with a version stay as they
-- are; what must change becomes a view of the next version beside it.

create view mart.runs_v1 as
select run_id, as_of, is_current, started_at, finished_at, model_version, predictions
from (select *, true as is_current from main.runs
      union all
      select *, false from history.runs);

create view mart.freshness_v1 as
select run_id, as_of, finished_at, stale_after_hours, age_hours,
       age_hours > stale_after_hours as stale
from (select *, {stale_after_hours}::double as stale_after_hours,
             (epoch(now()) - epoch(as_of)) / 3600 as age_hours
      from main.runs);

create view mart.predictions_v1 as
select run_id, as_of, is_current, user_id, item_id, behaviour, horizon_days, position, score,
       probability, generators, reason, model_version, scored_at
from (select *, true as is_current from main.predictions
      union all
      select *, false from history.predictions);

create view mart.user_propensity_v1 as
select run_id, as_of, is_current, user_id, behaviour, horizon_days, probability, model_version
from (select *, true as is_current from main.user_propensity
      union all
      select *, false from history.user_propensity);

create view mart.item_demand_v1 as
select run_id, as_of, is_current, level, item_id, category, brand, behaviour, horizon_days, pairs,
       expected, low, high
from (from main.item_demand union all from history.item_demand) join mart.runs_v1 using (run_id);

create view mart.metrics_v1 as
select run_id, as_of, is_current, model_version, behaviour, model, segment, metric, value
from (from main.metrics union all from history.metrics) join mart.runs_v1 using (run_id);

create view mart.calibration_v1 as
select run_id, as_of, is_current, model_version, behaviour, model, segment, bins, bin, pairs,
       positives, predicted, observed, low, high
from (from main.calibration union all from history.calibration) join mart.runs_v1 using (run_id);

create view mart.candidate_misses_v1 as
select run_id, runs.as_of, is_current, model_version, misses.as_of as window_as_of, behaviour,
       user_id, item_id, generator, rank, reason
from (from main.candidate_misses union all from history.candidate_misses) misses
join mart.runs_v1 runs using (run_id);

create view mart.quarantine_v1 as
select run_id, as_of, is_current, source, rule, file, row, "column", value
from (from main.quarantine union all from history.quarantine) join mart.runs_v1 using (run_id);

create view mart.campaign_waterfall_v1 as
select run_id, as_of, is_current, campaign, step, reason, users, lines
from (from main.campaign_waterfall union all from history.campaign_waterfall)
join mart.runs_v1 using (run_id);

create view mart.campaign_lift_v1 as
select run_id, as_of, behaviour, campaign, decile, lists, mailed, mailed_sent, mailed_did, holdout,
       holdout_did, difference, low, high
from main.campaign_lift join mart.runs_v1 using (run_id);
