"""Neighbours and clusters of texts, against brute force and examples to follow by hand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from rank import tables
from rank.features import GROUPS, Features
from rank.known import Columns, Known

GROUPS_HERE = ("neighbours", "clusters")
SHAPE = (12, 16)
INT = {"user": pl.Int32, "item": pl.Int32}

Describe = Callable[[Known, pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def describe(profiles: np.ndarray) -> Describe:
    others = [group for group in GROUPS if group not in GROUPS_HERE]

    def described(known: Known, asked: pl.DataFrame) -> pl.DataFrame:
        users = asked.get_column("user").unique().sort().to_numpy()
        return Features(known, without=others)(asked, profiles[users])

    return described


def counted(known: Known, item: int, behaviours: tuple[str, ...]) -> float:
    """Events on the item, each of which halves every 30 days."""
    rows = known.events.filter(item=item).filter(
        pl.col("behaviour").cast(pl.String).is_in(behaviours)
    )
    return sum(0.5 ** ((known.as_of - ts).total_seconds() / 86_400 / 30) for ts in rows["ts"])


def by_hand(known: Known, user: int, item: int) -> dict[str, float]:
    """The features of one pair, one number at a time."""
    affinity = known.affinity.toarray().astype(float)
    near = {j: float(c) for j, c in enumerate(known.text_neighbours.toarray()[item]) if c > 0}
    total, cosines = affinity[user].sum(), sum(near.values())
    liked = sum(c * affinity[user, j] for j, c in near.items()) if near else np.nan
    found = {
        "affinity_neighbours": liked,
        "affinity_share_neighbours": liked / total if total else np.nan,
        "neighbours_cosine": cosines / len(near) if near else np.nan,
    }
    for name, kinds in {
        "popularity": known.behaviours,
        **{b: (b,) for b in known.behaviours},
    }.items():
        wanted = sum(c * np.log(1 + counted(known, j, kinds)) for j, c in near.items())
        found[f"neighbours_{name}"] = wanted / cosines if near else np.nan
    same = known.text_clusters == known.text_clusters[item]
    grouped = known.text_clusters[item] >= 0
    mine = affinity[user, same].sum() / total if total and grouped else np.nan
    everybody = known.demand[same].sum() / known.demand.sum() if grouped else np.nan
    return found | {
        "affinity_cluster": mine,
        "cluster_demand": everybody,
        "cluster_lift": mine / everybody,
    }


def test_every_column_equals_brute_force(
    known: Known, pairs: pl.DataFrame, describe: Describe
) -> None:
    expected = pl.DataFrame([by_hand(known, *pair) for pair in pairs.select("user", "item").rows()])
    found = describe(known, pairs)
    assert set(found.columns) == set(expected.columns)
    for name in found.columns:
        values = expected.get_column(name)
        np.testing.assert_allclose(found.get_column(name), values, rtol=2e-5, err_msg=name)
        assert 0 < np.isnan(values.to_numpy()).sum() < len(values)


def test_a_new_item_is_as_wanted_as_what_is_near_to_it(known: Known, describe: Describe) -> None:
    """Item 15, which nobody touched, is near to items 0 and 1 in the ratio 3 : 1."""
    near = sp.csr_array((np.float32([0.75, 0.25]), ([15, 15], [0, 1])), shape=(16, 16))
    affinity = sp.csr_array((np.float32([2, 4, 1, 1]), ([0, 0, 1, 2], [0, 1, 1, 4])), shape=SHAPE)
    rows = [(0, 0, known.as_of, "view")] * 3 + [(0, 1, known.as_of, "buy")]
    shop = replace(
        known,
        text_neighbours=near,
        affinity=affinity,
        events=pl.DataFrame(rows, schema=known.events.schema, orient="row"),
    )
    wanted = tables.item_neighbours(shop)
    assert wanted["neighbours_popularity"][15] == pytest.approx(0.75 * np.log(4) + 0.25 * np.log(2))
    assert wanted["neighbours_view"][15] == pytest.approx(0.75 * np.log(4))
    assert wanted["neighbours_buy"][15] == pytest.approx(0.25 * np.log(2))
    assert wanted["neighbours_cosine"][15] == 0.5
    assert np.isnan(wanted["neighbours_popularity"][:15]).all()
    asked = pl.DataFrame({"user": [0, 1, 2, 3], "item": [15] * 4}, schema_overrides=INT)
    found = describe(shop, asked)
    assert found["affinity_neighbours"].to_list() == [2.5, 0.25, 0.0, 0.0]
    share = [2.5 / 6, 0.25, 0.0, np.nan]  # user 3 did nothing
    np.testing.assert_allclose(found["affinity_share_neighbours"], share, rtol=1e-6)


def test_lift_is_one_for_a_user_who_is_like_the_shop(known: Known, describe: Describe) -> None:
    """A third of all demand is in cluster 7 of items 0 and 2, two thirds in cluster 4."""
    codes = np.full(16, -1, dtype=np.int32)
    codes[[0, 2]], codes[1] = 7, 4
    demand = np.zeros(16, dtype=np.float32)
    demand[:3] = [4, 20, 6]
    entries = ([1, 2, 3, 2], ([0, 0, 1, 2], [0, 1, 2, 3]))
    affinity = sp.csr_array((np.float32(entries[0]), entries[1]), shape=SHAPE)
    shop = replace(known, text_clusters=codes, demand=demand, affinity=affinity)
    asked = pl.DataFrame(
        {"user": [0, 0, 0, 1, 2, 3], "item": [2, 1, 5, 0, 0, 0]}, schema_overrides=INT
    )
    found = describe(shop, asked)
    third, unknown = 1 / 3, np.nan
    for name, expected in {
        "affinity_cluster": [third, 2 / 3, unknown, 1.0, 0.0, unknown],
        "cluster_demand": [third, 2 / 3, unknown, third, third, third],
        "cluster_lift": [1.0, 1.0, unknown, 3.0, 0.0, unknown],
    }.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)


def test_without_texts_and_without_demand_nothing_is_known(
    known: Known, pairs: pl.DataFrame, describe: Describe
) -> None:
    blank = replace(
        known,
        text_neighbours=sp.csr_array((16, 16), dtype=np.float32),
        text_clusters=np.full(16, -1, dtype=np.int32),
    )
    assert np.isnan(describe(blank, pairs).to_numpy()).all()
    idle: Columns = tables.item_clusters(replace(known, demand=np.zeros(16, np.float32)))
    assert np.isnan(idle["cluster_demand"]).all()
