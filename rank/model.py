"""The model of one behaviour: what orders a user's candidates, and how likely each is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from rank.calibrate import IDENTITY, Calibration, Floats
from rank.trees import Trees


@dataclass(frozen=True)
class Model:
    """Predicts one behaviour.

    Attributes:
        behaviour: what is predicted.
        horizon_days: within how many days after `as_of`.
        classifier: how likely the behaviour is.
        ranker: in which order a user's candidates come.
        negative_share: the share of negatives that the classifier was trained on.
        calibration: fitted after training, on a later window.
        threshold: the probability above which F1 was best on the calibration window.
        ordered_by: the part that the order follows.
    """

    behaviour: str
    horizon_days: int
    classifier: Trees
    ranker: Trees
    negative_share: float
    calibration: Calibration = IDENTITY
    threshold: float = 0.5
    ordered_by: Literal["ranker", "classifier"] = "ranker"

    def log_odds(self, features: pl.DataFrame, *, threads: int) -> Floats:
        """(n,) raw log-odds of `features` (n, f), corrected for sampled negatives.

        With negatives kept at rate w the odds are 1/w too high (He et al., Practical lessons
        from predicting clicks on ads, ADKDD 2014), so log(w) is added to the log-odds.
        """
        raw = self.classifier.score(features, threads=threads)
        return np.asarray(raw + np.log(self.negative_share))

    def order(self, features: pl.DataFrame, log_odds: Floats, *, threads: int) -> Floats:
        """(n,) what the places of `features` (n, f) in a user's list follow, higher first.

        Args:
            features: of the pairs.
            log_odds: (n,) what the classifier says of them.
            threads: 0 for all cores.
        """
        if self.ordered_by == "classifier":
            return log_odds
        return self.ranker.score(features, threads=threads)

    def calibrated(self, calibration: Calibration, threshold: float) -> "Model":
        """The same model with its calibration."""
        return replace(self, calibration=calibration, threshold=threshold)

    def importance(self, groups: Mapping[str, str]) -> pl.DataFrame:
        """What the trees split on.

        Args:
            groups: the group of each feature.

        Returns:
            behaviour, part (`classifier` or `ranker`), group, feature, gain (share of all that
            the part's splits gained; NaN where it has none).
        """
        frames = []
        for part in PARTS:
            trees: Trees = getattr(self, part)
            frames.append(
                pl.DataFrame(
                    {
                        "behaviour": self.behaviour,
                        "part": part,
                        "group": [groups[name] for name in trees.features],
                        "feature": trees.features,
                        "gain": pl.Series(trees.gains),
                    }
                ).with_columns(pl.col("gain") / pl.col("gain").sum())
            )
        return pl.concat(frames)

    def save(self, folder: Path) -> None:
        """Write `<behaviour>.<part>.txt` (trees) and `<behaviour>.json` (the rest).

        Their checksums are the caller's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        described = asdict(self)
        for part in PARTS:
            trees: Trees = getattr(self, part)
            (folder / f"{self.behaviour}.{part}.txt").write_text(trees.text)
            described[part] = trees.features
        (folder / f"{self.behaviour}.json").write_text(json.dumps(described, indent=2))

    @classmethod
    def load(cls, folder: Path, behaviour: str) -> "Model":
        """Read what `save` wrote, after its checksums: LightGBM aborts on damaged trees."""
        described = json.loads((folder / f"{behaviour}.json").read_text())
        described["calibration"] = Calibration(**described["calibration"])
        for part in PARTS:
            text = (folder / f"{behaviour}.{part}.txt").read_text()
            described[part] = Trees(text, tuple(described[part]))
        return cls(**described)


PARTS = ("classifier", "ranker")
