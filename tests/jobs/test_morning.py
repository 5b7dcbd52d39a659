"""The morning page of whole nights: its figures, its looks, and where it is written."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from forks import QUICK, command, done
from nights import read, write_night
from pages import measured, outside, seen, tables_of
from selectolax.lexbor import LexborHTMLParser

from jobs import morning, nightly, nights, publish
from jobs.errors import GateRefused, InputMissing
from jobs.ledger import Ledger
from jobs.nightly import Night
from jobs.page import cell
from jobs.retention import removable

STRANGE = "<script>alert(\"x\")</script> & 'so'"
SHOP = (
    QUICK
    + """
[[campaign]]
name = "again"
behaviour = "click"
items_per_user = 1
priority = 2
holdout_share = 0.2

[gates]
least_positives = 1
normalised_entropy = 0.001
"""
)


@dataclass(frozen=True)
class Mornings:
    """Two nights, the second of which a gate refused before it was let pass.

    Attributes:
        night: the second.
        refused: its page when it was refused.
        shown: what `report.html` was then.
    """

    night: Night
    refused: str
    shown: str

    @property
    def scores(self) -> list[Path]:
        return nights.kept(self.night.home)


@pytest.fixture(scope="module")
def mornings(tmp_path_factory: pytest.TempPathFactory) -> Mornings:
    night = write_night(tmp_path_factory.mktemp("mornings"), SHOP)
    before = replace(night, as_of=night.as_of - timedelta(days=1))
    nightly.run(before, override="Ada: a small shop")
    ledger = nightly.begin(night, "20250601T0000-second")
    with pytest.raises(GateRefused):
        nightly.run(night, ledger)
    refused = nights.page_of(night.home, ledger.run_id).read_text("utf-8")
    shown = (night.home / nights.PAGE).read_text("utf-8")
    nightly.run(night, Ledger(ledger.folder), override="Ada: a small shop", again=True)
    return Mornings(night, refused, shown)


@pytest.fixture(scope="module")
def page(mornings: Mornings) -> str:
    return (mornings.night.home / nights.PAGE).read_text("utf-8")


def facts(text: str) -> dict[str, str]:
    page = LexborHTMLParser(text)
    return {node.attributes["data-fact"] or "": node.text() for node in page.css("dd")}


def shown(text: str, title: str, *columns: str) -> list[tuple[str, ...]]:
    table = tables_of(LexborHTMLParser(text))[title]
    return table.select(columns or pl.all()).rows()


def told(night: Night, sql: str) -> list[tuple[str, ...]]:
    """The answer of the night's tables as cells show it."""
    return [tuple(map(cell, row)) for row in read(night, sql).iter_rows()]


def state(text: str) -> str:
    return LexborHTMLParser(text).css_first(".state").text()


def test_the_first_lines_say_which_night_it_is_and_what_became_of_it(
    mornings: Mornings, page: str
) -> None:
    names = "run_id, as_of, started_at, finished_at, model_version, predictions"
    first = told(mornings.night, f"select {names} from runs")[0]
    found = facts(page)
    assert tuple(found.values())[:6] == first
    assert found["users"] == told(mornings.night, "select count(*) from users")[0][0]
    assert (found["newest event"], found["hours from it to as_of"]) == told(
        mornings.night,
        "select max(last_at), round(date_diff('second', max(last_at), as_of) / 3600.0, 1) "
        "from user_behaviours, runs group by as_of",
    )[0]
    assert state(page).startswith("Published.")
    assert "by Ada: a small shop" in state(page)


def test_a_refused_night_has_a_page_that_says_so_and_is_not_the_one_shown(
    mornings: Mornings, page: str
) -> None:
    assert state(mornings.refused).startswith("Refused.")
    assert "not current" in state(mornings.refused)
    outcomes = dict(shown(mornings.refused, "Figures and their bounds", "gate", "outcome"))
    assert outcomes["normalised_entropy"] == "refused"
    assert facts(mornings.refused)["run"] == facts(page)["run"]
    assert facts(mornings.shown)["as_of"] == "2025-05-31"
    assert not list(mornings.night.home.glob(".build-*"))


ASKED = {
    "Rows of the sources": "select * exclude (run_id) from sources",
    "Texts encoded and cached": "select * exclude (run_id) from texts",
    "Time and memory by stage": "select * exclude (run_id) from stages",
    "Quarantined by rule": """
        select source, rule, "column", count(*), (
            select count(*) from history.quarantine h where h.source = q.source
            and h.rule = q.rule and h."column" is not distinct from q."column")
        from quarantine q group by all order by all""",
    "Newest events": """
        select behaviour, count(*), sum(events)::bigint, max(last_at),
               round(date_diff('second', max(last_at), any_value(as_of)) / 3600.0, 1)
        from user_behaviours, runs group by behaviour order by 4 desc, 1""",
    "Nights": """
        select run_id, as_of, started_at, finished_at, model_version, predictions,
               (select count(*) from mart.quarantine_v1 q where q.run_id = r.run_id)
        from mart.runs_v1 r order by as_of desc""",
    "Expected numbers by night": """
        select as_of, (select sum(expected) from mart.item_demand_v1 d
                       where d.run_id = r.run_id and level = 'category'),
               (select sum(probability) from mart.user_propensity_v1 p where p.run_id = r.run_id)
        from mart.runs_v1 r order by as_of desc""",
    "Recall by generator": """
        select segment[11:], value from metrics where metric = 'candidate_recall'
        and segment like 'generator:%' order by value desc""",
    "Recall of the union, and of its first by fusion": """
        select metric, value from metrics where model = 'nightrank' and segment = 'all'
        and (metric = 'candidate_recall' or metric like 'recall@%')
        order by metric like 'recall@%', try_cast(metric[8:] as integer)""",
    "Predicted and observed by bin": """
        select behaviour, bin, pairs, positives, predicted, observed, low, high from calibration
        where model = 'nightrank' and segment = 'all' and bins = 'expected' order by bin""",
    "Drift against the night before": """
        select gate, subject, value, high from gates
        where gate in ('rows_over_last', 'score_drift') order by all""",
}


@pytest.mark.parametrize("title", ASKED)
def test_the_figures_are_those_of_the_tables(mornings: Mornings, page: str, title: str) -> None:
    expected = told(mornings.night, ASKED[title])
    assert expected
    assert shown(page, title) == expected


def test_every_gate_that_failed_is_there_and_those_of_behaviours(
    mornings: Mornings, page: str
) -> None:
    found = shown(page, "Figures and their bounds")
    failed = told(
        mornings.night,
        "select gate, subject, value, low, high, 'overridden by ' || overridden_by from gates "
        "where not passed order by all",
    )
    assert failed
    assert found[: len(failed)] == failed
    passed = set(found[len(failed) :])
    assert passed <= set(
        told(
            mornings.night,
            "select gate, subject, value, low, high, 'passed' from gates where passed",
        )
    )
    of_click = "select gate from gates where passed and subject = 'click'"
    assert {row[0] for row in passed if row[1] == "click"} == {
        gate for (gate,) in told(mornings.night, of_click)
    }
    assert len([row for row in passed if row[0] == "null_share_risen"]) == 3


def test_metrics_stand_beside_those_of_the_night_before(mornings: Mornings, page: str) -> None:
    found = tables_of(LexborHTMLParser(page))["Metrics of this night's models and of earlier ones"]
    ours = found.filter(model="nightrank")
    assert ours["night"].to_list() == ["2025-06-01", "2025-05-31"]
    for name in ours.columns[3:]:
        expected = told(
            mornings.night,
            f"select value from mart.metrics_v1 where metric = '{name}' and model = 'nightrank' "
            "and segment = 'all' order by as_of desc",
        )
        assert [(value,) for value in ours[name]] == expected
    assert set(found["model"]) == {"nightrank", "popularity", "user_propensity", "activity"}


def test_probabilities_are_counted_on_the_places_that_both_nights_have(
    mornings: Mornings, page: str
) -> None:
    found = tables_of(LexborHTMLParser(page))["Pairs by probability"]
    sums = [found[name].str.replace_all(",", "").cast(int).sum() for name in found.columns[3:]]
    places = "select count(*) from {}.predictions where position <= 10"
    assert sums == [
        read(mornings.night, places.format(schema)).item() for schema in ("main", "history")
    ]
    low, high, count = found.select("from", "to", "tonight").row(3)
    exact = read(
        mornings.night,
        "select count(*) from predictions where position <= 10 and probability >= "
        f"{10 ** (round(4 * pl.Series([float(low)]).log(10).item()) / 4)} and probability < "
        f"{10 ** (round(4 * pl.Series([float(high)]).log(10).item()) / 4)}",
    ).item()
    assert count == cell(exact)


def test_a_waterfall_for_each_campaign_and_what_changed_since_the_last_list(
    mornings: Mornings, page: str
) -> None:
    for name in ("summer", "again"):
        found = shown(page, f"Campaign {name}")
        expected = told(
            mornings.night,
            "select reason, t.users, t.lines, l.lines from campaign_waterfall t left join "
            "history.campaign_waterfall l using (campaign, reason) "
            f"where campaign = '{name}' order by t.step",
        )
        nothing = [row for row in expected if set(row[1:]) == {"0"} and row[0] != "final"]
        assert found == [row for row in expected if row not in nothing]
        lines = [int(row[2].replace(",", "")) for row in found]
        assert lines[0] == sum(lines[1:])
    final = {row[0]: row[-1] for row in shown(page, "Campaign summer", "reason", "lines")}
    changes = dict((row[0], row[1:]) for row in shown(page, "Lists against those sent last"))
    assert changes["summer"] == ("none yet", final["final"], "0", "0")


def test_three_users_by_a_fixed_choice_with_their_first_rows(mornings: Mornings, page: str) -> None:
    titles = [name for name in tables_of(LexborHTMLParser(page)) if name.startswith("User ")]
    counted = read(
        mornings.night,
        "select user_id, coalesce(sum(events), 0)::bigint as events from users "
        "left join user_behaviours using (user_id) group by all order by events, user_id",
    ).rows()
    active = [row for row in counted if row[1]]
    chosen = [active[-1], active[(len(active) - 1) // 2], next(r for r in counted if not r[1])]
    for title, (user, events) in zip(titles, chosen, strict=True):
        assert title.startswith(f"User {user}: ")
        assert title.endswith(f"({events:,})")
        assert shown(page, title) == told(
            mornings.night,
            "select behaviour, position, item_id, probability, "
            "array_to_string(generators, ' '), reason "
            f"from predictions where user_id = {user} and position <= 5 order by position",
        )


def test_the_page_of_a_file_is_always_the_same_and_small(mornings: Mornings, page: str) -> None:
    assert morning.render(mornings.scores[-1]) == page
    assert len(page.encode()) < 2_000_000
    assert outside(page) == []


def test_the_first_night_has_nothing_before_it(mornings: Mornings) -> None:
    text = morning.render(mornings.scores[0])
    assert len(shown(text, "Nights")) == 1
    assert "Drift against the night before" not in text
    assert {row[-1] for row in shown(text, "Quarantined by rule")} == {"0"}


@pytest.fixture
def altered(mornings: Mornings, tmp_path: Path) -> Iterator[Path]:
    """A copy of the night's file that may be written."""
    copy = tmp_path / "scores-altered.duckdb"
    shutil.copyfile(mornings.scores[-1], copy)
    return copy


def test_what_the_tables_say_is_text_and_never_markup(altered: Path) -> None:
    with duckdb.connect(str(altered)) as connection:
        for change in (
            "predictions set reason = $strange",
            "predictions set behaviour = $strange",
            "calibration set behaviour = $strange",
            "metrics set behaviour = $strange",
            "campaign_waterfall set campaign = $strange",
            "gates set overridden_by = $strange where not passed",
        ):
            connection.execute(f"update {change}", {"strange": STRANGE})
    text = morning.render(altered)
    assert "<script" not in text
    assert outside(text) == []
    assert state(text).endswith(f"by {STRANGE}.")
    page = LexborHTMLParser(text)
    assert f"Campaign {STRANGE}" in tables_of(page)
    assert f"Reliability, {STRANGE}" in [node.text() for node in page.css("figure h3")]
    assert page.css_first('table[data-title^="User"] tbody td:last-child').text() == STRANGE


def test_no_review_and_no_bad_value_is_on_the_page(mornings: Mornings, page: str) -> None:
    said = pl.read_parquet(mornings.night.root / "reviews.parquet")["text"].drop_nulls()
    bad = read(mornings.night, "select value from quarantine where value is not null")["value"]
    private = [*said.filter(said.str.len_chars() > 20), *bad.filter(bad.str.len_chars() > 4)]
    assert len(private) > 100
    assert [text for text in private if text in page] == []


def test_an_id_that_is_an_address_is_not_shown(altered: Path) -> None:
    with duckdb.connect(str(altered)) as connection:
        find = "select sql from duckdb_views() where view_name = 'predictions_v1'"
        ((view,),) = connection.sql(find).fetchall()
        connection.execute("drop view mart.predictions_v1")
        for table in ("predictions", "user_behaviours", "history.predictions"):
            connection.execute(f"alter table {table} alter user_id type varchar")
            connection.execute(f"update {table} set user_id = user_id || '@shop.example'")
        connection.execute(view)
    text = morning.render(altered)
    assert "shop.example" not in text
    assert (
        text.count("an address, not shown") == 3 * 3
    )  # each user's caption, and twice for the browser


def test_a_browser_shows_it_and_has_nothing_to_complain_of(
    mornings: Mornings, page: str, browser: str, tmp_path: Path
) -> None:
    found = seen(browser, nights.page_of(mornings.night.home, facts(page)["run"]), tmp_path)
    known = tables_of(LexborHTMLParser(page))
    for title, frame in tables_of(found).items():
        assert frame.equals(known.pop(title))
    assert not known


@pytest.mark.parametrize("width", [1400, 380])
def test_it_fits_the_window_and_loads_nothing(
    page: str, browser: str, tmp_path: Path, width: int
) -> None:
    found = measured(browser, page, tmp_path, width=width)
    assert found["requests"] == []
    assert found["needed"] <= found["inner"] == width
    assert len(found["rights"]) == page.count("<figure")
    assert max(found["rights"]) <= found["inner"]


def test_a_browser_does_complain_where_a_page_asks_for_something(
    page: str, browser: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(page.replace("</body>", "<img src='https://shop.example/x.png'></body>"))
    with pytest.raises(AssertionError):
        seen(browser, bad, tmp_path)


def test_the_command_writes_the_page_of_any_kept_night_again(
    mornings: Mornings, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(mornings.night.home, home, symlinks=True)
    runs = [nights.run_of(path) for path in mornings.scores]
    before = {run: nights.page_of(home, run).read_bytes() for run in runs}
    shutil.rmtree(home / "reports")
    config = str(mornings.night.root / "small.toml")
    for number, words in enumerate(([], [runs[0]], ["nobody"])):
        said = done(
            command, ["report", config, *words, "--home", str(home)], tmp_path / str(number)
        )
        assert said == (0, 0, 4)[number]
    assert {run: nights.page_of(home, run).read_bytes() for run in runs} == before
    assert (home / nights.PAGE).read_bytes() == before[runs[1]]


def test_the_link_goes_with_the_night_that_is_current(mornings: Mornings, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(mornings.night.home, home, symlinks=True)
    link = home / nights.PAGE
    first, second = (nights.page_of(home, nights.run_of(path)) for path in mornings.scores)
    assert link.resolve() == second
    nights.rollback(home)
    assert link.resolve() == first
    second.unlink()
    nights.rollback(home, to=second.stem)
    assert not link.is_symlink()
    morning.try_current(nights.named(home, None))
    assert link.resolve() == second
    with pytest.raises(InputMissing, match=f"{first.stem}, {second.stem}"):
        nights.named(home, "nobody")


def test_a_page_goes_when_neither_its_night_nor_its_run_is_kept(
    mornings: Mornings, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(mornings.night.home, home, symlinks=True)
    keep = mornings.night.config.retention

    def gone() -> list[str]:
        return [one.paths[0].stem for one in removable(home, keep) if one.kind == "page"]

    nights.page_of(home, "20250101T0000-refused").write_text("x")
    (home / "runs" / "20250101T0000-refused").mkdir()
    assert gone() == []
    (home / "runs" / "20250101T0000-refused").rmdir()
    assert gone() == ["20250101T0000-refused"]


def test_a_page_that_fails_stops_no_night(mornings: Mornings, tmp_path: Path) -> None:
    broken = tmp_path / "scores-broken.duckdb"
    with duckdb.connect(str(broken)) as connection:
        connection.execute("create table runs (run_id varchar)")
    stale = nights.page_of(tmp_path, "broken")
    stale.parent.mkdir()
    stale.write_text("of the time when it was refused")
    assert morning.try_current(broken) is None
    assert not stale.exists()
    with pytest.raises(duckdb.Error):
        morning.render(broken)
    missing: publish.Contents = {"shards": tmp_path, "reasons": tmp_path}  # type: ignore[typeddict-item]
    run = publish.Run("r", mornings.night.as_of, mornings.night.as_of, "m")
    morning.try_refused(tmp_path, run, missing)
    assert list(stale.parent.iterdir()) == []
