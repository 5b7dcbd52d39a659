"""Full ranking of each user's last item, strictly: everything learnt is from `seq[:-2]`.

The ranker is grown on the third-last item, stopped on the second-last (the validation item), and
the last is predicted from the history `seq[:-1]`. Candidates and features are those of the night.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from benchmarks.ranks import hr_and_ndcg, middle_ranks, recall_curve, shared
from benchmarks.sequences import read_sequences
from benchmarks.windows import DAY, END, SETTINGS, Window, place_material, window
from jobs.config import load_config
from jobs.training import hyperparameters
from rank.trees import Hyperparameters, Trees, grow

BUDGETS = (50, 100, 200, 300)
LAST, VALIDATION, TRAINING = 1, 2, 3
Row = dict[str, str | int | float]


def main(
    folder: Annotated[Path, typer.Argument(help="Holds items.parquet and interactions.parquet.")],
    home: Annotated[Path | None, typer.Option(help="Where vectors are kept.")] = None,
    refit: Annotated[bool, typer.Option(help="Also grow on the validation item.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
) -> None:
    """Print recall by budget, and HR@10 and NDCG@10 of each system and seed."""
    config = load_config(SETTINGS)
    home = home or Path("nightrank-home/benchmarks") / folder.name
    material = place_material(read_sequences(folder), config, home)
    projection = material.fit_projection(END - (TRAINING + 1) * DAY)
    places = (TRAINING, VALIDATION, LAST)
    train, stop, test = (window(material, last, projection) for last in places)
    recall = recall_curve(test.example, len(test.targets), budgets=BUDGETS)
    typer.echo("  ".join(f"{name} {value:.4f}" for name, value in recall.items()))
    rows: list[Row] = [
        {"system": "no ranker", "seed": 0} | _measured(test, shared(test.example.features))
    ]
    for seed in range(seeds):
        parameters = replace(hyperparameters(config), seed=seed)
        trees = _grow([train], stop, parameters)
        rows.append({"system": "nightrank", "seed": seed} | _scored(test, trees, parameters))
        if refit:
            again = replace(parameters, max_rounds=trees.rounds)
            trees = _grow([train, stop], None, again)
            rows.append({"system": "nightrank, refit", "seed": seed} | _scored(test, trees, again))
    show(pl.DataFrame(rows))


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


def _scored(test: Window, trees: Trees, parameters: Hyperparameters) -> dict[str, float]:
    return _measured(test, trees.score(test.example.features, threads=parameters.threads))


def _measured(test: Window, score: np.ndarray) -> dict[str, float]:
    ranks = middle_ranks(test.example.users, test.example.happened, score)
    return hr_and_ndcg(ranks, len(test.targets))


if __name__ == "__main__":
    typer.run(main)
