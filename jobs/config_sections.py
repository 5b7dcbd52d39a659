"""The tables of the configuration file, each with its keys, defaults and bounds.

Those that say what comes in are in `jobs.config_inputs`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from jobs.config_inputs import (
    Above0,
    Column,
    Count,
    Positive,
    SafeName,
    Section,
    Share,
    key,
)

# The keys of [candidates] that are no generator.
SHARED = (
    "per_user",
    "neighbours_per_item",
    "popular_half_life_days",
    "ease_items",
    "new_item_days",
)
Bounds = tuple[Above0, Above0]
Fraction = Annotated[float, Field(gt=0, le=1)]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?[MG]iB$")]
UNITS = {"MiB": 2**20, "GiB": 2**30}


class EncoderConfig(Section):
    """The language model that turns text into vectors."""

    model: str = key("packaged/all-MiniLM-L6-v2", "Model name, folder, or `packaged/NAME`.")
    revision: str | None = key(None, "Commit of a hub's model, 40 digits; refused without.")
    device: Literal["auto", "cpu", "cuda"] = key("auto", "Where the model runs.")
    max_tokens: Positive = key(128, "A text is cut to this many tokens.")
    backend: Literal["auto", "torch", "openvino"] = key(
        "auto", "What computes; `auto` is OpenVINO where installed, on the CPU, else torch."
    )
    precision: Literal["float32", "float16", "bfloat16", "int8"] = key(
        "float32", "torch: `float32`, `float16`, `bfloat16`. OpenVINO: `float32`, `int8`."
    )
    batch_tokens: Positive | None = key(
        None, "Tokens encoded at a time; `none`: 2,048, on GPUs 65,536."
    )
    prompt: str | None = key(None, "Text put before every text, if the model asks.")


class ProfileConfig(Section):
    """How a user's history becomes a profile."""

    half_life_days: Above0 = key(90.0, "An event this old weighs half of one today.")


class CandidatesConfig(Section):
    """How many candidates each generator may propose for a user; 0 switches one off."""

    nearest: Count = key(60, "Items nearest to the profile.")
    last: Count = key(0, "Items with a text near to the last item's.")
    last_3: Count = key(0, "Items with a text near to the mean of the last three.")
    interests: Count = key(0, "Items near to one of several interests of the history.")
    reviews: Count = key(40, "Items of reviews nearest to the profile.")
    cooccurrence: Count = key(60, "Items used together with those of the history.")
    two_hop: Count = key(0, "Items two steps of `directed` away, and not one.")
    directed: Count = key(0, "Items used just after, or before, the latest ones.")
    ease: Count = key(0, "Items that a linear model of whole histories expects.")
    factors: Count = key(0, "Items near to the latest ones in a matrix factorisation.")
    similar: Count = key(0, "Items with a text near to one of the latest items'.")
    attributes: Count = key(0, "Items sharing rare words of brand, category, attributes.")
    kinds: Count = key(0, "Items popular in brand, category, attributes of the latest.")
    two_tower: Count = key(0, "Items that a model of text and order expects next.")
    popular: Count = key(60, "Items popular of late.")
    popular_recent: Count = key(0, "The same with a half-life six times shorter.")
    trending: Count = key(0, "Items more popular now than before.")
    new: Count = key(0, "New items near to the profile.")
    history: Count = key(50, "Items of the user's own history, those that are due first.")
    per_user: Positive = key(200, "Cap of all of them together.")
    neighbours_per_item: Positive = key(
        200, "So many neighbours of an item are kept where a history asks for its neighbours."
    )
    popular_half_life_days: Above0 = key(30.0, "An event this old counts half for popularity.")
    ease_items: Positive = key(6000, "So many of the commonest items take part in `ease`.")
    new_item_days: Above0 = key(30.0, "An item listed at most so many days ago is new.")

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

    exact_up_to: Annotated[int, Field(ge=100)] = key(
        1_000_000, "So many vectors of a corpus are searched through; more only in part."
    )
    kinds: list[Literal["ivf", "hnsw", "quantised"]] = key(
        ["ivf", "quantised"], "How larger corpora are searched: what is tried, in this order."
    )
    least_recall: Fraction = key(
        0.95, "A kind that finds less of the 100 nearest is refused; if all are, search is exact."
    )
    sample: Positive = key(1000, "Queries that this is measured on.")


class PredictConfig(Section):
    """A behaviour whose probability is predicted."""

    behaviour: str = Field(description="The behaviour; one of events.weights.")
    horizon_days: Positive = Field(description="Length of the label window in days.")
    repeats: bool = key(
        False, "Whether an item the user has already done this with can be proposed."
    )


class TrainingConfig(Section):
    """How the model is trained."""

    windows: Positive = key(3, "Label windows to train on, one horizon apart.")
    negative_share: Fraction = key(0.2, "Share of the pairs without the behaviour that is kept.")
    order_pairs: Positive = key(
        2_000_000, "So many pairs of a window, about, teach the order: of more, a sample."
    )
    learning_rate: Fraction = key(0.05, "LightGBM's learning rate.")
    num_leaves: Annotated[int, Field(ge=2)] = key(31, "Leaves of a tree.")
    min_rows_per_leaf: Positive = key(50, "Least training rows in a leaf.")
    min_positives_per_leaf: Above0 = key(
        10.0, "Least number of positives that the classifier expects in a leaf."
    )
    l2: Annotated[float, Field(ge=0)] = key(0.0, "L2 penalty of the values of leaves.")
    feature_fraction: Fraction = key(0.7, "Share of the features that a tree may split on.")
    bagging_fraction: Fraction = key(0.8, "Share of the rows that a tree is grown on.")
    rankers: Positive = key(
        1, "So many are grown for the order, of different seeds, and added up: better, and slower."
    )
    max_rounds: Positive = key(400, "Most trees, of the classifier and of each ranker.")
    early_stopping_rounds: Positive = key(30, "Stop after this many trees without gain.")
    retrain_after_days: Count = key(7, "Age at which a model is retrained; 0: nightly.")
    baselines: list[Literal["popularity", "logistic", "no_embeddings", "bert"]] = key(
        ["popularity"], "What is measured beside the models; all but popularity cost time."
    )
    bert_pairs: Annotated[int, Field(ge=2)] = key(
        500, "So many pairs of a window are read to fit the baseline `bert`."
    )
    bert_users: Positive = key(100, "So many users are read to measure it.")
    dimensions: Count = key(16, "Principal components of the vectors, as features.")
    seed: Count = key(0, "Seed of every random choice.")


class ScoringConfig(Section):
    """How the users are scored."""

    users_per_shard: Positive = key(1000, "Users scored at a time: at most so many.")
    memory: Memory = key(
        "4GiB", "Fewer of them, where their candidates would need more memory than this."
    )
    processes: Positive = key(
        1, "Processes that score; each takes `memory` beside what they share."
    )
    threads: Count = key(0, "Threads to use, all processes together; 0: all cores.")
    reasons_per_user: Count = key(5, "So many first places of a list get reasons; 0: none.")

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

    least_positives: Positive = key(
        100, "Metrics of the test window are held against bounds from so many positives on."
    )
    predicted_over_observed: Bounds = key((0.7, 1.4), "On the test window: least and most.")
    normalised_entropy: Above0 = key(
        0.999, "Likewise: most; at 1 the model knows the base rate only."
    )
    calibration_error: Above0 = key(0.5, "Likewise: most, as a share of the base rate.")
    rows_over_last: Bounds = key(
        (0.5, 2.0), "Rows of a behaviour over those of the last good night: least and most."
    )
    score_drift: Above0 = key(
        0.25, "Most population stability index of probabilities against the last good night."
    )
    null_share_risen: Share = key(
        0.2, "Most by which a feature's share of unknown values may rise in a night."
    )
    outside_share_risen: Share = key(
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

    nights: Positive = key(14, "So many of the latest nights stay.")
    runs: Positive = key(3, "Likewise: folders of a night's shards and indexes.")
    models: Positive = key(5, "Likewise; and those of the nights that stay.")
    lists: Positive = key(30, "Likewise, of each campaign.")
    days: Positive = key(3, "Whatever is younger than so many days stays too.")
    vector_days: Positive = key(90, "Vectors that no night has used for so many days go.")


class MartConfig(Section):
    """What business intelligence sees of the nights."""

    nights: Positive = key(14, "Nights that a file holds rows of; 1: its own only.")
    positions: Positive = key(10, "Of earlier nights, so many first places of each list.")
    stale_after_hours: Above0 = key(30.0, "`freshness_v1` calls an older `as_of` stale.")


class CampaignConfig(Section):
    """A list of items per user for one mailing; docs/campaigns.md tells how it is made."""

    name: SafeName = Field(description="Name of the list and its file.")
    behaviour: str = Field(description="The predicted behaviour that orders the list.")
    items_per_user: Positive = key(5, "Most items for a user.")
    layout: Literal["lines", "users"] = key("lines", "A row for each item, or for each user.")
    segment: str | None = key(None, "Only users for whom this SQL over their columns is true.")
    min_probability: Share = key(0.0, "Items less probable than this are left out.")
    top_share: Fraction | None = key(None, "Only this share of the users, the likeliest.")
    require_consent: bool = key(
        True, "Only users with consent = true; false states that none is needed."
    )
    cool_off_days: Count = key(0, "Leave out users whose last `cool_off_after` is younger.")
    cool_off_after: str | None = key(None, "Behaviour that cool_off_days counts from.")
    cap_messages: Positive | None = key(
        None, "Most messages of all campaigns that one gets within `cap_days`, this one included."
    )
    cap_days: Positive = key(7, "Days that cap_messages looks back.")
    priority: Count = key(100, "Campaigns with less come first; then the order of the file.")
    only_available: bool = key(True, "Leave out items that are not available.")
    exclude_categories: list[str] = key([], "Leave out items of these categories.")
    exclude_brands: list[str] = key([], "Leave out items of these brands.")
    min_price: Annotated[float, Field(ge=0)] | None = key(
        None, "Leave out cheaper items, and those without a price."
    )
    max_price: Above0 | None = key(None, "Leave out dearer items, and those without a price.")
    max_per_category: Positive | None = key(None, "Most items of one category for a user.")
    max_per_brand: Positive | None = key(None, "Most items of one brand for a user.")
    deduplicate_by: Column | None = key(
        None, "Column of users: only one user of each value, such as a hashed e-mail."
    )
    holdout_share: Annotated[float, Field(ge=0, lt=1)] = key(
        0.0, "Share of the users that is left out, to compare with."
    )
    holdout_salt: str | None = key(
        None, "Campaigns with one salt hold out the same users; none: the name."
    )
    hash_ids_with: Column | None = key(
        None, "Environment variable with the key that user ids are hashed with in the files."
    )
