"""Trains, calibrates and tests one model for each predicted behaviour."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from index.snapshot import Snapshot
from jobs.baselines import Rivals, fit_rivals
from jobs.bert import Readers, fit_readers, samples_of
from jobs.config import Config
from jobs.evaluation import candidate_misses, evaluate_window
from jobs.examples import examples_of, split_off
from jobs.implied import order_metrics
from jobs.judging import calibrate, calibrate_all, judge
from jobs.memory import give_back
from jobs.outcomes import outcomes_of
from jobs.propensity import People, people_of, train_propensities
from jobs.signals import stop_if_asked
from jobs.state import Material, State
from rank.calibrate import CannotCalibrate
from rank.examples import Example
from rank.model import Model
from rank.projection import Projection
from rank.propensity import Propensity
from rank.trees import Hyperparameters, TooFewPositives, grow
from rank.windows import Windows, training_windows

OnProgress = Callable[[str], None]
# What the folder of examples and scores is called, which a killed run leaves.
SCRATCH = ".training-"


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
    snapshots: dict[datetime, Snapshot] | None = None,
    scratch: Path | None = None,
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
        snapshots: of the same material, by their `as_of`: those of earlier trainings are used
            again, new ones are added.
        scratch: a folder where examples and scores may lie meanwhile; without it, where temporary
            files do.
        on_progress: called with a line for every step.

    Raises:
        rank.trees.TooFewPositives: a window holds no example of a behaviour; names `as_of`.
        rank.calibrate.CannotCalibrate: the calibration window holds one outcome only; likewise.
    """
    try:
        with TemporaryDirectory(prefix=SCRATCH, dir=scratch) as folder:
            return _train(
                material,
                as_of,
                champion,
                without=without,
                snapshots=snapshots,
                folder=Path(folder),
                on_progress=on_progress,
            )
    except (TooFewPositives, CannotCalibrate) as error:
        raise type(error)(f"as_of {as_of:%Y-%m-%d}: {error}") from None


def _train(
    material: Material,
    as_of: datetime,
    champion: Trained | None,
    *,
    without: Collection[str],
    snapshots: dict[datetime, Snapshot] | None,
    folder: Path,
    on_progress: OnProgress,
) -> Trained:
    windows, config = windows_before(material, as_of), material.config
    projection = champion.projection if champion else material.fit_projection(windows.first)

    def state(start: datetime) -> State:
        on_progress(f"window {start:%Y-%m-%d}")
        kept = {} if snapshots is None else snapshots
        return State(material, start, projection, without=without, snapshots=kept)

    grown = _grow_all(config, map(state, (*windows.train, windows.stop)), folder)
    contestants = [*grown.models, *(champion.models if champion else ())]
    before = _see(state(windows.calibrate), contestants, grown, folder / "calibrate")
    give_back()
    calibrated = calibrate_all(config, contestants, before.outcomes, before.state)
    tested, misses, groups = _test(state(windows.test), calibrated.models, grown, folder / "test")
    give_back()
    judged = judge(
        config,
        calibrated.models,
        tested.outcomes,
        champion=champion.version if champion else None,
    )
    evaluations = [
        evaluate_window(tested.state, model, baseline, outcome, misses)
        for model, outcome, baseline in zip(
            judged.models, judged.outcomes, calibrated.baselines, strict=True
        )
    ]
    propensities, of_users = train_propensities(
        config,
        [*grown.people, before.people, tested.people],
        parameters=hyperparameters(config),
        on_progress=on_progress,
    )
    of_pairs = [evaluation.metrics for evaluation in evaluations]
    ordered = order_metrics(config, judged.by_behaviour)
    return Trained(
        as_of=as_of,
        models=tuple(
            calibrate(model, outcome)
            for model, outcome in zip(judged.models, judged.outcomes, strict=True)
        ),
        propensities=propensities,
        projection=projection,
        metrics=pl.concat([*of_pairs, ordered, of_users]),
        calibration=pl.concat(evaluation.calibration for evaluation in evaluations),
        importance=pl.concat(model.importance(groups) for model in judged.models),
        misses=misses,
        contest=judged.contest,
    )


def windows_before(material: Material, as_of: datetime) -> Windows:
    """The windows that are over at `as_of`.

    Raises:
        rank.trees.TooFewPositives: nobody is known before the first of them.
    """
    config = material.config
    windows = training_windows(
        as_of, horizon_days=config.longest_horizon_days, train=config.training.windows
    )
    if len(material.users_before(windows.first)) == 0:
        raise TooFewPositives(
            f"nobody is known before the first window, {windows.first:%Y-%m-%d}: choose a later "
            "as_of"
        )
    return windows


class _Grown(NamedTuple):
    """Not yet calibrated: models, the rivals they are measured against, who was learnt from."""

    models: list[Model]
    rivals: Rivals
    readers: Readers
    people: list[People]


def _grow_all(config: Config, states: Iterable[State], folder: Path) -> _Grown:
    """Grow on all states but the last, which ends the growing.

    No state outlives what is learnt from it, and features lie in files while trees grow: memory
    holds one window at a time, however many there are.
    """
    parts = [
        (
            examples_of(state, folder=folder),
            people_of(state),
            samples_of(state),
            state.feature_groups,
        )
        for state in states
    ]
    give_back()
    examples, people, samples, named = map(list, zip(*parts, strict=True))
    groups: dict[str, str] = next(filter(None, named), {})
    models = [grow_model(config, wanted.behaviour, examples) for wanted in config.predict]
    rivals = fit_rivals(config, examples, groups, parameters=hyperparameters(config))
    return _Grown(models, rivals, fit_readers(config, samples), people)


class _Seen(NamedTuple):
    """A window after its horizon.

    Attributes:
        state: of its start, of which nothing is computed: what was is let go.
        outcomes: of each model; see `jobs.outcomes.outcomes_of`.
        people: everybody known then.
    """

    state: State
    outcomes: list[pl.LazyFrame]
    people: People


def _see(state: State, models: Sequence[Model], grown: _Grown, folder: Path) -> _Seen:
    outcomes = outcomes_of(state, models, grown.rivals, grown.readers, folder=folder)
    return _Seen(replace(state, snapshots={}), outcomes, people_of(state))


def _test(
    state: State, models: Sequence[Model], grown: _Grown, folder: Path
) -> tuple[_Seen, pl.DataFrame, dict[str, str]]:
    """What was seen of the models, what the candidates missed, the group of each feature."""
    return _see(state, models, grown, folder), candidate_misses(state), state.feature_groups


def grow_model(
    config: Config, behaviour: str, examples: Sequence[Mapping[str, Sequence[Example]]]
) -> Model:
    """Grow on the examples of all windows but the last, which ends the growing."""
    grown_on, stopped_on = split_off(examples, behaviour)
    horizon = config.prediction(behaviour).horizon_days
    parameters = hyperparameters(config)
    growing = partial(grow, grown_on, stopped_on, parameters=parameters, on_tree=stop_if_asked)
    try:
        return Model(
            behaviour=behaviour,
            horizon_days=horizon,
            classifier=growing(objective="binary"),
            ranker=growing(objective="lambdarank"),
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
        min_positives_per_leaf=options.min_positives_per_leaf,
        max_rounds=options.max_rounds,
        early_stopping_rounds=options.early_stopping_rounds,
        seed=options.seed,
        threads=config.scoring.threads,
        l2=options.l2,
        feature_fraction=options.feature_fraction,
        bagging_fraction=options.bagging_fraction,
        rankers=options.rankers,
    )
