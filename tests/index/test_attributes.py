"""What items are: matrices of words and of equal values, against brute force."""

import re
from math import log, sqrt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.attributes import overlap, same_kind

ALL = np.ones(4, dtype=bool)
EVERY = np.arange(4, dtype=np.int32)
MANY = 200  # neighbours of an item: more than there are

texts = st.none() | st.text(alphabet="ab ,>C", max_size=7)
rows = st.lists(st.tuples(texts, texts, st.booleans()), min_size=1, max_size=9)


def frame(brands: list[str | None], categories: list[str | None]) -> pl.DataFrame:
    schema = {"brand": pl.String, "category": pl.String}
    return pl.DataFrame({"brand": brands, "category": categories}, schema)


def words(row: tuple[str | None, str | None]) -> set[tuple[int, str]]:
    return {
        (place, word) for place, text in enumerate(row) for word in re.findall(r"\w+", text or "")
    }


@given(rows)
def test_overlap_equals_brute_force(world: list[tuple[str | None, str | None, bool]]) -> None:
    sets = [words((b and b.lower(), c and c.lower())) for b, c, _ in world]
    eligible = np.array([e for *_, e in world])
    known = [s for s, e in zip(sets, eligible, strict=True) if e]
    idf = {w: log(len(known) / n) for w in set().union(*sets) if (n := sum(w in s for s in known))}
    length = [sqrt(sum(idf.get(w, 0) ** 2 for w in s)) for s in sets]
    expected = np.zeros((len(world), len(world)))
    for a, b in np.ndindex(expected.shape):
        if a != b and eligible[b] and length[a] * length[b] > 0:
            product = sum(idf.get(w, 0) ** 2 for w in sets[a] & sets[b])
            expected[a, b] = (product / length[a] / length[b]) ** 2
    attributes = frame([b for b, *_ in world], [c for _, c, _ in world])
    found = overlap(attributes, eligible, np.arange(len(world), dtype=np.int32), k=MANY)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5, atol=1e-9)


def test_a_worked_example_of_overlap() -> None:
    attributes = frame(["Ann", "Ann", "Bea", "Bea"], ["Hair > Oil", "oil", "Hair", None])
    found = overlap(attributes, ALL, EVERY, k=MANY).toarray()
    # Every word is in two of four items: each weighs log 2, and so a cosine counts common words.
    half = 1 / 2
    expected = [
        [0, 4 / 6, 1 / 6, 0],
        [4 / 6, 0, 0, 0],
        [1 / 6, 0, 0, half],
        [0, 0, half, 0],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(rows)
def test_same_kind_equals_brute_force(world: list[tuple[str | None, str | None, bool]]) -> None:
    eligible = np.array([e for *_, e in world])
    popularity = np.arange(len(world)) % 4 / 3
    expected = np.zeros((len(world), len(world)))
    for column in (0, 1):
        for a, b in np.ndindex(expected.shape):
            value = world[a][column]
            if a != b and eligible[b] and value is not None and value == world[b][column]:
                among = [i for i, row in enumerate(world) if eligible[i] and row[column] == value]
                expected[a, b] += (popularity[b] + 1) / sum(popularity[i] + 1 for i in among)
    attributes = frame([b for b, *_ in world], [c for _, c, _ in world])
    asking = np.arange(len(world), dtype=np.int32)
    found = same_kind(attributes, popularity, eligible, asking, k=MANY)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)


def test_a_worked_example_of_same_kind() -> None:
    attributes = frame(["Ann", "Ann", "Ann", "Bea"], [None, "hair", None, "hair"])
    asking = np.array([1], dtype=np.int32)
    found = same_kind(attributes, np.array([0.0, 1, 3, 0]), ALL, asking, k=MANY)
    # Of Ann's items 1 + 2 + 4 = 7 in all, of hair 2 + 1 = 3; only item 1 asks.
    expected = np.zeros((4, 4))
    expected[1] = [1 / 7, 0, 4 / 7, 1 / 3]
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_of_a_large_kind_the_most_popular_are_kept() -> None:
    n, k = 250, 200
    popularity = np.random.default_rng(0).permutation(n).astype(float)
    attributes = frame(["Ann"] * n, [None] * n)
    asking = np.array([0], dtype=np.int32)
    found = same_kind(attributes, popularity, np.ones(n, bool), asking, k=k)
    best = np.argsort(-popularity)[:k]
    assert set(found.nonzero()[1]) == set(best) - {0}


@pytest.mark.parametrize("matrix", ["overlap", "same_kind"])
def test_items_that_are_not_eligible_change_nothing(matrix: str) -> None:
    """Rows of later items, put first, in between and last, with old words and new ones."""
    brands, categories = ["Ann", "Ann", "Bea", None], ["a > b", "b, c", "a", "b"]
    old = [1, 2, 4, 5]
    later = frame(
        ["Ann", *brands[:2], "New", *brands[2:], "Aaa"],
        ["a", *categories[:2], "b c z", *categories[2:], "0"],
    )
    eligible = np.isin(np.arange(7), old)
    found = []
    for attributes, items in ((frame(brands, categories), EVERY), (later, np.array(old))):
        among = np.ones(4, bool) if len(attributes) == 4 else eligible
        if matrix == "overlap":
            strength = overlap(attributes, among, items.astype(np.int32), k=MANY)
        else:
            popularity = np.zeros(len(among))
            popularity[items] = [0.1, 0.7, 0.3, 0.2]
            strength = same_kind(attributes, popularity, among, items.astype(np.int32), k=MANY)
        found.append(strength.toarray()[np.ix_(items, items)])
    np.testing.assert_array_equal(*found)
    assert found[0].any()
