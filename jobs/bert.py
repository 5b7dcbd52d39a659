"""A transformer that reads user and item as a baseline; see `training.baselines`.

It is too slow for every pair: it learns from a few of them, and is measured on a sample of users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from embed import item_texts, review_texts
from embed.classifier import Labelled, Pair, PairClassifier, fit_classifier
from jobs.config import Config
from jobs.state import State, Users
from rank.calibrate import Floats
from rank.labels import labels

BERT = "bert"
# What is read of a user: so many latest items and reviews, the start of each review.
ITEMS, REVIEWS = 5, 2
REVIEW_CHARACTERS = 300


@dataclass(frozen=True)
class Sample:
    """Pairs of one window with their texts, and how many candidates they stand for.

    Attributes:
        read: the texts, and what followed.
        positives: candidates of all users that were followed by the behaviour.
        negatives: those that were not, estimated from the sampled users.
    """

    read: Labelled
    positives: int
    negatives: float


@dataclass(frozen=True)
class Reader:
    """Reads pairs of one behaviour.

    Attributes:
        classifier: learnt from sampled pairs.
        shift: added to its log-odds: log of the share of negatives that it learnt from over that
            of positives, the closed-form correction of `rank.model.Model.log_odds`.
    """

    classifier: PairClassifier
    shift: float

    def score(self, state: State, pairs: pl.DataFrame) -> Floats:
        """(n,) log-odds of the pairs of sampled users, NaN of all others."""
        asked = pairs.get_column("user").is_in(sampled_users(state).tolist()).to_numpy()
        scores = np.full(len(pairs), np.nan)
        if not asked.any():
            return scores
        read = pair_texts(state, pairs.filter(pl.Series(asked)))
        scores[asked] = self.classifier.score(read) + self.shift
        return scores


Readers = Mapping[str, Reader]


def samples_of(state: State) -> dict[str, Sample]:
    """What is learnt from in a window, by behaviour; nothing where the baseline is off."""
    config = state.material.config
    if BERT not in config.training.baselines:
        return {}
    return {wanted.behaviour: _sample(state, wanted.behaviour) for wanted in config.predict}


def fit_readers(config: Config, windows: Sequence[Mapping[str, Sample]]) -> Readers:
    """A reader for each behaviour that there are samples of; the last window ends the learning."""
    readers = {}
    for behaviour in windows[0]:
        *train, stop = (window[behaviour] for window in windows)
        happened = np.concatenate([sample.read.happened for sample in train])
        learnt = Labelled([pair for sample in train for pair in sample.read.pairs], happened)
        classifier = fit_classifier(
            learnt, stop.read, seed=config.training.seed, device=config.encoder.device
        )
        of_negatives = (~happened).sum() / sum(sample.negatives for sample in train)
        of_positives = happened.sum() / sum(sample.positives for sample in train)
        readers[behaviour] = Reader(classifier, float(np.log(of_negatives / of_positives)))
    return readers


def sampled_users(state: State) -> Users:
    """Row positions of the users that the baseline is measured on, ascending."""
    everybody = pl.DataFrame({"user": state.users})
    chosen = _chosen(state, everybody, state.material.config.training.bert_users)
    return chosen.get_column("user").to_numpy()


def pair_texts(state: State, pairs: pl.DataFrame) -> list[Pair]:
    """(n) the text of each pair's user, as it was before `as_of`, and of its item."""
    users, items = (pairs.get_column(name) for name in ("user", "item"))
    options = state.material.config.items
    shown = items.unique().sort()
    described = item_texts(
        state.inputs.items[shown], template=options.text, max_characters=options.max_characters
    )
    of_item = dict(zip(shown, described, strict=True))
    of_user = user_texts(state, users.unique().sort().to_numpy())
    return [(of_user[user], of_item[item]) for user, item in zip(users, items, strict=True)]


def user_texts(state: State, users: Users) -> dict[int, str]:
    """By user: titles of the latest items, the latest first, then the starts of own reviews."""
    titles = item_texts(state.inputs.items, template="{title}")
    newest = state.inputs.reviews.reverse().filter(pl.col("user").is_in(users.tolist()))
    newest = newest.filter(pl.int_range(pl.len()).over("user") < REVIEWS)
    written: dict[int, list[str]] = {}
    said = review_texts(newest, max_characters=REVIEW_CHARACTERS)
    for user, text in zip(newest.get_column("user"), said, strict=True):
        written.setdefault(user, []).append(text)
    last = state.snapshot.last_items[users, :ITEMS]
    texts = {}
    for user, items in zip(users.tolist(), last, strict=True):
        done = [titles[item] for item in items if item >= 0]
        texts[user] = ". ".join(filter(None, [*done, *written.get(user, [])]))
    return texts


def _sample(state: State, behaviour: str) -> Sample:
    """Half positives, as far as there are any, and negatives of the sampled users."""
    targets = state.material.targets(behaviour, state.as_of)
    asked = sampled_users(state)
    wanted = np.union1d(asked, targets.get_column("user").to_numpy())
    parts = []
    for users in state.shards():
        if len(some := np.intersect1d(users, wanted)):
            pairs = state.candidates(some).select("user", "item")
            parts.append(pairs.filter(pl.Series(state.allowed(behaviour, pairs))))
    pairs = pl.concat(parts)
    happened = pl.Series(labels(pairs, targets))
    positives = pairs.filter(happened)
    negatives = pairs.filter(~happened & pairs.get_column("user").is_in(asked.tolist()))
    size = state.material.config.training.bert_pairs
    chosen = _chosen(state, positives, size // 2)
    others = _chosen(state, negatives, size - len(chosen))
    read = Labelled(
        pair_texts(state, pl.concat([chosen, others])),
        np.repeat([True, False], [len(chosen), len(others)]),
    )
    return Sample(read, len(positives), len(negatives) * len(state.users) / len(asked))


def _chosen(state: State, rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most so many of the rows, the first by a hash of their ids, in the order they had."""
    known = {"user": state.inputs.users, "item": state.inputs.items}
    ids = rows.select(
        known[name].get_column(f"{name}_id").gather(rows.get_column(name)) for name in rows.columns
    )
    place = ids.hash_rows(state.material.config.training.seed).to_numpy()
    return rows[np.sort(np.argsort(place, kind="stable")[:most])]
