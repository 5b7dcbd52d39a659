"""Which models are kept, and how they are calibrated: from what they said of windows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import polars as pl

from jobs.config import Config
from jobs.evaluation import Baseline, calibrated_baseline
from jobs.state import State
from rank.bootstrap import loss_difference
from rank.calibrate import Calibration
from rank.metrics import best_f1_threshold, placed, positions, ranking_metrics
from rank.model import Model

CONTEST = {
    "behaviour": pl.String,
    "champion": pl.String,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "worse": pl.Boolean,
}


class Calibrated(NamedTuple):
    """New models, then the champion's, calibrated on one window, as the baselines are."""

    models: list[Model]
    baselines: list[dict[str, Baseline]]


def calibrate_all(
    config: Config, models: Sequence[Model], outcomes: Sequence[pl.LazyFrame], state: State
) -> Calibrated:
    """Calibrate models on a window; the baselines beside the new ones, which come first.

    Args:
        config: the effective configuration.
        models: the new ones, then the champion's.
        outcomes: aligned to them; see `jobs.outcomes.outcomes_of`.
        state: of the window.
    """
    of_new = outcomes[: len(config.predict)]
    return Calibrated(
        models=[
            _ordered(calibrate(model, outcome), outcome, state)
            for model, outcome in zip(models, outcomes, strict=True)
        ],
        baselines=[
            {
                name: calibrated_baseline(outcome.select(name, "happened").collect(), name)
                for name in config.training.baselines
            }
            for outcome in of_new
        ],
    )


class Judged(NamedTuple):
    """The models that are kept, and what they said of the test window."""

    models: list[Model]
    outcomes: list[pl.LazyFrame]
    contest: pl.DataFrame

    @property
    def by_behaviour(self) -> dict[str, pl.LazyFrame]:
        """The outcomes by what is predicted."""
        return {m.behaviour: o for m, o in zip(self.models, self.outcomes, strict=True)}


def judge(
    config: Config,
    models: list[Model],
    outcomes: list[pl.LazyFrame],
    *,
    champion: str | None,
) -> Judged:
    """The new models, or all of the champion's where one of the new ones is worse.

    Args:
        config: the effective configuration.
        models: calibrated: the new ones, then the champion's.
        outcomes: of the test window, aligned to them.
        champion: its version; None where there is none.
    """
    n = len(config.predict)
    contest = _contest(champion, models[:n], outcomes, seed=config.training.seed)
    if contest["worse"].any():
        return Judged(models[n:], outcomes[n:], contest)
    return Judged(models[:n], outcomes[:n], contest)


def _contest(
    champion: str | None, grown: list[Model], outcomes: list[pl.LazyFrame], *, seed: int
) -> pl.DataFrame:
    """Each behaviour's loss of the new trees over that of the champion's; no rows without one.

    Args:
        champion: the version of those that come after the new ones in `outcomes`.
        grown: the new models.
        outcomes: of the new models, then of the champion's, on the test window.
        seed: of the bootstrap.

    Returns:
        behaviour, champion (its version), difference (nats a pair), low, high (95% of the
        bootstrap over users), worse (whether all of it is above zero).
    """
    if champion is None:
        return pl.DataFrame(schema=CONTEST)
    rows = []
    for model, *contestants in zip(grown, outcomes, outcomes[len(grown) :], strict=False):
        new, old = (one.select("user", "happened", "probability").collect() for one in contestants)
        difference, low, high = loss_difference(
            new.get_column("user").to_numpy(),
            new.get_column("happened").to_numpy(),
            new.get_column("probability").to_numpy(),
            old.get_column("probability").to_numpy(),
            seed=seed,
        )
        rows.append((model.behaviour, champion, difference, low, high, low > 0))
    return pl.DataFrame(rows, CONTEST, orient="row")


def calibrate(model: Model, outcome: pl.LazyFrame) -> Model:
    """The same model with the calibration and the threshold that fit what happened."""
    score, happened = (
        column.to_numpy() for column in outcome.select("score", "happened").collect()
    )
    calibration = Calibration.fit(score, happened)
    threshold = best_f1_threshold(happened, calibration(score))
    return model.calibrated(calibration, threshold)


def _ordered(model: Model, outcome: pl.LazyFrame, state: State) -> Model:
    """The same, ordered by its classifier where that orders the window's lists better.

    Where few users have a positive, a ranker learns more of chance than of order.
    """
    targets = state.material.targets(model.behaviour, state.as_of)
    said = outcome.select("user", "item", "order", "score").collect()
    by_ranker, by_classifier = (
        ranking_metrics(placed(targets, said, positions(said, said.get_column(name).to_numpy())))
        for name in ("order", "score")
    )
    better = by_classifier["ndcg@10"] > by_ranker["ndcg@10"]
    return replace(model, ordered_by="classifier") if better else model
