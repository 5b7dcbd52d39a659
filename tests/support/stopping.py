"""What takes long, done by a process to which a SIGTERM has come."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from campaign_nights import shop
from nights import make_material, write_night

from jobs.baselines import NO_EMBEDDINGS, fit_rivals
from jobs.config import Config
from jobs.errors import Stopped, exit_code
from jobs.propensity import People, train_propensities
from jobs.signals import graceful
from jobs.state import State
from jobs.training import grow_model, hyperparameters
from rank.examples import Example


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


def pairs() -> list[dict[str, list[Example]]]:
    return [{"buy": [window(seed).example("buy")]} for seed in range(2)]


def next_shard(folder: Path) -> None:
    """The second of two shards."""
    import warm

    night = write_night(folder)
    material = make_material(night, warm.ENCODER)
    state = State(material, night.as_of, material.fit_projection(night.as_of))
    shards = state.shards()
    assert len(next(shards)) == 100
    told()
    next(shards)


GROWING: dict[str, Callable[[], object]] = {
    "pairs": lambda: grow_model(configured(), "buy", pairs()),
    "rivals": lambda: fit_rivals(
        configured(), pairs(), {"x": "activity"}, parameters=hyperparameters(configured())
    ),
    "people": lambda: train_propensities(
        configured(),
        [window(seed) for seed in range(4)],
        parameters=hyperparameters(configured()),
    ),
}


def told() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def grow(name: str) -> None:
    told()
    GROWING[name]()


def signalled(work: Callable[..., object], *arguments: object) -> None:
    """Do work as the command does, which sends its own process a signal; ends with its code."""
    try:
        with graceful():
            work(*arguments)
    except Stopped as stopped:
        sys.exit(exit_code(stopped))
