"""The model of one behaviour: what orders a user's candidates, and how likely each is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from rank.calibrate import IDENTITY, Calibration, Floats
from rank.trees import Trees


class DamagedModel(Exception):
    """A saved model does not match the checksum written beside it."""


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
    """

    behaviour: str
    horizon_days: int
    classifier: Trees
    ranker: Trees
    negative_share: float
    calibration: Calibration = IDENTITY
    threshold: float = 0.5

    def log_odds(self, features: pl.DataFrame, *, threads: int) -> Floats:
        """(n,) raw log-odds of `features` (n, f), corrected for sampled negatives.

        With negatives kept at rate w the odds are 1/w too high (He et al., Practical lessons
        from predicting clicks on ads, ADKDD 2014), so log(w) is added to the log-odds.
        """
        raw = self.classifier.score(features, threads=threads)
        return np.asarray(raw + np.log(self.negative_share))

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
        """Write `<behaviour>.<part>.txt` (trees) and `<behaviour>.json` (the rest, checksums)."""
        folder.mkdir(parents=True, exist_ok=True)
        described = asdict(self)
        for part in PARTS:
            trees: Trees = getattr(self, part)
            (folder / f"{self.behaviour}.{part}.txt").write_text(trees.text)
            described[part] = {"features": trees.features, "sha256": trees.sha256}
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
            described["calibration"] = Calibration(**described["calibration"])
            for part in PARTS:
                path = folder / f"{behaviour}.{part}.txt"
                trees = Trees(path.read_text(), tuple(described[part]["features"]))
                if trees.sha256 != (expected := described[part]["sha256"]):
                    raise DamagedModel(
                        f"{path}: checksum {trees.sha256[:12]} differs from {expected[:12]} in "
                        f"{behaviour}.json; delete {folder} and train again"
                    )
                described[part] = trees
            return cls(**described)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedModel(f"{folder}/{behaviour}: no complete model: {error}") from error


PARTS = ("classifier", "ranker")
