"""The real transformer in a world where one word of the item decides, whoever the user is."""

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from embed.classifier import Labelled, PairClassifier, fit_classifier

USERS = ("tea. mug", "saw. drill", "novel. atlas", "soap. towel")
OLD, NEW = ("lamp", "chair", "kettle", "rug", "clock"), ("vase", "mirror", "shelf")


def world(n: int, seed: int, goods: tuple[str, ...] = OLD) -> Labelled:
    """Red things are wanted nine times in ten, blue ones once in ten."""
    rng = np.random.default_rng(seed)
    red = rng.random(n) < 0.5
    items = zip(np.where(red, "red", "blue"), rng.choice(goods, n), strict=True)
    pairs = [(str(u), f"{c} {g}") for u, (c, g) in zip(rng.choice(USERS, n), items, strict=True)]
    return Labelled(pairs, rng.random(n) < np.where(red, 0.9, 0.1))


@pytest.fixture(scope="module")
def fitted() -> PairClassifier:
    return fit_classifier(world(240, 0), world(60, 1), seed=0, epochs=2)


def test_a_rule_of_the_text_holds_for_items_that_nobody_has_seen(fitted: PairClassifier) -> None:
    held = world(100, 2, NEW)
    assert roc_auc_score(held.happened, fitted.score(held.pairs)) > 0.8  # the rule itself: 0.9
    learnt = world(240, 0)
    wanted = Counter(item for (_, item), yes in zip(*vars(learnt).values(), strict=True) if yes)
    popularity = [wanted[item] for _, item in held.pairs]
    assert roc_auc_score(held.happened, popularity) == 0.5


def test_it_stops_where_later_pairs_get_no_better(fitted: PairClassifier) -> None:
    assert fitted.losses[0] == pytest.approx(np.log(2), abs=0.1)
    assert min(fitted.losses) < 0.6
    later = world(40, 3)
    contrary = Labelled(later.pairs, ~later.happened)
    stopped = fit_classifier(world(120, 0), contrary, seed=0, epochs=8)
    *falling, last = stopped.losses
    assert len(stopped.losses) < 9
    assert last >= falling[-1] == min(falling)
    # The weights are those of the best epoch, not of the last.
    signed = np.where(contrary.happened, -1.0, 1.0) * stopped.score(contrary.pairs)
    assert np.logaddexp(0.0, signed).mean() == pytest.approx(falling[-1], abs=1e-6)


def test_the_same_seed_gives_the_same_bits(fitted: PairClassifier) -> None:
    scores = []
    for seed in (0, 0, 1):
        again = fit_classifier(world(32, 0), world(8, 1), seed=seed, epochs=1)
        scores.append(again.score(world(8, 2).pairs))
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
    assert len(fitted.score([])) == 0
