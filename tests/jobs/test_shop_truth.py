import math
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.shop import Shop, make_shop, true_probability
from jobs.shop_words import TOPICS
from jobs.shop_world import BEHAVIOURS, draw_views

END = datetime(2025, 6, 1)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop()


@pytest.fixture(scope="module")
def corner_shop() -> Shop:
    return make_shop(users=30, items=12, days=40, seed=3)


def all_pairs(shop: Shop) -> pl.DataFrame:
    return shop.users.select("user_id").join(shop.items.select("item_id"), how="cross")


def expected_by_hand(shop: Shop, *, user: int, item: int, day: int, topic_season: list[float]):
    """View rate of one pair on one day, from the model as the module's docstring states it."""
    w = shop.world

    def weight(j: int) -> float:
        on_sale = w.item_from[j] <= day < w.item_until[j]
        match = sum(t * s for t, s in zip(w.taste[user], w.topics[j], strict=True))
        return w.popularity[j] * math.exp(4.0 * match) if on_sale else 0.0

    if not w.user_from[user] <= day < w.user_until[user]:
        return 0.0
    share = weight(item) / sum(weight(j) for j in range(len(w.topics)))
    season = sum(t * s for t, s in zip(w.topics[item], topic_season, strict=True))
    weekday = (w.first + timedelta(days=day)).weekday()
    rhythm = (0.9, 0.9, 0.95, 0.95, 1.0, 1.15, 1.15)[weekday]
    return w.activity[user] * rhythm * season * share


def test_true_probability_agrees_with_the_model_written_out_in_loops(corner_shop: Shop):
    world = corner_shop.world
    pairs = all_pairs(corner_shop)
    got = {
        b: true_probability(
            corner_shop,
            user_ids=pairs["user_id"],
            item_ids=pairs["item_id"],
            behaviour=b,
            as_of=END - timedelta(days=3),
            horizon_days=7,
        ).reshape(30, 12)
        for b in BEHAVIOURS
    }

    def chance(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for user in range(30):
        for item in range(12):
            rate = 0.0
            for day in range(37, 44):
                of_year = (world.first + timedelta(days=day)).timetuple().tm_yday
                season = [
                    math.exp(
                        t.swing * math.cos(2 * math.pi * (of_year - t.peak * 30.4 + 15) / 365.25)
                    )
                    for t in TOPICS
                ]
                rate += expected_by_hand(
                    corner_shop, user=user, item=item, day=day, topic_season=season
                )
            match = float(world.taste[user] @ world.topics[item])
            steps = (
                1.0,
                chance(2.2 * match - 1.6),
                chance(-0.2 - world.price_sensitivity[user] * world.relative_price[item]),
                chance(0.6 * world.quality[item] - 0.1),
            )
            for behaviour, step in zip(BEHAVIOURS, steps, strict=True):
                rate *= step
                assert got[behaviour][user, item] == pytest.approx(1 - math.exp(-rate), abs=1e-12)


def test_true_probability_is_the_frequency_over_many_histories(corner_shop: Shop):
    """Pair by pair: 600 histories of the same world; also the spread of the counts is Poisson."""
    histories, since, until = 600, 40, 54
    rng = np.random.default_rng(1)
    happened = np.zeros((4, 30, 12))
    views = np.zeros((histories, 30, 12))
    for n in range(histories):
        v = draw_views(corner_shop.world, rng)
        window = (since <= v.day) & (v.day < until)
        np.add.at(views[n], (v.user[window], v.item[window]), 1)
        for depth in range(4):
            seen = np.zeros((30, 12), dtype=bool)
            far = window & (v.depth >= depth)
            seen[v.user[far], v.item[far]] = True
            happened[depth] += seen
    pairs = all_pairs(corner_shop)
    for depth, behaviour in enumerate(BEHAVIOURS):
        p = true_probability(
            corner_shop,
            user_ids=pairs["user_id"],
            item_ids=pairs["item_id"],
            behaviour=behaviour,
            as_of=END,
            horizon_days=until - since,
        ).reshape(30, 12)
        assert not happened[depth][p == 0].any()
        spread = np.sqrt(histories * p * (1 - p))
        wide = spread > 2
        assert wide.sum() > 30
        z = (happened[depth] - histories * p)[wide] / spread[wide]
        assert np.abs(z).max() < 4.5
        assert abs(z.mean()) < 4 / math.sqrt(len(z))
        assert 0.7 < (z**2).mean() < 1.4
    often = views.mean(axis=0) > 0.5
    dispersion = (views.var(axis=0) / views.mean(axis=0).clip(1e-9))[often].mean()
    assert dispersion == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("behaviour", "as_of", "horizon"),
    [
        ("view", END, 14),
        ("click", END, 14),
        ("cart", END - timedelta(days=100), 30),
        ("purchase", END, 30),
        ("purchase", END - timedelta(days=60), 60),
    ],
)
def test_true_probability_foretells_the_exported_events(
    shop: Shop, behaviour: str, as_of: datetime, horizon: int
):
    """Expected and observed pairs in all and in ten parts of equal expectation."""
    pairs = all_pairs(shop)
    p = true_probability(
        shop,
        user_ids=pairs["user_id"],
        item_ids=pairs["item_id"],
        behaviour=behaviour,
        as_of=as_of,
        horizon_days=horizon,
    )
    until = as_of + timedelta(days=horizon)
    window = (pl.col("ts") >= as_of) & (pl.col("ts") < until) & (pl.col("behaviour") == behaviour)
    done = shop.events.filter(window).select("user_id", "item_id", done=True).unique()
    table = pairs.with_columns(p=p).join(done, on=["user_id", "item_id"], how="left").sort("p")
    tenth = (pl.col("p").cum_sum() / pl.col("p").sum() * 10).floor().clip(0, 9)
    parts = table.group_by(tenth.alias("tenth")).agg(
        expected=pl.col("p").sum(),
        variance=(pl.col("p") * (1 - pl.col("p"))).sum(),
        observed=pl.col("done").sum(),
    )
    assert len(parts) == 10
    chi_square = ((parts["observed"] - parts["expected"]) ** 2 / parts["variance"]).sum()
    assert chi_square < 40  # ten degrees of freedom: exceeded by chance once in 60,000
    total = parts["observed"].sum() - parts["expected"].sum()
    assert abs(total) < 4 * math.sqrt(parts["variance"].sum())
    assert parts["observed"].sum() > 300


@settings(max_examples=30)
@given(start=st.integers(0, 69), cuts=st.tuples(st.integers(0, 70), st.integers(0, 70)))
def test_windows_chain(corner_shop: Shop, start: int, cuts: tuple[int, int]):
    """Nothing in a window means nothing in either of its two parts, and they are independent."""
    middle, stop = (min(start + c, 70) for c in sorted(cuts))
    first = corner_shop.world.first
    pairs = all_pairs(corner_shop)

    def nothing(since: int, until: int) -> np.ndarray:
        return 1 - true_probability(
            corner_shop,
            user_ids=pairs["user_id"],
            item_ids=pairs["item_id"],
            behaviour="click",
            as_of=first + timedelta(days=since),
            horizon_days=until - since,
        )

    assert nothing(start, stop) == pytest.approx(nothing(start, middle) * nothing(middle, stop))


def test_the_world_is_predictable_but_not_trivial(shop: Shop):
    """Someone who knew the truth would find likely purchases, and none that are certain."""
    pairs = all_pairs(shop)
    p = true_probability(
        shop,
        user_ids=pairs["user_id"],
        item_ids=pairs["item_id"],
        behaviour="purchase",
        as_of=END,
        horizon_days=14,
    )
    ranked = np.sort(p)[::-1]
    assert ranked[: len(p) // 100].sum() > 0.3 * p.sum()
    assert 0.1 < ranked[10] < 0.9


def test_pairs_keep_their_order(corner_shop: Shop):
    pairs = all_pairs(corner_shop)
    mixed = pairs.sample(fraction=1, shuffle=True, seed=1)
    p, q = (
        true_probability(
            corner_shop,
            user_ids=frame["user_id"].to_list(),
            item_ids=frame["item_id"].to_numpy(),
            behaviour="view",
            as_of=date(2025, 6, 1),
            horizon_days=7,
        )
        for frame in (pairs, mixed)
    )
    back = pairs.join(mixed.with_columns(q=q), on=["user_id", "item_id"], maintain_order="left")
    assert back["q"].to_list() == p.tolist()
    assert len(set(p)) > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"behaviour": "return"}, "unknown behaviour 'return'; the shop has view, click"),
        ({"user_ids": [10_001]}, "user_id 10001 is not in the shop"),
        ({"item_ids": ["I00099"]}, "item_id 'I00099' is not in the shop"),
        ({"item_ids": ["I00001", "I00002"]}, "1 user ids, 2 item ids"),
        ({"as_of": END + timedelta(hours=1)}, "as_of must be a midnight"),
        ({"horizon_days": 31}, r"covers \[2025-04-22, 2025-07-01\); got 31 days from 2025-06-01"),
        ({"as_of": datetime(2025, 4, 21)}, "got 7 days from 2025-04-21"),
        ({"horizon_days": -1}, "got -1 days"),
    ],
)
def test_what_has_no_true_probability_is_refused(corner_shop: Shop, change: dict, message: str):
    good = {
        "user_ids": [10_000],
        "item_ids": ["I00001"],
        "behaviour": "view",
        "as_of": END,
        "horizon_days": 7,
    }
    with pytest.raises(ValueError, match=message):
        true_probability(corner_shop, **(good | change))
