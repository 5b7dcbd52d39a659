"""Shards over processes: the same files, and what happens when one of them ends."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from forks import TINY, command, start, tiny_shop
from nights import ALL_GENERATORS, make_material, write_night
from published import flip
from shops import Shop

from embed import Encoder, towers
from index import neighbours
from index.choice import Indexing, choose
from index.kinds import Kind
from index.store import VectorIndex
from jobs import artefacts, vectors
from jobs.errors import ResourceError
from jobs.ledger import Ledger
from jobs.shards import save_state
from jobs.state import Material, State
from jobs.workers import Workers, at_work

OF_SHARDS = ("shards", "reasons", "health")
ANYHOW = ("--force", "nobody: five trees know little")
# Ten shards.
TOML = TINY.replace("users_per_shard = 50", "users_per_shard = 10\nprocesses = 1")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A night that was stopped when its state had been kept."""
    shop = Shop(tmp_path_factory.mktemp("processes"), TOML, tiny_shop())
    assert shop("run", signal_at="index")[0] == 143
    return shop


@pytest.fixture(scope="module")
def by_one(begun: Shop) -> dict[str, bytes]:
    """What one process makes of it."""
    shop = copy_of(begun, 1, "one")
    assert shop("resume", *ANYHOW)[0] == 0
    run = run_of(shop)
    assert not any((run / name).exists() for name in ("inputs", "vectors", "state"))
    found = files(shop)
    assert len([name for name in found if name.startswith("shards/0")]) == 10
    return found


def copy_of(begun: Shop, processes: int, name: str) -> Shop:
    """The same with a home of its own and so many processes, which a resumed run may change."""
    text = TOML.replace("processes = 1", f"processes = {processes}")
    shop = Shop(begun.folder / name, text, tiny_shop())
    shutil.copytree(begun.home, shop.home, symlinks=True)
    return shop


def run_of(shop: Shop) -> Path:
    (run,) = (shop.home / "runs").iterdir()
    return run


def files(shop: Shop) -> dict[str, bytes]:
    """All that was written of shards."""
    run = run_of(shop)
    paths = (path for name in OF_SHARDS for path in (run / name).iterdir())
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def noted(shop: Shop) -> set[str]:
    text = (run_of(shop) / "ledger.jsonl").read_text()
    steps = (json.loads(line)["step"] for line in text[: text.rfind("\n")].splitlines())
    return {step.removeprefix("score:") for step in steps if step.startswith("score:0")}


def written(shop: Shop) -> set[str]:
    return {path.stem for path in (run_of(shop) / "shards").glob("*.parquet")}


def test_two_processes_end_and_are_started_again_and_write_the_same_bytes(
    begun: Shop, by_one: dict[str, bytes]
) -> None:
    shop = copy_of(begun, 2, "two")
    code, said, log = shop("resume", workers_killed_at="score:0*")
    assert (code, said["status"]) == (5, "resources")
    assert "was ended by SIGKILL" in log
    assert "nightrank resume" in log
    assert 1 <= len(noted(shop)) < 5

    before = noted(shop)
    line = ["resume", str(shop.config), "--home", str(shop.home)]
    parent = start(command, line, shop.folder / "killed")
    until(lambda: noted(shop) > before)
    scoring = spawned(parent.pid)
    parent.kill()
    parent.join()
    assert len(scoring) == 2
    until(lambda: not any(map(is_alive, scoring)))

    code, said, _ = shop("resume", *ANYHOW)
    assert (code, said["status"]) == (0, "published")
    assert files(shop) == by_one


def spawned(pid: int | None) -> list[psutil.Process]:
    """Those that score for a process."""
    found = psutil.Process(pid).children()
    return [p for p in found if "spawn_main" in " ".join(p.cmdline())]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(comes: Callable[[], bool]) -> None:
    for _ in range(6000):
        if comes():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come within five minutes")


def test_a_signal_lets_the_shards_at_work_be_finished(begun: Shop) -> None:
    shop = copy_of(begun, 2, "stopped")
    code, said, log = shop("resume", signal_at="score:0*")
    assert (code, said["status"]) == (143, "stopped")
    assert "stopped by SIGTERM" in log
    assert {"000000", "000001"} <= noted(shop) == written(shop)
    assert len(noted(shop)) < 10


def test_a_damaged_artefact_is_made_anew(begun: Shop, by_one: dict[str, bytes]) -> None:
    shop = copy_of(begun, 1, "damaged")
    run = run_of(shop)
    whole = {path: path.read_bytes() for path in (run / "state").rglob("*.npy")}
    for path in (run / "vectors" / "reviews.npy", *whole):
        flip(path, 0.9)
    assert shop("resume", signal_at="index")[0] == 143
    assert {path: path.read_bytes() for path in whole} == whole
    assert shop("resume", *ANYHOW)[0] == 0
    assert files(shop) == by_one


@pytest.fixture
def material(tmp_path: Path, static_encoder: Encoder) -> Material:
    night = write_night(tmp_path, ALL_GENERATORS, tiny_shop())
    return make_material(night, static_encoder)


def test_a_state_that_was_kept_proposes_and_describes_the_same_without_learning(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_of = material.inputs.as_of
    projection = material.fit_projection(as_of)
    fresh = State(material, as_of, projection, now=True)
    listed = save_state(fresh, tmp_path)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} - {*listed} <= {
        p for p in tmp_path.rglob("*") if "shop" in p.parts or "home" in p.parts
    }
    vectors.keep(material, tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("it is computed again")

    for owner, names in (
        (neighbours, ("cooccurrence", "directed", "ease", "two_hop", "strongest", "by_vectors")),
        (towers, ("fit_towers",)),
        (VectorIndex, ("build",)),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, refused)
    mapped = vectors.kept(material.config, material.inputs, tmp_path)
    kept = artefacts.opened(State(mapped, as_of, projection, now=True), tmp_path / "state")
    users = fresh.users[10:60]
    pairs = fresh.candidates(users)
    assert kept.candidates(users).equals(pairs, null_equal=True)
    assert kept.describe(pairs).equals(fresh.describe(pairs), null_equal=True)
    assert kept.describe_users().equals(fresh.describe_users(), null_equal=True)
    for name in ("item_index", "whitened_index", "review_index", "answer_index", "new_index"):
        index, other = getattr(kept.snapshot, name), getattr(fresh.snapshot, name)
        for part in ("ids", "rows", "vectors"):
            np.testing.assert_array_equal(getattr(index, part), getattr(other, part))
        assert index.choice == other.choice
    maps = Path("/proc/self/maps").read_text()
    for name in ("vectors/items.npy", "state/snapshot.cooccurrence"):
        assert f"{tmp_path}/{name}" in maps
    assert kept.snapshot.item_index.vectors is mapped.item_vectors
    assert kept.snapshot.whitened_index.vectors is kept.snapshot.whitened_items


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "quantised"])
def test_an_index_of_every_kind_that_was_kept_finds_the_same(tmp_path: Path, kind: Kind) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(900, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids, chosen = np.arange(900, dtype=np.int32), rng.random(900) < 0.7
    indexing = Indexing(exact_up_to=100, kinds=(kind,), least_recall=0.5, sample=50)
    index = choose(ids, vectors, indexing, asked=lambda most: vectors[:most], chosen=chosen)
    assert index.choice.kind == kind
    node = artefacts._Writer(tmp_path).node(index)
    kept = artefacts._Reader(tmp_path, None).value(json.loads(json.dumps(node)))
    assert kept.choice == index.choice
    for found, expected in zip(kept.search(vectors, 20), index.search(vectors, 20), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_another_version_kept_is_computed_anew(begun: Shop, by_one: dict[str, bytes]) -> None:
    shop = copy_of(begun, 1, "older")
    run = run_of(shop)
    ledger, state = Ledger(run), run / artefacts.FOLDER
    (state / artefacts.CONTENTS).rename(state / "contents.json")
    kept = [p for folder in ("index", "state") for p in (run / folder).rglob("*") if p.is_file()]
    ledger.note("index", *kept, measured=ledger["index"]["measured"])
    assert ledger.holds("index")
    assert shop("resume", *ANYHOW)[0] == 0
    assert files(shop) == by_one


def test_what_is_written_to_a_mapped_array_changes_no_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    array = artefacts.mapped(tmp_path / "a.npy")
    array[0] = 9
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]


def test_workers_answer_in_any_order_and_raise_what_was_raised() -> None:
    opening = partial(eval, "lambda n: (n, 1 // n, __import__('os').environ['OMP_NUM_THREADS'])")
    with Workers(opening, number=2, threads=3) as workers:
        for n in (1, 2):
            assert not workers.all_busy
            workers.ask(n)
        assert workers.all_busy
        assert len(at_work) == 2
        answers = sorted(workers.answer() for _ in range(2))
        threads = os.environ.get("OMP_NUM_THREADS", "3")
        assert answers == [((1,), (1, 1, threads)), ((2,), (2, 0, threads))]
        workers.ask(0)
        with pytest.raises(ZeroDivisionError):
            workers.answer()
        assert not workers.any_busy
    assert not at_work


def test_workers_leave_signals_to_their_parent_even_while_they_start() -> None:
    with Workers(partial(eval, "lambda n: n + 1"), number=2, threads=1) as workers:
        for n in (1, 2):
            workers.ask(n)
        for pid in at_work:
            assert pid  # 0 would be everybody
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(pid, number)
        assert sorted(workers.answer() for _ in range(2)) == [((1,), 2), ((2,), 3)]


def test_a_worker_that_ends_is_named() -> None:
    opening = partial(eval, "lambda code: __import__('os')._exit(code)")
    with Workers(opening, number=1, threads=1) as workers:
        workers.ask(3)
        with pytest.raises(ResourceError, match="ended with code 3"):
            workers.answer()
