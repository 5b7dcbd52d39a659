"""Who does a behaviour at all, against counts by SQL and against a world that is known."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from nights import AS_OF, make_material, write_night

from embed import Encoder
from jobs.config import load_config
from jobs.nightly import Night
from jobs.propensity import BASELINE, MODEL, people_of, train_propensities, user_table
from jobs.state import Material, State
from jobs.training import hyperparameters
from rank.metrics import log_loss


def people_at(material: Material, *times: datetime) -> list:
    projection = material.fit_projection(times[0])
    return [people_of(State(material, time, projection)) for time in times]


@pytest.mark.parametrize("days_ago", [14, 45])
def test_labels_equal_sql_over_the_source(
    tmp_path: Path, static_encoder: Encoder, days_ago: int
) -> None:
    """Click may be repeated; a purchase counts where it is the first of its item."""
    night = write_night(tmp_path)
    material = make_material(night, static_encoder)
    start = AS_OF - timedelta(days=days_ago)
    (people,) = people_at(material, start)
    ids = material.inputs.users.get_column("user_id").gather(people.users)
    with duckdb.connect() as connection:
        connection.execute(f"create view e as from '{night.root}/events.parquet'")
        expected = connection.sql(
            f"""
            with known as (select user_id from '{night.root}/users.parquet'
                           where user_id is not null and created_at < timestamp '{start}'),
            inside as (select * from e where ts >= timestamp '{start}'
                       and ts < least(timestamp '{start}' + interval 14 day, timestamp '{AS_OF}')
                       and item_id in (select item_id from '{night.root}/items.parquet'))
            select user_id,
                   user_id in (select user_id from inside where behaviour = 'click') as click,
                   user_id in (select user_id from inside where behaviour = 'purchase'
                       and not isnan(value) and not exists (
                           from e as past where past.user_id = inside.user_id
                           and past.item_id = inside.item_id and past.behaviour = 'purchase'
                           and past.ts < timestamp '{start}'
                       )) as purchase
            from known order by user_id
            """
        ).pl()
    assert ids.to_list() == expected.get_column("user_id").to_list()
    for behaviour in ("click", "purchase"):
        happened = people.happened[behaviour]
        np.testing.assert_array_equal(happened, expected.get_column(behaviour).to_numpy())
        assert happened.any() == (days_ago > 0)
        assert not happened.all()


HORIZON, WINDOWS = 10, 6
WORLD = f"""
name = "world"
[sources]
items = "items.parquet"
events = "events.parquet"
users = "users.parquet"
[users]
attributes = ["pull"]
[encoder]
model = "packaged/wordllama"
[events]
weights = {{ buy = 1.0 }}
[[predict]]
behaviour = "buy"
horizon_days = {HORIZON}
repeats = true
[scoring]
threads = 1
"""


def write_world(folder: Path, *, users: int, seed: int) -> np.ndarray:
    """Users buy by a Poisson process of a rate that an attribute tells; the true probabilities.

    One in ten has no attribute and hardly ever buys.
    """
    rng = np.random.default_rng(seed)
    pull = rng.uniform(0, 1, users)
    idle = rng.random(users) < 0.1
    per_window = np.where(idle, 0.005, 0.02 + 0.5 * pull**2)
    count = rng.poisson(per_window * WINDOWS)
    user = np.repeat(np.arange(users), count)
    seconds = rng.integers(1, WINDOWS * HORIZON * 86_400, len(user))
    items = [f"thing {n}" for n in range(8)]
    pl.DataFrame({"item_id": items, "title": items}).write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {
            "user_id": np.arange(users),
            "pull": pl.Series([None if i else p for i, p in zip(idle, pull, strict=True)]),
            "created_at": AS_OF - timedelta(days=365),
        }
    ).write_parquet(folder / "users.parquet")
    pl.DataFrame(
        {
            "user_id": user,
            "item_id": [items[n] for n in rng.integers(0, 8, len(user))],
            "ts": [AS_OF - timedelta(seconds=int(s)) for s in seconds],
            "behaviour": "buy",
        }
    ).unique().write_parquet(folder / "events.parquet")
    (folder / "world.toml").write_text(WORLD)
    return -np.expm1(-per_window)


def test_in_a_known_world_the_probabilities_are_near_the_true_ones(
    tmp_path: Path, static_encoder: Encoder
) -> None:
    truth = write_world(tmp_path, users=20_000, seed=0)
    config = load_config(tmp_path / "world.toml")
    material = make_material(Night(config, AS_OF, tmp_path, tmp_path / "home"), static_encoder)
    starts = [AS_OF - timedelta(days=HORIZON * n) for n in range(WINDOWS, 0, -1)]
    windows = people_at(material, *starts)
    models, metrics = train_propensities(config, windows, parameters=hyperparameters(config))
    tonight = State(material, AS_OF, material.fit_projection(starts[0]), now=True)
    table = user_table(tonight, models, model_version="v")
    assert table.get_column("user_id").to_list() == list(range(20_000))
    probability = table.get_column("probability").to_numpy()
    assert np.abs(probability - truth).mean() < 0.1 * truth.mean()
    values = {
        (row["model"], row["segment"], row["metric"]): row["value"]
        for row in metrics.iter_rows(named=True)
    }
    assert values[MODEL, "all", "predicted_over_observed"] == pytest.approx(1, abs=0.08)
    entropy = [values[model, "all", "normalised_entropy"] for model in (MODEL, BASELINE)]
    assert entropy[0] < entropy[1] < 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, static_encoder: Encoder):
    """Windows of the small shop, the models and their metrics."""
    night = write_night(tmp_path_factory.mktemp("people"))
    material = make_material(night, static_encoder)
    starts = [AS_OF - timedelta(days=14 * n) for n in range(5, 0, -1)]
    windows = people_at(material, *starts)
    models, metrics = train_propensities(
        night.config, windows, parameters=hyperparameters(night.config)
    )
    return night.config, windows, models, metrics


def test_metrics_are_those_of_the_test_window(trained) -> None:
    _, windows, models, metrics = trained
    tested = windows[-1]
    for published in models:
        model = published.calibrated(windows[-2].example(published.behaviour), threads=1)
        probability = model(tested.features, threads=1)
        happened = tested.happened[model.behaviour]
        mine = metrics.filter(behaviour=model.behaviour, model=MODEL)
        for segment, part in (
            ("all", tested.warm | True),
            ("user:warm", tested.warm),
            ("user:cold", ~tested.warm),
        ):
            values = dict(mine.filter(segment=segment).select("metric", "value").iter_rows())
            assert values["users"] == part.sum() > 0
            assert values["positives"] == happened[part].sum()
            assert values["log_loss"] == pytest.approx(log_loss(happened[part], probability[part]))
    warm = metrics.filter(metric="users").pivot(
        "segment", index=["behaviour", "model"], values="value"
    )
    assert len(warm) == 4
    assert (warm["user:warm"] + warm["user:cold"] == warm["all"]).all()


def test_cold_users_are_those_without_an_event_before(trained) -> None:
    _, windows, _, _ = trained
    counts = windows[-1].features.select(pl.sum_horizontal("^user_(view|click|cart|purchase)_all$"))
    np.testing.assert_array_equal(windows[-1].warm, counts.to_series().to_numpy() > 0)


def test_what_the_test_window_holds_changes_nothing_but_the_last_calibration(trained) -> None:
    config, windows, models, _ = trained
    *earlier, tested = windows
    swapped = replace(tested, happened={name: ~h for name, h in tested.happened.items()})
    again, _ = train_propensities(config, [*earlier, swapped], parameters=hyperparameters(config))
    assert again != models
    before = [
        [m.calibrated(windows[-2].example(m.behaviour), threads=1) for m in found]
        for found in (again, models)
    ]
    assert before[0] == before[1]


def test_too_few_users_get_the_base_rate_and_the_run_says_so(trained) -> None:
    config, windows, _, _ = trained
    rare = [
        replace(w, happened=w.happened | {"purchase": np.arange(len(w.users)) < 3}) for w in windows
    ]
    said: list[str] = []
    models, metrics = train_propensities(
        config, rare, parameters=hyperparameters(config), on_progress=said.append
    )
    n = sum(len(w.users) for w in rare[:-1])
    rate = (3 * 4 + 0.5) / (n + 1)
    assert [model.trees is None for model in models] == [False, True]
    assert said == [f"purchase: too few users to learn from, all get {rate:.4f}"]
    predicted = metrics.filter(
        behaviour="purchase", model=MODEL, segment="all", metric="predicted_over_observed"
    )
    assert predicted.get_column("value").item() == pytest.approx(rate * len(rare[-1].users) / 3)
    nobody = [replace(w, happened=w.happened | {"purchase": w.warm & False}) for w in windows]
    _, metrics = train_propensities(config, nobody, parameters=hyperparameters(config))
    loss = metrics.filter(behaviour="purchase", segment="all", metric="log_loss")
    assert loss.get_column("value").is_between(0, 0.01).all()
