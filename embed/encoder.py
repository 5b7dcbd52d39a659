"""Language models that turn texts into unit vectors, with fixed settings.

Everything heavy (torch, sentence-transformers, OpenVINO) is imported in this room alone, and only
when an encoder is loaded.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embed.batches import token_batches
from embed.loading import EncoderError, best_device, limit_tokens, load_transformer, quieten

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embed.engines import Engine

CPU_TOKENS, GPU_TOKENS = 2048, 65_536
BACKENDS = {"torch": ("float32", "float16", "bfloat16"), "openvino": ("float32", "int8")}


class Encoder:
    """A sentence-transformers model with fixed settings.

    Attributes:
        fingerprint: hex digest of all that decides a vector: the model's name, revision, weights
            and tokenizer, the longest input, the prompt, the backend, the precision, what int8 was
            calibrated to, and the normalisation. Vectors of different fingerprints must not be
            compared. Neither the device nor the size of batches counts: they move the last bits
            only.
        dimension: length of each vector.
        device: where it computes, such as ``cpu`` or ``cuda:0,cuda:1``.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        engine: "Engine",
        *,
        fingerprint: str,
        device: str,
        batch_tokens: int,
        prompt: str,
    ) -> None:
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise EncoderError("The language model does not state the length of its vectors.")
        self.fingerprint = fingerprint
        self.dimension = dimension
        self.device = device
        self._model = model
        self._engine = engine
        self._batch_tokens = batch_tokens
        self._prompt = prompt

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of `texts`: float32, one row of length 1 for each, in the same order.

        The same list of texts gives the same bits; the neighbours of a text in its batch may move
        its last bits. A text in which a static model knows no token gives zeros.

        Raises:
            EncoderError: if the model gives NaN or infinity, or cannot be compiled.
            TypeError: if a text holds a lone surrogate; clean the texts first.
        """
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        self._engine.run(
            token_batches(texts, self._model, prompt=self._prompt, budget=self._batch_tokens),
            vectors,
        )
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if broken.size:
            raise EncoderError(
                f"The language model gave NaN or infinity for {broken.size} of {len(texts)} texts, "
                f"the first of {len(texts[broken[0]])} characters. Its weights may be damaged."
            )
        return vectors


def load_encoder(
    model: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "float32",
    max_tokens: int | None = None,
    batch_tokens: int | None = None,
    prompt: str | None = None,
    calibrations: Path | None = None,
    sample: Callable[[], Sequence[str]] | None = None,
) -> Encoder:
    """Load the language model that `model` names.

    Args:
        model: a name on the Hugging Face hub, a folder, ``packaged/all-MiniLM-L6-v2`` (384
            dimensions) or ``packaged/wordllama`` (256 dimensions, static, about a hundred times
            faster). A hub model that was downloaded once is used as it is, without asking the hub.
        revision: the commit on the hub, 40 hexadecimal digits; a hub model is refused without:
            branches and tags move, and with them every probability.
        device: a device of torch, or several parted by commas, or ``auto`` for CUDA where torch
            sees it and the CPU elsewhere. ``cuda`` is every GPU that torch sees. Several have a
            process each.
        backend: ``torch``, ``openvino`` (transformers on the CPU), or ``auto`` for OpenVINO where
            it is installed and can take the model, and torch elsewhere.
        precision: ``float32``; with torch ``float16`` or ``bfloat16``, with OpenVINO ``int8``.
        max_tokens: tokens read of each text; None leaves it to the model.
        batch_tokens: tokens per forward pass, padding included; None is 2,048 on the CPU and
            65,536 on others.
        prompt: put before each text; None takes the model's default prompt if it has one.
        calibrations: folder in which int8 networks are kept; a network is calibrated once, for
            with another the vectors of before could not be used.
        sample: gives texts such as will be encoded, for a network that is not there yet. Without
            it such an encoder has a fingerprint that no vectors are of, and cannot encode.

    Raises:
        EncoderNotFound: if the model is not to be found, or not loadable.
        EncoderError: if the model cannot read `max_tokens` tokens, or is of the hub and no commit
            is given; if backend, precision and device do not go together, or are not installed.
    """
    quieten()
    devices = _devices(device)
    first = devices[0] if len(devices) == 1 else "cpu"
    transformer = load_transformer(model, revision=revision, device=first).float().eval()
    if max_tokens is not None:
        limit_tokens(transformer, model, max_tokens)
    if prompt is None:
        prompt = transformer.prompts.get(transformer.default_prompt_name or "") or ""
    making = {
        # A folder may move: what is in it decides.
        "model": "folder" if Path(model).is_dir() else model,
        "revision": revision,
        "max_tokens": str(max_tokens or transformer.max_seq_length),
        "prompt": prompt,
        "precision": precision,
        "normalised": True,
        "content": _content_hash(transformer),
    }
    if _backend(backend, precision, devices, transformer) == "openvino":
        making["backend"] = "openvino"
        engine = _on_openvino(transformer, precision, making, prompt, calibrations, sample)
    else:
        engine = _on_torch(transformer, precision, devices)
    return Encoder(
        transformer,
        engine,
        fingerprint=_digest(making),
        device=",".join(devices),
        batch_tokens=batch_tokens or (CPU_TOKENS if devices[0] == "cpu" else GPU_TOKENS),
        prompt=prompt,
    )


def _devices(device: str) -> list[str]:
    import torch

    best = best_device(device)
    if best == "cuda":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cuda"]
    return best.split(",")


def _backend(
    asked: str, precision: str, devices: Sequence[str], transformer: "SentenceTransformer"
) -> str:
    """The backend to use; raises where it cannot do what is asked."""
    from embed import compiled

    able = list(devices) == ["cpu"] and compiled.can_compile(transformer)
    chosen = asked
    if asked == "auto":
        wanted = precision == "int8" or (precision == "float32" and able and compiled.installed())
        chosen = "openvino" if wanted else "torch"
    if precision not in BACKENDS[chosen]:
        raise EncoderError(
            f"encoder.precision is {precision!r}, but the backend {chosen} computes in "
            f"{' or '.join(BACKENDS[chosen])}."
        )
    if chosen == "openvino" and not compiled.installed():
        raise EncoderError(
            f"encoder.backend {asked!r} with precision {precision!r} needs OpenVINO, which is not "
            "installed: pip install 'nightrank[openvino]', or set encoder.backend to 'torch' and "
            "encoder.precision to 'float32'."
        )
    if chosen == "openvino" and not able:
        raise EncoderError(
            "OpenVINO takes transformers on the CPU that are padded on the right; this model or "
            f"the device {','.join(devices)} is none: set encoder.backend to 'torch'."
        )
    return chosen


def _on_torch(
    transformer: "SentenceTransformer", precision: str, devices: Sequence[str]
) -> "Engine":
    from embed.engines import PRECISIONS, DevicesEngine, TorchEngine

    transformer = transformer.to(PRECISIONS[precision])
    if len(devices) > 1:
        return DevicesEngine(transformer, devices)
    return TorchEngine(transformer)


def _on_openvino(
    transformer: "SentenceTransformer",
    precision: str,
    making: dict[str, Any],
    prompt: str,
    calibrations: Path | None,
    sample: Callable[[], Sequence[str]] | None,
) -> "Engine":
    """The engine of OpenVINO; `making` is told what int8 was calibrated to."""
    from embed import compiled

    if precision == "float32":
        return compiled.CompiledEngine(lambda: compiled.convert(transformer, prompt=prompt))
    if calibrations is None:
        raise EncoderError("int8 needs a folder in which its calibration is kept.")
    folder = calibrations / _digest(making)
    if sample is not None and not folder.exists():
        compiled.calibrate(transformer, sample(), folder, prompt=prompt)
    if folder.exists():
        making["calibrated"] = compiled.verified(folder)
    return compiled.CompiledEngine(lambda: compiled.read(folder))


def _digest(making: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(making).encode(), digest_size=16).hexdigest()


def _content_hash(transformer: "SentenceTransformer") -> str:
    """Digest of the weights, the tokenizer and the settings of each module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(transformer.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    for module in transformer.children():
        settings: dict[str, Any] = getattr(module, "get_config_dict", dict)()
        digest.update(f"{type(module).__name__} {sorted(settings.items())}".encode())
    digest.update(_tokenizer_state(transformer.tokenizer).encode())
    return digest.hexdigest()


def _tokenizer_state(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):  # one of the slow kind, written in Python
        return json.dumps(tokenizer.get_vocab(), sort_keys=True, default=list)
    state = json.loads(backend.to_str())
    # Both change while encoding; the longest input is named in the fingerprint by itself.
    state["truncation"] = state["padding"] = None
    return json.dumps(state, sort_keys=True)
