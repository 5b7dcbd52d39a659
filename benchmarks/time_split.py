"""Full ranking under one global cut in time: learnt before it, tested on what came after.

The cut lies at the 0.9 quantile of all events. The target of each user with later events is the
last of them, predicted from all that the user did before; what other users did after the cut is
not used. The ranker is grown and stopped in the same way on the three tenths before.
"""

from datetime import datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import typer

from benchmarks.contest import Ablations, Against, Folder, Home, Ours, Refit, Seeds, compare, show
from benchmarks.sequences import Sequences, read_sequences, with_times
from benchmarks.windows import DAY, END, SETTINGS, Cut, place_material
from jobs.config import Config, load_config

# Each pair of neighbours is a window: its corpus ends at the first, its targets at the second.
QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def main(
    folder: Folder,
    home: Home = None,
    refit: Refit = False,
    seeds: Seeds = 3,
    ours: Ours = True,
    ablations: Ablations = True,
    against: Against = True,
) -> None:
    """Print recall by budget, and HR@10 and NDCG@10 of each system: mean and spread of seeds."""
    home = home or Path("nightrank-home/benchmarks") / f"{folder.name}-time"
    sequences, config = with_times(read_sequences(folder)), load_config(SETTINGS)
    cuts = [cut_between(sequences, *times, config, home) for times in pairwise(_times(sequences))]
    show(compare(cuts, seeds=seeds, refit=refit, ours=ours, ablations=ablations, against=against))


def cut_between(
    sequences: Sequences, start: datetime, end: datetime, config: Config, home: Path
) -> Cut:
    """The corpus ends before `start`; targets are users' last events from then to before `end`.

    A user without such an event is put a day further back, so that nothing of theirs follows.
    """
    later = pl.col("ts") >= start
    events = sequences.events.filter(pl.col("ts") < end).with_columns(
        from_last=pl.int_range(pl.len(), 0, -1).over("user_id")
        + (~later.any().over("user_id")).cast(pl.Int64)
    )
    material = place_material(Sequences(sequences.items, events), config, home)
    users = material.inputs.users.select("user_id", user=pl.int_range(pl.len(), dtype=pl.Int32))
    # A user's events have one day each, by which they are found again.
    learnt = events.filter(~later).join(users, on="user_id")
    learnt = learnt.select("user", ts=pl.lit(END) - pl.duration(days="from_last"))
    everything = material.inputs.events
    corpus = everything.join(learnt, on=["user", "ts"], how="semi", maintain_order="left")
    return Cut(material, END - DAY, corpus)


def _times(sequences: Sequences) -> list[datetime]:
    """The times of the quantiles; the last is just after the last event."""
    ts = sequences.events.get_column("ts").sort()
    starts = [ts[int(q * len(ts))] for q in QUANTILES[:-1]]
    return [*starts, ts[-1] + DAY]


if __name__ == "__main__":
    typer.run(main)
