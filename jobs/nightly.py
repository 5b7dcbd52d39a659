"""The night, top to bottom: ingest, embed, train, score, publish, campaigns."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from embed import EmbeddedTexts, VectorCache, embed_texts, item_texts, load_encoder, review_texts
from index.store import VectorIndex
from jobs import gates, models, nights, publish
from jobs.campaigns.lift import campaign_lift
from jobs.campaigns.lists import Lists, Written
from jobs.campaigns.segments import check_segments, members
from jobs.config import Config
from jobs.console import log, progress
from jobs.ingest import read_inputs
from jobs.manifest import seal
from jobs.propensity import user_table
from jobs.reasons import Reasons
from jobs.report import write_report
from jobs.scoring import predictions, score_pairs
from jobs.stages import Stages
from jobs.state import Material, State
from jobs.training import Trained, train_models
from rank.health import count, seen_range, shares


@dataclass(frozen=True)
class Night:
    """What one command works on: where, when, and how long its stages took.

    Attributes:
        config: the effective configuration.
        as_of: naive UTC; nothing at or after it is used.
        root: where relative paths of the sources start.
        home: where everything that is written lives.
        stages: seconds and memory of each finished stage.
        started_at: naive UTC.
    """

    config: Config
    as_of: datetime
    root: Path
    home: Path
    stages: Stages = field(default_factory=Stages)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(tzinfo=None))

    def new_run(self, trained: Trained) -> publish.Run:
        """A run whose id sorts by `as_of`, then by start."""
        stamp = f"{self.as_of:%Y%m%dT%H%M}-{self.started_at:%Y%m%dT%H%M%S}"
        run_id = f"{stamp}-{secrets.token_hex(2)}"
        return publish.Run(run_id, self.as_of, self.started_at, trained.version)


@dataclass(frozen=True)
class Prepared:
    """Inputs with their vectors.

    Attributes:
        material: what training and scoring work on.
        texts: source, texts, encoded, cached, empty.
        made_for: what a model of this configuration and encoder is kept under.
    """

    material: Material
    texts: pl.DataFrame
    made_for: str


@dataclass(frozen=True)
class Outcome:
    """What a night left behind, for its summary."""

    run: publish.Run
    scores: Path
    prepared: Prepared
    trained: Trained
    predictions: int
    lists: list[Written]


def run(night: Night, *, override: str | None = None) -> Outcome:
    """A whole night; see `score`."""
    nights.sweep(night.home)
    nights.check_current(night.home)
    prepared = prepare(night)
    trained = kept_models(night, prepared) or train(night, prepared)
    return score(night, prepared, trained, override=override)


def prepare(night: Night) -> Prepared:
    """Read the sources and turn their texts into vectors."""
    config = night.config
    check_segments(config)
    night.home.mkdir(parents=True, exist_ok=True)
    with night.stages("ingest"):
        inputs = read_inputs(config, as_of=night.as_of, root=night.root)
        for campaign in config.campaign:
            members(inputs.users, campaign.segment, as_of=night.as_of, name=campaign.name)
        for row in inputs.report.iter_rows(named=True):
            say = log.warning if row["ignored_columns"] else log.info
            say("ingest", **row)
    with night.stages("embed"):
        options = config.encoder
        encoder = load_encoder(
            options.model,
            revision=options.revision,
            device=options.device,
            max_tokens=options.max_tokens,
            batch_size=options.batch_size,
            prompt=options.prompt,
        )
        cache = VectorCache(
            night.home / "cache", fingerprint=encoder.fingerprint, dimension=encoder.dimension
        )
        texts = {
            "items": item_texts(
                inputs.items,
                template=config.items.text,
                max_characters=config.items.max_characters,
            ),
            "reviews": review_texts(inputs.reviews, max_characters=config.reviews.max_characters),
        }
        embedded = {}
        for source, source_texts in texts.items():
            with progress(f"encode {source}", len(source_texts)) as advance:
                embedded[source] = embed_texts(
                    source_texts, encoder=encoder, cache=cache, on_progress=advance
                )
    material = Material(config, inputs, embedded["items"].vectors, embedded["reviews"].vectors)
    counts = _text_counts(embedded)
    for row in counts.iter_rows(named=True):
        log.info("embed", **row)
    return Prepared(material, counts, models.fingerprint(config, encoder.fingerprint))


def kept_models(night: Night, prepared: Prepared) -> Trained | None:
    """The newest models that may score this night; None where they must be trained."""
    return models.latest(night.home, night.as_of, night.config, trained_for=prepared.made_for)


def train(night: Night, prepared: Prepared) -> Trained:
    """Train, test and keep new models."""
    with night.stages("train"):
        trained = train_models(
            prepared.material,
            night.as_of,
            champion=models.champion(night.home, night.as_of, trained_for=prepared.made_for),
            on_progress=lambda step: log.info("train", step=step),
        )
        folder = models.save(trained, night.home, trained_for=prepared.made_for)
        page = write_report(trained, folder)
    for row in trained.contest.iter_rows(named=True):
        log.info("contest", **row)
    if trained.contest["worse"].any():
        log.warning("the new trees are worse: the champion's are kept, calibrated anew")
    log.info("report", page=str(page))
    log.info("models", version=trained.version, trained_as_of=f"{trained.as_of:%Y-%m-%d %H:%M}")
    return trained


def score(
    night: Night, prepared: Prepared, trained: Trained, *, override: str | None = None
) -> Outcome:
    """Score all users and, if every gate lets them pass, publish the tables and write the lists.

    Args:
        night: when and where.
        prepared: what is scored.
        trained: by what.
        override: who publishes what a gate refuses, and why.

    Raises:
        GateRefused: the last good night stays current.
    """
    run = night.new_run(trained)
    folder = night.home / "runs" / run.run_id
    state = State(prepared.material, night.as_of, trained.projection, now=True)
    with night.stages("index"):
        save_indexes(state, folder / "index")
    with night.stages("score"):
        rows, features = write_shards(state, trained, folder)
        of_users = user_table(state, trained.propensities, model_version=run.model_version)
    with night.stages("gates"):
        checked = gates.check(
            night.config.gates,
            metrics=trained.metrics,
            shards=folder / "shards",
            features=features,
            last=night.home / publish.CURRENT,
        )
        checked = gates.enforce(checked, override=override)
    lists = Lists(night.config, home=night.home, root=night.root)
    with night.stages("publish"):
        finished = publish.build(
            night.home,
            run,
            shards=folder / "shards",
            reasons=folder / "reasons",
            inputs=prepared.material.inputs,
            tables={
                "user_propensity": of_users,
                "metrics": trained.metrics,
                "calibration": trained.calibration,
                "importance": trained.importance,
                "candidate_misses": trained.misses,
                "contest": trained.contest,
                "features": features,
                "gates": checked,
                "quarantine": prepared.material.inputs.quarantine,
                "sources": prepared.material.inputs.report,
                "texts": prepared.texts,
                "stages": night.stages.frame(),
                "campaign_lift": campaign_lift(
                    night.home, prepared.material.inputs, as_of=night.as_of
                ),
            },
            derive=lambda scores: {"campaign_waterfall": lists.select(scores)},
            options=night.config.mart,
        )
        written = lists.write(run.run_id, at=run.started_at)
        publish.make_current(finished)
    return Outcome(run, finished, prepared, trained, rows, written)


def save_indexes(state: State, folder: Path) -> None:
    """Keep the item and review indexes with their ids, and read them back as a check."""
    inputs = state.inputs
    ids = {
        "items": inputs.items.select("item_id"),
        "reviews": inputs.reviews.select("user", "item", "ts"),
    }
    indexes = {"items": state.snapshot.item_index, "reviews": state.snapshot.review_index}
    for name, vector_index in indexes.items():
        vector_index.save(folder / name)
        ids[name].with_row_index("id").write_parquet(folder / name / "rows.parquet")
        log.info("index", corpus=name, vectors=len(VectorIndex.load(folder / name)))


def write_shards(state: State, trained: Trained, folder: Path) -> tuple[int, pl.DataFrame]:
    """Score and explain shard after shard of users, a file each.

    Returns:
        The number of rows; feature, null_share and outside_share, see `rank.health`.
    """
    for name in ("shards", "reasons"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = state.material.config.scoring
    explain = Reasons(state, trained.models, per_user=options.reasons_per_user)
    seen = seen_range(trained.models[0].classifier)
    counts: list[pl.DataFrame] = []
    rows = 0
    with progress("score users", len(state.users)) as advance:
        for number, users in enumerate(state.shards()):
            pairs = state.candidates(users)
            features = state.describe(pairs)
            counts.append(count(features, seen))
            scored = score_pairs(state, trained.models, pairs, features, threads=options.threads)
            reasons, sentences = explain(scored, pairs, features)
            shard = predictions(scored, trained.models, state).join(
                sentences, on=sentences.columns[:-1], how="left", maintain_order="left"
            )
            shard.write_parquet(folder / "shards" / f"{number:06d}.parquet")
            reasons.write_parquet(folder / "reasons" / f"{number:06d}.parquet")
            rows += len(shard)
            advance(len(users))
    for name in ("shards", "reasons"):
        seal(folder / name)
    return rows, shares(pl.concat(counts))


def _text_counts(embedded: dict[str, EmbeddedTexts]) -> pl.DataFrame:
    rows = [
        (source, len(found.vectors), found.encoded, found.cached, found.empty)
        for source, found in embedded.items()
    ]
    names = ["texts", "encoded", "cached", "empty"]
    schema = {"source": pl.String} | dict.fromkeys(names, pl.Int64)
    return pl.DataFrame(rows, schema, orient="row")
