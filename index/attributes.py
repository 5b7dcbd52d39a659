"""Item-to-item matrices of what items are: brand, category and other text attributes."""

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from index.neighbours import strongest, strongest_products
from index.rows import entries_where


def overlap(
    attributes: pl.DataFrame, eligible: NDArray[np.bool_], asking: NDArray[np.int32], *, k: int
) -> sp.csr_array:
    """Squared cosine of the items' sets of words, each word weighted by its rarity.

    A word's weight is the inverse document frequency log(n / df) over the eligible items (Spärck
    Jones, Journal of Documentation 1972). The same word in two columns is two words.

    Args:
        attributes: text columns, row i is item i.
        eligible: (n_items,) the items that may be neighbours.
        asking: the items whose rows are wanted.
        k: neighbours of each item.
    """
    words = sp.csr_array(sp.hstack([_words(values) for values in attributes]))
    frequency = words[eligible].sum(axis=0)
    share = np.where(frequency > 0, frequency, np.inf) / max(int(eligible.sum()), 1)
    rarity = -np.log(np.minimum(share, 1.0))
    weighted = sp.csr_array(words @ sp.diags_array(rarity))
    length = np.sqrt(weighted.power(2).sum(axis=1))
    unit = sp.csr_array(sp.diags_array(1.0 / np.where(length > 0, length, 1.0)) @ weighted)
    answering = sp.csr_array(_rows(unit, np.flatnonzero(eligible)).T)
    itself = sp.eye_array(len(eligible), format="csr")
    return sp.csr_array(strongest_products(_rows(unit, asking), answering, itself, k=k).power(2))


def same_kind(
    attributes: pl.DataFrame,
    popularity: NDArray[np.float64],
    eligible: NDArray[np.bool_],
    asking: NDArray[np.int32],
    *,
    k: int,
) -> sp.csr_array:
    """The neighbour's share in the popularity of the items of the same value, over all columns.

    Every item counts one more than its popularity, so that those without any come last.

    Args:
        attributes: text columns, row i is item i; a value that is a list counts as one value.
        popularity: (n_items,) not negative.
        eligible: (n_items,) the items that may be neighbours.
        asking: the items whose rows are wanted.
        k: neighbours of each item.
    """
    answering = np.flatnonzero(eligible)
    total = sp.csr_array((len(eligible), len(eligible)), dtype=np.float32)
    for values in attributes:
        of_kind = _member(pl.DataFrame({"value": values}).with_row_index("item"), len(eligible))
        counted = _rows(sp.csr_array(sp.diags_array(popularity + 1.0) @ of_kind), answering)
        whole = counted.sum(axis=0)
        share = counted @ sp.diags_array(1.0 / np.where(whole > 0, whole, 1.0))
        favourites = strongest(sp.csr_array(share.T.astype(np.float32)), k)
        total = total + _rows(of_kind, asking) @ favourites
    entries = total.tocoo()
    return strongest(entries_where(entries, entries.row != entries.col), k)


def _words(values: pl.Series) -> sp.csr_array:
    """(n_items, words of the column): 1 where the item has the word."""
    words = values.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
    found = pl.DataFrame({"value": words}).with_row_index("item").explode("value")
    return _member(found, len(values))


def _member(found: pl.DataFrame, n_items: int) -> sp.csr_array:
    """(n_items, distinct values): 1 where the item has the value; null is no value."""
    known = found.drop_nulls().unique().sort("item", "value")
    code = known.get_column("value").rank("dense").to_numpy().astype(np.int32) - 1
    places = (known.get_column("item").to_numpy(), code)
    shape = (n_items, int(code.max(initial=-1)) + 1)
    return sp.csr_array((np.ones(len(known), dtype=np.float32), places), shape=shape)


def _rows(matrix: sp.csr_array, rows: NDArray[np.integer]) -> sp.csr_array:
    """The matrix with all other rows empty."""
    entries = matrix.tocoo()
    return entries_where(entries, np.isin(entries.row, rows))
