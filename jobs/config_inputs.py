"""The tables of the configuration file that say what comes in; see `jobs.config_sections`."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ITEM_COLUMNS = (
    "item_id", "title", "description", "category", "brand", "price", "available", "created_at",
)  # fmt: skip
USER_COLUMNS = ("user_id", "consent", "created_at", "known_since")

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Column = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Format = Literal["sql", "parquet", "csv", "ndjson"]
T = TypeVar("T")


def source_format(source: str) -> Format | None:
    r"""How a source is read: by its file name's ending, or as SQL. None when neither is clear.

    >>> source_format("events/*.csv.gz"), source_format("-- daily\nSELECT 1"), source_format("x")
    ('csv', 'sql', None)
    """
    code = re.sub(r"--[^\n]*|/\*.*?\*/", " ", source, flags=re.DOTALL).lstrip(" \t\r\n(")
    if re.match(r"(select|with|from)\b", code, flags=re.IGNORECASE):
        return "sql"
    ending = re.search(r"\.(parquet|csv|tsv|ndjson|jsonl)(\.gz|\.zst)?$", source.lower())
    if not ending or (ending[1] == "parquet" and ending[2]):
        return None
    formats: dict[str, Format] = {"parquet": "parquet", "csv": "csv", "tsv": "csv"}
    return formats.get(ending[1], "ndjson")


def key(default: T, description: str) -> T:
    """A key with its default and the sentence that docs and error messages give for it."""
    field: T = Field(default=default, description=description)
    return field


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SourcesConfig(Section):
    """Where the rows come from."""

    items: str = Field(description="Items: a path or glob (Parquet, CSV, NDJSON), or SQL.")
    reviews: str | None = key(None, "Reviews: a path, glob or SQL.")
    events: str | None = key(None, "Events: a path, glob or SQL.")
    users: str | None = key(None, "Users, consent, attributes: path, glob or SQL.")
    consent: str | None = key(None, "Who agreed to be written to: path, glob or SQL.")
    suppression: str | None = key(None, "Who must not be written to: path, glob or SQL.")
    contact_max_age_days: Above0 = key(
        7.0, "With an older `consent` or `suppression`, campaigns get no list."
    )
    attach: dict[Column, str] = key(
        {}, "Databases that SQL may read, by name: a DuckDB file or `postgres:...`."
    )
    max_quarantined_share: Share = key(
        0.05, "The night is refused when more of a source's rows than this are bad."
    )

    @field_validator("items", "reviews", "events", "users", "consent", "suppression")
    @classmethod
    def _readable(cls, source: str | None) -> str | None:
        if source is not None and source_format(source) is None:
            raise ValueError(
                "is neither SQL (starting with select, with or from) nor a file name ending in "
                ".parquet, .csv, .tsv, .ndjson or .jsonl (text files also .gz, .zst); "
                "read other formats with SQL, such as select * from read_json('x.json')"
            )
        return source


class ItemsConfig(Section):
    """What is known of an item."""

    attributes: list[Column] = key([], "Further columns of items, as features.")
    text: str = key(
        "{title}. {brand}. {category}. {description}",
        "Template of the text that is encoded; names columns of items in braces.",
    )
    max_characters: Positive = key(2000, "An item's text is cut to this length.")

    @field_validator("attributes")
    @classmethod
    def _new_columns(cls, attributes: list[str]) -> list[str]:
        return _attributes(attributes, taken=ITEM_COLUMNS)

    @model_validator(mode="after")
    def _template(self) -> ItemsConfig:
        allowed = ["title", "description", "category", "brand", *self.attributes]
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"items.text = {self.text!r} is no template: {error}") from None
        names = [
            name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            for _, name, spec, conversion in parts
            if name is not None
        ]
        if not names or (unknown := [name for name in names if name not in allowed]):
            found = f"names {unknown[0]!r}" if names else "names no column"
            raise ValueError(
                f"items.text = {self.text!r} {found}; use one or more of "
                + ", ".join(f"{{{name}}}" for name in allowed)
            )
        return self


class UsersConfig(Section):
    """What is known of a user."""

    attributes: list[Column] = key([], "Further columns of users, as features.")
    columns: list[Column] = key([], "Further columns that campaigns use, and no feature does.")

    @field_validator("attributes")
    @classmethod
    def _new_columns(cls, attributes: list[str]) -> list[str]:
        return _attributes(attributes, taken=USER_COLUMNS)

    @model_validator(mode="after")
    def _more_columns(self) -> UsersConfig:
        _attributes(self.columns, taken=(*USER_COLUMNS, *self.attributes))
        return self


class ReviewsConfig(Section):
    """How reviews are used."""

    weight: Above0 = key(
        1.0,
        "Weight in a profile of the text of a neutral review, relative to events.weights; that of "
        "the gladdest is twice as much, that of the sorriest 0.",
    )
    rating_scale: tuple[float, float] | None = key(
        None, "The worst and the best rating; by default the least and the greatest so far."
    )
    least_rated: Positive = key(
        200, "With fewer texts that have a rating, those that have none are taken as neutral."
    )
    max_characters: Positive = key(5000, "A review's text is cut to this length.")

    @field_validator("rating_scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and scale[0] >= scale[1]:
            raise ValueError(f"{list(scale)}: the first is the worst, the second the best")
        return scale


class EventsConfig(Section):
    """The behaviours that events may hold."""

    weights: dict[str, Above0] = key(
        {}, "Every behaviour the events may hold, with its weight in a profile."
    )
    from_reviews: dict[str, str] = key(
        {}, 'Behaviours that reviews stand for: `{ like = "rating >= 4" }`, in SQL.'
    )
    impressions: str | None = key(
        None, "The behaviour that says an item was shown; none of events.weights."
    )
    implies: dict[str, str] = key(
        {}, 'What comes with a behaviour, as in `{ buy = "view" }`: P(buy) <= P(view) is checked.'
    )

    def implied_by(self, behaviour: str) -> list[str]:
        """What comes with a behaviour, the nearest first.

        >>> EventsConfig(implies={"buy": "cart", "cart": "view"}).implied_by("buy")
        ['cart', 'view']
        """
        found: list[str] = []
        while (behaviour := self.implies.get(behaviour, "")) and behaviour not in found:
            found.append(behaviour)
        return found


def _attributes(attributes: list[str], *, taken: Sequence[str]) -> list[str]:
    wrong = [name for name in attributes if name in taken or attributes.count(name) > 1]
    if wrong:
        raise ValueError(
            f"{wrong[0]!r} is named twice or is a column of the contract ({', '.join(taken)})"
        )
    return attributes
