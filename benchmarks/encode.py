"""How fast texts become vectors: sentence-transformers plainly, and ours, in turns.

Each of ours is held against the vectors of sentence-transformers, too.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray

from embed import item_texts, load_encoder, review_texts
from embed.loading import minilm_folder
from embed.trial import Trial, compare, count_tokens, fidelity, ratio
from jobs.config_sections import EncoderConfig
from jobs.console import show_table

MODEL = "packaged/all-MiniLM-L6-v2"
PLAIN_BATCH = 32
PLAIN = f"sentence-transformers, batch {PLAIN_BATCH}"
OURS = {
    "torch float32": ("torch", "float32"),
    "OpenVINO float32": ("openvino", "float32"),
    "OpenVINO int8": ("openvino", "int8"),
}
COLUMNS = [
    "encoder", "tokens/s", "texts/s", "times plain", "by CPU time", "mean cosine", "least",
    "top-10 overlap",
]  # fmt: skip

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def main(
    folder: Annotated[Path, typer.Argument(help="Holds reviews.parquet, items.parquet of Steam.")],
    home: Annotated[Path, typer.Option(help="Where the int8 network is kept.")] = Path(
        "nightrank-home/benchmarks/encode"
    ),
    texts: Annotated[int, typer.Option(min=20, help="Texts of the sample.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
) -> None:
    """Print speed and fidelity side by side."""
    everything = texts_of(folder)
    order = np.random.default_rng(seed).permutation(len(everything))
    sample = [everything[row] for row in order[:texts]]
    calibration = [everything[row] for row in order[texts:]]
    tokens = count_tokens(sample, load_encoder(MODEL, backend="torch", max_tokens=_max_tokens()))
    trials = compare(ways(home, calibration), sample, rounds=rounds)
    title = f"{len(sample):,} texts, {tokens:,} tokens, {rounds} rounds in turns"
    show_table(title, COLUMNS, list(rows(trials, len(sample), tokens)))


def texts_of(folder: Path) -> list[str]:
    """The distinct texts of reviews and items."""
    reviews = pl.read_parquet(folder / "reviews.parquet")
    items = pl.read_parquet(folder / "items.parquet")
    found = review_texts(reviews.select(title=pl.lit(None, pl.String), text="review_text"))
    found += item_texts(items, template="{title}. {genres}. {tags}")
    return [text for text in dict.fromkeys(found) if text.strip()]


def ways(home: Path, calibration: Sequence[str]) -> dict[str, Encode]:
    """Plain use of the library first, then ours; int8 is calibrated to texts not in the sample."""
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(minilm_folder()), device="cpu")
    plain.max_seq_length = _max_tokens()

    def plainly(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = plain.encode(
            list(texts), batch_size=PLAIN_BATCH, normalize_embeddings=True
        )
        return vectors

    found: dict[str, Encode] = {PLAIN: plainly}
    for name, (backend, precision) in OURS.items():
        found[name] = load_encoder(
            MODEL,
            device="cpu",
            backend=backend,
            precision=precision,
            max_tokens=_max_tokens(),
            calibrations=home,
            sample=lambda: calibration,
        ).encode
    return found


def rows(trials: dict[str, Trial], texts: int, tokens: int) -> Iterator[tuple[object, ...]]:
    """One for each way, as of `COLUMNS`."""
    plain = trials[PLAIN]
    for name, trial in trials.items():
        seconds = median(trial.seconds)
        near = fidelity(trial.vectors, plain.vectors)
        yield (
            name,
            round(tokens / seconds),
            round(texts / seconds),
            ratio(trial.seconds, plain.seconds),
            ratio(trial.cpu_seconds, plain.cpu_seconds),
            near.mean,
            near.least,
            near.overlap,
        )


def _max_tokens() -> int:
    return EncoderConfig().max_tokens


if __name__ == "__main__":
    typer.run(main)
