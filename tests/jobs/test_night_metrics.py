"""What a night says of its models: metrics, misses, bins and importance, by SQL and by hand."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from nights import AS_OF, read, small_shop
from polars.testing import assert_frame_equal

from jobs.state import State


def test_the_models_beat_popularity_on_the_test_window(done) -> None:
    _, outcome = done
    values = {
        (row["behaviour"], row["model"], row["metric"]): row["value"]
        for row in outcome.trained.metrics.filter(pl.col("segment") == "all").iter_rows(named=True)
    }
    for metric in ("normalised_entropy", "log_loss"):
        ours, theirs = (values["click", model, metric] for model in ("nightrank", "popularity"))
        assert ours < theirs
    assert values["click", "nightrank", "ndcg@10"] > values["click", "popularity", "ndcg@10"]


def test_reported_metrics_are_those_of_the_scored_window_by_sql(done) -> None:
    """Recall by an independent count: targets from the source file, candidates from the state."""
    _, outcome = done
    from jobs.state import State

    start = AS_OF - timedelta(days=14)
    state = State(outcome.prepared.material, start, outcome.trained.projection)
    inputs = state.material.inputs
    pairs = state.candidates(state.users)
    ids = pl.DataFrame(
        {
            "user_id": inputs.users["user_id"].gather(pairs["user"]),
            "item_id": inputs.items["item_id"].gather(pairs["item"]),
        }
    )
    events = small_shop().events.filter(pl.col("behaviour") == "purchase")
    users = small_shop().users.filter(pl.col("created_at") < start)
    before = events.filter(pl.col("ts") < start)
    targets = (
        events.filter(pl.col("ts").is_between(start, AS_OF, closed="left"))
        .join(users, on="user_id", how="semi")
        .join(before, on=["user_id", "item_id"], how="anti")
        .select("user_id", "item_id")
        .unique()
    )
    recall = len(targets.join(ids, on=["user_id", "item_id"], how="semi")) / len(targets)
    reported = outcome.trained.metrics.filter(
        behaviour="purchase", model="nightrank", segment="all", metric="candidate_recall"
    )
    assert reported.get_column("value").item() == pytest.approx(recall)


def test_every_target_is_in_the_misses_and_its_rank_says_whether_it_is_a_candidate(done) -> None:
    """Against the source file and the candidates of the window, by ids."""
    night, outcome = done
    start = AS_OF - timedelta(days=14)
    state = State(outcome.prepared.material, start, outcome.trained.projection)
    pairs = state.candidates(state.users)
    candidates = pl.DataFrame(
        {
            "user_id": state.inputs.users["user_id"].gather(pairs["user"]),
            "item_id": state.inputs.items["item_id"].gather(pairs["item"]),
        }
    )
    misses = read(night, "select * from candidate_misses")
    assert misses.columns == [
        "run_id", "behaviour", "as_of", "user_id", "item_id", "generator", "rank", "reason",
    ]  # fmt: skip
    assert set(misses.get_column("as_of")) == {start}
    names = [*night.config.candidates.budgets, "all"]
    happened = pl.read_parquet(night.root / "events.parquet").filter(
        pl.col("ts").is_between(start, AS_OF, closed="left")
    )
    for behaviour in ("click", "purchase"):
        mine = misses.filter(behaviour=behaviour)
        of_union = mine.filter(generator="all")
        assert mine.get_column("generator").to_list() == names * len(of_union)
        assert not of_union.select("user_id", "item_id").is_duplicated().any()
        reported = happened.filter(behaviour=behaviour)
        assert of_union.join(reported, on=["user_id", "item_id"], how="anti").is_empty()
        found = of_union.filter(pl.col("rank").is_not_null())
        known = of_union.join(candidates, on=["user_id", "item_id"], how="semi")
        assert_frame_equal(found, known, check_row_order=False)
        assert 0 < len(found) < len(of_union)


def test_shares_of_the_misses_are_the_recall_of_the_metrics(done) -> None:
    night, _ = done
    differing = read(
        night,
        """
        with alone as (
            select behaviour, generator, avg((reason = 'proposed' and proposers = 1)::int) as share
            from (
                select *, count(*) filter (reason = 'proposed')
                          over (partition by behaviour, user_id, item_id) as proposers
                from candidate_misses where generator <> 'all'
            ) group by behaviour, generator
        ), shares as (
            select behaviour, 'nightrank' as model, 'all' as segment,
                   unnest(['candidate_recall', 'recall@10', 'recall@20']) as metric,
                   unnest([avg((rank is not null)::int), avg((coalesce(rank, 99) <= 10)::int),
                           avg((coalesce(rank, 99) <= 20)::int)]) as share
            from candidate_misses where generator = 'all' group by behaviour
            union all
            select behaviour, 'nightrank', 'generator:' || generator, 'candidate_recall',
                   avg((reason = 'proposed')::int)
            from candidate_misses where generator <> 'all' group by behaviour, generator
            union all
            select behaviour, 'nightrank', 'generator:' || generator, 'unique_recall', share
            from alone
        )
        select count(*) as compared, count(*) filter (abs(share - value) > 1e-12) as differing
        from shares join metrics using (behaviour, model, segment, metric)
        """,
    )
    generators = len(night.config.candidates.budgets)
    assert differing.rows() == [(2 * (3 + 2 * generators), 0)]


def test_segments_share_out_the_pairs_and_the_positives(done) -> None:
    night, _ = done
    sums = read(
        night,
        """
        select behaviour, model, metric,
               sum(value) filter (segment = 'all') as every,
               sum(value) filter (segment in ('user:warm', 'user:cold')) as by_user,
               sum(value) filter (segment in ('item:warm', 'item:cold')) as by_item,
               sum(value) filter (segment in ('pair:repeat', 'pair:new')) as by_pair,
               sum(value) filter (segment in ('item:head', 'item:long_tail')) as by_popularity
        from metrics where metric in ('pairs', 'positives') and model in ('nightrank', 'popularity')
        group by all
        """,
    )
    assert len(sums) == 2 * 2 * 2
    for split in ("by_user", "by_item", "by_pair", "by_popularity"):
        assert (sums[split] == sums["every"]).all()
    missing = read(
        night,
        "select count(*) as n from metrics where metric = 'hr@10' and segment = 'item:long_tail'",
    )
    assert missing.item() == 2 * 2


def test_the_worst_bins_are_those_of_the_table(done) -> None:
    night, _ = done
    compared = read(
        night,
        """
        with worst as (
            select behaviour, model, segment,
                   unnest(['bin_ratio_low', 'bin_ratio_high']) as metric,
                   unnest([min(predicted / observed), max(predicted / observed)]) as expected
            from calibration where positives >= 50 group by behaviour, model, segment
        )
        select expected, value
        from metrics m left join worst using (behaviour, model, segment, metric)
        where metric like 'bin_ratio_%' and m.model in ('nightrank', 'popularity')
        """,
    )
    judged = compared.drop_nulls("expected")
    assert len(judged) > 4
    assert judged.get_column("value").to_list() == pytest.approx(judged["expected"].to_list())
    assert compared.filter(pl.col("expected").is_null())["value"].is_nan().all()


def test_the_bins_sum_to_the_metrics_of_their_segment(done) -> None:
    night, _ = done
    differing = read(
        night,
        """
        with sums as (
            select behaviour, model, segment, bins,
                   unnest(['pairs', 'positives', 'predicted_over_observed']) as metric,
                   unnest([sum(pairs), sum(positives),
                           sum(predicted * pairs) / sum(positives)]) as value
            from calibration group by behaviour, model, segment, bins
            union all
            select behaviour, model, segment, bins, 'calibration_error',
                   sum(abs(predicted - observed) * pairs) / sum(pairs)
            from calibration where bins = 'pairs' group by behaviour, model, segment, bins
        )
        select metric, count(*) as compared,
               count(*) filter (s.value is null or m.value is null
                                or abs(s.value - m.value) > 1e-9 * abs(m.value)) as differing
        from metrics m full join sums s using (behaviour, model, segment, metric)
        where metric in ('pairs', 'positives', 'predicted_over_observed', 'calibration_error')
          and segment not like 'implies:%' and not isnan(m.value)
          and model not in ('user_propensity', 'activity')
        group by metric
        """,
    )
    assert len(differing) == 4
    assert differing["compared"].min() > 2 * 2 * 10
    assert differing["differing"].sum() == 0
    generators = [f"generator:{name}" for name in night.config.candidates.budgets]
    found = set(read(night, "select distinct segment from calibration")["segment"])
    assert {"all", "user:warm", "item:warm", "top_10", *generators} <= found
    bounds = read(night, "select bool_and(low <= observed and observed <= high) from calibration")
    assert bounds.item()


def test_segments_by_generator_and_the_listed_pairs_are_counted_by_the_candidates(done) -> None:
    night, outcome = done
    state = State(outcome.prepared.material, AS_OF - timedelta(days=14), outcome.trained.projection)
    pairs = state.candidates(state.users)
    per_user = pairs.group_by("user").len().get_column("len")
    expected = {"top_10": per_user.clip(upper_bound=10).sum()} | {
        f"generator:{name}": pairs[f"rank_{name}"].count()
        for name in night.config.candidates.budgets
    }
    counted = outcome.trained.metrics.filter(behaviour="click", metric="pairs")
    for model in ("nightrank", "popularity"):
        reported = dict(counted.filter(model=model).select("segment", "value").rows())
        assert {name: reported.get(name, 0) for name in expected} == expected


def test_the_order_of_behaviours_is_reported(done) -> None:
    night, _ = done
    values = dict(
        read(night, "select metric, value from metrics where segment = 'implies:click'").rows()
    )
    both = "select value from metrics where metric = 'pairs' and segment = 'all'"
    assert 0 < values["pairs"] <= min(read(night, both)["value"])
    assert 0 <= values["order_violations"] < 0.5
    assert values["order_observed"] > 0.9  # in this shop, who buys has clicked just before


def test_gains_of_the_importance_share_out_each_part(done) -> None:
    night, outcome = done
    shares = read(
        night,
        "select behaviour, part, sum(gain) as every, count(*) as features from importance"
        " group by behaviour, part",
    )
    assert len(shares) == 2 * 2
    np.testing.assert_allclose(shares["every"], 1.0)
    assert set(shares["features"]) == {len(outcome.trained.models[0].classifier.features)}


def test_the_report_lies_beside_the_models(done) -> None:
    night, outcome = done
    page = (night.home / "models" / outcome.trained.version / "report.html").read_text("utf-8")
    for behaviour in ("click", "purchase"):
        assert f"<h2>{behaviour} within 14 days</h2>" in page
