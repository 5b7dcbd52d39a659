"""Half-open time windows: history `ts < as_of`, labels `as_of <= ts < as_of + horizon`."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Windows:
    """The `as_of`s of one training, each a horizon later than the one before.

    Attributes:
        train: what the trees are grown on, oldest first.
        stop: what ends the growing.
        calibrate: what the probabilities are calibrated on.
        test: what the metrics are reported on, once.
    """

    train: tuple[datetime, ...]
    stop: datetime
    calibrate: datetime
    test: datetime

    @property
    def first(self) -> datetime:
        """The earliest `as_of`: what is fitted once for all windows may see no later row."""
        return self.train[0]


def training_windows(as_of: datetime, *, horizon_days: int, train: int) -> Windows:
    """The last `train + 3` windows of `horizon_days` that are over at `as_of`.

    >>> w = training_windows(datetime(2024, 3, 1), horizon_days=10, train=2)
    >>> [f"{x:%m-%d}" for x in (*w.train, w.stop, w.calibrate, w.test)]
    ['01-11', '01-21', '01-31', '02-10', '02-20']
    """
    horizon = timedelta(days=horizon_days)
    *early, stop, calibrate, test = (as_of - horizon * n for n in range(train + 3, 0, -1))
    return Windows(train=tuple(early), stop=stop, calibrate=calibrate, test=test)
