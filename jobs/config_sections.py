"""The tables of the configuration file, each with its keys, defaults and bounds."""

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
# The keys of [candidates] that are no generator.
SHARED = ("per_user", "popular_half_life_days", "ease_items", "new_item_days")

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
Bounds = tuple[Above0, Above0]
Fraction = Annotated[float, Field(gt=0, le=1)]
SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Column = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?[MG]iB$")]
UNITS = {"MiB": 2**20, "GiB": 2**30}
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


def _key(default: T, description: str) -> T:
    """A key with its default and the sentence that docs and error messages give for it."""
    field: T = Field(default=default, description=description)
    return field


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SourcesConfig(Section):
    """Where the rows come from."""

    items: str = Field(description="Items: a path or glob (Parquet, CSV, NDJSON), or SQL.")
    reviews: str | None = _key(None, "Reviews: a path, glob or SQL.")
    events: str | None = _key(None, "Events: a path, glob or SQL.")
    users: str | None = _key(None, "Users, consent, attributes: path, glob or SQL.")
    consent: str | None = _key(None, "Who agreed to be written to: path, glob or SQL.")
    suppression: str | None = _key(None, "Who must not be written to: path, glob or SQL.")
    contact_max_age_days: Above0 = _key(
        7.0, "With an older `consent` or `suppression`, campaigns get no list."
    )
    attach: dict[Column, str] = _key(
        {}, "Databases that SQL may read, by name: a DuckDB file or `postgres:...`."
    )
    max_quarantined_share: Share = _key(
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

    attributes: list[Column] = _key([], "Further columns of items, as features.")
    text: str = _key(
        "{title}. {brand}. {category}. {description}",
        "Template of the text that is encoded; names columns of items in braces.",
    )
    max_characters: Positive = _key(2000, "An item's text is cut to this length.")

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

    attributes: list[Column] = _key([], "Further columns of users, as features.")
    columns: list[Column] = _key([], "Further columns that campaigns use, and no feature does.")

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

    weight: Above0 = _key(
        1.0,
        "Weight in a profile of the text of a neutral review, relative to events.weights; that of "
        "the gladdest is twice as much, that of the sorriest 0.",
    )
    rating_scale: tuple[float, float] | None = _key(
        None, "The worst and the best rating; by default the least and the greatest so far."
    )
    least_rated: Positive = _key(
        200, "With fewer texts that have a rating, those that have none are taken as neutral."
    )
    max_characters: Positive = _key(5000, "A review's text is cut to this length.")

    @field_validator("rating_scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and scale[0] >= scale[1]:
            raise ValueError(f"{list(scale)}: the first is the worst, the second the best")
        return scale


class EventsConfig(Section):
    """The behaviours that events may hold."""

    weights: dict[str, Above0] = _key(
        {}, "Every behaviour the events may hold, with its weight in a profile."
    )
    from_reviews: dict[str, str] = _key(
        {}, 'Behaviours that reviews stand for: `{ like = "rating >= 4" }`, in SQL.'
    )
    impressions: str | None = _key(
        None, "The behaviour that says an item was shown; none of events.weights."
    )
    implies: dict[str, str] = _key(
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


class EncoderConfig(Section):
    """The language model that turns text into vectors."""

    model: str = _key("packaged/all-MiniLM-L6-v2", "Model name, folder, or `packaged/NAME`.")
    revision: str | None = _key(None, "Commit of a hub's model, 40 digits; refused without.")
    device: Literal["auto", "cpu", "cuda"] = _key("auto", "Where the model runs.")
    max_tokens: Positive = _key(128, "A text is cut to this many tokens.")
    backend: Literal["auto", "torch", "openvino"] = _key(
        "auto", "What computes; `auto` is OpenVINO where installed, on the CPU, else torch."
    )
    precision: Literal["float32", "float16", "bfloat16", "int8"] = _key(
        "float32", "torch: `float32`, `float16`, `bfloat16`. OpenVINO: `float32`, `int8`."
    )
    batch_tokens: Positive | None = _key(
        None, "Tokens encoded at a time, padding included; `none`: 2,048, on GPUs 65,536."
    )
    prompt: str | None = _key(None, "Text put before every text, if the model asks.")


class ProfileConfig(Section):
    """How a user's history becomes a profile."""

    half_life_days: Above0 = _key(90.0, "An event this old weighs half of one today.")


class CandidatesConfig(Section):
    """How many candidates each generator may propose for a user; 0 switches one off."""

    nearest: Count = _key(60, "Items nearest to the profile.")
    last: Count = _key(0, "Items with a text near to the last item's.")
    last_3: Count = _key(0, "Items with a text near to the mean of the last three.")
    interests: Count = _key(0, "Items near to one of several interests of the history.")
    reviews: Count = _key(40, "Items of reviews nearest to the profile.")
    cooccurrence: Count = _key(60, "Items used together with those of the history.")
    two_hop: Count = _key(0, "Items two steps of `directed` away, and not one.")
    directed: Count = _key(0, "Items used just after, or before, the latest ones.")
    ease: Count = _key(0, "Items that a linear model of whole histories expects.")
    factors: Count = _key(0, "Items near to the latest ones in a matrix factorisation.")
    similar: Count = _key(0, "Items with a text near to one of the latest items'.")
    attributes: Count = _key(0, "Items sharing rare words of brand, category, attributes.")
    kinds: Count = _key(0, "Items popular in brand, category, attributes of the latest.")
    two_tower: Count = _key(0, "Items that a model of text and order expects next.")
    popular: Count = _key(60, "Items popular of late.")
    popular_recent: Count = _key(0, "The same with a half-life six times shorter.")
    trending: Count = _key(0, "Items more popular now than before.")
    new: Count = _key(0, "New items near to the profile.")
    history: Count = _key(50, "Items of the user's own history, those that are due first.")
    per_user: Positive = _key(200, "Cap of all of them together.")
    popular_half_life_days: Above0 = _key(30.0, "An event this old counts half for popularity.")
    ease_items: Positive = _key(6000, "So many of the commonest items take part in `ease`.")
    new_item_days: Above0 = _key(30.0, "An item listed at most so many days ago is new.")

    @property
    def budgets(self) -> dict[str, int]:
        """Candidates per user of every generator that is on, by its name."""
        return {name: k for name in self._generators() if (k := getattr(self, name))}

    @classmethod
    def _generators(cls) -> list[str]:
        return [name for name in cls.model_fields if name not in SHARED]

    @model_validator(mode="after")
    def _one_is_on(self) -> CandidatesConfig:
        if not self.budgets:
            raise ValueError(
                "candidates: every generator is 0, so nothing could be scored; give one of "
                + ", ".join(self._generators())
            )
        return self


class IndexConfig(Section):
    """How vectors are searched."""

    exact_up_to: Annotated[int, Field(ge=100)] = _key(
        1_000_000, "So many vectors of a corpus are searched through; more only in part."
    )
    kinds: list[Literal["ivf", "hnsw", "quantised"]] = _key(
        ["ivf", "quantised"], "How larger corpora are searched: what is tried, in this order."
    )
    least_recall: Fraction = _key(
        0.95, "A kind that finds less of the 100 nearest is refused; if all are, search is exact."
    )
    sample: Positive = _key(1000, "Queries that this is measured on.")


class PredictConfig(Section):
    """A behaviour whose probability is predicted."""

    behaviour: str = Field(description="The behaviour; one of events.weights.")
    horizon_days: Positive = Field(description="Length of the label window in days.")
    repeats: bool = _key(
        False, "Whether an item the user has already done this with can be proposed."
    )


class TrainingConfig(Section):
    """How the model is trained."""

    windows: Positive = _key(3, "Label windows to train on, one horizon apart.")
    negative_share: Fraction = _key(0.2, "Share of the pairs without the behaviour that is kept.")
    learning_rate: Fraction = _key(0.05, "LightGBM's learning rate.")
    num_leaves: Annotated[int, Field(ge=2)] = _key(31, "Leaves of a tree.")
    min_rows_per_leaf: Positive = _key(50, "Least training rows in a leaf.")
    min_positives_per_leaf: Above0 = _key(
        10.0, "Least number of positives that the classifier expects in a leaf."
    )
    l2: Annotated[float, Field(ge=0)] = _key(0.0, "L2 penalty of the values of leaves.")
    max_rounds: Positive = _key(400, "Most trees.")
    early_stopping_rounds: Positive = _key(30, "Stop after this many trees without gain.")
    retrain_after_days: Count = _key(7, "Age at which a model is retrained; 0: nightly.")
    baselines: list[Literal["popularity", "logistic", "no_embeddings", "bert"]] = _key(
        ["popularity"], "What is measured beside the models; all but popularity cost time."
    )
    bert_pairs: Annotated[int, Field(ge=2)] = _key(
        500, "So many pairs of a window are read to fit the baseline `bert`."
    )
    bert_users: Positive = _key(100, "So many users are read to measure it.")
    dimensions: Count = _key(16, "Principal components of the vectors, as features.")
    seed: Count = _key(0, "Seed of every random choice.")


class ScoringConfig(Section):
    """How the users are scored."""

    users_per_shard: Positive = _key(2000, "Users scored at a time: at most so many.")
    memory: Memory = _key(
        "4GiB", "Fewer of them, where their candidates would need more memory than this."
    )
    threads: Count = _key(0, "Threads to use; 0: all cores.")
    reasons_per_user: Count = _key(5, "So many first places of a list get reasons; 0: none.")

    @property
    def memory_bytes(self) -> int:
        """`memory` as a number.

        >>> ScoringConfig(memory="1.5GiB").memory_bytes
        1610612736
        """
        number, unit = self.memory[:-3], self.memory[-3:]
        return int(float(number) * UNITS[unit])


class GatesConfig(Section):
    """What must hold before a night is published; else the last good one stays current."""

    least_positives: Positive = _key(
        100, "Metrics of the test window are held against bounds from so many positives on."
    )
    predicted_over_observed: Bounds = _key((0.7, 1.4), "On the test window: least and most.")
    normalised_entropy: Above0 = _key(
        0.999, "Likewise: most; at 1 the model knows the base rate only."
    )
    calibration_error: Above0 = _key(0.5, "Likewise: most, as a share of the base rate.")
    rows_over_last: Bounds = _key(
        (0.5, 2.0), "Rows of a behaviour over those of the last good night: least and most."
    )
    score_drift: Above0 = _key(
        0.25, "Most population stability index of probabilities against the last good night."
    )
    null_share_risen: Share = _key(
        0.2, "Most by which a feature's share of unknown values may rise in a night."
    )
    outside_share_risen: Share = _key(
        0.2, "Likewise for its share of known values out of the range seen in training."
    )

    @field_validator("predicted_over_observed", "rows_over_last")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] >= bounds[1]:
            raise ValueError(f"{list(bounds)}: the first is the least, the second the most")
        return bounds


class RetentionConfig(Section):
    """What `nightrank gc` keeps; never less than the current night and the one before."""

    nights: Positive = _key(14, "So many of the latest nights stay.")
    runs: Positive = _key(3, "Likewise: folders of a night's shards and indexes.")
    models: Positive = _key(5, "Likewise; and those of the nights that stay.")
    lists: Positive = _key(30, "Likewise, of each campaign.")
    days: Positive = _key(3, "Whatever is younger than so many days stays too.")
    vector_days: Positive = _key(90, "Vectors that no night has used for so many days go.")


class MartConfig(Section):
    """What business intelligence sees of the nights."""

    nights: Positive = _key(14, "Nights that a file holds rows of; 1: its own only.")
    positions: Positive = _key(10, "Of earlier nights, so many first places of each list.")
    stale_after_hours: Above0 = _key(30.0, "`freshness_v1` calls an older `as_of` stale.")


class CampaignConfig(Section):
    """A list of items per user for one mailing; docs/campaigns.md tells how it is made."""

    name: SafeName = Field(description="Name of the list and its file.")
    behaviour: str = Field(description="The predicted behaviour that orders the list.")
    items_per_user: Positive = _key(5, "Most items for a user.")
    layout: Literal["lines", "users"] = _key("lines", "A row for each item, or for each user.")
    segment: str | None = _key(None, "Only users for whom this SQL over their columns is true.")
    min_probability: Share = _key(0.0, "Items less probable than this are left out.")
    top_share: Fraction | None = _key(None, "Only this share of the users, the likeliest.")
    require_consent: bool = _key(
        True, "Only users with consent = true; false states that none is needed."
    )
    cool_off_days: Count = _key(0, "Leave out users whose last `cool_off_after` is younger.")
    cool_off_after: str | None = _key(None, "Behaviour that cool_off_days counts from.")
    cap_messages: Positive | None = _key(
        None, "Most messages of all campaigns that one gets within `cap_days`, this one included."
    )
    cap_days: Positive = _key(7, "Days that cap_messages looks back.")
    priority: Count = _key(100, "Campaigns with less come first; then the order of the file.")
    only_available: bool = _key(True, "Leave out items that are not available.")
    exclude_categories: list[str] = _key([], "Leave out items of these categories.")
    exclude_brands: list[str] = _key([], "Leave out items of these brands.")
    min_price: Annotated[float, Field(ge=0)] | None = _key(
        None, "Leave out cheaper items, and those without a price."
    )
    max_price: Above0 | None = _key(None, "Leave out dearer items, and those without a price.")
    max_per_category: Positive | None = _key(None, "Most items of one category for a user.")
    max_per_brand: Positive | None = _key(None, "Most items of one brand for a user.")
    deduplicate_by: Column | None = _key(
        None, "Column of users: only one user of each value, such as a hashed e-mail."
    )
    holdout_share: Annotated[float, Field(ge=0, lt=1)] = _key(
        0.0, "Share of the users that is left out, to compare with."
    )
    holdout_salt: str | None = _key(
        None, "Campaigns with one salt hold out the same users; none: the name."
    )
    hash_ids_with: Column | None = _key(
        None, "Environment variable with the key that user ids are hashed with in the files."
    )


def _attributes(attributes: list[str], *, taken: Sequence[str]) -> list[str]:
    wrong = [name for name in attributes if name in taken or attributes.count(name) > 1]
    if wrong:
        raise ValueError(
            f"{wrong[0]!r} is named twice or is a column of the contract ({', '.join(taken)})"
        )
    return attributes
