from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from rank.known import LAST_ITEMS, Known, PairTable


def with_events(known: Known, items_of_user: dict[int, list[int]]) -> Known:
    """Each user's events, the oldest first, a minute apart."""
    rows = [
        (user, item, known.as_of - timedelta(minutes=100 - minute), "view")
        for user, items in items_of_user.items()
        for minute, item in enumerate(items)
    ]
    events = pl.DataFrame(rows, schema=known.events.schema, orient="row")
    return replace(known, events=events.sort("ts", maintain_order=True))


def test_last_items_are_distinct_and_newest_first(known: Known) -> None:
    history = {0: [4, 7, 4, 4, 9], 2: [1], 5: list(range(14)), 6: [3, 1, 3, 2, 3]}
    last = with_events(known, history).last_items
    assert last.shape == (12, LAST_ITEMS)
    assert last[0].tolist() == [9, 4, 7] + [-1] * 7
    assert last[2].tolist() == [1] + [-1] * 9
    assert last[5].tolist() == [13, 12, 11, 10, 9, 8, 7, 6, 5, 4]
    assert last[6].tolist() == [3, 2, 1] + [-1] * 7
    assert (last[[1, 3, 4, 7, 8, 9, 10, 11]] == -1).all()


def test_of_events_at_one_moment_the_later_row_is_the_newer(known: Known) -> None:
    rows = [(0, item, known.as_of, "view") for item in (5, 3, 8)]
    events = pl.DataFrame(rows, schema=known.events.schema, orient="row")
    assert replace(known, events=events).last_items[0, :3].tolist() == [8, 3, 5]


def test_last_items_equal_a_walk_over_the_random_world(known: Known) -> None:
    for user, row in enumerate(known.last_items):
        seen: list[int] = []
        for who, item in reversed(known.events.select("user", "item").rows()):
            if who == user and item not in seen:
                seen.append(item)
        assert [i for i in row if i >= 0] == seen[:LAST_ITEMS]


def test_nothing_known_gives_empty_answers(known: Known) -> None:
    empty = replace(known, events=known.events.clear())
    assert (empty.last_items == -1).all()
    assert (empty.counts("user", "view", np.inf) == 0).all()
    assert np.isnan(empty.days_since("item", "buy")).all()
    assert empty.pair_table.find(np.array([1], np.int32), np.array([1], np.int32)).tolist() == [0]


def test_mean_review_vectors_are_unit_length_or_zero(known: Known) -> None:
    for of, found in (("user", known.user_reviews), ("item", known.item_reviews)):
        means = found.vectors[found.row]
        rows = known.reviews.get_column(of).to_numpy()
        for row, mean in enumerate(means):
            total = known.review_vectors[rows == row].astype(np.float64).sum(axis=0)
            length = np.linalg.norm(total)
            np.testing.assert_allclose(mean, total / length if length else 0 * total, atol=1e-6)
    assert not known.user_reviews.vectors[known.user_reviews.row[-1]].any()


def test_the_usual_price_is_weighted_and_skips_items_without_one(known: Known) -> None:
    prices = [None, 0.0, np.e - 1, *[9.0] * 13]  # logarithms: unknown, 0, 1, ...
    affinity = sp.lil_array((12, 16), dtype=np.float32)
    affinity[0, :3] = [5.0, 0.03, 0.01]
    affinity[1, 0] = 5.0
    shop = replace(
        known,
        items=known.items.with_columns(price=pl.Series(prices, dtype=pl.Float64)),
        affinity=sp.csr_array(affinity),
    )
    assert shop.usual_log_price[0] == pytest.approx(0.25, abs=1e-5)
    assert np.isnan(shop.usual_log_price[1:]).all()


def test_keys_of_pairs_do_not_overflow() -> None:
    far = np.array([2_000_000], np.int32)
    table = PairTable(keys=np.array([2_000_000 * 50_000 + 49_999]), columns={}, n_items=50_000)
    assert table.find(far, np.array([49_999], np.int32)).tolist() == [0]
    assert table.find(far, np.array([49_998], np.int32)).tolist() == [1]


def test_a_price_has_its_place_among_those_listed_of_its_category(known: Known) -> None:
    """Teas cost e^0, e^2, e^2 and e^4; a fifth is listed later; one has no price, one no kind."""
    logs = [0.0, 2.0, 2.0, 4.0, 3.0, np.nan, 5.0, *[1.0] * 9]
    later = known.as_of + timedelta(seconds=1)
    listed = [None, None, *[known.as_of - timedelta(days=1)] * 14]
    listed[4] = later
    affinity = sp.lil_array((12, 16), dtype=np.float32)
    affinity[0, 0], affinity[0, 3], affinity[0, 6] = 1.0, 3.0, 8.0
    affinity[1, 5] = 1.0
    shop = replace(
        known,
        items=known.items.with_columns(
            price=pl.Series(np.expm1(logs)).fill_nan(None),
            category=pl.Series(["tea"] * 6 + [None] + ["saw"] * 9),
            created_at=pl.Series(listed, dtype=pl.Datetime("us")),
        ),
        affinity=sp.csr_array(affinity),
    )
    places = shop.price_in_category
    unknown = [np.nan] * 3
    np.testing.assert_allclose(places["price_in_category"][:7], [-2, 0, 0, 2, *unknown], atol=1e-6)
    np.testing.assert_allclose(places["price_quantile"][:7], [0.125, 0.5, 0.5, 0.875, *unknown])
    np.testing.assert_allclose(places["price_quantile"][7:], 0.5)
    assert shop.usual_price_quantile[0] == pytest.approx((0.125 + 3 * 0.875) / 4)
    assert np.isnan(shop.usual_price_quantile[1:]).all()


def test_an_event_at_as_of_counts_whole_and_each_half_life_halves_it(known: Known) -> None:
    rows = [(0, 3, known.as_of - timedelta(days=days), "cart") for days in (20, 10, 0)]
    events = pl.DataFrame(rows, schema=known.events.schema, orient="row")
    shop = replace(known, events=events)
    assert shop.decayed("item", "cart", 10.0)[[2, 3]].tolist() == [0.0, 1.75]
    assert shop.decayed("user", "view", 10.0).tolist() == [0.0] * 12
