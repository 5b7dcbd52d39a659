"""What DuckDB says of a cell that it cannot read is told without the cell."""

from pathlib import Path

import duckdb
import pytest

from jobs.casts import said_of

COLUMNS = "columns = {{user_id: 'varchar', age: 'int'}}"


@pytest.mark.parametrize(
    "sql",
    [
        "select 'anna@mail.example'::int",
        "select strptime('anna 1', '%Y')",
        "select 4711::bigint::tinyint",
        f"from read_csv('{{folder}}/cast.csv', {COLUMNS})",
        f"from read_csv('{{folder}}/bytes.csv', {COLUMNS})",
    ],
)
def test_no_cell_is_quoted(tmp_path: Path, sql: str) -> None:
    (tmp_path / "cast.csv").write_text("user_id,age\nanna@mail.example,O'Hara\n")
    (tmp_path / "bytes.csv").write_bytes(b"user_id,age\nanna,4711\nO\xffHara,1\n")
    with pytest.raises(duckdb.Error) as refused:
        duckdb.sql(sql.format(folder=tmp_path)).fetchall()
    said = said_of(refused.value)
    assert "Error" in said
    assert not any(word in said for word in ("anna", "Hara", "4711"))
