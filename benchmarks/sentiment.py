"""Holds the sentiment of reviews, read from their texts, against labels that it has never seen.

The head learns from the ratings of the earlier reviews and reads the texts of the later ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from embed import VectorCache, embed_texts, load_encoder, review_texts
from jobs.config_sections import EncoderConfig
from jobs.console import show_table
from rank.calibrate import Floats
from rank.sentiment import NEUTRAL, Head

LEARNT_SHARE = 0.8
SORRY, GLAD = 0, 2

Row = tuple[str, int, float]


def main(
    folder: Annotated[Path, typer.Argument(help="Holds reviews.parquet of steam-au.")],
    home: Annotated[Path, typer.Option(help="Where vectors are kept.")] = Path(
        "nightrank-home/benchmarks/sentiment"
    ),
    encoder: Annotated[str, typer.Option(help="Language model.")] = "packaged/all-MiniLM-L6-v2",
) -> None:
    """Print how the sentiment of later texts goes with their labels and ratings."""
    reviews, vectors = written(pl.read_parquet(folder / "reviews.parquet"), encoder, home)
    cut = int(LEARNT_SHARE * len(reviews))
    rating = reviews.get_column("recommend").cast(pl.Float64).to_numpy()
    head = Head.fit(vectors[:cut], rating[:cut])
    rows = list(figures(reviews[cut:], head(vectors[cut:])))
    show_table(f"{encoder}, {cut:,} texts learnt from", ["figure", "texts", "value"], rows)


def written(
    reviews: pl.DataFrame, encoder: str, home: Path
) -> tuple[pl.DataFrame, NDArray[np.float32]]:
    """The dated reviews with a text, the earliest first, and their vectors."""
    dated = reviews.drop_nulls("date").sort("date", maintain_order=True)
    model = load_encoder(encoder, max_tokens=EncoderConfig().max_tokens)
    cache = VectorCache(home, fingerprint=model.fingerprint, dimension=model.dimension)
    texts = review_texts(dated.select(title=pl.lit(None, pl.String), text="review_text"))
    vectors = embed_texts(texts, encoder=model, cache=cache).vectors
    kept = vectors.any(axis=1)
    return dated.filter(pl.Series(kept)), vectors[kept]


def figures(reviews: pl.DataFrame, sentiment: Floats) -> Iterator[Row]:
    """Name, number of texts and value.

    Args:
        reviews: (n,) recommend, sentiment_label (0 negative, 1 neutral, 2 positive).
        sentiment: (n,) read from their texts.
    """
    label = reviews.get_column("sentiment_label").to_numpy()
    rating = reviews.get_column("recommend").to_numpy()
    clear = (label == SORRY) | (label == GLAD)
    glad, said = label[clear] == GLAD, sentiment[clear]
    yield "share of positive among positive and negative", int(clear.sum()), float(glad.mean())
    yield "AUC, positive against negative", int(clear.sum()), roc_auc_score(glad, said)
    yield "accuracy, likewise, cut at 1/2", int(clear.sum()), accuracy_score(glad, said > NEUTRAL)
    at_mean = balanced_accuracy_score(glad, said > sentiment.mean())
    yield "balanced accuracy, likewise, cut at the mean", int(clear.sum()), at_mean
    yield "AUC, positive against neutral", *_auc(label != SORRY, label == GLAD, sentiment)
    yield "AUC, neutral against negative", *_auc(label != GLAD, label != SORRY, sentiment)
    yield "Spearman with the label", len(label), float(spearmanr(label, sentiment).statistic)
    yield "AUC of the rating itself", len(rating), roc_auc_score(rating, sentiment)


def _auc(
    among: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    sentiment: Floats,
) -> tuple[int, float]:
    return int(among.sum()), roc_auc_score(positive[among], sentiment[among])


if __name__ == "__main__":
    typer.run(main)
