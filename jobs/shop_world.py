"""The numbers behind the invented shop: who likes what, what is on sale when, who sees what.

Every (user, item) pair is viewed by a Poisson process that is independent of all others and whose
rate is constant within a day:

    rate(u, i, t) = activity(u) · rhythm(t) · season(i, t) · share(u, i, t)

`share` is a softmax over the items on sale that day, of log popularity plus the match of taste and
topics. A view becomes a click, a cart and a purchase with probabilities fixed per pair (taste,
price, quality), so each behaviour is a thinned Poisson process too, and the chance of at least one
in a window is 1 − exp(−expected number). Nothing depends on earlier events.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.shop_words import CATEGORIES, TOPICS

BEHAVIOURS = ("view", "click", "cart", "purchase")
AFTER_DAYS = 30  # the world goes on for so long after `end`

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TASTE_PULL = 4.0  # log of how much likelier a perfect match is seen than a mismatch
_USER_BLOCK = 64  # users treated at once: bounds memory, whatever the number of users
_WEEKDAYS = np.array([0.9, 0.9, 0.95, 0.95, 1.0, 1.15, 1.15])  # from Monday


@dataclass(frozen=True, kw_only=True)
class World:
    """The true parameters. Users and items are positions, days are counted from `first`.

    Attributes:
        first: The first day.
        taste: users × topics, rows sum to 1.
        activity: Views per day of each user while active, at rhythm and season 1.
        price_sensitivity: How fast a user's p(cart) falls with the price.
        user_born: Moment of registration in days; negative before `first`.
        user_from, user_until: The user is active on days `user_from <= day < user_until`.
        design: The item whose look, text and topics this item shares; mostly itself.
        topics: items × topics, rows sum to 1.
        brand: Number of the brand within the category.
        price: Of each item.
        popularity: Weight of each item before taste.
        quality: Of each item; moves p(purchase | cart) and ratings.
        item_born: Moment of creation in days.
        item_from, item_until: The item is on sale on days `item_from <= day < item_until`.
        relative_price: Log of price / the category's middle price.
        rhythm: The weekday's factor, per day.
        pull: items × days: the season of the item's topics, 0 while not on sale.
        pace: users × days: activity · rhythm / total appeal of the items on sale, 0 while not
            active; thus rate(u, i, t) = pace[u, t] · appeal(u, i) · pull[i, t].
    """

    first: date
    taste: Floats
    activity: Floats
    price_sensitivity: Floats
    user_born: Floats
    user_from: Ints
    user_until: Ints
    design: Ints
    topics: Floats
    brand: Ints
    price: Floats
    popularity: Floats
    quality: Floats
    item_born: Floats
    item_from: Ints
    item_until: Ints
    relative_price: Floats
    rhythm: Floats
    pull: Floats
    pace: Floats

    def match(self, users: Ints, items: Ints) -> Floats:
        """Taste match in [0, 1] of aligned pairs."""
        matched: Floats = np.einsum("nk,nk->n", self.taste[users], self.topics[items])
        return matched

    def reach(self, users: Ints, items: Ints) -> Floats:
        """Probability that a view of the pair gets as far as each of BEHAVIOURS; 4 × pairs."""
        click = _sigmoid(2.2 * self.match(users, items) - 1.6)
        cart = _sigmoid(-0.2 - self.price_sensitivity[users] * self.relative_price[items])
        purchase = _sigmoid(0.6 * self.quality[items] - 0.1)
        steps: Floats = np.stack([np.ones_like(click), click, cart, purchase])
        return np.cumprod(steps, axis=0, dtype=np.float64)

    def expected_views(self, users: Ints, items: Ints, days: range) -> Floats:
        """Expected number of views of aligned pairs, summed over the days."""
        total = np.zeros(len(users))
        for day in days:
            total += self.pace[users, day] * self.pull[items, day]
        return total * self.popularity[items] * np.exp(_TASTE_PULL * self.match(users, items))


class Views(NamedTuple):
    """One entry per view: positions, day, and the last of BEHAVIOURS it led to (0 to 3)."""

    user: Ints
    item: Ints
    day: Ints
    depth: Ints


def draw_world(rng: np.random.Generator, *, users: int, items: int, days: int, end: date) -> World:
    """Draw all parameters of a world that begins `days` before `end`."""
    first = end - timedelta(days=days)
    total = days + AFTER_DAYS
    own = _draw_items(rng, count=items, days=days) | _draw_users(rng, count=users, total=total)
    day = np.arange(total)
    on_sale = _between(day, own["item_from"], own["item_until"])
    active = _between(day, own["user_from"], own["user_until"])
    rhythm = np.resize(np.roll(_WEEKDAYS, -first.weekday()), total)
    offered = np.empty(active.shape)
    for start in range(0, users, _USER_BLOCK):
        block = slice(start, start + _USER_BLOCK)
        offered[block] = _appeal(own["taste"][block], own["topics"], own["popularity"]) @ on_sale
    return World(
        first=first,
        rhythm=rhythm,
        pull=on_sale * (own["topics"] @ _season(first, total)),
        pace=active * own["activity"][:, None] * rhythm / offered,
        **own,
    )


def draw_views(world: World, rng: np.random.Generator) -> Views:
    """One history of the world: every view of all its days, and how far each of them went."""
    blocks = []
    for start in range(0, len(world.taste), _USER_BLOCK):
        users = np.arange(start, min(start + _USER_BLOCK, len(world.taste)))
        appeal = _appeal(world.taste[users], world.topics, world.popularity)
        counts = rng.poisson(world.pace[users] * (appeal @ world.pull))
        row, day = (np.repeat(axis, counts[counts > 0]) for axis in np.nonzero(counts))
        cumulative = np.cumsum(appeal[row] * world.pull.T[day], axis=1)
        target = rng.random(len(row)) * cumulative[:, -1]
        item = (cumulative <= target[:, None]).sum(axis=1)
        # One number against the falling chances of getting further keeps the funnel nested.
        depth = (rng.random(len(row)) < world.reach(users[row], item)[1:]).sum(axis=0)
        blocks.append((users[row], item, day, depth))
    return Views(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _draw_items(rng: np.random.Generator, *, count: int, days: int) -> dict[str, Any]:
    """The items' parameters. One in eight is a near variant of another: a shared design."""
    design = np.arange(count)
    copies = rng.permutation(count)[: count // 8]
    design[copies] = rng.choice(np.delete(design, copies), size=len(copies))
    main = rng.integers(len(TOPICS), size=count)[design]
    side = np.where(rng.random(count) < 0.25, 0.35, 0.0)[design]
    topics = np.zeros((count, len(TOPICS)))
    topics[np.arange(count), main] = 1 - side
    topics[np.arange(count), main ^ 1] = side  # a category's two topics are neighbours
    middle = np.array([CATEGORIES[topic.category][0] for topic in TOPICS])[main]
    spread = 0.5 * rng.standard_normal(count)[design] + 0.05 * rng.standard_normal(count)
    price = np.floor(middle * np.exp(spread)) + 0.99
    brand = rng.integers(4, size=count)[design]
    brand_quality = 0.5 * rng.standard_normal((len(TOPICS) // 2, 4))[main // 2, brand]
    born, until = _item_lives(rng, count=count, days=days)
    return {
        "design": design,
        "topics": topics,
        "brand": brand,
        "price": price,
        "relative_price": np.log(price / middle),
        "popularity": np.exp(0.8 * rng.standard_normal(count)),
        "quality": brand_quality + 0.7 * rng.standard_normal(count),
        "item_born": born,
        "item_from": _next_day(born),
        "item_until": until,
    }


def _item_lives(rng: np.random.Generator, *, count: int, days: int) -> tuple[Floats, Ints]:
    """When each item is created and the day from which it is no longer sold.

    1% come after `end`, 5% in the two weeks before it, 20% earlier in the period and the rest
    before it. Of these last some (6% of all items) are withdrawn in the three weeks before `end`.
    """
    born = rng.uniform(-700, 0, size=count)
    until = np.full(count, days + AFTER_DAYS)
    order = rng.permutation(count)
    late, new, grown, gone = np.cumsum([count // 100, -(-count // 20), count // 5, -(-count // 16)])
    born[order[:late]] = rng.uniform(days, days + AFTER_DAYS, size=late)
    born[order[late:new]] = rng.uniform(days - 14, days, size=new - late)
    born[order[new:grown]] = rng.uniform(0, days - 14, size=grown - new)
    until[order[grown:gone]] = rng.integers(days - 21, days + 1, size=gone - grown)
    return born, until


def _draw_users(rng: np.random.Generator, *, count: int, total: int) -> dict[str, Any]:
    """The users' parameters: 30% register in the period, 20% leave in it, 6% never act."""
    during = rng.random(count) < 0.3
    born = np.where(during, rng.uniform(0, total, size=count), rng.uniform(-700, 0, size=count))
    start = _next_day(born)
    fate = rng.random(count)
    until = np.where(fate < 0.2, rng.integers(start, total + 1), total)
    return {
        "taste": rng.dirichlet(np.full(len(TOPICS), 0.1), size=count),
        "activity": 0.2 * np.exp(1.0 * rng.standard_normal(count)),
        "price_sensitivity": rng.gamma(2.0, 0.6, size=count),
        "user_born": born,
        "user_from": start,
        "user_until": np.where(fate > 0.94, start, until),
    }


def _season(first: date, total: int) -> Floats:
    """Factor of each topic on each day; a smooth yearly wave; topics × days."""
    of_year = np.array([(first + timedelta(days=n)).timetuple().tm_yday for n in range(total)])
    peak = np.array([topic.peak * 30.4 - 15 for topic in TOPICS])
    swing = np.array([topic.swing for topic in TOPICS])
    wave = np.cos(2 * np.pi * (of_year - peak[:, None]) / 365.25)
    return np.asarray(np.exp(swing[:, None] * wave))


def _next_day(born: Floats) -> Ints:
    """The first whole day after each moment, not before day 0."""
    return np.maximum(0, np.floor(born).astype(np.int64) + 1)


def _appeal(taste: Floats, topics: Floats, popularity: Floats) -> Floats:
    """Weight of every item for every user before season and sale; users × items."""
    return popularity * np.exp(_TASTE_PULL * (taste @ topics.T))


def _between(day: Ints, start: Ints, until: Ints) -> npt.NDArray[np.bool_]:
    """Rows × days: whether `start <= day < until`."""
    return (start[:, None] <= day) & (day < until[:, None])


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))
