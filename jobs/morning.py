"""The morning page: one HTML file a night, made from the night's tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from jobs import morning_sections as sections
from jobs import nights, page, publish
from jobs.console import log
from jobs.morning_sections import Ask

_FACTS = """
select run_id as "run", as_of, started_at as started, finished_at as finished,
       model_version as model, predictions as "pairs scored",
       (select count(*) from users) as users, (select count(*) from items) as items,
       newest as "newest event",
       round((epoch(as_of) - epoch(newest)) / 3600, 1) as "hours from it to as_of"
from runs, (select max(last_at) as newest from user_behaviours)
"""
_FAILED = """
select coalesce(overridden_by, '') as who, count(*) as figures from gates where not passed
group by who order by who
"""


def write_page(scores: Path, run_id: str) -> Path:
    """Write `reports/<run_id>.html` beside a night's file, by one rename; its path."""
    path = nights.page_of(scores.parent, run_id)
    text = render(scores)
    path.parent.mkdir(exist_ok=True)
    return page.write(path, text)


def try_current(scores: Path) -> Path | None:
    """Write the page of the night that has become current, and let `report.html` point at it.

    Without a page, `report.html` goes: it must not show another night.
    """
    run_id, home = nights.run_of(scores), scores.parent
    with _stopping_nothing():
        nights.page_of(home, run_id).unlink(missing_ok=True)  # a gate may have refused it before
        try:
            return write_page(scores, run_id)
        finally:
            nights.show_page(home)
    return None


def try_refused(home: Path, run: publish.Run, contents: publish.Contents) -> None:
    """Write the page of a night that a gate refuses; its tables are built for that and removed."""
    with _stopping_nothing(), publish.draft(home, run, **contents) as (scores, _):
        log.info("page of the refused night", path=str(write_page(scores, run.run_id)))


@contextmanager
def _stopping_nothing() -> Iterator[None]:
    """Log what goes wrong in the body: no night fails for want of its page."""
    try:
        yield
    except Exception as error:  # its words may quote a value
        log.warning("no morning page; `nightrank report` says why", error=type(error).__name__)


def render(scores: Path) -> str:
    """The page of a night's file and of the manifests of its lists, which lie beside it."""
    with publish.open_scores(scores) as connection:

        def ask(sql: str) -> pl.DataFrame:
            answer: pl.DataFrame = connection.sql(sql).pl()
            return answer

        facts = ask(_FACTS).row(0, named=True)
        refused, state = _state(ask)
        deltas = sections.deltas(scores.parent, facts["run"])
        return page.render(
            "morning.html.jinja",
            title=f"Night of {page.cell(facts['as_of'])}",
            refused=refused,
            state=state,
            facts=facts,
            sections=sections.of_night(ask, deltas),
        )


def _state(ask: Ask) -> tuple[bool, str]:
    """Whether a gate refused the night, and what became of it in words."""
    failed = dict(ask(_FAILED).rows())
    if stopped := failed.get(""):
        return True, (
            f"{stopped:,} of the gates' figures are out of their bounds: this night is not "
            "current, readers keep the last good one. All figures below are of the refused night; "
            "docs/runbook.md of nightrank says what to do (exit code 6)."
        )
    by = "; ".join(f"{figures:,} by {who}" for who, figures in failed.items())
    return False, f"Figures out of their bounds were let pass: {by}." if by else (
        "Every gate let it pass."
    )
