"""Scores rows by grown trees as LightGBM does, to the last bit, tens of times as fast.

Each value first becomes a code of one byte: how many of the thresholds that the trees have for its
feature lie below it. Then all rows go through all splits of a tree, parents before children.
Leaves are numbered from left to right, and a row is `at` the first leaf that it may still reach. A
split concerns the rows that are at the first leaf under it: those of them that do not pass are
moved to the first leaf on its right. After the last split every row is at its leaf.

No jump and no address depends on a value there, so one instruction does up to 64 rows.
QuickScorer (Lucchese et al., SIGIR 2015) and RapidScorer (Ye et al., KDD 2018) test all splits
likewise; they keep a bit for each leaf that may be reached, this the number of the first.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rank.calibrate import Floats
from rank.compiling import compiled

# What a byte tells apart. LightGBM cuts a feature at 254 places at most, if not told otherwise.
MOST_LEAVES, MOST_CUTS = 256, 255
# Up to so many cuts it is faster to try all than to halve.
FEW_CUTS = 48
# Rows of one task of a thread: enough to outweigh its preparation, and a few megabytes.
ROWS = 8192
# LightGBM reads values no farther from 0 as 0 (its kZeroThreshold, a float).
ZERO = np.float32(1e-35)
# What an unknown value is taken for, by the way it goes. NaN is at or below no cut: it goes right.
AS_ZERO, LEFT, RIGHT = range(3)
TAKEN_FOR = np.array([0.0, -np.inf, np.nan], dtype=np.float32)

SPLIT = np.dtype(
    [("feature", "i8"), ("way", "i8"), ("cut", "f4"), ("first", "u1"), ("right", "u1")]
)

Matrix = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


class UnsuitableError(Exception):
    """The trees have something that only LightGBM knows how to score."""


class Forest(NamedTuple):
    """Grown trees, as arrays.

    A column is a feature together with what its unknown values are taken for, as the splits on
    one feature may differ in that.

    Attributes:
        used: (features,) places of the features that splits test, ascending.
        feature: (columns,) which of the used features it is of.
        unknown: (columns,) what NaN is taken for.
        cuts: (columns, 256) its distinct thresholds, ascending, then infinity.
        cut_count: (columns,) how many thresholds it has.
        column: (splits,) which column a split tests.
        most: (splits,) the highest code that passes, to the left.
        first: (splits,) the first leaf under it.
        right: (splits,) the first leaf on its right.
        splits_from: (trees + 1,) where the splits of a tree begin; the last is where they end.
        value: (leaves,) what a leaf adds to the score.
        leaves_from: (trees + 1,) likewise of leaves.
    """

    used: Numbers
    feature: Numbers
    unknown: Matrix
    cuts: Matrix
    cut_count: Numbers
    column: Numbers
    most: Bytes
    first: Bytes
    right: Bytes
    splits_from: Numbers
    value: Floats
    leaves_from: Numbers

    @classmethod
    def read(cls, text: str) -> "Forest":
        """Read LightGBM's text form, which is exact; its JSON has 1e300 in place of infinity.

        Raises:
            UnsuitableError: the trees are averaged, or for several classes, or one is linear, or a
                split is categorical or takes zeros for missing, or a byte is too little.
        """
        header, *trees = text.partition("\nend of trees")[0].split("\nTree=")
        lines = header.splitlines()
        if "num_tree_per_iteration=1" not in lines or "average_output" in lines or not trees:
            raise UnsuitableError("the score is not the sum of all trees")
        splits, values = zip(*map(_read_tree, trees), strict=True)
        split = np.concatenate(splits)
        key = split["feature"] * len(TAKEN_FOR) + split["way"]
        columns, column = np.unique(key, return_inverse=True)
        used, feature = np.unique(columns // len(TAKEN_FOR), return_inverse=True)
        cuts, cut_count, most = _cuts(column, split["cut"], len(columns))
        return cls(
            used=used,
            feature=feature,
            unknown=TAKEN_FOR[columns % len(TAKEN_FOR)],
            cuts=cuts,
            cut_count=cut_count,
            column=column,
            most=most,
            first=np.ascontiguousarray(split["first"]),
            right=np.ascontiguousarray(split["right"]),
            splits_from=np.cumsum([0, *map(len, splits)]),
            value=np.concatenate(values),
            leaves_from=np.cumsum([0, *map(len, values)]),
        )

    def score(self, features: pl.DataFrame, *, threads: int) -> Floats:
        """(n,) the sum of what the trees say, in their order; the same for any number of threads.

        Args:
            features: (n, f) float32, in the order of growing.
            threads: 0 for all cores.
        """
        scores, tested = np.zeros(len(features)), features[:, self.used.tolist()]

        def score(start: int) -> None:
            rows = tested[start : start + ROWS].to_numpy()
            values = np.ascontiguousarray(rows.T, dtype=np.float32)
            _score(self, values, scores[start : start + ROWS])

        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for _ in pool.map(score, range(0, len(features), ROWS)):
                pass  # a failure is raised here
        return scores


def _read_tree(text: str) -> tuple[NDArray[Any], Floats]:
    """The splits of a tree, parents before children, and what its leaves add, left to right."""
    told = dict(line.split("=", 1) for line in text.splitlines()[1:] if line)
    value = np.array(told["leaf_value"].split(), dtype=np.float64)
    kind, feature, left, right = (
        np.array(told[name].split(), dtype=np.int64)
        for name in ("decision_type", "split_feature", "left_child", "right_child")
    )
    categorical, leftwards, missing = kind & 1, kind & 2, kind >> 2
    if told.get("is_linear", "0") != "0" or categorical.any() or (missing == 1).any():
        raise UnsuitableError("a tree is linear, a split is categorical or takes zeros for missing")
    if len(value) > MOST_LEAVES:
        raise UnsuitableError(f"a tree has {len(value)} leaves, over {MOST_LEAVES}")
    splits = np.zeros(len(kind), dtype=SPLIT)
    splits["feature"] = feature
    splits["way"] = np.where(missing == 0, AS_ZERO, np.where(leftwards, LEFT, RIGHT))
    splits["cut"] = _at_or_below(np.array(told["threshold"].split(), dtype=np.float64))
    visited: list[int] = []
    leaves: list[int] = []

    def visit(node: int) -> None:
        if node < 0:  # LightGBM's number of a leaf
            leaves.append(~node)
            return
        visited.append(node)
        splits[node]["first"] = len(leaves)
        visit(left[node])
        splits[node]["right"] = len(leaves)
        visit(right[node])

    visit(0 if len(splits) else ~0)
    return splits[visited], value[leaves]


def _at_or_below(threshold: Floats) -> Matrix:
    """The float32 that the same float32 values are at or below, read as LightGBM reads them."""
    with np.errstate(over="ignore"):
        cut = threshold.astype(np.float32)
    cut = np.where(cut > threshold, np.nextafter(cut, np.float32(-np.inf)), cut)
    below_zero = np.nextafter(-ZERO, np.float32(-np.inf))
    beside_zero = np.where(threshold < 0, below_zero, ZERO)
    return np.where(np.abs(threshold) <= ZERO, beside_zero, cut).astype(np.float32)


def _cuts(column: Numbers, cut: Matrix, columns: int) -> tuple[Matrix, Numbers, Bytes]:
    """The cuts of each column, how many they are, and the place of each split's among them."""
    cuts = np.full((columns, MOST_CUTS + 1), np.inf, dtype=np.float32)
    counts, place = np.zeros(columns, dtype=np.int64), np.zeros(len(cut), dtype=np.uint8)
    for number in range(columns):
        here = column == number
        distinct, inverse = np.unique(cut[here], return_inverse=True)
        if len(distinct) > MOST_CUTS:
            raise UnsuitableError(f"a feature has {len(distinct)} thresholds, over {MOST_CUTS}")
        cuts[number, : len(distinct)], counts[number], place[here] = (
            distinct,
            len(distinct),
            inverse,
        )
    return cuts, counts, place


@compiled()
def _score(forest: Forest, values: Matrix, scores: Floats) -> None:
    """Add to `scores` (n,) what the trees say of `values` (used features, n)."""
    rows = len(scores)
    codes = np.empty((len(forest.feature), rows), dtype=np.uint8)
    known = np.empty(rows, dtype=np.float32)
    for column in range(len(codes)):
        value, unknown = values[forest.feature[column]], forest.unknown[column]
        for row in range(rows):
            known[row] = unknown if np.isnan(value[row]) else value[row]
        cuts, count = forest.cuts[column], forest.cut_count[column]
        if count <= FEW_CUTS:
            _count(known, cuts[:count], codes[column])
        else:
            _halve(known, cuts, count, codes[column])
    _walk(forest, codes, scores)


@compiled()
def _count(value: Matrix, cuts: Matrix, code: Bytes) -> None:
    """Write how many cuts each value is not at or below, by trying all."""
    code[:] = 0
    for cut in cuts:
        for row in range(len(value)):
            code[row] += np.uint8(not (value[row] <= cut))


@compiled()
def _halve(value: Matrix, cuts: Matrix, count: int, code: Bytes) -> None:
    """Write the same by binary search, all rows in step; the infinity after the cuts is no cut."""
    below = np.zeros(len(value), dtype=np.uint32)
    half = np.uint32(128)
    while half > count:
        half >>= np.uint32(1)
    while half > 0:
        for row in range(len(value)):
            passes = value[row] <= cuts[below[row] + half - np.uint32(1)]
            below[row] += np.uint32(0) if passes else half
        half >>= np.uint32(1)
    for row in range(len(value)):
        code[row] = below[row]


@compiled()
def _walk(forest: Forest, codes: Bytes, scores: Floats) -> None:
    """Add to `scores` (n,) what the trees say of `codes` (columns, n)."""
    at = np.empty(len(scores), dtype=np.uint8)
    for tree in range(len(forest.splits_from) - 1):
        at[:] = 0
        for split in range(forest.splits_from[tree], forest.splits_from[tree + 1]):
            code, most = codes[forest.column[split]], forest.most[split]
            first, right = forest.first[split], forest.right[split]
            for row in range(len(at)):
                at[row] = right if (at[row] == first) & (code[row] > most) else at[row]
        value = forest.value[forest.leaves_from[tree] : forest.leaves_from[tree + 1]]
        for row in range(len(at)):
            scores[row] += value[at[row]]
