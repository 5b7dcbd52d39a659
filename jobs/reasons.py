"""Why the first rows of each user's list are there: contributions, evidence and a sentence."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embed import clean_text
from index.rows import pair_keys
from jobs.state import State
from rank import evidence, reasons
from rank.evidence import SHOWN_DAYS
from rank.metrics import positions
from rank.model import Model
from rank.reasons import family_contributions

TITLE_CHARACTERS = 80
SIMILARITY_DIGITS = 4

SENTENCES = {
    reasons.SIMILAR: 'Similar to "{title}" (last {done} by this user on {day}; '
    "text similarity {similarity:.2f}).",
    reasons.OTHERS: 'Goes together with "{title}" in the histories of users '
    "(last {done} by this user on {day}).",
    reasons.OWN_REVIEWS: 'Close to what this user wrote about "{title}" on {day} '
    "(text similarity {similarity:.2f}).",
    reasons.REVIEWS: "A review of it, of {day}, is close to this user's taste "
    "(text similarity {similarity:.2f}).",
    reasons.POPULAR: f"Popular now: {{events}} events of all users in {SHOWN_DAYS} days.",
    reasons.PRICE: "Its price suits what this user usually chooses.",
    reasons.KIND: 'This user is interested in the {attribute} "{value}".',
    reasons.AGAIN: "This user knows it: last {done} on {day}.",
    reasons.DUE: "Due again: last {done} by this user on {day}.",
    reasons.SHOWN: "What came of showing it, to this user and to others, speaks for it.",
    reasons.ITEM: "Its own qualities speak for it, such as age, ratings and content.",
    reasons.AGREEMENT: "Several ways of finding items agree on it.",
    reasons.USER: "This user's own activity and profile speak for it.",
}
# What says little about the pair is said only where nothing else speaks for it.
LAST = (reasons.AGREEMENT, reasons.USER)
NOTHING = "No single reason stands out."

ROW = ("user_id", "item_id", "behaviour")
_WORKING: dict[str, pl.DataType] = {
    "user": pl.Int32(),
    "item": pl.Int32(),
    "behaviour": pl.String(),
    "place": pl.Int32(),
}
_FOUND = {name if name == "found" else f"of_{name}": t for name, t in evidence.SCHEMA.items()}
_SCHEMA = _WORKING | {"family": pl.String(), "contribution": pl.Float64()} | _FOUND


@dataclass(frozen=True)
class Reasons:
    """Explains the first rows of the lists of one night.

    Attributes:
        state: the night's.
        models: one for each behaviour.
        per_user: so many first places of each user and behaviour are explained.
    """

    state: State
    models: tuple[Model, ...]
    per_user: int

    def __call__(
        self, scored: list[pl.DataFrame], pairs: pl.DataFrame, features: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Reasons and sentences of one shard.

        Args:
            scored: aligned to `models`, as `jobs.scoring.score_pairs` gives it.
            pairs: the candidates, sorted by user, then item.
            features: aligned to `pairs`.

        Returns:
            The rows of the table `reasons` but for `run_id`, in the order of the lists, the
            largest contribution first; and user_id, item_id, behaviour, reason.
        """
        parts = [pl.DataFrame(schema=_SCHEMA)]
        if self.per_user:
            for model, frame in zip(self.models, scored, strict=True):
                parts += self._explain(model, frame, pairs, features)
        rows = pl.concat(parts)
        falling = pl.col("contribution").neg()
        rows = rows.sort("user", "behaviour", "place", falling, maintain_order=True)
        return self._published(rows), self._sentences(rows)

    def _explain(
        self, model: Model, scored: pl.DataFrame, pairs: pl.DataFrame, features: pl.DataFrame
    ) -> list[pl.DataFrame]:
        """For each family, the explained rows to which it added anything."""
        place = pl.Series("place", positions(scored, scored.get_column("order").to_numpy()))
        shown = scored.select("user", "item", place).filter(pl.col("place") <= self.per_user)
        explained = features[np.searchsorted(self._keys(pairs), self._keys(shown))]
        added = family_contributions(
            model.classifier, explained, behaviours=tuple(self.state.material.config.events.weights)
        )
        # As `score` does, the base corrects for sampled negatives.
        added[reasons.BASE] = added[reasons.BASE] + np.log(model.negative_share)
        working = shown.select("user", "item", behaviour=pl.lit(model.behaviour), place="place")
        return [
            self._of_family(working.with_columns(contribution=pl.Series(values)), family)
            for family, values in added.items()
        ]

    def _of_family(self, rows: pl.DataFrame, family: str) -> pl.DataFrame:
        """The rows to which a family added anything, with the evidence where it speaks for them."""
        rows = rows.select(*_WORKING, pl.lit(family).alias("family"), "contribution")
        against = rows.filter(pl.col("contribution") < 0)
        speaks = rows.filter(pl.col("contribution") > 0)
        users = speaks.get_column("user").unique().sort()
        profiles = self.state.snapshot.profiles(users.to_numpy())
        whose = np.searchsorted(users, speaks.get_column("user"))
        found = self.state.evidence(family, speaks, profiles[whose])
        found = found.rename(lambda name: name if name == "found" else f"of_{name}")
        frames = [pl.concat([speaks, found], how="horizontal"), against]
        return pl.concat(frames, how="diagonal").select(*_SCHEMA)

    def _keys(self, pairs: pl.DataFrame) -> NDArray[np.int64]:
        users, items = (pairs.get_column(name).to_numpy() for name in ("user", "item"))
        return pair_keys(users, items, len(self.state.inputs.items))

    @cached_property
    def _titles(self) -> pl.Series:
        """(n_items,) short titles without markup, ids where there is none."""
        items = self.state.inputs.items
        ids = items.get_column("item_id").cast(pl.String)
        pairs = zip(items.get_column("title"), ids, strict=True)
        return pl.Series([clean_text(t, max_characters=TITLE_CHARACTERS) or i for t, i in pairs])

    def _published(self, rows: pl.DataFrame) -> pl.DataFrame:
        inputs = self.state.inputs
        author = inputs.reviews.get_column("user").gather(rows.get_column("of_review"))
        user_ids, item_ids = inputs.users.get_column("user_id"), inputs.items.get_column("item_id")
        return rows.select(
            user_ids.gather(rows.get_column("user")).alias("user_id"),
            item_ids.gather(rows.get_column("item")).alias("item_id"),
            "behaviour",
            "family",
            "contribution",
            item_ids.gather(rows.get_column("of_item")).alias("evidence_item_id"),
            user_ids.gather(author).alias("evidence_user_id"),
            evidence_at="of_at",
            evidence_behaviour="of_behaviour",
            evidence_attribute="of_attribute",
            evidence_events="of_events",
            similarity=pl.col("of_similarity").round(SIMILARITY_DIGITS),
        )

    def _sentences(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The strongest family for which there is something to say, as a sentence."""
        speaks = pl.col("found").fill_null(False) & pl.col("family").ne(reasons.BASE)
        ordered = rows.with_columns(speaks=speaks).sort(
            pl.col("speaks").not_(), pl.col("family").is_in(LAST), maintain_order=True
        )
        first = ordered.unique(["user", "item", "behaviour"], keep="first", maintain_order=True)
        titles = self._titles.gather(first.get_column("of_item"))
        told = first.with_columns(title=titles, day=pl.col("of_at").dt.strftime("%Y-%m-%d"))
        said = pl.Series("reason", [self._say(row) for row in told.iter_rows(named=True)])
        return self._published(first).select(ROW).with_columns(said.cast(pl.String))

    def _say(self, row: dict[str, Any]) -> str:
        if not row["speaks"]:
            return NOTHING
        value = ""
        if attribute := row["of_attribute"]:
            chosen = self.state.inputs.items.get_column(attribute)[row["item"]]
            value = clean_text(chosen, max_characters=TITLE_CHARACTERS)
        return SENTENCES[row["family"]].format(
            title=row["title"],
            day=row["day"],
            done=row["of_behaviour"],
            similarity=row["of_similarity"],
            events=row["of_events"],
            attribute=attribute,
            value=value,
        )
