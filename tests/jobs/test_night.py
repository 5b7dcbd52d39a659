"""One whole night of a small shop with the real encoder, FAISS, LightGBM and DuckDB."""

import re
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from nights import AS_OF, SHOP, read, small_shop, with_config
from polars.testing import assert_frame_equal

from index.store import VectorIndex
from jobs import models, nightly, publish, shards, summary
from jobs.config_sections import IndexConfig
from jobs.errors import InputMissing
from jobs.manifest import Damaged
from jobs.state import State


def test_each_row_of_the_predictions_is_a_distinct_pair_with_a_probability(done) -> None:
    night, outcome = done
    rows = read(night, "select * from predictions")
    assert len(rows) == outcome.predictions > 10_000
    assert rows.columns == [
        "run_id", "as_of", "user_id", "item_id", "behaviour", "horizon_days", "position",
        "score", "probability", "generators", "reason", "model_version", "scored_at",
    ]  # fmt: skip
    assert rows.select("user_id", "item_id", "behaviour").is_duplicated().sum() == 0
    assert rows.get_column("probability").is_between(0, 1, closed="none").all()
    assert set(rows.get_column("behaviour")) == {"click", "purchase"}
    assert rows.get_column("generators").list.len().min() >= 1
    assert rows.drop("reason").null_count().sum_horizontal().item() == 0


def test_every_known_user_has_a_propensity_for_each_behaviour(done) -> None:
    night, outcome = done
    rows = read(night, "select * from user_propensity")
    assert rows.columns == [
        "run_id", "as_of", "user_id", "behaviour", "horizon_days", "probability", "model_version",
    ]  # fmt: skip
    users = small_shop().users.filter(pl.col("created_at") < AS_OF).get_column("user_id")
    wanted = [(user, name) for user in users.sort() for name in ("click", "purchase")]
    assert rows.select("user_id", "behaviour").rows() == wanted
    assert rows.get_column("probability").is_between(0, 1, closed="none").all()
    assert rows.select("run_id", "as_of", "horizon_days", "model_version").unique().rows() == [
        (outcome.run.run_id, AS_OF, 14, outcome.trained.version)
    ]
    state = State(outcome.prepared.material, AS_OF, outcome.trained.projection, now=True)
    for model in outcome.trained.propensities:
        expected = pl.DataFrame(
            {
                "user_id": state.inputs.users["user_id"].gather(state.users),
                "probability": model(state.describe_users(), threads=1),
            }
        ).sort("user_id")
        published = rows.filter(behaviour=model.behaviour).select("user_id", "probability")
        assert_frame_equal(published, expected, check_exact=True)


def test_more_users_do_it_at_all_than_do_it_on_one_item(done) -> None:
    """Both are calibrated: the mean propensity is above that of each user's best item."""
    night, _ = done
    means = read(
        night,
        "select behaviour, avg(probability) as at_all, avg(best) as on_one "
        "from user_propensity join (select user_id, behaviour, max(probability) as best "
        "from predictions group by all) using (user_id, behaviour) group by behaviour",
    )
    assert (means["at_all"] > 1.3 * means["on_one"]).all()
    assert len(means) == 2


def test_positions_have_no_gap_and_the_first_are_the_more_probable(done) -> None:
    night, _ = done
    gaps = read(
        night,
        """
        select count(*) as n from (
            select lead(position) over w <> position + 1 as gap, min(position) over w <> 1 as late
            from predictions window w as (partition by user_id, behaviour order by position)
        ) where gap or late
        """,
    )
    assert gaps.item() == 0
    means = read(
        night,
        "select behaviour, avg(probability) filter (position <= 3) as first,"
        " avg(probability) as every from predictions group by behaviour",
    )
    assert (means["first"] > 1.3 * means["every"]).all()


def test_positions_follow_the_part_that_orders(done) -> None:
    night, outcome = done
    state = State(outcome.prepared.material, AS_OF, outcome.trained.projection, now=True)
    pairs = state.candidates(state.users[:100])  # the first shard
    features = state.describe(pairs)
    for model in outcome.trained.models:
        allowed = pl.Series(state.allowed(model.behaviour, pairs))
        ranked = pairs.filter(allowed).select(
            user_id=state.inputs.users["user_id"].gather(pairs.filter(allowed)["user"]),
            item_id=state.inputs.items["item_id"].gather(pairs.filter(allowed)["item"]),
            order=pl.Series(
                getattr(model, model.ordered_by).score(features.filter(allowed), threads=1)
            ),
        )
        ranked = ranked.sort("user_id", -pl.col("order"), "item_id")
        published = read(
            night,
            f"select user_id, item_id from predictions where behaviour = '{model.behaviour}' "
            "order by user_id, position",
        ).filter(pl.col("user_id").is_in(ranked["user_id"].unique().implode()))
        assert_frame_equal(published, ranked.drop("order"))


def test_every_known_user_is_scored_the_inactive_ones_too(done) -> None:
    night, _ = done
    users = small_shop().users.filter(pl.col("created_at") < AS_OF).get_column("user_id")
    scored = read(night, "select distinct user_id from predictions").get_column("user_id")
    assert set(scored) == set(users)
    active = small_shop().events.filter(pl.col("ts") < AS_OF).get_column("user_id")
    assert len(set(users) - set(active)) > 0


def test_nothing_bought_before_and_nothing_unavailable_is_proposed(done) -> None:
    night, _ = done
    proposed = read(night, "select user_id, item_id from predictions where behaviour = 'purchase'")
    bought = small_shop().events.filter(pl.col("behaviour") == "purchase", pl.col("ts") < AS_OF)
    assert proposed.join(bought, on=["user_id", "item_id"], how="semi").is_empty()
    gone = "select count(*) as n from predictions join items using (item_id) where not available"
    assert read(night, gone).item() == 0
    assert (~small_shop().items.get_column("available")).sum() > 0


def test_a_new_item_without_events_is_proposed_by_its_text(done) -> None:
    night, _ = done
    found = read(
        night,
        f"""
        select generators from predictions where behaviour = 'click' and item_id not in
            (select item_id from '{night.root}/events.parquet'
             where item_id is not null and ts < timestamp '{AS_OF}')
        """,
    )
    new = small_shop().items.filter(pl.col("created_at") < AS_OF, pl.col("available"))
    seen = small_shop().events.filter(pl.col("ts") < AS_OF).get_column("item_id")
    assert (len(found) > 0) == (len(set(new.get_column("item_id")) - set(seen)) > 0)
    assert set(found.get_column("generators").explode()) <= {"nearest"}


def test_a_second_run_encodes_nothing_and_gives_the_same_bits(done) -> None:
    night, outcome = done
    later = replace(night, started_at=night.started_at + timedelta(seconds=1))
    again = nightly.run(later, again=True)
    assert again.prepared.texts.get_column("encoded").sum() == 0
    assert outcome.prepared.texts.get_column("encoded").sum() > 0
    assert again.trained.version == outcome.trained.version
    assert again.scores != outcome.scores
    for sql in (
        "select * exclude (run_id, scored_at) from predictions",
        "select * exclude (run_id) from user_propensity",
    ):
        frames = []
        for path in (outcome.scores, again.scores):
            with publish.open_scores(path) as connection:
                frames.append(connection.sql(sql).pl())
        assert_frame_equal(*frames, check_exact=True)
    assert (night.home / publish.CURRENT).resolve() == again.scores.resolve()


def test_training_again_in_other_shards_and_threads_gives_the_same_models(done) -> None:
    night, outcome = done
    scoring = night.config.scoring.model_copy(update={"users_per_shard": 17, "threads": 1})
    other = with_config(night, scoring=scoring)
    trained = nightly.train(other, nightly.prepare(other))
    assert trained.version == outcome.trained.version
    assert trained.models == outcome.trained.models
    assert trained.propensities == outcome.trained.propensities


def test_the_saved_indexes_answer_with_rows_of_their_id_files(done) -> None:
    night, outcome = done
    folder = night.home / "runs" / outcome.run.run_id / "index"
    index = VectorIndex.load(folder / "items")
    rows = pl.read_parquet(folder / "items" / "rows.parquet")
    vectors = outcome.prepared.material.item_vectors
    found, similarity = index.search(vectors[index.ids[:3]], 1)
    np.testing.assert_allclose(similarity.ravel(), 1.0, rtol=1e-5)
    assert rows.get_column("id").max() >= found.max()
    assert len(VectorIndex.load(folder / "reviews")) > 0


def test_the_tables_tell_how_each_corpus_was_searched(done, tmp_path) -> None:
    night, outcome = done
    said = read(night, "select corpus, kind, vectors, recall_at_100, sample, refused from indexes")
    sizes = dict(said.select("corpus", "vectors").iter_rows())
    assert list(sizes) == ["items", "whitened items", "reviews", "answers"]
    assert said.select("kind", "recall_at_100", "sample", "refused").unique().rows() == [
        ("exact", 1.0, 0, "")
    ]
    index = IndexConfig(exact_up_to=100, kinds=["quantised"], least_recall=0.9, sample=50)
    material = replace(outcome.prepared.material, config=with_config(night, index=index).config)
    state = State(material, night.as_of, outcome.trained.projection, now=True)
    shards.save_indexes(state, tmp_path)
    forced = pl.read_parquet(tmp_path / shards.SEARCHED)
    assert dict(forced.select("corpus", "vectors").iter_rows()) == sizes
    for corpus, kind, vectors, recall, sample in forced.select(
        "corpus", "kind", "vectors", "recall_at_100", "sample"
    ).iter_rows():
        assert kind == ("quantised" if vectors > 100 else "exact")
        assert recall >= 0.9
        assert (sample > 0) == (kind != "exact")
        if corpus == "reviews":
            assert VectorIndex.load(tmp_path / corpus).choice.kind == kind == "quantised"


def test_the_quarantine_tells_what_was_wrong(done) -> None:
    night, _ = done
    rows = read(night, "select source, rule, value from quarantine")
    assert {"items", "users", "events", "reviews"} == set(rows.get_column("source"))
    assert "unknown_behaviour" in rows.get_column("rule").to_list()


def test_stages_are_measured(done) -> None:
    _, outcome = done
    with publish.open_scores(outcome.scores) as connection:
        stages = connection.sql("select * from stages").pl()
    assert stages.get_column("stage").to_list() == [
            "ingest", "embed", "train", "index", "score", "gates",
        ]  # fmt: skip
    assert stages.get_column("peak_mib").min() > 50


def test_the_file_opens_in_older_engines(done) -> None:
    _, outcome = done
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"attach '{outcome.scores}' as scores (read_only)")
        tags = connection.sql(
            "select tags['storage_version'] from duckdb_databases() where database_name = 'scores'"
        ).fetchall()
    assert tags[0][0].startswith("v1.5")


def test_an_open_reader_keeps_its_night(done) -> None:
    night, outcome = done
    with publish.open_scores(night.home / publish.CURRENT) as reader:
        before = reader.sql("select run_id from runs").fetchall()
        publish.make_current(outcome.scores)
        assert reader.sql("select run_id from runs").fetchall() == before


def test_nothing_published_is_said_clearly(tmp_path) -> None:
    with pytest.raises(InputMissing, match="nothing is published"):
        publish.open_scores(tmp_path / publish.CURRENT)


def test_a_model_from_the_future_or_too_old_or_of_other_settings_is_not_used(done) -> None:
    night, outcome = done
    made_for = outcome.prepared.made_for

    def version(as_of: datetime, trained_for: str = made_for) -> str | None:
        found = models.latest(night.home, as_of, night.config, trained_for=trained_for)
        return found.version if found else None

    assert version(AS_OF) == version(AS_OF + timedelta(days=6)) == outcome.trained.version
    assert version(AS_OF - timedelta(days=1)) is None
    assert version(AS_OF + timedelta(days=7)) is None
    assert version(AS_OF, trained_for="another") is None


def test_a_loaded_model_equals_the_saved_one(done) -> None:
    night, outcome = done
    loaded = models.load(night.home / "models" / outcome.trained.version)
    assert loaded.models == outcome.trained.models
    assert loaded.propensities == outcome.trained.propensities
    assert loaded.version == outcome.trained.version
    assert_frame_equal(loaded.metrics, outcome.trained.metrics)
    assert_frame_equal(loaded.misses, outcome.trained.misses)


def test_a_damaged_propensity_is_noticed(done, tmp_path) -> None:
    night, outcome = done
    folder = tmp_path / "models"
    shutil.copytree(night.home / "models" / outcome.trained.version, folder)
    path = folder / "click.propensity"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"click\.propensity is damaged"):
        models.load(folder)
    path.unlink()
    with pytest.raises(Damaged, match=r"click\.propensity"):
        models.load(folder)


def test_a_failed_build_leaves_the_current_night(tmp_path, done) -> None:
    night, _ = done
    target = (night.home / publish.CURRENT).resolve()
    broken = SHOP.replace("items.parquet", "nowhere.parquet")
    (night.root / "broken.toml").write_text(broken)
    from jobs.config import load_config

    with pytest.raises(InputMissing, match=r"nowhere\.parquet"):
        nightly.run(replace(night, config=load_config(night.root / "broken.toml")))
    assert (night.home / publish.CURRENT).resolve() == target


ROOT = Path(__file__).resolve().parents[2]
# Every page with queries, but for that whose queries are of sources; `test_ingest` runs those.
PAGES = [
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    if "```sql" in path.read_text() and path.name != "data.md"
]


@pytest.mark.parametrize("page", PAGES)
def test_the_sql_of_the_docs_answers(done, page: str) -> None:
    night, _ = done
    text = (ROOT / page).read_text()
    queries = re.findall(r"```sql\n(.*?)```", text, flags=re.DOTALL)
    assert queries
    for query in queries:
        assert len(read(night, query)) > 0, query


def test_the_sql_of_the_summary_answers(done) -> None:
    night, _ = done
    for query in summary.QUESTIONS.values():
        assert len(read(night, query)) > 0, query


def test_every_table_is_described(done) -> None:
    night, _ = done
    described = (ROOT / "docs" / "tables.md").read_text()
    columns = read(night, "select table_name, column_name from information_schema.columns")
    for table in columns.get_column("table_name").unique():
        assert f"| `{table}` |" in described
    tables = columns.filter(pl.col("table_name").is_in(["predictions", "user_propensity"]))
    for column in tables.get_column("column_name"):
        assert f"`{column}`" in described
    for column in columns.filter(table_name="reasons").get_column("column_name"):
        assert f"`{column}`" in described
