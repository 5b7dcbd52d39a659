"""Names, keys and comments of a whole night; run as a script, this rewrites docs/tables.md."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
from marts import ask, night_file
from nights import read, write_night

from jobs import dictionary, nightly, publish
from jobs.dictionary import tables

DOCS = Path(__file__).resolve().parents[2] / "docs"
VIEWS = [
    "calibration_v1", "campaign_lift_v1", "campaign_waterfall_v1", "candidate_misses_v1",
    "data_dictionary",
    "freshness_v1", "item_demand_v1", "metrics_v1", "predictions_v1", "quarantine_v1", "runs_v1",
    "user_propensity_v1",
]  # fmt: skip


def test_the_views_and_the_columns_that_they_promise(done) -> None:
    night, _ = done
    found = read(
        night,
        "select table_name, list(column_name order by column_index) as columns from "
        "duckdb_columns() where schema_name = 'mart' group by all order by all",
    )
    assert found.get_column("table_name").to_list() == VIEWS
    promised = dict(found.iter_rows())
    assert promised["predictions_v1"] == [
        "run_id", "as_of", "is_current", "user_id", "item_id", "behaviour", "horizon_days",
        "position", "score", "probability", "generators", "reason", "model_version", "scored_at",
    ]  # fmt: skip
    assert promised["item_demand_v1"] == [
        "run_id", "as_of", "is_current", "level", "item_id", "category", "brand", "behaviour",
        "horizon_days", "pairs", "expected", "low", "high",
    ]  # fmt: skip
    assert promised["campaign_waterfall_v1"] == [
        "run_id", "as_of", "is_current", "campaign", "step", "reason", "users", "lines",
    ]  # fmt: skip


def test_the_grain_of_every_table_is_what_its_keys_say(done, tmp_path) -> None:
    night, _ = done
    last = night_file(tmp_path, 0)
    for path in (night.home / publish.CURRENT, night_file(tmp_path, 1, last=last)):
        keyed = ask(
            path, "select distinct table_schema, table_name, keys from mart.data_dictionary"
        )
        assert len(keyed) >= 28
        for schema, table, keys in keyed.iter_rows():
            columns = ", ".join(f'"{key}"' for key in keys.split(", "))
            twice = f"select {columns} from {schema}.{table} group by all having count(*) > 1"
            assert ask(path, twice).is_empty(), (schema, table, keys)


def test_every_table_and_column_carries_its_comment(done) -> None:
    night, _ = done
    columns = read(
        night,
        "select schema_name, table_name, column_name, comment from duckdb_columns() "
        "where not internal order by all",
    )
    assert (columns.get_column("comment").fill_null("") != "").all()
    assert len(columns) > 250
    objects = read(
        night,
        "select table_name, comment from duckdb_tables() union all "
        "select view_name, comment from duckdb_views() where not internal",
    )
    assert objects.filter(pl.col("comment").is_null()).is_empty()
    assert (
        read(
            night,
            "select comment from duckdb_columns() where schema_name = 'mart' "
            "and table_name = 'predictions_v1' and column_name = 'probability'",
        ).item()
        == tables()["main.predictions"].columns["probability"]
    )
    listed = read(
        night,
        "select table_schema, table_name, column_name, comment from mart.data_dictionary",
    )
    assert listed.sort(pl.all()).rows() == columns.rows()


def test_no_word_is_of_a_table_or_column_that_is_not_there(done) -> None:
    night, _ = done
    found = read(night, "select table_schema, table_name, column_name from mart.data_dictionary")
    there = {f"{schema}.{table}" for schema, table, _ in found.iter_rows()}
    assert {name for name in tables() if not name.startswith("history.")} <= there
    words = Path(dictionary.__file__).with_name("tables.toml").read_text()
    named = re.findall(r"^(\w+) = ", words, flags=re.MULTILINE)
    columns = set(found.get_column("column_name")) | {"keys", "attribute", "comment", "grain"}
    assert set(named) <= columns


@pytest.mark.parametrize("part", ["tables", "columns"])
def test_the_lists_of_the_docs_are_those_of_the_comments(done, part: str) -> None:
    night, _ = done
    text = (DOCS / "tables.md").read_text()
    with publish.open_scores(night.home / publish.CURRENT) as connection:
        assert with_lists(text, connection) == text, (
            "run PYTHONPATH=. python tests/jobs/test_dictionary.py"
        )


def with_lists(text: str, connection: duckdb.DuckDBPyConnection) -> str:
    """The page with its two lists, of tables and of columns, as the comments say."""
    rows = connection.sql(
        "from mart.data_dictionary where table_schema <> 'history' "
        "order by table_schema, table_name, column_position"
    ).pl()
    lists = {"tables": list_tables(rows), "columns": list_columns(rows)}
    for part, lines in lists.items():
        start, end = (
            f"<!-- {part}: written by tests/jobs/test_dictionary.py -->",
            f"<!-- end of {part} -->",
        )
        before, rest = text.split(start)
        written = "\n".join(lines)
        text = f"{before}{start}\n\n{written}\n\n{end}{rest.split(end)[1]}"
    return text


def list_tables(rows: pl.DataFrame) -> Iterator[str]:
    for (schema,), of_schema in rows.group_by("table_schema", maintain_order=True):
        yield from ([] if schema == "main" else ["", "In the schema `mart`:", ""])
        yield from ["| table | one row for | what it is |", "|---|---|---|"]
        told = of_schema.select("table_name", "grain", "table_comment").unique(maintain_order=True)
        for name, grain, comment in told.iter_rows():
            yield f"| `{name}` | {grain} | {comment} |"


def list_columns(rows: pl.DataFrame) -> Iterator[str]:
    own = rows.filter(pl.col("comment") != tables()["main.items"].columns["attribute"])
    for (schema, name), columns in own.group_by("table_schema", "table_name", maintain_order=True):
        keys = ", ".join(f"`{key}`" for key in columns["keys"][0].split(", "))
        yield from [f"### `{schema}.{name}`", "", f"No two rows have the same {keys}.", ""]
        yield from ["| column | type | meaning |", "|---|---|---|"]
        for column, kind, comment in columns.select(
            "column_name", "data_type", "comment"
        ).iter_rows():
            yield f"| `{column}` | {kind.lower()} | {comment} |"
        yield ""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        shop = write_night(Path(folder))
        nightly.run(shop)
        with publish.open_scores(shop.home / publish.CURRENT) as current:
            page = DOCS / "tables.md"
            page.write_text(with_lists(page.read_text(), current))
