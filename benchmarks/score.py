"""Holds the scoring of rows by trees against LightGBM's own `predict`, side by side, on one thread.

The limit is told the leaf of each row in each tree and only adds what it says, which whoever scores
by trees has to do. Times are of the processor, so that other work on the machine counts little.
"""

import time
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray

from jobs.console import show_table
from rank.calibrate import Floats
from rank.compiling import compiled
from rank.examples import Example
from rank.kernel import ROWS as ROWS_OF_BLOCK
from rank.kernel import Bytes
from rank.trees import Hyperparameters, Trees, grow

# Name, trees, leaves, features, the largest share of unknown values that a feature has.
MODELS = (
    ("500 trees of 63 leaves, 60 features", 500, 63, 60, 0.0),
    ("200 trees of 31 leaves, 140 features with NaN", 200, 31, 140, 0.6),
    ("60 trees of 31 leaves, 140 features with NaN", 60, 31, 140, 0.6),
)
# `predict` needs seconds for what the kernel does in milliseconds; both are told by the row.
ROWS, ROWS_OF_PREDICT, ROWS_OF_GROWING = 100_000, 2_000, 10_000

Timed = tuple[float, Floats]


def main(
    repeats: Annotated[int, typer.Option(help="Medians are of so many.", min=5)] = 5,
    seed: Annotated[int, typer.Option(help="Of the generated data.")] = 1,
) -> None:
    """Print rows a second and core, ratios to `predict`, and how far scores are apart at most."""
    columns = ["model", "scored by", "rows/s/core", "of predict", "apart by"]
    rows = [row for model in MODELS for row in measured(*model, repeats=repeats, seed=seed)]
    show_table(f"one thread, median of {repeats}", columns, rows)


def measured(
    name: str, trees: int, leaves: int, width: int, unknown: float, *, repeats: int, seed: int
) -> Iterator[tuple[str, str, int, float, str]]:
    """A row of the table for each way to score, `predict` first."""
    model = grown(trees, leaves, generated(ROWS_OF_GROWING, width, unknown, seed=seed), seed=seed)
    features = generated(ROWS, width, unknown, seed=seed + 1).read()
    few = features[:ROWS_OF_PREDICT]
    matrix = np.ascontiguousarray(few.to_numpy())  # rows together, which is what predict likes
    addition(model, few)()
    model.score(few, threads=1)  # compiles, and reads the trees
    forest = model._forest
    assert forest is not None
    ways: dict[str, Callable[[], Floats]] = {
        "predict": lambda: predicted(model, matrix),
        "the kernel": lambda: forest.score(features, threads=1),
        "Trees.score, sample verified": lambda: model.score(features, threads=1),
        "limit: known leaves added": addition(model, features),
    }
    runs = [{way: timed(score) for way, score in ways.items()} for _ in range(repeats)]
    speed = {
        way: float(np.median([len(run[way][1]) / run[way][0] for run in runs])) for way in ways
    }
    right = runs[0]["predict"][1]
    for way in ways:
        apart = np.abs(runs[0][way][1][: len(right)] - right).max()
        yield name, way, round(speed[way]), speed[way] / speed["predict"], f"{apart:g}"


def predicted(model: Trees, matrix: NDArray[np.float32]) -> Floats:
    """The plain use of the library."""
    return np.asarray(model.booster.predict(matrix, raw_score=True, num_threads=1))


def addition(model: Trees, features: pl.DataFrame) -> Callable[[], Floats]:
    """Adds what the leaves say that LightGBM finds for each row."""
    booster = model.booster
    found = np.asarray(booster.predict(features.to_numpy(), pred_leaf=True, num_threads=1))
    leaves = np.ascontiguousarray(found.T.astype(np.uint8))
    values = np.zeros((len(leaves), int(leaves.max()) + 1))
    for tree, known in enumerate(leaves):
        for leaf in np.unique(known):
            values[tree, leaf] = booster.get_leaf_output(tree, int(leaf))
    return lambda: _added(leaves, values)


@compiled()
def _added(leaves: Bytes, values: Floats) -> Floats:
    """(n,) sums over the trees, in blocks of rows as the kernel's."""
    scores = np.zeros(leaves.shape[1])
    for start in range(0, len(scores), ROWS_OF_BLOCK):
        block = scores[start : start + ROWS_OF_BLOCK]
        for tree in range(len(leaves)):
            at, value = leaves[tree, start : start + ROWS_OF_BLOCK], values[tree]
            for row in range(len(block)):
                block[row] += value[at[row]]
    return scores


def timed(score: Callable[[], Floats]) -> Timed:
    """Seconds of the processor, and the scores."""
    start = time.process_time()
    scores = score()
    return time.process_time() - start, scores


def generated(rows: int, width: int, unknown: float, *, seed: int) -> Example:
    """Normal features and, in the second half, skewed counts; a tenth of the rows happens.

    Args:
        rows: how many.
        width: number of features.
        unknown: a feature's share of unknown values is drawn below it.
        seed: of the rows; what the outcome depends on is always the same.
    """
    rng, rule = np.random.default_rng(seed), np.random.default_rng(0)
    table = rng.normal(size=(rows, width)).astype(np.float32)
    table[:, width // 2 :] = np.round(np.exp(table[:, width // 2 :]), 1)
    table[rng.random(table.shape) < unknown * rule.random(width)] = np.nan
    known = np.nan_to_num(table)
    signal = known @ rule.normal(size=width) + 3 * known[:, 0] * known[:, 1]
    signal += 3 * rng.normal(size=rows)
    return Example(
        features=pl.DataFrame(table, schema=[f"f{place}" for place in range(width)]),
        users=np.arange(rows, dtype=np.int32),
        happened=signal > np.quantile(signal, 0.9),
        weight=np.ones(rows, dtype=np.float32),
    )


def grown(trees: int, leaves: int, example: Example, *, seed: int) -> Trees:
    """Trees of the night's kind, as many as told."""
    parameters = Hyperparameters(
        learning_rate=0.05,
        num_leaves=leaves,
        min_rows_per_leaf=20,
        min_positives_per_leaf=0.1,
        max_rounds=trees,
        early_stopping_rounds=0,
        seed=seed,
        threads=0,
        l2=0.0,
        feature_fraction=0.7,
        bagging_fraction=0.8,
        rankers=1,
    )
    return grow([example], [], objective="binary", parameters=parameters)


if __name__ == "__main__":
    typer.run(main)
