from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rank.known import Known
from rank.tables import (
    PRIOR_EVENTS,
    item_activity,
    item_attributes,
    item_conversion,
    item_sentiment,
    user_attributes,
    user_ratings,
)


@pytest.fixture(scope="module")
def tiny(known: Known) -> Known:
    """Item 0: ten views and two carts; item 1: ten views; user 0 rated 5 and 3, user 1 nothing."""
    kinds = ["view"] * 10 + ["cart"] * 2 + ["view"] * 10
    days = [timedelta(days=40 - n) for n in range(22)]
    events = pl.DataFrame(
        {
            "user": [0] * 22,
            "item": [0] * 12 + [1] * 10,
            "ts": [known.as_of - day for day in days],
            "behaviour": kinds,
        },
        schema=known.events.schema,
    )
    reviews = pl.DataFrame(
        {
            "user": [0, 0, 1],
            "item": [0, 1, 1],
            "ts": [known.as_of - timedelta(hours=12 * n) for n in (3, 2, 1)],
            "rating": [5.0, 3.0, None],
            "sentiment": [1.0, 0.5, 0.0],
        },
        schema=known.reviews.schema,
    )
    return replace(known, events=events, reviews=reviews)


def test_conversion_leans_on_the_shop(tiny: Known) -> None:
    shop = 2 / 20
    rate = item_conversion(tiny)["item_cart_per_view"]
    assert rate[0] == pytest.approx((2 + PRIOR_EVENTS * shop) / (10 + PRIOR_EVENTS))
    assert rate[1] == pytest.approx((0 + PRIOR_EVENTS * shop) / (10 + PRIOR_EVENTS))
    assert rate[2:] == pytest.approx(shop)


def test_ratings_lean_on_the_shop_and_a_review_without_one_still_counts(tiny: Known) -> None:
    columns = user_ratings(tiny)
    assert columns["user_rating"][:3] == pytest.approx([4.0, 4.0, 4.0])
    assert columns["user_reviews"][:3].tolist() == [2, 1, 0]
    assert columns["user_days_since_review"][:2].tolist() == [1.0, 0.5]
    assert np.isnan(columns["user_days_since_review"][2])


def test_sentiment_fades_and_leans_on_the_shop(tiny: Known) -> None:
    days = [timedelta(days=n) for n in (60, 30, 0)]
    reviews = tiny.reviews.with_columns(ts=pl.Series([tiny.as_of - day for day in days]))
    found = item_sentiment(replace(tiny, reviews=reviews))["item_sentiment"]
    lean = PRIOR_EVENTS * 0.5
    assert found[0] == pytest.approx((0.25 * 1.0 + lean) / (0.25 + PRIOR_EVENTS))
    assert found[1] == pytest.approx((0.5 * 0.5 + 0.0 + lean) / (1.5 + PRIOR_EVENTS))
    assert found[2:] == pytest.approx(0.5)


def test_windows_and_ages(tiny: Known) -> None:
    columns = item_activity(tiny)
    # Item 0: days 40..31 and carts 30, 29. Item 1: days 28..19.
    assert columns["item_view_30d"][:2].tolist() == [0, 10]
    assert columns["item_cart_30d"][0] == 2
    assert columns["item_view_90d"][:2].tolist() == [10, 10]
    assert columns["item_days_since_view"][:2].tolist() == [31, 19]
    assert columns["item_days_sold"][:2].tolist() == [40, 28]
    assert np.isnan(columns["item_days_sold"][2:]).all()


def test_attributes_of_texts_and_numbers(known: Known) -> None:
    total = known.affinity.toarray().sum(axis=0)
    columns = item_attributes(known)
    rose = total[::2].sum()
    assert columns["popularity_scent"][::2] == pytest.approx(rose, rel=1e-5)
    assert np.isnan(columns["popularity_scent"][1::2]).all()
    assert columns["item_volume"][1:] == pytest.approx(np.linspace(1, 9, 15))
    assert "item_scent" not in columns
    activity = known.affinity.toarray().sum(axis=1)
    region = user_attributes(known)["user_region"]
    assert region[::3] == pytest.approx(activity[::3].mean(), rel=1e-5)
    assert np.isnan(region[2::3]).all()
