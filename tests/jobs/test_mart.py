"""Views over nights made by hand: history, demand, freshness, and a connection that is shut."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from marts import ask, night_file
from polars.testing import assert_frame_equal

from jobs.config_sections import MartConfig
from jobs.demand import level_spread
from rank.counts import count_interval

DOCS = Path(__file__).resolve().parents[2] / "docs"


def nights(folder: Path, count: int, *, options: MartConfig, models: str = "") -> list[Path]:
    """So many files, each after the one before; `models` has a letter for each."""
    files: list[Path] = []
    for night in range(count):
        last = files[-1] if files else None
        model = (models or "m" * count)[night]
        files.append(night_file(folder, night, last=last, model=model, options=options))
    return files


def test_demand_is_the_sum_of_probabilities_with_a_wider_interval(tmp_path) -> None:
    """Items 0 and 3 are of category a: 4 users each, 0.1 / (1 + (u + i) % 7)."""
    path = night_file(tmp_path, 0)
    row = ask(
        path,
        "select pairs, expected, low, high from mart.item_demand_v1 "
        "where level = 'category' and category = 'a'",
    )
    expected = sum(0.1 / (1 + (u + i) % 7) for u in range(4) for i in (0, 3))
    assert row.row(0)[0] == 8
    assert row.row(0)[1] == pytest.approx(expected, abs=1e-12)
    spread = np.sqrt(np.log(0.9) ** 2 + 1 / 100)
    low, high = count_interval(np.array([expected]), np.array([spread]))
    assert row.row(0)[2:] == (low[0], high[0])
    levels = ask(
        path,
        "select level, count(*) as n, sum(pairs) as pairs, sum(expected) as expected "
        "from mart.item_demand_v1 group by level order by level",
    )
    assert levels.get_column("n").to_list() == [2, 3, 6]  # brand, category with none, item
    assert levels.get_column("pairs").to_list() == [24, 24, 24]
    np.testing.assert_allclose(levels["expected"], levels["expected"][0], rtol=1e-12)


def test_a_behaviour_that_did_not_happen_in_the_test_window_gets_the_plain_interval() -> None:
    rows = [("buy", "predicted_over_observed", float("nan")), ("buy", "positives", 0.0)]
    figures = pl.DataFrame(rows, ["behaviour", "metric", "value"], orient="row")
    assert level_spread(figures) == {}


def test_earlier_nights_stay_as_they_were_and_the_oldest_fall_out(tmp_path) -> None:
    files = nights(tmp_path, 5, options=MartConfig(nights=3, positions=2))
    sizes = []
    for number, path in enumerate(files):
        kept = [f"run-{n}" for n in range(number, -1, -1)][:3]
        assert ask(path, "select run_id from mart.runs_v1").get_column("run_id").to_list() == kept
        for view in ("predictions_v1", "user_propensity_v1", "item_demand_v1", "quarantine_v1"):
            rows = ask(path, f"select * from mart.{view}")
            assert rows.get_column("run_id").unique(maintain_order=True).to_list() == kept
            for run in kept:
                own = ask(files[int(run[-1])], f"from mart.{view} where is_current")
                if view == "predictions_v1" and run != kept[0]:
                    own = own.filter(pl.col("position") <= 2)
                mine = rows.filter(run_id=run)
                assert (mine["is_current"] == (run == kept[0])).all()
                assert_frame_equal(mine.drop("is_current"), own.drop("is_current"))
        sizes.append(ask(path, "select count(*) from mart.predictions_v1").item())
    assert sizes == [24, 24 + 8, 24 + 16, 24 + 16, 24 + 16]


def test_files_stop_growing(tmp_path) -> None:
    """Every night adds rows of many blocks: the fourth file is as large as the fifth."""
    options = MartConfig(nights=3, positions=400)
    files: list[Path] = []
    for night in range(5):
        last = files[-1] if files else None
        files.append(night_file(tmp_path, night, last=last, users=500, items=400, options=options))
    sizes = [path.stat().st_size for path in files]
    assert sizes[0] < sizes[1] < sizes[2]
    block = 256 * 1024
    assert abs(sizes[3] - sizes[2]) <= 2 * block
    assert abs(sizes[4] - sizes[3]) <= 2 * block


def test_what_is_said_of_models_stays_once_with_the_newest_night_that_used_them(tmp_path) -> None:
    files = nights(tmp_path, 5, options=MartConfig(nights=3), models="AABBA")
    told = "select distinct run_id, model_version from mart.{} order by run_id desc"
    expected = [
        [("run-0", "A")],
        [("run-1", "A")],
        [("run-2", "B"), ("run-1", "A")],
        [("run-3", "B"), ("run-1", "A")],
        [("run-4", "A"), ("run-3", "B")],
    ]
    for view in ("metrics_v1", "calibration_v1", "candidate_misses_v1"):
        assert [ask(path, told.format(view)).rows() for path in files] == expected
    window = ask(
        files[4], "select distinct (as_of - window_as_of)::varchar from mart.candidate_misses_v1"
    )
    assert window.item() == "14 days"


def test_the_same_night_again_takes_the_place_of_the_first(tmp_path) -> None:
    first = nights(tmp_path, 2, options=MartConfig())[1]
    again = tmp_path / "again"
    again.mkdir()
    path = night_file(again, 1, last=first)
    assert ask(path, "select run_id from mart.runs_v1").rows() == [("run-1",), ("run-0",)]
    assert ask(path, "select count(*) from mart.predictions_v1").item() == 48


def test_one_night_alone(tmp_path) -> None:
    path = nights(tmp_path, 2, options=MartConfig(nights=1))[1]
    assert ask(path, "select run_id, is_current from mart.runs_v1").rows() == [("run-1", True)]


def test_a_file_of_another_version_is_carried_on_as_far_as_it_fits(tmp_path) -> None:
    """No history yet, a column that is missing, one too many, and ids of another type."""
    old = night_file(tmp_path, 0)
    with duckdb.connect(str(old)) as connection:
        connection.execute("drop schema mart cascade; drop schema history cascade")
        connection.execute("alter table predictions drop column reason")
        connection.execute("alter table predictions add column gone integer default 1")
        connection.execute("alter table user_propensity alter user_id type varchar")
    path = night_file(tmp_path, 1, last=old)
    earlier = ask(path, "select * from mart.predictions_v1 where not is_current")
    assert len(earlier) == 24
    assert earlier.get_column("reason").null_count() == 24
    assert ask(path, "select distinct run_id from mart.user_propensity_v1").rows() == [("run-1",)]


def test_freshness_tells_a_missing_night(tmp_path) -> None:
    stale = ask(night_file(tmp_path, 0), "from mart.freshness_v1").row(0, named=True)
    assert stale["stale"]
    assert stale["age_hours"] > 24 * 365
    (tmp_path / "b").mkdir()
    fresh = ask(
        night_file(tmp_path / "b", 0, options=MartConfig(stale_after_hours=1e9)),
        "set timezone = 'Pacific/Auckland'; from mart.freshness_v1",
    ).row(0, named=True)
    assert not fresh["stale"]
    assert fresh["age_hours"] == pytest.approx(stale["age_hours"], abs=1)


def test_views_answer_from_a_file_attached_under_another_name(tmp_path) -> None:
    path = night_file(tmp_path, 1, last=night_file(tmp_path, 0))
    with duckdb.connect() as connection:
        connection.execute(f"attach '{path}' as shop (read_only)")
        named = (
            "select distinct table_name from shop.mart.data_dictionary where table_schema = 'mart'"
        )
        for (view,) in connection.sql(named).fetchall():
            assert connection.sql(f"select count(*) from shop.mart.{view}").fetchall()[0][0] >= 0
        assert connection.sql("from shop.mart.runs_v1").fetchall()[0][0] == "run-1"


# DuckDB allows the files of the open database, whatever `enable_external_access` says.
OF_THE_FILE = [
    "copy (select 1) to '{folder}/scores-0.duckdb.wal' (format csv)",
    "copy (select 1) to '{folder}/scores-0.duckdb.wal.recovery' (format csv)",
    "copy (select 1) to '{folder}/scores-0.duckdb.wal.checkpoint' (format csv)",
    "copy (select 1) to '{folder}/scores-0.duckdb.tmp/escaped' (format csv)",
    "copy (select 1) to '{folder}/scores-0.duckdb' (format csv)",
    "copy (select 1) to '{folder}/scores-0.duckdb' (format csv, use_tmp_file false)",
]
ESCAPES = [
    "select * from read_csv('{file}')",
    "select * from read_text('{file}')",
    "select * from read_blob('{file}')",
    "select * from read_json('{file}')",
    "select * from read_parquet('{file}')",
    "select * from '{file}'",
    "select * from glob('{folder}/*')",
    "select * from sniff_csv('{file}')",
    "copy (select 1) to '{folder}/escaped'",
    "copy predictions from '{file}'",
    "create temp table escaped(a integer, b integer); copy escaped from '{file}'",
    "export database '{folder}/escaped'",
    "import database '{folder}/escaped'",
    "attach '{folder}/escaped'",
    "attach '{folder}/scores-0.duckdb' as escaped",
    "attach '{folder}/scores-0.duckdb' as escaped (read_write)",
    "select * from read_text('{folder}/scores-0.duckdb')",
    *OF_THE_FILE,
    "attach ':memory:' as escaped",
    "attach 'postgres://localhost/x' as escaped (type postgres)",
    "install httpfs",
    "load httpfs",
    "load '{file}'",
    "create secret escaped (type s3)",
    "set enable_external_access = true",
    "set global enable_external_access = true",
    "pragma enable_external_access = true",
    "reset enable_external_access",
    "set lock_configuration = false",
    "reset lock_configuration",
    "set allowed_directories = ['{folder}']",
    "set temp_directory = '{folder}/escaped'",
    "set access_mode = 'read_write'",
    "pragma profiling_output = '{folder}/escaped'",
    "call enable_logging(storage = 'file', storage_path = '{folder}/escaped')",
    "create table escaped as select 1",
    "create view mart.escaped as select 1",
    "drop view mart.predictions_v1",
    "insert into runs select * from runs",
    "update predictions set probability = 1",
    "delete from predictions",
    "alter table predictions drop column score",
    "comment on table predictions is 'escaped'",
    "prepare escaped as select * from read_text('{file}'); execute escaped",
    "select * from query('select * from read_text(''{file}'')')",
    "explain analyze copy (select 1) to '{folder}/escaped'",
    "use memory",
]


def test_the_recipe_of_the_docs_reads_no_file_and_writes_nothing(tmp_path, monkeypatch) -> None:
    recipe = re.search(r"```python\n(.*?)```", (DOCS / "bi.md").read_text(), flags=re.DOTALL)
    home = tmp_path / "nightrank-home" / "demo"
    home.mkdir(parents=True)
    (home / "current.duckdb").symlink_to(night_file(tmp_path, 0))
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    before = sorted(tmp_path.rglob("*"))
    content = (tmp_path / "scores-0.duckdb").read_bytes()
    monkeypatch.chdir(tmp_path)
    names: dict[str, duckdb.DuckDBPyConnection] = {}
    exec(recipe[1], names)
    night = names["night"]
    assert night.sql("select count(*) from mart.predictions_v1").fetchall() == [(24,)]
    for escape in ESCAPES:
        with pytest.raises(duckdb.Error) as refused:
            night.execute(escape.format(file=tmp_path / "secret.csv", folder=tmp_path))
        assert not isinstance(refused.value, duckdb.ParserException | duckdb.BinderException), (
            escape
        )
    night.close()
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "scores-0.duckdb").read_bytes() == content


AS_ANOTHER = """
import duckdb, json, os, pwd, sys
if os.geteuid() == 0:
    os.setuid(pwd.getpwnam("nobody").pw_uid)
night = duckdb.connect(sys.argv[1], read_only=True, config=json.loads(sys.argv[2]))
print(night.sql("select count(*) from mart.predictions_v1").fetchall()[0][0])
for query in sys.argv[3:]:
    try:
        print(query, night.execute(query).fetchall())
    except duckdb.Error:
        pass
"""


def test_who_cannot_write_in_the_home_writes_nothing_with_the_three_settings() -> None:
    """As nobody, where the test runs as root, who may do anything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = night_file(folder, 0)
        (folder / "current.duckdb").symlink_to(file.name)
        file.chmod(0o444)
        folder.chmod(0o555)
        before = sorted(folder.rglob("*")), file.read_bytes()
        settings = json.dumps({"enable_external_access": "false", "lock_configuration": "true"})
        queries = [query.format(folder=folder) for query in OF_THE_FILE]
        words = [sys.executable, "-c", AS_ANOTHER, str(folder / "current.duckdb"), settings]
        said = subprocess.run([*words, *queries], capture_output=True, text=True, check=True)
        assert said.stdout == "24\n", said
        assert (sorted(folder.rglob("*")), file.read_bytes()) == before
        folder.chmod(0o755)
