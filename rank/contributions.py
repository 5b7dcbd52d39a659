"""What each feature adds to the score of trees: exact Shapley values, summed by family.

The values are those of LightGBM's `pred_contrib` (Lundberg et al., From local explanations to
global understanding with explainable AI for trees, Nature Machine Intelligence 2020), in a
fraction of its time. To a leaf of value v, a set S of the features on the way to it is worth
v * prod(o_j for j in S) * prod(z_j for j not in S), where o_j says whether the row passes the
tests of feature j and z_j which share of the training rows does. By Owen's multilinear extension
(Management Science 1972) feature i is then due

    v * (o_i - z_i) * integral over t from 0 to 1 of prod(t * o_j + (1 - t) * z_j for j != i),

which Gauss and Legendre's quadrature of few nodes gives exactly. It depends on the pattern of the
o_j only, so it is computed once for each pattern and looked up (as Yang, Fast TreeSHAP, 2021).
"""

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rank.calibrate import Floats
from rank.compiling import compiled
from rank.trees import Trees

# Up to so many features on a path, patterns are found by a table of all.
MOST_BITS = 16

Mask = NDArray[np.bool_]
Matrix = NDArray[np.float32]
Numbers = NDArray[np.int64]
Split = dict[str, Any]
# From the root: number and feature of each split, whether left is the way, and the share of the
# training rows at it that go there.
Way = tuple[tuple[int, int, bool, float], ...]


class Leaf(NamedTuple):
    """The way to a leaf.

    Attributes:
        value: what the leaf adds to the score.
        feature: (features,) those that are tested on the way.
        share: (features,) which share of the training rows passes the tests of each.
        split: (tests,) number of the split.
        left: (tests,) whether left is the way.
        place: (tests,) which of the features is tested.
        factor: (nodes, features, 2) t * o + (1 - t) * z at each node of the quadrature, for a row
            that does not pass the tests and one that does.
        due: likewise weight * v * (o - z) / factor.
    """

    value: float
    feature: Numbers
    share: Floats
    split: Numbers
    left: Mask
    place: Numbers
    factor: Floats
    due: Floats

    @property
    def base(self) -> float:
        """What it adds to the mean score of the training rows."""
        return self.value * float(np.prod(self.share))


def contributions(trees: Trees, matrix: Matrix, family: Numbers) -> tuple[float, Floats]:
    """What each family of features adds to the raw score.

    Args:
        trees: a grown model without categorical features.
        matrix: (n, f) features in the order of `trees.features`.
        family: (f,) number of the family of each feature.

    Returns:
        The base, which is the mean score of the training rows, and (families, n); together they
        sum to the raw score of each row.
    """
    columns = np.ascontiguousarray(matrix.T)
    unknown = np.isnan(columns)
    base, added = 0.0, np.zeros((int(family.max()) + 1, len(matrix)))
    for splits, leaves in _trees(trees):
        goes_left = np.array([_goes_left(split, columns, unknown) for split in splits])
        for leaf in leaves:
            base += leaf.base
            if len(leaf.feature):
                _add(leaf, family[leaf.feature], goes_left, added)
    return base, added


@lru_cache(maxsize=8)
def _trees(trees: Trees) -> list[tuple[list[Split], list[Leaf]]]:
    """Read once for all shards."""
    return [_read(tree["tree_structure"]) for tree in trees.booster.dump_model()["tree_info"]]


def _read(root: Split) -> tuple[list[Split], list[Leaf]]:
    """The splits of a tree and the ways to its leaves."""
    splits: list[Split] = []

    def walk(node: Split, way: Way) -> Iterator[Leaf]:
        if "split_feature" not in node:
            yield _leaf(node["leaf_value"], way)
            return
        number, feature = len(splits), node["split_feature"]
        splits.append(node)
        for side in ("left_child", "right_child"):
            share = _count(node[side]) / _count(node)
            yield from walk(node[side], (*way, (number, feature, side == "left_child", share)))

    leaves = list(walk(root, ()))
    return splits, leaves


def _leaf(value: float, way: Way) -> Leaf:
    split, tested, left, passing = np.array(way).reshape(-1, 4).T
    feature, place = np.unique(tested.astype(np.int64), return_inverse=True)
    share = np.ones(len(feature))
    np.multiply.at(share, place, passing)
    node, weight = _quadrature((len(feature) + 1) // 2)
    passes = np.array([0.0, 1.0])
    factor = node * passes + (1 - node) * share[:, None]
    due = weight * value * (passes - share[:, None]) / factor
    tests = (split.astype(np.int64), left.astype(np.bool_), place)
    return Leaf(value, feature, share, *tests, factor, due)


@cache
def _quadrature(nodes: int) -> tuple[Floats, Floats]:
    """(nodes, 1, 1) nodes and weights on (0, 1); exact to the degree 2 * nodes - 1."""
    node, weight = np.polynomial.legendre.leggauss(max(nodes, 1))
    return (node[:, None, None] + 1) / 2, weight[:, None, None] / 2


def _count(node: Split) -> int:
    return int(node["internal_count"] if "split_feature" in node else node["leaf_count"])


def _goes_left(split: Split, columns: Matrix, unknown: Mask) -> Mask:
    """(n,) which rows go left; an unknown value is missing, or 0 where none was in training."""
    if split["decision_type"] != "<=" or split["missing_type"] == "Zero":
        raise ValueError(f"no contributions of such a split: {split}")
    feature, threshold = split["split_feature"], np.float64(split["threshold"])
    left = np.asarray(columns[feature] <= threshold)
    if split["default_left"] if split["missing_type"] == "NaN" else threshold >= 0:
        left |= unknown[feature]
    return left


@compiled()
def _add(leaf: Leaf, family: Numbers, goes_left: Mask, added: Floats) -> None:
    """Add to (families, n) what the features on the way to a leaf are due."""
    passed = np.ones((len(family), added.shape[1]), dtype=np.bool_)
    for test in range(len(leaf.split)):
        passes, goes = passed[leaf.place[test]], goes_left[leaf.split[test]]
        for row in range(len(passes)):
            passes[row] &= goes[row] == leaf.left[test]
    pattern, example = _patterns(passed)
    due = np.zeros((len(added), len(example)))
    for number in range(len(example)):
        _due(leaf, family, passed[:, example[number]], due[:, number])
    for number in range(len(added)):
        if (family == number).any():
            for row in range(len(pattern)):
                added[number, row] += due[number, pattern[row]]


@compiled()
def _patterns(passed: Mask) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The number of each row's pattern, and a row of each pattern; of `passed` (features, n)."""
    features, rows = passed.shape
    pattern = np.arange(rows).astype(np.int32)
    if features > MOST_BITS:  # hardly two rows are alike
        return pattern, pattern
    code = np.zeros(rows, dtype=np.uint32)
    for place in range(features):
        for row in range(rows):
            code[row] |= np.uint32(passed[place, row]) << np.uint32(place)
    number, example = np.full(1 << features, -1, dtype=np.int32), np.empty_like(pattern)
    count = 0
    for row in range(rows):
        if number[code[row]] < 0:
            number[code[row]] = count
            example[count] = row
            count += 1
        pattern[row] = number[code[row]]
    return pattern, example[:count]


@compiled()
def _due(leaf: Leaf, family: Numbers, passed: Mask, due: Floats) -> None:
    """Add the Shapley values of features whose tests a row passes or not, each to its family."""
    for node in range(len(leaf.factor)):
        product = 1.0
        for place in range(len(passed)):
            product *= leaf.factor[node, place, np.int64(passed[place])]
        for place in range(len(passed)):
            due[family[place]] += product * leaf.due[node, place, np.int64(passed[place])]
