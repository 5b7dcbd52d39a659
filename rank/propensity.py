"""How likely a user does a behaviour at all, on whatever item: a model of its own."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from rank.calibrate import IDENTITY, Calibration, Floats
from rank.examples import Example
from rank.metrics import best_f1_threshold
from rank.trees import Hyperparameters, Trees, grow

# Ten of the rarer outcome for each of the two coefficients of a calibration (Peduzzi et al.,
# Journal of Clinical Epidemiology, 1996); a window with fewer is too few to learn from.
LEAST = 20
# There is one row for each user, not for each pair: larger trees learn chance. On the invented
# shop 31 leaves lost one hundredth of the normalised entropy.
MOST_LEAVES = 7


@dataclass(frozen=True)
class Propensity:
    """Predicts whether a user does one behaviour on any item.

    Attributes:
        behaviour: what is predicted.
        horizon_days: within how many days after `as_of`.
        base_rate: the share of users who did it, over all windows learnt from.
        trees: None where there was too little to learn from: everybody's is the base rate.
        calibration: fitted after training, on a later window.
        threshold: the probability above which F1 was best on the calibration window.
    """

    behaviour: str
    horizon_days: int
    base_rate: float
    trees: Trees | None
    calibration: Calibration = IDENTITY
    threshold: float = 0.5

    @classmethod
    def fit(
        cls,
        train: Sequence[Example],
        stop: Example,
        calibrate: Example,
        *,
        behaviour: str,
        horizon_days: int,
        parameters: Hyperparameters,
        on_tree: Callable[[], object] = lambda: None,
    ) -> "Propensity":
        """Learn from examples with a row for each eligible user of a window, none left out.

        With fewer than `LEAST` users of either outcome in the training windows, the stopping or
        the calibration window, or without features, the answer is the base rate of all of them,
        (k + 1/2) / (n + 1) for k of n users: never 0 or 1 (Krichevsky and Trofimov, IEEE
        Transactions on Information Theory, 1981). For `on_tree` see `rank.trees.grow`.
        """
        parts = (train, [stop], [calibrate])
        rates = [np.concatenate([e.happened for e in part]) for part in parts]
        everybody = np.concatenate(rates)
        rate = float((everybody.sum() + 0.5) / (len(everybody) + 1))
        rarest = min(min(r.sum(), len(r) - r.sum()) for r in rates)
        if rarest < LEAST or not stop.columns:
            return cls(behaviour, horizon_days, rate, trees=None, threshold=rate)
        small = replace(parameters, num_leaves=min(parameters.num_leaves, MOST_LEAVES))
        trees = grow(train, [stop], objective="binary", parameters=small, on_tree=on_tree)
        grown = cls(behaviour, horizon_days, rate, trees)
        return grown.calibrated(calibrate, threads=parameters.threads)

    def calibrated(self, window: Example, *, threads: int) -> "Propensity":
        """The same trees, calibrated on a window; as it is where that holds too little."""
        happened = window.happened
        if self.trees is None or min(happened.sum(), (~happened).sum()) < LEAST:
            return self
        score = self.trees.score(window.read(), threads=threads)
        calibration = Calibration.fit(score, happened)
        threshold = best_f1_threshold(happened, calibration(score))
        return replace(self, calibration=calibration, threshold=threshold)

    def __call__(self, features: pl.DataFrame, *, threads: int) -> Floats:
        """(n,) probabilities of users with `features` (n, f)."""
        if self.trees is None:
            return np.full(len(features), self.base_rate)
        return self.calibration(self.trees.score(features, threads=threads))

    def save(self, folder: Path) -> None:
        """Write `<behaviour>.propensity`, a JSON file; its checksum is the caller's."""
        described = json.dumps(asdict(self), indent=2)
        (folder / f"{self.behaviour}.propensity").write_text(described)

    @classmethod
    def load(cls, folder: Path, behaviour: str) -> "Propensity":
        """Read what `save` wrote, after its checksum: LightGBM aborts on damaged trees."""
        described = json.loads((folder / f"{behaviour}.propensity").read_text())
        described["calibration"] = Calibration(**described["calibration"])
        if trees := described["trees"]:
            described["trees"] = Trees(trees["text"], tuple(trees["features"]))
        return cls(**described)
