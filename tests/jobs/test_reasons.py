"""The reasons of a whole night: they add up, are of rows before `as_of`, and can be read."""

import re

import numpy as np
import polars as pl
import pytest
from nights import AS_OF, SHOP, read, write_night

from jobs import nightly
from jobs.nightly import Night, Outcome
from jobs.reasons import LAST, NOTHING, SENTENCES, Reasons
from jobs.scoring import score_pairs
from jobs.state import State
from rank.reasons import BASE, FAMILIES, SHOWN, family_of

PER_USER = 3
KEYS = ["user_id", "item_id", "behaviour"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, Outcome]:
    toml = SHOP.replace("[scoring]", f"[scoring]\nreasons_per_user = {PER_USER}")
    toml = toml.replace("windows = 2\nmax_rounds = 60", "windows = 1\nmax_rounds = 20")
    night = write_night(tmp_path_factory.mktemp("reasons"), toml)
    return night, nightly.run(night)


@pytest.fixture(scope="module")
def state(done: tuple[Night, Outcome]) -> State:
    _, outcome = done
    return State(outcome.prepared.material, AS_OF, outcome.trained.projection, now=True)


def test_the_first_places_have_a_sentence_and_no_others(done) -> None:
    night, _ = done
    counts = read(
        night,
        f"""
        select position <= {PER_USER} as first, count(*) as n, count(reason) as told
        from predictions group by first order by first
        """,
    )
    assert counts.get_column("told").to_list() == [0, counts.get_column("n")[1]]
    assert counts.get_column("n").min() > 500
    explained = read(night, f"select distinct {', '.join(KEYS)} from reasons")
    assert len(explained) == counts.get_column("n")[1]


def test_the_contributions_of_a_row_sum_to_its_score(done) -> None:
    night, _ = done
    sums = read(
        night,
        f"""
        select abs(sum(contribution) - any_value(score)) as gap, count(*) as families,
               count(distinct family) as different
        from reasons join predictions using ({", ".join(KEYS)}) group by {", ".join(KEYS)}
        """,
    )
    assert sums.get_column("gap").max() < 1e-6
    assert (sums["families"] == sums["different"]).all()
    assert sums.get_column("families").mean() > 3
    families = read(night, "select distinct family from reasons").get_column("family")
    assert {BASE} < set(families) <= set(FAMILIES)


def test_the_base_is_one_for_each_behaviour_and_corrected_as_the_score_is(done) -> None:
    night, outcome = done
    found = read(
        night,
        f"select behaviour, min(contribution) as least, max(contribution) as most from reasons "
        f"where family = '{BASE}' group by behaviour",
    )
    import lightgbm

    for model in outcome.trained.models:
        row = found.row(by_predicate=pl.col("behaviour") == model.behaviour, named=True)
        booster = lightgbm.Booster(model_str=model.classifier.text)
        width = len(model.classifier.features)
        bias = booster.predict(np.zeros((1, width)), pred_contrib=True)[0, -1]
        assert row["least"] == row["most"] == pytest.approx(bias + np.log(0.2))


def test_what_is_cited_existed_before_as_of(done) -> None:
    """Against the sources: the user's own last event on an item, or a review by its author."""
    night, _ = done
    cited = read(night, "select * from reasons where evidence_item_id is not null")
    assert cited.get_column("evidence_at").null_count() == 0
    assert cited.get_column("evidence_at").max() < AS_OF
    reviews = cited.filter(pl.col("evidence_user_id").is_not_null())
    items = cited.filter(pl.col("evidence_user_id").is_null())
    assert min(len(reviews), len(items)) > 20
    written = pl.read_parquet(night.root / "reviews.parquet").filter(pl.col("ts") < AS_OF)
    missing = reviews.join(
        written.select(pl.col("user_id", "item_id", "ts").name.map(lambda n: f"of_{n}")),
        left_on=["evidence_user_id", "evidence_item_id", "evidence_at"],
        right_on=["of_user_id", "of_item_id", "of_ts"],
        how="anti",
    )
    assert missing.is_empty()
    own = reviews.get_column("family") == "own reviews"
    assert (reviews["evidence_user_id"] == reviews["user_id"]).equals(own)
    events = pl.read_parquet(night.root / "events.parquet").filter(pl.col("ts") < AS_OF)
    last = events.group_by("user_id", evidence_item_id="item_id").agg(
        pl.col("ts").max(), did=pl.col("behaviour").filter(pl.col("ts") == pl.col("ts").max())
    )
    joined = items.join(last, on=["user_id", "evidence_item_id"], how="left")
    assert (joined["ts"] == joined["evidence_at"]).all()
    assert joined.get_column("ts").null_count() == 0
    assert (
        joined.select(pl.col("did").list.contains(pl.col("evidence_behaviour"))).to_series().all()
    )


def test_only_what_speaks_for_a_row_has_evidence(done) -> None:
    night, _ = done
    rows = read(night, "select * from reasons where contribution < 0")
    evidence = [name for name in rows.columns if name.startswith("evidence_")]
    assert rows.select(*evidence, "similarity").null_count().row(0) == (len(rows),) * len(
        [*evidence, "similarity"]
    )
    shown = read(night, "select * from reasons where similarity is not null")
    assert shown.get_column("similarity").min() > 0
    assert read(night, "select * from reasons where contribution = 0").is_empty()


def test_a_sentence_is_of_the_strongest_family_that_has_something_to_say(done) -> None:
    """By the published rows alone, where they tell what can be said: not of prices and counts."""
    night, _ = done
    patterns = {f: re.sub(r"\\{.*?\\}", "(.+)", re.escape(s)) for f, s in SENTENCES.items()}
    rows = read(night, "select * from reasons where contribution > 0")
    evident = pl.col("evidence_item_id").is_not_null() | (pl.col("family") == "the item")
    most = dict.fromkeys(rows.select(KEYS).rows(), 0.0)
    for *keys, contribution in rows.filter(evident).select(*KEYS, "contribution").rows():
        most[tuple(keys)] = max(most[tuple(keys)], contribution)
    said = {tuple(row[key] for key in [*KEYS, "family"]): row for row in rows.rows(named=True)}
    seen = set()
    told = read(night, "select * from predictions where reason is not null")
    for *keys, reason in told.select(*KEYS, "reason").rows():
        families = [f for f, pattern in patterns.items() if re.fullmatch(pattern, reason)]
        assert len(families) == (reason != NOTHING), reason
        for family in families:
            row = said[*keys, family]
            seen.add(family)
            assert (
                (most[tuple(keys)] == 0)
                if family in LAST
                else (row["contribution"] >= most[tuple(keys)])
            )
            if row["evidence_at"] is not None:
                assert f"{row['evidence_at']:%Y-%m-%d}" in reason
                assert (row["evidence_behaviour"] or "") in reason
        assert not re.search("<|None|null", reason)
    assert len(seen) >= 5


def test_every_column_of_the_night_has_a_family(done, state: State) -> None:
    _, outcome = done
    columns = state.describe(state.candidates(state.users[:5])).columns
    behaviours = tuple(state.material.config.events.weights)
    found = {family_of(name, behaviours=behaviours) for name in columns}
    assert found == set(FAMILIES) - {BASE, SHOWN}  # the shop knows of no impressions
    assert outcome.trained.models[0].classifier.features == tuple(columns)


def test_shards_do_not_change_a_reason_and_none_may_be_asked_for(done, state: State) -> None:
    _, outcome = done
    models, users = outcome.trained.models, state.users[:60]

    def explained(shards: list[np.ndarray], per_user: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        explain = Reasons(state, models, per_user)
        parts = []
        for shard in shards:
            pairs = state.candidates(shard)
            features = state.describe(pairs)
            scored = score_pairs(state, models, pairs, features, threads=1)
            parts.append(explain(scored, pairs, features))
        rows, sentences = (pl.concat(frames) for frames in zip(*parts, strict=True))
        return rows, sentences.sort(KEYS)

    whole, parted = explained([users], 2), explained([users[:7], users[7:]], 2)
    assert whole[0].drop("similarity").equals(parted[0].drop("similarity"))
    gap = whole[0].get_column("similarity") - parted[0].get_column("similarity")
    assert gap.abs().max() <= 1.01e-4
    assert whole[1].equals(parted[1])
    nothing = explained([users], 0)
    assert [frame.schema for frame in nothing] == [frame.schema for frame in whole]
    assert [len(frame) for frame in nothing] == [0, 0]


def test_the_list_of_a_campaign_says_why(done) -> None:
    night, outcome = done
    (written,) = outcome.lists
    found = pl.read_csv(written.path)
    assert len(found) == written.lines > 50
    published = read(
        night, "select user_id, item_id, reason from predictions where behaviour = 'purchase'"
    )
    joined = found.select("user_id", "item_id", "reason").join(
        published, on=["user_id", "item_id"], how="left"
    )
    assert joined["reason"].eq_missing(joined["reason_right"]).all()
    assert joined.get_column("reason").null_count() < len(joined) / 2
