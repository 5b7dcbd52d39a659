"""The files of a list: texts that come back as they were, dates that stay, deltas that add up."""

import csv
import hashlib
import hmac
import io
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from campaign_nights import AS_OF, RUN, chosen, removed, small_night
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from published import flip

from jobs.campaigns.files import audience_path, changes, harmless, read_list, write_list
from jobs.campaigns.selection import Selection
from jobs.errors import InputMissing, ResourceError

KEY = "a key that nobody guesses"
LATER = AS_OF + timedelta(days=1)


def selected(**options: object) -> Selection:
    (selection,) = chosen(small_night(), options)
    return selection


def written(
    home: Path, selection: Selection, *, run_id: str = RUN, at: datetime = AS_OF, sent: tuple = ()
) -> Path:
    write_list(selection, home=home, run_id=run_id, at=at, sent=sent)
    return home / "campaigns" / "c0" / f"{run_id}.csv"


def test_both_files_hold_the_same_lines_and_formulas_are_harmless(tmp_path) -> None:
    path = written(tmp_path, selected())
    exact = pl.read_parquet(path.with_suffix(".parquet"))
    assert exact.columns == [
        "campaign", "run_id", "as_of", "user_id", "place", "item_id", "title", "behaviour",
        "horizon_days", "probability", "generators", "reason", "UPDATED_AT",
    ]  # fmt: skip
    text = pl.read_csv(path)
    assert len(text) == len(exact) == 18
    assert exact.get_column("title").to_list()[:3] == ["=cmd()", "Bowl", None]
    assert text.get_column("title").to_list()[:3] == ["'=cmd()", "Bowl", None]
    assert text.get_column("as_of").unique().to_list() == ["2025-06-01T00:00:00Z"]
    assert text.get_column("generators")[0] == "nearest popular"
    assert text.get_column("reason").to_list()[:3] == ["So.", None, None]
    for column in ("title", "reason", "item_id"):
        assert read_list(path).get_column(column).equals(exact.get_column(column))
    assert not [found for found in tmp_path.rglob(".*")]


@given(st.lists(st.one_of(st.none(), st.text(alphabet="'=+-@\t\r\n\",;ab ", max_size=6))))
def test_texts_come_back_as_they_were_and_none_starts_a_formula(texts: list[str | None]) -> None:
    rows = pl.DataFrame({"n": range(len(texts)), "text": pl.Series(texts, dtype=pl.String)})
    made = harmless(rows)
    assert not made.get_column("text").str.contains(r"^[=+\-@\t\r]").any()
    file = io.BytesIO()
    made.write_csv(file)
    file.seek(0)
    assert read_list(file).get_column("text").to_list() == texts
    cells = [
        row["text"] for row in csv.DictReader(io.StringIO(file.getvalue().decode(), newline=""))
    ]
    assert [cell.removeprefix("'") for cell in cells] == [text or "" for text in texts]


def test_one_row_for_each_user(tmp_path) -> None:
    path = written(tmp_path, selected(layout="users", items_per_user=2, max_per_category=1))
    rows = pl.read_parquet(path.with_suffix(".parquet"))
    assert rows.columns == [
        "campaign", "run_id", "as_of", "user_id", "behaviour", "horizon_days", "items",
        "item_id_1", "title_1", "probability_1", "reason_1",
        "item_id_2", "title_2", "probability_2", "reason_2", "UPDATED_AT",
    ]  # fmt: skip
    assert rows.get_column("user_id").to_list() == [1, 2, 3, 4, 5, 6]
    first = rows.row(0, named=True)
    assert (first["items"], first["item_id_1"], first["item_id_2"]) == (2, "a", "b")
    assert first["probability_2"] == pytest.approx(0.31)
    alone = written(
        tmp_path / "alone",
        selected(layout="users", max_per_category=1, exclude_categories=["home"]),
    )
    rows = pl.read_parquet(alone.with_suffix(".parquet"))
    assert rows.get_column("items").unique().to_list() == [1]
    assert rows.get_column("item_id_2").null_count() == 6


def test_updated_at_moves_only_with_what_is_seen(tmp_path) -> None:
    selection = selected(items_per_user=1)
    written(tmp_path, selection)
    lines = selection.lines.with_columns(
        probability=pl.col("probability") / 2,  # not seen
        reason=pl.when(pl.col("user_id") == 2).then(pl.lit("Why.")).otherwise("reason"),
        item_id=pl.when(pl.col("user_id") == 3).then(pl.lit("c")).otherwise("item_id"),
    ).filter(pl.col("user_id") != 4)
    path = written(tmp_path, replace(selection, lines=lines), run_id="20250602", at=LATER)
    found = pl.read_parquet(path.with_suffix(".parquet")).select("user_id", "UPDATED_AT").rows()
    assert found == [(1, AS_OF), (2, LATER), (3, LATER), (5, AS_OF), (6, AS_OF)]


def test_written_again_a_list_is_the_same_to_the_byte(tmp_path) -> None:
    path = written(tmp_path, selected())
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    assert len(files) == 7
    before = {file: file.read_bytes() for file in files}
    path.unlink()
    written(tmp_path, selected(), at=LATER)
    assert {file: file.read_bytes() for file in files} == before


def test_a_damaged_list_is_compared_with_nothing_and_is_named(tmp_path) -> None:
    earlier = written(tmp_path, selected()).with_suffix(".parquet")
    flip(earlier, 0.5)
    own = written(tmp_path, selected(), at=LATER)  # it is written anew
    assert set(pl.read_parquet(own.with_suffix(".parquet")).get_column("UPDATED_AT")) == {LATER}
    flip(earlier, 0.5)
    with pytest.raises(ResourceError, match=r"20250601\.parquet is missing or damaged"):
        written(tmp_path, selected(), run_id="20250602", at=LATER)
    manifest = earlier.with_suffix(".json")
    counted = manifest.read_text()
    manifest.write_text(counted.replace('"lines": 1', '"lines": 2', 1))
    assert manifest.read_text() != counted
    for sent, run_id in (((), "20250602"), (("20250601",), "20250601")):
        with pytest.raises(ResourceError, match=r"20250601\.json is damaged"):
            written(tmp_path, selected(), run_id=run_id, at=LATER, sent=sent)
    manifest.unlink()  # it was not finished
    assert written(tmp_path, selected(), run_id="20250602", at=LATER).exists()


def test_the_delta_is_against_the_last_list_that_was_sent(tmp_path) -> None:
    selection = selected(items_per_user=1)
    written(tmp_path, selection, run_id="1")
    fewer = replace(selection, lines=selection.lines.filter(pl.col("user_id") < 3))
    path = written(tmp_path, fewer, run_id="2")  # written, but not sent
    new = selection.lines.with_columns(
        reason=pl.when(pl.col("user_id") == 2).then(pl.lit("Why.")).otherwise("reason"),
        item_id=pl.when(pl.col("user_id") == 3).then(pl.lit("c")).otherwise("item_id"),
    )
    path = written(tmp_path, replace(selection, lines=new), run_id="3", sent=("1", "2b"))
    delta = pl.read_parquet(path.parent / "delta" / "3.parquet")
    rows = delta.select("change", "user_id", "item_id").rows()
    assert rows == [("added", 3, "c"), ("changed", 2, "a"), ("removed", 3, "a")]
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["delta_to"] == "1"
    assert manifest["delta"] == {"added": 1, "changed": 1, "removed": 1}


table = st.dictionaries(st.integers(0, 5), st.sampled_from(["x", "y", None]))


@given(table, table)
def test_a_delta_turns_the_last_list_into_this_one(old: dict, new: dict) -> None:
    def frame(rows: dict) -> pl.DataFrame:
        schema = {"user_id": pl.Int64, "title": pl.String}
        return pl.DataFrame(list(rows.items()), schema, orient="row").sort("user_id")

    delta = changes(frame(new), frame(old))
    patched = dict(old)
    for change, user, title in delta.rows():
        if change == "removed":
            assert patched.pop(user) == title
        else:
            assert (user in patched) == (change == "changed")
            patched[user] = title
    assert_frame_equal(frame(patched), frame(new))


def test_the_manifest_counts_and_seals(tmp_path) -> None:
    selection = selected(holdout_share=0.4)
    path = written(tmp_path, selection)
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["lines"] == len(pl.read_csv(path))
    assert manifest["users"] == pl.read_csv(path).get_column("user_id").n_unique()
    assert manifest["holdout"] == removed(selection)["holdout"][0] > 0
    assert manifest["users"] + manifest["holdout"] == 6
    assert sum(step["lines"] for step in manifest["waterfall"][1:]) == 32
    assert manifest["configuration"]["holdout_share"] == 0.4
    assert list(manifest["sha256"]) == [
        f"{RUN}.csv", f"{RUN}.parquet", f"delta/{RUN}.csv", f"delta/{RUN}.parquet"
    ]  # fmt: skip
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == digest
    audience = pl.read_parquet(audience_path(tmp_path, "c0", RUN))
    listed = set(pl.read_csv(path).get_column("user_id"))
    held = set(audience.filter(pl.col("arm") == "holdout").get_column("user_id"))
    assert held
    assert not held & listed


def test_ids_are_hashed_with_a_key_or_not_written_at_all(tmp_path, monkeypatch) -> None:
    selection = selected(hash_ids_with="MAIL_KEY", items_per_user=1)
    for key in (None, "short"):
        if key:
            monkeypatch.setenv("MAIL_KEY", key)
        with pytest.raises(InputMissing, match=r"MAIL_KEY must hold a key of 16"):
            written(tmp_path, selection)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    monkeypatch.setenv("MAIL_KEY", KEY)
    path = written(tmp_path, selection)
    expected = [
        hmac.new(KEY.encode(), str(user).encode(), "sha256").hexdigest() for user in range(1, 7)
    ]
    assert pl.read_csv(path).get_column("user_id").to_list() == expected
    assert KEY not in path.with_suffix(".json").read_text()
    audience = pl.read_parquet(audience_path(tmp_path, "c0", RUN))
    assert audience.get_column("exported_as").to_list() == expected
    assert audience.get_column("user_id").to_list() == [1, 2, 3, 4, 5, 6]


def test_a_list_that_was_sent_stays_as_it_is(tmp_path) -> None:
    path = written(tmp_path, selected())
    before = path.read_bytes()
    lines = write_list(selected(items_per_user=1), home=tmp_path, run_id=RUN, at=LATER, sent=(RUN,))
    assert lines == 18
    assert path.read_bytes() == before
