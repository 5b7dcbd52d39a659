"""The contracts: the columns of every source and the rules its rows must keep.

Each contract is a dataframely schema of the rows as `jobs.sources` reads them. A column's
metadata says how a cell is read (its kind) and whether the source must have the column; a
rule's name is the name under which the quarantine lists the rows that break it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import new_class
from typing import Any, Literal, NamedTuple

import dataframely as dy
import polars as pl

from jobs.config import Config

Kind = Literal["id", "text", "time", "number", "flag", "behaviour", "attribute"]
Source = Literal["items", "events", "reviews", "users"]


class Cell(NamedTuple):
    """How one column of a source is read."""

    name: str
    kind: Kind
    required: bool
    choices: tuple[str, ...] = ()


def _kind(kind: Kind, *, required: bool = False) -> dict[str, Any]:
    return {"kind": kind, "required": required}


def _number() -> dy.Float64:
    """A number; one that is not finite comes as null with its raw text, and so breaks a rule."""
    return dy.Float64(nullable=True, allow_inf=True, allow_nan=True, metadata=_kind("number"))


def _read(column: str) -> pl.Expr:
    """True where the cell is empty or was understood."""
    return pl.col("raw").struct.field(column).is_null()


def _first_of(columns: Sequence[str]) -> pl.Expr:
    """True on the first of the rows that are equal in these columns.

    A row with a cell that was not understood is quarantined anyway, and stands for no other.
    """
    unread = pl.any_horizontal(pl.col("raw").struct.field("*").is_not_null())
    return unread | pl.struct(unread.alias("unread"), *columns).is_first_distinct()


class Row(dy.Schema):
    """Where a row came from, and the raw text of the cells that were not understood."""

    file = dy.String(nullable=True)
    row = dy.Int64(nullable=True)
    raw = dy.Any()  # a struct of strings: one field per column that is not mere text


class OfItem(Row):
    """A row about an item."""

    item_id = dy.Any(metadata=_kind("id", required=True))

    @dy.rule()
    def missing_item_id(cls) -> pl.Expr:
        """The id is neither null nor blank."""
        return pl.col("item_id").is_not_null() | ~_read("item_id")

    @dy.rule()
    def item_id_not_a_64_bit_integer(cls) -> pl.Expr:
        """A whole-number id fits into 64 bits."""
        return _read("item_id")


class OfUser(Row):
    """A row about a user."""

    user_id = dy.Any(metadata=_kind("id", required=True))

    @dy.rule()
    def missing_user_id(cls) -> pl.Expr:
        """The id is neither null nor blank."""
        return pl.col("user_id").is_not_null() | ~_read("user_id")

    @dy.rule()
    def user_id_not_a_64_bit_integer(cls) -> pl.Expr:
        """A whole-number id fits into 64 bits."""
        return _read("user_id")


class Created(Row):
    """A row about something that came into being."""

    created_at = dy.Datetime(nullable=True, time_unit="us", metadata=_kind("time"))

    @dy.rule()
    def created_at_not_a_time(cls) -> pl.Expr:
        """The time can be read."""
        return _read("created_at")


class Items(OfItem, Created):
    """Items: one row each."""

    title = dy.String(nullable=True, metadata=_kind("text", required=True))
    description = dy.String(nullable=True, metadata=_kind("text"))
    category = dy.String(nullable=True, metadata=_kind("text"))
    brand = dy.String(nullable=True, metadata=_kind("text"))
    price = _number()
    available = dy.Bool(nullable=True, metadata=_kind("flag"))

    @dy.rule()
    def price_not_a_number(cls) -> pl.Expr:
        """The price is a finite number."""
        return _read("price")

    @dy.rule()
    def available_not_a_boolean(cls) -> pl.Expr:
        """Availability is true or false."""
        return _read("available")

    @dy.rule()
    def duplicate_id(cls) -> pl.Expr:
        """An item has one row; the first is kept."""
        return pl.col("item_id").is_null() | _first_of(["item_id"])


class Users(OfUser, Created):
    """Users: what is known beyond what they did; need not list them all."""

    consent = dy.Bool(nullable=True, metadata=_kind("flag"))

    @dy.rule()
    def consent_not_a_boolean(cls) -> pl.Expr:
        """Consent is true or false."""
        return _read("consent")

    @dy.rule()
    def duplicate_id(cls) -> pl.Expr:
        """A user has one row; the first is kept."""
        return pl.col("user_id").is_null() | _first_of(["user_id"])


class Dated(OfUser, OfItem):
    """What a user did to an item at a time: common to events and reviews."""

    ts = dy.Datetime(nullable=True, time_unit="us", metadata=_kind("time", required=True))
    item = dy.Int32(nullable=True)  # the item's position, null when the items do not hold it

    @dy.rule()
    def unknown_item(cls) -> pl.Expr:
        """The items hold the item."""
        return pl.col("item_id").is_null() | pl.col("item").is_not_null()

    @dy.rule()
    def missing_time(cls) -> pl.Expr:
        """The time is given."""
        return pl.col("ts").is_not_null() | ~_read("ts")

    @dy.rule()
    def unparseable_time(cls) -> pl.Expr:
        """The time can be read."""
        return _read("ts")


class Events(Dated):
    """Events: what users did."""

    behaviour = dy.Any(metadata=_kind("behaviour", required=True))
    value = _number()

    @dy.rule()
    def unknown_behaviour(cls) -> pl.Expr:
        """The behaviour is one of events.weights, or events.impressions."""
        return pl.col("behaviour").is_not_null()

    @dy.rule()
    def value_not_a_number(cls) -> pl.Expr:
        """A value is a finite number."""
        return _read("value")

    @dy.rule()
    def exact_duplicate(cls) -> pl.Expr:
        """An event is listed once; the first is kept."""
        return _first_of(["user_id", "item_id", "ts", "behaviour", "value"])


class Reviews(Dated):
    """Reviews: what users wrote."""

    text = dy.String(nullable=True, metadata=_kind("text"))
    title = dy.String(nullable=True, metadata=_kind("text"))
    rating = _number()

    @dy.rule()
    def rating_not_a_number(cls) -> pl.Expr:
        """A rating is a finite number."""
        return _read("rating")

    @dy.rule()
    def exact_duplicate(cls) -> pl.Expr:
        """A review is listed once; the first is kept."""
        return _first_of(["user_id", "item_id", "ts", "text", "title", "rating"])


class OfCampaign(OfUser):
    """A row about a user and a campaign."""

    campaign = dy.String(nullable=True, metadata=_kind("text"))


class Contacts(OfCampaign):
    """Who agreed to be written to, or must not be; without a campaign it holds for all."""

    exported_at = dy.Datetime(nullable=True, time_unit="us", metadata=_kind("time"))

    @dy.rule()
    def exported_at_not_a_time(cls) -> pl.Expr:
        """The time can be read."""
        return _read("exported_at")


class Consents(Contacts):
    """Who agreed to be written to."""

    consent = dy.Bool(nullable=True, metadata=_kind("flag", required=True))

    @dy.rule()
    def consent_not_a_boolean(cls) -> pl.Expr:
        """Consent is true or false."""
        return _read("consent")


class Messages(OfCampaign):
    """What became of a message: it was sent, opened or clicked."""

    message_id = dy.Any(metadata=_kind("id", required=True))
    run_id = dy.String(nullable=True, metadata=_kind("text"))
    event = dy.Enum(
        ["sent", "opened", "clicked"], nullable=True, metadata=_kind("behaviour", required=True)
    )
    ts = dy.Datetime(nullable=True, time_unit="us", metadata=_kind("time", required=True))

    @dy.rule()
    def missing_message_id(cls) -> pl.Expr:
        """The id is neither null nor blank."""
        return pl.col("message_id").is_not_null() | ~_read("message_id")

    @dy.rule()
    def message_id_not_a_64_bit_integer(cls) -> pl.Expr:
        """A whole-number id fits into 64 bits."""
        return _read("message_id")

    @dy.rule()
    def missing_campaign(cls) -> pl.Expr:
        """The campaign is given."""
        return pl.col("campaign").str.strip_chars().fill_null("") != ""

    @dy.rule()
    def unknown_event(cls) -> pl.Expr:
        """The event is sent, opened or clicked."""
        return pl.col("event").is_not_null()

    @dy.rule()
    def missing_time(cls) -> pl.Expr:
        """The time is given."""
        return pl.col("ts").is_not_null() | ~_read("ts")

    @dy.rule()
    def unparseable_time(cls) -> pl.Expr:
        """The time can be read."""
        return _read("ts")


def contract(config: Config, source: Source) -> type[Row]:
    """The contract of a source, with the attributes and behaviours of the configuration."""
    match source:
        case "items":
            return _with_attributes(Items, config.items.attributes)
        case "users":
            return _with_attributes(Users, config.users.attributes + config.users.columns)
        case "reviews":
            return Reviews
        case "events":
            names = [name for name in (*config.events.weights, config.events.impressions) if name]
            metadata = _kind("behaviour", required=True)
            column = dy.Enum(names, nullable=True, metadata=metadata)
            return _extended(Events, {"behaviour": column})


def cells(contract: type[Row]) -> list[Cell]:
    """The columns that a source is asked for, in the contract's order."""
    return [
        Cell(
            name,
            column.metadata["kind"],
            column.metadata["required"],
            tuple(column.categories) if isinstance(column, dy.Enum) else (),
        )
        for name, column in contract.columns().items()
        if column.metadata is not None
    ]


def column_of(rule: str, contract: type[Row]) -> str | None:
    """The column that a rule of a contract is about; None when about the whole row.

    >>> column_of("missing_time", Events), column_of("price_not_a_number", Items)
    ('ts', 'price')
    >>> column_of("duplicate_id", Users), column_of("exact_duplicate", Events)
    ('user_id', None)
    """
    named = {
        "duplicate_id": cells(contract)[0].name,
        "exact_duplicate": None,
        "missing_campaign": None,  # blank as found
        "missing_time": "ts",
        "unparseable_time": "ts",
        "unknown_item": "item_id",
        "unknown_behaviour": "behaviour",
        "unknown_event": "event",
    }
    return named[rule] if rule in named else rule.split("_not_a_")[0].removeprefix("missing_")


def _with_attributes(base: type[Row], names: Sequence[str]) -> type[Row]:
    """A contract with further required columns, whose numbers must be finite."""
    members: dict[str, Any] = {}
    for name in names:
        members[name] = dy.Any(metadata=_kind("attribute", required=True))
        members[f"{name}_not_a_number"] = dy.rule()(partial(_attribute_read, name))
    return _extended(base, members)


def _attribute_read(name: str, _: object) -> pl.Expr:
    return _read(name)


def _extended(base: type[Row], members: dict[str, Any]) -> type[Row]:
    extended: type[Row] = new_class(base.__name__, (base,), exec_body=lambda ns: ns.update(members))
    return extended
