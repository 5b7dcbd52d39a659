"""Candidates, features and scores written plainly: FAISS, SciPy, Polars joins, LightGBM's predict.

As somebody would who knows the libraries, in blocks of users as large as ours, and with the same
rows in the end. Indexes, item-to-item matrices and tables of users and items are there before.
"""

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import faiss
import numpy as np
import polars as pl

from benchmarks.features import COSINE_NAMES, gathered, joined_tables
from index.candidates import FUSION_OFFSET
from index.generators import NEIGHBOURS
from index.snapshot import Snapshot
from jobs.state import State, Users
from rank.calibrate import Floats
from rank.known import Values
from rank.model import Model

PAIR = ["user", "item"]


class Plain:
    """What is there before anybody is recommended anything.

    Args:
        state: whose matrices and tables are used.
        described: whether figures of users, items and pairs, and cosines, are features too.
    """

    def __init__(self, state: State, *, described: bool) -> None:
        self.snapshot: Snapshot = state.snapshot
        self.budgets = state.material.config.candidates.budgets
        self.per_user = state.material.config.candidates.per_user
        user, item = (axis.astype(np.int32) for axis in self.snapshot.excluded.nonzero())
        self.seen = pl.DataFrame({"user": user, "item": item})
        self.eligible = np.flatnonzero(self.snapshot.eligible).astype(np.int32)
        self.flat = faiss.IndexFlatIP(self.snapshot.item_vectors.shape[1])
        self.flat.add(self.snapshot.item_vectors[self.eligible])
        self.profiles = self.snapshot.profiles(np.arange(self.snapshot.shape[0], dtype=np.int32))
        self.ids = [
            frame.select(name, pl.int_range(pl.len(), dtype=pl.Int32).alias(of))
            for frame, name, of in (
                (state.inputs.users, "user_id", "user"),
                (state.inputs.items, "item_id", "item"),
            )
        ]
        self.tables = self.cosines = None
        if described:
            known = state.features.known
            self.tables = joined_tables(known)
            self.cosines = gathered(known, self.profiles)

    def candidates(self, users: Users) -> pl.DataFrame:
        """As `State.candidates`: the union of what is proposed, cut by reciprocal rank fusion."""
        scores = {name: self._scores(name, users) for name in self.budgets}
        found = {name: self._first(best, name) for name, (best, _) in scores.items()}
        pairs = pl.concat([frame.select(PAIR) for frame in found.values()]).unique()
        for name, frame in found.items():
            pairs = pairs.join(frame.select(*PAIR, f"rank_{name}"), on=PAIR, how="left")
        one, offset, none = (pl.lit(x, pl.Float32) for x in (1.0, FUSION_OFFSET, 0.0))
        worth = [(one / (offset + pl.col(f"rank_{name}"))).fill_null(none) for name in found]
        pairs = pairs.with_columns(worth=reduce(add, worth))
        pairs = pairs.sort("user", "worth", "item", descending=[False, True, False])
        pairs = pairs.filter(pl.int_range(pl.len()).over("user") < self.per_user)
        for name, frame in found.items():
            _, everything = scores[name]
            pairs = self._with_score(pairs, name, frame, users, everything)
        return pairs.drop("worth").sort(PAIR)

    def features(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Aligned to `pairs`."""
        said = pairs.drop(PAIR)
        ranks = [pl.col(name).is_not_null() for name in said.columns if name.startswith("rank_")]
        said = said.with_columns(generators=pl.sum_horizontal(ranks))
        if self.tables is None or self.cosines is None:
            return said
        keys = pairs.select(PAIR)
        cosines = self.cosines(keys)
        names = COSINE_NAMES[: cosines.shape[1]]
        parts = [said, self.tables(keys).drop(PAIR), pl.from_numpy(cosines, names)]
        return pl.concat(parts, how="horizontal")

    def predictions(self, pairs: pl.DataFrame, score: pl.Series, order: pl.Series) -> pl.DataFrame:
        """user_id, item_id, position, score and generators, sorted by user and position."""
        names = self.budgets
        proposed = [pl.when(pl.col(f"rank_{n}").is_not_null()).then(pl.lit(n)) for n in names]
        rows = pairs.with_columns(
            score=score, order=order, generators=pl.concat_list(proposed).list.drop_nulls()
        ).sort("user", "order", "item", descending=[False, True, False])
        rows = rows.with_columns(
            position=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user")
        )
        for ids in self.ids:
            rows = rows.join(ids, on=ids.columns[1], how="left", maintain_order="left")
        return rows.select("user_id", "item_id", "position", "score", "generators")

    def _scores(self, name: str, users: Users) -> tuple[pl.DataFrame, Values | None]:
        """user, item, score of a generator's best; scores of all, (n, n_items), where it knows."""
        k = self.budgets[name]
        if name == "nearest":
            return self._nearest(users, k), None
        if name == "popular":
            return self._popular(users, k), None
        history = getattr(self.snapshot, NEIGHBOURS[name])
        scores = (history[users] @ getattr(self.snapshot, name)).toarray()
        open_to = scores.copy()
        open_to[self.snapshot.excluded[users].nonzero()] = 0.0
        k = min(k, scores.shape[1])
        least = np.partition(open_to, -k, axis=1)[:, -k, None]
        row, item = np.nonzero((open_to >= least) & (open_to > 0))
        found = {"user": users[row], "item": item.astype(np.int32), "score": open_to[row, item]}
        return pl.DataFrame(found), scores

    def _nearest(self, users: Users, k: int) -> pl.DataFrame:
        asking = users[self.profiles[users].any(axis=1)]
        similarity, rows = self.flat.search(self.profiles[asking], k + self._most_seen(users))
        found = rows.ravel() >= 0
        user, item = np.repeat(asking, rows.shape[1]), self.eligible[rows.ravel()]
        columns = {"user": user, "item": item, "score": similarity.ravel()}
        return pl.DataFrame({name: values[found] for name, values in columns.items()})

    def _popular(self, users: Users, k: int) -> pl.DataFrame:
        value = np.where(self.snapshot.eligible, self.snapshot.popularity, 0.0)
        items = pl.DataFrame({"item": np.arange(len(value), dtype=np.int32), "score": value})
        best = items.filter(pl.col("score") > 0).sort("score", "item", descending=[True, False])
        top = best.head(k + self._most_seen(users))
        return pl.DataFrame({"user": users}).join(top, how="cross")

    def _most_seen(self, users: Users) -> int:
        asking = pl.DataFrame({"user": users})
        counts = self.seen.join(asking, on="user", how="semi").group_by("user").len()
        return int(counts["len"].max() or 0)  # type: ignore[arg-type]

    def _first(self, scores: pl.DataFrame, name: str) -> pl.DataFrame:
        """user, item, score and rank of the best of each user that are not seen."""
        left = scores.join(self.seen, on=PAIR, how="anti")
        left = left.sort("user", "score", "item", descending=[False, True, False])
        rank = pl.int_range(1, pl.len() + 1).over("user").cast(pl.Float32).alias(f"rank_{name}")
        return left.with_columns(rank).filter(pl.col(f"rank_{name}") <= self.budgets[name])

    def _with_score(
        self,
        pairs: pl.DataFrame,
        name: str,
        proposed: pl.DataFrame,
        users: Users,
        everything: Values | None,
    ) -> pl.DataFrame:
        """The pairs with what a generator says of each, and its share of the user's best."""
        score = pl.col("score").cast(pl.Float32)
        most = proposed.group_by("user").agg(most=score.max())
        if everything is None:
            pairs = pairs.join(proposed.select(*PAIR, score), on=PAIR, how="left")
        else:
            user, item = (pairs.get_column(column).to_numpy() for column in PAIR)
            found = everything[np.searchsorted(users, user), item]
            pairs = pairs.with_columns(score=pl.Series(found))
        pairs = pairs.join(most, on="user", how="left")
        share = pl.when(pl.col("most") > 0).then(pl.col("score") / pl.col("most"))
        pairs = pairs.with_columns(share.alias(f"share_{name}"))
        return pairs.rename({"score": f"score_{name}"}).drop("most")


def recommend(
    plain: Plain, shards: Iterator[Users], model: Model, *, probable: bool
) -> Iterator[pl.DataFrame]:
    """The predictions of each shard; `score` is the probability, or what orders if not probable."""
    for users in shards:
        pairs = plain.candidates(users)
        features = plain.features(pairs).cast(pl.Float32).fill_null(np.nan)
        order = _predicted(model.ranker.booster, features.select(model.ranker.features))
        score = order
        if probable:
            raw = _predicted(model.classifier.booster, features.select(model.classifier.features))
            score = model.calibration(raw + np.log(model.negative_share))
        yield plain.predictions(pairs, pl.Series(score), pl.Series(order))


def _predicted(booster: Any, features: pl.DataFrame) -> Floats:
    return np.asarray(booster.predict(features.to_numpy(), raw_score=True, num_threads=1))
