"""The sections of the morning page, each from queries to the night's file."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from jobs import charts, figures
from jobs import morning_queries as queries
from jobs.campaigns.files import told
from jobs.figures import Figure
from jobs.page import Section

Ask = Callable[[str], pl.DataFrame]

# The metrics worth a column each; the table `metrics` holds the rest.
METRICS = (
    "positives",
    "candidate_recall",
    "auc",
    "log_loss",
    "normalised_entropy",
    "calibration_error",
    "predicted_over_observed",
    "ndcg@10",
    "hr@10",
)
# Those of them that are drawn where the nights had different models.
DRAWN = ("candidate_recall", "normalised_entropy", "predicted_over_observed", "ndcg@10")

DELTAS = {
    "campaign": pl.String,
    "sent": pl.String,
    **dict.fromkeys(("added", "changed", "removed"), pl.Int64),
}


def of_night(ask: Ask, changes: pl.DataFrame) -> list[Section]:
    """All sections in the order of reading.

    Args:
        ask: answers a query to the night's file.
        changes: see `deltas`.
    """
    made = (
        freshness, gates, rows, texts, candidates, last_nights, metrics, reliability, drift, stages,
    )  # fmt: skip
    return [*(section(ask) for section in made), campaigns(ask, changes), examples(ask)]


def freshness(ask: Ask) -> Section:
    """When each behaviour was last seen."""
    says = (
        "The newest event of each behaviour before as_of; one that is older than it used to be "
        "tells of a feed that has stopped."
    )
    return Section("Freshness", says, tables={"Newest events": ask(queries.FRESHNESS)})


def gates(ask: Ask) -> Section:
    """What was checked before publishing."""
    checked, failed = ask("select count(*), count(*) filter (not passed) from gates").row(0)
    says = (
        f"{checked:,} figures were checked, {failed:,} did not pass. Shown are those that did "
        "not, all of behaviours, and of features the three nearest to their bounds; the table "
        "gates has the rest."
    )
    return Section("Gates", says, tables={"Figures and their bounds": ask(queries.GATES)})


def rows(ask: Ask) -> Section:
    """What came in, and what was put aside by which rule."""
    says = (
        "Later rows are those at or after as_of; no use is made of them. A row that breaks "
        "several rules counts for each; docs/data.md tells what they are."
    )
    tables = {
        "Rows of the sources": ask("select * exclude (run_id) from sources"),
        "Quarantined by rule": ask(queries.QUARANTINE),
    }
    return Section("Rows", says, tables=tables)


def texts(ask: Ask) -> Section:
    """What had to be encoded."""
    says = "A text that was seen before, by the same language model, comes from the cache."
    frame = ask("select * exclude (run_id) from texts")
    return Section("Texts", says, tables={"Texts encoded and cached": frame})


def candidates(ask: Ask) -> Section:
    """How much of what happened the generators proposed."""
    metrics = ask("from metrics where model = 'nightrank'")
    depth = metrics.filter(pl.col("segment") == "all", pl.col("metric").str.contains("recall"))
    by_behaviour = {name: metrics.filter(behaviour=name) for name in _behaviours(metrics)}
    recalls = [
        figures.by_generator(frame).select("generator", behaviour=pl.lit(name), recall="recall")
        for name, frame in by_behaviour.items()
    ]
    return Section(
        "Candidates",
        "Of the test window: the share of what happened that was among the candidates. What no "
        "generator proposes gets no probability.",
        [
            figures.recall(frame, title=f"Recall of the candidates, {name}")
            for name, frame in by_behaviour.items()
        ],
        {
            "Recall by generator": _wide(pl.concat(recalls), "behaviour", "recall"),
            "Recall of the union, and of its first by fusion": _wide(
                depth.select("metric", "behaviour", "value"), "behaviour", "value"
            ),
        },
    )


def last_nights(ask: Ask) -> Section:
    """This night beside those before it."""
    expected = ask(queries.EXPECTED).with_columns(night=_label("as_of"))
    titled = expected.with_columns(
        title=pl.format("Expected {}: {}", pl.col("what"), pl.col("behaviour"))
    )
    return Section(
        "Last nights",
        "Expected numbers are sums of probabilities, over the candidates, and over users whatever "
        "the item. They move with the shop, and by the day of the week; a jump asks for a reason.",
        [
            Figure(str(title), "Sum of probabilities.", charts.nights_plot(frame, value="expected"))
            for (title,), frame in titled.group_by("title", maintain_order=True)
            if len(frame) > 1
        ],
        {
            "Nights": ask(queries.NIGHTS),
            "Expected numbers by night": _wide(
                titled.select("as_of", "title", "expected").sort("as_of", descending=True),
                "title",
                "expected",
            ),
        },
    )


def metrics(ask: Ask) -> Section:
    """The models' figures, beside those of the models of earlier nights."""
    found = ask(queries.METRICS).filter(pl.col("metric").is_in(METRICS))
    wide = _wide(found, "metric", "value")
    drawn = found.filter(
        pl.col("model") == "nightrank", pl.col("metric").is_in(DRAWN)
    ).with_columns(night=_label("night"))
    return Section(
        "Metrics",
        "Of the models on their test window, all candidates; user_propensity and activity are "
        "measured on users. A model that several nights used stands under the newest of them.",
        [
            Figure(
                name,
                "Under the newest night that used each model.",
                charts.nights_plot(frame.reverse(), value="value", colour="behaviour"),
            )
            for (name,), frame in drawn.group_by("metric", maintain_order=True)
            if frame["night"].n_unique() > 1
        ],
        {
            "Metrics of this night's models and of earlier ones": wide.select(
                "behaviour", "night", "model", *(name for name in METRICS if name in wide.columns)
            )
        },
    )


def reliability(ask: Ask) -> Section:
    """Whether what was predicted happened."""
    bins = ask(
        "select * exclude (run_id) from calibration where segment = 'all' and bins = 'expected' "
        "and model = 'nightrank' order by behaviour, bin"
    )
    return Section(
        "Reliability",
        "Whether what was predicted happened, in the test window, over all candidates.",
        [
            figures.reliability(frame, segment="all", what=str(name))
            for (name,), frame in bins.group_by("behaviour", maintain_order=True)
        ],
        {"Predicted and observed by bin": bins.drop("model", "segment", "bins")},
    )


def drift(ask: Ask) -> Section:
    """How the probabilities lie against those of the night before."""
    psi = ask(
        "select gate, subject as behaviour, value as figure, high as most from gates "
        "where gate in ('score_drift', 'rows_over_last') order by all"
    )
    spread = ask(queries.SPREAD)
    parts = {str(name): frame for (name,), frame in spread.group_by("behaviour")}
    least = pl.col("bin") / queries.BINS_PER_DECADE
    return Section(
        "Score drift",
        "score_drift is the population stability index over all candidates. The plots show the "
        "first places of each list: those that the file holds of the night before.",
        [
            Figure(
                f"Probabilities, {name}",
                "Quarters of a power of ten, first places of each list.",
                charts.shares_plot(_shares(parts[name])),
            )
            for name in sorted(parts)
        ],
        {
            "Drift against the night before": psi,
            "Pairs by probability": spread.select(
                "behaviour",
                (10.0**least).alias("from"),
                (10.0 ** (least + 1 / queries.BINS_PER_DECADE)).alias("to"),
                "tonight",
                "night before",
            ),
        },
    )


def stages(ask: Ask) -> Section:
    """What the night took."""
    took = ask("select * exclude (run_id) from stages")
    plots = {
        "seconds": ("Time by stage", "Wall time."),
        "peak_mib": ("Memory by stage", "Most resident memory of the process, MiB."),
    }
    return Section(
        "Stages",
        "Until publishing began. A stage that was done before the run was resumed counts with "
        "the time that it took then.",
        [
            Figure(title, says, charts.bars_plot(took, name="stage", value=name))
            for name, (title, says) in plots.items()
        ],
        {"Time and memory by stage": took},
    )


def campaigns(ask: Ask, changes: pl.DataFrame) -> Section:
    """Who was taken off each list, and what the lists say anew."""
    steps = ask(queries.WATERFALL)
    says = (
        "From those eligible, each step takes users and lines (a user and item each) away; final "
        "are those on the list. Steps that took nothing are left out."
    )
    tables = {"Lists against those sent last": changes}
    for (name,), frame in steps.group_by("campaign", maintain_order=True):
        tables[f"Campaign {name}"] = frame.drop("campaign", "step")
    return Section("Campaigns", says if len(steps) else "There are none.", tables=tables)


def deltas(home: Path, run_id: str) -> pl.DataFrame:
    """campaign, sent (the run that it is compared with), added, changed, removed.

    Args:
        home: the folder of all that is written.
        run_id: of a night; of lists that it has not written there is no row.
    """
    found = []
    for path in sorted(home.glob(f"campaigns/*/{run_id}.json")):
        about = told(path)
        counts = (about["delta"].get(change, 0) for change in ("added", "changed", "removed"))
        found.append((about["campaign"], about["delta_to"] or "none yet", *counts))
    return pl.DataFrame(found, DELTAS, orient="row")


def examples(ask: Ask) -> Section:
    """Three users with what they get and why."""
    found = ask(queries.EXAMPLES)
    tables = {
        f"User {user}: {example} ({events:,})": frame.drop("number", "example", "user", "events")
        for (_, example, user, events), frame in found.group_by(
            "number", "example", "user", "events", maintain_order=True
        )
    }
    return Section(
        "Examples",
        "The first five places of three users' lists: the user with the most events, the middle "
        "one, and the first one without.",
        tables=tables,
    )


def _behaviours(frame: pl.DataFrame) -> list[str]:
    return frame.get_column("behaviour").unique().sort().to_list()


def _label(column: str) -> pl.Expr:
    """A time as a cell shows it."""
    return pl.col(column).dt.strftime("%Y-%m-%d %H:%M").str.strip_suffix(" 00:00")


def _wide(rows: pl.DataFrame, on: str, values: str) -> pl.DataFrame:
    return rows.pivot(on, values=values, maintain_order=True)


def _shares(counts: pl.DataFrame) -> pl.DataFrame:
    """night, from, share: of each night that has any, every bin and an empty one at the end."""
    bins = pl.int_range(pl.col("bin").min(), pl.col("bin").max() + 2, dtype=pl.Int32)
    every = counts.select(bins.alias("bin"))
    nights = ["tonight", "night before"]
    pairs = every.join(counts.select("bin", *nights), on="bin", how="left").fill_null(0)
    long = pairs.unpivot(nights, index="bin", variable_name="night", value_name="pairs")
    share = pl.col("pairs") / pl.col("pairs").sum().over("night")
    low = 10.0 ** (pl.col("bin") / queries.BINS_PER_DECADE)
    return long.select("night", low.alias("from"), share.alias("share")).filter(
        pl.col("share").is_finite()
    )
