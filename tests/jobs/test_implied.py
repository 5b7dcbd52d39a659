from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jobs.config import Config, load_config
from jobs.errors import ConfigError
from jobs.implied import implications, order_metrics

TOML = """
name = "shop"
[sources]
items = "items.parquet"
events = "events.parquet"
[events]
weights = {{ view = 1, cart = 2, buy = 5 }}
implies = {implies}
"""
CHAIN = '{ buy = "cart", cart = "view" }'


def load(folder: Path, implies: str = CHAIN, **horizons: int) -> Config:
    predicted = [
        f'[[predict]]\nbehaviour = "{name}"\nhorizon_days = {days}\n'
        for name, days in horizons.items()
    ]
    (folder / "shop.toml").write_text(TOML.format(implies=implies) + "".join(predicted))
    return load_config(folder / "shop.toml")


def test_each_behaviour_is_held_against_the_nearest_that_bounds_it(tmp_path: Path) -> None:
    def found(**horizons: int) -> list[tuple[str, str]]:
        return list(implications(load(tmp_path, **horizons)))

    assert found(view=7, cart=7, buy=7) == [("cart", "view"), ("buy", "cart")]
    assert found(view=7, buy=7) == [("buy", "view")]
    assert found(view=30, cart=7, buy=14) == [("cart", "view"), ("buy", "view")]
    assert found(view=7, buy=14) == []  # bought within 14 days, viewed within 7: not implied
    assert found(view=7) == []
    assert list(implications(load(tmp_path, "{}", view=7, buy=7))) == []


@pytest.mark.parametrize(
    ("implies", "said"),
    [
        ('{ buy = "watch" }', "'watch' is not one of events.weights (view, cart, buy)"),
        ('{ watch = "view" }', "'watch' is not one of events.weights (view, cart, buy)"),
        ('{ buy = "buy" }', "'buy' implies itself, through 'buy'"),
        ('{ buy = "cart", cart = "buy" }', "'cart' implies itself, through 'buy'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, implies: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, implies, view=7)
    assert f"events.implies: {said}" in str(error.value)


def test_what_leads_into_a_circle_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, '{ buy = "cart", cart = "view", view = "cart" }', view=7)
    assert "'cart' implies itself" in str(error.value)
    assert "'buy' implies itself" not in str(error.value)


def outcome(*rows: tuple[int, int, float, bool]) -> pl.DataFrame:
    return pl.DataFrame(rows, ["user", "item", "probability", "happened"], orient="row")


def test_order_by_hand(tmp_path: Path) -> None:
    # Of five pairs for buy, four are candidates for view too: two of them .1 and .3 too high.
    buy = outcome(
        (0, 1, 0.2, True), (0, 2, 0.5, True), (1, 1, 0.1, False), (1, 2, 0.9, True),
        (1, 3, 1.0, True),
    )  # fmt: skip
    view = outcome(
        (1, 2, 0.6, False), (0, 2, 0.6, True), (0, 1, 0.1, True), (1, 1, 0.1, True),
        (7, 7, 0.1, True),
    )  # fmt: skip
    config = load(tmp_path, '{ buy = "view" }', view=7, buy=7)
    found = order_metrics(config, {"view": view.lazy(), "buy": buy.lazy()})
    assert found.columns == ["behaviour", "model", "segment", "metric", "value"]
    assert found.select("behaviour", "model", "segment").unique().rows() == [
        ("buy", "nightrank", "implies:view")
    ]
    values = dict(found.select("metric", "value").rows())
    assert values == pytest.approx(
        {"pairs": 4, "order_violations": 0.5, "order_excess": 0.1, "order_observed": 2 / 3}
    )


def test_without_pairs_in_common_nothing_is_defined(tmp_path: Path) -> None:
    config = load(tmp_path, '{ buy = "view" }', view=7, buy=7)
    view, buy = outcome((0, 1, 0.1, True)), outcome((0, 2, 0.1, True))
    found = order_metrics(config, {"view": view.lazy(), "buy": buy.lazy()}).drop_nans("value")
    assert found.select("metric", "value").rows() == [("pairs", 0.0)]


def test_without_implications_there_is_no_row(tmp_path: Path) -> None:
    found = order_metrics(load(tmp_path, "{}", view=7, buy=7), {})
    assert found.is_empty()
    assert found.columns == ["behaviour", "model", "segment", "metric", "value"]


def test_parts_in_files_give_the_same_bits_each_time(tmp_path: Path) -> None:
    config = load(tmp_path, '{ buy = "view" }', view=7, buy=7)
    rng, parts = np.random.default_rng(0), {}
    for name in ("view", "buy"):
        paths = [tmp_path / f"{name} {number}.arrow" for number in range(9)]
        for number, path in enumerate(paths):
            pair = np.indices((50, 20)).reshape(2, -1).astype(np.int32)
            columns = {
                "user": pair[0] + 50 * number,
                "item": pair[1],
                "probability": rng.random(1000),
            }
            pl.DataFrame(columns).with_columns(happened=pl.col("item") == 0).write_ipc(path)
        parts[name] = pl.scan_ipc(paths)
    found = [order_metrics(config, parts) for _ in range(40)]
    assert all(found[0].equals(again) for again in found)
