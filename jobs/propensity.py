"""Who does a behaviour at all: learnt, tested and published for every eligible user."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.config import Config
from jobs.evaluation import Row
from jobs.signals import stop_if_asked
from jobs.state import State
from rank.calibrate import Calibration, Floats
from rank.examples import Example
from rank.metrics import Labels, best_f1_threshold, probability_metrics
from rank.propensity import Propensity
from rank.trees import Hyperparameters

# Values of `model` in the metrics whose rows are users, not pairs.
OF_USERS = MODEL, BASELINE = ("user_propensity", "activity")


@dataclass(frozen=True)
class People:
    """Every user known at the start of a window, and what they did in it.

    Attributes:
        users: (n,) row positions, ascending.
        features: (n, f) of the user alone.
        activity: (n,) decayed weight of the user's events before the window.
        warm: (n,) whether there are any.
        happened: by behaviour, (n,) whether the user has a target of it, on any item.
    """

    users: NDArray[np.int32]
    features: pl.DataFrame
    activity: Floats
    warm: Labels
    happened: Mapping[str, Labels]

    def example(self, behaviour: str) -> Example:
        """All of them, to learn one behaviour from."""
        everybody: NDArray[np.float32] = np.ones(len(self.users), dtype=np.float32)
        return Example(self.features, self.users, self.happened[behaviour], everybody)


def people_of(state: State) -> People:
    """The eligible users of a window; a target is what `Material.targets` says, on any item."""
    behaviours = [wanted.behaviour for wanted in state.material.config.predict]
    targets = {name: state.material.targets(name, state.as_of) for name in behaviours}
    activity = state.features.known.total_affinity[state.users].astype(np.float64)
    return People(
        users=state.users,
        features=state.describe_users(),
        activity=activity,
        warm=np.isin(state.users, state.inputs.events.get_column("user")),
        happened={n: np.isin(state.users, t.get_column("user")) for n, t in targets.items()},
    )


def train_propensities(
    config: Config,
    windows: Sequence[People],
    *,
    parameters: Hyperparameters,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[Propensity, ...], pl.DataFrame]:
    """A model for each predicted behaviour, and its metrics on the last window.

    Args:
        config: the effective configuration.
        windows: to grow on, to stop on, to calibrate on, to test on: the last three one each.
        parameters: how the trees are grown.
        on_progress: called with a line for every behaviour of which there was too little.

    Returns:
        The models in the order of the configuration, calibrated anew on the tested window;
        behaviour, model, segment, metric, value, of the calibration before.
    """
    *grown_on, stopped_on, calibrated_on, tested = windows
    models, figures = [], []
    for wanted in config.predict:
        name = wanted.behaviour
        model = Propensity.fit(
            [window.example(name) for window in grown_on],
            stopped_on.example(name),
            calibrated_on.example(name),
            behaviour=name,
            horizon_days=wanted.horizon_days,
            parameters=parameters,
            on_tree=stop_if_asked,
        )
        if model.trees is None:
            on_progress(f"{name}: too few users to learn from, all get {model.base_rate:.4f}")
        figures.append(_metrics(model, calibrated_on, tested, threads=parameters.threads))
        models.append(model.calibrated(tested.example(name), threads=parameters.threads))
    return tuple(models), pl.concat(figures)


def _metrics(
    model: Propensity, calibrated_on: People, tested: People, *, threads: int
) -> pl.DataFrame:
    """The model beside the user's activity alone, calibrated on the same window."""
    name, warm = model.behaviour, tested.warm
    contestants = {
        MODEL: (model(tested.features, threads=threads), model.threshold),
        BASELINE: _by_activity(calibrated_on, tested, name),
    }
    parts = {"all": np.ones_like(warm), "user:warm": warm, "user:cold": ~warm}
    rows: list[Row] = []
    for contestant, (probability, threshold) in contestants.items():
        for segment, part in parts.items():
            if not part.any():
                continue
            happened = tested.happened[name][part]
            values = probability_metrics(happened, probability[part], threshold=threshold)
            values = {"users": values.pop("pairs"), **values}
            rows += [(contestant, segment, metric, value) for metric, value in values.items()]
    frame = pl.DataFrame(rows, ["model", "segment", "metric", "value"], orient="row")
    return frame.select(pl.lit(name).alias("behaviour"), pl.all())


def _by_activity(calibrated_on: People, tested: People, behaviour: str) -> tuple[Floats, float]:
    """Probabilities of the tested window and the threshold; the base rate where all are alike."""
    happened = calibrated_on.happened[behaviour]
    if happened.all() or not happened.any():
        rate = float(happened.mean())
        return np.full(len(tested.users), rate), rate
    before, now = np.log1p(calibrated_on.activity), np.log1p(tested.activity)
    calibration = Calibration.fit(before, happened)
    return calibration(now), best_f1_threshold(happened, calibration(before))


def user_table(state: State, models: Sequence[Propensity], *, model_version: str) -> pl.DataFrame:
    """The rows to publish.

    Returns:
        as_of, user_id, behaviour, horizon_days, probability, model_version of every eligible user,
        sorted by user_id, behaviour.
    """
    threads = state.material.config.scoring.threads
    features = state.describe_users()
    ids = state.inputs.users.get_column("user_id").gather(state.users)
    frames = [
        pl.DataFrame({"user_id": ids}).select(
            pl.lit(state.as_of).alias("as_of"),
            "user_id",
            behaviour=pl.lit(model.behaviour),
            horizon_days=pl.lit(model.horizon_days, dtype=pl.Int32),
            probability=pl.Series(model(features, threads=threads)),
            model_version=pl.lit(model_version),
        )
        for model in models
    ]
    return pl.concat(frames).sort("user_id", "behaviour")
