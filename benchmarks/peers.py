"""The peers: known recommenders that see the same split as the night and give lists to compare.

Settings are those of the libraries or of a publication, or `chosen` on validation items; none
knows the test items. Two peers come with the extra `peers` (docs/decisions/0003).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import inv
from threadpoolctl import threadpool_limits

from index.rows import PADDING, scatter_top_k

Ids = NDArray[np.int32]
Scores = NDArray[np.float32]
Lists = tuple[Ids, Scores]

USERS_PER_BLOCK = 512
MOST_EASE_ITEMS = 20_000
LIST_LENGTH = 10


@dataclass(frozen=True)
class Split:
    """One evaluation: matrices are built from `train`, lists are predicted from `history`.

    Attributes:
        train: user, item (positions), place (order within the user, ascending = later).
        history: the same columns; holds at least the rows of `train`.
        n_users: number of user positions.
        n_items: number of item positions.
        users: ascending, who is predicted for.
    """

    train: pl.DataFrame
    history: pl.DataFrame
    n_users: int
    n_items: int
    users: Ids


# (split, k, seed) -> items (len(users), k), best first, padded with -1, and scores of the same
# shape, padded with -inf. Nothing of a user's history is returned; ties are broken by item.
Peer = Callable[[Split, int, int], Lists]
Settings = dict[str, float]


class PeerUnavailableError(RuntimeError):
    """A peer that cannot run here; the message says why and, where it helps, what to install."""


def popularity(split: Split, k: int, seed: int) -> Lists:
    """Items by their number of users in `train`; never an item without any."""
    count = np.asarray(_matrix(split.train, split).sum(axis=0)).ravel()
    score = np.where(count > 0, count, -np.inf)
    return _lists(split, k, lambda users: np.broadcast_to(score, (len(users), split.n_items)))


def itemknn(split: Split, k: int, seed: int, *, decay: float = 0.7) -> Lists:
    """Cosine of items' users in `train`, summed over the history, the n-th latest by decay ** n.

    Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001, with
    every neighbour.
    """
    train = _matrix(split.train, split)
    length = np.sqrt(np.maximum(train.sum(axis=0), 1.0)).astype(np.float32)
    unit = train @ sp.diags_array(1 / length, format="csr")
    cosine = sp.csr_array(unit.T @ unit)
    cosine.setdiag(0.0)
    history = _matrix(split.history, split, decay=decay)

    def score(users: Ids) -> Scores:
        sums = (history[users] @ cosine).toarray()
        return np.where(sums > 0, sums, -np.inf)

    return _lists(split, k, score)


def ease(split: Split, k: int, seed: int, *, penalty: float = 50.0, decay: float = 0.7) -> Lists:
    """Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019, over all items.

    Closed form on the binary `train`; the n-th latest of the history counts decay ** n.

    Raises:
        PeerUnavailableError: more than 20,000 items, whose matrix takes over 1.6 GB.
    """
    if split.n_items > MOST_EASE_ITEMS:
        raise PeerUnavailableError(
            f"EASE inverts a dense matrix of all items: {split.n_items:,} are more than "
            f"{MOST_EASE_ITEMS:,}"
        )
    train = _matrix(split.train, split)
    gram = (train.T @ train).toarray()
    gram[np.diag_indices_from(gram)] += penalty
    inverse = inv(gram, overwrite_a=True, assume_a="pos")
    # Symmetric; the transpose has rows in memory one after the other, which is far faster below.
    weights = inverse.T / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    history = _matrix(split.history, split, decay=decay)
    return _lists(split, k, lambda users: history[users] @ weights)


def implicit_als(
    split: Split,
    k: int,
    seed: int,
    *,
    factors: float = 100,
    regularization: float = 0.01,
    alpha: float = 1.0,
) -> Lists:
    """ALS of the package implicit; its defaults. The history is folded in by `recalculate_user`.

    Hu, Koren and Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008.
    """
    kind = _package("implicit.als").AlternatingLeastSquares
    settings = {"factors": int(factors), "regularization": regularization, "alpha": alpha}
    history = sp.csr_matrix(_matrix(split.history, split))
    with threadpool_limits(1, "blas"):
        model = _fitted(kind, split, seed, **settings)

        def score(users: Ids) -> Any:
            return model.recalculate_user(users, history[users]) @ model.item_factors.T

        return _lists(split, k, score)


def implicit_bpr(
    split: Split,
    k: int,
    seed: int,
    *,
    factors: float = 100,
    learning_rate: float = 0.01,
    regularization: float = 0.01,
) -> Lists:
    """BPR of the package implicit; its defaults. Users are known by `train` alone.

    There is no folding in: what the history holds beyond `train` is only left out of the list.
    A user without rows in `train` gets the items by their bias. One thread, as several race.
    Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009.
    """
    kind = _package("implicit.bpr").BayesianPersonalizedRanking
    settings = {"learning_rate": learning_rate, "regularization": regularization}
    with threadpool_limits(1, "blas"):
        model = _fitted(kind, split, seed, factors=int(factors), **settings)
        # implicit sets users without rows to zero, the constant beside the items' bias too.
        model.user_factors[:, -1] = 1.0
        return _lists(split, k, lambda users: model.user_factors[users] @ model.item_factors.T)


def rectools_two_stage(
    split: Split, k: int, seed: int, *, candidates: float = 30, negatives: float = 3
) -> Lists:
    """RecTools' CandidateRankingModel: three first stages, reranked by LightGBM's LambdaRank.

    As in its candidate_ranking_model_tutorial: 30 candidates of each first stage with rank and
    score as the only features, 3 negatives a user, default models; ALS joins the tutorial's
    PopularModel and cosine ItemKNN. Its targets are each user's last row of `train` in place of
    the last seven days, and missing features are left to LightGBM. All is fitted on `train`;
    the lists come from a data set with `history`, which its ItemKNN reads and its ALS, by
    RecTools' design, does not. Items without rows in `train` cannot be recommended; users
    without get popular items.
    """
    known = split.history.join(split.train, on="user", how="semi").join(
        split.train, on="item", how="semi"
    )
    with threadpool_limits(1, "blas"):
        model = two_stage(seed, int(candidates), int(negatives)).fit(
            dataset_of(split.train, split.train)
        )
        found = model.recommend(
            users=split.users,
            dataset=dataset_of(known, split.train),
            k=3 * int(candidates),
            filter_viewed=True,
            on_unsupported_targets="ignore",
        )
    listed = pl.DataFrame(
        {
            "user": found["user_id"].to_numpy().astype(np.int32),
            "item": found["item_id"].to_numpy().astype(np.int32),
            "score": found["score"].to_numpy().astype(np.float32),
        }
    ).join(split.history, on=["user", "item"], how="anti")
    rows = np.searchsorted(split.users, listed["user"].to_numpy()).astype(np.int32)
    return scatter_top_k(
        rows,
        listed["item"].to_numpy(),
        listed["score"].to_numpy(),
        n_rows=len(split.users),
        k=k,
    )


PEERS: dict[str, Peer] = {
    "popularity": popularity,
    "itemknn": itemknn,
    "ease": ease,
    "implicit_als": implicit_als,
    "implicit_bpr": implicit_bpr,
    "rectools_two_stage": rectools_two_stage,
}

# The lists of the others are the same for every seed.
SEEDED = ("implicit_als", "implicit_bpr", "rectools_two_stage")

# What `chosen` tries; the first point is the peer's default. A peer without a grid keeps its own.
GRID: dict[str, tuple[Settings, ...]] = {
    "itemknn": tuple({"decay": decay} for decay in (0.7, 1.0, 0.9, 0.8, 0.5)),
    "ease": tuple(
        {"penalty": penalty, "decay": decay}
        for penalty, decay in ((50.0, 0.7), (200.0, 0.7), (500.0, 0.7), (200.0, 0.9))
    ),
    "implicit_als": tuple(
        {"factors": factors, "alpha": alpha}
        for factors, alpha in ((100, 1.0), (100, 10.0), (100, 40.0), (256, 10.0), (256, 40.0))
    ),
    "implicit_bpr": tuple(
        {"learning_rate": rate, "regularization": regularization}
        for rate, regularization in ((0.01, 0.01), (0.1, 0.01), (0.1, 0.03), (0.2, 0.03))
    ),
    "rectools_two_stage": (
        {"candidates": 30, "negatives": 3},
        {"candidates": 100, "negatives": 90},
    ),
}


def chosen(peer: str, validation: Split, targets: Ids, *, seed: int = 0) -> Settings:
    """The point of the peer's grid with the highest NDCG@10 on validation items.

    Use it as `partial(PEERS[peer], **settings)`.

    Args:
        peer: a key of `PEERS`.
        validation: what was known before the validation items.
        targets: the validation items, aligned with `validation.users`.
        seed: of the peer.

    Returns:
        The best point, the earliest of equals; nothing where the peer has no grid.
    """
    if peer not in GRID:
        return {}

    def gain(settings: Settings) -> float:
        items, _ = partial(PEERS[peer], **settings)(validation, LIST_LENGTH, seed)
        return ndcg(items, targets)

    return max(GRID[peer], key=gain)


def ndcg(items: Ids, targets: Ids) -> float:
    """Mean of 1 / log2(1 + position) of the target in its user's list, 0 where it is not there.

    >>> ndcg(np.array([[7, 8, 9], [7, 8, 9]]), np.array([9, 1]))
    0.25
    """
    hit = items == targets[:, None]
    return float((hit / np.log2(np.arange(items.shape[1]) + 2)).sum(axis=1).mean())


def _matrix(events: pl.DataFrame, split: Split, *, decay: float = 1.0) -> sp.csr_array:
    """(n_users, n_items): decay ** (number of the user's later items), once for each item."""
    latest = events.group_by("user", "item").agg(pl.col("place").max()).sort("user", "item")
    later = pl.col("place").rank("ordinal", descending=True).over("user") - 1
    weight = decay ** latest.select(later).to_series().to_numpy().astype(np.float64)
    places = (latest["user"].to_numpy(), latest["item"].to_numpy())
    shape = (split.n_users, split.n_items)
    return sp.csr_array((weight.astype(np.float32), places), shape=shape)


def _fitted(kind: Any, split: Split, seed: int, **settings: float) -> Any:
    """A model of the package implicit, fitted by one thread."""
    model = kind(**settings, use_gpu=False, num_threads=1, random_state=seed)
    model.fit(sp.csr_matrix(_matrix(split.train, split)), show_progress=False)
    return model


def _lists(split: Split, k: int, score: Callable[[Ids], Any]) -> Lists:
    """The best of all items for each user, by dense scores (n, n_items) of a block of users."""
    seen = _matrix(split.history, split)
    items = np.full((len(split.users), k), PADDING, dtype=np.int32)
    values = np.full((len(split.users), k), -np.inf, dtype=np.float32)
    for start in range(0, len(split.users), USERS_PER_BLOCK):
        block = slice(start, start + USERS_PER_BLOCK)
        users = split.users[block]
        scores = np.array(score(users), dtype=np.float32)
        scores[seen[users].nonzero()] = -np.inf
        items[block], values[block] = _best(scores, k)
    return items, values


def _best(scores: Scores, k: int) -> Lists:
    last = min(k, scores.shape[1]) - 1
    least = -np.partition(-scores, last, axis=1)[:, last]
    rows, columns = np.nonzero((scores >= least[:, None]) & (scores > -np.inf))
    found = scores[rows, columns]
    return scatter_top_k(
        rows.astype(np.int32), columns.astype(np.int32), found, n_rows=len(scores), k=k
    )


def two_stage(seed: int, candidates: int, negatives: int) -> Any:
    """RecTools' model, not fitted."""
    from lightgbm import LGBMRanker

    models, ranking = _package("rectools.models"), _package("rectools.models.ranking")
    als = _package("implicit.als").AlternatingLeastSquares(
        use_gpu=False, num_threads=1, random_state=seed
    )
    cosine = _package("implicit.nearest_neighbours").CosineRecommender(num_threads=1)
    first_stages = (
        models.PopularModel(),
        models.ImplicitItemKNNWrapperModel(cosine),
        models.ImplicitALSWrapperModel(als),
    )
    # As many threads as OpenMP has; trees are the same with any number.
    ranker = LGBMRanker(
        random_state=seed, n_jobs=0, deterministic=True, force_row_wise=True, verbose=-1
    )
    return ranking.CandidateRankingModel(
        [
            ranking.CandidateGenerator(model, candidates, keep_ranks=True, keep_scores=True)
            for model in first_stages
        ],
        splitter=_package("rectools.model_selection").LastNSplitter(1),
        reranker=_grouped_reranker(ranker),
        sampler=ranking.PerUserNegativeSampler(negatives, random_state=seed),
    )


def _grouped_reranker(ranker: Any) -> Any:
    """RecTools' reranker with the rows of a user together, which LambdaRank needs."""
    base: Any = _package("rectools.models.ranking").Reranker

    class GroupedByUser(base):  # type: ignore[misc]
        def prepare_fit_kwargs(self, candidates_with_target: Any) -> dict[str, Any]:
            rows = candidates_with_target.sort_values(["user_id", "item_id"])
            group = rows.groupby("user_id").size().to_numpy()
            return {**super().prepare_fit_kwargs(rows), "group": group}

    return GroupedByUser(ranker)


def dataset_of(events: pl.DataFrame, known: pl.DataFrame) -> Any:
    """A RecTools data set with the users and items of `known`, a day for each place."""
    dataset = _package("rectools.dataset")
    day = pl.datetime(2020, 1, 1) + pl.duration(days=pl.col("place"))
    rows = events.select(
        user_id="user", item_id="item", weight=pl.lit(1.0), datetime=day
    ).to_pandas()
    user_map, item_map = (
        dataset.IdMap.from_values(known[column].unique().sort().to_numpy())
        for column in ("user", "item")
    )
    interactions = dataset.Interactions.from_raw(rows, user_map, item_map)
    return dataset.Dataset(user_map, item_map, interactions)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as missing:
        raise PeerUnavailableError(
            f"{name} cannot be imported ({missing}): see the extra `peers` in "
            "docs/decisions/0003-benchmark-peers.md"
        ) from missing
