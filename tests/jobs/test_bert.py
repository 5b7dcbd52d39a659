"""The transformer as a baseline, through a whole training of the small shop."""

import re
from datetime import timedelta

import numpy as np
import pytest
from nights import AS_OF, SHOP, make_material, write_night

from embed import Encoder, item_texts, review_texts
from jobs.bert import ITEMS, REVIEWS, fit_readers, sampled_users, samples_of, user_texts
from jobs.evaluation import SAMPLE
from jobs.state import Material, State
from jobs.training import Trained, train_models

USERS, PAIRS = 12, 24
FEW = "[candidates]\npopular = 15\nper_user = 15\n\n"
QUICK = re.sub(r"\[candidates\].*?\n\n", FEW, SHOP, flags=re.DOTALL)
QUICK = re.sub(r'\[\[predict\]\]\nbehaviour = "purchase".*?\n\n', "", QUICK, flags=re.DOTALL)
QUICK = QUICK.split("[[campaign]]")[0].replace(
    "windows = 2\nmax_rounds = 60",
    'windows = 1\nmax_rounds = 10\nbaselines = ["popularity", "bert"]\n'
    f"bert_users = {USERS}\nbert_pairs = {PAIRS}",
)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, static_encoder: Encoder) -> Material:
    return make_material(write_night(tmp_path_factory.mktemp("bert"), QUICK), static_encoder)


@pytest.fixture(scope="module")
def state(material: Material) -> State:
    as_of = AS_OF - timedelta(days=14)
    return State(material, as_of, material.fit_projection(as_of))


@pytest.fixture(scope="module")
def trained(material: Material) -> Trained:
    return train_models(material, AS_OF)


def test_it_is_measured_on_sampled_users_beside_the_models(trained: Trained) -> None:
    metrics = trained.metrics.filter(behaviour="click")
    assert metrics.filter(model="bert")["segment"].unique().to_list() == [SAMPLE]
    sampled = metrics.filter(segment=SAMPLE).pivot("model", index="metric", values="value")
    for metric in ("pairs", "positives", "candidate_recall"):
        (row,) = sampled.filter(metric=metric).select("nightrank", "popularity", "bert").rows()
        assert row[0] == row[1] == row[2] > 0
    assert 0 < sampled.filter(metric="pairs")["bert"].item() <= USERS * 15
    (ratio,) = sampled.filter(metric="predicted_over_observed")["bert"]
    assert 0.3 < ratio < 3
    bins = trained.calibration.filter(model="bert")
    assert bins["segment"].unique().to_list() == [SAMPLE]


def test_a_user_is_what_they_did_and_wrote_before(state: State) -> None:
    inputs, users = state.inputs, state.users[:60]
    titles = item_texts(inputs.items, template="{title}")
    said = user_texts(state, users)
    both = 0
    for user in users.tolist():
        done = inputs.events.filter(user=user)["item"].to_list()[::-1]
        mine = inputs.reviews.filter(user=user)
        written = [t for t in review_texts(mine, max_characters=300)[::-1][:REVIEWS] if t]
        latest = [titles[item] for item in dict.fromkeys(done)][:ITEMS]
        assert said[user] == ". ".join([*latest, *written])
        both += bool(latest and written)
    assert both > 5
    assert inputs.events["ts"].max() < state.as_of


def test_shares_of_what_is_read_are_put_right(state: State) -> None:
    """Few of the negatives are read and more of the positives: the log of both shares."""
    (sample,) = samples_of(state).values()
    targets = state.material.targets("click", state.as_of)
    pairs = state.candidates(state.users).select("user", "item")
    happened = pairs.join(targets, on=["user", "item"], how="semi")
    assert sample.positives == len(happened)
    assert sample.negatives == pytest.approx(len(pairs) - len(happened), rel=0.2)
    assert sample.read.happened.sum() == PAIRS // 2
    assert len(sample.read.pairs) == PAIRS
    (reader,) = fit_readers(state.material.config, [{"click": sample}] * 2).values()
    expected = np.log((PAIRS // 2 / sample.negatives) / (PAIRS // 2 / sample.positives))
    assert reader.shift == pytest.approx(expected)


def test_who_is_sampled_depends_on_nobody_else(state: State) -> None:
    users = sampled_users(state)
    assert len(users) == USERS
    assert users.tolist() == sorted(set(users.tolist()))
    fewer = State(state.material, state.as_of, state.projection)
    fewer.__dict__["users"] = np.union1d(users, state.users[::2])
    assert np.array_equal(sampled_users(fewer), users)
