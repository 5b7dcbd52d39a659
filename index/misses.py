"""Who proposed what then happened, at what rank, and why the others did not."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from index.candidates import find, fuse, told
from index.generators import LOGARITHMIC, Proposals
from index.rows import PADDING, Positions, contains, pair_keys
from index.snapshot import Snapshot

# The name of the union beside those of the generators.
ALL = "all"
REASONS = ("proposed", "new item", "excluded", "cut off", "no link")

Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


def account(
    snapshot: Snapshot, targets: pl.DataFrame, *, budgets: Mapping[str, int], per_user: int
) -> pl.DataFrame:
    """Where each target stands with each generator and in the union; none is left out.

    Args:
        snapshot: what is known before `as_of`.
        targets: user, item: what happened from `as_of` on.
        budgets: as of `index.candidates.propose`.
        per_user: likewise.

    Returns:
        Sorted by user, then item, with a row for each generator in the order of `budgets` and one
        for their union, named `all`: `user`, `item`, `generator`, `rank` (1 = best; that of the
        union is by fusion; null where the target was not proposed) and `reason`, the first that
        holds of

        - proposed;
        - new item: not eligible, as when it is not known before `as_of`;
        - excluded for the user;
        - cut off: the generator's list was full (it may say nothing of whether the target would
          have come), for `all`: some generator's proposal was beyond `per_user`;
        - no link: the generator found less than its budget, or knows that nothing leads from the
          user to the item; for `all`: no generator proposed it.
    """
    pairs = targets.select("user", "item").unique().sort("user", "item")
    user, item = (pairs.get_column(name).to_numpy() for name in ("user", "item"))
    users, rows = np.unique(user, return_inverse=True)
    found = find(snapshot, users, budgets)
    barred = (~snapshot.eligible[item], contains(snapshot.excluded[users], rows, item))

    def frame(generator: str, rank: NDArray[np.float32], cut_off: Flags) -> pl.DataFrame:
        holds = [~np.isnan(rank), *barred, cut_off]
        return pairs.with_columns(
            generator=pl.lit(generator),
            rank=pl.Series(rank, nan_to_null=True).cast(pl.Int32),
            reason=pl.Series(np.select(holds, REASONS[:-1], REASONS[-1]), dtype=pl.String),
        )

    frames = []
    for name, k in budgets.items():
        rank, score, _ = told(found[name], rows, item, snapshot.shape[1])
        full = (found[name].items != PADDING).sum(axis=1) == k
        frames.append(frame(name, rank, full[rows] & _linked(name, found[name], score)))
    rank = _fused_rank(found, rows, item, snapshot.shape[1])
    frames.append(frame(ALL, np.where(rank <= per_user, rank, np.nan), rank > per_user))
    return pl.concat(frames).sort("user", "item", maintain_order=True)


def _linked(name: str, found: Proposals, score: NDArray[np.float32]) -> Flags:
    """(n,) whether the generator could have come to a pair, as far as its scores tell."""
    if found.score_of is None:
        return np.ones(len(score), dtype=bool)
    return ~np.isnan(score) if name in LOGARITHMIC else score > 0


def _fused_rank(
    found: Mapping[str, Proposals], rows: Places, items: Positions, n_items: int
) -> NDArray[np.float32]:
    """(n,) rank of each pair in the whole union; NaN where nobody proposed it."""
    union_rows, union_items, fused = fuse(found, n_items)
    ranks = np.full(len(rows), np.nan, dtype=np.float32)
    _, asked, place = np.intersect1d(
        pair_keys(rows, items, n_items),
        pair_keys(union_rows, union_items, n_items),
        assume_unique=True,
        return_indices=True,
    )
    ranks[asked] = fused[place]
    return ranks
