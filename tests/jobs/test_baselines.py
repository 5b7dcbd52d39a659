"""The baselines of the evaluation table, through a whole training of the small shop."""

import re

import numpy as np
import polars as pl
import pytest
from nights import AS_OF, SHOP, make_material, write_night
from sklearn.metrics import log_loss, roc_auc_score

from embed import Encoder
from jobs.baselines import TEXT_GENERATORS, TEXT_GROUPS, fit_rivals, without_text
from jobs.config_sections import CandidatesConfig
from jobs.examples import examples_of
from jobs.scoring import score_shard
from jobs.state import Material, State
from jobs.training import Trained, hyperparameters, train_models
from rank.features import GROUPS
from rank.labels import labels
from rank.windows import training_windows

FEW = "[candidates]\nnearest = 10\nreviews = 5\npopular = 15\nhistory = 10\nper_user = 30\n\n"
QUICK = re.sub(r"\[candidates\].*?\n\n", FEW, SHOP, flags=re.DOTALL).replace(
    "max_rounds = 60", 'max_rounds = 20\nbaselines = ["popularity", "logistic", "no_embeddings"]'
)
BASELINES = ("popularity", "logistic", "no_embeddings")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, static_encoder: Encoder) -> Material:
    return make_material(write_night(tmp_path_factory.mktemp("rivals"), QUICK), static_encoder)


@pytest.fixture(scope="module")
def trained(material: Material) -> Trained:
    return train_models(material, AS_OF)


def test_every_baseline_is_measured_on_the_same_pairs(trained: Trained) -> None:
    everything = trained.metrics.filter(segment="all").pivot(
        "model", index=["behaviour", "metric"], values="value"
    )
    for metric in ("pairs", "positives", "base_rate", "candidate_recall"):
        same = everything.filter(metric=metric)
        assert len(same) == 2
        for name in BASELINES:
            assert (same[name] == same["nightrank"]).all()
    entropy = everything.filter(behaviour="click", metric="normalised_entropy")
    assert entropy.select(*BASELINES).max_horizontal().item() < 1
    ratio = everything.filter(behaviour="click", metric="predicted_over_observed")
    assert ratio.select(*BASELINES).to_numpy() == pytest.approx(np.ones((1, 3)), abs=0.3)


def test_figures_are_those_of_the_scored_window(material: Material, trained: Trained) -> None:
    """Baselines fitted and calibrated here anew, measured by scikit-learn."""
    from rank.calibrate import Calibration

    config, parameters = material.config, hyperparameters(material.config)
    times = training_windows(AS_OF, horizon_days=14, train=2)
    projection = material.fit_projection(times.first)
    learnt = [State(material, t, projection) for t in (*times.train, times.stop)]
    groups = learnt[0].feature_groups
    examples = [examples_of(state) for state in learnt]
    rivals = fit_rivals(config, examples, groups, parameters=parameters)
    scored = {}
    for time in (times.calibrate, times.test):
        state = State(material, time, projection)
        whole = score_shard(state, trained.models[:1], state.users, rivals=rivals)[0]
        happened = labels(whole, material.targets("click", time))
        scored[time] = whole.with_columns(happened=pl.Series(happened))
    before, now = scored[times.calibrate], scored[times.test]
    for name in ("logistic", "no_embeddings"):
        calibration = Calibration.fit(before[name].to_numpy(), before["happened"].to_numpy())
        probability = calibration(now[name].to_numpy())
        mine = trained.metrics.filter(behaviour="click", model=name, segment="all")
        values = dict(mine.select("metric", "value").iter_rows())
        assert values["log_loss"] == pytest.approx(log_loss(now["happened"], probability))
        assert values["auc"] == pytest.approx(roc_auc_score(now["happened"], probability))
        corrected = 1 / (1 + np.exp(-now[name].to_numpy()))
        assert corrected.mean() == pytest.approx(now["happened"].mean(), rel=0.4)


def test_trees_without_embeddings_have_seen_none(material: Material) -> None:
    time = training_windows(AS_OF, horizon_days=14, train=2).test
    projection = material.fit_projection(time)
    pairs = {}
    for name, rows in (("with", material), ("without", material.without_text())):
        state = State(rows, time, projection)
        kept = without_text(state.feature_groups)
        proposed = state.candidates(state.users[:60])
        pairs[name] = proposed.select("user", "item"), state.describe(proposed).select(kept)
    both = pairs["with"][0].join(pairs["without"][0], on=["user", "item"])
    assert len(both) > 500
    described = [
        p.hstack(f).join(both, on=["user", "item"]).sort("user", "item") for p, f in pairs.values()
    ]
    # What a user's list holds beside the pair changes shares and ranks, not what is known of it.
    stable = [n for n in described[0].columns if not n.startswith(("rank_", "score_", "share_"))]
    assert described[0].select(stable).equals(described[1].select(stable), null_equal=True)
    assert len(stable) > 60
    said = [n.split("_", 1)[1] for n in described[0].columns if n not in stable]
    assert set(said) == {"popular", "history", "cooccurrence"}


def test_groups_and_generators_of_text_exist() -> None:
    assert set(TEXT_GROUPS) < set(GROUPS)
    assert set(TEXT_GENERATORS) < set(CandidatesConfig.model_fields)
