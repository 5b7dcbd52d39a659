from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from nights import ALL_GENERATORS, AS_OF, make_material, write_night

from embed import Encoder
from jobs.config_inputs import ItemsConfig
from jobs.state import State


def test_an_item_is_as_old_as_its_listing_or_else_its_first_event(
    tmp_path: Path, static_encoder: Encoder
) -> None:
    material = make_material(write_night(tmp_path), static_encoder)
    days = {0: 5.0, 1: None, 2: None, 3: -2.0, 4: -2.0, 5: 90.0}
    created = [days.get(n, 1.0) for n in range(len(material.inputs.items))]
    items = material.inputs.items.with_columns(
        created_at=pl.Series(
            [None if d is None else AS_OF - timedelta(days=d) for d in created],
            dtype=pl.Datetime("us"),
        )
    )
    used = [(1, 9.0), (1, 3.0), (2, -1.0), (3, 4.0), (5, 120.0)]
    events = pl.DataFrame(
        [(0, item, AS_OF - timedelta(days=d)) for item, d in used],
        {"user": pl.Int32, "item": pl.Int32, "ts": pl.Datetime("us")},
        orient="row",
    )
    changed = replace(material, inputs=replace(material.inputs, items=items, events=events))
    age = changed.item_age(AS_OF)
    np.testing.assert_array_equal(age[:6], [5.0, 9.0, np.nan, 4.0, np.nan, 90.0])
    assert (age[6:] == 1.0).all()


def test_text_columns_of_the_items_are_their_attributes(
    tmp_path: Path, static_encoder: Encoder
) -> None:
    material = make_material(write_night(tmp_path), static_encoder)
    named = ItemsConfig(attributes=["weight", "colour"])
    items = material.inputs.items.with_columns(weight=pl.lit(1.5), colour=pl.lit("red"))
    changed = replace(
        material,
        config=material.config.model_copy(update={"items": named}),
        inputs=replace(material.inputs, items=items),
    )
    shown = State(changed, AS_OF, changed.fit_projection(AS_OF)).snapshot.item_attributes
    assert shown.equals(items.select("brand", "category", "colour"))


def test_figures_of_items_are_counted_from_the_corpus(
    tmp_path: Path, static_encoder: Encoder
) -> None:
    material = make_material(write_night(tmp_path, ALL_GENERATORS), static_encoder)
    early = material.inputs.events.filter(pl.col("ts") < AS_OF - timedelta(days=30))
    projection = material.fit_projection(AS_OF)
    limited = State(material, AS_OF, projection, corpus=early)
    only = replace(material, inputs=replace(material.inputs, events=early))
    pairs = limited.candidates(limited.users[:20])
    found, expected, whole = (
        state.describe(pairs).select(
            pl.col("^(item|neighbours|popularity)_.*$").exclude("^item_pc_.*$"), "cluster_demand"
        )
        for state in (limited, State(only, AS_OF, projection), State(material, AS_OF, projection))
    )
    assert found.equals(expected, null_equal=True)
    moved = {name for name in found.columns if not found[name].equals(whole[name])}
    assert {"item_click_half_7d", "item_gap_mean", "neighbours_click", "cluster_demand"} <= moved


def test_without_text_neither_candidates_nor_features_know_of_it(
    tmp_path: Path, static_encoder: Encoder
) -> None:
    material = make_material(write_night(tmp_path, ALL_GENERATORS), static_encoder)
    blank = material.without_text()
    states = [State(m, AS_OF, m.fit_projection(AS_OF)) for m in (material, blank)]
    of_text = ("nearest", "last", "last_3", "interests", "reviews", "similar")
    for state, knows in zip(states, (True, False), strict=True):
        users = state.users[:100]
        pairs = state.candidates(users)
        for name in of_text:
            assert pairs.get_column(f"rank_{name}").is_not_null().any() == knows, name
        assert state.snapshot.profiles(users).any() == knows
        cosines = state.describe(pairs).select("^cosine_.*$").fill_nan(None)
        assert (cosines.null_count().sum_horizontal().item() < cosines.width * len(pairs)) == knows
    assert blank.inputs is material.inputs
    assert material.item_vectors.any()
    assert material.review_vectors.any()


def test_less_memory_makes_smaller_shards_of_the_same_rows(
    tmp_path: Path, static_encoder: Encoder
) -> None:
    material = make_material(write_night(tmp_path, ALL_GENERATORS), static_encoder)
    scoring = material.config.scoring.model_copy(update={"memory": "8MiB"})
    little = replace(material, config=material.config.model_copy(update={"scoring": scoring}))
    states = [State(m, AS_OF, m.fit_projection(AS_OF)) for m in (material, little)]
    shards = [[*state.shards()] for state in states]
    assert len(shards[1]) > len(shards[0])
    pairs, features = [], []
    for state, users in zip(states, shards, strict=True):
        found = [state.candidates(shard) for shard in users]
        assert (
            max(map(len, found)) * state.bytes_per_pair
            <= state.material.config.scoring.memory_bytes
        )
        pairs.append(pl.concat(found))
        features.append(pl.concat(map(state.describe, found)))
    of_pair = ("user", "item", "^rank_.*$")
    assert pairs[0].select(of_pair).equals(pairs[1].select(of_pair))
    said = "^(score|share)_.*$"  # by FAISS, whose last bits depend on how many users ask at a time
    for one, other in zip(features[0].select(said), features[1].select(said), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-5)
    ours = [frame.select(pl.exclude(said)) for frame in features]
    assert ours[0].equals(ours[1], null_equal=True)
