"""What `nightrank doctor --encoder` measures: each way to encode, on texts of the sources."""

from collections.abc import Iterator
from statistics import median

import numpy as np
import polars as pl

from embed import Encoder, EncoderError
from embed.trial import compare, count_tokens, fidelity
from jobs.config import Config
from jobs.errors import DataRefused
from jobs.nightly import Night, read
from jobs.vectors import encoder_of, filled_texts

TEXTS = 512
FEWEST_TEXTS = 20  # the ten nearest of fewer texts say nothing
ROUNDS = 3
# Mean cosine to float32 of torch: above the first nothing changes, above the second little.
SAME, NEAR = 0.9999, 0.995

Way = tuple[str, str]
REFERENCE: Way = ("torch", "float32")
ON_CPU: list[Way] = [("openvino", "float32"), ("openvino", "int8")]
ON_GPU: list[Way] = [("torch", "bfloat16"), ("torch", "float16")]
SCHEMA = {
    "backend": pl.String,
    "precision": pl.String,
    "tokens_per_second": pl.Float64,
    "texts_per_second": pl.Float64,
    "mean_cosine": pl.Float64,
    "least_cosine": pl.Float64,
    "overlap": pl.Float64,
}


def measure(night: Night) -> tuple[pl.DataFrame, list[str]]:
    """Speed and fidelity of every way that is installed and takes the model; what keeps others.

    Cosines, and the overlap of the ten nearest texts, are to torch in float32, the first row. An
    int8 network that is not there yet is calibrated to the sources' texts, and kept.

    Raises:
        DataRefused: the sources hold too few texts.
    """
    inputs = read(night)
    texts = filled_texts(inputs, night.config)
    if len(texts) < FEWEST_TEXTS:
        raise DataRefused(
            f"the sources hold {len(texts)} distinct texts, and measuring encoders needs "
            f"{FEWEST_TEXTS}"
        )
    chosen = np.random.default_rng(0).permutation(len(texts))[:TEXTS]
    sample = [texts[row] for row in chosen]
    reference = encoder_of(_with(night.config, REFERENCE), night.home)
    encoders, kept_out = {REFERENCE: reference}, []
    for way in ON_CPU if reference.device == "cpu" else ON_GPU:
        try:
            encoders[way] = encoder_of(_with(night.config, way), night.home, inputs)
        except EncoderError as error:
            kept_out.append(f"{way[0]} {way[1]} is not measured: {error}")
    return _figures(encoders, sample), kept_out


def recommend(figures: pl.DataFrame) -> str:
    """What to set, from what `measure` found; int8 and the like are named, never the advice.

    >>> rows = [("torch", "float32", 7e3, 90.0, 1.0, 1.0, 1.0),
    ...     ("openvino", "float32", 1e4, 130.0, 1.0, 1.0, 1.0),
    ...     ("openvino", "int8", 2.1e4, 270.0, 0.997, 0.98, 0.93)]
    >>> print(recommend(pl.DataFrame(rows, SCHEMA, orient="row")))
    recommended: backend = "openvino", precision = "float32". Faster still, 3.0 times torch \
float32: backend = "openvino", precision = "int8", where 7% of the nearest texts change.
    """
    speed = pl.col("texts_per_second")
    by_speed = figures.sort(speed, descending=True)
    same = by_speed.filter(pl.col("mean_cosine") > SAME).row(0, named=True)
    near = by_speed.filter(pl.col("mean_cosine") > NEAR).row(0, named=True)
    said = "recommended: " + _setting(same)
    if near["texts_per_second"] <= same["texts_per_second"]:
        return said + "."
    times = near["texts_per_second"] / figures["texts_per_second"][0]
    return (
        f"{said}. Faster still, {times:.1f} times torch float32: {_setting(near)}, where "
        f"{1 - near['overlap']:.0%} of the nearest texts change."
    )


def _setting(row: dict[str, object]) -> str:
    return f'backend = "{row["backend"]}", precision = "{row["precision"]}"'


def _with(config: Config, way: Way) -> Config:
    backend, precision = way
    options = config.encoder.model_copy(update={"backend": backend, "precision": precision})
    return config.model_copy(update={"encoder": options})


def _figures(encoders: dict[Way, Encoder], texts: list[str]) -> pl.DataFrame:
    tokens = count_tokens(texts, encoders[REFERENCE])
    trials = compare(
        {way: encoder.encode for way, encoder in encoders.items()}, texts, rounds=ROUNDS
    )

    def rows() -> Iterator[tuple[object, ...]]:
        for way, trial in trials.items():
            seconds = median(trial.seconds)
            near = fidelity(trial.vectors, trials[REFERENCE].vectors)
            yield (
                *way,
                tokens / seconds,
                len(texts) / seconds,
                near.mean,
                near.least,
                near.overlap,
            )

    return pl.DataFrame(list(rows()), SCHEMA, orient="row")
