import json
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from rank.calibrate import Calibration
from rank.model import DamagedModel, Example, Hyperparameters, Model, TooFewPositives, train

PARAMETERS = Hyperparameters(
    learning_rate=0.1,
    num_leaves=7,
    min_rows_per_leaf=20,
    max_rounds=60,
    early_stopping_rounds=10,
    seed=1,
    threads=1,
)


def simulated(n: int, seed: int) -> tuple[Example, np.ndarray]:
    """Rows whose true probabilities are known: about one in twelve happens."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, 4)).astype(np.float32)
    truth = expit(-3.2 + 1.2 * table[:, 0] - 0.8 * table[:, 1])
    table[rng.random(n) < 0.1, 3] = np.nan
    features = pl.DataFrame(table, schema=[f"f{i}" for i in range(4)])
    return Example(features, rng.random(n) < truth), truth


def thinned(example: Example, share: float, seed: int = 5) -> Example:
    kept = example.happened | (np.random.default_rng(seed).random(len(example.happened)) < share)
    return Example(example.features.filter(pl.Series(kept)), example.happened[kept])


def trained(share: float = 1.0, n: int = 2_000, **changes: int) -> Model:
    return train(
        "buy",
        7,
        train=[thinned(simulated(n, seed)[0], share) for seed in (1, 2)],
        stop=thinned(simulated(n, 3)[0], share),
        negative_share=share,
        parameters=replace(PARAMETERS, **changes),
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return trained(n=4_000).calibrated(Calibration(slope=0.9, intercept=-0.2), 0.31)


def test_learns_what_is_to_be_learnt(model: Model) -> None:
    test, truth = simulated(20_000, 9)
    score = model.score(test.features, threads=1)
    best = roc_auc_score(test.happened, truth)
    assert roc_auc_score(test.happened, score) > best - 0.02
    assert np.corrcoef(score, np.log(truth / (1 - truth)))[0, 1] > 0.9


def test_thinned_negatives_do_not_move_the_probabilities() -> None:
    test, truth = simulated(20_000, 9)
    whole, tenth = (trained(share, n=20_000) for share in (1.0, 0.1))
    means = [expit(m.score(test.features, threads=1)).mean() for m in (whole, tenth)]
    assert means == pytest.approx([truth.mean()] * 2, rel=0.08)
    uncorrected = replace(tenth, negative_share=1.0)
    assert expit(uncorrected.score(test.features, threads=1)).mean() > 3 * truth.mean()


def test_one_and_two_threads_grow_the_same_trees() -> None:
    one, two = (trained(threads=threads, max_rounds=10) for threads in (1, 2))
    assert one.trees == two.trees
    assert trained(seed=2, max_rounds=10).trees != one.trees
    test = simulated(500, 9)[0].features
    scores = [one.score(test, threads=threads).tobytes() for threads in (1, 2)]
    assert scores[0] == scores[1]


def test_no_rows_have_no_scores(model: Model) -> None:
    score = model.score(simulated(5, 1)[0].features[:0], threads=1)
    assert model.calibration(score).shape == (0,)


def test_columns_are_found_by_name(model: Model) -> None:
    test = simulated(50, 9)[0].features
    mixed = test.select("f3", "f1", "f0", "f2", unused=pl.lit(1.0))
    assert np.array_equal(model.score(mixed, threads=1), model.score(test, threads=1))


def test_growing_stops_early_and_keeps_the_best() -> None:
    noise = Example(simulated(500, 4)[0].features, np.random.default_rng(0).random(500) < 0.08)
    stop = simulated(2_000, 3)[0]
    changed = replace(PARAMETERS, max_rounds=200, learning_rate=0.05)
    model = train("buy", 7, train=[noise], stop=stop, negative_share=1.0, parameters=changed)
    booster = lightgbm.Booster(model_str=model.trees)
    rounds = range(1, booster.num_trees() + 1)
    losses = [
        log_loss(stop.happened, booster.predict(stop.features.to_numpy(), num_iteration=n))
        for n in rounds
    ]
    assert int(np.argmin(losses)) == len(losses) - 1 < 100


def test_save_and_load(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "models")
    again = Model.load(tmp_path / "models", "buy")
    assert again == model
    test = simulated(200, 9)[0].features
    assert np.array_equal(again.score(test, threads=1), model.score(test, threads=1))


def test_names_of_attributes_outlive_a_round_trip(tmp_path: Path) -> None:
    example, _ = simulated(500, 1)
    names = ["item_größe", "item_net weight", "item_価格", "user_a_b"]
    example = replace(example, features=example.features.rename(lambda n: names[int(n[1])]))
    model = train(
        "buy", 7, train=[example], stop=example, negative_share=1.0, parameters=PARAMETERS
    )
    model.save(tmp_path)
    again = Model.load(tmp_path, "buy")
    assert again.features == tuple(names)
    assert np.isfinite(again.score(example.features, threads=1)).all()


@pytest.mark.parametrize("place", [0, 0.3, 0.999])
def test_a_flipped_byte_is_noticed(model: Model, tmp_path: Path, place: float) -> None:
    model.save(tmp_path)
    path = tmp_path / "buy.txt"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedModel, match=r"buy\.txt: checksum .* train again"):
        Model.load(tmp_path, "buy")


def test_incomplete_models_are_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DamagedModel, match=r"buy: no complete model: .*No such file"):
        Model.load(tmp_path, "buy")
    model.save(tmp_path)
    described = json.loads((tmp_path / "buy.json").read_text())
    for damage in ("{", "[]", json.dumps({k: v for k, v in described.items() if k != "sha256"})):
        (tmp_path / "buy.json").write_text(damage)
        with pytest.raises(DamagedModel, match="buy: no complete model"):
            Model.load(tmp_path, "buy")
    model.save(tmp_path)
    text = (tmp_path / "buy.txt").read_text()
    (tmp_path / "buy.txt").write_text(text[: len(text) // 2])
    with pytest.raises(DamagedModel, match="checksum"):
        Model.load(tmp_path, "buy")


@pytest.mark.parametrize("empty", ["training windows", "early-stopping window"])
def test_too_few_positives_names_window_behaviour_and_horizon(empty: str) -> None:
    full = simulated(200, 1)[0]
    none = replace(full, happened=np.zeros(200, bool))
    examples = ([none], full) if empty == "training windows" else ([full], none)
    expected = f"no candidate of the {empty} was followed by 'buy' within 14 days: choose a longer"
    with pytest.raises(TooFewPositives, match=expected):
        train(
            "buy",
            14,
            train=examples[0],
            stop=examples[1],
            negative_share=1.0,
            parameters=PARAMETERS,
        )
