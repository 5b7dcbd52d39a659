from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rank.windows import training_windows


def test_hand_worked() -> None:
    windows = training_windows(datetime(2024, 3, 1), horizon_days=7, train=3)
    assert windows.train == (datetime(2024, 1, 19), datetime(2024, 1, 26), datetime(2024, 2, 2))
    assert windows.stop == datetime(2024, 2, 9)
    assert windows.calibrate == datetime(2024, 2, 16)
    assert windows.test == datetime(2024, 2, 23)
    assert windows.first == datetime(2024, 1, 19)


@given(
    as_of=st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1)),
    horizon=st.integers(1, 60),
    train=st.integers(1, 8),
    seconds=st.floats(0, 1, exclude_max=True),
)
def test_every_moment_before_as_of_lies_in_one_label_window(
    as_of: datetime, horizon: int, train: int, seconds: float
) -> None:
    windows = training_windows(as_of, horizon_days=horizon, train=train)
    starts = (*windows.train, windows.stop, windows.calibrate, windows.test)
    length = timedelta(days=horizon)
    assert len(windows.train) == train
    assert starts[-1] + length == as_of
    span = as_of - windows.first
    moment = windows.first + timedelta(microseconds=int(span / timedelta(microseconds=1) * seconds))
    for ts, expected in ((windows.first, 1), (moment, 1), (starts[1], 1), (as_of, 0)):
        assert sum(start <= ts < start + length for start in starts) == expected
