"""A signal stops what takes long: the growing of trees, and the work on shards of users."""

import os
import signal
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pytest
from campaign_nights import shop
from nights import make_material, write_night

from embed import Encoder
from jobs.baselines import NO_EMBEDDINGS, fit_rivals
from jobs.config import Config
from jobs.errors import Stopped
from jobs.propensity import People, train_propensities
from jobs.signals import graceful
from jobs.state import State
from jobs.training import grow_model, hyperparameters
from rank.trees import Example


@pytest.fixture
def signalled() -> Iterator[None]:
    """A signal has come."""
    with graceful():
        os.kill(os.getpid(), signal.SIGTERM)
        yield


def configured() -> Config:
    training = {"baselines": ["popularity", NO_EMBEDDINGS]}
    return shop().model_copy(update={"training": type(shop().training)(**training)})


def window(seed: int) -> People:
    """A behaviour that a feature tells of."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=400).astype(np.float32)
    users = np.arange(400, dtype=np.int32)
    return People(
        users, pl.DataFrame({"x": x}), np.ones(400), users >= 0, {"buy": x > rng.normal(size=400)}
    )


def pairs() -> list[dict[str, Example]]:
    return [{"buy": window(seed).example("buy")} for seed in range(2)]


GROWING: dict[str, Callable[[Config], object]] = {
    "pairs": lambda config: grow_model(config, "buy", pairs()),
    "rivals": lambda config: fit_rivals(
        config, pairs(), {"x": "activity"}, parameters=hyperparameters(config)
    ),
    "people": lambda config: train_propensities(
        config, [window(seed) for seed in range(4)], parameters=hyperparameters(config)
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_growing_stops_with_the_next_tree(signalled: None, name: str) -> None:
    with pytest.raises(Stopped, match="SIGTERM"):
        GROWING[name](configured())


@pytest.mark.parametrize("name", GROWING)
def test_without_a_signal_it_goes_on(name: str) -> None:
    assert GROWING[name](configured())


def test_work_on_users_stops_with_the_next_shard(tmp_path, static_encoder: Encoder) -> None:
    night = write_night(tmp_path)
    material = make_material(night, static_encoder)
    state = State(material, night.as_of, material.fit_projection(night.as_of))
    shards = state.shards()
    assert len(next(shards)) == 100
    with graceful():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGTERM"):
            next(shards)
