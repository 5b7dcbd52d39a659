"""Trees grown by LightGBM: for the probability, or for the order of each user's candidates."""

import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rank.boosters import added
from rank.calibrate import Floats
from rank.examples import Example, Objective

if TYPE_CHECKING:
    import lightgbm

    from rank.kernel import Forest

log = logging.getLogger(__name__)

# By LightGBM's C interface: its package and what that imports take most of a second to load.
_LOAD_EACH = """
import ctypes, json, sys
library, by = ctypes.CDLL(sys.argv[1]), ctypes.byref
library.LGBM_GetLastError.restype = ctypes.c_char_p
def call(name, *arguments):
    if getattr(library, name)(*arguments):
        sys.exit(library.LGBM_GetLastError().decode(errors="replace"))
for text in json.load(sys.stdin):
    trees, rounds, columns = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    call("LGBM_BoosterLoadModelFromString", text.encode(), by(rounds), by(trees))
    call("LGBM_BoosterGetNumFeature", trees, by(columns))
    row, length, score = (ctypes.c_double * columns.value)(), ctypes.c_int64(), ctypes.c_double()
    call("LGBM_BoosterPredictForMatSingleRow", trees, row, 1, columns, 1, 0, 0, -1,
         b"num_threads=1", by(length), by(score))
"""

# Of the rows of each call so many are scored by LightGBM too, and may differ by so much. They are
# the same to the last bit unless something is broken.
VERIFIED, TOLERANCE = 100, 1e-9

# The seeds of rankers that are added up are so far apart.
SEEDS_APART = 1000

# The order is learnt for the first so many places of a user's list.
LISTED = 10


class TooFewPositives(Exception):
    """A window holds no example of the behaviour among the candidates."""


@dataclass(frozen=True)
class Hyperparameters:
    """How the trees are grown; see LightGBM's parameters of the same meaning.

    `min_positives_per_leaf` is the least number of positives that the classifier expects in a
    leaf, LightGBM's `min_sum_hessian_in_leaf`. Where one pair in thousands happens, fifty rows
    expect a tenth of a positive, and a Newton step divides by that: one leaf could then move the
    odds by a factor of a thousand. `feature_fraction` and `bagging_fraction` are the shares of
    features and of rows that a tree may see. `rankers` of different seeds are added up for the
    order.
    """

    learning_rate: float
    num_leaves: int
    min_rows_per_leaf: int
    min_positives_per_leaf: float
    max_rounds: int
    early_stopping_rounds: int
    seed: int
    threads: int
    l2: float
    feature_fraction: float
    bagging_fraction: float
    rankers: int


@dataclass(frozen=True)
class Trees:
    """A grown model.

    Attributes:
        text: LightGBM's text form of the booster.
        features: the columns it was grown on, in order.
    """

    text: str
    features: tuple[str, ...]

    def score(self, features: pl.DataFrame, *, threads: int) -> Floats:
        """(n,) raw score of `features` (n, f): log-odds, or a number that only orders.

        What LightGBM's `predict` says is right. `rank.kernel` says the same faster, where it knows
        all that the trees have and, on a sample of the rows, does say the same.
        """
        if features.is_empty():  # LightGBM refuses a matrix without rows
            return np.zeros(0)
        described = features.select(self.features)
        if self._forest is None or set(described.dtypes) != {pl.Float32}:
            return self._predict(described, threads=threads)
        score = self._forest.score(described, threads=threads)
        sample = np.linspace(0, len(score) - 1, min(VERIFIED, len(score)), dtype=np.int64)
        error = np.abs(score[sample] - self._predict(described[sample], threads=threads)).max()
        if error <= TOLERANCE:
            return score
        log.warning("fast scores are off by %g: the trees are scored by LightGBM instead", error)
        return self._predict(described, threads=threads)

    def _predict(self, described: pl.DataFrame, *, threads: int) -> Floats:
        matrix = described.to_numpy()
        raw = self.booster.predict(matrix, raw_score=True, num_threads=threads)
        return np.asarray(raw, dtype=np.float64)

    @cached_property
    def booster(self) -> "lightgbm.Booster":
        """The trees as LightGBM has them."""
        import lightgbm

        return lightgbm.Booster(model_str=self.text)

    @cached_property
    def _forest(self) -> "Forest | None":
        """The trees as the kernel has them; None where only LightGBM knows how to score them."""
        from rank.kernel import Forest, UnsuitableError

        try:
            return Forest.read(self.text)
        except UnsuitableError as reason:
            log.info("trees are scored by LightGBM: %s", reason)
            return None

    @property
    def gains(self) -> Floats:
        """(f,) how much the splits on each feature lowered the loss while growing."""
        return np.asarray(self.booster.feature_importance("gain"), dtype=np.float64)

    @property
    def rounds(self) -> int:
        """Number of trees."""
        return self.text.count("\nTree=")


def grow(
    train: Sequence[Example],
    stop: Sequence[Example],
    *,
    objective: Objective,
    parameters: Hyperparameters,
    on_tree: Callable[[], object] = lambda: None,
) -> Trees:
    """Grow trees on the training windows until `stop` gets no better, or `max_rounds` of them.

    `binary` minimises the cross-entropy; `lambdarank` the discounted gain lost in the first
    places of each user's list (Burges, From RankNet to LambdaRank to LambdaMART, MSR-TR-2010-82).
    The result is the same for any number of threads.

    Args:
        train: of the training windows, in parts or whole.
        stop: what ends the growing, likewise; without it, all rounds are grown.
        objective: see above.
        parameters: how the trees are grown.
        on_tree: called after each of them; what it raises ends the growing.

    Raises:
        TooFewPositives: the training windows or the stopping window hold no positive.
    """
    from rank.datasets import dataset

    _check_positives(train, "training windows")
    options = _parameters(objective, parameters)
    grown_on = dataset(train, objective, options)
    stopped_on: lightgbm.Dataset | None = None
    if stop:
        _check_positives(stop, "early-stopping window")
        stopped_on = dataset(stop, objective, options, reference=grown_on)
    rankers = parameters.rankers if objective == "lambdarank" else 1
    texts = []
    for n in range(rankers):
        seeded = replace(parameters, seed=parameters.seed + n * SEEDS_APART)
        texts.append(_grown(grown_on, stopped_on, objective, seeded, on_tree))
    return Trees(text=added(texts), features=tuple(train[0].columns))


def _grown(
    grown_on: "lightgbm.Dataset",
    stopped_on: "lightgbm.Dataset | None",
    objective: Objective,
    parameters: Hyperparameters,
    on_tree: Callable[[], object],
) -> str:
    import lightgbm

    callbacks: list[Callable[..., object]] = [lambda _: on_tree()]
    if stopped_on is not None:
        patience = parameters.early_stopping_rounds
        callbacks.append(lightgbm.early_stopping(patience, verbose=False))
    booster = lightgbm.train(
        _parameters(objective, parameters),
        grown_on,
        num_boost_round=parameters.max_rounds,
        valid_sets=[stopped_on] if stopped_on is not None else [],
        callbacks=callbacks,
    )
    return _without_threads(booster.model_to_string(num_iteration=booster.best_iteration))


@lru_cache(maxsize=8)
def try_loading(texts: tuple[str, ...]) -> str | None:
    """Load trees in a process of their own, as LightGBM aborts the whole process on bad ones.

    Args:
        texts: of `Trees`.

    Returns:
        None when all of them load and answer, else what LightGBM last said.
    """
    # It inherits that signals wait: systemd stops all processes, and trees would seem bad.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LOAD_EACH, _library()],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            errors="replace",  # LightGBM quotes what it could not read
            check=False,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if child.returncode == 0:
        return None
    said = child.stderr.strip() or f"it ended with code {child.returncode}"
    return said.splitlines()[-1]


def _library() -> str:
    """Where LightGBM's compiled part is, found without importing the package."""
    package = find_spec("lightgbm")
    places = package.submodule_search_locations if package else None
    found = [path for place in places or () for path in Path(place).rglob("lib_lightgbm.*")]
    if not found:
        raise FileNotFoundError(
            f"no lib_lightgbm in {places}: install lightgbm by pip, whose wheel holds it"
        )
    return str(found[0])


def _check_positives(examples: Sequence[Example], window: str) -> None:
    if not any(example.happened.any() for example in examples):
        raise TooFewPositives(f"no candidate of the {window} was followed by it")


def _parameters(objective: Objective, parameters: Hyperparameters) -> dict[str, object]:
    of_objective = {
        "binary": {
            "metric": "binary_logloss",
            "min_sum_hessian_in_leaf": parameters.min_positives_per_leaf,
        },
        "lambdarank": {"metric": "ndcg", "eval_at": LISTED},
    }
    return {
        "objective": objective,
        **of_objective[objective],
        "learning_rate": parameters.learning_rate,
        "num_leaves": parameters.num_leaves,
        "min_data_in_leaf": parameters.min_rows_per_leaf,
        "lambda_l2": parameters.l2,
        "feature_fraction": parameters.feature_fraction,
        "bagging_fraction": parameters.bagging_fraction,
        "bagging_freq": 1,
        "seed": parameters.seed,
        "num_threads": parameters.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _without_threads(text: str) -> str:
    """The text minus the one parameter that may differ from machine to machine."""
    return re.sub(r"^\[num_threads: \d+\]\n", "", text, flags=re.MULTILINE)
