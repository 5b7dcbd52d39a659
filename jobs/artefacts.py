"""What has been computed of a state, in files that every process of a run maps into its memory.

What a shard of users reads is held by cached properties of the state and of its parts. `save`
writes their values, most of them as arrays, and `opened` puts them back, so that nothing of
it is computed again. Pages of a file are in memory once, however many processes map it.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from index import kinds
from index.kinds import Choice
from index.store import VectorIndex
from jobs.state import State
from rank.features import Alone
from rank.known import Kind, Means, PairTable

Array = NDArray[Any]

FOLDER = "state"
CONTENTS = "parts.json"

# In this order, as those that come first give others what they are made from.
_PARTS: dict[str, Callable[[State], object]] = {
    "state": lambda state: state,
    "snapshot": lambda state: state.snapshot,
    "features": lambda state: state.features,
    "known": lambda state: state.features.known,
    "shown": lambda state: state.features.known.shown,
    "evidence": lambda state: state.evidence if _explained(state) else None,
}
# What others are made from and no shard reads.
_PASSING = {
    "_asking",
    "_known",
    "age",
    "event_age",
    "is_behaviour",
    "until_event",
}
_RECORDS = {kind.__name__: kind for kind in (Alone, Kind, Means, PairTable)}
# Of a snapshot: they lie in the run's folder already.
_GIVEN = ("item_vectors", "review_vectors")
_CSR = ("data", "indices", "indptr")


class _OtherKindError(Exception):
    """A value is nothing that is kept, such as a frame."""


def compute(state: State) -> None:
    """Let a state hold all that a shard of users reads: what one user asks for, all do."""
    state.bytes_per_pair  # noqa: B018  proposes to a user and describes that
    state.features.of_users(state.users[:1])
    if _explained(state):
        for name in _cached(state.evidence):
            getattr(state.evidence, name)


def save(state: State, folder: Path) -> list[Path]:
    """Write what a state holds by now (see `compute`), but not the vectors that it was given.

    Array after array, so that nothing is copied as a whole.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(folder)
    for name in _GIVEN:
        writer.known[_place(getattr(state.snapshot, name))] = {"given": name}
    contents: dict[str, dict[str, Any]] = {}
    for part, of in _PARTS.items():
        contents[part] = {}
        holder = of(state)
        for name in _cached(holder):
            if name in vars(holder) and name not in _PASSING:
                writer.begin(f"{part}.{name.strip('_')}")
                with suppress(_OtherKindError):
                    contents[part][name] = writer.node(vars(holder)[name])
    (folder / CONTENTS).write_text(json.dumps(contents, indent=1))
    return [path for path in folder.rglob("*") if path.is_file()]


def are_kept(folder: Path) -> bool:
    """Whether `save` of this version wrote the folder: a run may have begun with another."""
    return (folder / CONTENTS).exists()


def opened(state: State, folder: Path) -> State:
    """A new state with the values that `save` wrote, mapped; the caller has verified the files."""
    contents = json.loads((folder / CONTENTS).read_text())
    reader = _Reader(folder, state)
    for part, of in _PARTS.items():
        values = {name: reader.value(node) for name, node in contents[part].items()}
        if values:
            vars(of(state)).update(values)
    return state


def mapped(path: Path) -> Any:
    """The array of an .npy file. What is written to it goes to a copy of the process's own."""
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))


def _explained(state: State) -> bool:
    return state.material.config.scoring.reasons_per_user > 0


def _place(array: Array) -> tuple[object, ...]:
    """What tells an array from others, whatever views there are of it."""
    told = array.__array_interface__
    return told["data"][0], told["shape"], told["typestr"], array.strides


def _cached(part: object) -> list[str]:
    """Names of the cached properties of an object."""
    names = (name for kind in type(part).__mro__ for name in vars(kind))
    return [name for name in names if isinstance(getattr(type(part), name), cached_property)]


class _Writer:
    """Writes values, of which each array once; gives what goes into the table of contents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple[object, ...], dict[str, Any]] = {}
        self._name, self._count = "", 0

    def begin(self, name: str) -> None:
        """What the next files are called."""
        self._name, self._count = name, 0

    def node(self, value: Any) -> dict[str, Any]:
        """Write a value; how to read it.

        Raises:
            _OtherKindError: it is of no kind that is kept.
        """
        if isinstance(value, np.ndarray):
            place = _place(value)
            if place not in self.known:
                self.known[place] = self._array(value)
            return self.known[place]
        if isinstance(value, VectorIndex):
            return self._index(value)
        if isinstance(value, sp.csr_array):
            parts = {name: self.node(getattr(value, name)) for name in _CSR}
            return {"csr": parts, "shape": list(map(int, value.shape))}
        if isinstance(value, dict):
            return {"dict": {name: self.node(one) for name, one in value.items()}}
        if isinstance(value, tuple):
            return {"tuple": [self.node(one) for one in value]}
        if type(value).__name__ in _RECORDS:
            of = {field.name: self.node(getattr(value, field.name)) for field in fields(value)}
            return {"record": type(value).__name__, "of": of}
        if value is None or isinstance(value, str | int | float):
            return {"plain": value}
        raise _OtherKindError

    def _array(self, value: Array) -> dict[str, Any]:
        name = self._next("npy")
        np.save(self.folder / name, value, allow_pickle=False)
        return {"array": name}

    def _index(self, index: VectorIndex) -> dict[str, Any]:
        of = {name: self.node(getattr(index, name)) for name in ("ids", "rows", "vectors")}
        of["choice"] = self.node(index.choice)
        proposing = None
        if index.proposing is not None:
            proposing = self._next("faiss")
            kinds.write(index.proposing, self.folder / proposing)
        return {"index": of, "proposing": proposing}

    def _next(self, suffix: str) -> str:
        self._count += 1
        return f"{self._name}.{self._count - 1}.{suffix}"


class _Reader:
    """Reads what `_Writer` wrote, likewise each array once."""

    def __init__(self, folder: Path, state: State) -> None:
        self.folder, self._state = folder, state
        self._known: dict[str, Array] = {}

    def value(self, node: dict[str, Any]) -> Any:
        if "given" in node:
            return getattr(self._state.snapshot, node["given"])
        if "array" in node:
            name = node["array"]
            if name not in self._known:
                self._known[name] = mapped(self.folder / name)
            return self._known[name]
        if "index" in node:
            return self._index(node)
        if "csr" in node:
            return _csr({n: self.value(one) for n, one in node["csr"].items()}, node["shape"])
        if "dict" in node:
            return {name: self.value(one) for name, one in node["dict"].items()}
        if "tuple" in node:
            return tuple(self.value(one) for one in node["tuple"])
        if "record" in node:
            of = {name: self.value(one) for name, one in node["of"].items()}
            return _RECORDS[node["record"]](**of)
        return node["plain"]

    def _index(self, node: dict[str, Any]) -> VectorIndex:
        of = {name: self.value(one) for name, one in node["index"].items()}
        of["choice"] = Choice(*of["choice"])
        if node["proposing"] is not None:
            of["proposing"] = kinds.read(self.folder / node["proposing"])
        return VectorIndex(**of).on_best_device()


def _csr(parts: dict[str, Any], shape: list[int]) -> sp.csr_array:
    """Of parts as they are: the constructor would read all of them, and might copy."""
    matrix = sp.csr_array(tuple(shape), dtype=parts["data"].dtype)
    for name, values in parts.items():
        setattr(matrix, name, values)
    return matrix
