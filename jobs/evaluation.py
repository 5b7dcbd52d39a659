"""How trained models did on the test window: metrics by segment, and what was missed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from index.misses import ALL, account
from jobs.bert import BERT
from jobs.state import State
from rank.calibrate import Calibration, CannotCalibrate, Floats
from rank.metrics import (
    PAIR,
    Labels,
    best_f1_threshold,
    placed,
    positions,
    probability_metrics,
    ranking_metrics,
)
from rank.model import Model
from rank.reliability import bin_ratios, reliability

# The head of the items holds this share of the events, by Pareto's rule; the rest is long tail.
HEAD_SHARE = 0.8
# Recall is reported for caps of candidates per user of these lengths.
CAPS = (10, 20, 50, 100, 200, 500, 1000)
# What is shown of a list; choosing the best pairs chooses those that are overestimated too.
LISTED = 10
# The users whose pairs the baseline `bert` has read.
SAMPLE = "sampled_users"

# model, segment, metric, value
Row = tuple[str, str, str, float]
# segment -> which pairs, and which targets, belong to it
Segments = dict[str, tuple[Labels, Labels]]


@dataclass(frozen=True)
class Baseline:
    """A calibrated rule that the models are measured against."""

    calibration: Calibration
    threshold: float


def calibrated_baseline(outcome: pl.DataFrame, name: str) -> Baseline:
    """A baseline's column of the outcome, calibrated on the same window as the models.

    Raises:
        CannotCalibrate: the sampled users have one outcome only.
    """
    outcome = outcome.filter(pl.col(name).is_not_nan())
    happened = outcome.get_column("happened").to_numpy()
    score = _baseline_score(outcome, name)
    try:
        calibration = Calibration.fit(score, happened)
    except CannotCalibrate as error:
        raise CannotCalibrate(f"baseline {name!r}: {error}, or more training.bert_users") from None
    return Baseline(calibration, best_f1_threshold(happened, calibration(score)))


def candidate_misses(state: State) -> pl.DataFrame:
    """What each generator made of everything that happened in the window; nothing is left out.

    Returns:
        behaviour, as_of (the window's), user_id, item_id, generator, rank, reason; see
        `index.misses.account`.
    """
    config, inputs = state.material.config, state.inputs
    names = [wanted.behaviour for wanted in config.predict]
    targets = {name: state.material.targets(name, state.as_of) for name in names}
    told = _told(state, pl.concat(targets.values()))
    named = told.with_columns(
        inputs.users.get_column("user_id").gather(told.get_column("user")),
        inputs.items.get_column("item_id").gather(told.get_column("item")),
        as_of=pl.lit(state.as_of),
    )
    columns = ("as_of", "user_id", "item_id", "generator", "rank", "reason")
    return pl.concat(
        named.join(pairs, on=["user", "item"], how="semi", maintain_order="left").select(
            pl.lit(name).alias("behaviour"), *columns
        )
        for name, pairs in targets.items()
    )


def _told(state: State, targets: pl.DataFrame) -> pl.DataFrame:
    """The account of the targets, one shard of users at a time."""
    options = state.material.config.candidates
    return pl.concat(
        account(
            state.snapshot,
            targets.filter(pl.col("user").is_between(users[0], users[-1])),
            budgets=options.budgets,
            per_user=options.per_user,
        )
        for users in state.shards()
    )


@dataclass(frozen=True)
class Evaluation:
    """One behaviour in a window, beside the baselines; see docs/tables.md.

    Attributes:
        metrics: behaviour, model, segment, metric, value.
        calibration: behaviour, model, segment, and the columns of
            `rank.reliability.reliability`.
    """

    metrics: pl.DataFrame
    calibration: pl.DataFrame


def evaluate_window(
    state: State,
    model: Model,
    baselines: Mapping[str, Baseline],
    outcome: pl.LazyFrame,
    misses: pl.DataFrame,
) -> Evaluation:
    """Hold probabilities and lists against what happened, segment by segment.

    Args:
        state: the window.
        model: calibrated on an earlier one.
        baselines: likewise, by name.
        outcome: every candidate, scored, with `happened` and a column for each baseline.
        misses: `candidate_misses` of the window.
    """
    behaviour = pl.lit(model.behaviour).alias("behaviour")
    mine = misses.filter(pl.col("behaviour") == model.behaviour)
    rows: list[Row] = []
    bins = []
    for view in _views(state, model, baselines, outcome):
        rows += [(view.model, view.segment, metric, value) for metric, value in _metrics(view)]
        named = (pl.lit(view.model).alias("model"), pl.lit(view.segment).alias("segment"))
        found = reliability(view.happened, view.probability)
        if len(found):
            worst = bin_ratios(found).items()
            rows += [(view.model, view.segment, metric, value) for metric, value in worst]
        bins.append(found.select(behaviour, *named, pl.all()))
    rows += _recall(mine, per_user=state.material.config.candidates.per_user)
    metrics = pl.DataFrame(rows, ["model", "segment", "metric", "value"], orient="row")
    return Evaluation(metrics.select(behaviour, pl.all()), pl.concat(bins))


@dataclass(frozen=True)
class _View:
    """What one model said of one segment.

    Attributes:
        model: `nightrank` or a baseline.
        segment: see docs/tables.md.
        happened: (n,) outcomes of the segment's pairs, the least probable first.
        probability: (n,) aligned.
        threshold: "yes" from here on.
        places: the segment's targets, as of `rank.metrics.placed` among all candidates.
    """

    model: str
    segment: str
    happened: Labels
    probability: Floats
    threshold: float
    places: pl.DataFrame


def _views(
    state: State, model: Model, baselines: Mapping[str, Baseline], outcome: pl.LazyFrame
) -> Iterator[_View]:
    targets = state.material.targets(model.behaviour, state.as_of)
    names = ("nightrank", *baselines)
    pairs = outcome.select("user", "item").collect()
    common = segments(state.inputs.events, pairs, targets)
    generators = state.material.config.candidates.budgets
    common |= proposals(outcome.select("proposed_by").collect(), generators, targets)
    if BERT in baselines:
        common[SAMPLE] = _sampled(outcome.select("user", BERT).collect(), targets)
    lists = {name: _list(outcome, name, pairs, targets) for name in names}
    del pairs  # of all users, as what follows
    happened = _column(outcome, "happened")
    for name in names:
        probability, threshold = _said(outcome, model, baselines.get(name), name)
        places, listed = lists[name]
        parts = common | {f"top_{LISTED}": (listed, _none(targets))}
        if name == BERT:
            parts = {SAMPLE: common[SAMPLE]}
        # Sorted once: what sorts a part of it again, as the area under a curve does, is then fast.
        ascending = np.argsort(probability, kind="stable")
        followed, sure = happened[ascending], probability[ascending]
        del probability
        for segment, (of_pairs, wanted) in parts.items():
            kept = of_pairs[ascending]
            reached = places.filter(pl.Series(wanted))
            yield _View(name, segment, followed[kept], sure[kept], threshold, reached)


def _list(
    outcome: pl.LazyFrame, name: str, pairs: pl.DataFrame, targets: pl.DataFrame
) -> tuple[pl.DataFrame, Labels]:
    """Where the targets are in the lists of the model or a baseline; what is shown of those."""
    if name == "nightrank":
        order = _column(outcome, "order")
    else:
        order = _baseline_score(outcome.select(name).collect(), name)
    place = positions(pairs, order)
    return placed(targets, pairs, place), place <= LISTED


def _said(
    outcome: pl.LazyFrame, model: Model, baseline: Baseline | None, name: str
) -> tuple[Floats, float]:
    """Probabilities and the threshold: of the model or a baseline."""
    if baseline is None:
        return _column(outcome, "probability"), model.threshold
    score = _baseline_score(outcome.select(name).collect(), name)
    return baseline.calibration(score), baseline.threshold


def _column(outcome: pl.LazyFrame, name: str) -> NDArray[Any]:
    return outcome.select(name).collect().to_series().to_numpy()


def _metrics(view: _View) -> Iterable[tuple[str, float]]:
    """Of probabilities where there are pairs, of lists where there are targets."""
    values: dict[str, float] = {}
    if len(view.happened):
        values |= probability_metrics(view.happened, view.probability, threshold=view.threshold)
    if len(view.places):
        values |= ranking_metrics(view.places)
    return values.items()


def proposals(outcome: pl.DataFrame, generators: Iterable[str], targets: pl.DataFrame) -> Segments:
    """The candidates that each generator proposed, alone or with others; none of the targets.

    Args:
        outcome: (n,) `proposed_by`, as of `jobs.scoring.proposed_by`.
        generators: their names, in the order of the bits.
        targets: (m,) of which recall by generator knows more.

    Returns:
        By `generator:<name>`, (n,) and (m,) flags.
    """
    bits = outcome.get_column("proposed_by").to_numpy()
    return {
        f"generator:{name}": ((bits >> np.uint32(place) & 1).astype(bool), _none(targets))
        for place, name in enumerate(generators)
    }


def _sampled(outcome: pl.DataFrame, targets: pl.DataFrame) -> tuple[Labels, Labels]:
    """The pairs that `bert` has read, and the targets of their users."""
    read = outcome.get_column(BERT).is_not_nan()
    users = outcome.filter(read).select("user")
    return read.to_numpy(), _among(targets, users)


def _none(targets: pl.DataFrame) -> Labels:
    return np.zeros(len(targets), dtype=bool)


def segments(events: pl.DataFrame, pairs: pl.DataFrame, targets: pl.DataFrame) -> Segments:
    """What is measured apart: cold from warm, new from repeated, long tail from head.

    Args:
        events: `user`, `item` of all before the window; none: cold, or new.
        pairs: (n,) `user`, `item` of the candidates.
        targets: (m,) likewise, of what happened.

    Returns:
        By segment, (n,) and (m,) flags; those with a colon come in twos that share out `all`.
    """
    found = {"all": (np.ones(len(pairs), dtype=bool), np.ones(len(targets), dtype=bool))}
    splits: Mapping[tuple[str, str], pl.DataFrame] = {
        ("user:warm", "user:cold"): events.select("user"),
        ("item:warm", "item:cold"): events.select("item"),
        ("pair:repeat", "pair:new"): events.select("user", "item"),
        ("item:head", "item:long_tail"): head(events),
    }
    for (inside, outside), known in splits.items():
        of_pairs, of_targets = _among(pairs, known), _among(targets, known)
        found[inside] = of_pairs, of_targets
        found[outside] = ~of_pairs, ~of_targets
    return found


def head(events: pl.DataFrame) -> pl.DataFrame:
    """`item`: the most popular ones that together hold `HEAD_SHARE` of the events, ties by item.

    >>> head(pl.DataFrame({"item": [7, 7, 7, 3, 5]})).get_column("item").to_list()
    [7, 3]
    """
    counts = events.group_by("item").len().sort("len", "item", descending=[True, False])
    before = pl.col("len").cum_sum() - pl.col("len")
    return counts.filter(before < HEAD_SHARE * pl.col("len").sum()).select("item")


def _among(frame: pl.DataFrame, known: pl.DataFrame) -> Labels:
    """(n,) whether each row's values of the columns of `known` are a row of it."""
    key = PAIR if len(known.columns) == 2 else pl.col(known.columns)
    marked = known.select(key=key).unique().with_columns(among=True)
    joined = frame.select(key=key).join(marked, on="key", how="left", maintain_order="left")
    return joined.get_column("among").fill_null(False).to_numpy()


def _recall(misses: pl.DataFrame, *, per_user: int) -> list[Row]:
    """Shares of targets: that each generator proposed, alone or not; that shorter lists hold."""
    rank = misses.filter(pl.col("generator") == ALL).get_column("rank").to_numpy()
    rows: list[Row] = [
        ("nightrank", "all", f"recall@{cap}", float(np.mean(rank <= cap)))
        for cap in CAPS
        if cap <= per_user and len(rank)
    ]
    proposed = pl.col("rank").is_not_null()
    alone = proposed & (proposed.sum().over("user_id", "item_id") == 1)
    by_generator = (
        misses.filter(pl.col("generator") != ALL)
        .with_columns(candidate_recall=proposed, unique_recall=alone)
        .group_by("generator", maintain_order=True)
        .agg(pl.col("candidate_recall", "unique_recall").mean())
    )
    return rows + [
        ("nightrank", f"generator:{row['generator']}", metric, row[metric])
        for row in by_generator.iter_rows(named=True)
        for metric in ("candidate_recall", "unique_recall")
    ]


def _baseline_score(outcome: pl.DataFrame, name: str) -> Floats:
    """(n,) log-odds, or the logarithm of one plus the popularity."""
    values = outcome.get_column(name).to_numpy()
    return np.asarray(np.log1p(values) if name == "popularity" else values)
