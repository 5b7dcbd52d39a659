"""The vectors of a night's texts, and how many of them were new."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from embed import (
    Encoder,
    VectorCache,
    count_new,
    embed_texts,
    item_texts,
    load_encoder,
    review_texts,
)
from jobs.artefacts import mapped
from jobs.config import Config
from jobs.console import progress
from jobs.ingest import Inputs
from jobs.ledger import START, Ledger
from jobs.state import Material

FOLDER = "vectors"
COUNTS = ("texts", "encoded", "cached", "empty")
ANEW = "embed:anew"


def encoder_of(config: Config, home: Path, inputs: Inputs | None = None) -> Encoder:
    """The configured language model.

    Args:
        config: what names it.
        home: where int8 networks are kept.
        inputs: whose texts one is calibrated to, if there is none yet; None calibrates none.
    """
    options = config.encoder
    return load_encoder(
        options.model,
        revision=options.revision,
        device=options.device,
        backend=options.backend,
        precision=options.precision,
        max_tokens=options.max_tokens,
        batch_tokens=options.batch_tokens,
        prompt=options.prompt,
        calibrations=home / "encoders",
        sample=None if inputs is None else partial(filled_texts, inputs, config),
    )


def cache_of(home: Path, encoder: Encoder, *, writable: bool = True) -> VectorCache:
    """Where the encoder's vectors are kept."""
    return VectorCache(
        home / "cache",
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        writable=writable,
    )


def texts_of(inputs: Inputs, config: Config) -> dict[str, list[str]]:
    """The cleaned texts of items and reviews."""
    return {
        "items": item_texts(
            inputs.items, template=config.items.text, max_characters=config.items.max_characters
        ),
        "reviews": review_texts(inputs.reviews, max_characters=config.reviews.max_characters),
    }


def filled_texts(inputs: Inputs, config: Config) -> list[str]:
    """The distinct texts of items and reviews that hold more than white space."""
    return _filled(chain(*texts_of(inputs, config).values()))


def _filled(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text.strip()))


def embed(
    config: Config,
    inputs: Inputs,
    *,
    encoder: Encoder,
    cache: VectorCache,
    ledger: Ledger | None = None,
) -> tuple[Material, pl.DataFrame]:
    """The inputs with vectors, encoding what the cache does not hold.

    A run's texts are all that is used of the cache: what it holds of others is set apart. A full
    run begins by forgetting its own.

    Returns:
        What training and scoring work on; source, texts, encoded, cached and empty ones, as they
        were when the run of the ledger first met them.
    """
    vectors, counts = [], []
    texts_by_source = texts_of(inputs, config)
    used = _filled(chain(*texts_by_source.values()))
    if ledger is not None and ledger.get(START).get("full") and ANEW not in ledger:
        ledger.note(ANEW, forgotten=cache.forget(used))
    for source, texts in texts_by_source.items():
        counts.append((source, *_counts(texts, cache, f"embed:{source}", ledger)))
        with progress(f"encode {source}", len(texts)) as advance:
            vectors.append(
                embed_texts(texts, encoder=encoder, cache=cache, on_progress=advance).vectors
            )
    if ledger is not None:
        cache.set_apart(used)
    schema = {"source": pl.String} | dict.fromkeys(COUNTS, pl.Int64)
    return Material(config, inputs, *vectors), pl.DataFrame(counts, schema, orient="row")


def keep(material: Material, folder: Path) -> list[Path]:
    """Write the vectors of a run into its folder."""
    (folder / FOLDER).mkdir(exist_ok=True)
    for name, vectors in (("items", material.item_vectors), ("reviews", material.review_vectors)):
        np.save(folder / FOLDER / f"{name}.npy", vectors, allow_pickle=False)
    return sorted((folder / FOLDER).iterdir())


def kept(config: Config, inputs: Inputs, folder: Path) -> Material:
    """The inputs with the vectors that `keep` wrote, mapped: processes share their memory."""
    paths = (folder / FOLDER / f"{name}.npy" for name in ("items", "reviews"))
    return Material(config, inputs, *map(mapped, paths))


def count_texts(texts: Sequence[str], cache: VectorCache) -> list[int]:
    """Texts; of the distinct ones, those to encode and those cached; empty ones."""
    filled = [text for text in texts if text.strip()]
    new = count_new(filled, cache=cache)
    return [len(texts), new, len(set(filled)) - new, len(texts) - len(filled)]


def _counts(
    texts: Sequence[str], cache: VectorCache, step: str, ledger: Ledger | None
) -> list[int]:
    if ledger is None:
        return count_texts(texts, cache)
    if step not in ledger:
        ledger.note(step, counts=count_texts(texts, cache))
    counts: list[int] = ledger[step]["counts"]
    return counts
