"""The ways to recommend give the same lists, and what is measured is what a night does."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks import growth, night
from benchmarks.invented import write_shop
from benchmarks.profiled import ELSEWHERE, ROOT, Stats, charged, families
from benchmarks.recommend import TASKS, alike, grow_models, keep_material, measure

AS_OF = growth.AS_OF
STAGES = ["ingest", "embed", "train", "index", "score", "gates", "publish", "page"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("night")
    write_shop(home / "shop", users=200, items=150, events=4000)
    keep_material(night.night_of(home / "shop", home, AS_OF))
    grow_models(home, trees=5)
    return home


@pytest.mark.parametrize("task", TASKS)
def test_plainly_written_lists_are_ours(home: Path, task: str) -> None:
    pairs = [measure(way, task, home)[1] for way in ("nightrank", "plainly")]
    assert pairs[0] == pairs[1] > 0
    # FAISS's own similarities differ in the last bits from ours: a rank or two may change places.
    assert min(alike(home, task)) > 0.999
    mine, plain = (
        pl.read_parquet(home / "lists" / task / way / "*.parquet")
        for way in ("nightrank", "plainly")
    )
    keys = ["user_id", "item_id", "position"]
    assert len(mine.join(plain, on=keys, how="semi")) > 0.99 * len(mine)


@pytest.fixture(scope="module")
def done(home: Path) -> tuple[night.Processor, int, float, dict[tuple[str, str], float]]:
    return night.whole_night(home / "shop", home, AS_OF, profile=True)


def test_the_whole_night_is_measured_and_profiled(home: Path, done: tuple) -> None:
    stages, rows, vectors, seconds = done
    assert [*stages.rows] == [*stages.processor] == STAGES
    assert vectors == 150 * 256 * 4 / 2**20
    assert rows > 0
    assert seconds[("jobs/nightly.py", "run")] >= 0
    assert seconds[("rank/trees.py", "grow")] > 0
    assert sum(seconds.values()) > 0
    assert families(seconds)


def test_growth_scores_what_the_night_publishes(home: Path, done: tuple) -> None:
    (models,) = (home / "models").glob("[!.]*")
    clock = growth.score_all(home, models)
    assert set(growth.PARTS) <= set(clock.seconds)
    columns = ["user_id", "item_id", "position", "probability", "reason"]
    with duckdb.connect(str(home / "current.duckdb"), read_only=True) as connection:
        published = connection.sql(f"select {', '.join(columns)} from predictions").pl()
    found = pl.read_parquet(home / "0*.parquet").select(columns)
    assert_frame_equal(found.sort(columns[:2]), published.sort(columns[:2]), check_exact=True)


def test_exponents_are_those_of_powers() -> None:
    sizes = np.array([1.0, 3.0, 10.0])
    clocks = [
        growth.Clock(
            seconds={"index": 2 * n, "candidates": n**2, "features": 5.0},
            peak_mib={growth.START: 300.0, "index": 300 + 7 * n, "features": 300 + n},
        )
        for n in sizes
    ]
    found = dict(
        zip((*growth.PARTS, "all", "memory"), growth.exponents(sizes, clocks), strict=True)
    )
    assert found["index"] == pytest.approx(1)
    assert found["candidates"] == pytest.approx(2)
    assert found["features"] == pytest.approx(0, abs=1e-9)
    assert found["memory"] == pytest.approx(1)


def test_what_a_library_took_is_charged_to_who_asked() -> None:
    one, two = ((str(ROOT / "rank" / "x.py"), 1, name) for name in ("one", "two"))
    outer, inner, lost = (("/lib/x.py", 1, name) for name in ("outer", "inner", "lost"))
    stats: Stats = {
        one: (1, 1, 1.0, 8.0, {}),
        two: (1, 1, 2.0, 3.0, {}),
        outer: (2, 2, 0.0, 8.0, {one: (1, 1, 0.0, 7.0), two: (1, 1, 0.0, 1.0)}),
        inner: (2, 2, 8.0, 8.0, {outer: (2, 2, 8.0, 8.0)}),
        lost: (1, 1, 0.5, 0.5, {}),
    }
    expected = {("rank/x.py", "one"): 8.0, ("rank/x.py", "two"): 3.0, ELSEWHERE: 0.5}
    assert charged(stats) == pytest.approx(expected)
    assert families(charged(stats))[0] == ("rank/x.py", "11.0", "95.7%", "one 8.0, two 3.0")
