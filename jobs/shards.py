"""Writes what a run computes from a state: its indexes, and its users, shard after shard."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from index.store import VectorIndex
from jobs import manifest
from jobs.console import log, progress
from jobs.ledger import Ledger, write_parquet
from jobs.propensity import user_table
from jobs.reasons import Reasons
from jobs.scoring import predictions, score_pairs
from jobs.state import State
from jobs.training import Trained
from rank.health import count, seen_range, shares

PROPENSITIES = Path("users", "propensity.parquet")
SEARCHED = "searched.parquet"


def save_indexes(state: State, folder: Path) -> list[Path]:
    """Keep the item and review indexes with their ids, and read them back as a check.

    Returns:
        The files: theirs, and a table of how each corpus is searched.
    """
    inputs, corpora = state.inputs, dict(state.snapshot.indexes)
    ids = {
        "items": inputs.items.select("item_id"),
        "reviews": inputs.reviews.select("user", "item", "ts"),
    }
    for name, rows in ids.items():
        corpora[name].save(folder / name)
        rows.with_row_index("id").write_parquet(folder / name / "rows.parquet")
        VectorIndex.load(folder / name)
    table = pl.DataFrame([_described(*corpus) for corpus in corpora.items()])
    for row in table.iter_rows(named=True):
        log.info("index", **row)
    write_parquet(table, folder / SEARCHED)
    return [path for path in folder.rglob("*") if path.is_file()]


def _described(corpus: str, index: VectorIndex) -> dict[str, object]:
    choice = index.choice
    return {
        "corpus": corpus,
        "kind": choice.kind,
        "vectors": len(index),
        "dimension": index.flat.d,
        "recall_at_100": choice.recall,
        "sample": choice.sample,
        "refused": ", ".join(choice.refused),
    }


def write_shards(state: State, trained: Trained, ledger: Ledger) -> tuple[int, pl.DataFrame]:
    """Score and explain shard after shard of users; one that is there is left as it is.

    Returns:
        The number of rows; feature, null_share and outside_share, see `rank.health`.
    """
    options = state.material.config.scoring
    explain = Reasons(state, trained.models, per_user=options.reasons_per_user)
    seen = seen_range(trained.models[0].classifier)
    with progress("score users", len(state.users)) as advance:
        for number, users in enumerate(state.shards()):
            step = f"score:{number:06d}"
            if not ledger.holds(step):
                pairs = state.candidates(users)
                features = state.describe(pairs)
                scored = score_pairs(
                    state, trained.models, pairs, features, threads=options.threads
                )
                reasons, sentences = explain(scored, pairs, features)
                shard = predictions(scored, trained.models, state).join(
                    sentences, on=sentences.columns[:-1], how="left", maintain_order="left"
                )
                parts = {"shards": shard, "reasons": reasons, "health": count(features, seen)}
                ledger.note(step, *_written(parts, ledger.folder, f"{number:06d}.parquet"))
            advance(len(users))
    for name in ("shards", "reasons"):
        manifest.write(ledger.folder / name / manifest.MANIFEST, ledger.written(name))
    counts = pl.read_parquet(ledger.folder / "health" / "*.parquet")
    shards = pl.scan_parquet(ledger.folder / "shards" / "*.parquet")
    return shards.select(pl.len()).collect().item(), shares(counts)


def _written(parts: Mapping[str, pl.DataFrame], folder: Path, name: str) -> list[Path]:
    return [write_parquet(frame, folder / part / name) for part, frame in parts.items()]


def propensities(state: State, trained: Trained, ledger: Ledger) -> pl.DataFrame:
    """Whether each user does it at all, from the run's file where that is there."""
    path = ledger.folder / PROPENSITIES
    if not ledger.holds("score:users"):
        of_users = user_table(state, trained.propensities, model_version=trained.version)
        ledger.note("score:users", write_parquet(of_users, path))
    return pl.read_parquet(path)
