"""Examples of several shards in files are learnt from as one in memory is."""

from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
import pytest
from growing import PARAMETERS as GROWN
from polars.testing import assert_frame_equal

from rank.datasets import dataset
from rank.examples import Example, Objective, joined
from rank.logistic import Logistic
from rank.trees import _parameters, grow

PARAMETERS = replace(GROWN, num_leaves=15, max_rounds=25, rankers=2)
NAMES = ["item_pc_0", "user_pc_0", "cosine_profile", "price", "constant"]


def shard(number: int, users: int, dtype: type[pl.DataType] = pl.Float32) -> Example:
    """Thirty candidates for each user, some unknown, some whole numbers, a tenth happens."""
    rng = np.random.default_rng(number)
    n = 30 * users
    table = rng.normal(size=(n, len(NAMES)))
    table[:, 3], table[:, 4] = np.round(table[:, 3]), 1.0
    table[rng.random(table.shape) < 0.1] = np.nan
    odds = np.nan_to_num(table[:, 0] + table[:, 1] * table[:, 3]) - 2.5
    return Example(
        pl.DataFrame(table, NAMES).cast(dtype),
        np.repeat(np.arange(users, dtype=np.int32) + 100 * number, 30),
        rng.random(n) < 1 / (1 + np.exp(-odds)),
        (rng.random(n) < 0.6).astype(np.float32) * 2,
    )


@pytest.fixture(params=[pl.Float32, pl.Float64], ids=str)
def shards(request: pytest.FixtureRequest) -> list[Example]:
    found = [shard(number, users, request.param) for number, users in enumerate((40, 1, 60, 30))]
    nothing_to_learn = replace(found[1], weight=0 * found[1].weight, happened=found[1].users < 0)
    return [found[0], nothing_to_learn, *found[2:]]


@pytest.mark.parametrize("objective", ["binary", "lambdarank"])
def test_shards_in_files_grow_the_trees_of_one_frame(
    shards: list[Example], tmp_path: Path, objective: Objective
) -> None:
    files = [part.in_file(tmp_path / f"{n}.arrow") for n, part in enumerate(shards)]
    assert all(isinstance(part.features, pl.LazyFrame) for part in files)
    stop = [joined(shards[2:])]
    grown = [
        grow(train, stopped_on, objective=objective, parameters=PARAMETERS)
        for train, stopped_on in (([joined(shards)], stop), (shards, stop), (files, files[2:]))
    ]
    assert grown[0].rounds > 3
    assert grown[0] == grown[1] == grown[2]


@pytest.mark.parametrize("seed", [0, 3])
def test_bins_of_many_shards_are_those_that_lightgbm_makes_of_one_matrix(seed: int) -> None:
    """Of more rows than its sample, and with a feature that no leaf of so many rows can use."""
    parameters = replace(PARAMETERS, seed=seed, max_rounds=5, min_rows_per_leaf=50)
    parts = [shard(number, 1200) for number in range(7)]
    rare = pl.when(pl.int_range(pl.len()) < 5).then(1.0).otherwise(0.0).cast(pl.Float32)
    parts = [replace(p, features=p.read().with_columns(rare=rare)) for p in parts]
    whole = joined(parts)
    kept = whole.rows("binary")
    assert kept.sum() > 140_000
    options = _parameters("binary", parameters) | {"bin_construct_sample_cnt": 100_000}
    ours = dataset(parts, "binary", options)
    plain = lightgbm.Dataset(
        whole.read().filter(pl.Series(kept)).to_numpy(),
        whole.happened[kept].astype(np.float32),
        weight=whole.weight[kept],
        feature_name=whole.columns,
        params=options,
    )
    texts = [
        lightgbm.train(options, rows, num_boost_round=5).model_to_string() for rows in (ours, plain)
    ]
    assert texts[0] == texts[1]


def test_shards_in_files_are_read_back_as_they_were(shards: list[Example], tmp_path: Path) -> None:
    files = [part.in_file(tmp_path / f"{n}.arrow") for n, part in enumerate(shards)]
    one, other = joined(shards), joined(files)
    assert_frame_equal(one.read(), other.read(), check_exact=True)
    for name in ("users", "happened", "weight"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert one.columns == other.columns == files[0].columns == NAMES
    followers = other.of_followers()
    assert set(followers.users) == set(one.users[one.happened])
    assert len(followers.read()) == len(followers.users)


def test_a_logistic_head_is_fitted_on_shards_in_files(
    shards: list[Example], tmp_path: Path
) -> None:
    files = [part.in_file(tmp_path / f"{n}.arrow") for n, part in enumerate(shards)]
    one, other = Logistic.fit([joined(shards)]), Logistic.fit(files)
    assert np.array_equal(one.weights, other.weights)
    assert one.intercept == other.intercept
