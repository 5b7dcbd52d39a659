"""Small nights published by the real code from tables made by hand."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from jobs.campaigns.lift import LIFT
from jobs.campaigns.selection import WATERFALL
from jobs.config_sections import MartConfig
from jobs.ingest import Inputs
from jobs.manifest import seal
from jobs.publish import Run, build, make_current

FIRST = datetime(2025, 6, 1)
# Tables that the mart has views of, and that these nights have nothing to say in.
_OF_MODELS = {"behaviour": pl.String, "model": pl.String, "segment": pl.String}
_PAIR = {"user_id": pl.String, "item_id": pl.String}
EMPTY = {
    name: pl.DataFrame(schema=schema)
    for name, schema in {
        "user_propensity": {
            "as_of": pl.Datetime("us"), "user_id": pl.String, "behaviour": pl.String,
            "horizon_days": pl.Int32, "probability": pl.Float64, "model_version": pl.String,
        },
        "metrics": {**_OF_MODELS, "metric": pl.String, "value": pl.Float64},
        "calibration": {
            **_OF_MODELS, "bins": pl.String, "bin": pl.Int32,
            **dict.fromkeys(("pairs", "positives"), pl.Int64),
            **dict.fromkeys(("predicted", "observed", "low", "high"), pl.Float64),
        },
        "candidate_misses": {
            "behaviour": pl.String, "as_of": pl.Datetime("us"), **_PAIR,
            "generator": pl.String, "rank": pl.Int32, "reason": pl.String,
        },
        "quarantine": {
            **dict.fromkeys(("source", "rule", "file"), pl.String), "row": pl.Int64,
            **dict.fromkeys(("column", "value"), pl.String),
        },
        "campaign_waterfall": WATERFALL,
        "campaign_lift": LIFT,
    }.items()
}  # fmt: skip


def rows(users: int = 3, *, probability: float | None = 0.25) -> pl.DataFrame:
    """Two items for each user."""
    pairs = [(f"u{user}", f"i{place}", place) for user in range(users) for place in (1, 2)]
    frame = pl.DataFrame(pairs, ["user_id", "item_id", "position"], orient="row")
    return frame.with_columns(
        behaviour=pl.lit("purchase"),
        horizon_days=pl.lit(14, dtype=pl.Int32),
        score=pl.lit(-1.1),
        probability=pl.lit(probability, dtype=pl.Float64),
        generators=pl.lit(["popular"]),
        reason=pl.lit(None, dtype=pl.String),
    )


def night_run(number: int) -> Run:
    """The run of the n-th night."""
    as_of = FIRST + timedelta(days=number)
    return Run(f"{as_of:%Y%m%dT%H%M}-{number}", as_of, as_of, f"{as_of:%Y%m%d}-model")


def publish_night(home: Path, number: int, *shards: pl.DataFrame) -> Path:
    """Publish the n-th night from shards of predictions."""
    run = night_run(number)
    folder = home / "runs" / run.run_id
    for name in ("shards", "reasons"):
        (folder / name).mkdir(parents=True)
    for place, shard in enumerate(shards or (rows(),)):
        shard.write_parquet(folder / "shards" / f"{place:06d}.parquet")
    pl.DataFrame({"user_id": ["u0"], "family": ["text"]}).write_parquet(
        folder / "reasons" / "000000.parquet"
    )
    for name in ("shards", "reasons"):
        seal(folder / name)
    gates = pl.DataFrame(
        [("score_drift", "purchase", 0.125, True), ("null_share_risen", "price", 0.5, False)],
        ["gate", "subject", "value", "passed"],
        orient="row",
    )
    stages = pl.DataFrame({"stage": ["score"], "seconds": [1.0], "peak_mib": [100.0]})
    finished = build(
        home,
        run,
        shards=folder / "shards",
        reasons=folder / "reasons",
        inputs=_inputs(),
        tables={"gates": gates, "stages": stages, **EMPTY},
        derive=lambda _: {},
        options=MartConfig(),
    )
    make_current(finished)
    return finished


def _inputs() -> Inputs:
    items = pl.DataFrame(
        {
            "item_id": ["i1", "i2"],
            "title": ["A", "B"],
            "description": [None] * 2,
            "category": ["a", None],
            "brand": ["x", "y"],
        }
    )
    users = pl.DataFrame({"user_id": [f"u{n}" for n in range(3)], "consent": [True] * 3})
    events = pl.DataFrame(
        {"user": [0], "item": [1], "ts": [FIRST], "behaviour": ["purchase"]},
        schema_overrides={"user": pl.Int32, "item": pl.Int32},
    )
    nothing = pl.DataFrame()
    return Inputs(FIRST, items, users, events, nothing, nothing, nothing, nothing)


def flip(path: Path, place: float, bit: int = 0) -> None:
    """Flip one bit of a file that may be read-only; `place` is from 0 (start) to 1 (end)."""
    content = bytearray(path.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1 << bit
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)
