"""Prints what a command did: lines and tables on standard output."""

from collections.abc import Iterator, Sequence

import polars as pl

from jobs import models, nights, publish
from jobs.backtest import differences, spreads
from jobs.campaigns.lists import Written
from jobs.console import show_table
from jobs.evaluation import SAMPLE
from jobs.ledger import unfinished
from jobs.nightly import Night, Outcome
from jobs.propensity import OF_USERS

# The metrics worth a line on a terminal, in the order of reading; the table holds them all.
SHOWN = (
    "candidate_recall",
    "auc",
    "log_loss",
    "normalised_entropy",
    "calibration_error",
    "predicted_over_observed",
    "accuracy",
    "f1",
    "ndcg@10",
    "hr@10",
)
# Those of an ablation that do not depend on which pairs are candidates.
WORTH = ("candidate_recall", "hr@10", "ndcg@10")
QUESTIONS = {
    "the top items of the first user": """
select position, title, round(probability, 4) as probability
from predictions join items using (item_id)
where user_id = (select min(user_id) from predictions) order by behaviour, position limit 10;""",
    "expected behaviours by category": """
select category, behaviour, round(sum(probability), 1) as expected
from predictions join items using (item_id) group by all order by expected desc limit 10;""",
    "users for a campaign": """
select user_id, max(probability) as best
from predictions join users using (user_id) where consent
group by all order by best desc limit 10;""",
}


def show_outcome(night: Night, outcome: Outcome) -> None:
    """The summary of a whole night."""
    show_frame("Rows", outcome.prepared.material.inputs.report)
    show_frame("Texts", outcome.prepared.texts)
    show_metrics(outcome.trained.metrics)
    show_stages(night.stages.frame())
    show_lists(outcome.lists)
    show_line("candidates", f"{outcome.predictions:,}", "scored in", night.home / publish.CURRENT)
    show_line("run", outcome.run.run_id, "with model", outcome.trained.version)
    show_line("page", night.home / nights.PAGE if outcome.page else "not written, see the log")
    print("\nThree things to ask", f"{night.home / publish.CURRENT}:")
    for question, sql in QUESTIONS.items():
        print(f"\n-- {question}{sql}")


def show_metrics(metrics: pl.DataFrame) -> None:
    """Each behaviour's test metrics, a column for each model, and recall by generator."""
    for behaviour in metrics.get_column("behaviour").unique(maintain_order=True):
        mine = metrics.filter(pl.col("behaviour") == behaviour)
        overall, sampled = (mine.filter(pl.col("segment") == name) for name in ("all", SAMPLE))
        parts = [*_pairs_and_users("Test window", overall)]
        if len(sampled):
            parts.append(("Test window, the users that bert has read", sampled))
        for title, part in parts:
            wide = part.pivot("model", index="metric", values="value")
            order = pl.DataFrame({"metric": SHOWN})
            show_frame(
                f"{title}: {behaviour}",
                order.join(wide, on="metric", how="inner", maintain_order="left"),
            )
        generators = mine.filter(
            pl.col("segment").str.starts_with("generator:"), pl.col("metric") == "candidate_recall"
        )
        show_frame(
            f"Candidate recall by generator: {behaviour}",
            generators.select(
                generator=pl.col("segment").str.strip_prefix("generator:"), recall="value"
            ),
        )


def _pairs_and_users(title: str, figures: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """What is measured on pairs, and what on users: the two compare with nothing of the other."""
    of_users = pl.col("model").is_in(OF_USERS)
    yield title, figures.filter(~of_users)
    yield f"{title}, users whatever the item", figures.filter(of_users)


def show_backtest(figures: pl.DataFrame, without: Sequence[str]) -> None:
    """What one window said; of several, or of an ablation, means and spreads by segment."""
    if without:
        _show_ablation(differences(figures), " and ".join(without))
    elif figures.get_column("as_of").n_unique() == 1:
        show_metrics(figures)
    else:
        for title, part in _pairs_and_users("Means over the windows", figures):
            _show_by_behaviour(title, spreads(part))


def _show_ablation(compared: pl.DataFrame, without: str) -> None:
    _show_by_behaviour(f"Without {without}: means over the windows", compared)
    worth = compared.filter(pl.col("segment") == "all", pl.col("metric").is_in(WORTH))
    change = [
        f"{mean:+.4f} ± {spread:.4f}"
        for mean, spread in worth.select("difference", "difference ±").iter_rows()
    ]
    wide = worth.with_columns(change=pl.Series(change, dtype=pl.String)).pivot(
        "metric", index="behaviour", values="change"
    )
    label = pl.lit(f"{without}: full minus without").alias("ablation")
    show_frame(f"What {without} is worth", wide.select(label, pl.all()))


def _show_by_behaviour(title: str, compared: pl.DataFrame) -> None:
    wanted = pl.col("metric").is_in((*SHOWN, "positives"))
    curve = pl.col("metric").str.starts_with("recall@")
    for behaviour in compared.get_column("behaviour").unique(maintain_order=True):
        mine = compared.filter(pl.col("behaviour") == behaviour, wanted | curve)
        show_frame(
            f"{title} (± half the distance of the extremes): {behaviour}", mine.drop("behaviour")
        )


def show_stages(stages: pl.DataFrame) -> None:
    """Seconds and peak memory of each stage."""
    show_frame("Stages", stages)


def show_lists(lists: Sequence[Written]) -> None:
    """Where each campaign's list lies."""
    for written in lists:
        where = written.path if written.refused is None else "no list"
        show_line("campaign", written.campaign, f"{written.lines:,} lines", where)


def show_status(night: Night) -> None:
    """What is current, and what is kept."""
    current = night.home / publish.CURRENT
    if not current.exists():
        show_line("nothing is published in", night.home)
    else:
        with publish.open_scores(current) as connection:
            show_frame("Current night", connection.sql("select * from runs").pl())
            show_frame("Rows", connection.sql("select * exclude (run_id) from sources").pl())
    if (night.home / nights.PAGE).exists():
        show_line("page", night.home / nights.PAGE)
    show_frame("Nights", nights.frame(night.home))
    show_table("Models", ["model"], [[path.name] for path in models.folders(night.home)])
    if runs := unfinished(night.home):
        rows = [(ledger.run_id, ledger.last) for ledger in runs]
        show_table("Unfinished runs, see `nightrank resume`", ["run", "last step done"], rows)


def show_frame(title: str, frame: pl.DataFrame) -> None:
    """A frame as a table."""
    show_table(title, frame.columns, frame.rows())


def show_line(*words: object) -> None:
    """One line."""
    print(*words)
