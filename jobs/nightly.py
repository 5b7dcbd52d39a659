"""The night, top to bottom: ingest, embed, train, score, publish, campaigns."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl

from jobs import artefacts, frozen, gates, manifest, models, morning, nights, publish, vectors
from jobs.campaigns.feedback import messages
from jobs.campaigns.lift import campaign_lift
from jobs.campaigns.lists import Lists, Written
from jobs.campaigns.segments import check_segments, members
from jobs.config import Config
from jobs.console import log
from jobs.erasing.tombstones import Tombstones
from jobs.errors import ConfigError, GateRefused, InputMissing, NothingToDo, ResourceError
from jobs.ingest import Inputs, read_inputs
from jobs.ledger import START, Ledger, current_run, new_run_id, settings_digest
from jobs.report import PAGE, write_report
from jobs.shards import SEARCHED, propensities, save_state, write_shards
from jobs.signals import stop_if_asked
from jobs.stages import Stages
from jobs.state import Material, State
from jobs.training import Trained, train_models
from jobs.vectors import cache_of, embed, encoder_of

_OF_MODELS = ("metrics", "calibration", "importance", "contest")  # tables of the training


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
    page: Path | None


def run(
    night: Night,
    ledger: Ledger | None = None,
    *,
    override: str | None = None,
    again: bool = False,
    may_train: bool = True,
) -> Outcome:
    """A whole night, or what is left of one.

    Args:
        night: when and where.
        ledger: of a run that has begun; without it, a new one begins.
        override: who publishes what a gate refuses, and why.
        again: do it although the current night is of the same time, configuration and rows.
        may_train: whether models are trained where none that is kept will do.

    Raises:
        NothingToDo: see `again`.
        GateRefused: the last good night stays current.
        Stopped: a signal came; the ledger tells what is done.
    """
    check_segments(night.config)
    nights.sweep(night.home)
    nights.check_current(night.home)
    messages(night.home)  # damaged, they would stop the night when its lists are chosen
    ledger = ledger or begin(night)
    inputs = ingest(night, ledger)
    if not again:
        refuse_repeated(night.home, ledger)
    prepared = prepare(night, inputs, ledger)
    trained = models_of(night, prepared, ledger, may_train=may_train)
    return score(night, prepared, trained, ledger, override=override)


def begin(night: Night, run_id: str | None = None, *, full: bool = False) -> Ledger:
    """The ledger of a new run; a full one takes nothing of earlier nights but their models."""
    return Ledger.start(
        night.home,
        run_id or new_run_id(night.as_of, night.started_at),
        as_of=night.as_of.isoformat(),
        started_at=night.started_at.isoformat(),
        root=str(night.root),
        settings=settings_digest(night.config),
        full=full,
    )


@contextmanager
def _stage(night: Night, ledger: Ledger, name: str) -> Iterator[list[Path]]:
    """Measure the body and note the stage as done, with the files that the body lists."""
    stop_if_asked()
    files: list[Path] = []
    with night.stages(name):
        yield files
    ledger.note(name, *files, measured=night.stages.rows[name])


def ingest(night: Night, ledger: Ledger) -> Inputs:
    """The rows that the run has read before, or reads now and keeps."""
    if "ingest" not in ledger:
        with _stage(night, ledger, "ingest") as files:
            files += frozen.freeze(read(night), ledger)
    return frozen.thaw(ledger)


def read(night: Night) -> Inputs:
    """Read the sources and say how many rows they had."""
    erased = Tombstones.of(night.home)
    inputs = read_inputs(night.config, as_of=night.as_of, root=night.root, erased=erased)
    for campaign in night.config.campaign:
        members(inputs.users, campaign.segment, as_of=night.as_of, name=campaign.name)
    for row in inputs.report.iter_rows(named=True):
        say = log.warning if row["ignored_columns"] else log.info
        say("ingest", **row)
    return inputs


def refuse_repeated(home: Path, ledger: Ledger) -> None:
    """Take back a run that would publish what is published.

    Raises:
        NothingToDo: the current night is of the same time, configuration and rows.
    """
    try:
        current = current_run(home)
    except ResourceError as error:
        log.warning("not compared with the current night", problem=str(error))
        return
    if current is None or "ingest" not in current:
        return
    same = all(current[START][name] == ledger[START][name] for name in ("as_of", "settings"))
    if same and frozen.digests(current) == frozen.digests(ledger):
        shutil.rmtree(ledger.folder)
        raise NothingToDo(
            f"{current.run_id} is current and of the same time, configuration and rows: nothing "
            "is done; --again does it all the same"
        )


def prepare(night: Night, inputs: Inputs | None = None, ledger: Ledger | None = None) -> Prepared:
    """Turn texts into vectors: those of the inputs, or of the sources, read now.

    Raises:
        ConfigError: the encoder is not the one that the run began with.
    """
    if inputs is None:
        with night.stages("ingest"):
            inputs = read(night)
    stop_if_asked()
    with night.stages("embed"):
        encoder = encoder_of(night.config, night.home, inputs)
        cache = cache_of(night.home, encoder)
        material, counts = embed(night.config, inputs, encoder=encoder, cache=cache, ledger=ledger)
    for row in counts.iter_rows(named=True):
        log.info("embed", **row)
    made_for = models.fingerprint(night.config, encoder.fingerprint)
    if ledger is not None:
        if ledger.get("embed", made_for=made_for)["made_for"] != made_for:
            raise ConfigError(
                f"{night.config.encoder.model} is not the encoder that {ledger.run_id} began "
                "with: start a new run"
            )
        if not ledger.holds("embed"):
            files = vectors.keep(material, ledger.folder)
            ledger.note("embed", *files, made_for=made_for, measured=night.stages.rows["embed"])
        material = vectors.kept(night.config, inputs, ledger.folder)
    return Prepared(material, counts, made_for)


def models_of(
    night: Night, prepared: Prepared, ledger: Ledger, *, may_train: bool = True
) -> Trained:
    """The models that the run chose before, else the newest that may score it, else new ones.

    Where those that it chose are damaged, it chooses anew.

    Raises:
        InputMissing: there are none, and none may be trained.
    """
    if "train" in ledger:
        folder = night.home / "models" / ledger["train"]["version"]
        try:
            return models.load(folder)
        except manifest.Damaged as error:
            models.set_aside(folder, error)
            ledger.forget("train")  # what was scored with it may be of another than comes now
    kept = models.latest(night.home, night.as_of, night.config, trained_for=prepared.made_for)
    if kept is None and not may_train:
        raise InputMissing(
            f"{night.home / 'models'} holds no model for this configuration that is young enough "
            f"and not later than {night.as_of:%Y-%m-%d %H:%M}: use `nightrank train` first"
        )
    trained = kept or train(night, prepared)
    folder = night.home / "models" / trained.version
    if not (folder / PAGE).exists():  # the run was killed before it was written
        write_report(trained, folder)
    measured = {} if kept else {"measured": night.stages.rows["train"]}
    ledger.note("train", version=trained.version, **measured)
    return trained


def train(night: Night, prepared: Prepared) -> Trained:
    """Train, test and keep new models."""

    def tell(step: str) -> None:
        log.info("train", step=step)
        stop_if_asked()

    with night.stages("train"):
        trained = train_models(
            prepared.material,
            night.as_of,
            champion=models.champion(night.home, night.as_of, trained_for=prepared.made_for),
            scratch=night.home,
            on_progress=tell,
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
    night: Night,
    prepared: Prepared,
    trained: Trained,
    ledger: Ledger,
    *,
    override: str | None = None,
) -> Outcome:
    """Score all users and, if every gate lets them pass, publish the tables and write the lists.

    Args:
        night: when and where.
        prepared: what is scored.
        trained: by what.
        ledger: of the run; what it says is done is not done again.
        override: who publishes what a gate refuses, and why.

    Raises:
        GateRefused: the last good night stays current.
    """
    run = publish.Run(ledger.run_id, night.as_of, night.started_at, trained.version)
    folder = ledger.folder
    rows, features, of_users = _score_all(night, prepared, trained, ledger)
    with night.stages("gates"):
        checked = gates.check(
            night.config.gates,
            metrics=trained.metrics,
            shards=folder / "shards",
            features=features,
            last=night.home / publish.CURRENT,
        )
        checked = gates.overridden(checked, override=override)
    lists = Lists(night.config, home=night.home, root=night.root)
    found = {"user_propensity": of_users, "features": features, "gates": checked}
    contents = _contents(night, prepared, trained, lists, folder, found)
    try:
        gates.enforce(checked)
    except GateRefused:
        with night.stages("page"):
            morning.try_refused(night.home, run, contents)
        raise
    with night.stages("publish"):
        finished = publish.build(night.home, run, **contents)
        written = lists.write(run.run_id, at=run.started_at)
        stop_if_asked()
        publish.make_current(finished)
    ledger.note("publish")
    frozen.remove(ledger)
    with night.stages("page"):
        page = morning.try_current(finished)
    return Outcome(run, finished, prepared, trained, rows, written, page)


def _score_all(
    night: Night, prepared: Prepared, trained: Trained, ledger: Ledger
) -> tuple[int, pl.DataFrame, pl.DataFrame]:
    """What `write_shards` and `propensities` give; the matrices do not outlive this."""
    folder = ledger.folder
    tonight = partial(State, prepared.material, night.as_of, trained.projection, now=True)
    if not (ledger.holds("index") and artefacts.are_kept(folder / artefacts.FOLDER)):
        with _stage(night, ledger, "index") as files:
            files += save_state(tonight(), folder)
    with _stage(night, ledger, "score"):
        state = artefacts.opened(tonight(), folder / artefacts.FOLDER)
        rows, features = write_shards(state, trained, ledger)
        return rows, features, propensities(state, trained, ledger)


def _contents(
    night: Night,
    prepared: Prepared,
    trained: Trained,
    lists: Lists,
    folder: Path,
    found: Mapping[str, pl.DataFrame],
) -> publish.Contents:
    """What the night's file is made of: the run's files, tables found by scoring, and all else."""
    inputs = prepared.material.inputs
    return {
        "shards": folder / "shards",
        "reasons": folder / "reasons",
        "inputs": inputs,
        "tables": {
            **found,
            **{name: getattr(trained, name) for name in _OF_MODELS},
            "candidate_misses": trained.misses,
            "indexes": pl.read_parquet(folder / "index" / SEARCHED),
            "quarantine": inputs.quarantine,
            "sources": inputs.report,
            "texts": prepared.texts,
            "stages": night.stages.frame(),
            "campaign_lift": campaign_lift(night.home, inputs, as_of=night.as_of),
        },
        "derive": lambda scores: {"campaign_waterfall": lists.select(scores)},
        "options": night.config.mart,
    }
