"""What is wrong with a configuration, said with file, key, value and what is allowed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a model with its field, those of sections dotted: `scoring.threads`."""
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is None:
            yield prefix + name, field
        else:
            yield from keys(section, f"{prefix}{name}.")


def allowed(field: FieldInfo) -> str:
    """The range of a number, the pattern of a text or the choices; empty when anything goes.

    >>> from pydantic import Field
    >>> allowed(FieldInfo.from_annotated_attribute(float, Field(gt=0, le=1)))
    '> 0, <= 1'
    """
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{sign} {value:g}"
        for constraint in field.metadata
        for name, sign in signs.items()
        if (value := getattr(constraint, name, None)) is not None
    ]
    patterns = [rule.pattern for rule in field.metadata if getattr(rule, "pattern", None)]
    listed = get_args(field.annotation)
    nested = [choice for part in listed for choice in get_args(part)]
    choices = [choice for choice in (*listed, *nested) if isinstance(choice, str)]
    return ", ".join([*bounds, *patterns, *choices])


def problem(model: type[BaseModel], detail: ErrorDetails, path: Path, prefix: str) -> str:
    """One line (or more, for a check over several keys) for one of pydantic's errors.

    Args:
        model: The configuration's class.
        detail: The error.
        path: The file that was read.
        prefix: Of the environment variables; the one that gave the value is named for the file.
    """
    where, message = detail["loc"], detail["msg"].removeprefix("Value error, ")
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)[1:]
    names = [part for part in where if isinstance(part, str)]
    origin = _variable(names, prefix) or str(path)
    if detail["type"] == "extra_forbidden":
        return f"{origin}: {unknown(model, names)} (given {detail['input']!r})"
    if detail["type"] == "value_error" and isinstance(detail["input"], dict | BaseModel):
        return "\n".join(f"{origin}: {line}" for line in message.splitlines())
    dotted = ".".join(names) + "."
    fields = (field for name, field in keys(model) if dotted.startswith(f"{name}."))
    field = next(fields, model.model_fields.get(names[0]) if names else None)
    meaning = f" {field.description}" if field and field.description else ""
    if detail["type"] == "missing":
        return f"{origin}: {key} is missing.{meaning}"
    range_text = f" (allowed: {allowed(field)})" if field and allowed(field) else ""
    return f"{origin}: {key} = {detail['input']!r}: {message}{range_text}.{meaning}"


def unknown(model: type[BaseModel], names: Sequence[str]) -> str:
    """Say that a key is unknown, and which known key is nearest."""
    key = ".".join(names)
    known = sorted({*model.model_fields, *(name for name, _ in keys(model))})
    section = f"{'.'.join(names[:-1])}." if len(names) > 1 else ""
    siblings = [name for name in known if name.startswith(section)]
    by_last = {name.rsplit(".")[-1]: name for name in known}
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.8) or [
        by_last[last] for last in difflib.get_close_matches(names[-1], by_last, n=1)
    ]
    nearest = near or difflib.get_close_matches(key, siblings or known, n=1, cutoff=0)
    return f"unknown key {key}; the nearest known key is {nearest[0]}"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The section a field holds, itself or in a list."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _variable(names: Sequence[str], prefix: str) -> str | None:
    """The environment variable that gave this key or a table above it, if one did."""
    wanted = [(prefix + "__".join(names[:depth])).upper() for depth in range(len(names), 0, -1)]
    return next((name for want in wanted for name in os.environ if name.upper() == want), None)
