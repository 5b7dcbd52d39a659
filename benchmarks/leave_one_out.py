"""Full ranking of each user's last item, strictly: everything learnt is from `seq[:-2]`.

The ranker is grown on the third-last item, stopped on the second-last (the validation item), and
the last is predicted from the history `seq[:-1]`. Candidates and features are those of the night.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from benchmarks.against import peers
from benchmarks.ranks import hr_and_ndcg, middle_ranks, recall_curve, shared
from benchmarks.sequences import read_sequences
from benchmarks.windows import DAY, END, SETTINGS, Window, place_material, window
from jobs.config import load_config
from jobs.state import Material
from jobs.training import hyperparameters
from rank.features import GROUPS
from rank.trees import Hyperparameters, Trees, grow

BUDGETS = (50, 100, 200, 300)
LAST, VALIDATION, TRAINING = 1, 2, 3
ALL_THREADS = 0
TEXT_GENERATORS = ("nearest", "similar")
TEXT_GROUPS = ("generators", "similarity", "last_items", "vectors")
Row = dict[str, object]


@dataclass(frozen=True)
class Contest:
    """The three windows of one system: learnt from, stopped on, tested."""

    train: Window
    stop: Window
    test: Window

    @classmethod
    def of(cls, material: Material, *, without: Collection[str] = ()) -> "Contest":
        """Candidates and features of the system that the material's configuration describes."""
        projection = material.fit_projection(END - (TRAINING + 1) * DAY)
        places = (TRAINING, VALIDATION, LAST)
        return cls(*(window(material, last, projection, without=without) for last in places))


def main(
    folder: Annotated[Path, typer.Argument(help="Holds items.parquet and interactions.parquet.")],
    home: Annotated[Path | None, typer.Option(help="Where vectors are kept.")] = None,
    refit: Annotated[bool, typer.Option(help="Also grow on the validation item.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    ablations: Annotated[bool, typer.Option(help="Also without text, and text only.")] = True,
    against: Annotated[bool, typer.Option(help="Also the peers.")] = True,
) -> None:
    """Print recall by budget, and HR@10 and NDCG@10 of each system: mean and spread of seeds."""
    home = home or Path("nightrank-home/benchmarks") / folder.name
    material = place_material(read_sequences(folder), load_config(SETTINGS), home)
    contest = Contest.of(material)
    test = contest.test
    recall = recall_curve(test.example, len(test.targets), budgets=BUDGETS)
    typer.echo("  ".join(f"{name} {value:.4f}" for name, value in recall.items()))
    rows = ranked(contest, "nightrank", seeds, refit=refit)
    fused = _measured(test, shared(test.example.features))
    rows.append({"system": "nightrank, no ranker", "seed": 0} | fused)
    del contest, test
    if ablations:
        rows += ranked(Contest.of(without_text(material)), "nightrank, no text", seeds)
        rows += ranked(only_text(material), "nightrank, text only", seeds)
    if against:
        rows += peers(material, seeds)
    show(pl.DataFrame(rows))


def ranked(contest: Contest, system: str, seeds: int, *, refit: bool = False) -> list[Row]:
    """A row for each seed; with `refit` another, grown on the validation item as well."""
    rows: list[Row] = []
    for seed in range(seeds):
        parameters = replace(hyperparameters(load_config(SETTINGS)), seed=seed)
        trees = _grow([contest.train], contest.stop, parameters)
        rows.append({"system": system, "seed": seed} | _scored(contest.test, trees))
        if refit:
            fixed = replace(parameters, max_rounds=trees.rounds)
            trees = _grow([contest.train, contest.stop], None, fixed)
            refitted = {"system": f"{system}, refit", "seed": seed}
            rows.append(refitted | _scored(contest.test, trees))
    return rows


def without_text(material: Material) -> Material:
    """The same with no text at all: every vector is zero."""
    return replace(material, item_vectors=np.zeros_like(material.item_vectors))


def only_text(material: Material) -> Contest:
    """Candidates by text alone, and no feature that does not come from text."""
    candidates = material.config.candidates
    off = dict.fromkeys(candidates.budgets.keys() - set(TEXT_GENERATORS), 0)
    config = material.config.model_copy(update={"candidates": candidates.model_copy(update=off)})
    others = [group for group in GROUPS if group not in TEXT_GROUPS]
    return Contest.of(replace(material, config=config), without=others)


def show(rows: pl.DataFrame) -> None:
    """Mean of the seeds and half the distance of the extremes, one line a system."""
    metrics = [name for name in rows.columns if "@" in name]
    mean = [pl.col(name).mean().round(4) for name in metrics]
    spread = [
        ((pl.col(name).max() - pl.col(name).min()) / 2).round(4).alias(f"±{name}")
        for name in metrics
    ]
    with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        typer.echo(rows.group_by("system", maintain_order=True).agg(*mean, *spread))


def _grow(train: list[Window], stop: Window | None, parameters: Hyperparameters) -> Trees:
    examples = [w.example for w in train]
    stopping = stop.example if stop else None
    return grow(examples, stopping, objective="lambdarank", parameters=parameters)


def _scored(test: Window, trees: Trees) -> dict[str, float]:
    return _measured(test, trees.score(test.example.features, threads=ALL_THREADS))


def _measured(test: Window, score: np.ndarray) -> dict[str, float]:
    ranks = middle_ranks(test.example.users, test.example.happened, score)
    return hr_and_ndcg(ranks, len(test.targets))


if __name__ == "__main__":
    typer.run(main)
