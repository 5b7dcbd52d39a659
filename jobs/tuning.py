"""Searches for the settings that trees are best grown with; the test window is never looked at.

Trees are grown on the training windows, stopped on the stopping window and judged on the
calibration window, all from examples that are made once.
"""

import hashlib
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from jobs.config import Config
from jobs.errors import InputMissing
from jobs.examples import examples_of
from jobs.state import Material, State
from jobs.training import OnProgress, grow_model, windows_before
from rank.examples import Example, joined
from rank.metrics import losses, placed, positions, ranking_metrics
from rank.model import Model
from rank.trees import LISTED

if TYPE_CHECKING:
    import optuna

# What is searched, between which values; all on logarithmic scales.
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (0.02, 0.2),
    "num_leaves": (4, 128),
    "min_rows_per_leaf": (10, 2000),
    "min_positives_per_leaf": (1.0, 100.0),
    "l2": (0.001, 10.0),
}
WHOLE = ("num_leaves", "min_rows_per_leaf")
JOURNAL = "journal.log"
# What is minimised: the mean over behaviours of log loss by that of the base rate.
SCORE = "normalised_entropy"

Examples = list[dict[str, list[Example]]]
Settings = dict[str, Any]


def tune(
    material: Material,
    as_of: datetime,
    *,
    folder: Path,
    trials: int,
    minutes: float = np.inf,
    on_progress: OnProgress = lambda _: None,
) -> pl.DataFrame:
    """Try settings until there are so many trials of these examples, or the time is over.

    The first trial has the settings of the configuration, each moved into its range. The others
    are the choice of a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), seeded by
    the number of trials before: a search that was interrupted goes on as if it had not been.

    Args:
        material: rows before `as_of`.
        as_of: naive UTC; the windows are those that a training at this time has.
        folder: of the journal, where trials of an earlier search are found again, and the table.
        trials: so many in all, those of the journal included.
        minutes: no trial but the first of all is begun later than so many minutes.
        on_progress: called with a line for every step.

    Returns:
        trial, `SCORE`, the settings, and log_loss_B and ndcg@10_B of each behaviour; the best
        first. It is also written as `<study>.csv` beside the journal.

    Raises:
        InputMissing: optuna is not installed.
        rank.trees.TooFewPositives: a window holds no example of a behaviour.
    """
    windows = windows_before(material, as_of)
    projection = material.fit_projection(windows.first)
    examples: Examples = []
    for start in (*windows.train, windows.stop, windows.calibrate):
        on_progress(f"window {start:%Y-%m-%d}")
        state, judged = State(material, start, projection), start == windows.calibrate
        examples.append(examples_of(state, whole=judged))
    study = _study(folder, material.config, examples)
    end = time.monotonic() + 60 * minutes
    while not (done := len(_finished(study))) or (done < trials and time.monotonic() < end):
        on_progress(_try(study, material.config, examples))
    found = _table(study)
    found.write_csv(folder / f"{study.study_name}.csv")
    return found


def best_settings(trials: pl.DataFrame) -> Settings:
    """The settings of the best trial, for the table [training] of the configuration."""
    return trials.select(*RANGES).row(0, named=True)


def _study(folder: Path, config: Config, examples: Examples) -> "optuna.Study":
    """The search over these very examples, as far as the journal knows it."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise InputMissing(
            "optuna is not installed: pip install 'nightrank[tune]', or optuna alone"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        study_name=_name(config, examples),
        load_if_exists=True,
    )


def _name(config: Config, examples: Examples) -> str:
    """By all that a trial depends on beside its settings."""
    fixed = config.training.model_dump(exclude={*RANGES, "retrain_after_days", "baselines"})
    digest = hashlib.sha256(repr(fixed).encode())
    for window in examples:
        for behaviour, parts in window.items():
            example = joined(parts)
            horizon = config.prediction(behaviour).horizon_days
            digest.update(repr((behaviour, horizon, example.columns)).encode())
            # Positions of users shift when others join them; where their pairs begin does not.
            starts = np.diff(example.users, prepend=-1) != 0
            columns = (example.read().to_numpy(), starts, example.happened, example.weight)
            for column in columns:
                digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:12]


def _finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _try(study: "optuna.Study", config: Config, examples: Examples) -> str:
    """Grow and judge with one more choice of settings; a line that tells of it."""
    from optuna.samplers import TPESampler

    done = len(_finished(study))
    # Trials that were killed are left out of account: constant_liar would count them as bad.
    study.sampler = TPESampler(seed=config.training.seed + done, constant_liar=False)
    if not done:
        study.enqueue_trial(_moved_into_range(config))
    trial = study.ask()
    settings = _settings(trial)
    tried = config.training.model_copy(update=settings)
    figures = _judge(config.model_copy(update={"training": tried}), examples)
    for name, value in (settings | figures).items():
        trial.set_user_attr(name, value)
    study.tell(trial, figures[SCORE])
    return f"trial {done + 1}: {SCORE} {figures[SCORE]:.5f} with {settings}"


def _moved_into_range(config: Config) -> Settings:
    own = config.training.model_dump(include=set(RANGES))
    return {name: type(own[name])(np.clip(own[name], *RANGES[name])) for name in RANGES}


def _settings(trial: "optuna.Trial") -> Settings:
    """What the sampler chooses, of three digits where it is no whole number."""
    chosen: Settings = {}
    for name, (low, high) in RANGES.items():
        if name in WHOLE:
            chosen[name] = trial.suggest_int(name, int(low), int(high), log=True)
        else:
            chosen[name] = float(f"{trial.suggest_float(name, low, high, log=True):.3g}")
    return chosen


def _judge(config: Config, examples: Examples) -> dict[str, float]:
    """Figures of the last window, of models grown on those before it."""
    *grown_on, judged_on = examples
    threads = config.scoring.threads
    figures, scores = {}, []
    for behaviour, parts in judged_on.items():
        example = joined(parts)
        model = grow_model(config, behaviour, grown_on)
        loss, share = sampled_loss(model, example, threads=threads)
        scores.append(share)
        figures[f"log_loss_{behaviour}"] = loss
        figures[f"ndcg@{LISTED}_{behaviour}"] = _ndcg(model, example, threads=threads)
    return {SCORE: float(np.mean(scores)), **figures}


def sampled_loss(model: Model, example: Example, *, threads: int) -> tuple[float, float]:
    """Log loss over all candidates, estimated from those in the sample; its normalised entropy.

    Each negative of the sample stands for one by the share that was drawn. Nothing is calibrated.
    """
    from scipy.special import expit

    told = expit(model.log_odds(example.read(), threads=threads))
    weight = np.where(example.happened, 1.0, example.weight / model.negative_share)
    loss = float(np.average(losses(example.happened, told), weights=weight))
    rate = np.average(example.happened, weights=weight)
    base = np.full(len(told), rate)
    return loss, loss / float(np.average(losses(example.happened, base), weights=weight))


def _ndcg(model: Model, example: Example, *, threads: int) -> float:
    """Of the order of the candidates of users with a positive among them."""
    followers = example.of_followers()
    order = model.ranker.score(followers.read(), threads=threads)
    rows = np.arange(len(followers.users), dtype=np.int32)
    pairs = pl.DataFrame({"user": followers.users, "item": rows})
    happened = pairs.filter(pl.Series(followers.happened))
    targets = placed(happened, pairs, positions(pairs, order))
    return ranking_metrics(targets, k=LISTED)[f"ndcg@{LISTED}"]


def _table(study: "optuna.Study") -> pl.DataFrame:
    """Every finished trial, the best first."""
    rows = pl.DataFrame([trial.user_attrs for trial in _finished(study)])
    first = ("trial", SCORE, *RANGES)
    numbered = rows.with_row_index("trial", offset=1)
    return numbered.select(*first, pl.exclude(first)).sort(SCORE, "trial")
