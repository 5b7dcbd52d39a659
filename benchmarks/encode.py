"""How fast texts become vectors: sentence-transformers plainly, ours, and the limit, in turns.

Each of ours is held against the vectors of sentence-transformers, too. The limit multiplies as many
rows as there are tokens by the matrices of the network's layers, and does nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray

from embed import item_texts, load_encoder, review_texts
from embed.encoder import CPU_TOKENS
from embed.loading import minilm_folder
from embed.trial import Trial, compare, count_tokens, fidelity, ratio
from jobs.config_sections import EncoderConfig
from jobs.console import show_table

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = "packaged/all-MiniLM-L6-v2"
PLAIN_BATCH = 32
PLAIN = f"sentence-transformers, batch {PLAIN_BATCH}"
LIMIT = "limit: float32 products of the layers alone"
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
    plain = plain_model()
    compared = ways(plain, home, calibration) | {LIMIT: products(plain, tokens)}
    trials = compare(compared, sample, rounds=rounds)
    title = f"{len(sample):,} texts, {tokens:,} tokens, {rounds} rounds in turns"
    show_table(title, COLUMNS, list(rows(trials, len(sample), tokens)))


def texts_of(folder: Path) -> list[str]:
    """The distinct texts of reviews and items."""
    reviews = pl.read_parquet(folder / "reviews.parquet")
    items = pl.read_parquet(folder / "items.parquet")
    found = review_texts(reviews.select(title=pl.lit(None, pl.String), text="review_text"))
    found += item_texts(items, template="{title}. {genres}. {tags}")
    return [text for text in dict.fromkeys(found) if text.strip()]


def plain_model() -> "SentenceTransformer":
    """The network as the library loads it."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm_folder()), device="cpu")
    model.max_seq_length = _max_tokens()
    return model


def ways(plain: "SentenceTransformer", home: Path, calibration: Sequence[str]) -> dict[str, Encode]:
    """Plain use of the library first, then ours; int8 is calibrated to texts not in the sample."""

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


def products(plain: "SentenceTransformer", tokens: int) -> Encode:
    """Rows for all tokens times the layers' matrices, in batches as large as ours; no vectors."""
    import torch

    layers = [part for name, part in plain.named_modules()
              if ".encoder." in name and isinstance(part, torch.nn.Linear)]  # fmt: skip
    rows = {
        width: torch.rand(CPU_TOKENS, width) for width in {layer.in_features for layer in layers}
    }
    sizes = [min(CPU_TOKENS, tokens - start) for start in range(0, tokens, CPU_TOKENS)]

    def multiply(_: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            for size in sizes:
                for layer in layers:
                    torch.mm(rows[layer.in_features][:size], layer.weight.T)
        return np.empty((0, 0), dtype=np.float32)

    return multiply


def rows(trials: dict[str, Trial], texts: int, tokens: int) -> Iterator[tuple[object, ...]]:
    """One for each way, as of `COLUMNS`."""
    plain = trials[PLAIN]
    for name, trial in trials.items():
        seconds = median(trial.seconds)
        near = fidelity(trial.vectors, plain.vectors) if len(trial.vectors) else None
        yield (
            name,
            round(tokens / seconds),
            round(texts / seconds),
            ratio(trial.seconds, plain.seconds),
            ratio(trial.cpu_seconds, plain.cpu_seconds),
            *((near.mean, near.least, near.overlap) if near else ("", "", "")),
        )


def _max_tokens() -> int:
    return EncoderConfig().max_tokens


if __name__ == "__main__":
    typer.run(main)
