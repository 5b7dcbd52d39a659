"""What keys of a configuration say of each other, each right by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.config import Config


def contradictions(config: Config) -> Iterator[str]:
    """A sentence for everything that does not fit together, naming key and value."""
    yield from _source_problems(config)
    yield from _review_problems(config)
    yield from _impression_problems(config)
    yield from _implied_problems(config)
    yield from _predict_problems(config)
    yield from _campaign_problems(config)


def _source_problems(config: Config) -> Iterator[str]:
    sources = config.sources
    if sources.events is None and sources.reviews is None:
        yield "sources: give events, reviews or both"
    for key in ("attributes", "columns"):
        if (names := getattr(config.users, key)) and sources.users is None:
            yield f"users.{key} = {names!r} needs sources.users to hold them"
    if sources.events is not None and not config.events.weights:
        yield (
            "events.weights is missing: sources.events is given, so name every behaviour it may "
            "hold with its weight, such as weights = { view = 1.0, buy = 5.0 }"
        )


def _review_problems(config: Config) -> Iterator[str]:
    known = ", ".join(config.events.weights) or "none is given"
    for behaviour in config.events.from_reviews:
        key = f"events.from_reviews: {behaviour!r}"
        if behaviour not in config.events.weights:
            yield f"{key} is not one of events.weights ({known})"
        if config.sources.reviews is None:
            yield f"{key} needs sources.reviews"


def _impression_problems(config: Config) -> Iterator[str]:
    events = config.events
    key = f"events.impressions = {events.impressions!r}"
    if events.impressions in events.weights:
        yield f"{key} has a weight: what is only shown is no wish; take it out of events.weights"
    if events.impressions is not None and config.sources.events is None:
        yield f"{key} needs sources.events"


def _implied_problems(config: Config) -> Iterator[str]:
    events = config.events
    known = ", ".join(events.weights) or "none is given"
    for behaviour, implied in events.implies.items():
        for name in (behaviour, implied):
            if name not in events.weights:
                yield f"events.implies: {name!r} is not one of events.weights ({known})"
        if behaviour in events.implied_by(behaviour):
            yield f"events.implies: {behaviour!r} implies itself, through {implied!r}"


def _predict_problems(config: Config) -> Iterator[str]:
    behaviours = [predict.behaviour for predict in config.predict]
    for n, behaviour in enumerate(behaviours):
        key = f"predict[{n}].behaviour = {behaviour!r}"
        if behaviour not in config.events.weights:
            known = ", ".join(config.events.weights) or "none is given"
            yield f"{key} is not one of events.weights ({known})"
        elif config.sources.events is None and behaviour not in config.events.from_reviews:
            yield (
                f"{key} has nothing to learn from: give sources.events, or say which reviews "
                f'stand for it, such as events.from_reviews = {{ {behaviour} = "rating >= 4" }}'
            )
        if behaviour in behaviours[:n]:
            yield f"{key} is predicted twice; a behaviour has one horizon"


def _campaign_problems(config: Config) -> Iterator[str]:
    names = [campaign.name for campaign in config.campaign]
    predicted = [predict.behaviour for predict in config.predict]
    for n, campaign in enumerate(config.campaign):
        if campaign.name.lower() in [name.lower() for name in names[:n]]:
            yield f"campaign[{n}].name = {campaign.name!r} is taken; each needs its own file"
        if campaign.behaviour not in predicted:
            yield (
                f"campaign[{n}].behaviour = {campaign.behaviour!r} is not predicted; predicted "
                f"behaviours: {', '.join(predicted)}"
            )
        if (after := campaign.cool_off_after) and after not in config.events.weights:
            known = ", ".join(config.events.weights)
            yield f"campaign[{n}].cool_off_after = {after!r} is not one of events.weights ({known})"
        columns = config.users.attributes + config.users.columns
        if (key := campaign.deduplicate_by) and key not in columns:
            yield (
                f"campaign[{n}].deduplicate_by = {key!r} is not one of users.columns or "
                f"users.attributes ({', '.join(columns) or 'none is given'})"
            )
        low, high = campaign.min_price, campaign.max_price
        if low is not None and high is not None and low > high:
            yield f"campaign[{n}].min_price = {low:g} is above max_price = {high:g}"
        if campaign.require_consent and not (config.sources.users or config.sources.consent):
            yield (
                f"campaign[{n}] {campaign.name!r} needs consent, but neither sources.users is "
                "given, with a consent column, nor sources.consent; or state that no consent is "
                "needed with require_consent = false"
            )
