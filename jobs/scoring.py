"""Scores one shard of users: a pure function of a state, the models and the users."""

from collections.abc import Iterable
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.baselines import Rivals, rival_scores
from jobs.state import State, Users
from rank.calibrate import Floats
from rank.metrics import positions
from rank.model import Model


def score_shard(
    state: State,
    models: Iterable[Model],
    users: Users,
    *,
    threads: int = 0,
    rivals: Rivals = MappingProxyType({}),
) -> list[pl.DataFrame]:
    """For each model, the scored candidates of the users; see `score_pairs`."""
    pairs = state.candidates(users)
    features = state.describe(pairs)
    return score_pairs(state, models, pairs, features, threads=threads, rivals=rivals)


def score_pairs(
    state: State,
    models: Iterable[Model],
    pairs: pl.DataFrame,
    features: pl.DataFrame,
    *,
    threads: int = 0,
    rivals: Rivals = MappingProxyType({}),
) -> list[pl.DataFrame]:
    """For each model, those of the candidates that its behaviour may follow on, scored.

    Args:
        state: whose candidates they are.
        models: whose probabilities are wanted.
        pairs: as `state.candidates` gives them.
        features: as `state.describe` gives them.
        threads: 0 for all cores.
        rivals: simpler models to score beside them.

    Returns:
        Aligned to `models`, sorted by user, then item: `user`, `item`, `score` (raw log-odds),
        `probability`, `order` (what `position` follows, higher first), `proposed_by` (bit g is set
        where generator g of the configuration proposed the pair), `popularity` (decayed count
        of the item's events) and, named as each of the `rivals`, its log-odds.
    """
    described = pairs.select("user", "item").with_columns(
        proposed_by=pl.Series(proposed_by(pairs)),
        popularity=pl.Series(state.snapshot.popularity[pairs.get_column("item").to_numpy()]),
    )
    scored = []
    for model in models:
        allowed = pl.Series(state.allowed(model.behaviour, pairs))
        described_pairs = features.filter(allowed)
        score = model.log_odds(described_pairs, threads=threads)
        order = model.order(described_pairs, score, threads=threads)
        beside = rival_scores(
            rivals.get(model.behaviour, {}),
            described_pairs,
            negative_share=model.negative_share,
            threads=threads,
        )
        scored.append(
            described.filter(allowed).with_columns(
                score=pl.Series(score),
                probability=pl.Series(model.calibration(score)),
                order=pl.Series(order),
                **beside,
            )
        )
    return scored


def proposed_by(pairs: pl.DataFrame) -> NDArray[np.uint32]:
    """(n,) a bit for each generator, in the order of the `rank_*` columns.

    >>> proposed_by(pl.DataFrame({"rank_a": [1.0, None], "rank_b": [3.0, 1.0]})).tolist()
    [3, 2]
    """
    bits = np.zeros(len(pairs), dtype=np.uint32)
    for place, name in enumerate(n for n in pairs.columns if n.startswith("rank_")):
        bits |= pairs.get_column(name).is_not_null().to_numpy().astype(np.uint32) << place
    return bits


def predictions(
    scored: Iterable[pl.DataFrame], models: Iterable[Model], state: State
) -> pl.DataFrame:
    """The rows to publish: ids instead of positions, and the final order.

    Returns:
        user_id, item_id, behaviour, horizon_days, position (1 = the user's first),
        score, probability, generators (names), sorted by user, behaviour, position.
    """
    names = list(state.material.config.candidates.budgets)
    inputs = state.inputs
    frames = []
    for frame, model in zip(scored, models, strict=True):
        order: Floats = frame.get_column("order").to_numpy()
        user, item = frame.get_column("user"), frame.get_column("item")
        frames.append(
            frame.select(
                inputs.users.get_column("user_id").gather(user),
                inputs.items.get_column("item_id").gather(item),
                behaviour=pl.lit(model.behaviour),
                horizon_days=pl.lit(model.horizon_days, dtype=pl.Int32),
                position=pl.Series(positions(frame, order)),
                score="score",
                probability="probability",
                generators=_names(frame.get_column("proposed_by"), names),
            )
        )
    return pl.concat(frames).sort("user_id", "behaviour", "position")


def _names(bits: pl.Series, names: list[str]) -> pl.Series:
    """The names whose bit is set, as a list for each row."""
    distinct = bits.unique().sort()
    lists = [[n for place, n in enumerate(names) if value >> place & 1] for value in distinct]
    wanted = pl.DataFrame({"bits": distinct, "names": pl.Series(lists, dtype=pl.List(pl.String))})
    joined = pl.DataFrame({"bits": bits}).join(wanted, on="bits", how="left", maintain_order="left")
    return joined.get_column("names")
