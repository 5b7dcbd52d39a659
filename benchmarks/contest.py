"""One table: nightrank, what it is without some of its parts, and the peers, on the same cuts."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from benchmarks.against import peers
from benchmarks.ranks import hr_and_ndcg, middle_ranks, recall_curve, shared
from benchmarks.windows import NOT_OF_TEXT, SETTINGS, Cut, Window, windows_of
from jobs.config import load_config
from jobs.training import hyperparameters
from rank.trees import Hyperparameters, Trees, grow

BUDGETS = (50, 100, 200, 300)
ALL_THREADS = 0
Row = dict[str, object]

Folder = Annotated[Path, typer.Argument(help="Holds items.parquet and interactions.parquet.")]
Home = Annotated[Path | None, typer.Option(help="Where vectors are kept.")]
Refit = Annotated[bool, typer.Option(help="Also grow on the window that is stopped on.")]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds.")]
Ours = Annotated[bool, typer.Option(help="nightrank itself; without, its ablations or the peers.")]
Ablations = Annotated[bool, typer.Option(help="Also without text, and text only.")]
Against = Annotated[bool, typer.Option(help="Also the peers.")]


@dataclass(frozen=True)
class Contest:
    """The windows of one system: learnt from, stopped on, tested."""

    train: list[Window]
    stop: Window
    test: Window

    @classmethod
    def of(cls, cuts: Sequence[Cut], *, without: Collection[str] = ()) -> "Contest":
        """The last cut is the test, the one before is stopped on."""
        *train, stop, test = windows_of(cuts, without=without)
        return cls(train, stop, test)


def own_rows(cuts: Sequence[Cut], seeds: int, *, refit: bool) -> Iterator[Row]:
    """nightrank, refitted if wanted, and without the ranker; prints the recall of candidates."""
    contest = Contest.of(cuts)
    test = contest.test
    recall = recall_curve(test.example, len(test.targets), budgets=BUDGETS)
    typer.echo("  ".join(f"{name} {value:.4f}" for name, value in recall.items()))
    yield from ranked(contest, "nightrank", seeds, refit=refit)
    fused = _measured(test, shared(test.example.read()))
    yield {"system": "nightrank, no ranker", "seed": 0} | fused


def ablation_rows(cuts: Sequence[Cut], seeds: int) -> Iterator[Row]:
    """The same without text, and by text alone."""
    bare = [cut.without_text() for cut in cuts]
    yield from ranked(Contest.of(bare), "nightrank, no text", seeds)
    only = Contest.of([cut.only_text() for cut in cuts], without=NOT_OF_TEXT)
    yield from ranked(only, "nightrank, text only", seeds)


def compare(
    cuts: Sequence[Cut], *, seeds: int, refit: bool, ours: bool, ablations: bool, against: bool
) -> Iterator[Row]:
    """A row for each system and seed: system, seed, HR@10 and NDCG@10 on the last cut."""
    if ours:
        yield from own_rows(cuts, seeds, refit=refit)
    if ablations:
        yield from ablation_rows(cuts, seeds)
    if against:
        yield from peers(cuts[-2], cuts[-1], seeds)


def ranked(contest: Contest, system: str, seeds: int, *, refit: bool = False) -> Iterator[Row]:
    """A row for each seed; with `refit` another, grown on the window stopped on as well.

    The latter has as many trees, in each of its rankers the mean.
    """
    for seed in range(seeds):
        parameters = replace(hyperparameters(load_config(SETTINGS)), seed=seed)
        trees = _grow(contest.train, [contest.stop], parameters)
        yield {"system": system, "seed": seed} | _scored(contest.test, trees)
        if refit:
            rounds = trees.rounds // parameters.rankers
            fixed = replace(parameters, max_rounds=rounds)
            trees = _grow([*contest.train, contest.stop], [], fixed)
            yield {"system": f"{system}, refit", "seed": seed} | _scored(contest.test, trees)


def show(rows: Iterable[Row]) -> None:
    """Each row as it comes; then mean and half the distance of the extremes over the seeds."""
    found = []
    for row in rows:
        typer.echo("  ".join(_said(value) for value in row.values()))
        found.append(row)
    frame = pl.DataFrame(found)
    metrics = [name for name in frame.columns if "@" in name]
    mean = [pl.col(name).mean().round(4) for name in metrics]
    spread = [
        ((pl.col(name).max() - pl.col(name).min()) / 2).round(4).alias(f"±{name}")
        for name in metrics
    ]
    with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        typer.echo(frame.group_by("system", maintain_order=True).agg(*mean, *spread))


def _said(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _grow(train: list[Window], stop: list[Window], parameters: Hyperparameters) -> Trees:
    examples, stopping = ([window.example for window in part] for part in (train, stop))
    return grow(examples, stopping, objective="lambdarank", parameters=parameters)


def _scored(test: Window, trees: Trees) -> dict[str, float]:
    return _measured(test, trees.score(test.example.read(), threads=ALL_THREADS))


def _measured(test: Window, score: np.ndarray) -> dict[str, float]:
    ranks = middle_ranks(test.example.users, test.example.happened, score)
    return hr_and_ndcg(ranks, len(test.targets))
