"""One LightGBM model for each behaviour, with what turns its scores into probabilities."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.calibrate import IDENTITY, Calibration, Floats

Labels = NDArray[np.bool_]


class TooFewPositives(Exception):
    """A window holds no example of the behaviour among the candidates."""


class DamagedModel(Exception):
    """A saved model does not match the checksum written beside it."""


@dataclass(frozen=True)
class Hyperparameters:
    """How the trees are grown; see LightGBM's parameters of the same meaning."""

    learning_rate: float
    num_leaves: int
    min_rows_per_leaf: int
    max_rounds: int
    early_stopping_rounds: int
    seed: int
    threads: int


@dataclass(frozen=True)
class Example:
    """Rows to learn from: features (n, f) and whether the behaviour followed (n,)."""

    features: pl.DataFrame
    happened: Labels


@dataclass(frozen=True)
class Model:
    """Predicts one behaviour.

    Attributes:
        behaviour: what is predicted.
        horizon_days: within how many days after `as_of`.
        trees: LightGBM's text form of the booster.
        features: the columns it was trained on, in order.
        negative_share: the share of negatives that it was trained on.
        calibration: fitted after training, on a later window.
        threshold: the probability above which F1 was best on the calibration window.
    """

    behaviour: str
    horizon_days: int
    trees: str
    features: tuple[str, ...]
    negative_share: float
    calibration: Calibration = IDENTITY
    threshold: float = 0.5

    def score(self, features: pl.DataFrame, *, threads: int) -> Floats:
        """(n,) raw log-odds of `features` (n, f), corrected for sampled negatives.

        With negatives kept at rate w the odds are 1/w too high (He et al., Practical lessons
        from predicting clicks on ads, ADKDD 2014), so log(w) is added to the log-odds.
        """
        import lightgbm

        if features.is_empty():  # LightGBM refuses a matrix without rows
            return np.zeros(0)
        booster = lightgbm.Booster(model_str=self.trees)
        matrix = features.select(self.features).to_numpy()
        raw = booster.predict(matrix, raw_score=True, num_threads=threads)
        return np.asarray(raw + np.log(self.negative_share), dtype=np.float64)

    def calibrated(self, calibration: Calibration, threshold: float) -> "Model":
        """The same model with its calibration."""
        return replace(self, calibration=calibration, threshold=threshold)

    def save(self, folder: Path) -> None:
        """Write `<behaviour>.txt` (trees) and `<behaviour>.json` (the rest, and a checksum)."""
        folder.mkdir(parents=True, exist_ok=True)
        described = asdict(self) | {"sha256": _sha256(self.trees)}
        trees = described.pop("trees")
        (folder / f"{self.behaviour}.txt").write_text(trees)
        (folder / f"{self.behaviour}.json").write_text(json.dumps(described, indent=2))

    @classmethod
    def load(cls, folder: Path, behaviour: str) -> "Model":
        """Read what `save` wrote.

        Raises:
            DamagedModel: a file is missing or the trees differ from their checksum, which
                LightGBM itself answers by aborting the process.
        """
        try:
            described = json.loads((folder / f"{behaviour}.json").read_text())
            trees = (folder / f"{behaviour}.txt").read_text()
            expected = described.pop("sha256")
            described["calibration"] = Calibration(**described["calibration"])
            described["features"] = tuple(described["features"])
            model = cls(trees=trees, **described)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedModel(f"{folder}/{behaviour}: no complete model: {error}") from error
        if _sha256(trees) != expected:
            raise DamagedModel(
                f"{folder}/{behaviour}.txt: checksum {_sha256(trees)[:12]} differs from "
                f"{expected[:12]} in {behaviour}.json; delete {folder} and train again"
            )
        return model


def train(
    behaviour: str,
    horizon_days: int,
    *,
    train: Sequence[Example],
    stop: Example,
    negative_share: float,
    parameters: Hyperparameters,
) -> Model:
    """Grow trees on the examples of the training windows until `stop` gets no better.

    The objective is the binary cross-entropy. The result is the same for any number of threads.

    Raises:
        TooFewPositives: the training windows or the stopping window hold no positive.
    """
    import lightgbm

    windows = {"training windows": sum(int(e.happened.sum()) for e in train)}
    windows["early-stopping window"] = int(stop.happened.sum())
    for name, positives in windows.items():
        if positives == 0:
            raise TooFewPositives(
                f"no candidate of the {name} was followed by {behaviour!r} within "
                f"{horizon_days} days: choose a longer horizon_days, more candidates or a "
                "later as_of"
            )
    names = train[0].features.columns
    matrix = np.concatenate([e.features.to_numpy() for e in train])
    happened = np.concatenate([e.happened for e in train]).astype(np.float32)
    grown_on = lightgbm.Dataset(matrix, happened, feature_name=names, free_raw_data=True)
    stopped_on = lightgbm.Dataset(
        stop.features.to_numpy(), stop.happened.astype(np.float32), reference=grown_on
    )
    booster = lightgbm.train(
        _lightgbm_parameters(parameters),
        grown_on,
        num_boost_round=parameters.max_rounds,
        valid_sets=[stopped_on],
        callbacks=[lightgbm.early_stopping(parameters.early_stopping_rounds, verbose=False)],
    )
    return Model(
        behaviour=behaviour,
        horizon_days=horizon_days,
        trees=_without_threads(booster.model_to_string(num_iteration=booster.best_iteration)),
        features=tuple(names),
        negative_share=negative_share,
    )


def _lightgbm_parameters(parameters: Hyperparameters) -> dict[str, object]:
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "learning_rate": parameters.learning_rate,
        "num_leaves": parameters.num_leaves,
        "min_data_in_leaf": parameters.min_rows_per_leaf,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "seed": parameters.seed,
        "num_threads": parameters.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _without_threads(trees: str) -> str:
    """The text minus the one parameter that may differ from machine to machine."""
    return re.sub(r"^\[num_threads: \d+\]\n", "", trees, flags=re.MULTILINE)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
