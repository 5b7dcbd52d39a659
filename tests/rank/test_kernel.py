"""The kernel against LightGBM's `predict`, which is right by definition: equal to the last bit."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank import trees as trees_module
from rank.kernel import MOST_LEAVES, ROWS, ZERO, Forest, UnsuitableError, _at_or_below
from rank.trees import Trees

ROOT = Path(trees_module.__file__).parents[1]
WIDTH = 9
# What a model of a few rounds meets on the edges of what float32 tells apart.
EDGES = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 9e-36, -9e-36, ZERO, -ZERO, 2e-35, -2e-35, 3e38, -3e38],
    dtype=np.float32,
)
WILD = np.concatenate([EDGES, np.array([np.nan, np.inf, -np.inf], dtype=np.float32)])


def frame(matrix: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(matrix, schema=[f"f{i}" for i in range(matrix.shape[1])])


def trees_of(booster: lightgbm.Booster) -> Trees:
    return Trees(booster.model_to_string(), tuple(f"f{i}" for i in range(booster.num_feature())))


def invented(rng: np.random.Generator, n: int, unknown: float) -> np.ndarray:
    """Normal, skewed, rounded and nearly constant columns, tiny ones among them."""
    table = rng.normal(size=(n, WIDTH)).astype(np.float32)
    table[:, 1] = np.exp(3 * table[:, 1])
    table[:, 2] = np.round(table[:, 2])
    table[:, 3] = table[:, 3] > 1
    table[:, 4] = rng.choice(EDGES, size=n)
    table[:, 5] *= np.float32(1e-35)
    table[rng.random(table.shape) < unknown] = np.nan
    return table


def grown(
    seed: int = 1, unknown: float = 0.2, rounds: int = 12, **parameters: object
) -> tuple[lightgbm.Booster, np.ndarray]:
    """A model and what it has learnt from; any objective takes its five grades."""
    rng = np.random.default_rng(seed)
    table = invented(rng, 1_500, unknown)
    signal = np.nan_to_num(table[:, :4]).clip(-2, 2).sum(axis=1) + 2 * np.isnan(table[:, 6])
    signal += np.sign(np.nan_to_num(table[:, 4])) + rng.normal(size=len(table))
    grade = np.digitize(signal, np.quantile(signal, [0.5, 0.7, 0.8, 0.9]))
    defaults = {
        "objective": "binary",
        "min_data_in_leaf": 3,
        "min_data_in_bin": 1,
        "num_leaves": 31,
        "num_threads": 1,
        "seed": seed,
        "verbosity": -1,
    }
    told = defaults | parameters
    of_users = np.full(len(table) // 20, 20) if told["objective"] == "lambdarank" else None
    target = grade > 0 if told["objective"] == "binary" else grade
    categorical = told.pop("categorical_feature", "auto")
    data = lightgbm.Dataset(table, target, group=of_users, categorical_feature=categorical)
    return lightgbm.train(told, data, num_boost_round=rounds), table


def hostile(booster: lightgbm.Booster, table: np.ndarray, seed: int = 7) -> np.ndarray:
    """Rows with wild values, thresholds, and the float32 values on both sides of them."""
    rng = np.random.default_rng(seed)
    found = re.findall(r"^threshold=(.+)$", booster.model_to_string(), flags=re.MULTILINE)
    with np.errstate(over="ignore"):
        cuts = np.array(" ".join(found).split() or [0], dtype=np.float64).astype(np.float32)
    below, above = (np.nextafter(cuts, np.float32(way)) for way in (-np.inf, np.inf))
    values = np.concatenate([cuts, below, above, np.repeat(WILD, 1 + len(cuts) // len(WILD))])
    drawn = rng.choice(values, size=(2_000, table.shape[1]))
    usual = table[rng.integers(0, len(table), len(drawn))]
    return np.where(rng.random(drawn.shape) < 0.5, drawn, usual)


def assert_equal(booster: lightgbm.Booster, rows: np.ndarray) -> None:
    """To the last bit, whatever the number of threads."""
    forest = Forest.read(booster.model_to_string())
    expected = booster.predict(rows, raw_score=True, num_threads=1)
    for threads in (1, 2):
        np.testing.assert_array_equal(forest.score(frame(rows), threads=threads), expected)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    unknown=st.sampled_from([0.0, 0.02, 0.5]),
    leaves=st.sampled_from([2, 3, 15, 31, 63, 64, 65, 200]),
    objective=st.sampled_from(["binary", "lambdarank", "regression"]),
    use_missing=st.booleans(),
)
def test_random_forests(
    seed: int, unknown: float, leaves: int, objective: str, use_missing: bool
) -> None:
    booster, table = grown(
        seed, unknown, num_leaves=leaves, objective=objective, use_missing=use_missing
    )
    assert_equal(booster, hostile(booster, table, seed))


def test_what_the_random_forests_have() -> None:
    """Every kind of split: no missing values, to the left, to the right, and at infinity."""
    kinds: set[str] = set()
    infinite = False
    for unknown in (0.0, 0.5):
        text = grown(unknown=unknown)[0].model_to_string()
        for line in re.findall(r"^decision_type=(.+)$", text, flags=re.MULTILINE):
            kinds |= set(line.split())
        infinite |= bool(re.search(r"^threshold=.*\binf\b", text, flags=re.MULTILINE))
    assert kinds >= {"2", "8", "10"}  # bit 1: to the left; bits 2 and 3: what is missing
    assert infinite


def test_more_rows_than_one_task_takes() -> None:
    booster, table = grown()
    rows = np.resize(table, (2 * ROWS + 3, WIDTH))
    assert_equal(booster, rows)
    assert_equal(booster, rows[:1])


def test_trees_of_one_leaf() -> None:
    """Nothing to learn from, and a feature that ends after the first rounds."""
    table = np.zeros((60, 2), dtype=np.float32)
    still = lightgbm.Dataset(table, np.arange(60) % 3 == 0)
    constant = lightgbm.train({"objective": "binary", "verbosity": -1}, still, num_boost_round=2)
    assert_equal(constant, np.array([[1.0, np.nan], [0.0, -np.inf]], dtype=np.float32))
    booster, rows = grown(rounds=5, min_data_in_leaf=760)  # no split leaves so many on both sides
    assert "num_leaves=1\n" in booster.model_to_string()
    assert_equal(booster, rows)


def test_many_cuts_are_searched_and_few_are_counted() -> None:
    table = np.random.default_rng(3).random((6_000, 2)).astype(np.float32)
    target = np.sin(40 * table).sum(axis=1)
    told = {"objective": "regression", "num_leaves": 120, "min_data_in_leaf": 5, "verbosity": -1}
    booster = lightgbm.train(told, lightgbm.Dataset(table, target), num_boost_round=40)
    assert Forest.read(booster.model_to_string()).cut_count.min() > 200
    assert_equal(booster, hostile(booster, table))


def test_cuts_between_float32_values_and_near_zero() -> None:
    third = np.array([1 / 3, -1 / 3, 1e300, -1e300, np.inf])
    cut = _at_or_below(third)
    assert (cut <= third).all()
    with np.errstate(over="ignore"):
        assert (np.nextafter(cut[:4], np.float32(np.inf)) > third[:4]).all()
    tiny = _at_or_below(np.array([0.0, float(ZERO), -1e-40, -float(ZERO)]))
    assert tiny.tolist()[:2] == [ZERO, ZERO]  # what is read as 0 is at or below 0
    assert (tiny[2:] < -ZERO).all()  # and above whatever is below 0


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"zero_as_missing": True}, "zeros for missing"),
        ({"linear_tree": True, "objective": "regression"}, "linear"),
        ({"num_leaves": MOST_LEAVES + 1}, "leaves"),
        ({"objective": "multiclass", "num_class": 5}, "sum"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "sum"),
        (
            {"max_bin": 1000, "objective": "regression", "num_leaves": 200, "rounds": 30},
            "thresholds",
        ),
        ({"categorical_feature": [2]}, "categorical"),
    ],
)
def test_the_rest_is_left_to_lightgbm(parameters: dict[str, object], reason: str) -> None:
    booster, table = grown(**{"min_data_in_leaf": 1, "num_leaves": 60} | parameters)
    with pytest.raises(UnsuitableError, match=reason):
        Forest.read(booster.model_to_string())
    score = trees_of(booster).score(frame(table), threads=1)
    np.testing.assert_array_equal(score, booster.predict(table, raw_score=True, num_threads=1))


def test_doubles_are_left_to_lightgbm() -> None:
    """Rounded to float32 they could come to lie on the other side of a threshold."""
    booster, table = grown()
    doubles = table.astype(np.float64)
    doubles += 1e-12
    score = trees_of(booster).score(frame(doubles), threads=1)
    np.testing.assert_array_equal(score, booster.predict(doubles, raw_score=True, num_threads=1))


def test_columns_are_taken_by_name_and_null_is_unknown() -> None:
    booster, table = grown()
    features = frame(table).fill_nan(None)
    shuffled = features.select(pl.lit(1.0).alias("other"), *reversed(features.columns))
    score = trees_of(booster).score(shuffled, threads=1)
    np.testing.assert_array_equal(score, booster.predict(table, raw_score=True, num_threads=1))


def test_a_wrong_forest_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    booster, table = grown()
    right = booster.predict(table, raw_score=True, num_threads=1)
    trees = trees_of(booster)
    assert trees.score(frame(table), threads=1).tolist() == right.tolist()
    assert not caplog.records
    forest = trees._forest
    assert forest is not None
    for wrong in (
        forest._replace(value=np.where(np.arange(len(forest.value)) == 3, 9.0, forest.value)),
        forest._replace(most=forest.most + 1),
        forest._replace(value=forest.value * np.nan),
    ):
        caplog.clear()
        tampered = replace(trees)
        tampered.__dict__["_forest"] = wrong  # where the cached property is kept
        assert tampered.score(frame(table), threads=1).tolist() == right.tolist()
        assert "fast scores are off" in caplog.text


def test_trees_are_read_once() -> None:
    booster, table = grown()
    trees = trees_of(booster)
    trees.score(frame(table), threads=1)
    read = trees._forest
    trees.score(frame(table), threads=1)
    assert trees._forest is read


@pytest.mark.parametrize(
    ("room", "loop"),
    [("rank", "kernel._walk"), ("rank", "lookups.products"), ("index", "lookups.products")],
)
def test_where_nothing_can_be_written(tmp_path: Path, room: str, loop: str) -> None:
    """A read-only install of a user without a home compiles anew in each process."""
    folder, (module, function) = ROOT / room, loop.split(".")
    shutil.copytree(folder, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / room / "__pycache__").write_text("a file where a folder would be made")
    (tmp_path / "home").write_text("likewise")
    told = f"import {room}.{module} as m; print(m.__file__, m.{function}._cache)"
    child = subprocess.run(
        [sys.executable, "-c", told],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "home")}
        | {"XDG_CACHE_HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert str(tmp_path) in child.stdout
    assert "NullCache" in child.stdout
