"""Recommending to all users by models that are there: ours, plainly, and RecTools' two stages.

Each way runs in a process of its own, from what `prepare` and `grow_models` have kept, and leaves
its lists as Parquet files.
"""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import polars as pl

from benchmarks.features import TABLES
from benchmarks.measured import Clock
from index.generators import GENERATORS
from jobs.config import Config
from jobs.examples import examples_of
from jobs.nightly import Night, prepare
from jobs.scoring import predictions, score_pairs
from jobs.state import Material, State, Users
from jobs.training import hyperparameters
from rank.features import GROUPS
from rank.metrics import positions
from rank.model import Model
from rank.trees import grow

BEHAVIOUR = "purchase"
PER_STAGE = 34  # of each of RecTools' three first stages: about a hundred together
NEIGHBOURS = 20  # of an item, by implicit's default, which RecTools' item KNN has


@dataclass(frozen=True)
class Task:
    """What is to be done alike by several ways.

    Attributes:
        budgets: what each generator may propose; None: as the configuration says.
        groups: of features.
        probable: whether probabilities are wanted beside an order.
        neighbours: of an item; None: as the configuration says.
    """

    budgets: dict[str, int] | None
    groups: tuple[str, ...]
    probable: bool
    neighbours: int | None = None

    def state(self, material: Material, *, before_days: int = 0) -> State:
        """The state so many days before the night."""
        as_of = material.inputs.as_of - timedelta(days=before_days)
        material = replace(material, config=self.config(material.config))
        without = [group for group in GROUPS if group not in self.groups]
        projection = material.fit_projection(as_of)
        return State(material, as_of, projection, now=before_days == 0, without=without)

    def config(self, config: Config) -> Config:
        """The configuration with the task's generators alone."""
        if self.budgets is None:
            return config
        changed = dict.fromkeys(GENERATORS, 0) | self.budgets
        changed["per_user"] = sum(self.budgets.values())
        if self.neighbours is not None:
            changed["neighbours_per_item"] = self.neighbours
        candidates = config.candidates.model_copy(update=changed)
        return config.model_copy(update={"candidates": candidates})


TWO_STAGES = Task(
    dict.fromkeys(("cooccurrence", "factors", "popular"), PER_STAGE),
    ("generators",),
    probable=False,
)
TASKS = {
    "night": Task(None, ("generators", "similarity", "last_items", *TABLES), probable=True),
    # As much as RecTools does: popular items, items of common users, factors; their ranks and
    # scores are the features; one model gives an order. Then with as many neighbours of an item.
    "two stages": TWO_STAGES,
    f"two stages, {NEIGHBOURS} neighbours": replace(TWO_STAGES, neighbours=NEIGHBOURS),
}


def keep_material(night: Night) -> float:
    """Write what the tasks work on to the night's home; MiB of its vectors."""
    material = prepare(night).material
    night.home.joinpath("material.pickle").write_bytes(pickle.dumps(material))
    return (material.item_vectors.nbytes + material.review_vectors.nbytes) / 2**20


def material_of(home: Path) -> Material:
    """What `keep_material` wrote."""
    found: Material = pickle.loads(home.joinpath("material.pickle").read_bytes())
    return found


def grow_models(home: Path, trees: int) -> None:
    """Keep a model for each task, grown on the window before the night, of so many trees.

    Trees are counted, not stopped early, as what they cost is measured.
    """
    material = material_of(home)
    for name, task in TASKS.items():
        horizon = material.config.prediction(BEHAVIOUR).horizon_days
        examples = examples_of(task.state(material, before_days=horizon))[BEHAVIOUR]
        parameters = replace(hyperparameters(material.config), max_rounds=trees)
        model = Model(
            behaviour=BEHAVIOUR,
            horizon_days=horizon,
            classifier=grow(examples, [], objective="binary", parameters=parameters),
            ranker=grow(examples, [], objective="lambdarank", parameters=parameters),
            negative_share=material.config.training.negative_share,
        )
        folder = home / "models of tasks" / name
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder)


def ours(state: State, model: Model, task: Task) -> Callable[[], Iterator[pl.DataFrame]]:
    """Nightrank's own way: candidates, features and scores of each shard."""
    list(_ours(state, model, task, [state.users[:1]]))  # builds, and compiles, what all share
    return lambda: _ours(state, model, task, state.shards())


def plainly(state: State, model: Model, task: Task) -> Callable[[], Iterator[pl.DataFrame]]:
    """The same with Polars, SciPy, FAISS and LightGBM alone."""
    from benchmarks.plainly import Plain, recommend

    plain = Plain(state, described=task.probable)
    list(recommend(plain, iter([state.users[:1]]), model, probable=task.probable))
    return lambda: recommend(plain, state.shards(), model, probable=task.probable)


def rectools(state: State, model: Model, task: Task) -> Callable[[], Iterator[pl.DataFrame]]:
    """RecTools' CandidateRankingModel, fitted on the same events."""
    from benchmarks.peers import dataset_of, two_stage

    place = pl.int_range(pl.len(), dtype=pl.Int32).over("user")
    events = state.inputs.events.select("user", "item", place=place)
    dataset = dataset_of(events, events)
    fitted = two_stage(0, PER_STAGE, 3).fit(dataset)

    def recommend() -> Iterator[pl.DataFrame]:
        found = fitted.recommend(
            users=dataset.user_id_map.external_ids,
            dataset=dataset,
            k=3 * PER_STAGE,
            filter_viewed=True,
        )
        yield pl.from_pandas(found).select("user_id", "item_id", position="rank", score="score")

    return recommend


WAYS = {"nightrank": ours, "plainly": plainly, "RecTools": rectools}


def measure(way: str, name: str, home: Path) -> tuple[Clock, int]:
    """Do a task one way; what building (`fit`) and recommending took, and how many pairs."""
    clock, task = Clock(), TASKS[name]
    with clock("imports and data"):
        material = material_of(home)
        model = Model.load(home / "models of tasks" / name, BEHAVIOUR)
        target = home / "lists" / name / way
        target.mkdir(parents=True, exist_ok=True)
    with clock("fit"):
        recommend = WAYS[way](task.state(material), model, task)
    pairs = 0
    with clock("recommend"):
        for number, lists in enumerate(recommend()):
            lists.write_parquet(target / f"{number:06d}.parquet")
            pairs += len(lists)
    return clock, pairs


def alike(home: Path, name: str) -> tuple[float, float]:
    """The share of our pairs that the plain way has too, and of those with the same score.

    Sums of floats in another order, and equal similarities, let a few differ.
    """
    folder = home / "lists" / name
    mine, plain = (pl.read_parquet(folder / way / "*.parquet") for way in ("nightrank", "plainly"))
    both = mine.join(plain, on=["user_id", "item_id"], suffix="_plain")
    same = (pl.col("score") - pl.col("score_plain")).abs() < 1e-6
    return len(both) / max(len(mine), len(plain)), float(both.select(same.mean()).item())


def _ours(
    state: State, model: Model, task: Task, shards: Iterator[Users] | list[Users]
) -> Iterator[pl.DataFrame]:
    for users in shards:
        pairs = state.candidates(users)
        features = state.describe(pairs)
        if task.probable:
            (scored,) = score_pairs(state, [model], pairs, features, threads=1)
            lists = predictions([scored], [model], state)
            yield lists.select("user_id", "item_id", "position", "generators", score="probability")
            continue
        order = model.ranker.score(features, threads=1)
        inputs = state.inputs
        yield pl.DataFrame(
            {
                "user_id": inputs.users.get_column("user_id").gather(pairs["user"]),
                "item_id": inputs.items.get_column("item_id").gather(pairs["item"]),
                "position": positions(pairs, order),
                "score": order,
            }
        )
