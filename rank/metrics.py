"""How good probabilities and lists are, misses included."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.calibrate import Floats

Labels = NDArray[np.bool_]

# Probabilities are kept off 0 and 1 by this much before logarithms are taken.
EPSILON = 1e-12
BINS = 10
# One number for a user and an item: joined by one column, ten million rows take half the memory.
PAIR = pl.col("user").cast(pl.Int64) * 2**32 + pl.col("item")
# So many users' lists are sorted, and so many pairs looked up, at a time.
USERS_PLACED = 5000
PAIRS_JOINED = 1_000_000


def probability_metrics(
    happened: Labels, probability: Floats, *, threshold: float
) -> dict[str, float]:
    """Metrics of (n,) probabilities against what happened.

    Args:
        happened: (n,) outcomes.
        probability: (n,) aligned.
        threshold: "yes" from here on, for accuracy and F1; chosen on an earlier window.

    Returns:
        pairs, positives, base_rate, log_loss, normalised_entropy (log loss over that of the base
        rate; He et al., ADKDD 2014), brier, auc, calibration_error (expected, ten bins of equal
        size), predicted_over_observed, accuracy, f1. A figure that is not defined (no positive,
        or only positives) is NaN.
    """
    n, positives = len(happened), int(happened.sum())
    base_rate = positives / n if n else np.nan
    both = 0 < positives < n
    loss = log_loss(happened, probability)
    of_each = losses(np.array([True, False]), np.full(2, base_rate))
    base_loss = base_rate * of_each[0] + (1.0 - base_rate) * of_each[1]
    chosen = probability >= threshold
    return {
        "pairs": float(n),
        "positives": float(positives),
        "base_rate": base_rate,
        "log_loss": loss,
        "normalised_entropy": loss / base_loss if both else np.nan,
        "brier": float(np.mean((probability - happened) ** 2)),
        "auc": auc(happened, probability) if both else np.nan,
        "calibration_error": calibration_error(happened, probability),
        "predicted_over_observed": float(probability.sum() / positives) if positives else np.nan,
        "accuracy": float(np.mean(chosen == happened)),
        "f1": f1(happened, chosen),
    }


def f1(happened: Labels, chosen: Labels) -> float:
    """Harmonic mean of precision and recall; 0 where neither anything happened nor was chosen.

    >>> f1(np.array([True, False, False]), np.array([True, True, True]))
    0.5
    """
    both = np.count_nonzero(happened) + np.count_nonzero(chosen)
    return float(2 * np.count_nonzero(happened & chosen) / both) if both else 0.0


def log_loss(happened: Labels, probability: Floats) -> float:
    """Mean negative log-likelihood in nats.

    >>> round(log_loss(np.array([True, False]), np.array([0.5, 0.5])), 6)
    0.693147
    """
    return float(np.mean(losses(happened, probability)))


def losses(happened: Labels, probability: Floats) -> Floats:
    """(n,) negative log-likelihood of each pair in nats."""
    kept = np.clip(probability, EPSILON, 1 - EPSILON)
    logarithm = np.negative(kept)  # one array, as there may be ten million
    np.log1p(logarithm, out=logarithm)
    np.log(kept, out=logarithm, where=happened)
    return np.negative(logarithm, out=logarithm)


def auc(happened: Labels, score: Floats) -> float:
    """How often a positive is above a negative, ties counting half; both must be there.

    The area under the curve by ranks (Hanley and McNeil, Radiology, 1982).

    >>> auc(np.array([False, True, True]), np.array([0.2, 0.2, 0.9]))
    0.75
    """
    positives, n = int(happened.sum()), len(happened)
    ascending, asked = np.sort(score), score[happened]
    below, up_to = (np.searchsorted(ascending, asked, side=side) for side in ("left", "right"))
    ranks = (below + up_to + 1).sum() / 2
    return float((ranks - positives * (positives + 1) / 2) / (positives * (n - positives)))


def calibration_error(happened: Labels, probability: Floats, *, bins: int = BINS) -> float:
    """Mean absolute gap of predicted and observed share over `bins` of equal size.

    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities, AAAI 2015.

    >>> calibration_error(np.array([True, False]), np.array([0.75, 0.25]), bins=2)
    0.25
    """
    order = np.argsort(probability, kind="stable")
    gaps = [
        abs(probability[part].sum() - happened[part].sum()) for part in np.array_split(order, bins)
    ]
    return float(sum(gaps) / len(happened))


def best_f1_threshold(happened: Labels, probability: Floats) -> float:
    """The probability from which on "yes" gives the highest F1.

    Raises:
        ValueError: a probability is NaN.

    >>> best_f1_threshold(np.array([False, True, True]), np.array([0.1, 0.4, 0.9]))
    0.4
    """
    ascending, of_positives = np.sort(probability), np.sort(probability[happened])
    if np.isnan(ascending[-1]):
        raise ValueError("a probability is NaN, and no threshold can be chosen")
    if len(of_positives) == 0:
        return float(ascending[0])
    # From one positive's probability down to the next only negatives are added.
    thresholds, first = np.unique(of_positives, return_index=True)
    found = len(of_positives) - first
    precision = found / (len(ascending) - np.searchsorted(ascending, thresholds))
    recall = found / len(of_positives)
    return float(thresholds[(2 * precision * recall / (precision + recall)).argmax()])


def positions(pairs: pl.DataFrame, score: Floats) -> NDArray[np.int32]:
    """(n,) place of each pair among those of its user, 1 = highest score, ties by item.

    >>> pairs = pl.DataFrame({"user": [0, 0, 1], "item": [7, 8, 7]})
    >>> positions(pairs, np.array([0.2, 0.9, 0.1])).tolist()
    [2, 1, 1]
    """
    users, items = (pairs.get_column(name).to_numpy() for name in ("user", "item"))
    following = (users[1:] == users[:-1]) & (items[1:] > items[:-1])
    if (following | (users[1:] > users[:-1])).all():  # as candidates are
        return _of_runs(users, score)
    order = np.lexsort((items, users))
    found = np.empty(len(users), dtype=np.int32)
    found[order] = _of_runs(users[order], score[order])
    return found


def _of_runs(users: NDArray[np.int32], score: Floats) -> NDArray[np.int32]:
    """(n,) places of the scores among those of the same user, which come one after another."""
    starts = np.flatnonzero(np.append(True, users[1:] != users[:-1])[: len(users)])
    found = np.empty(len(users), dtype=np.int32)
    for first in range(0, len(starts), USERS_PLACED):
        begins, after = starts[first : first + USERS_PLACED], first + USERS_PLACED
        part = slice(begins[0], starts[after] if after < len(starts) else len(users))
        found[part] = _places(score[part], begins - begins[0])
    return found


def _places(score: Floats, starts: NDArray[np.int64]) -> NDArray[np.int32]:
    """(n,) places of the scores within runs that begin at `starts`, equal ones as they come."""
    lengths = np.diff(starts, append=len(score))
    row = np.repeat(np.arange(len(starts)), lengths)
    column = np.arange(len(score)) - starts[row]
    # a user's scores in a row; NaN comes last
    table = np.full((len(starts), lengths.max()), np.nan)
    table[row, column] = -score
    best_first = table.argsort(axis=1, kind="stable")
    places = np.empty(table.shape, dtype=np.int32)
    np.put_along_axis(places, best_first, np.arange(1, table.shape[1] + 1)[None, :], axis=1)
    return np.asarray(places[row, column])


def placed(targets: pl.DataFrame, pairs: pl.DataFrame, place: NDArray[np.int32]) -> pl.DataFrame:
    """Where the targets stand among all candidates of their users.

    Args:
        targets: distinct `user`, `item` that happened.
        pairs: candidates: `user`, `item`.
        place: (n,) aligned to `pairs`, as `positions` gives it.

    Returns:
        The targets with `place`, 1 = first; null where no generator proposed them.
    """
    reached = among(pairs.with_columns(place=pl.Series(place)), targets).select("pair", "place")
    wanted = targets.with_columns(pair=PAIR)
    return wanted.join(reached, on="pair", how="left", maintain_order="left").drop("pair")


def among(rows: pl.DataFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    """The rows whose `user` and `item` are those of a row of `wanted`, with both as `pair`."""
    keys = wanted.select(pair=PAIR)
    return pl.concat(
        rows.slice(start, PAIRS_JOINED).with_columns(pair=PAIR).join(keys, on="pair", how="semi")
        for start in range(0, max(len(rows), 1), PAIRS_JOINED)
    )


def ranking_metrics(targets: pl.DataFrame, *, k: int = 10) -> dict[str, float]:
    """Metrics of the order of each user's candidates, over users with at least one target.

    A target that no generator proposed counts as a miss.

    Args:
        targets: `user`, `item`, `place`, as `placed` gives them, or some of them.
        k: length of the list.

    Returns:
        candidate_recall (share of targets among the candidates), hr@k (share of users with a
        target in the first k), ndcg@k (Järvelin and Kekäläinen, TOIS 2002, binary gains).
    """
    place = pl.col("place")
    gain = pl.when(place <= k).then(1.0 / (place + 1).log(2.0))
    users = targets.group_by("user", maintain_order=True).agg(
        targets=pl.len(), hit=(place <= k).any(), gain=gain.sum()
    )
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    best = ideal[np.minimum(users.get_column("targets").to_numpy(), k)]
    n, found = len(users), len(targets) - targets.get_column("place").null_count()
    return {
        "candidate_recall": found / len(targets) if n else np.nan,
        f"hr@{k}": float(users.get_column("hit").to_numpy().mean()) if n else np.nan,
        f"ndcg@{k}": float((users.get_column("gain").to_numpy() / best).mean()) if n else np.nan,
    }
