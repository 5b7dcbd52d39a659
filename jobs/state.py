"""Everything that is computed from the rows before one `as_of`: candidates and their features."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from index import neighbours
from index.candidates import propose
from index.choice import Indexing
from index.facts import Weights
from index.rows import contains
from index.snapshot import Snapshot
from index.whitening import whitened
from jobs.config import Config
from jobs.console import log
from jobs.ingest import Inputs
from jobs.memory import give_back
from jobs.signals import stop_if_asked
from rank.evidence import Evidence
from rank.features import Features
from rank.impressions import Shown
from rank.known import Known, days_before
from rank.labels import happened, sampled, within
from rank.metrics import PAIR, among
from rank.projection import Projection
from rank.sentiment import NEUTRAL, sentiments

# Of a busier user, so many of the latest steps are learnt from.
NEWEST_STEPS = 100
# What the two-tower models take an item of a history for, by its distance from the end.
TOWER_DECAYS = (0.4, 0.6, 0.8, 1.0)
# Bytes.
FLOAT, REST_OF_PAIR = 4, 256

Users = NDArray[np.int32]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """What a run works on: its inputs, their vectors and the configuration.

    Attributes:
        config: the effective configuration.
        inputs: rows before the run's own `as_of`.
        item_vectors: (n_items, d) aligned to `inputs.items`, zero rows without text.
        review_vectors: (n_reviews, d) aligned to `inputs.reviews`, likewise.
    """

    config: Config
    inputs: Inputs
    item_vectors: Vectors
    review_vectors: Vectors

    def items_before(self, as_of: datetime) -> NDArray[np.bool_]:
        """(n_items,) whether an item was listed, or had an event, before `as_of`."""
        created = self.inputs.items.get_column("created_at")
        listed = (created.is_null() | (created < as_of)).to_numpy().copy()
        seen = self.inputs.events.filter(pl.col("ts") < as_of).get_column("item").to_numpy()
        listed[seen] = True
        return np.asarray(listed)

    def item_age(self, as_of: datetime) -> NDArray[np.float64]:
        """(n_items,) days since an item was listed, else first used; NaN where neither is known."""
        past = self.inputs.events.filter(pl.col("ts") < as_of)
        first = past.group_by("item").agg(first=pl.col("ts").min())
        items = self.inputs.items.select("created_at", item=pl.int_range(pl.len(), dtype=pl.Int32))
        created = pl.when(pl.col("created_at") < as_of).then("created_at")
        seen = items.join(first, on="item", how="left", maintain_order="left")
        listed = seen.select(pl.coalesce(created, "first")).to_series()
        return days_before(listed, as_of)

    def users_before(self, as_of: datetime) -> Users:
        """Row positions of the users known before `as_of`, the inactive ones too."""
        since = self.inputs.users.get_column("known_since")
        return np.flatnonzero((since.is_null() | (since < as_of)).to_numpy()).astype(np.int32)

    def without_text(self) -> "Material":
        """The same where nothing has a text: every vector is zero."""
        return replace(
            self,
            item_vectors=np.zeros_like(self.item_vectors),
            review_vectors=np.zeros_like(self.review_vectors),
        )

    def fit_projection(self, as_of: datetime) -> Projection:
        """Principal components of the items known before `as_of`."""
        known = self.item_vectors[self.items_before(as_of)]
        return Projection.fit(known, dimensions=self.config.training.dimensions)

    def targets(self, behaviour: str, as_of: datetime) -> pl.DataFrame:
        """Distinct (user, item) pairs, of users known before `as_of`, that then happened.

        What the user already did before is no target where repeats are not allowed.

        Raises:
            ValueError: the horizon is not over: what has not happened still may.
        """
        wanted = self.config.prediction(behaviour)
        end = as_of + timedelta(days=wanted.horizon_days)
        if end > self.inputs.as_of:
            raise ValueError(
                f"{behaviour!r} from {as_of} on: its horizon ends at {end}, and rows are known "
                f"before {self.inputs.as_of} only"
            )
        found = happened(
            self.inputs.events,
            behaviour=behaviour,
            as_of=as_of,
            horizon_days=wanted.horizon_days,
        )
        users = pl.Series("user", self.users_before(as_of))
        found = found.join(users.to_frame(), on="user", how="semi", maintain_order="left")
        if wanted.repeats:
            return found
        before = (pl.col("ts") < as_of) & (pl.col("behaviour").cast(pl.String) == behaviour)
        again = among(self.inputs.events, found).filter(before)  # few of all that ever happened
        keyed = found.with_columns(pair=PAIR)
        return keyed.join(again, on="pair", how="anti", maintain_order="left").drop("pair")

    def shown(self, behaviour: str, as_of: datetime) -> pl.DataFrame:
        """Distinct (user, item) pairs that were shown within a behaviour's horizon."""
        horizon = self.config.prediction(behaviour).horizon_days
        return within(self.inputs.impressions, as_of=as_of, horizon_days=horizon)


@dataclass(frozen=True)
class State:
    """Candidates and features at one `as_of`.

    Attributes:
        material: what the run works on.
        as_of: naive UTC; nothing at or after it is used.
        projection: fitted before the first training window.
        now: whether `as_of` is the run's own: only then is it known which items are available.
        without: feature groups to leave out.
        corpus: the events that item-to-item matrices and popularity are built from, where not
            all before `as_of`: benchmarks keep some of them out.
        snapshots: of states of the same material and corpus, by their `as_of`: this state's is
            taken from there, or put there.
    """

    material: Material
    as_of: datetime
    projection: Projection
    now: bool = False
    without: Collection[str] = ()
    corpus: pl.DataFrame | None = None
    snapshots: dict[datetime, Snapshot] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> Inputs:
        """The rows before `as_of`."""
        return self.material.inputs.before(self.as_of)

    @cached_property
    def reviews(self) -> pl.DataFrame:
        """The reviews before `as_of`, with their `sentiment`."""
        return self.inputs.reviews.with_columns(sentiment=pl.Series(self._sentiment))

    @cached_property
    def _sentiment(self) -> NDArray[np.float64]:
        """(n_reviews,) learnt from the reviews' own ratings alone."""
        reviews, options = self.inputs.reviews, self.material.config.reviews
        vectors = self.material.review_vectors[: len(reviews)]
        ratings = reviews.get_column("rating").cast(pl.Float64).fill_null(np.nan).to_numpy()
        found = sentiments(
            ratings, vectors, scale=options.rating_scale, least_rated=options.least_rated
        )
        unread = np.isnan(ratings) & vectors.any(axis=1) & (found == NEUTRAL)
        if unread.any():
            log.warning(
                "reviews without a rating are taken as neutral: too few with one to learn from",
                before=f"{self.as_of:%Y-%m-%d}",
                reviews=int(unread.sum()),
            )
        return found

    @cached_property
    def users(self) -> Users:
        """Row positions of the eligible users, ascending."""
        return self.material.users_before(self.as_of)

    def shards(self) -> Iterator[Users]:
        """The eligible users in shards that memory holds; between two, a run can be stopped."""
        size = self.users_per_shard
        for start in range(0, len(self.users), size):
            stop_if_asked()
            yield self.users[start : start + size]

    @property
    def users_per_shard(self) -> int:
        """So many that what is computed for all shards at work fits `scoring.memory`."""
        options = self.material.config.scoring
        per_user = self.material.config.candidates.per_user * self.bytes_per_pair
        return max(min(options.users_per_shard, options.memory_bytes // per_user), 1)

    @cached_property
    def bytes_per_pair(self) -> int:
        """What a candidate takes at most while its shard is scored.

        Its features in the frame, selected for a model and in the order that LightGBM wants, and
        what the generators say twice; the rest is the scores, ids and flags of a pair.
        """
        said = 3 * len(self.material.config.candidates.budgets)
        return FLOAT * (3 * len(self.feature_groups) + 2 * said) + REST_OF_PAIR

    @cached_property
    def done(self) -> dict[str, sp.csr_array]:
        """For each behaviour without repeats, (n_users, n_items) what users did before."""
        shape = (len(self.inputs.users), len(self.inputs.items))
        matrices = {}
        for wanted in self.material.config.predict:
            if not wanted.repeats:
                is_it = pl.col("behaviour").cast(pl.String) == wanted.behaviour
                pairs = self.inputs.events.filter(is_it).select("user", "item").unique()
                user, item = (pairs.get_column(n).to_numpy() for n in ("user", "item"))
                ones: NDArray[np.float32] = np.ones(len(pairs), dtype=np.float32)
                matrices[wanted.behaviour] = sp.csr_array((ones, (user, item)), shape=shape)
        return matrices

    @property
    def snapshot(self) -> Snapshot:
        """What the generators see."""
        if self.as_of not in self.snapshots:
            self.snapshots[self.as_of] = self._snapshot()
        return self.snapshots[self.as_of]

    def _snapshot(self) -> Snapshot:
        give_back()  # what another window took
        config, eligible = self.material.config, self.material.items_before(self.as_of)
        if self.now:
            eligible = eligible & self.inputs.items.get_column("available").to_numpy()
        return Snapshot(
            as_of=self.as_of,
            events=self.inputs.events,
            reviews=self.reviews,
            item_vectors=self.material.item_vectors,
            review_vectors=self.material.review_vectors[: len(self.reviews)],
            item_attributes=self._item_attributes(),
            item_age=self.material.item_age(self.as_of),
            eligible=eligible,
            excluded=self._excluded(),
            weights=Weights(
                behaviours=config.events.weights,
                review=config.reviews.weight,
                half_life_days=config.profile.half_life_days,
                popular_half_life_days=config.candidates.popular_half_life_days,
                neighbours_per_item=config.candidates.neighbours_per_item,
                ease_items=config.candidates.ease_items,
                new_item_days=config.candidates.new_item_days,
            ),
            asks=self._towers[0] if config.candidates.two_tower else None,
            answers=self._towers[1] if config.candidates.two_tower else None,
            corpus=self.corpus,
            indexing=Indexing(
                exact_up_to=config.index.exact_up_to,
                kinds=tuple(config.index.kinds),
                least_recall=config.index.least_recall,
                sample=config.index.sample,
            ),
        )

    def _item_attributes(self) -> pl.DataFrame:
        names = ("brand", "category", *self.material.config.items.attributes)
        items = self.inputs.items
        return items.select(name for name in names if items.schema[name] == pl.String)

    @cached_property
    def _towers(self) -> tuple[tuple[tuple[float, Vectors], ...], Vectors]:
        """What asks and what answers, fitted on the latest steps of everybody's history."""
        from embed.towers import fit_towers

        rows = self.inputs.events if self.corpus is None else self.corpus
        histories, following = neighbours.steps(
            neighbours.latest_first(rows),
            len(self.inputs.items),
            decays=TOWER_DECAYS,
            newest=NEWEST_STEPS,
        )
        texts = whitened(self.material.item_vectors, self.material.items_before(self.as_of))
        seed = self.material.config.training.seed
        towers = fit_towers(texts, histories, following, seed=seed)
        return tuple(zip(TOWER_DECAYS, towers.asks, strict=True)), towers.answers

    @cached_property
    def features(self) -> Features:
        """What the ranker sees."""
        config = self.material.config
        known = Known(
            as_of=self.as_of,
            items=self.inputs.items,
            users=self.inputs.users,
            events=self.inputs.events,
            reviews=self.reviews,
            item_vectors=self.snapshot.item_vectors,
            review_vectors=self.snapshot.review_vectors,
            whitened_items=self.snapshot.whitened_items,
            text_neighbours=self.snapshot.text_neighbours,
            text_clusters=self.snapshot.text_clusters,
            affinity=self.snapshot.affinity,
            demand=self.snapshot.demand,
            due=self.snapshot.due,
            behaviours=tuple(config.events.weights),
            item_attributes=tuple(config.items.attributes),
            user_attributes=tuple(config.users.attributes),
            projection=self.projection,
            asks=self.snapshot.item_questions,
            answers=self.snapshot.answers,
            shown=self._shown(),
        )
        return Features(known, without=self.without, of_items=self._of_items(known))

    @cached_property
    def evidence(self) -> Evidence:
        """What can be shown for reasons."""
        snapshot = self.snapshot
        return Evidence(self.features.known, snapshot.last_items, snapshot.cooccurrence)

    def _shown(self) -> Shown | None:
        if self.material.config.events.impressions is None:
            return None
        inputs = self.inputs
        sizes = (len(inputs.users), len(inputs.items))
        return Shown(self.as_of, inputs.impressions, inputs.events, sizes)

    def _of_items(self, known: Known) -> Known | None:
        if self.corpus is None:
            return None
        return replace(known, events=self.corpus, affinity=self.snapshot.item_affinity)

    def candidates(self, users: Users) -> pl.DataFrame:
        """Candidate pairs of some eligible users, sorted by user, then item."""
        config = self.material.config.candidates
        return propose(self.snapshot, users, budgets=config.budgets, per_user=config.per_user)

    def describe(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Features aligned to `pairs`."""
        users = pairs.get_column("user").unique().sort().to_numpy()
        return self.features(pairs, self.snapshot.profiles(users))

    @cached_property
    def feature_groups(self) -> dict[str, str]:
        """The group of each feature."""
        pairs = self.candidates(self.users[:1])
        users = pairs.get_column("user").unique().to_numpy()
        return self.features.groups(pairs, self.snapshot.profiles(users))

    def drawn(self, pairs: pl.DataFrame, share: float) -> NDArray[np.bool_]:
        """(n,) whether a pair is in a sample of all; a larger sample holds a smaller one."""
        ids = pl.DataFrame(
            [
                self.inputs.users.get_column("user_id").gather(pairs.get_column("user")),
                self.inputs.items.get_column("item_id").gather(pairs.get_column("item")),
            ]
        )
        seed = self.material.config.training.seed
        return sampled(ids, share=share, as_of=self.as_of, seed=seed)

    def allowed(self, behaviour: str, pairs: pl.DataFrame) -> NDArray[np.bool_]:
        """(n,) whether the behaviour is still to come for the pair, or may be repeated."""
        if behaviour not in self.done:
            return np.ones(len(pairs), dtype=bool)
        places = tuple(pairs.get_column(name).to_numpy() for name in ("user", "item"))
        return ~contains(self.done[behaviour], *places)

    def describe_users(self) -> pl.DataFrame:
        """Features of users alone, aligned to `users`."""
        return self.features.of_users(self.users)

    def _excluded(self) -> sp.csr_array:
        """What no predicted behaviour may be proposed for."""
        shape = (len(self.inputs.users), len(self.inputs.items))
        if len(self.done) < len(self.material.config.predict):
            nothing = np.empty(0, dtype=np.int32)
            return sp.csr_array((np.empty(0, np.float32), (nothing, nothing)), shape=shape)
        excluded, *others = self.done.values()
        for other in others:
            kept = contains(other, *excluded.nonzero())
            places = tuple(axis[kept] for axis in excluded.nonzero())
            excluded = sp.csr_array((np.ones(kept.sum(), np.float32), places), shape=shape)
        return excluded
