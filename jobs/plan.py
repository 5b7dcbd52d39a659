"""What a night would do and take, from its sources and the nights that are kept."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil

from jobs import models, publish
from jobs.ledger import STAGES
from jobs.nightly import Night, read
from jobs.vectors import COUNTS, cache_of, count_texts, encoder_of, texts_of

MIB = 2**20
_PAST: dict[str, type[pl.DataType]] = {
    "stage": pl.String,
    "seconds": pl.Float64,
    "peak_mib": pl.Float64,
    "rows": pl.Int64,
    "encoded": pl.Int64,
}
_HISTORY = """
select s.stage, s.seconds, s.peak_mib, (select sum(kept) from sources) as rows,
       (select sum(encoded) from texts) as encoded
from stages s
"""


@dataclass(frozen=True)
class Plan:
    """What `nightrank run --dry-run` tells.

    Attributes:
        rows: as `Inputs.report`.
        texts: source, texts, encoded (to be), cached, empty.
        needs: what, needed (null where no kept night tells), there (null for minutes).
    """

    rows: pl.DataFrame
    texts: pl.DataFrame
    needs: pl.DataFrame


def plan(night: Night) -> Plan:
    """Read the sources, look for the vectors of their texts, and write nothing."""
    inputs = read(night)
    encoder = encoder_of(night.config, night.home)
    cache = cache_of(night.home, encoder, writable=False)
    counts = [
        (source, *count_texts(its_texts, cache))
        for source, its_texts in texts_of(inputs, night.config).items()
    ]
    texts = pl.DataFrame(
        counts, {"source": pl.String} | dict.fromkeys(COUNTS, pl.Int64), orient="row"
    )
    to_encode = int(texts.get_column("encoded").sum())
    made_for = models.fingerprint(night.config, encoder.fingerprint)
    kept = models.latest(night.home, night.as_of, night.config, trained_for=made_for)
    stages = [name for name in STAGES if name != "publish" and not (kept and name == "train")]
    cost = _cost(
        history(night.home),
        rows=int(inputs.report.get_column("kept").sum()),
        encoded=to_encode,
    ).filter(pl.col("stage").is_in(stages))
    seconds = cost.get_column("seconds").sum() if len(cost) == len(stages) else None
    disk = _disk(night.home)
    if disk is not None:
        disk += to_encode * encoder.dimension * 4 / MIB
    place = next(folder for folder in (night.home, *night.home.parents) if folder.exists())
    needs = {
        "minutes": (None if seconds is None else seconds / 60, None),
        "memory MiB": (
            cost.get_column("peak_mib").max(),
            psutil.virtual_memory().available / MIB,
        ),
        "disk MiB": (disk, shutil.disk_usage(place).free / MIB),
    }
    schema = {"what": pl.String, "needed": pl.Float64, "there": pl.Float64}
    rows = [(what, *figures) for what, figures in needs.items()]
    return Plan(inputs.report, texts, pl.DataFrame(rows, schema, orient="row"))


def history(home: Path) -> pl.DataFrame:
    """stage, seconds, peak_mib, rows (kept) and encoded (texts) of the stages of kept nights.

    The newest night comes first.
    """
    frames = [pl.DataFrame(schema=_PAST)]
    for path in sorted(home.glob("scores-*.duckdb"), reverse=True):
        with publish.open_scores(path) as connection:
            frames.append(connection.sql(_HISTORY).pl().cast(_PAST))
    return pl.concat(frames)


def _cost(past: pl.DataFrame, *, rows: int, encoded: int) -> pl.DataFrame:
    """stage, seconds and peak_mib, in proportion to those of the newest night that tells.

    What embedding takes goes with the texts to encode, everything else with the rows.

    >>> past = pl.DataFrame({
    ...     "stage": ["embed", "score", "embed"], "seconds": [1.0, 30.0, 50.0],
    ...     "peak_mib": [80.0, 300.0, 90.0], "rows": [300, 300, 200], "encoded": [0, 0, 100],
    ... })
    >>> _cost(past, rows=600, encoded=10).rows()
    [('score', 60.0, 600.0), ('embed', 5.0, 90.0)]
    """
    embeds = pl.col("stage") == "embed"
    telling = past.filter(~embeds | (pl.col("encoded") > 0 if encoded else True))
    newest = telling.unique("stage", keep="first", maintain_order=True)
    larger = rows / pl.col("rows")
    texts = encoded / pl.col("encoded") if encoded else pl.lit(1.0)
    return newest.select(
        "stage",
        seconds=pl.col("seconds") * pl.when(embeds).then(texts).otherwise(larger),
        peak_mib=pl.col("peak_mib") * pl.when(embeds).then(1.0).otherwise(larger),
    )


def _disk(home: Path) -> float | None:
    """MiB of the newest night: its tables and what lies in the folder of its run."""
    nights = sorted(home.glob("scores-*.duckdb"))
    if not nights:
        return None
    folder = home / "runs" / nights[-1].stem.removeprefix("scores-")
    files = [nights[-1], *(path for path in folder.rglob("*") if path.is_file())]
    return sum(path.stat().st_size for path in files) / MIB
