"""Trains, calibrates and tests one model for each predicted behaviour."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.baselines import Rivals, fit_rivals
from jobs.config import Config
from jobs.evaluation import calibrated_baseline, candidate_misses, evaluate_window
from jobs.implied import order_metrics
from jobs.propensity import People, people_of, train_propensities
from jobs.scoring import score_shard
from jobs.state import Material, State
from rank.bootstrap import loss_difference
from rank.calibrate import Calibration, CannotCalibrate
from rank.labels import labels
from rank.metrics import Labels, best_f1_threshold
from rank.model import Model
from rank.projection import Projection
from rank.propensity import Propensity
from rank.trees import Example, Hyperparameters, TooFewPositives, grow
from rank.windows import training_windows

OnProgress = Callable[[str], None]
# For the pairs of one shard that are learnt from: may the behaviour still come, whose they are,
# did it follow, are they in the sample.
Chosen = tuple[Labels, NDArray[np.int32], Labels, Labels]
CONTEST = {
    "behaviour": pl.String,
    "champion": pl.String,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "worse": pl.Boolean,
}


@dataclass(frozen=True)
class Trained:
    """Models for one configuration, and how they did on the test window.

    Attributes:
        as_of: when they were trained; they may score this night and later ones.
        models: one for each predicted behaviour, in the order of the configuration.
        propensities: likewise, of users whatever the item.
        projection: what compresses vectors for them.
        metrics: behaviour, model, segment, metric, value; see docs/tables.md.
        calibration: predicted against observed by behaviour, model, segment and bin; likewise.
        importance: what the trees split on; likewise.
        misses: what the generators made of all that happened in the test window; likewise.
        contest: how newly grown trees did in the test window against older ones; likewise.
    """

    as_of: datetime
    models: tuple[Model, ...]
    propensities: tuple[Propensity, ...]
    projection: Projection
    metrics: pl.DataFrame
    calibration: pl.DataFrame
    importance: pl.DataFrame
    misses: pl.DataFrame
    contest: pl.DataFrame

    @property
    def version(self) -> str:
        """Day and content: the same inputs and seed give the same version."""
        content = hashlib.sha256(repr((self.models, self.propensities)).encode())
        content.update(self.projection.mean.tobytes() + self.projection.components.tobytes())
        return f"{self.as_of:%Y%m%d}-{content.hexdigest()[:8]}"


def train_models(
    material: Material,
    as_of: datetime,
    *,
    champion: Trained | None = None,
    without: Collection[str] = (),
    on_progress: OnProgress = lambda _: None,
) -> Trained:
    """Train on the windows that are over at `as_of`, the last of which is the test.

    The metrics are of a calibration made on the window before the test. What is returned is then
    calibrated on the test window, so that it is as fresh for tonight as it was for the test.

    Args:
        material: rows before `as_of`.
        as_of: naive UTC.
        champion: trained at an earlier `as_of` with the same configuration and encoder. Its
            trees are kept, calibrated anew, where the new ones are worse on the test window.
        without: feature groups to leave out.
        on_progress: called with a line for every step.

    Raises:
        rank.trees.TooFewPositives: a window holds no example of a behaviour; names `as_of`.
        rank.calibrate.CannotCalibrate: the calibration window holds one outcome only; likewise.
    """
    try:
        return _train(material, as_of, champion, without=without, on_progress=on_progress)
    except (TooFewPositives, CannotCalibrate) as error:
        raise type(error)(f"as_of {as_of:%Y-%m-%d}: {error}") from None


def _train(
    material: Material,
    as_of: datetime,
    champion: Trained | None,
    *,
    without: Collection[str],
    on_progress: OnProgress,
) -> Trained:
    config = material.config
    windows = training_windows(
        as_of, horizon_days=config.longest_horizon_days, train=config.training.windows
    )
    if len(material.users_before(windows.first)) == 0:
        raise TooFewPositives(
            f"nobody is known before the first window, {windows.first:%Y-%m-%d}: choose a later "
            "as_of"
        )
    projection = champion.projection if champion else material.fit_projection(windows.first)

    def state(start: datetime) -> State:
        on_progress(f"window {start:%Y-%m-%d}")
        return State(material, start, projection, without=without)

    learnt = [_learnt(state(start)) for start in (*windows.train, windows.stop)]
    examples, people = [window.examples for window in learnt], [w.people for w in learnt]
    grown = [_grow(config, wanted.behaviour, examples) for wanted in config.predict]
    parameters = hyperparameters(config)
    rivals = fit_rivals(config, examples, learnt[0].groups, parameters=parameters)
    del learnt, examples
    contestants = [*grown, *(champion.models if champion else ())]
    calibrated_on = state(windows.calibrate)
    outcomes = _outcomes(calibrated_on, contestants, rivals)
    people.append(people_of(calibrated_on))
    del calibrated_on
    calibrated = [_calibrate(*both) for both in zip(contestants, outcomes, strict=True)]
    names: list[str] = list(config.training.baselines)
    baselines = [{n: calibrated_baseline(o, n) for n in names} for o in outcomes[: len(grown)]]
    tested = state(windows.test)
    outcomes = _outcomes(tested, calibrated, rivals)
    contest = _contest(champion, grown, outcomes, seed=config.training.seed)
    kept = slice(len(grown), None) if contest["worse"].any() else slice(len(grown))
    chosen = list(zip(calibrated[kept], outcomes[kept], strict=True))
    misses = candidate_misses(tested)
    evaluations = [
        evaluate_window(tested, model, baseline, outcome, misses)
        for (model, outcome), baseline in zip(chosen, baselines, strict=True)
    ]
    groups = tested.feature_groups()
    ordered = order_metrics(config, {model.behaviour: outcome for model, outcome in chosen})
    for row in ordered.filter(pl.col("metric") == "order_violations").iter_rows(named=True):
        on_progress("{behaviour} {segment}: {value:.2%} of the pairs violate it".format(**row))
    propensities, of_users = train_propensities(
        config, [*people, people_of(tested)], parameters=parameters, on_progress=on_progress
    )
    metrics = [*(evaluation.metrics for evaluation in evaluations), ordered, of_users]
    return Trained(
        as_of=as_of,
        models=tuple(_calibrate(model, outcome) for model, outcome in chosen),
        propensities=propensities,
        projection=projection,
        metrics=pl.concat(metrics),
        calibration=pl.concat(evaluation.calibration for evaluation in evaluations),
        importance=pl.concat(model.importance(groups) for model, _ in chosen),
        misses=misses,
        contest=contest,
    )


def _contest(
    champion: Trained | None, grown: list[Model], outcomes: list[pl.DataFrame], *, seed: int
) -> pl.DataFrame:
    """Each behaviour's loss of the new trees over that of the champion's; no rows without one.

    Args:
        champion: whose models come after the new ones in `outcomes`.
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
    for model, new, old in zip(grown, outcomes, outcomes[len(grown) :], strict=False):
        difference, low, high = loss_difference(
            new.get_column("user").to_numpy(),
            new.get_column("happened").to_numpy(),
            new.get_column("probability").to_numpy(),
            old.get_column("probability").to_numpy(),
            seed=seed,
        )
        rows.append((model.behaviour, champion.version, difference, low, high, low > 0))
    return pl.DataFrame(rows, CONTEST, orient="row")


class _Learnt(NamedTuple):
    """What is learnt from one window; `groups` has the group of each feature."""

    examples: dict[str, Example]
    people: People
    groups: dict[str, str]


def _learnt(state: State) -> _Learnt:
    return _Learnt(examples_of(state), people_of(state), state.feature_groups())


def examples_of(state: State) -> dict[str, Example]:
    """The candidates to learn from: positives, a sample of all, all of users with a positive."""
    config = state.material.config
    targets = {
        w.behaviour: state.material.targets(w.behaviour, state.as_of) for w in config.predict
    }
    features: list[pl.DataFrame] = []
    chosen: dict[str, list[Chosen]] = {behaviour: [] for behaviour in targets}
    for users in state.shards():
        pairs = state.candidates(users)
        asked = pairs.get_column("user").to_numpy()
        followed = {behaviour: labels(pairs, targets[behaviour]) for behaviour in targets}
        drawn = state.drawn(pairs)
        followers = [np.isin(asked, asked[happened]) for happened in followed.values()]
        kept = np.logical_or.reduce([drawn, *followers])
        features.append(state.describe(pairs.filter(kept)))
        for behaviour, happened in followed.items():
            allowed = state.allowed(behaviour, pairs)
            columns = (allowed[kept], asked[kept], happened[kept], drawn[kept])
            chosen[behaviour].append(columns)
    described = pl.concat(features)
    return {behaviour: _example(described, parts) for behaviour, parts in chosen.items()}


def _example(features: pl.DataFrame, parts: list[Chosen]) -> Example:
    use, users, happened, drawn = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Example(features.filter(pl.Series(use)), users[use], happened[use], drawn[use])


def _grow(config: Config, behaviour: str, examples: list[dict[str, Example]]) -> Model:
    *grown_on, stopped_on = (window[behaviour] for window in examples)
    horizon = config.prediction(behaviour).horizon_days
    parameters = hyperparameters(config)
    try:
        return Model(
            behaviour=behaviour,
            horizon_days=horizon,
            classifier=grow(grown_on, stopped_on, objective="binary", parameters=parameters),
            ranker=grow(grown_on, stopped_on, objective="lambdarank", parameters=parameters),
            negative_share=config.training.negative_share,
        )
    except TooFewPositives as error:
        raise TooFewPositives(
            f"{behaviour!r} within {horizon} days: {error}: choose a longer horizon_days, more "
            "candidates or a later as_of"
        ) from None


def hyperparameters(config: Config) -> Hyperparameters:
    """How trees are grown, from the configuration."""
    options = config.training
    return Hyperparameters(
        learning_rate=options.learning_rate,
        num_leaves=options.num_leaves,
        min_rows_per_leaf=options.min_rows_per_leaf,
        max_rounds=options.max_rounds,
        early_stopping_rounds=options.early_stopping_rounds,
        seed=options.seed,
        threads=config.scoring.threads,
    )


def _outcomes(state: State, models: Sequence[Model], rivals: Rivals) -> list[pl.DataFrame]:
    """For each model, all candidates of all eligible users, scored, with `happened`."""
    threads = state.material.config.scoring.threads
    shards = [
        score_shard(state, models, users, threads=threads, rivals=rivals)
        for users in state.shards()
    ]
    outcomes = []
    for model, frames in zip(models, zip(*shards, strict=True), strict=True):
        scored = pl.concat(frames)
        followed = labels(scored, state.material.targets(model.behaviour, state.as_of))
        outcomes.append(scored.with_columns(happened=pl.Series(followed)))
    return outcomes


def _calibrate(model: Model, outcome: pl.DataFrame) -> Model:
    happened = outcome.get_column("happened").to_numpy()
    score = outcome.get_column("score").to_numpy()
    calibration = Calibration.fit(score, happened)
    threshold = best_f1_threshold(happened, calibration(score))
    return model.calibrated(calibration, threshold)
