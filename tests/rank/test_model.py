import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
import pytest
from growing import PARAMETERS
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from rank.calibrate import Calibration
from rank.examples import Example
from rank.labels import weights
from rank.model import Model
from rank.trees import (
    SEEDS_APART,
    TooFewPositives,
    _parameters,
    grow,
    try_loading,
)


def simulated(n: int, seed: int) -> tuple[Example, np.ndarray]:
    """Rows whose true probabilities are known: about one in twelve happens."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, 4)).astype(np.float32)
    truth = expit(-3.2 + 1.2 * table[:, 0] - 0.8 * table[:, 1])
    table[rng.random(n) < 0.1, 3] = np.nan
    features = pl.DataFrame(table, schema=[f"f{i}" for i in range(4)])
    users = np.arange(n, dtype=np.int32) // 20
    return Example(features, users, rng.random(n) < truth, np.ones(n, np.float32)), truth


def thinned(example: Example, share: float, seed: int = 5) -> Example:
    drawn = np.random.default_rng(seed).random(len(example.happened)) < share
    return weighted(example, drawn, shown=np.zeros_like(drawn), share=share)


def weighted(example: Example, drawn: np.ndarray, *, shown: np.ndarray, share: float) -> Example:
    weight = weights(example.happened, drawn=drawn, shown=shown, share=share)
    return replace(example, weight=weight)


def trained(share: float = 1.0, n: int = 2_000, **changes: int) -> Model:
    parameters = replace(PARAMETERS, **changes)
    examples = [thinned(simulated(n, seed)[0], share) for seed in (1, 2, 3)]
    return Model(
        behaviour="buy",
        horizon_days=7,
        classifier=grow(examples[:2], examples[2:], objective="binary", parameters=parameters),
        ranker=grow(examples[:2], examples[2:], objective="lambdarank", parameters=parameters),
        negative_share=share,
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return trained(n=4_000).calibrated(Calibration(slope=0.9, intercept=-0.2), 0.31)


def test_learns_what_is_to_be_learnt(model: Model) -> None:
    test, truth = simulated(20_000, 9)
    score = model.log_odds(test.features, threads=1)
    best = roc_auc_score(test.happened, truth)
    assert roc_auc_score(test.happened, score) > best - 0.02
    assert np.corrcoef(score, np.log(truth / (1 - truth)))[0, 1] > 0.9


def test_a_leaf_needs_positives_not_rows_where_they_are_rare() -> None:
    """Nothing tells who will: everybody's probability is one in a thousand."""
    rate, rng = 0.001, np.random.default_rng(0)

    def chance() -> Example:
        features = pl.DataFrame(rng.normal(size=(40_000, 4)).astype(np.float32))
        happened = rng.random(40_000) < rate
        return Example(features, np.arange(40_000, dtype=np.int32), happened, np.ones(40_000, "f4"))

    train, told = [chance(), chance()], {}
    for least in (0.001, 10.0):
        parameters = replace(PARAMETERS, max_rounds=3, min_positives_per_leaf=least)
        trees = grow(train, [], objective="binary", parameters=parameters)
        told[least] = expit(trees.score(chance().features, threads=1)).max()
    assert told[10.0] < 3 * rate
    assert told[0.001] > 10 * rate


def test_the_order_follows_the_part_that_it_is_told_to(model: Model) -> None:
    features = simulated(50, 9)[0].features
    log_odds = model.log_odds(features, threads=1)
    ranked = model.order(features, log_odds, threads=1)
    assert ranked.tolist() == model.ranker.score(features, threads=1).tolist()
    classified = replace(model, ordered_by="classifier").order(features, log_odds, threads=1)
    assert classified.tolist() == log_odds.tolist() != ranked.tolist()


def test_thinned_negatives_do_not_move_the_probabilities() -> None:
    test, truth = simulated(20_000, 9)
    whole, tenth = (trained(share, n=20_000) for share in (1.0, 0.1))
    means = [expit(m.log_odds(test.features, threads=1)).mean() for m in (whole, tenth)]
    assert means == pytest.approx([truth.mean()] * 2, rel=0.08)
    uncorrected = replace(tenth, negative_share=1.0)
    assert expit(uncorrected.log_odds(test.features, threads=1)).mean() > 3 * truth.mean()


def test_negatives_that_were_shown_are_all_kept_and_move_no_probability() -> None:
    """Those of the likeliest pairs are shown: counted in full they would drag them down."""
    share, test = 0.1, simulated(20_000, 9)
    found = {}
    for name, full in (("fair", share), ("naive", 1.0)):
        examples = []
        for seed in (1, 2, 3):
            example, truth = simulated(20_000, seed)
            shown, rng = truth > 0.15, np.random.default_rng(seed + 10)
            drawn = rng.random(20_000) < share
            fair = weighted(example, drawn, shown=shown, share=share)
            assert (fair.weight[shown] > 0).all()
            assert fair.weight.sum() == pytest.approx(
                example.happened.sum() + share * (~example.happened).sum(), rel=0.05
            )
            both = shown & ~example.happened
            examples.append(replace(fair, weight=np.where(both, np.float32(full), fair.weight)))
        trees = grow(examples[:2], examples[2:], objective="binary", parameters=PARAMETERS)
        model = Model("buy", 7, trees, trees, negative_share=share)
        likely = test[1] > 0.15
        told = expit(model.log_odds(test[0].features, threads=1))
        found[name] = (told[likely].mean() / test[1][likely].mean(), told.mean() / test[1].mean())
    assert found["fair"] == pytest.approx((1.0, 1.0), abs=0.08)
    assert found["naive"][0] < 0.5


def test_weights_of_one_are_no_weights() -> None:
    example, _ = simulated(2_000, 1)
    trees = grow([example], [], objective="binary", parameters=PARAMETERS)
    plain = lightgbm.Dataset(example.features.to_numpy(), example.happened.astype(np.float32))
    given = lightgbm.Booster(model_str=trees.text)
    options = _parameters("binary", PARAMETERS)
    again = lightgbm.train(options, plain, num_boost_round=PARAMETERS.max_rounds)
    assert np.array_equal(*(b.predict(example.features.to_numpy()) for b in (given, again)))


def test_one_and_two_threads_grow_the_same_trees() -> None:
    one, two = (trained(threads=threads, max_rounds=10) for threads in (1, 2))
    assert one == two
    assert trained(seed=2, max_rounds=10).classifier != one.classifier
    test = simulated(500, 9)[0].features
    scores = [one.log_odds(test, threads=threads).tobytes() for threads in (1, 2)]
    assert scores[0] == scores[1]


def test_no_rows_have_no_scores(model: Model) -> None:
    score = model.log_odds(simulated(5, 1)[0].features[:0], threads=1)
    assert model.calibration(score).shape == (0,)


def test_columns_are_found_by_name(model: Model) -> None:
    test = simulated(50, 9)[0].features
    mixed = test.select("f3", "f1", "f0", "f2", unused=pl.lit(1.0))
    assert np.array_equal(model.log_odds(mixed, threads=1), model.log_odds(test, threads=1))


def test_growing_stops_early_and_keeps_the_best() -> None:
    noise = simulated(500, 4)[0]
    noise = replace(noise, happened=np.random.default_rng(0).random(500) < 0.08)
    stop = simulated(2_000, 3)[0]
    changed = replace(PARAMETERS, max_rounds=200, learning_rate=0.05)
    trees = grow([noise], [stop], objective="binary", parameters=changed)
    booster = lightgbm.Booster(model_str=trees.text)
    rounds = range(1, booster.num_trees() + 1)
    losses = [
        log_loss(stop.happened, booster.predict(stop.features.to_numpy(), num_iteration=n))
        for n in rounds
    ]
    assert int(np.argmin(losses)) == len(losses) - 1 < 100
    assert trees.rounds == len(losses)


def test_without_a_window_to_stop_on_all_rounds_are_grown() -> None:
    example, _ = simulated(500, 1)
    changed = replace(PARAMETERS, max_rounds=7)
    assert grow([example], [], objective="binary", parameters=changed).rounds == 7


def test_what_is_called_after_each_tree_can_end_the_growing() -> None:
    class Enough(Exception):
        pass

    grown = []

    def on_tree() -> None:
        grown.append(None)
        if len(grown) == 3:
            raise Enough

    rows, _ = simulated(500, 1)
    with pytest.raises(Enough):
        grow([rows], [], objective="binary", parameters=PARAMETERS, on_tree=on_tree)
    assert len(grown) == 3


def test_each_objective_learns_from_its_rows() -> None:
    example, _ = simulated(6, 1)
    example = replace(
        example,
        users=np.array([0, 0, 1, 1, 2, 2], np.int32),
        happened=np.array([False, True, False, False, True, False]),
        weight=np.array([0, 1, 1, 0, 1, 0.2], np.float32),
    )
    assert example.rows("binary").tolist() == [False, True, True, False, True, True]
    assert example.rows("lambdarank").tolist() == [True, True, False, False, True, True]


def test_the_order_is_learnt_where_users_differ_in_level() -> None:
    """What matters within a user is hidden in a level that differs between users."""
    rng = np.random.default_rng(0)

    def lists(seed: int) -> Example:
        n = 4_000
        users = np.arange(n, dtype=np.int32) // 20
        better = np.random.default_rng(seed).normal(size=n)
        level = np.repeat(rng.normal(size=n // 20) * 5, 20)
        first = better == np.repeat(np.maximum.reduceat(better, np.arange(0, n, 20)), 20)
        features = pl.DataFrame({"better": better.astype(np.float32), "level": level})
        return Example(features.cast(pl.Float32), users, first, np.ones(n, np.float32))

    ranker = grow([lists(1)], [lists(2)], objective="lambdarank", parameters=PARAMETERS)
    test = lists(3)
    score = ranker.score(test.features, threads=1).reshape(-1, 20)
    found = score.argmax(axis=1) == test.happened.reshape(-1, 20).argmax(axis=1)
    assert found.mean() > 0.9


def test_rankers_are_added_up() -> None:
    train, stop = simulated(2000, 1)[0], simulated(2000, 2)[0]
    growing = partial(grow, [train], [stop], objective="lambdarank")
    seeds = [PARAMETERS.seed + n * SEEDS_APART for n in range(3)]
    alone = [growing(parameters=replace(PARAMETERS, seed=seed)) for seed in seeds]
    assert len({trees.text for trees in alone}) == 3
    together = growing(parameters=replace(PARAMETERS, rankers=3))
    assert together.rounds == sum(trees.rounds for trees in alone)
    assert try_loading((together.text,)) is None
    test = simulated(500, 3)[0].features
    scores = [trees.score(test, threads=1) for trees in alone]
    np.testing.assert_allclose(together.score(test, threads=1), sum(scores), rtol=0, atol=1e-12)
    loaded = together.booster.predict(test.to_numpy())
    np.testing.assert_allclose(loaded, sum(scores), rtol=0, atol=1e-12)
    three = replace(PARAMETERS, rankers=3)  # the probability is that of one classifier
    one, other = (
        grow([train], [stop], objective="binary", parameters=p) for p in (PARAMETERS, three)
    )
    assert one == other


def test_save_and_load(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "models")
    again = Model.load(tmp_path / "models", "buy")
    assert again == model
    test = simulated(200, 9)[0].features
    assert np.array_equal(again.log_odds(test, threads=1), model.log_odds(test, threads=1))


def test_names_of_attributes_outlive_a_round_trip(tmp_path: Path) -> None:
    example, _ = simulated(500, 1)
    names = ["item_größe", "item_net weight", "item_価格", "user_a_b"]
    example = replace(example, features=example.features.rename(lambda n: names[int(n[1])]))
    trees = grow([example], [example], objective="binary", parameters=PARAMETERS)
    Model("buy", 7, classifier=trees, ranker=trees, negative_share=1.0).save(tmp_path)
    again = Model.load(tmp_path, "buy")
    assert again.classifier.features == tuple(names)
    assert np.isfinite(again.log_odds(example.features, threads=1)).all()


def test_trees_that_lightgbm_refuses_are_found_in_a_process_of_their_own(model: Model) -> None:
    good, half = model.classifier.text, model.ranker.text[: len(model.ranker.text) // 2]
    assert try_loading((good, model.ranker.text)) is None
    assert try_loading((good, half))
    assert try_loading(("no trees",))


def test_signals_wait_in_the_process_that_tries_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "import signal, sys; sys.exit(str(sorted(signal.pthread_sigmask(0, ()))))"
    monkeypatch.setattr("rank.trees._LOAD_EACH", asked)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    said = try_loading(("whatever",))
    assert said is not None
    assert "SIGTERM" in said
    assert "SIGINT" in said
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("empty", ["training windows", "early-stopping window"])
def test_too_few_positives_names_the_window(empty: str) -> None:
    full = simulated(200, 1)[0]
    none = replace(full, happened=np.zeros(200, bool))
    examples = ([none], [full]) if empty == "training windows" else ([full], [none])
    with pytest.raises(TooFewPositives, match=f"no candidate of the {empty}"):
        grow(*examples, objective="lambdarank", parameters=PARAMETERS)
