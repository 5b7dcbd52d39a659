"""Features against an oracle that shares no code with them: SQL, or brute force in float64."""

import re
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from rank.features import GROUPS, Features
from rank.known import Known
from rank.projection import Projection
from rank.tables import USER_TABLES

NOT_IN_SQL = ("cosine_", "item_pc_", "user_pc_")
# Under oracles of their own in test_texts.py, test_rhythms.py and test_impressions.py.
ELSEWHERE = ("neighbours", "clusters", "half_lives", "intervals", "impressions")
DAY = "86400.0"


def activity(of: str) -> str:
    """SELECT list over events `e`, grouped by `of`."""
    columns = [f"{of}"]
    for name in ("view", "cart", "buy"):
        for days in (1, 7, 30, 90):
            recent = f"behaviour = '{name}' AND ts >= as_of - INTERVAL {days} DAY"
            columns.append(f"count(*) FILTER ({recent}) AS {of}_{name}_{days}d")
        columns.append(f"count(*) FILTER (behaviour = '{name}') AS {of}_{name}_all")
        columns.append(f"{since(f'{of}_days_since_{name}', name)}")
    return ", ".join(columns)


def since(column: str, behaviour: str) -> str:
    last = f"max(ts) FILTER (behaviour = '{behaviour}')"
    return f"epoch(any_value(as_of) - {last}) / {DAY} AS {column}"


def conversion(of: str) -> str:
    return ", ".join(
        f"""(coalesce({of}_{later}_all, 0) + 20 * (SELECT count(*) FILTER (behaviour = '{later}')
            / count(*) FILTER (behaviour = '{earlier}') FROM events))
            / (coalesce({of}_{earlier}_all, 0) + 20) AS {of}_{later}_per_{earlier}"""
        for earlier, later in (("view", "cart"), ("cart", "buy"))
    )


def ratings(of: str) -> str:
    return f"""SELECT {of}, count(*) AS {of}_reviews,
        count(rating) AS rated, coalesce(sum(rating), 0) AS total,
        epoch(any_value(as_of) - max(ts)) / {DAY} AS {of}_days_since_review
        FROM reviews, clock GROUP BY {of}"""


def shares(kind: str) -> str:
    return f"""CASE WHEN i.{kind} IS NOT NULL THEN coalesce(
        (SELECT sum(weight) FROM affinity a JOIN items o ON o.item = a.item
         WHERE a.user = p.user AND o.{kind} = i.{kind})
        / (SELECT sum(weight) FROM affinity a WHERE a.user = p.user), 0) END AS affinity_{kind},
        CASE WHEN i.{kind} IS NOT NULL THEN coalesce(
        (SELECT sum(weight) FROM affinity a JOIN items o ON o.item = a.item
         WHERE o.{kind} = i.{kind}), 0) END AS popularity_{kind}"""


PAIR = ", ".join(
    ", ".join(
        [
            *(
                f"count(*) FILTER (behaviour = '{name}' AND ts >= as_of - INTERVAL {days} DAY)"
                f" AS pair_{name}_{called}"
                for days, called in ((7, "7d"), (30, "30d"), (9999, "all"))
            ),
            since(f"pair_days_since_{name}", name),
        ]
    )
    for name in ("view", "cart", "buy")
)
MEAN = "(SELECT avg(rating) FROM reviews)"
ORACLE = f"""
WITH of_user AS (SELECT {activity("user")} FROM events, clock GROUP BY user),
of_item AS (SELECT {activity("item")}, epoch(any_value(as_of) - min(ts)) / {DAY} AS item_days_sold
            FROM events, clock GROUP BY item),
of_pair AS (SELECT user, item, {PAIR} FROM events, clock GROUP BY user, item),
by_user AS ({ratings("user")}),
by_item AS ({ratings("item")}),
spoken AS (SELECT item, sum(half) AS weight, sum(half * sentiment) AS total FROM (
               SELECT item, sentiment, pow(2, -epoch(as_of - ts) / {DAY} / 30) AS half
               FROM reviews, clock) GROUP BY item),
placed AS (SELECT item, ln(1 + price) - avg(ln(1 + price)) OVER (PARTITION BY category)
               AS price_in_category,
           (rank() OVER (PARTITION BY category ORDER BY price) - 0.5
            + (count(*) OVER (PARTITION BY category, price) - 1) / 2)
           / count(*) OVER (PARTITION BY category) AS price_quantile
           FROM items WHERE price IS NOT NULL AND category IS NOT NULL),
by_place AS (SELECT user, sum(weight * price_quantile) / sum(weight) AS usual_quantile
             FROM affinity JOIN placed USING (item) GROUP BY user),
usual AS (SELECT user, sum(weight * ln(1 + price)) / sum(weight) AS user_price
          FROM affinity JOIN items USING (item) WHERE price IS NOT NULL GROUP BY user),
activity AS (SELECT u.user, region, (SELECT coalesce(sum(weight), 0) FROM affinity a
             WHERE a.user = u.user) AS total FROM users u),
regions AS (SELECT region, avg(total) AS user_region FROM activity GROUP BY region)
SELECT p.rank_text, p.rank_popular, p.score_text,
    (p.rank_text IS NOT NULL)::INT + (p.rank_popular IS NOT NULL)::INT AS generators,
    of_user.* EXCLUDE user, of_item.* EXCLUDE item, of_pair.* EXCLUDE (user, item),
    {conversion("user")}, {conversion("item")},
    coalesce(user_reviews, 0) AS user_reviews, user_days_since_review,
    (coalesce(by_user.total, 0) + 20 * {MEAN}) / (coalesce(by_user.rated, 0) + 20) AS user_rating,
    coalesce(item_reviews, 0) AS item_reviews, item_days_since_review,
    (coalesce(by_item.total, 0) + 20 * {MEAN}) / (coalesce(by_item.rated, 0) + 20) AS item_rating,
    (coalesce(spoken.total, 0) + 20 * (SELECT avg(sentiment) FROM reviews))
        / (coalesce(spoken.weight, 0) + 20) AS item_sentiment,
    ln(1 + i.price) AS price, user_price, ln(1 + i.price) - user_price AS price_gap,
    price_in_category, price_quantile, price_quantile - usual_quantile AS price_quantile_gap,
    {shares("category")}, {shares("brand")}, {shares("scent")},
    i.volume AS item_volume, u.age AS user_age, user_region,
    epoch(as_of - u.known_since) / {DAY} AS user_days_known,
    epoch(as_of - i.created_at) / {DAY} AS item_days_listed
FROM pairs p CROSS JOIN clock JOIN users u ON u.user = p.user JOIN items i ON i.item = p.item
LEFT JOIN of_user ON of_user.user = p.user LEFT JOIN of_item ON of_item.item = p.item
LEFT JOIN of_pair ON of_pair.user = p.user AND of_pair.item = p.item
LEFT JOIN by_user ON by_user.user = p.user LEFT JOIN by_item ON by_item.item = p.item
LEFT JOIN spoken ON spoken.item = p.item
LEFT JOIN placed ON placed.item = p.item LEFT JOIN by_place ON by_place.user = p.user
LEFT JOIN usual ON usual.user = p.user LEFT JOIN regions ON regions.region = u.region
ORDER BY p.user, p.item
"""


@pytest.fixture(scope="module")
def oracle(known: Known, pairs: pl.DataFrame) -> pl.DataFrame:
    places = known.affinity.tocoo()
    tables = {
        "pairs": pairs,
        "events": known.events,
        "reviews": known.reviews,
        "items": known.items.with_row_index("item"),
        "users": known.users.with_row_index("user"),
        "clock": pl.DataFrame({"as_of": [known.as_of]}),
        "affinity": pl.DataFrame(
            {"user": places.row, "item": places.col, "weight": places.data.astype(np.float64)}
        ),
    }
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table.to_arrow())
        return connection.sql(ORACLE).pl()


def test_every_feature_but_vectors_equals_the_sql_oracle(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray, oracle: pl.DataFrame
) -> None:
    features = Features(known, without=ELSEWHERE)(pairs, profiles)
    plain = [name for name in features.columns if not name.startswith(NOT_IN_SQL)]
    assert set(plain) == set(oracle.columns)
    for name in plain:
        expected = oracle.get_column(name).cast(pl.Float64)
        counts = re.search(r"_(\d+d|all)$", name)  # no event is a count of nought, not unknown
        expected = expected.fill_null(0.0 if counts else np.nan)
        np.testing.assert_allclose(
            features.get_column(name), expected, rtol=2e-5, atol=2e-5, err_msg=name
        )


def test_the_random_world_reaches_every_rule(features: pl.DataFrame) -> None:
    unknown = {n for n in features.columns if features.get_column(n).is_nan().any()}
    assert {"price", "user_price", "affinity_category", "cosine_profile", "item_pc_0"} <= unknown
    assert features.get_column("affinity_brand").is_nan().all()
    assert not {"user_rating", "item_buy_per_cart", "pair_view_7d"} & unknown
    assert features.get_column("pair_view_7d").max() >= 1
    assert set(features.dtypes) == {pl.Float32}


def test_windows_hold_what_is_exactly_as_old_as_they_are_long(known: Known) -> None:
    for days in (1.0, 7.0, 30.0, 90.0):
        edge = known.event_age == days
        assert edge.sum() == 4
        counted = sum(known.counts("user", name, days).sum() for name in known.behaviours)
        before = sum(known.counts("user", name, days - 1e-6).sum() for name in known.behaviours)
        assert counted - before == 4


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where either is zero."""
    lengths = np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64))
    return float(a.astype(np.float64) @ b / lengths) if lengths else np.nan


def mean_vector(known: Known, of: str, row: int) -> np.ndarray:
    return known.review_vectors[known.reviews.get_column(of).to_numpy() == row].sum(axis=0)


def test_cosines_equal_brute_force(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray, features: pl.DataFrame
) -> None:
    expected = []
    for user, item in pairs.select("user", "item").rows():
        vector = known.item_vectors[item]
        last = [i for i in known.last_items[user] if i >= 0]
        to_last = [cosine(vector, known.item_vectors[i]) for i in last]
        present = [c for c in to_last if not np.isnan(c)] or [np.nan]
        first_3 = [c for c in to_last[:3] if not np.isnan(c)] or [np.nan]
        expected.append(
            {
                "cosine_profile": cosine(vector, profiles[user]),
                "cosine_own_reviews": cosine(vector, mean_vector(known, "user", user)),
                "cosine_item_reviews": cosine(mean_vector(known, "item", item), profiles[user]),
                "cosine_last": to_last[0] if to_last else np.nan,
                "cosine_last_3_mean": np.mean(first_3),
                "cosine_last_10_max": max(present),
                "cosine_last_10_mean": np.mean(present),
            }
        )
    for name in expected[0]:
        values = [row[name] for row in expected]
        np.testing.assert_allclose(features.get_column(name), values, atol=1e-5, err_msg=name)
        assert 0 < np.isnan(values).sum() < len(values)


def test_whitened_cosines_equal_brute_force(
    known: Known, pairs: pl.DataFrame, features: pl.DataFrame
) -> None:
    white = known.whitened_items
    for row, (user, item) in enumerate(pairs.select("user", "item").rows()):
        newest = [*known.last_items[user][:5]]
        expected = [cosine(white[item], white[i]) if i >= 0 else np.nan for i in newest]
        found = [features[f"cosine_whitened_{n}"][row] for n in range(1, 6)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        present = [c for c in expected if not np.isnan(c)] or [np.nan]
        assert features["cosine_whitened_max"][row] == pytest.approx(
            max(present), abs=1e-5, nan_ok=True
        )


def test_compressed_vectors_belong_to_their_item_and_user(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray, features: pl.DataFrame
) -> None:
    for prefix, of, vectors in (("item", "item", known.item_vectors), ("user", "user", profiles)):
        columns = features.select(f"{prefix}_pc_{n}" for n in range(3)).to_numpy()
        rows = pairs.get_column(of).to_numpy()
        expected = known.projection(vectors)[rows]
        np.testing.assert_allclose(columns, expected, atol=1e-6)
        assert np.array_equal(np.isnan(columns).all(axis=1), ~vectors.any(axis=1)[rows])


def test_features_do_not_depend_on_the_shard(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray, features: pl.DataFrame
) -> None:
    shard = np.array([2, 3, 7, 11])
    chosen = pl.Series(np.isin(pairs.get_column("user"), shard) & (np.arange(len(pairs)) % 3 > 0))
    alone = Features(known)(pairs.filter(chosen), profiles[shard])
    assert alone.columns == features.columns
    np.testing.assert_allclose(alone.to_numpy(), features.filter(chosen).to_numpy(), atol=1e-6)


def test_a_quiet_shop_has_the_same_columns(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray, features: pl.DataFrame
) -> None:
    quiet = replace(
        known,
        events=known.events.clear(),
        reviews=known.reviews.clear(),
        review_vectors=known.review_vectors[:0],
        affinity=known.affinity * 0,
    )
    answer = Features(quiet)(pairs, profiles)
    assert answer.columns == features.columns
    assert answer.get_column("user_cart_per_view").to_list() == [0.0] * len(pairs)
    assert answer.get_column("user_rating").is_nan().all()
    assert answer.get_column("price_gap").is_nan().all()
    assert Features(quiet)(pairs[:0], profiles[:0]).shape == (0, len(features.columns))


def test_the_documentation_lists_every_group() -> None:
    page = Path(__file__).parents[2] / "docs" / "features.md"
    listed = re.findall(r"^\| `(\w+)` \|", page.read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_can_be_left_out(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray, group: str
) -> None:
    ones = np.ones((len(known.items), 3), np.float32)
    fitted = replace(known, asks=ones, answers=ones)
    features = Features(fitted)(pairs, profiles)
    fewer = Features(fitted, without=[group])(pairs, profiles)
    assert set(fewer.columns) < set(features.columns)
    kept = features.select(fewer.columns)
    assert fewer.equals(kept, null_equal=True)


def test_projection_of_fewer_dimensions_still_gives_features(
    known: Known, pairs: pl.DataFrame, profiles: np.ndarray
) -> None:
    blank = replace(known, projection=Projection.fit(known.item_vectors * 0, dimensions=3))
    answer = Features(blank)(pairs, profiles)
    assert not [name for name in answer.columns if "_pc_" in name]


def test_features_of_users_alone_are_those_of_their_pairs(
    known: Known, features: pl.DataFrame, pairs: pl.DataFrame
) -> None:
    users = np.array([5, 0, 11], dtype=np.int32)
    of_users = Features(known).of_users(users)
    assert {"user_buy_all", "user_price", "user_gap_mean", "user_age"} <= set(of_users.columns)
    for row, user in enumerate(users):
        mine = features.filter(pairs.get_column("user") == user).select(of_users.columns)
        assert mine[0].equals(of_users[row], null_equal=True)
    assert Features(known, without=tuple(USER_TABLES)).of_users(users).shape == (3, 0)
