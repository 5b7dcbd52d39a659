"""What is shown for a reason: by hand in a small world, by brute force in a random one."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from rank import reasons
from rank.evidence import SCHEMA, Evidence
from rank.known import Known

TEA, CUP, SAW, OIL = range(4)
ANN, BEN, CAL = range(3)

ALWAYS = {reasons.BASE, reasons.ITEM, reasons.USER, reasons.AGREEMENT, reasons.SHOWN}


def at(days: float) -> datetime:
    return datetime(2024, 6, 1) - timedelta(days=days)


@pytest.fixture(scope="module")
def world(known: Known) -> Evidence:
    """Ann used tea, then a cup and tea again; Ben used a saw and wrote of it; Cal did nothing."""
    turn = [0.0, 0.6, 1.4, 2.0]  # angles of the items' texts: each is nearest to its neighbours
    texts = np.array([[np.cos(a), np.sin(a)] for a in turn], dtype=np.float32)
    rows = [(ANN, TEA, 50.0), (ANN, CUP, 40.0), (BEN, SAW, 9.0), (ANN, TEA, 2.0)]
    events = pl.DataFrame(
        {
            "user": pl.Series([r[0] for r in rows], dtype=pl.Int32),
            "item": pl.Series([r[1] for r in rows], dtype=pl.Int32),
            "ts": pl.Series([at(r[2]) for r in rows], dtype=pl.Datetime("us")),
            "behaviour": ["view", "view", "buy", "buy"],
        }
    )
    reviews = pl.DataFrame(
        {
            "user": pl.Series([BEN, ANN, ANN], dtype=pl.Int32),
            "item": pl.Series([SAW, CUP, TEA], dtype=pl.Int32),
            "ts": pl.Series([at(8), at(7), at(6)], dtype=pl.Datetime("us")),
            "rating": [5.0, 4.0, None],
            "sentiment": [1.0, 0.75, 0.5],
        }
    )
    together = sp.csr_array(
        np.array([[0, 2, 0, 0], [2, 0, 1, 3], [0, 1, 0, 0], [0, 3, 0, 0]], dtype=np.float32)
    )
    facts = replace(
        known,
        items=pl.DataFrame(
            {
                "category": ["kitchen", "kitchen", "shed", "shed"],
                "brand": ["Leaf", "Clay", None, "Clay"],
                "price": [3.0, None, 20.0, 4.0],
                "created_at": pl.Series([None] * 4, dtype=pl.Datetime("us")),
            }
        ),
        users=pl.DataFrame({"known_since": pl.Series([None] * 3, dtype=pl.Datetime("us"))}),
        events=events,
        reviews=reviews,
        item_vectors=texts,
        whitened_items=texts,
        review_vectors=texts[[OIL, TEA, SAW]],
        affinity=sp.csr_array(
            (np.float32([1, 3, 1]), ([ANN, ANN, BEN], [TEA, CUP, SAW])), shape=(3, 4)
        ),
        due=sp.csr_array((np.float32([0.5]), ([ANN], [TEA])), shape=(3, 4)),
        item_attributes=(),
        user_attributes=(),
    )
    past = np.array([[TEA, CUP], [SAW, -1], [-1, -1]], dtype=np.int32)
    return Evidence(facts, past, together)


PAIRS = [(ANN, TEA), (ANN, SAW), (ANN, OIL), (BEN, TEA), (BEN, OIL), (CAL, SAW)]


def found(world: Evidence, family: str) -> dict[tuple[int, int], dict[str, object]]:
    """What is shown for each of the pairs, without what is null."""
    pairs = pl.DataFrame(PAIRS, schema={"user": pl.Int32, "item": pl.Int32}, orient="row")
    profiles = world.known.item_vectors[[TEA, TEA, TEA, SAW, SAW, TEA]].copy()
    profiles[-1] = 0
    frame = world(family, pairs, profiles)
    assert dict(frame.schema) == SCHEMA
    rows = [{k: v for k, v in row.items() if v is not None} for row in frame.iter_rows(named=True)]
    shown = {}
    for pair, row in zip(PAIRS, rows, strict=True):
        if row.pop("found"):
            shown[pair] = row
        else:
            assert row in ({}, {"events": 0})
    return shown


def near(radians: float) -> object:
    return pytest.approx(np.cos(radians), abs=1e-6)


def test_the_nearest_other_earlier_item(world: Evidence) -> None:
    assert found(world, reasons.SIMILAR) == {
        (ANN, TEA): {"item": CUP, "similarity": near(0.6), "at": at(40), "behaviour": "view"},
        (ANN, SAW): {"item": CUP, "similarity": near(0.8), "at": at(40), "behaviour": "view"},
        (ANN, OIL): {"item": CUP, "similarity": near(1.4), "at": at(40), "behaviour": "view"},
        (BEN, TEA): {"item": SAW, "similarity": near(1.4), "at": at(9), "behaviour": "buy"},
        (BEN, OIL): {"item": SAW, "similarity": near(0.6), "at": at(9), "behaviour": "buy"},
    }


def test_the_earlier_item_most_often_used_with_it(world: Evidence) -> None:
    assert found(world, reasons.OTHERS) == {
        (ANN, TEA): {"item": CUP, "similarity": 2.0, "at": at(40), "behaviour": "view"},
        (ANN, SAW): {"item": CUP, "similarity": 1.0, "at": at(40), "behaviour": "view"},
        (ANN, OIL): {"item": CUP, "similarity": 3.0, "at": at(40), "behaviour": "view"},
    }


def test_the_own_review_nearest_to_the_item_and_not_about_it(world: Evidence) -> None:
    """Ann's review of the cup has the text of the tea, that of the tea the saw's."""
    assert found(world, reasons.OWN_REVIEWS) == {
        (ANN, TEA): {"item": CUP, "review": 1, "similarity": near(0), "at": at(7)},
        (ANN, SAW): {"item": TEA, "review": 2, "similarity": near(0), "at": at(6)},
        (ANN, OIL): {"item": TEA, "review": 2, "similarity": near(0.6), "at": at(6)},
        (BEN, OIL): {"item": SAW, "review": 0, "similarity": near(0), "at": at(8)},
    }


def test_the_review_of_the_item_nearest_to_the_profile_by_somebody_else(world: Evidence) -> None:
    """Ben's of the saw is turned away from Ann's profile, and Cal has none."""
    assert found(world, reasons.REVIEWS) == {
        (BEN, TEA): {"item": TEA, "review": 2, "similarity": near(0), "at": at(6)},
    }


def test_the_item_itself_where_it_was_used(world: Evidence) -> None:
    bought = {(ANN, TEA): {"item": TEA, "at": at(2), "behaviour": "buy"}}
    assert found(world, reasons.AGAIN) == bought
    assert found(world, reasons.DUE) == bought


def test_events_of_thirty_days_prices_and_kinds(world: Evidence) -> None:
    once = {"events": 1}
    assert found(world, reasons.POPULAR) == {
        (ANN, TEA): once,
        (ANN, SAW): once,
        (BEN, TEA): once,
        (CAL, SAW): once,
    }
    assert [*found(world, reasons.PRICE)] == PAIRS[:5]  # Cal has no usual price
    category, brand = {"attribute": "category"}, {"attribute": "brand"}
    assert found(world, reasons.KIND) == {
        (ANN, TEA): category,  # 4 of 4, the brand 1 of 4
        (ANN, OIL): brand,
        (BEN, OIL): category,
    }


def test_what_needs_no_evidence_always_has_it(world: Evidence) -> None:
    for family in ALWAYS:
        assert found(world, family) == {pair: {} for pair in PAIRS}


def test_no_pairs(world: Evidence) -> None:
    none = pl.DataFrame(schema={"user": pl.Int32, "item": pl.Int32})
    for family in reasons.FAMILIES:
        frame = world(family, none, np.empty((0, 2), np.float32))
        assert dict(frame.schema) == SCHEMA
        assert len(frame) == 0


def test_users_for_whom_there_is_nothing_to_show(world: Evidence) -> None:
    pairs = pl.DataFrame({"user": [CAL, CAL], "item": [TEA, CUP]}).cast(pl.Int32)
    for family in set(reasons.FAMILIES) - ALWAYS - {reasons.POPULAR}:
        frame = world(family, pairs, np.zeros((2, 2), np.float32))
        assert frame.get_column("found").to_list() == [False, False]
        assert frame.drop("found").null_count().row(0) == (2,) * (len(SCHEMA) - 1)


def test_a_shop_without_reviews(world: Evidence) -> None:
    known = world.known
    silent = replace(known, reviews=known.reviews[:0], review_vectors=known.review_vectors[:0])
    evidence = replace(world, known=silent)
    for family in (reasons.OWN_REVIEWS, reasons.REVIEWS):
        assert found(evidence, family) == {}


def test_against_brute_force(known: Known, pairs: pl.DataFrame, profiles: np.ndarray) -> None:
    """Every pair of a random shop, in float64 and loops."""
    rng = np.random.default_rng(5)
    known = replace(known, whitened_items=np.nan_to_num(known.whitened_items))
    past = known.last_items[:, :6]
    together = np.where(rng.random((16, 16)) < 0.4, rng.random((16, 16)), 0).astype(np.float32)
    evidence = Evidence(known, past, sp.csr_array(together))
    profiles = profiles[pairs.get_column("user").to_numpy()]
    shown = {
        family: evidence(family, pairs, profiles).rows(named=True)
        for family in (reasons.SIMILAR, reasons.OTHERS, reasons.OWN_REVIEWS, reasons.REVIEWS)
    }
    reviews = known.reviews.rows(named=True)
    texts = known.whitened_items.astype(np.float64)
    for place, (user, item) in enumerate(pairs.select("user", "item").rows()):
        others = [p for p in past[user] if p not in (-1, item)]
        best = max((float(texts[p] @ texts[item]) for p in others), default=0.0)
        check(shown[reasons.SIMILAR][place], best)
        check(shown[reasons.OTHERS][place], max((together[p, item] for p in others), default=0.0))
        own = [
            known.review_vectors[r] @ known.item_vectors[item]
            for r, review in enumerate(reviews)
            if review["user"] == user and review["item"] != item
        ]
        check(shown[reasons.OWN_REVIEWS][place], max(own, default=0.0))
        of_item = [
            known.review_vectors[r] @ profiles[place]
            for r, review in enumerate(reviews)
            if review["item"] == item and review["user"] != user
        ]
        check(shown[reasons.REVIEWS][place], max(of_item, default=0.0))
        for family in (reasons.OWN_REVIEWS, reasons.REVIEWS):
            row = shown[family][place]
            if row["found"]:
                cited = reviews[row["review"]]
                assert (row["item"], row["at"]) == (cited["item"], cited["ts"])
                assert row["at"] < known.as_of


def check(row: dict[str, object], best: float) -> None:
    if abs(best) < 1e-6:
        return  # either way is right
    assert row["found"] == (best > 0)
    assert row["similarity"] == (pytest.approx(best, abs=1e-5) if best > 0 else None)
