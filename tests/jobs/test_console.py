import time

import polars as pl
import pytest

from jobs import console
from jobs.console import progress, show_table
from jobs.stages import Stages


def test_a_log_gets_lines_with_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("encode", 30) as advance:
        advance(10)
        advance(20)
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert "done=10" in said
    assert "done=30" in said
    assert "per_second=" in said


def test_a_table_shows_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("Rows", ["source", "read", "share"], [("items", 12345, 0.25)])
    said = capsys.readouterr().out
    for cell in ("Rows", "source", "items", "12,345", "0.2500"):
        assert cell in said


def test_a_stage_is_measured_even_when_it_fails() -> None:
    stages = Stages()
    with stages("sleep"):
        time.sleep(0.02)
    with pytest.raises(ValueError, match="broken"), stages("fail"):
        raise ValueError("broken")
    frame = stages.frame()
    assert frame.schema == {"stage": pl.String, "seconds": pl.Float64, "peak_mib": pl.Float64}
    assert frame.get_column("stage").to_list() == ["sleep", "fail"]
    assert frame.get_column("seconds")[0] >= 0.02
    assert frame.get_column("peak_mib").min() > 1
