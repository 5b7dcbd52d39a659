"""A transformer compiled for the CPU by OpenVINO: in float32, or calibrated to int8.

Converted in this process from the model that torch has loaded, so no other library need know it.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import shutil
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from embed.batches import Batch, Features, token_batches
from embed.engines import Vectors, unit_vectors, vectors_of
from embed.loading import EncoderError

Network = Any  # of OpenVINO; this file is checked without it, too

# Texts, and tokens of a batch of them, that the ranges of int8 are taken from.
CALIBRATION_TEXTS = 128
CALIBRATION_TOKENS = 512
MANIFEST = "manifest.json"
# A conversion in float32 keeps the vectors of the probes as close as this.
FAITHFUL = 1e-5
_TRACED = ["a text", "another text, of more words than the first has"]
_PROBES = ["three texts", "more of them, and of other lengths than those traced", "one"]


class CompiledEngine:
    """The compiled transformer, a stream of one thread for each thread that torch would use.

    A batch is computed by one thread, so any number of them gives the same bits.
    """

    def __init__(self, network: Callable[[], Network]) -> None:
        self._network = network

    @cached_property
    def _compiled(self) -> Any:
        threads = torch.get_num_threads()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU knows it
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # the cores may be shared with others
        }
        return import_openvino().Core().compile_model(self._network(), "CPU", options)

    def run(self, batches: Iterable[Batch], out: Vectors) -> None:
        """As of `Engine`."""
        queue = import_openvino().AsyncInferQueue(self._compiled)

        def keep(request: Any, rows: Any) -> None:
            out[rows] = request.get_output_tensor(0).data

        queue.set_callback(keep)
        try:
            for rows, features in batches:
                queue.start_async(_inputs(features), userdata=rows)
        finally:
            queue.wait_all()


def installed() -> bool:
    """Whether OpenVINO is there."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> Any:
    """OpenVINO, which else would tell its maker that a model was converted, and of which kind."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def can_compile(transformer: SentenceTransformer) -> bool:
    """Whether the model is a transformer of texts, padded on the right."""
    side = getattr(transformer.tokenizer, "padding_side", None)
    return isinstance(transformer[0], Transformer) and side == "right"


def convert(transformer: SentenceTransformer, *, prompt: str) -> Network:
    """The whole of it, from tokens to vectors of length 1, for any number and length of texts.

    Raises:
        EncoderError: if it cannot be converted, or gives other vectors then.
    """
    features = transformer.preprocess(_TRACED, prompt=prompt)
    names = [name for name in features if isinstance(features[name], torch.Tensor)]
    others = {name: value for name, value in features.items() if name not in names}
    tokens = tuple(features[name] for name in names)
    ov = import_openvino()
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what tracing may miss: the outcome is checked
            network = ov.convert_model(
                _Tokens(transformer, names, others).eval(), example_input=tokens
            )
        compiled = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        probes = transformer.preprocess(_PROBES, prompt=prompt)
        found = compiled(_inputs(probes))[0]
    except Exception as error:  # whatever tracing or the conversion trips over
        raise EncoderError(
            f"OpenVINO cannot convert the language model ({error}): set encoder.backend to 'torch'."
        ) from error
    similar = (found * vectors_of(transformer, probes)).sum(axis=1).min()
    if not similar > 1 - FAITHFUL:
        raise EncoderError(
            f"Converted for OpenVINO, the language model gives vectors of cosine {similar:.6f} to "
            "its own: set encoder.backend to 'torch'."
        )
    return network


class _Tokens(torch.nn.Module):
    """A transformer as a function of tensors alone, which is what can be traced."""

    def __init__(
        self, transformer: SentenceTransformer, names: Sequence[str], others: Features
    ) -> None:
        super().__init__()
        self.transformer, self.names, self.others = transformer, names, others

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        named = dict(zip(self.names, tokens, strict=True))
        return unit_vectors(self.transformer, named | self.others)


def calibrate(
    transformer: SentenceTransformer, texts: Sequence[str], folder: Path, *, prompt: str
) -> None:
    """Keep in `folder` the network in int8, its ranges taken from a sample of `texts`.

    Post-training quantisation of weights and activations, with smoothing of the activations'
    outliers (Xiao et al., SmoothQuant, ICML 2023), by NNCF.

    Raises:
        EncoderError: as `convert`, or if NNCF is not installed or there is no text.
    """
    ov = import_openvino()
    if importlib.util.find_spec("nncf") is None:
        raise EncoderError("int8 needs the package nncf: pip install 'nightrank[openvino]'.")
    if not texts:
        raise EncoderError("int8 is calibrated on texts, and there are none.")
    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    chosen = np.random.default_rng(0).permutation(len(texts))[:CALIBRATION_TEXTS]
    batches = token_batches(
        [texts[row] for row in chosen], transformer, prompt=prompt, budget=CALIBRATION_TOKENS
    )
    sample = [_inputs(features) for _, features in batches]
    network = convert(transformer, prompt=prompt)
    with contextlib.redirect_stdout(io.StringIO()):  # bars of its own
        quantised = nncf.quantize(
            network,
            nncf.Dataset(sample),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(sample),
        )
    building = folder.with_name(f".new-{folder.name}-{uuid.uuid4().hex[:8]}")
    building.mkdir(parents=True)
    try:
        ov.save_model(quantised, building / "model.xml", compress_to_fp16=False)
        (building / MANIFEST).write_text(json.dumps({"sha256": _digests(building)}, indent=2))
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def read(folder: Path) -> Network:
    """The network that `calibrate` kept.

    Raises:
        EncoderError: if it did not, or a file is damaged.
    """
    verified(folder)
    return import_openvino().Core().read_model(folder / "model.xml")


def verified(folder: Path) -> list[str]:
    """SHA-256 of the files of a network that `calibrate` kept.

    Raises:
        EncoderError: if they are not those that were written.
    """
    try:
        wanted = json.loads((folder / MANIFEST).read_text())["sha256"]
        found = _digests(folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EncoderError(f"There is no whole calibration in {folder}: {error}.") from error
    if found != wanted:
        raise EncoderError(
            f"The calibration in {folder} is damaged: remove the folder, and the next run "
            "calibrates anew and encodes every text again."
        )
    return list(found.values())


def _digests(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.xml", "model.bin")
    }


def _inputs(features: Features) -> list[Any]:
    return [value.numpy() for value in features.values() if isinstance(value, torch.Tensor)]
